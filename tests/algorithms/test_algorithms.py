"""One suite that every method joins with a row in `problems.METHODS`."""

import functools
import inspect
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from problems import KINDS, MAIN_METHODS, METHODS, SOFTMAX_PARAMS, WORKERS, assert_close, batch_rows

import asyncflax
from asyncflax import algorithms
from asyncflax.base import as_partial
from asyncflax.engine.execute import _run_chunk

gradient_fn = asyncflax.from_loss(problems.softmax_loss)
BATCHES = batch_rows()
QUEUE = problems.some_traces()["exponential"]

main_methods = pytest.mark.parametrize("row", MAIN_METHODS.values(), ids=MAIN_METHODS.keys())
by_kind = pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=name, marks=() if name in KINDS else pytest.mark.slow) for name, row in MAIN_METHODS.items()],
)
all_methods = pytest.mark.parametrize("row", METHODS.values(), ids=METHODS.keys())
momentum_methods = pytest.mark.parametrize(
    "row", [m for m in MAIN_METHODS.values() if m.has_momentum], ids=lambda m: m.name
)


def event(**changes):
    return {"worker": 1, "staleness": 2, "read_params": SOFTMAX_PARAMS, **changes}


def test_every_public_method_has_a_row():
    assert {row.factory.__name__ for row in METHODS.values()} == set(algorithms.__all__)


@all_methods
def test_extra_arguments_are_ignored_and_missing_ones_are_errors(row):
    algorithm = row.make()
    params = jax.tree.map(jnp.asarray, SOFTMAX_PARAMS)
    state = algorithm.init(params)
    plain, _ = algorithm.update(params, state, params, **event())
    extra, _ = algorithm.update(params, state, params, **event(value=1.0, something_new=2.0))
    assert_close(extra, plain)
    for name in ("worker", "staleness", "read_params"):
        arguments = event()
        del arguments[name]
        with pytest.raises(TypeError, match=name):
            algorithm.update(params, state, params, **arguments)


@by_kind
def test_other_hyper_parameters_do_not_compile_again(row):
    traced = []

    def loss(params, rows):
        traced.append(1)
        return problems.softmax_loss(params, rows)

    counted = asyncflax.from_loss(loss)
    plan = asyncflax.make_plan(QUEUE, cuts=range(0, 24, 5))
    assert len(plan) == 5
    counts = []
    for learning_rate, momentum in [(0.1, 0.5), (0.2, -0.25)]:
        algorithm = row.make(learning_rate, momentum)
        state = asyncflax.init_run(algorithm, SOFTMAX_PARAMS, plan)
        for chunk in plan:
            state, _ = asyncflax.run_chunk(algorithm, counted, state, chunk, chunk.take(BATCHES))
            counts.append(len(traced))
    assert len(set(counts)) == 1, "every chunk and every learning rate uses the first compilation"


@all_methods
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("strong", [False, True], ids=["python_floats", "arrays"])
def test_dtypes_are_stable(row, dtype, strong):
    """Low precision stays low, also under hyper-parameters that are arrays of a wider type; nothing is compiled."""
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), SOFTMAX_PARAMS)
    number = (lambda x: jnp.asarray(x, jnp.float32)) if strong else float
    algorithm = row.make(number(0.1), number(0.5))

    def one_event(params, state):
        arguments = event(read_params=algorithm.view(params, state), value=jnp.zeros((), dtype))
        updates, state = algorithm.update(params, state, params, **arguments)
        return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates), state  # as the engine does

    before = jax.eval_shape(algorithm.init, params)
    after, state = jax.eval_shape(one_event, params, before)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(dtype)}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    floats = {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)}
    averages = row.factory.__name__ in ("yellowfin", "closed_loop_momentum")
    assert floats <= {jnp.dtype(dtype)} | ({jnp.dtype(jnp.float32)} if averages else set())


@all_methods
def test_other_numbers_are_the_same_program(row):
    """So they do not compile again: the structure and the types of a method's leaves do not follow its numbers."""
    one, other = row.make(0.1, 0.5), row.make(0.2, -0.25)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    types = lambda algorithm: [jax.typeof(jnp.asarray(leaf)) for leaf in jax.tree.leaves(algorithm)]
    assert types(one) == types(other)


