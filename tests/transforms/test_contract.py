"""What Optax asks of a transformation, asked of every block and of every method as a transformation.

Most checks only trace. `walk` compares the types of the state before and after each update, weak ones included, so that
whatever walks keeps structure and dtypes and is compiled once. What is by design not possible is at the end, and in
docs/library.md.
"""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import MAIN_METHODS, METHODS, WORKERS, assert_close

from asyncflax import queues, staleness
from asyncflax.transforms import (
    average_params,
    compensate_delay,
    decay_weights,
    delay_gradients,
    explicit_momentum,
    partition_spec,
    per_worker,
    read_stale_params,
    scale_by_staleness,
    store_versions,
    summed_momentum,
    with_delay,
)

PARAMS = {"a": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8), "b": np.ones(8, np.float32)}
TRACE = queues.simulate(num_workers=WORKERS, num_updates=8, service_time=queues.exponential(), seed=1)


def lift(method):
    """A method as a transformation."""
    return optax.GradientTransformationExtraArgs(method.init, method.update)


# Each makes a transformation of one number, which may be traced.
BLOCKS = {
    "compensate_delay": compensate_delay,
    "compensate_delay-mean_square": lambda x: compensate_delay(x, mean_square_decay=0.9),
    "average_params": average_params,
    "decay_weights": decay_weights,
    "decay_weights-server": lambda x: decay_weights(x, at="server"),
    "delay_gradients": lambda x: delay_gradients(jnp.int32(2 * x), max_staleness=2),
    "delay_gradients-drop": lambda x: delay_gradients(staleness.uniform(0, 2), before_start="drop"),
    "delay_gradients-trace": lambda x: delay_gradients(TRACE),
    "delay_gradients-host": lambda x: delay_gradients(2, memory="pinned_host"),
    "explicit_momentum": explicit_momentum,
    "explicit_momentum-nesterov": lambda x: explicit_momentum(x, nesterov=True),
    "explicit_momentum-schedule": lambda x: explicit_momentum(lambda count: x / (1 + count)),
    "explicit_momentum-accumulator": lambda x: explicit_momentum(x, accumulator_dtype=jnp.bfloat16),
    "per_worker": lambda x: per_worker(optax.trace(x), WORKERS),
    "per_worker-schedule": lambda x: per_worker(optax.scale_by_schedule(lambda t: jnp.where(t < 1, x, 0.0)), WORKERS),
    "scale_by_staleness": lambda x: scale_by_staleness(lambda tau: x / (1 + tau)),
    "store_versions": lambda x: store_versions(jnp.int32(2 * x), max_staleness=2),
    "store_versions-law": lambda x: store_versions(staleness.geometric(1.0)),
    "store_versions-host": lambda x: store_versions(2, memory="pinned_host"),
    "summed_momentum": lambda x: summed_momentum(x, WORKERS),
    "summed_momentum-accumulator": lambda x: summed_momentum(x, WORKERS, accumulator_dtype=jnp.bfloat16),
    "with_delay": lambda x: with_delay(1, optax.chain(compensate_delay(x), per_worker(optax.trace(x), 2))),
    "with_delay-drop": lambda x: with_delay(TRACE, lift(MAIN_METHODS["multi_asgd"].make(x)), before_start="drop"),
}
FACTORIES = BLOCKS | {name: lambda x, row=row: lift(row.make(0.5 * x)) for name, row in METHODS.items()}
SLOW = set(METHODS) - set(MAIN_METHODS)
ON_HOST = [name for name in BLOCKS if name.endswith("-host")]
COMPLEX_IS_REFUSED = "compensate_delay", "dc_asgd", "dana_dc", "gap_aware", "yellowfin", "closed_loop", "with_delay"

marked = lambda name: pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
every = pytest.mark.parametrize("name", [marked(name) for name in FACTORIES])


def make(name, x=0.5):
    return optax.with_extra_args_support(FACTORIES[name](x))


def types(tree):
    """Shapes, dtypes, weak types, shardings and memory, as JAX writes them."""
    return jax.tree.map(lambda x: (str(jax.typeof(x)), jax.typeof(x).weak_type), tree)


