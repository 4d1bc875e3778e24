"""The engine against plain Optax, the NumPy server, an unbounded history, and itself with other widths."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from hypothesis import given
from problems import KINDS, METHODS, NUM_EVENTS, SOFTMAX_PARAMS, assert_close, batch_rows, flat

import asyncflax

gradient_fn = asyncflax.from_loss(problems.softmax_loss)
BATCHES = batch_rows()
TRACES = problems.some_traces()
by_kind = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in METHODS]
)
by_width = pytest.mark.parametrize("width", [1, 4, pytest.param(7, marks=pytest.mark.slow)])


def plans(width):
    """A plan for each kind of trace; they have one shape, so that a method's runs share their programs."""
    return {kind: problems.of_one_shape(asyncflax.make_plan(trace, width=width)) for kind, trace in TRACES.items()}


@pytest.mark.parametrize(
    "tx",
    [
        optax.sgd(0.1),
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        optax.adam(1e-2),
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(optax.linear_schedule(0.1, 0.0, 20))),
        optax.chain(optax.add_decayed_weights(1e-2), optax.rmsprop(1e-2)),
        optax.polyak_sgd(0.5),
    ],
    ids=["sgd", "nesterov", "adam", "clip+schedule", "decay+rmsprop", "polyak"],
)
def test_without_staleness_any_optax_optimizer_is_itself(tx):
    trace = asyncflax.staleness.constant(0).trace(num_updates=NUM_EVENTS)
    result = asyncflax.run(asyncflax.from_optax(tx), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES)

    tx = optax.with_extra_args_support(tx)
    params, state = jax.tree.map(jnp.asarray, SOFTMAX_PARAMS), tx.init(SOFTMAX_PARAMS)

    @jax.jit
    def step(params, state, rows):
        value, grads = jax.value_and_grad(problems.softmax_loss)(params, rows)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    for rows in BATCHES:
        params, state = step(params, state, rows)
    assert_close(result.params, params)
    assert_close(result.state, state)
    assert_close(result.gap, np.zeros(NUM_EVENTS))


@by_width
@by_kind
def test_run_equals_the_numpy_server(name, width):
    """Rules are compared with their twins in tests/algorithms/test_rules.py; here it is the engine around them."""
    row = METHODS[name]
    for kind, plan in plans(width).items():
        state, out = problems.run_with_plan(row.make(), gradient_fn, SOFTMAX_PARAMS, plan, BATCHES)
        twin = problems.softmax_twin(row, TRACES[kind], BATCHES)
        assert_close(state.params, twin.theta)
        assert_close(out.losses, twin.losses)
        assert_close(out.gap, twin.gaps)
        assert_close(out.gradient_rms, twin.sizes)
        relative = np.array(twin.gaps) / twin.sizes
        assert_close(asyncflax.metrics.normalised_gap(out.gap, out.gradient_rms), relative, 1e-11)
        np.testing.assert_array_equal(out.staleness, TRACES[kind].staleness)