@momentum_methods
def test_vmap_over_learning_rate_and_momentum(row):
    """Five events, as many as show a method that works with rounds or buckets of four workers."""
    params = jax.tree.map(jnp.asarray, SOFTMAX_PARAMS)

    @jax.jit
    def train(learning_rate, momentum):
        algorithm, now = row.make(learning_rate, momentum), params
        state = algorithm.init(now)
        for worker in (0, 1, 2, 3, 0):
            arguments = event(worker=worker, staleness=min(worker, 2), read_params=now, value=1.0)
            updates, state = algorithm.update(now, state, now, **arguments)
            now = jax.tree.map(jnp.add, now, updates)
        return now

    grid = jax.jit(jax.vmap(train))(jnp.array([0.1, 0.2]), jnp.array([-0.3, 0.8]))
    for k, (lr, mu) in enumerate([(0.1, -0.3), (0.2, 0.8)]):
        assert_close(jax.tree.map(lambda x, k=k: x[k], grid), train(lr, mu))


@all_methods
def test_state_survives_a_round_trip(row):
    algorithm = row.make()
    state = algorithm.init(SOFTMAX_PARAMS)
    leaves, structure = jax.tree.flatten(state)
    again = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    params = jax.tree.map(jnp.asarray, SOFTMAX_PARAMS)
    assert_close(algorithm.update(params, again, params, **event()), algorithm.update(params, state, params, **event()))


