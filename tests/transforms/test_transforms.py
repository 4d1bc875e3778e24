"""The building blocks, and staleness in other people's loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import reference
from problems import SOFTMAX_PARAMS, assert_close, batch_rows

import asyncflax
from asyncflax import queues, staleness
from asyncflax.transforms import (
    compensate_delay,
    decay_weights,
    delay_gradients,
    explicit_momentum,
    per_worker,
    read_stale_params,
    scale_by_staleness,
    store_versions,
)

STEPS = 40
BATCHES = batch_rows(STEPS)
grad = jax.grad(problems.softmax_loss)


def optax_loop(tx, params=SOFTMAX_PARAMS, batches=BATCHES, read=lambda state, params: params):
    """A loop as other people write it."""
    params = jax.tree.map(jnp.asarray, params)

    def step(carry, rows):
        params, state = carry
        updates, state = tx.update(grad(read(state, params), rows), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (params, state), path = jax.lax.scan(step, (params, tx.init(params)), jnp.asarray(batches))
    return params, state, path


# --- delay_gradients -------------------------------------------------------------------------------------------------

QUEUE = queues.simulate(num_workers=5, num_updates=STEPS, service_time=queues.exponential(), seed=2)


@pytest.mark.parametrize(
    "trace",
    [QUEUE, staleness.geometric(4.0).trace(num_updates=STEPS, seed=1), staleness.constant(3).trace(num_updates=STEPS)],
    ids=["queue", "geometric", "constant"],
)
@pytest.mark.parametrize("momentum", [None, 0.6])
def test_a_delayed_optax_loop_is_a_run_on_the_batches_of_the_versions(trace, momentum):
    """The gradient of step s is computed at w_s on batch s; event t of the run reads w_{r_t}, so it gets batch r_t."""
    sgd = optax.sgd(0.3, momentum)
    params, _, _ = optax_loop(optax.chain(delay_gradients(trace), sgd))
    gradient_fn = asyncflax.from_loss(problems.softmax_loss)
    run = asyncflax.run(asyncflax.from_optax(sgd), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES[trace.read_version])
    assert_close(params, run.params)


def test_a_number_a_constant_law_and_its_trace_are_the_same():
    want, _, _ = optax_loop(optax.chain(delay_gradients(4), optax.sgd(0.2)))
    for other in (staleness.constant(4), staleness.constant(4).trace(num_updates=STEPS)):
        assert_close(optax_loop(optax.chain(delay_gradients(other), optax.sgd(0.2)))[0], want)


def emitted(tx, steps=STEPS):
    """Which gradient each step puts out: the gradient of step s is s + 1."""
    state, out = tx.init(jnp.zeros(())), []
    for s in range(steps):
        update, state = tx.update(jnp.asarray(s + 1.0), state)
        out.append(float(update))
    return np.array(out), state


def test_clamp_and_drop():
    assert emitted(delay_gradients(3), 6)[0].tolist() == [1, 1, 1, 1, 2, 3]
    assert emitted(delay_gradients(3, before_start="drop"), 6)[0].tolist() == [0, 0, 0, 1, 2, 3]
    assert emitted(delay_gradients(0), 3)[0].tolist() == [1, 2, 3]


def test_a_law_is_drawn_step_by_step_and_by_seed():
    law = staleness.uniform(1, 4)
    first, state = emitted(delay_gradients(law, seed=3))
    np.testing.assert_array_equal(first, emitted(delay_gradients(law, seed=3))[0])
    assert np.any(first != emitted(delay_gradients(law, seed=4))[0])
    tau = np.arange(STEPS) + 1 - first
    assert set(tau[4:]) == {1, 2, 3, 4} and int(state.clipped) == 0


def test_a_queue_uses_each_gradient_at_most_once_but_the_first():
    used, _ = emitted(delay_gradients(QUEUE))
    later = used[used > 1]
    assert len(np.unique(later)) == len(later) and np.sum(used == 1) == 5


def test_steps_beyond_a_trace_are_nan():
    out, _ = emitted(delay_gradients(staleness.constant(1).trace(num_updates=3)), 5)
    assert np.isfinite(out[:3]).all() and np.isnan(out[3:]).all()


def test_parameters_read_beyond_a_trace_are_nan():
    tx = optax.chain(optax.sgd(0.1), store_versions(staleness.constant(1).trace(num_updates=3)))
    params = jnp.ones(())
    state, read = tx.init(params), []
    for _ in range(5):
        read.append(float(read_stale_params(state, params)))
        _, state = tx.update(jnp.ones(()), state, params)
    assert np.isfinite(read[:3]).all() and np.isnan(read[3:]).all()


def test_versions_can_be_stored_under_a_mask():
    """What the mask keeps out is read fresh."""
    tx = optax.chain(optax.sgd(0.25), optax.masked(store_versions(1), {"stale": True, "fresh": False}))
    params = {"stale": jnp.ones(()), "fresh": jnp.ones(())}
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    newer = jax.tree.map(lambda p: p + 1, params)
    assert read_stale_params(state, newer) == {"stale": 1.0, "fresh": 2.0}


def test_clipping_is_announced_and_counted():
    with pytest.warns(UserWarning, match=r"max_staleness=2 cuts off 0.667 of the probability of uniform\(0, 8\)"):
        tx = delay_gradients(staleness.uniform(0, 8), max_staleness=2, beyond="clip")
    out, state = emitted(tx)
    tau = np.arange(STEPS) + 1 - out
    assert tau.max() == 2 and STEPS * 0.4 < int(state.clipped) < STEPS * 0.9
    assert jax.tree.leaves(state.ring.rows)[0].shape == (3,)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: delay_gradients(-1), ValueError, "staleness must be an integer >= 0, got staleness=-1"),
        (lambda: delay_gradients(1.5), TypeError, "staleness must be a concrete integer, got 1.5"),
        (
            lambda: delay_gradients(staleness.geometric(7.0), max_staleness=10),
            ValueError,
            r"max_staleness=10 cuts off 0.23 of the probability of geometric\(7\); use max_staleness=103",
        ),
        (lambda: delay_gradients(QUEUE, max_staleness=1, beyond="error"), ValueError, "max_staleness=1 cuts off"),
        (lambda: delay_gradients(5, max_staleness=4, beyond="error"), ValueError, "use max_staleness=5"),
        (lambda: delay_gradients(5, beyond="wrap"), ValueError, "beyond must be one of 'error', 'clip', got 'wrap'"),
        (lambda: delay_gradients(5, before_start="x"), ValueError, "before_start must be one of 'clamp', 'drop'"),
        (lambda: delay_gradients(5, max_staleness=-1), ValueError, "max_staleness must be an integer >= 0"),
        (
            lambda: jax.vmap(lambda d: delay_gradients(d).init(1.0))(jnp.arange(3)),
            ValueError,
            "max_staleness is required",
        ),
        (
            lambda: delay_gradients(staleness.constant(1), seed=-1),
            ValueError,
            "seed must be an integer >= 0, got seed=-1",
        ),
        (
            lambda: jax.jit(optax.inject_hyperparams(delay_gradients)(2, max_staleness=4).init)(jnp.zeros(())),
            TypeError,
            "max_staleness",
        ),
        (lambda: per_worker(0.5, 2), TypeError, "tx must be an optax.GradientTransformation, got 0.5"),
        (
            lambda: delay_gradients(1).update(jnp.ones(2), delay_gradients(1).init(jnp.ones(3))),
            ValueError,
            "must have the shape",
        ),
        (lambda: explicit_momentum(1.5), ValueError, r"momentum must be finite and in \[-1, 1\], got momentum=1.5"),
        (lambda: explicit_momentum(np.array([0.5, np.nan])), ValueError, "momentum must be finite"),
        (lambda: compensate_delay(-0.1), ValueError, "strength must be finite"),
        (lambda: per_worker(optax.sgd(0.1), 0), ValueError, "num_workers must be an integer >= 1"),
        (
            lambda: per_worker(optax.sgd(0.1), 2).update(0.0, per_worker(optax.sgd(0.1), 2).init(0.0), worker=2),
            ValueError,
            "worker must be at most 1, got worker=2",
        ),
        (lambda: scale_by_staleness(0.5), TypeError, "fn must be a function"),
        (lambda: decay_weights(0.1, at="x"), ValueError, "at must be one of 'read', 'server'"),
        (
            lambda: read_stale_params(optax.sgd(0.1).init(0.0), 0.0),
            ValueError,
            "opt_state has no state of store_versions",
        ),
        (
            lambda: store_versions(2).update(0.0, store_versions(2).init(0.0)),
            ValueError,
            "store_versions needs params",
        ),
        (
            lambda: compensate_delay(1.0).update(0.0, (), read_params=0.0),
            ValueError,
            "compensate_delay needs params",
        ),
        (lambda: decay_weights(1.0).update(0.0, (), 0.0), ValueError, "needs read_params"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_delay_inside_inject_hyperparams():
    tx = optax.inject_hyperparams(lambda learning_rate: optax.chain(delay_gradients(2), optax.sgd(learning_rate)))(0.3)
    want, _, _ = optax_loop(optax.chain(delay_gradients(2), optax.sgd(0.3)))
    assert_close(optax_loop(tx)[0], want)
    injected = optax.inject_hyperparams(delay_gradients, static_args=("max_staleness", "seed"))
    tx = optax.chain(injected(staleness=2, max_staleness=6), optax.sgd(0.3))
    assert_close(optax_loop(tx)[0], want)


def test_delay_inside_multi_steps():
    """Every second micro-step makes an update, with the mean gradient of two pairs of steps before."""
    inner = optax.chain(delay_gradients(1), optax.sgd(1.0))
    tx = optax.MultiSteps(inner, every_k_schedule=2, accumulator_dtype=jnp.float64)
    out, _ = emitted(tx.gradient_transformation(), 8)
    np.testing.assert_allclose(out, [0, -1.5, 0, -1.5, 0, -3.5, 0, -5.5])


def test_delay_inside_masks_and_multi_transform():
    labels = ("slow", "fast")
    tx = optax.multi_transform(
        {"slow": optax.chain(delay_gradients(2), optax.sgd(0.1)), "fast": optax.sgd(0.1)}, labels
    )
    params, _, _ = optax_loop(tx)
    masked = optax.chain(optax.masked(delay_gradients(2), (True, False)), optax.sgd(0.1))
    assert_close(params, optax_loop(masked)[0])
    assert np.abs(problems.flat(params) - problems.flat(optax_loop(optax.sgd(0.1))[0])).max() > 1e-3


def test_delay_under_vmap_of_the_delay():
    path = lambda d: optax_loop(optax.chain(delay_gradients(d, max_staleness=6), optax.sgd(0.2)))[0]
    grid = jax.vmap(path)(jnp.array([0, 3, 6]))
    for k, d in enumerate([0, 3, 6]):
        assert_close(
            jax.tree.map(lambda x, k=k: x[k], grid), optax_loop(optax.chain(delay_gradients(d), optax.sgd(0.2)))[0]
        )


def test_a_law_is_not_drawn_under_vmap_with_keys_that_depend_on_the_company():
    law = staleness.uniform(1, 4)

    def second(seed):
        tx = delay_gradients(law, seed=seed)
        _, state = tx.update(jnp.float64(1), tx.init(jnp.float64(0)))
        return tx.update(jnp.float64(2), state)[0]

    seeds = jnp.arange(8)
    np.testing.assert_array_equal(jax.vmap(second)(seeds), [second(seed) for seed in seeds])
    with jax.default_prng_impl("rbg"):
        assert second(0) in (1.0, 2.0)
        with pytest.raises(ValueError, match=r"staleness, batched by jax\.vmap, uses the implementation rbg"):
            jax.vmap(second)(seeds)


def test_delay_under_shard_map():
    """Data parallelism around it: each device delays its own gradients, the mean is applied."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    tx = optax.chain(delay_gradients(2), optax.sgd(0.2))

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(spec(), spec(None, "data")), out_specs=spec(), check_vma=False
    )
    def train(params, batches):
        def step(carry, rows):
            params, state = carry
            grads = jax.lax.pmean(grad(params, rows), "data")
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
        return params

    params = jax.jit(train)(jax.tree.map(jnp.asarray, SOFTMAX_PARAMS), jnp.asarray(BATCHES))
    assert_close(params, optax_loop(tx)[0])