@given(problems.traces())
@pytest.mark.parametrize("width", [1, 3, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["multi_asgd", "nag_asgd", "dc_asgd", "dana_zero", "ormo", "smega2"])
def test_any_trace_equals_the_numpy_server(name, width, trace):
    row = METHODS[name]
    plan = problems.of_one_shape(asyncflax.make_plan(trace, width=width))
    state, out = problems.run_with_plan(row.make(), gradient_fn, SOFTMAX_PARAMS, plan, BATCHES)
    twin = problems.softmax_twin(row, trace, BATCHES)
    assert_close(state.params, twin.theta)
    assert_close(out.losses, twin.losses)
    assert_close(out.gap, twin.gaps)


@by_width
@by_kind
def test_model_state_dropout_and_keys_follow_the_events(name, width):
    key, row = jax.random.key(0), METHODS[name]
    start = {"key": key, "model_state": problems.NORM_STATE}
    for kind, plan in plans(width).items():
        state, out = problems.run_with_plan(
            row.make(), problems.norm_gradient, problems.NORM_PARAMS, plan, BATCHES, **start
        )
        twin = problems.norm_twin(row, TRACES[kind], BATCHES, key)
        assert_close(state.params, twin.theta)
        assert_close(state.model_state, twin.model_state)
        assert_close(out.losses, twin.losses)
        assert out.aux["keep"].shape == (NUM_EVENTS,)


@given(problems.traces())
def test_rounds_and_slots_change_nothing(trace):
    """Every width gives the iterates of one event after the other."""
    algorithm = METHODS["multi_asgd"].make()
    one_by_one = problems.of_one_shape(asyncflax.make_plan(trace))
    state, out = problems.run_with_plan(algorithm, gradient_fn, SOFTMAX_PARAMS, one_by_one, BATCHES)
    rounds = problems.of_one_shape(asyncflax.make_plan(trace, width=4))
    state4, out4 = problems.run_with_plan(algorithm, gradient_fn, SOFTMAX_PARAMS, rounds, BATCHES)
    assert_close(state4.params, state.params)
    assert_close(out4.losses, out.losses)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("cuts, rounds", [((5, 11), None), ((9,), 2), ((), 5)])
def test_chunks_continue_exactly(width, cuts, rounds):
    """Model state, keys and outputs of a chunked run are those of the whole (another program, so up to rounding)."""
    trace, algorithm = TRACES["exponential"], METHODS["multi_asgd"].make()
    start = {"key": jax.random.key(5), "model_state": problems.NORM_STATE}
    whole, whole_out = problems.run_with_plan(
        algorithm,
        problems.norm_gradient,
        problems.NORM_PARAMS,
        asyncflax.make_plan(trace, width=width),
        BATCHES,
        **start,
    )
    plan = asyncflax.make_plan(trace, width=width, cuts=cuts, rounds_per_chunk=rounds)
    assert len(plan) > 1
    state = asyncflax.init_run(algorithm, problems.NORM_PARAMS, plan, **start)
    losses, keep = [], []
    for chunk in plan:
        assert int(state.event) == chunk.events.start
        state, out = asyncflax.run_chunk(algorithm, problems.norm_gradient, state, chunk, chunk.take(BATCHES))
        losses.append(out.losses[: chunk.num_events])
        keep.append(out.aux["keep"][: chunk.num_events])
    assert int(state.event) == NUM_EVENTS
    assert_close(state.params, whole.params)
    assert_close(state.model_state, whole.model_state)
    assert_close(jnp.concatenate(losses), whole_out.losses)
    assert_close(jnp.concatenate(keep), whole_out.aux["keep"])


def test_chunks_inside_one_program_continue_too():
    """There nothing of the state is known to Python: what says which event is next is in the program."""
    trace, algorithm = TRACES["exponential"], METHODS["multi_asgd"].make()
    start = {"key": jax.random.key(5), "model_state": problems.NORM_STATE}
    plan = asyncflax.make_plan(trace, cuts=(9,))

    @jax.jit
    def train(state):
        for chunk in plan:
            batches = chunk.take(BATCHES)
            state, _ = asyncflax.run_chunk(algorithm, problems.norm_gradient, state, chunk, batches)
        return state

    state = train(asyncflax.init_run(algorithm, problems.NORM_PARAMS, plan, **start))
    whole = asyncflax.run(algorithm, problems.norm_gradient, problems.NORM_PARAMS, trace, BATCHES, **start)
    assert_close((state.params, state.event), (whole.params, NUM_EVENTS))


def test_a_grid_equals_its_runs_one_by_one():
    trace, row = TRACES["exponential"], METHODS["multi_asgd"]
    grid = jnp.array([[0.1, 0.0], [0.3, 0.9], [0.2, -0.3]])

    def train(learning_rate, momentum):
        algorithm = row.make(learning_rate, momentum)
        result = asyncflax.run(algorithm, gradient_fn, SOFTMAX_PARAMS, trace, BATCHES, width=3)
        return result.params, result.losses

    params, losses = jax.jit(jax.vmap(train))(grid[:, 0], grid[:, 1])
    for k, (learning_rate, momentum) in enumerate(grid.tolist()):
        alone = train(learning_rate, momentum)
        assert_close((jax.tree.map(lambda x, k=k: x[k], params), losses[k]), alone)


def test_a_stack_of_algorithms_is_a_grid_too():
    trace, row = TRACES["geometric"], METHODS["momentum_asgd"]
    stack = jax.tree.map(lambda *x: jnp.stack(x), *[row.make(r, m) for r, m in [(0.1, 0.5), (0.2, -0.5)]])
    train = lambda algorithm: asyncflax.run(algorithm, gradient_fn, SOFTMAX_PARAMS, trace, BATCHES).params
    grid = jax.vmap(train)(stack)
    assert_close(jax.tree.map(lambda x: x[1], grid), train(row.make(0.2, -0.5)))


def test_the_gradient_function_receives_its_event():
    trace = TRACES["exponential"]

    def gradient(params, batch, *, key, event, worker, model_state):
        assert model_state is None
        seen = {"event": event, "worker": worker, "key": jax.random.key_data(key), "batch": batch}
        return asyncflax.GradientResult(jnp.zeros(()), jnp.zeros_like(params), seen)

    batches = np.arange(NUM_EVENTS)
    key = jax.random.key(7)
    for width in (1, 5):
        aux = asyncflax.run(
            asyncflax.algorithms.asgd(0.1), gradient, jnp.zeros(()), trace, batches, width=width, key=key
        ).aux
        np.testing.assert_array_equal(aux["event"], np.arange(NUM_EVENTS))
        np.testing.assert_array_equal(aux["batch"], batches)
        np.testing.assert_array_equal(aux["worker"], trace.worker)
        for t in range(NUM_EVENTS):
            np.testing.assert_array_equal(aux["key"][t], jax.random.key_data(jax.random.fold_in(key, t)))


def test_view_is_told_the_reader_where_a_version_has_one():
    """A queue's version goes to the worker who made it; a shared version goes to nobody in particular."""

    def seen(trace, width):
        algorithm = asyncflax.AsyncAlgorithm(
            init=lambda params: (),
            update=lambda grads, state, params, **event: (jnp.zeros_like(grads), state),
            view=lambda params, state, *, worker=None: params - 1 if worker is None else params + worker,
        )
        gradient = lambda params, batch: (params, jnp.zeros_like(params))
        batches = np.zeros(len(trace))
        return np.asarray(asyncflax.run(algorithm, gradient, jnp.zeros(()), trace, batches, width=width).losses)

    for width in (1, 4):
        queue = TRACES["exponential"]
        np.testing.assert_array_equal(seen(queue, width), np.where(queue.read_version == 0, -1, queue.worker))
        shared = TRACES["assigned"]
        np.testing.assert_array_equal(seen(shared, width), -1)
        # Each version has one reader, and it is the other worker than the one whose update made it.
        swapped = asyncflax.Trace(worker=[0, 1, 0, 1], read_version=[0, 0, 2, 1], num_workers=2)
        np.testing.assert_array_equal(seen(swapped, width), [-1, -1, 0, 1])


def test_every_form_of_gradient_function_gives_the_same():
    trace = TRACES["exponential"]
    run = lambda fn: asyncflax.run(METHODS["asgd"].make(), fn, SOFTMAX_PARAMS, trace, BATCHES)
    with_aux = lambda params, rows: (problems.softmax_loss(params, rows), {"rows": rows})
    want = run(gradient_fn)
    for fn in [
        jax.value_and_grad(problems.softmax_loss),
        jax.jit(jax.value_and_grad(problems.softmax_loss)),
        jax.value_and_grad(with_aux, has_aux=True),
        asyncflax.from_loss(with_aux, has_aux=True),
        lambda params, rows, **context: gradient_fn(params, rows),
    ]:
        assert_close(run(fn).losses, want.losses)
    np.testing.assert_array_equal(run(asyncflax.from_loss(with_aux, has_aux=True)).aux["rows"], BATCHES)


def test_run_does_not_touch_its_arguments():
    params = jax.tree.map(jnp.asarray, SOFTMAX_PARAMS)
    before = flat(params).copy()
    algorithm = asyncflax.from_optax(optax.contrib.schedule_free_sgd(0.1, warmup_steps=2))  # its state holds params
    for _ in range(2):
        asyncflax.run(algorithm, gradient_fn, params, TRACES["exponential"], BATCHES)
    np.testing.assert_array_equal(flat(params), before)


def test_compiles_once_for_chunks_learning_rates_and_repeated_runs():
    trace = TRACES["exponential"]
    traced = []

    def loss(params, rows):
        traced.append(1)
        return problems.softmax_loss(params, rows)

    counted = asyncflax.from_loss(loss)
    plan = asyncflax.make_plan(trace, width=2, rounds_per_chunk=4)
    assert len(plan) >= 4 and plan.chunks.padded
    count = None
    for learning_rate in (0.1, 0.2):
        algorithm = METHODS["multi_asgd"].make(learning_rate)
        state = asyncflax.init_run(algorithm, SOFTMAX_PARAMS, plan)
        for chunk in plan:
            state, _ = asyncflax.run_chunk(algorithm, counted, state, chunk, chunk.take(BATCHES))
            count = count or len(traced)
    assert len(traced) == count


def test_gradients_flow_through_a_run():
    """The learning rate that a run would have wanted: differentiate its last loss."""
    trace = TRACES["exponential"]

    def last_loss(learning_rate):
        result = asyncflax.run(METHODS["asgd"].make(learning_rate), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES)
        return problems.softmax_loss(result.params, np.arange(32))

    slope = jax.grad(last_loss)(0.1)
    step = 1e-6
    assert_close(slope, (last_loss(0.1 + step) - last_loss(0.1 - step)) / (2 * step), 1e-6)


def test_the_state_survives_a_round_trip_through_numpy():
    trace, algorithm = TRACES["exponential"], METHODS["multi_asgd"].make()
    plan = asyncflax.make_plan(trace, cuts=[10])
    state = asyncflax.init_run(algorithm, SOFTMAX_PARAMS, plan)
    state, _ = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[0], plan[0].take(BATCHES))
    saved = jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))
    want, _ = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[1], plan[1].take(BATCHES))
    restored = jax.tree.map(jnp.asarray, saved)
    restored = restored._replace(key=jax.random.wrap_key_data(restored.key))
    got, _ = asyncflax.run_chunk(algorithm, gradient_fn, restored, plan[1], plan[1].take(BATCHES))
    np.testing.assert_array_equal(flat(got.params), flat(want.params))
    np.testing.assert_array_equal(flat(got.slots), flat(want.slots))