def event_at(params, dtype=jnp.float32):
    """What an update is told."""
    event = {"worker": jnp.int32(1), "staleness": jnp.int32(1), "value": jnp.ones((), dtype)}
    return {**event, "read_params": jax.tree.map(lambda p: 0.9 * p, params)}


def walk(tx, params, count=3, event=event_at):
    """A few updates: the parameters after each, and the state at the end; the types stay what they are."""
    params = jax.tree.map(jnp.asarray, params)
    state, path = tx.init(params), []
    for t in range(count):
        grads = jax.tree.map(lambda p, t=t: (0.5 * p + 0.1 * (t + 1)).astype(p.dtype), params)
        updates, new_state = tx.update(grads, state, params, **event(params))
        assert types(updates) == types(grads)
        assert types(new_state) == types(state)
        params, state = optax.apply_updates(params, updates), new_state
        path.append(params)
    return path, state


def trace(tx, params=PARAMS, **options):
    """Walks without computing anything."""
    return jax.eval_shape(lambda params: walk(tx, params, **options), params)


def mesh_of(kind):
    return jax.make_mesh((4,), ("x",), axis_types=(kind,))


# --- The loop --------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("devices", [1, 4])
def test_a_loop_may_donate_and_is_compiled_once(name, devices):
    """A leaf that is the same buffer as another cannot be donated; on several devices it ended the process."""
    tx = make(name)
    replicated = NamedSharding(jax.make_mesh((devices,), ("x",), axis_types=(AxisType.Auto,)), PartitionSpec())

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        read = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(jax.device_put(state, jax.memory.Space.Device)))
        updates, state = tx.update(jax.tree.map(lambda p: 2 * p, params), state, params, **event_at(params))
        return optax.apply_updates(params, updates), state, read

    params = jax.device_put(PARAMS, replicated)
    state = tx.init(params)
    pointers = [shard.data.unsafe_buffer_pointer() for x in jax.tree.leaves(state) for shard in x.addressable_shards]
    assert len(set(pointers)) == len(pointers)
    sizes = []
    for _ in range(3):
        params, state, read = step(params, state)
        sizes.append(step._cache_size())
    assert sizes[1] == sizes[2] and np.isfinite(read)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


# --- Parameters of all kinds -----------------------------------------------------------------------------------------

KINDS = {
    "plain": PARAMS,
    "one_array": PARAMS["a"],
    "scalar": np.float32(0.5),
    "bfloat16": jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS),
    "mixed": {"a": PARAMS["a"].astype(jnp.bfloat16), "b": PARAMS["b"], "c": np.ones(2, np.float16)},
    "empty": {"a": PARAMS["a"], "nothing": np.zeros((0, 3), np.float32)},
    "none": {"a": PARAMS["a"], "frozen": None},
    "tuples": (PARAMS["a"], [PARAMS["b"], ()]),
}


@every
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_every_kind_under_strict_promotion(name, kind):
    with jax.numpy_dtype_promotion("strict"):
        trace(make(name), KINDS[kind])


@pytest.mark.parametrize("name", [name for name in BLOCKS if "per_worker" not in name and "with_delay" not in name])
def test_integer_leaves_pass(name):
    """As in Optax; their gradients are integers."""
    params = {"a": np.ones(3, np.float32), "count": np.arange(3, dtype=np.int32)}
    tx, zeros = make(name), jax.tree.map(np.zeros_like, params)
    updates, state = tx.update(zeros, tx.init(params), params, **event_at(params, jnp.int32))
    assert types(state) == types(tx.init(params)) and updates["count"].dtype == np.int32


@every
def test_an_abstract_init_has_the_types_of_the_state(name):
    is_same = lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype)
    state = make(name).init(PARAMS)
    assert jax.tree.all(jax.tree.map(is_same, jax.eval_shape(make(name).init, PARAMS), state))