def test_delay_state_is_arrays_and_continues_from_a_copy():
    tx = optax.chain(delay_gradients(staleness.geometric(3.0), seed=1), optax.adam(1e-2))
    half = STEPS // 2
    params, state, _ = optax_loop(tx, batches=BATCHES[:half])
    saved = jax.tree.map(np.asarray, (params, state))
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype != object for leaf in jax.tree.leaves(saved))
    params, state = jax.tree.map(jnp.asarray, saved)
    for rows in BATCHES[half:]:
        updates, state = jax.jit(tx.update)(grad(params, rows), state, params)
        params = optax.apply_updates(params, updates)
    assert_close(params, optax_loop(tx)[0], 1e-10)


# --- store_versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["device", "pinned_host"])
@pytest.mark.parametrize(
    "trace", [QUEUE, staleness.geometric(4.0).trace(num_updates=STEPS, seed=1)], ids=["queue", "geometric"]
)
def test_reading_stale_parameters_is_a_run(trace, memory):
    tx = optax.chain(optax.sgd(0.3, 0.5), store_versions(trace, memory=memory))
    params, _, _ = optax_loop(tx, read=read_stale_params)
    run = asyncflax.run(
        asyncflax.from_optax(optax.sgd(0.3, 0.5)),
        asyncflax.from_loss(problems.softmax_loss),
        SOFTMAX_PARAMS,
        trace,
        BATCHES,
    )
    assert_close(params, run.params)