# --- Bad input ------------------------------------------------------------------------------------------------------


def _start(plan, algorithm=None):
    return asyncflax.init_run(algorithm or METHODS["asgd"].make(), SOFTMAX_PARAMS, plan)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda t: asyncflax.run(optax.sgd(0.1), gradient_fn, SOFTMAX_PARAMS, t, BATCHES), TypeError, "from_optax"),
        (
            lambda t: asyncflax.run(METHODS["asgd"].make(), gradient_fn, SOFTMAX_PARAMS, t, BATCHES[:-1]),
            ValueError,
            r"batches must have one row for each of the 24 events, got shape \(23, 4\)",
        ),
        (
            lambda t: asyncflax.run(METHODS["asgd"].make(), gradient_fn, SOFTMAX_PARAMS, t, {"x": BATCHES, "y": 3}),
            ValueError,
            r"batches\['y'\] must have one row",
        ),
        (
            lambda t: asyncflax.run(METHODS["multi_asgd"].make(num_workers=2), gradient_fn, SOFTMAX_PARAMS, t, BATCHES),
            ValueError,
            "the trace has num_workers=4, but the algorithm was built for num_workers=2",
        ),
        (
            lambda t: asyncflax.run(
                METHODS["asgd"].make(),
                gradient_fn,
                SOFTMAX_PARAMS,
                t,
                BATCHES,
                key=jax.random.key_data(jax.random.key(0)),
            ),
            TypeError,
            "key must be a single typed key",
        ),
        (
            lambda t: asyncflax.run(METHODS["asgd"].make(), problems.softmax_loss, SOFTMAX_PARAMS, t, BATCHES),
            TypeError,
            "from_loss",
        ),
        (
            lambda t: asyncflax.run(
                METHODS["asgd"].make(), lambda p, b: (jnp.zeros(()), p[0]), SOFTMAX_PARAMS, t, BATCHES
            ),
            ValueError,
            "gradients must have the structure of the parameters",
        ),
        (
            lambda t: asyncflax.run(METHODS["asgd"].make(), lambda p, b: (p[1], p), SOFTMAX_PARAMS, t, BATCHES),
            ValueError,
            r"a scalar loss, got shape \(3,\)",
        ),
        (
            lambda t: asyncflax.run(
                METHODS["asgd"].make(), jax.grad(lambda p, b: jnp.sum(p**2)), jnp.ones(2), t, BATCHES
            ),
            TypeError,
            "must return a GradientResult or",
        ),
        (
            lambda t: asyncflax.run(METHODS["asgd"].make(), lambda p, b: (0.0, jnp.ones(())), jnp.ones(2), t, BATCHES),
            ValueError,
            r"gradients must have the shape of the parameters, \(2,\); got \(\)",
        ),
        (
            lambda t: asyncflax.run(METHODS["asgd"].make(), None, jnp.ones(2), t, BATCHES),
            TypeError,
            "must be a function",
        ),
        (
            lambda t: asyncflax.run(
                METHODS["asgd"].make(), gradient_fn, SOFTMAX_PARAMS, asyncflax.staleness.constant(1), BATCHES
            ),
            TypeError,
            "trace must be an asyncflax.Trace",
        ),
        (lambda t: asyncflax.init_run(METHODS["asgd"].make(), SOFTMAX_PARAMS, t), TypeError, "plan must be"),
        (
            lambda t: asyncflax.run_chunk(
                METHODS["asgd"].make(), gradient_fn, _start(asyncflax.make_plan(t)), asyncflax.make_plan(t), BATCHES
            ),
            TypeError,
            "chunk must be a Chunk such as",
        ),
        (lambda t: asyncflax.make_plan(t, cuts=[7])[1].take(BATCHES[:20]), ValueError, r"got shape \(20, 4\)"),
        (lambda t: asyncflax.make_plan(t)[0].take({"s": 1.0}), ValueError, r"batches\['s'\] must have one row"),
        (lambda t: asyncflax.from_optax(0.1), TypeError, "tx must be an optax.GradientTransformation, got 0.1"),
        (lambda t: asyncflax.from_optax(optax.sgd(0.1), num_workers=0), ValueError, "num_workers must be"),
        (lambda t: asyncflax.AsyncAlgorithm(1, 2), TypeError, "init must be a function, got 1"),
        (
            lambda t: asyncflax.run(
                METHODS["asgd"].make(),
                lambda p, b: asyncflax.GradientResult(jnp.zeros(()), p, (), {"mean": 0.0}),
                jnp.ones(2),
                t,
                BATCHES,
            ),
            TypeError,
            "model_update must be a ModelUpdate, got dict",
        ),
        (
            lambda t: asyncflax.run(
                METHODS["asgd"].make(),
                lambda p, b: asyncflax.GradientResult(jnp.zeros(()), p, (), asyncflax.ModelUpdate(0.5, jnp.ones(2))),
                jnp.ones(2),
                t,
                BATCHES,
            ),
            ValueError,
            "increment of the ModelUpdate must have the structure of model_state",
        ),
        (
            lambda t: asyncflax.run_chunk(
                METHODS["asgd"].make(),
                gradient_fn,
                _start(asyncflax.make_plan(t)),
                asyncflax.make_plan(t, cuts=[12])[1],
                BATCHES[12:],
            ),
            ValueError,
            "state is at event 0, but the chunk begins at event 12",
        ),
        (
            lambda t: asyncflax.run_chunk(
                METHODS["asgd"].make(),
                gradient_fn,
                _start(asyncflax.make_plan(TRACES["geometric"])),
                asyncflax.make_plan(t)[0],
                BATCHES,
            ),
            ValueError,
            "slots, but the plan has 4",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call(TRACES["exponential"])


def test_a_trace_with_fewer_workers_is_welcome():
    trace = dataclasses.replace(TRACES["geometric"])
    assert trace.num_workers == 1
    asyncflax.run(METHODS["multi_asgd"].make(), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES)


def test_counters_count_and_averages_decay():
    """A number as decay is for floating leaves; a PyTree of decays is for each its own."""
    state = {"mean": jnp.ones(2), "count": jnp.asarray(2**24, jnp.int32)}
    new = asyncflax.ModelUpdate(0.5, {"mean": jnp.ones(2), "count": 1}).apply(state)
    assert new["count"] == 2**24 + 1 and new["count"].dtype == jnp.int32
    np.testing.assert_array_equal(new["mean"], [1.5, 1.5])
    new = asyncflax.ModelUpdate({"mean": 0.0, "count": 0}, {"mean": jnp.ones(2), "count": 7}).apply(state)
    assert new["count"] == 7 and new["mean"][0] == 1.0


def test_keywords_that_are_bound_stay_bound():
    trace, batches = TRACES["exponential"], np.arange(NUM_EVENTS)

    def loss(params, event, *, worker):  # the batch may have any name
        return params * 0.0 + event + 100.0 * worker

    for bind in (functools.partial, jax.tree_util.Partial):
        result = asyncflax.run(
            METHODS["asgd"].make(), asyncflax.from_loss(bind(loss, worker=5.0)), jnp.zeros(()), trace, batches
        )
        np.testing.assert_array_equal(result.losses, batches + 500.0)


def test_the_same_optimizer_compiles_once():
    tx, traced = optax.sgd(0.1), []

    def loss(params, rows):
        traced.append(1)
        return problems.softmax_loss(params, rows)

    counted = asyncflax.from_loss(loss)
    counts = []
    for _ in range(2):
        asyncflax.run(asyncflax.from_optax(tx), counted, SOFTMAX_PARAMS, TRACES["exponential"], BATCHES)
        counts.append(len(traced))
    assert counts[0] == counts[1]


def test_data_that_are_bound_are_arguments():
    """Other data of the same shape do not compile again; data closed over would be constants."""
    traced = []

    def loss(data, params, rows):
        traced.append(1)
        return jnp.mean((params - data[rows]) ** 2)

    ends, counts = [], []
    for data in (jnp.zeros(100), jnp.ones(100)):
        gradient = asyncflax.from_loss(jax.tree_util.Partial(loss, data))
        result = asyncflax.run(METHODS["asgd"].make(), gradient, jnp.full((), 0.5), TRACES["exponential"], BATCHES)
        ends.append(float(result.params))
        counts.append(len(traced))
    assert ends[0] < 0.1 and ends[1] > 0.9
    assert counts[0] == counts[1]


def test_complex_parameters_have_a_real_gap():
    z = jnp.array([1.0 + 2.0j])
    assert asyncflax.metrics.gap(z, 0 * z) == pytest.approx(5**0.5)