@every
def test_complex_parameters_work_or_are_refused(name):
    params = {"a": np.ones(3, np.complex64)}
    if (name.startswith(COMPLEX_IS_REFUSED) and name != "with_delay-drop") or name.endswith("-accumulator"):
        with pytest.raises(TypeError, match=r"needs real parameters, got complex64 at params\['a'\]"):
            make(name).init(params)
    else:
        trace(make(name), params)


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_float32_to_rounding(name, dtype):
    """Squares of small gradients and epsilons underflow in float16, which made a NaN of a gradient of zero."""
    tx, info = make(name), jnp.finfo(dtype)

    def positions(dtype):
        params = read = {"a": jnp.zeros(3, dtype), "b": jnp.zeros(1, dtype)}
        state, path = tx.init(params), []
        for t in range(4):
            event = {**event_at(params), "worker": jnp.int32(t % 2), "staleness": jnp.int32(min(t, 1))}
            grads = {"a": jnp.asarray([0.0, 1e-4, 1.0], dtype), "b": jnp.asarray([1e-4], dtype)}
            updates, state = tx.update(grads, state, params, **{**event, "read_params": read})
            read, params = params, optax.apply_updates(params, updates)
            path.append(np.concatenate([leaf.astype(jnp.float64) for leaf in params.values()]))
        return np.array(path)

    tolerance = {"rtol": 3 * float(info.eps), "atol": 8 * float(info.smallest_subnormal)}
    want = positions(np.float32)
    assert np.all(np.isfinite(want))
    np.testing.assert_allclose(positions(dtype), want, **tolerance)


def test_squares_do_not_overflow_in_half_precision():
    tx, g = compensate_delay(1e-3), jnp.asarray([300.0], jnp.float16)
    updates, _ = tx.update(g, tx.init(g), jnp.ones_like(g), read_params=jnp.zeros_like(g))
    assert float(updates[0]) == 390.0


# --- Wrappers of Optax -----------------------------------------------------------------------------------------------


def multi_steps(tx):
    steps = optax.MultiSteps(tx, 1)
    return optax.GradientTransformationExtraArgs(steps.init, steps.update)


def always(step, params=None, **extra):
    del params, extra
    return step >= 0


# Each wraps a factory, and is the transformation itself on the whole of the parameters.
WRAPPERS = {
    "multi_steps": lambda factory: multi_steps(factory(0.5)),
    "inject_hyperparams": lambda factory: optax.inject_hyperparams(lambda x: factory(x))(x=0.5),
    "apply_if_finite": lambda factory: optax.apply_if_finite(factory(0.5), 2),
    "conditionally_transform": lambda factory: optax.conditionally_transform(factory(0.5), always),
    "named_chain": lambda factory: optax.named_chain(("first", optax.identity()), ("second", factory(0.5))),
}
MASK = {"a": True, "b": False}
# Each gives the transformation a part of the parameters.
PARTS = {
    "masked": lambda factory: optax.masked(factory(0.5), MASK),
    "masked_by_function": lambda factory: optax.masked(factory(0.5), lambda _: MASK),
    "masked_with_extra": lambda factory: optax.masked(factory(0.5), MASK, mask_compatible_extra_args=True),
    "partition": lambda factory: optax.partition({True: factory(0.5), False: factory(0.5)}, MASK),
    "partition_and_frozen": lambda factory: optax.partition({True: factory(0.5), False: optax.set_to_zero()}, MASK),
}


@every
@pytest.mark.parametrize("wrapper", [*WRAPPERS, *PARTS, "flatten"])
def test_wrappers_trace(name, wrapper):
    wrap = {**WRAPPERS, **PARTS, "flatten": lambda factory: optax.flatten(factory(0.5))}[wrapper]
    trace(wrap(FACTORIES[name]))


def values(tx, params=PARAMS):
    return jax.jit(lambda params: walk(tx, params)[0])(params)