def test_stored_versions_read_a_law_and_count_what_they_clip():
    law = staleness.uniform(0, 3)
    tx = optax.chain(optax.sgd(1.0), store_versions(law, seed=5))
    state, version, ages = tx.init(jnp.zeros(())), jnp.zeros(()), []
    for _ in range(200):
        ages.append(float(version - read_stale_params(state, version)))
        _, state = tx.update(jnp.ones(()), state, version)
        version = version + 1
    assert set(ages) == {0.0, 1.0, 2.0, 3.0} and ages[0] == 0
    with pytest.warns(UserWarning, match="cuts off"):
        tx = store_versions(staleness.constant(3), max_staleness=2, beyond="clip")
    state = tx.init(jnp.zeros(()))
    for step in range(6):
        _, state = tx.update(jnp.zeros(()), state, jnp.asarray(float(step)))
    assert int(state.clipped) == 4 and int(state.staleness) == 2
    assert jax.tree.leaves(state.ring.rows)[0].shape == (2,)


# --- noise: what replaying gradients shares with eq. 6, and what not -------------------------------------------------


def test_the_noise_of_replayed_gradients_is_larger_than_that_of_eq_6():
    """Quadratic, h = 0.1, geometric staleness with mean 7: 0.0910 for eq. 6, 0.1397 for replayed gradients."""
    h, law, steps, runs = 0.1, staleness.geometric(7.0), 40_000, 16
    q = np.append(law.table[:150], law.tail(149))
    exact_eq6 = reference.stationary_variance_eq6(q, h, h)
    exact_replay = reference.stationary_variance_replay(q, h, h)
    assert exact_eq6 == pytest.approx(0.0910, abs=1e-4)
    assert exact_replay == pytest.approx(0.1397, abs=1e-4)

    def variances(tx, read, seed):
        noise = jax.random.normal(jax.random.key(seed), (runs, steps))

        def step(carry, z):
            params, state = carry
            gradient = jax.vmap(read)(state, params) + z
            updates, state = jax.vmap(tx.update)(gradient, state, params)
            return (params + updates, state), params

        start = jnp.zeros(runs)
        _, path = jax.lax.scan(step, (start, jax.vmap(tx.init)(start)), noise.T)
        return np.asarray(path[2000:]).var(axis=0)

    # The runs share the draws of the law, so every run has a seed of its own noise only.
    replay = variances(optax.chain(delay_gradients(law, seed=1), optax.sgd(h)), lambda state, params: params, 1)
    eq6 = variances(optax.chain(optax.sgd(h), store_versions(law, seed=2)), read_stale_params, 2)
    assert replay.mean() == pytest.approx(exact_replay, rel=0.06)
    assert eq6.mean() == pytest.approx(exact_eq6, rel=0.06)
    assert replay.mean() > 1.35 * eq6.mean()

    # The engine itself is eq. 6.
    trace = law.trace(num_updates=steps, seed=3)
    gradient_fn = lambda x, z: (x * x, x + z)
    train = lambda z: asyncflax.run(asyncflax.algorithms.asgd(h), gradient_fn, jnp.zeros(()), trace, z).losses
    second_moment = jax.vmap(train)(jax.random.normal(jax.random.key(4), (8, steps)))[:, 2000:].mean()
    assert float(second_moment) == pytest.approx(exact_eq6, rel=0.06)


