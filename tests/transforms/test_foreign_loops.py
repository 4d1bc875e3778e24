"""Blocks in loops of other people: donated, of other libraries, on meshes, restored, without events."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import problems
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import SOFTMAX_PARAMS, assert_close, batch_rows

import asyncflax
from asyncflax import queues, staleness
from asyncflax.history import Ring
from asyncflax.transforms import (
    compensate_delay,
    decay_weights,
    delay_gradients,
    explicit_momentum,
    partition_spec,
    per_worker,
    read_stale_params,
    store_versions,
    with_delay,
)

STEPS = 30
BATCHES = batch_rows(STEPS)
QUEUE = queues.simulate(num_workers=4, num_updates=STEPS, service_time=queues.exponential(), seed=2)
grad = jax.grad(problems.softmax_loss)


def plain_loop(tx, params=SOFTMAX_PARAMS, batches=BATCHES):
    """A loop that knows nothing of events."""

    def step(carry, rows):
        params, state = carry
        updates, state = tx.update(grad(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.asarray, params)
    return jax.lax.scan(step, (params, tx.init(params)), jnp.asarray(batches))[0]


# --- with_delay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dc_asgd", "multi_asgd", "staleness_aware_asgd", "gap_aware_asgd"])
def test_a_method_in_a_loop_without_events_is_a_run(name):
    """Gradient s is computed at w_s on batch s; event t of the run reads w_{r_t}, so it gets batch r_t."""
    method = problems.MAIN_METHODS[name].make()
    tx = with_delay(QUEUE, optax.GradientTransformationExtraArgs(method.init, method.update))
    gradient_fn = asyncflax.from_loss(problems.softmax_loss)
    run = asyncflax.run(method, gradient_fn, SOFTMAX_PARAMS, QUEUE, BATCHES[QUEUE.read_version])
    params, state = plain_loop(tx)
    assert_close(params, run.params)
    assert int(state.staleness) == QUEUE.staleness[-1]


def told(staleness, **options):
    """What the inner transformation hears at each of eight steps; step s has gradient s at parameters 10 s."""
    heard = []

    def listen(updates, state, params=None, **event):
        heard.append({"gradient": float(updates), "params": float(params), **jax.tree.map(float, event)})
        return updates, state + 1

    tx = with_delay(staleness, optax.GradientTransformationExtraArgs(lambda _: jnp.zeros(()), listen), **options)
    state, out = tx.init(jnp.zeros(())), []
    for s in range(8):
        updates, state = tx.update(jnp.asarray(float(s)), state, jnp.asarray(10.0 * s), value=0.5)
        out.append(float(updates))
    return heard, out, state


def test_the_inner_transformation_is_told_the_event():
    for constant in (2, staleness.constant(2)):
        heard, out, _ = told(constant)
        assert [event["worker"] for event in heard] == [0, 1, 2, 0, 1, 2, 0, 1]
        assert [event["staleness"] for event in heard] == [0, 1, 2, 2, 2, 2, 2, 2]
        assert all(event["read_params"] == 10 * event["gradient"] and event["value"] == 0.5 for event in heard)
        assert out == [0, 0, 0, 1, 2, 3, 4, 5]
    heard, _, _ = told(QUEUE)
    assert [event["worker"] for event in heard] == QUEUE.worker[:8].tolist()
    assert [event["params"] - event["read_params"] for event in heard] == (10 * QUEUE.staleness[:8]).tolist()
    heard, _, _ = told(staleness.uniform(0, 2))
    assert "worker" not in heard[0]  # a law names nobody


def test_a_dropped_step_does_nothing_and_one_after_a_trace_is_nan():
    _, out, state = told(3, before_start="drop")
    assert out == [0, 0, 0, 0, 1, 2, 3, 4] and int(state.inner_state) == 5
    _, out, state = told(staleness.constant(1).trace(num_updates=6))
    assert np.isnan(out[6:]).all() and np.isfinite(out[:6]).all() and int(state.staleness) == -1


def test_a_train_state_of_linen():
    params = {"w": jnp.ones(3)}
    tx = with_delay(1, optax.chain(compensate_delay(0.1), per_worker(optax.trace(0.5), 2), optax.scale(-0.1)))
    state = TrainState.create(apply_fn=lambda params: jnp.sum(params["w"] ** 2), params=params, tx=tx)
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(state.apply_fn)(state.params)))
    state = step(step(state))
    programs = step._cache_size()
    state = step(step(state))
    assert step._cache_size() == programs and np.all(np.isfinite(state.params["w"])) and state.params["w"][0] < 0.6


# --- Versions in wrapped states --------------------------------------------------------------------------------------


def linear():
    return nnx.Linear(3, 2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("mask", [None, lambda params: jax.tree.map(lambda p: jnp.ndim(p) == 2, params)])
def test_nnx_optimizer_is_the_plain_loop(mask):
    store = store_versions(2) if mask is None else optax.masked(store_versions(2), mask)
    tx = optax.chain(optax.sgd(0.1), store)
    loss = lambda graph: lambda p: jnp.mean(nnx.merge(graph, p)(jnp.ones((4, 3))) ** 2)

    model = linear()
    graph, params = nnx.split(model)
    state = tx.init(params)
    for _ in range(6):
        grads = jax.grad(loss(graph))(read_stale_params(state, params))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)

    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(6):
        now = nnx.state(model, nnx.Param)
        read = read_stale_params(optimizer.opt_state, now)
        assert jax.tree.structure(read) == jax.tree.structure(now)
        optimizer.update(model, jax.grad(loss(graph))(read))
    np.testing.assert_array_equal(model.kernel[...], params["kernel"][...])


def test_params_that_are_not_those_stored_are_named():
    tx = store_versions(1)
    state = tx.init({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    read = lambda **params: read_stale_params(state, params)
    with pytest.raises(
        ValueError, match=r"params\['w'\] must match its stored versions, float64\(2, 3\); got .*\(1, 3\)"
    ):
        read(w=jnp.ones((1, 3)), b=jnp.ones(3))
    with pytest.raises(ValueError, match=r"params\['b'\] must match its stored versions.*got float32\(3,\)"):
        read(w=jnp.ones((2, 3)), b=jnp.ones(3, jnp.float32))
    with pytest.raises(ValueError, match="must have the 2 leaves that store_versions was built for, got 1"):
        read(w=jnp.ones((2, 3)))


def test_a_whole_module_is_refused_with_what_to_pass():
    with pytest.raises(TypeError, match=r"got the NNX module Linear; for a module, pass nnx.state\(model, nnx.Param\)"):
        read_stale_params(store_versions(1).init(nnx.state(linear())), linear())
    module = {"weight": jnp.ones(2), "activation": jax.nn.relu}  # the leaves of an Equinox module
    for block in (store_versions(1), delay_gradients(1), with_delay(1, optax.sgd(0.1))):
        with pytest.raises(TypeError, match=r"\['activation'\] must be an array, got .*equinox.filter\(model"):
            block.init(module)


# --- Trees beside the updates ----------------------------------------------------------------------------------------


def test_decay_of_some_parameters_in_a_run():
    params, mask = {"w": jnp.ones(2), "bias": jnp.ones(2)}, {"w": True, "bias": False}
    trace = staleness.constant(1).trace(num_updates=3)
    flat_loss = jax.value_and_grad(lambda p, batch: 0.0 * (p["w"].sum() + p["bias"].sum()))
    decay = optax.masked(decay_weights(0.5), mask)
    for algorithm in (
        asyncflax.from_optax(optax.chain(decay, optax.sgd(0.1))),
        asyncflax.transform_gradients(decay, asyncflax.algorithms.asgd(0.1)),
    ):
        result = asyncflax.run(algorithm, flat_loss, params, trace, jnp.zeros(3)).params
        assert_close(result, {"w": np.full(2, 0.8525), "bias": np.ones(2)})


def test_a_tree_of_another_structure_is_one_sentence():
    tx, g = compensate_delay(0.1), {"a": jnp.ones(2)}
    with pytest.raises(
        ValueError, match=r"compensate_delay needs read_params with the structure of the updates, .*; got"
    ):
        tx.update(g, tx.init(g), g, read_params={"b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"read_params\['a'\] must have the shape of the updates, \(2,\); got \(3,\)"):
        tx.update(g, tx.init(g), g, read_params={"a": jnp.ones(3)})


def test_a_wrapper_that_drops_the_event_is_named():
    steps = optax.MultiSteps(optax.chain(compensate_delay(0.1), optax.sgd(0.1)), 2, accumulator_dtype=jnp.float64)
    trace = staleness.constant(1).trace(num_updates=4)
    run = lambda tx: asyncflax.run(
        asyncflax.from_optax(tx), jax.value_and_grad(lambda w, _: jnp.sum(w**2)), jnp.ones(2), trace, jnp.zeros(4)
    )
    with pytest.raises(ValueError, match=r"compensate_delay needs read_params.*convert optax.MultiSteps"):
        run(steps.gradient_transformation())
    assert np.all(run(optax.GradientTransformationExtraArgs(steps.init, steps.update)).params < 1)
    assert np.all(run(steps).params < 1)


# --- Meshes ----------------------------------------------------------------------------------------------------------

LOOPS = {
    "adam": optax.adam(0.1),
    "delay": optax.chain(delay_gradients(3), optax.sgd(0.1)),
    "store": optax.chain(optax.sgd(0.1), store_versions(3)),
    "host": optax.chain(optax.sgd(0.1), store_versions(3, memory="pinned_host")),
    "with_delay": with_delay(2, per_worker(optax.sgd(0.1, 0.9), 3)),
}


def sharded(axis_type=AxisType.Auto):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    return {"w": jax.device_put(jnp.ones((4, 8)), NamedSharding(mesh, PartitionSpec(None, "x")))}


def step_of(tx, reads):
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        read = read_stale_params(state, params) if reads else params
        updates, state = tx.update(jax.tree.map(lambda p: 2 * p, read), state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["automatic", "in_types"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_sharded_loop_keeps_its_places_and_its_program(name, axis_type):
    """As that of Adam, whose state lies where the parameters do."""
    tx, reads = LOOPS[name], name in ("store", "host")
    params = sharded(axis_type)
    state = tx.init(params)
    places = [(leaf.sharding.spec, leaf.sharding.memory_kind) for leaf in jax.tree.leaves(state) if leaf.ndim > 1]
    assert all(spec == PartitionSpec(*[None] * (len(spec) - 1), "x") for spec, _ in places) and places
    step, adam = step_of(tx, reads), step_of(LOOPS["adam"], False)
    for _ in range(3):
        params, state = step(params, state)
    after = [(leaf.sharding.spec, leaf.sharding.memory_kind) for leaf in jax.tree.leaves(state) if leaf.ndim > 1]
    assert after == places
    adams = sharded(axis_type)
    adam(*adam(adams, LOOPS["adam"].init(adams)))
    assert step._cache_size() <= adam._cache_size()


def test_what_lies_nowhere_goes_where_the_others_are():
    """As arrays on the device do by themselves; those in host memory belong to their devices."""
    params = {**sharded(), "scale": jnp.ones(2)}
    tx = LOOPS["host"]
    step = step_of(tx, True)
    _, state = step(params, tx.init(params))
    assert all(leaf.sharding.num_devices == 4 for leaf in jax.tree.leaves(state[1].ring.rows))


def test_partition_spec_is_where_map_params_is_wrong():
    params, specs = {"w": jnp.ones((4, 8))}, {"w": PartitionSpec(None, "x")}
    tx = optax.chain(delay_gradients(3), per_worker(optax.trace(0.9), 4), optax.scale_by_adam())
    rows, adam = PartitionSpec(None, None, "x"), PartitionSpec(None, "x")
    delayed, workers, moments = partition_spec(tx, params, specs)
    assert delayed.ring.rows == {"w": rows} and workers.workers.trace == {"w": rows} and moments.mu == {"w": adam}
    assert delayed.ring.pushed == moments.count == PartitionSpec()
    assert partition_spec(tx, params, None)[0].ring.rows == {"w": PartitionSpec()}
    state = jax.eval_shape(tx.init, params)
    theirs = optax.tree.map_params(tx, lambda _, spec: spec, state, specs, transform_non_params=lambda _: None)
    assert theirs[0].ring.rows == {"w": adam}  # one axis off, in silence

    boxed = {"w": linen.Partitioned(params["w"], names=(None, "x"))}
    of_method = partition_spec(
        asyncflax.algorithms.multi_asgd(0.1, num_workers=4), params, linen.get_partition_spec(boxed)
    )
    assert optax.tree.get(of_method, "velocity") == {"w": rows}
    parts = partition_spec(delay_gradients((1, 0), labels={"w": 1}), params, specs)
    assert parts.inner_states[1].inner_state.ring.rows == {"w": rows}
    assert parts.inner_states[0].inner_state.ring.rows == {"w": optax.MaskedNode()}


def test_rows_on_the_host_are_no_constant_of_a_program():
    ring = Ring(1000, "pinned_host")
    assert not any(np.size(c) > 1 for c in jax.make_jaxpr(ring.empty)(jnp.ones(100)).consts)


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def kinds_of_memory(state):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.ring.rows)}


@pytest.mark.parametrize("form", ["bytes", "orbax"])
def test_restored_versions_return_to_host_memory(form, tmp_path):
    tx, params = store_versions(2, memory="pinned_host"), {"w": jnp.arange(3.0)}
    step = jax.jit(lambda params, state: tx.update(params, state, params)[1])
    _, state = tx.update(params, tx.init(params), params)
    if form == "bytes":
        back = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    else:
        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            checkpointer.wait_until_finished()
            back = checkpointer.restore(tmp_path / "state", state)
    assert_close(read_stale_params(back, params), read_stale_params(state, params))
    for after in (tx.update(params, back, params)[1], step(params, back)):
        assert kinds_of_memory(after) == {"pinned_host"}
        jax.tree.map(np.testing.assert_array_equal, after, step(params, state))
    state = step(params, step(params, back))
    programs = step._cache_size()
    step(params, step(params, state))
    assert step._cache_size() == programs


# --- A staleness for each part ---------------------------------------------------------------------------------------

STAGES = {"embed": jnp.zeros(()), "block": {"w": jnp.zeros(2), "b": jnp.zeros(())}, "head": jnp.zeros(())}
AGES = {"embed": 2, "block": {"w": 1, "b": 1}, "head": 0}
FORMS = {
    "prefix": {"staleness": {"embed": 2, "block": 1, "head": staleness.constant(0)}},
    "mapping": {"staleness": {"old": 2, "new": 0, "mid": 1}, "labels": {"embed": "old", "block": "mid", "head": "new"}},
    "stages": {"staleness": staleness.pipeline(3), "labels": {"embed": 0, "block": 1, "head": 2}},
    "function": {
        "staleness": staleness.pipeline(3),
        "labels": lambda params: {"embed": 0, "block": jax.tree.map(lambda _: 1, params["block"]), "head": 2},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_each_part_has_its_staleness(form):
    """The gradient of step s is s, and so are the parameters."""
    at = lambda s: jax.tree.map(lambda p: jnp.full_like(p, s), STAGES)
    delay, store = delay_gradients(**FORMS[form]), store_versions(**FORMS[form])
    delayed, stored = delay.init(STAGES), store.init(STAGES)
    for s in range(6):
        want = jax.tree.map(lambda p, age, s=s: jnp.full_like(p, max(s - age, 0)), STAGES, AGES)
        updates, delayed = delay.update(at(float(s)), delayed)
        assert jax.tree.all(jax.tree.map(np.array_equal, updates, want))
        assert jax.tree.all(jax.tree.map(np.array_equal, read_stale_params(stored, at(float(s))), want))
        _, stored = store.update(updates, stored, at(float(s)))


TWO = {"a": np.ones(2), "b": np.ones(())}


def test_parts_draw_for_themselves():
    law = staleness.uniform(0, 7)
    tx = delay_gradients({"a": law, "b": law}, seed=3)
    params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    state, out = tx.init(params), []
    for s in range(40):
        updates, state = tx.update(jax.tree.map(lambda p, s=s: p + s, params), state)
        out.append((float(updates["a"]), float(updates["b"])))
    a, b = np.array(out).T
    assert np.mean(a != b) > 0.5


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: delay_gradients((1, 0), labels={"a": 0, "b": 2}), ValueError, "labels has 2, which has no staleness"),
        (lambda: store_versions(3, labels={"a": 0}), TypeError, "labels require a mapping or a tuple"),
        (lambda: staleness.pipeline(0), ValueError, "num_stages must be an integer >= 1"),
        (
            lambda: read_stale_params([optax.masked(store_versions(1), {"a": True, "b": False}).init(TWO)] * 2, TWO),
            ValueError,
            r"params\['a'\] must be in exactly one of the 2 states of store_versions, got 2",
        ),
        (
            lambda: read_stale_params([optax.masked(store_versions(1), {"a": False, "b": True}).init(TWO)] * 2, TWO),
            ValueError,
            r"params\['a'\] must be in exactly one of the 2 states of store_versions, got 0",
        ),
        (lambda: with_delay(1, 0.1), TypeError, "inner must be an optax.GradientTransformation, got 0.1"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- Momentum --------------------------------------------------------------------------------------------------------


def test_momentum_may_follow_a_schedule():
    schedule = lambda t: jnp.where(t < 2, 0.5, -0.5)
    tx = explicit_momentum(schedule)
    state, out = tx.init(jnp.zeros(())), []
    for _ in range(4):
        update, state = tx.update(jnp.ones(()), state)
        out.append(float(update))
    assert out == [1.0, 1.5, 0.25, 0.875] and int(state.updates) == 4
    assert_close(
        plain_loop(tx_of(asyncflax.algorithms.momentum_asgd(0.1, schedule)))[0],
        plain_loop(optax.chain(optax.scale(-0.1), tx))[0],
    )
    with pytest.raises(TypeError, match="momentum must be a number"):
        asyncflax.algorithms.nag_asgd(0.1, schedule)


def tx_of(method):
    event = {"worker": 0, "staleness": 0}
    update = lambda grads, state, params: method.update(grads, state, params, read_params=params, **event)
    return optax.GradientTransformation(method.init, update)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_accumulator_is_that_of_optax(nesterov):
    """Up to the dtype of the output, which stays that of the updates."""
    options = {"nesterov": nesterov, "accumulator_dtype": jnp.float32}
    ours, theirs = explicit_momentum(0.9, **options), optax.trace(0.9, **options)
    params = jnp.ones(3, jnp.bfloat16)
    state, twin = ours.init(params), theirs.init(params)
    for t in range(5):
        g = jnp.asarray([0.1, 1e-3, 1.0], jnp.bfloat16) * (t + 1)
        update, state = ours.update(g, state)
        want, twin = theirs.update(g, twin)
        assert update.dtype == jnp.bfloat16 and state.velocity.dtype == jnp.float32
        np.testing.assert_array_equal(update, want.astype(jnp.bfloat16))
    np.testing.assert_array_equal(state.velocity, twin.trace)


def test_the_staleness_of_the_last_step_can_be_logged():
    tx = delay_gradients(QUEUE)
    state, seen = tx.init(jnp.zeros(())), []
    for _ in range(STEPS):
        _, state = tx.update(jnp.zeros(()), state)
        seen.append(int(state.staleness))
    assert seen == QUEUE.staleness.tolist()
    assert int(tx.update(jnp.zeros(()), state)[1].staleness) == -1