@every
@pytest.mark.slow
def test_wrapped_is_what_it_is_alone(name):
    want = values(make(name))
    for wrap in WRAPPERS.values():
        assert_close(values(wrap(FACTORIES[name])), want, 1e-6)
    part = values(make(name), {"a": PARAMS["a"]})
    for wrap in PARTS.values():
        assert_close([params["a"] for params in values(wrap(FACTORIES[name]))], [p["a"] for p in part], 1e-6)
    vector = values(make(name), np.concatenate([np.ravel(PARAMS["a"]), PARAMS["b"]]))
    got = values(optax.flatten(make(name)))
    assert_close(
        [np.concatenate([np.ravel(p["a"]), p["b"]]) for p in got], [np.asarray(params) for params in vector], 1e-6
    )


@pytest.mark.parametrize("name", ["compensate_delay", "decay_weights", "with_delay", "store_versions"])
@pytest.mark.parametrize("wrapper", ["masked", "partition"])
def test_a_part_is_what_it_is_alone(name, wrapper):
    """In the fast tier: those that read trees beside the updates."""
    part = walk(make(name), {"a": PARAMS["a"]}, 2)[0]
    got = walk(PARTS[wrapper](FACTORIES[name]), PARAMS, 2)[0]
    assert_close([params["a"] for params in got], [params["a"] for params in part], 1e-6)


# --- Transformations of JAX ------------------------------------------------------------------------------------------


@every
def test_vmap_and_gradients_trace(name):
    tx = make(name)
    jax.eval_shape(jax.grad(loss_after(tx)), PARAMS)
    if name in ON_HOST:
        pytest.skip("JAX does not vmap over rows in host memory")
    stacked = jax.tree.map(lambda p: np.stack([p, 2 * p]), PARAMS)
    path = jax.eval_shape(jax.vmap(lambda params: walk(tx, params)[0][-1]), stacked)
    assert jax.tree.map(lambda x: x.shape, path) == jax.tree.map(np.shape, stacked)


def loss_after(tx):
    return lambda params: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(walk(tx, params)[0][-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FACTORIES if name not in ON_HOST])
def test_vmap_is_one_after_the_other_and_gradients_are_finite(name):
    tx = make(name)
    stacked = jax.tree.map(lambda p: np.stack([p, 2 * p]), PARAMS)
    got = jax.jit(jax.vmap(lambda params: walk(tx, params)[0][-1]))(stacked)
    for k in range(2):
        want = values(tx, jax.tree.map(lambda p, k=k: p[k], stacked))[-1]
        assert_close(jax.tree.map(lambda x, k=k: x[k], got), want, 1e-5)
    gradient = jax.jit(jax.grad(loss_after(tx)))(PARAMS)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_gradients_pass_through_versions_in_host_memory():
    def loss(params, memory):
        tx, losses = store_versions(2, memory=memory), []
        state = tx.init(params)
        for _ in range(3):
            read = read_stale_params(state, params)
            losses.append(sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(read)))
            _, state = tx.update(read, state, params)
            params = jax.tree.map(lambda p, r: p - 0.1 * r, params, read)
        return sum(losses)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    assert_close(gradient(PARAMS, "pinned_host"), gradient(PARAMS, "device"))
    assert np.abs(gradient(PARAMS, "device")["a"]).max() > 1


@pytest.mark.parametrize("name", ["explicit_momentum", "compensate_delay", "scale_by_staleness", "per_worker"])
def test_a_hyperparameter_has_a_gradient(name):
    loss = lambda x: loss_after(make(name, x))(PARAMS)
    at, step = 0.25, 1e-2
    slope = (loss(at + step) - loss(at - step)) / (2 * step)
    assert float(jax.grad(loss)(at)) == pytest.approx(float(slope), rel=0.05) and slope != 0


# --- Meshes ----------------------------------------------------------------------------------------------------------

SPECS = {"a": PartitionSpec(None, "x"), "b": PartitionSpec("x")}


def sharded(mesh):
    return jax.tree.map(lambda p, spec: jax.device_put(p, NamedSharding(mesh, spec)), PARAMS, SPECS)