# --- small blocks ----------------------------------------------------------------------------------------------------


def test_per_worker_equals_separate_optimizers():
    tx = per_worker(optax.adam(0.1), 3)
    rng = np.random.default_rng(0)
    params = jnp.zeros(2)
    state, alone = tx.init(params), [optax.adam(0.1).init(params) for _ in range(3)]
    for worker in rng.integers(0, 3, 30):
        g = jnp.asarray(rng.normal(size=2))
        update, state = tx.update(g, state, params, worker=worker)
        want, alone[worker] = optax.adam(0.1).update(g, alone[worker], params)
        assert_close(update, want)


def test_negative_momentum_and_the_two_places_of_the_step_size():
    """Behind the learning rate the velocity keeps the old step size; in front of it the new one is applied at once."""
    rate = lambda count: jnp.where(count < 2, 1.0, 0.1)
    step = optax.scale_by_learning_rate(rate)
    inside = optax.chain(step, explicit_momentum(-0.5))
    outside = optax.chain(explicit_momentum(-0.5), step)
    assert emitted_ones(inside) == pytest.approx([-1.0, -0.5, 0.15, -0.175])
    assert emitted_ones(outside) == pytest.approx([-1.0, -0.5, -0.075, -0.0625])


def emitted_ones(tx):
    state, out = tx.init(jnp.zeros(())), []
    for _ in range(4):
        update, state = tx.update(jnp.ones(()), state)
        out.append(float(update))
    return out