@by_kind
@pytest.mark.parametrize("width", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_compiled_program_copies_no_store(row, width):
    """64 workers: neither the slots nor a store of per-worker state is copied whole, event by event."""
    workers, size = 64, 5000
    trace = asyncflax.queues.simulate(
        num_workers=workers, num_updates=2000, service_time=asyncflax.queues.exponential()
    )
    algorithm = row.make(num_workers=workers)

    def gradient(params, batch):
        return jnp.sum(params * batch), params * batch

    plan = asyncflax.make_plan(trace, width=width)
    assert plan.num_slots == workers
    state = asyncflax.init_run(algorithm, jnp.ones(size), plan)
    batches = jnp.ones((len(trace), 1))
    compiled = _run_chunk.lower(algorithm, as_partial(gradient), state, plan[0], batches).compile().as_text()
    assert f"[{workers},{size}]" in compiled
    for operation in ("copy", "select"):
        whole_store = re.findall(rf"= \w+\[{workers},{size}\]\S* {operation}\(.*", compiled)
        assert not whole_store, whole_store


@all_methods
def test_options_are_listed_and_checked(row):
    """What the launchers rely on: keyword options, an error that names a wrong value."""
    parameters = inspect.signature(row.factory).parameters
    assert next(iter(parameters)) == "learning_rate"
    assert {"weight_decay", "decay_at"} <= parameters.keys()
    with pytest.raises(ValueError, match="learning_rate must be finite and in"):
        row.make(learning_rate=float("nan"))
    with pytest.raises(ValueError, match="learning_rate must be finite and in"):
        row.make(learning_rate=-0.1)
    with pytest.raises(TypeError, match="learning_rate must be a number, got 'fast'"):
        row.make(learning_rate="fast")
    if row.has_momentum:
        for momentum in (1.5, -1.01, float("inf")):
            with pytest.raises(ValueError, match="momentum must be finite and in"):
                row.make(momentum=momentum)
        row.make(momentum=1.0)
        row.make(momentum=-1.0)
    with pytest.raises(ValueError, match=r"at must be one of 'read', 'server'"):
        row.factory(**{**row.arguments(0.1, 0.5, WORKERS), "decay_at": "home"})
    with pytest.raises(ValueError, match="weight_decay must be finite and in"):
        row.factory(**{**row.arguments(0.1, 0.5, WORKERS), "weight_decay": -1.0})
    choices = [name for name, parameter in parameters.items() if isinstance(parameter.default, str)]
    assert "decay_at" in choices
    for name in set(choices) - {"decay_at"}:
        with pytest.raises(ValueError, match=f"{name} must be one of '"):
            row.factory(**{**row.arguments(0.1, 0.5, WORKERS), name: "x"})
    if "num_workers" in parameters:
        with pytest.raises(ValueError, match="num_workers must be an integer >= 1, got num_workers=0"):
            row.make(num_workers=0)


def test_numbers_are_leaves_and_the_rest_is_structure():
    a = algorithms
    structure = lambda algorithm: jax.tree.structure(algorithm)
    same = [structure(a.asgd(rate)) for rate in (0.5, 1, 2, np.int64(3), np.float32(0.1))]
    assert all(other == same[0] for other in same)
    assert jax.tree.leaves(a.asgd(jnp.int32(1)).init) == [1]
    assert structure(a.momentum_asgd(1, 0)) == structure(a.momentum_asgd(0.1, momentum=0.9))
    assert structure(a.momentum_asgd(0.1)) == structure(a.momentum_asgd(0.1, form="inside", decay_at="read"))
    assert structure(a.momentum_asgd(0.1)) != structure(a.momentum_asgd(0.1, form="outside"))
    multi = a.multi_asgd(0.1, num_workers=np.int64(4), nesterov=np.bool_(True), form=np.str_("inside"))
    assert structure(multi) == structure(a.multi_asgd(0.1, num_workers=4, nesterov=True))
    asyncflax.run(multi, gradient_fn, SOFTMAX_PARAMS, QUEUE, BATCHES)
    assert repr(a.asgd(0.5)) == "asgd(weight_decay=0.0, decay_at='read', learning_rate=0.5)"


@main_methods
def test_algorithms_can_be_pickled(row):
    algorithm = pickle.loads(pickle.dumps(row.make()))
    assert jax.tree.structure(algorithm) == jax.tree.structure(row.make())


def test_decorators_below_method_are_kept():
    def twice(factory):
        @functools.wraps(factory)
        def doubled(learning_rate):
            return factory(2 * learning_rate)

        return doubled

    @asyncflax.method
    @twice
    def sgd(learning_rate):
        return asyncflax.from_optax(optax.sgd(learning_rate))

    updates, _ = sgd(0.5).update(jnp.ones(()), sgd(0.5).init(0.0), None, **event())
    assert float(updates) == -1.0


def test_factories_name_their_parameters():
    with pytest.raises(TypeError, match="must name all its parameters"):
        asyncflax.method(lambda learning_rate, **options: None)
    with pytest.raises(TypeError, match="asgd: got an unexpected keyword argument 'weight_deacy'"):
        algorithms.asgd(0.1, weight_deacy=0.1)
    with pytest.raises(TypeError, match="multi_asgd: missing a required argument: 'num_workers'"):
        algorithms.multi_asgd(0.1)


def test_momentum_in_between_is_at_most_a_share_of_each_gradient():
    algorithms.delayed_nesterov(0.1, num_workers=4, activation=0.25)
    with pytest.raises(ValueError, match=r"activation must be finite and in \[0, 0.25\], got activation=0.26"):
        algorithms.delayed_nesterov(0.1, num_workers=4, activation=0.26)


def test_unhashable_options_are_refused():
    @asyncflax.method
    def masked(learning_rate, mask):
        del mask
        return asyncflax.from_optax(optax.sgd(learning_rate))

    with pytest.raises(TypeError, match="mask of masked must be hashable"):
        masked(0.1, [1, 2])


def test_with_one_worker_methods_agree():
    """Multi = naive momentum = heavy ball with one velocity; DC-ASGD of strength 0 = ASGD; momentum 0 = ASGD."""
    trace = asyncflax.staleness.geometric(2.0).trace(num_updates=24, seed=4)
    run = lambda algorithm: asyncflax.run(algorithm, gradient_fn, SOFTMAX_PARAMS, trace, BATCHES).params
    a = algorithms
    assert_close(run(a.multi_asgd(0.2, 0.7, num_workers=1)), run(a.momentum_asgd(0.2, 0.7)))
    for plain in (
        a.dc_asgd(0.2, strength=0.0),
        a.momentum_asgd(0.2, 0.0),
        a.nag_asgd(0.2, 0.0),
        a.multi_asgd(0.2, 0.0, num_workers=3),
        a.ssgd(0.2, num_workers=1),
        a.delay_adaptive_asgd(0.2, num_workers=100),
    ):
        assert_close(run(plain), run(a.asgd(0.2)))


def test_ssgd_on_a_barrier_is_large_batch_sgd():
    trace = problems.some_traces()["barrier"]
    algorithm = algorithms.ssgd(0.3, 0.6, num_workers=WORKERS)
    result = asyncflax.run(algorithm, gradient_fn, SOFTMAX_PARAMS, trace, BATCHES)
    assert_close(result.gap, np.zeros(len(trace)))
    rounds = asyncflax.staleness.constant(0).trace(num_updates=len(trace) // WORKERS)
    large = BATCHES.reshape(len(rounds), -1)
    want = asyncflax.run(algorithms.momentum_asgd(0.3, 0.6), gradient_fn, SOFTMAX_PARAMS, rounds, large)
    assert_close(result.params, want.params)