@every
def test_a_state_lies_as_partition_spec_says(name):
    mesh, tx = mesh_of(AxisType.Auto), make(name)
    state, specs = tx.init(sharded(mesh)), partition_spec(tx, PARAMS, SPECS)

    def same(leaf, spec):
        want = NamedSharding(mesh, spec, memory_kind=leaf.sharding.memory_kind)
        assert leaf.sharding.is_fully_replicated or leaf.sharding.is_equivalent_to(want, leaf.ndim), (leaf.shape, spec)
        if leaf.shape[-1:] == (8,):  # rows and copies of parameters
            assert leaf.addressable_shards[0].data.nbytes * 4 == leaf.nbytes
            assert jax.device_put(leaf, want).sharding == want

    jax.tree.map(same, state, specs)


@every
def test_shardings_in_types(name):
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        path, state = trace(make(name), sharded(mesh))
    assert all(p["a"].sharding.spec == SPECS["a"] for p in path)
    rows = [leaf for leaf in jax.tree.leaves(state) if leaf.shape[-2:] == (4, 8)]
    assert all(leaf.sharding.spec == PartitionSpec(*[None] * (leaf.ndim - 1), "x") for leaf in rows)


@every
def test_map_params_finds_the_parameters(name):
    tx = make(name)
    state = jax.eval_shape(tx.init, PARAMS)
    mapped = optax.tree.map_params(tx, lambda leaf, _: leaf, state, PARAMS, transform_non_params=lambda leaf: leaf)
    assert mapped == state


# --- Checkpoints -----------------------------------------------------------------------------------------------------


@every
def test_a_state_survives_bytes(name):
    state = make(name).init(PARAMS)
    back = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    jax.tree.map(np.testing.assert_array_equal, back, state)
    assert types(make(name).update(PARAMS, back, PARAMS, **event_at(PARAMS))[1]) == types(state)


def test_all_states_survive_orbax(tmp_path):
    """On a mesh. (On one device JAX forgets that a restored array lies in host memory; the next push puts it back.)"""
    params = jax.device_put(PARAMS, NamedSharding(mesh_of(AxisType.Auto), PartitionSpec()))
    states = {name: make(name).init(params) for name in BLOCKS}
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "states", states)
    assert types(back) == types(states)
    jax.tree.map(np.testing.assert_array_equal, back, states)


# --- By design not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, missing",
    [
        ("compensate_delay", "read_params"),
        ("decay_weights", "read_params"),
        ("per_worker", "worker"),
        ("scale_by_staleness", "staleness"),
        ("summed_momentum", "worker"),
    ],
)
def test_an_update_without_its_event_says_what_is_missing(name, missing):
    tx = make(name)
    with pytest.raises(ValueError, match=f"needs {missing} in update.*forwards no extra arguments.*with_delay"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", ["compensate_delay", "decay_weights-server", "store_versions", "with_delay"])
def test_an_update_without_parameters_says_so(name):
    tx = make(name)
    with pytest.raises(ValueError, match="needs params; call update"):
        tx.update(PARAMS, tx.init(PARAMS), **{**event_at(PARAMS), "read_params": PARAMS})


@pytest.mark.parametrize(
    "factory, arguments, static",
    [
        (summed_momentum, {"momentum": 0.5, "num_workers": 4}, "num_workers"),
        (per_worker, {"tx": optax.sgd(0.1), "num_workers": 4}, "num_workers"),
        (delay_gradients, {"staleness": 1, "max_staleness": 2}, "max_staleness"),
        (store_versions, {"staleness": 1, "max_staleness": 2}, "max_staleness"),
        (with_delay, {"staleness": 1, "inner": optax.sgd(0.1), "max_staleness": 2}, "max_staleness"),
        (scale_by_staleness, {"fn": lambda tau: 1 / (1 + tau)}, "fn"),
    ],
)
def test_what_cannot_be_injected_is_named(factory, arguments, static):
    tx = optax.inject_hyperparams(factory)(**arguments)
    with pytest.raises(TypeError, match=rf"{static} .*optax.inject_hyperparams pass static_args=\('{static}'"):
        jax.jit(tx.init)(PARAMS)


def test_versions_in_host_memory_have_no_forward_derivative():
    with pytest.raises(TypeError, match="can't apply forward-mode"):
        jax.jvp(lambda params: walk(make("store_versions-host"), params)[0][-1], (PARAMS,), (PARAMS,))
