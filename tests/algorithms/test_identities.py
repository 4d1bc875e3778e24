"""What the papers' methods have in common: identities between methods, closed forms, and how much memory each keeps."""

import dataclasses
import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from problems import MAIN_METHODS, METHODS, NUM_EVENTS, SOFTMAX_PARAMS, WORKERS, assert_close, batch_rows, flat

import asyncflax
from asyncflax import algorithms as a
from asyncflax import queues, staleness

BATCHES = batch_rows()
TRACES = problems.some_traces()
N, ETA, MU = WORKERS, 0.2, 0.7
ONE_WORKER = staleness.geometric(2.0).trace(num_updates=NUM_EVENTS, seed=4)
ROUND_ROBIN = queues.simulate(num_workers=N, num_updates=NUM_EVENTS, service_time=queues.deterministic())
LARGE_BATCHES = BATCHES.reshape(NUM_EVENTS // N, -1)  # a round of N batches as one
ROUNDS = staleness.constant(0).trace(num_updates=NUM_EVENTS // N)

main_methods = pytest.mark.parametrize("row", MAIN_METHODS.values(), ids=MAIN_METHODS.keys())


def seeing(params, rows):
    """The gradient of the convex problem, reported together with what was read."""
    loss, grads = jax.value_and_grad(problems.softmax_loss)(params, rows)
    return asyncflax.GradientResult(loss, grads, {"read": ravel_pytree(params)[0], "grad": ravel_pytree(grads)[0]})


def given_gradient(params, batch):
    """A linear loss: the gradient is the batch, wherever it is computed."""
    return asyncflax.GradientResult(jnp.zeros((), params.dtype), batch, {"read": params})


def drops(count):
    """A learning rate that falls to a tenth, twice."""
    return jnp.where(count < 9, ETA, jnp.where(count < 17, ETA / 10, ETA / 100))


def run(algorithm, trace, batches=BATCHES, params=SOFTMAX_PARAMS, gradient_fn=seeing):
    return asyncflax.run(algorithm, gradient_fn, params, trace, batches)


def run_any(algorithm, trace):
    """The final state and the outputs for a drawn trace; all of them share a program."""
    plan = problems.of_one_shape(asyncflax.make_plan(trace))
    return problems.run_with_plan(algorithm, seeing, SOFTMAX_PARAMS, plan, BATCHES)


def event_by_event(algorithm, trace):
    """The server's parameters [T + 1, d], what the events read and their gradients [T, d], the states [T]."""
    plan = asyncflax.make_plan(trace, cuts=range(1, len(trace)))
    state = asyncflax.init_run(algorithm, SOFTMAX_PARAMS, plan)
    thetas, reads, grads, states = [flat(state.params)], [], [], []
    for chunk in plan:
        state, out = asyncflax.run_chunk(algorithm, seeing, state, chunk, chunk.take(BATCHES))
        thetas.append(flat(state.params))
        reads.append(np.asarray(out.aux["read"][0]))
        grads.append(np.asarray(out.aux["grad"][0]))
        states.append(jax.tree.map(np.asarray, state.algorithm))
    return np.array(thetas), np.array(reads), np.array(grads), states


def copy_in(state):
    """The one copy of the parameters' shape that a state holds; whether it is u or -u is the method's own business."""
    leaves = [x for x in jax.tree.leaves(state) if x.shape in [np.shape(p) for p in SOFTMAX_PARAMS]]
    assert len(leaves) == len(SOFTMAX_PARAMS)
    return np.abs(flat(leaves))


def differ(x, y, by=1e-3):
    return np.abs(flat(x) - flat(y)).max() > by


# --- DANA: one method in two forms (5.2) ------------------------------------------------------------------------------


@given(problems.traces())
@pytest.mark.parametrize("learning_rate", [ETA, drops], ids=["constant", "drops"])
def test_slim_holds_the_lookahead_of_zero(learning_rate, trace):
    """On every order of events and under every schedule: the step size is inside the velocities."""
    zero = a.dana_zero(learning_rate, MU, num_workers=N, weight_decay=0.05)
    slim = a.dana_slim(learning_rate, MU, num_workers=N, weight_decay=0.05)
    state, out = run_any(zero, trace)
    slim_state, slim_out = run_any(slim, trace)
    assert_close(slim_out.aux["read"], out.aux["read"])
    assert_close(slim_state.params, zero.view(state.params, state.algorithm))


@pytest.mark.parametrize("kind", ["exponential", "assigned"])
def test_slim_outside_is_slim_until_the_learning_rate_drops(kind):
    make = lambda learning_rate, form: a.dana_slim(learning_rate, MU, num_workers=N, form=form)
    inside, outside = (run(make(ETA, form), TRACES[kind]).params for form in ("inside", "outside"))
    assert_close(inside, outside)
    inside, outside = (run(make(drops, form), TRACES[kind]).params for form in ("inside", "outside"))
    assert differ(inside, outside)


@pytest.mark.parametrize(
    "one, other",
    [
        (a.dana_zero(ETA, MU, num_workers=1), a.nag_asgd(ETA, MU)),
        (a.dana_slim(ETA, MU, num_workers=1), a.nag_asgd(ETA, MU, variant="shifted")),
        (a.dana_dc(ETA, MU, num_workers=1, strength=0.0), a.nag_asgd(ETA, MU)),
        (a.smega2(ETA, MU, num_workers=1), a.nag_asgd(ETA, MU)),
        (a.smega2(ETA, MU, num_workers=1, estimate="naive"), a.nag_asgd(ETA, MU)),
        (a.lwp(ETA, MU, num_workers=1, lag=MU), a.nag_asgd(ETA, MU)),
        (a.lwp(ETA, MU, num_workers=1, lag=0.0), a.momentum_asgd(ETA, MU)),
        *(
            (a.delayed_nesterov(ETA, MU, num_workers=1, activation=c), a.nag_asgd(ETA, MU, variant="shifted"))
            for c in (0.0, 0.3, 1.0)
        ),
    ],
    ids=repr,
)
def test_of_one_worker_with_stale_gradients(one, other):
    """One velocity in many guises; these hold with any staleness."""
    one, other = run(one, ONE_WORKER), run(other, ONE_WORKER)
    assert_close(one.params, other.params)
    assert_close(one.aux["read"], other.aux["read"])


@pytest.mark.parametrize(
    "algorithm",
    [
        a.dana_zero(ETA, 0.0, num_workers=N),
        a.dana_slim(ETA, 0.0, num_workers=N),
        a.dana_dc(ETA, 0.0, num_workers=N, strength=0.0),
        a.lwp(ETA, 0.0, num_workers=N, lag=0.0),
        a.ormo(ETA, 0.0, num_workers=N),
        a.ormo(ETA, 0.0, num_workers=N, late_step="vanilla"),
        a.ormo_da(ETA, 0.0, num_workers=N, scale=100.0),
        a.shifted_momentum(ETA, 0.0, num_workers=N),
        a.shifted_momentum(ETA, 0.0, num_workers=N, velocity="version", max_staleness=NUM_EVENTS),
        a.smega2(ETA, 0.0, num_workers=N),
        a.delayed_nesterov(N * ETA, 0.0, num_workers=N),  # every step is g / N
    ],
    ids=repr,
)
def test_without_momentum_it_is_asgd(algorithm):
    trace = TRACES["assigned"]
    assert_close(run(algorithm, trace).params, run(a.asgd(ETA), trace).params)


def test_a_round_moves_dana_by_its_gradients_alone():
    """From its read until all N workers have updated once, DANA moves as far as ASGD would, whatever the momentum.

    A worker's own update comes last: until then its own velocity, which the look-ahead has counted in, is missing.
    """
    thetas, reads, grads, _ = event_by_event(a.dana_zero(ETA, MU, num_workers=N), ROUND_ROBIN)
    multi_thetas, multi_reads, multi_grads, _ = event_by_event(a.multi_asgd(ETA, MU, num_workers=N), ROUND_ROBIN)
    velocity = [np.zeros_like(grads) for _ in range(2)]  # of the worker of event t, after it
    for t in range(NUM_EVENTS):
        for v, g in zip(velocity, (grads, multi_grads), strict=True):
            v[t] = g[t] + (MU * v[t - N] if t >= N else 0)
    for t in range(N, NUM_EVENTS):  # event t reads version t - N + 1
        assert ROUND_ROBIN.read_version[t] == t - N + 1
        round_of = slice(t - N + 1, t + 1)
        assert_close(thetas[t + 1] - reads[t], -ETA * grads[round_of].sum(0))
        assert_close(thetas[t] - reads[t], -ETA * grads[t - N + 1 : t].sum(0) + ETA * MU * velocity[0][t - N])
        before = velocity[1][t - 2 * N + 1 : t - N + 1] if t >= 2 * N - 1 else None
        if before is not None:
            want = -ETA * (MU * before + multi_grads[round_of]).sum(0)
            assert_close(multi_thetas[t + 1] - multi_reads[t], want)


def test_the_gap_of_multi_asgd_is_larger_by_one_over_one_minus_momentum():
    """Under a constant gradient, when velocities have settled: 10 times that of DANA and ASGD at a momentum of 0.9."""
    trace = queues.simulate(num_workers=N, num_updates=1600, service_time=queues.deterministic())
    gap = {}
    for algorithm in (a.asgd(0.1), *(make(0.1, 0.9, num_workers=N) for make in (a.dana_zero, a.multi_asgd))):
        result = run(algorithm, trace, np.ones((1600, 1)), np.zeros(1), given_gradient)
        gap[repr(algorithm).partition("(")[0]] = float(np.abs(result.params - result.aux["read"][-1])[0])
    assert_close(gap["asgd"], 0.1 * N)
    assert_close(gap["dana_zero"], 0.1 * N)
    assert_close(gap["multi_asgd"] / gap["dana_zero"], 10.0, 1e-10)


def test_lwp_looks_ahead_along_its_last_step():
    for lag, algorithm in ((N, a.lwp(ETA, MU, num_workers=N)), (2.5, a.lwp(ETA, MU, num_workers=N, lag=2.5))):
        trace = TRACES["exponential"]
        thetas, reads, _, _ = event_by_event(algorithm, trace)
        for t in range(NUM_EVENTS):
            v = trace.read_version[t]
            assert_close(reads[t], thetas[v] + lag * (thetas[v] - thetas[max(v - 1, 0)]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_sum_of_danas_velocities_does_not_drift(dtype):
    """60,000 updates in float32, in which the sum of the velocities is only ever changed by differences."""
    steps, d, tolerance = 60_000, 8, {jnp.float32: 2e-4, jnp.float64: 1e-12}[dtype]
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(steps, d)).astype(dtype) * rng.lognormal(sigma=2, size=(steps, 1)).astype(dtype)
    trace = queues.simulate(num_workers=N, num_updates=steps, service_time=queues.exponential())
    algorithm = a.dana_zero(0.1, 0.9, num_workers=N)
    result = run(algorithm, trace, grads, jnp.zeros(d, dtype), given_gradient)
    kept = algorithm.view(jnp.zeros(d, dtype), result.state) / -0.9
    velocity = np.zeros((N, d))
    for worker, g in zip(trace.worker.tolist(), grads.astype(np.float64), strict=True):
        velocity[worker] = 0.9 * velocity[worker] + 0.1 * g
    total = velocity.sum(0)
    assert np.linalg.norm(kept - total) <= tolerance * np.linalg.norm(total)


# --- DC-ASGD: the right backup (5.1, 6.1) -----------------------------------------------------------------------------


def test_one_fresh_worker_has_nothing_to_compensate():
    trace = staleness.constant(0).trace(num_updates=NUM_EVENTS)
    params, grads = np.array([1.0, -2.0, 0.1]), np.array([0.3, 0.7, -5.0])
    for options in ({}, {"curvature": "absolute"}, {"mean_square": "shared"}):
        algorithm = a.dc_asgd(ETA, strength=1e6, **options)
        step, _ = algorithm.update(grads, algorithm.init(params), params, worker=0, staleness=0, read_params=params)
        np.testing.assert_array_equal(step, -ETA * grads)
        assert_close(run(algorithm, trace).params, run(a.asgd(ETA), trace).params)


def with_backups(twin, backup):
    """The oracle, but it keeps what workers downloaded itself, or the wrong thing."""

    class Backups(twin):
        def apply(self, g, worker, staleness, theta_read):
            if not hasattr(self, "backups"):
                self.backups = [self.view() for _ in range(N)]
                self.server_backups = [self.theta for _ in range(N)]
                self.last = self.theta
            before = self.theta
            super().apply(g, worker, staleness, backup(self, worker))
            self.backups[worker], self.server_backups[worker], self.last = self.view(), self.theta, before

    return Backups


BACKUPS = {
    "own": lambda server, worker: server.backups[worker],
    "another worker's": lambda server, worker: server.backups[(worker + 1) % N],
    "the last worker's": lambda server, worker: server.last,
    "an alias of the server's": lambda server, worker: server.theta,
}


@pytest.mark.parametrize("name", ["dc_asgd", "dc_asgd-per_worker", "dana_dc", "dana_dc-lookahead"])
def test_each_gradient_is_compensated_from_where_it_was_computed(name):
    """What was sent to this worker; with another backup the parameters are others by far."""
    row, trace = METHODS[name], TRACES["exponential"]
    got = flat(run(row.make(), trace).params)
    wrong = dict(BACKUPS)
    if row.factory is a.dana_dc:
        wrong["not the look-ahead that was sent"] = lambda server, worker: server.server_backups[worker]
    for who, backup in wrong.items():
        twin = dataclasses.replace(row, twin=with_backups(row.twin, backup))
        theta = problems.softmax_twin(twin, trace, BATCHES).theta
        if who == "own":
            assert_close(got, theta)
        else:
            assert differ(got, theta), who


# --- Shifted momentum (6.3) -------------------------------------------------------------------------------------------


@st.composite
def queue_traces(draw):
    """Workers that read the version their own last update made."""
    worker = draw(st.lists(st.integers(0, N - 1), min_size=NUM_EVENTS, max_size=NUM_EVENTS))
    last = [0] * N
    read_version = []
    for t, i in enumerate(worker):
        read_version.append(last[i])
        last[i] = t + 1
    return asyncflax.Trace(worker=worker, read_version=read_version, num_workers=N)


by_version = functools.partial(a.shifted_momentum, num_workers=N, velocity="version", max_staleness=NUM_EVENTS)


@given(queue_traces())
@pytest.mark.parametrize("learning_rate, form", [(ETA, "inside"), (drops, "outside")])
def test_a_queues_worker_holds_the_velocity_of_the_version_it_read(learning_rate, form, trace):
    worker = a.shifted_momentum(learning_rate, MU, num_workers=N, form=form, dampening=0.3)
    version = by_version(learning_rate, MU, form=form, dampening=0.3)
    assert_close(run_any(version, trace)[0].params, run_any(worker, trace)[0].params)


def test_shifted_momentum_is_multi_asgd_under_round_robin():
    multi = run(a.multi_asgd(ETA, MU, num_workers=N), ROUND_ROBIN).params
    assert_close(run(a.shifted_momentum(ETA, MU, num_workers=N), ROUND_ROBIN).params, multi)
    assert_close(run(by_version(ETA, MU), ROUND_ROBIN).params, multi)
    # Where versions are read by others than their makers, a version's velocity is not its reader's.
    restart = TRACES["restart"]
    assert differ(run(by_version(ETA, MU), restart).params, run(a.multi_asgd(ETA, MU, num_workers=N), restart).params)


def test_shifted_momentum_under_a_constant_delay_has_its_characteristic_polynomial():
    """On h x^2 / 2, behind tau + 1 events: z^(tau+2) - z^(tau+1) - mu z + mu + h z = 0, stable up to h = 0.2832."""
    tau, mu, steps, end = 3, 0.5, 800, {}
    trace = staleness.constant(tau).trace(num_updates=steps)
    quadratic = lambda x, h: asyncflax.GradientResult(0.5 * h * x**2, h * x, {"read": x})
    algorithm = a.shifted_momentum(1.0, mu, num_workers=1, velocity="version", max_staleness=tau)
    for h in (0.25, 0.32):
        x = np.asarray(run(algorithm, trace, np.full(steps, h), jnp.ones(()), quadratic).aux["read"])[tau:]  # x_0, ...
        t = np.arange(tau, 200)
        assert_close(x[t + tau + 2] - x[t + tau + 1] - mu * x[t + 1] + mu * x[t] + h * x[t + 1], np.zeros(len(t)))
        end[h] = np.abs(x[-50:]).max()
    assert end[0.25] < 1e-3 and end[0.32] > 1e3


# --- OrMo (7.2) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [N, 7])
@pytest.mark.parametrize("kind", ["exponential", "assigned"])
def test_ormo_depends_on_the_buckets_of_its_gradients_alone(kind, num_workers):
    """Its order-free form, after every event."""
    trace = TRACES[kind]
    thetas, _, grads, states = event_by_event(a.ormo(ETA, MU, num_workers=num_workers), trace)
    bucket = np.ceil(trace.read_version / num_workers)
    for t in range(NUM_EVENTS):
        late = np.ceil(t / num_workers) - bucket[: t + 1]
        assert_close(copy_in(states[t]), np.abs(MU**late @ (ETA * grads[: t + 1])))
        assert_close(thetas[t + 1], thetas[0] - (1 - MU ** (late + 1)) / (1 - MU) @ (ETA * grads[: t + 1]))


def test_ormo_forgets_the_order_in_a_bucket():
    """Gradients as given; three workers of a bucket deliver in the opposite order, and nothing is different after."""
    reads, grads = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], np.random.default_rng(0).normal(size=(12, 3))
    order = [0, 1, 2, 3, 4, 7, 6, 5, 8, 11, 10, 9]  # versions 2, 3, 4 and 6, 7, 8 are of one bucket each
    results = []
    for events in (list(range(12)), order):
        trace = asyncflax.Trace(worker=[t % N for t in events], read_version=[reads[t] for t in events], num_workers=N)
        results.append(run(a.ormo(ETA, MU, num_workers=N), trace, grads[events], np.zeros(3), given_gradient))
    assert_close(results[0].params, results[1].params)
    assert_close(results[0].state, results[1].state)


def test_a_synchronous_ormo_is_nesterov_or_heavy_ball():
    """N gradients at one version, then a broadcast; its steps are N times those with the mean."""
    barrier = TRACES["barrier"]
    reads = run(a.ormo(ETA, MU, num_workers=N), barrier).aux["read"]
    nesterov = run(a.nag_asgd(N * ETA, MU), ROUNDS, LARGE_BATCHES)
    assert_close(reads, np.repeat(nesterov.aux["read"], N, axis=0))
    floor = run(a.ormo(ETA, MU, num_workers=N, bucket="floor"), barrier)
    heavy_ball = run(a.momentum_asgd(N * ETA, MU), ROUNDS, LARGE_BATCHES)
    assert_close(floor.aux["read"], np.repeat(heavy_ball.aux["read"], N, axis=0))
    assert_close(floor.params, heavy_ball.params)


class FloorOfTheEvent(reference.Ormo):
    """OrMo with D = floor(t / K) - ceil(ite / K)."""

    def apply(self, g, worker, staleness, theta_read):
        t, k, beta = self.received, self.num_workers, self.beta
        if t > 0 and t % k == 0:
            self.theta, self.u = self.theta - beta * self.u, beta * self.u
        late = t // k - math.ceil((t - staleness) / k)
        self.u = self.u + beta**late * self.eta * g
        self.theta = self.theta - (1 - beta ** (late + 1)) / (1 - beta) * self.eta * g


def test_the_floor_of_the_event_alone_is_for_synchronous_rounds():
    """Why a floor stands on both sides: D can be -1, and then the step is nothing. In rounds the two are the same."""
    floor = METHODS["ormo-floor"]
    twin = dataclasses.replace(floor, twin=FloorOfTheEvent, options=())
    rounds, queue = TRACES["barrier"], TRACES["exponential"]
    assert_close(run(floor.make(), rounds).params, problems.softmax_twin(twin, rounds, BATCHES).theta)
    assert differ(run(floor.make(), queue).params, problems.softmax_twin(twin, queue, BATCHES).theta)


# --- Delayed Nesterov (9) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [0.0, 0.5 / N, 1 / N])
def test_n_steps_of_delayed_nesterov(activation):
    """-eps (mean g + beta [(1 - c N + c) m_new + (N - 1) c m_old]); without activation, Nesterov with the mean."""
    algorithm = a.delayed_nesterov(ETA, MU, num_workers=N, activation=activation)
    thetas, _, grads, _ = event_by_event(algorithm, TRACES["exponential"])
    m = np.zeros_like(thetas[0])
    for t in range(0, NUM_EVENTS, N):
        mean, old = grads[t : t + N].mean(0), m
        m = MU * m + mean
        step = mean + MU * ((1 - activation * N + activation) * m + (N - 1) * activation * old)
        assert_close(thetas[t + N] - thetas[t], -ETA * step)


# --- Step sizes of the delay (7.1, 8) ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm, factor",
    [
        (a.delay_adaptive_asgd(ETA, num_workers=N), lambda tau: N / max(N, tau)),
        (a.delay_adaptive_asgd(ETA, num_workers=N, delay="staleness_plus_one"), lambda tau: N / max(N, tau + 1)),
        (a.staleness_aware_asgd(ETA), lambda tau: 1 / max(tau, 1)),
        (a.staleness_aware_asgd(ETA, delay="staleness_plus_one"), lambda tau: 1 / (tau + 1)),
        (a.ormo_da(ETA, 0.0, num_workers=N), lambda tau: min(1, N / max(tau, 1))),
        (a.ormo_da(ETA, 0.0, num_workers=N, scale=0.15), lambda tau: min(1, 0.15 * N / tau) if tau else 1),
        (
            a.ormo_da(ETA, 0.0, num_workers=N, rule="bound", smoothness=0.13),
            lambda tau: 1 if tau <= 2 * N else min(1, 1 / (4 * 0.13 * tau) / ETA),
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, asyncflax.AsyncAlgorithm) else "",
)
def test_the_step_is_that_of_the_delay(algorithm, factor):
    """A gradient of 1 at every event: what the server moves by is the step size."""
    read_version = [0, *(max(t - tau, 0) for t, tau in enumerate([*range(14), *range(14)], start=1))]
    trace = asyncflax.Trace(worker=[0] * 29, read_version=read_version)
    assert set(trace.staleness.tolist()) == set(range(14))
    step = lambda tau: algorithm.update(
        jnp.ones(()), algorithm.init(jnp.zeros(())), jnp.zeros(()), worker=0, staleness=tau, read_params=jnp.zeros(())
    )[0]
    assert_close([step(tau) for tau in range(14)], [-ETA * factor(tau) for tau in range(14)])
    want = -ETA * sum(factor(tau) for tau in trace.staleness.tolist())
    assert_close(run(algorithm, trace, np.ones(29), np.zeros(()), given_gradient).params, want)


# --- YellowFin (3.2) --------------------------------------------------------------------------------------------------


def test_yellowfins_cubic():
    """x p = (1 - x)^3 has one solution; x = sqrt(mu) minimises x^2 D^2 + (1 - x)^4 C / h_min^2."""
    from asyncflax.algorithms.yellowfin import _cubic_root

    p = np.logspace(-9, 6, 61)
    x = np.asarray(_cubic_root(jnp.asarray(p)))
    assert np.all((x > 0) & (x < 1))
    np.testing.assert_allclose(x * p, (1 - x) ** 3, rtol=1e-6)
    np.testing.assert_allclose(x, [reference.cubic_root(q) for q in p], rtol=1e-9)
    p = np.logspace(-12, 12, 97)
    for dtype, tolerance in ((jnp.float64, 1e-9), (jnp.float32, 1e-3)):
        x = np.asarray(_cubic_root(jnp.asarray(p, dtype)))
        np.testing.assert_allclose(x, [reference.cubic_root(q) for q in p], atol=tolerance, rtol=0)
    for distance, h, variance in [(0.3, 2.0, 0.5), (2.0, 1.0, 0.01), (0.1, 0.5, 4.0)]:
        x = float(_cubic_root(jnp.asarray(distance**2 * h**2 / (2 * variance))))
        cost = lambda x, c=(distance, h, variance): x**2 * c[0] ** 2 + (1 - x) ** 4 * c[2] / c[1] ** 2
        assert cost(x) <= min(cost(x - 1e-4), cost(x + 1e-4))


def test_without_a_range_of_curvatures_the_noise_alone_decides():
    """Gradients +-g of one norm s: h_min = h_max = h = s^2 + 1e-6, D = s / h, p = s^2 / (2 C), and mu is x^2."""
    steps, decay, size = 30, 0.8, 0.5
    grads = np.array([[size], [-size]] * (steps // 2))
    algorithm = a.yellowfin(1.0, initial_momentum=0.0, average_decay=decay, window=5)
    trace = staleness.constant(0).trace(num_updates=steps)
    state = run(algorithm, trace, grads, np.zeros(1), given_gradient).state
    mean = mu = 0.0
    for t in range(steps):
        mean = decay * mean + (1 - decay) * grads[t, 0]
        variance = size**2 - (mean / (1 - decay ** (t + 1))) ** 2
        if t > 0:
            mu = decay * mu + (1 - decay) * reference.cubic_root(size**2 / (2 * variance)) ** 2
    assert float(optax.tree.get(state, "explicit_momentum")) == pytest.approx(mu, abs=1e-9)


# --- What holds for all of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS.keys())
def test_decay_is_a_part_of_the_gradient(row):
    """Decay at 'read' adds wd times what the worker had read, decay at 'server' wd times what the server has."""
    params, read = jnp.array([1.0, -2.0, 0.5]), jnp.array([-2.0, 3.0, -1.0])  # either decay flips a sign of grads
    grads, event = jnp.array([0.5, 0.1, -0.7]), {"worker": 1, "staleness": 2, "read_params": read}

    def step(grads, **decay):
        algorithm = row.factory(**{**row.arguments(ETA, MU, N), "weight_decay": 0.0, **decay})
        state = algorithm.init(params)
        total = jnp.zeros(3)
        for _ in range(N):  # whoever acts once a round acts
            updates, state = algorithm.update(grads, state, params, value=1.0, **event)
            total += updates
        return total, algorithm.view(params, state)

    plain = step(grads)
    for where, theta in (("read", read), ("server", params)):
        decayed = step(grads, weight_decay=0.3, decay_at=where)
        assert_close(decayed, step(grads + 0.3 * theta))
        assert differ(decayed, plain, 1e-6)


@main_methods
def test_nothing_comes_of_nothing(row):
    """Gradients of 0 move nothing, and leave no NaN behind: gaps, norms and averages of 0 are divided by."""
    algorithm = row.factory(**{**row.arguments(ETA, MU, N), "weight_decay": 0.0})
    result = run(algorithm, TRACES["exponential"], np.zeros((NUM_EVENTS, 3)), np.arange(3.0), given_gradient)
    np.testing.assert_array_equal(result.params, np.arange(3.0))
    np.testing.assert_array_equal(result.aux["read"], np.broadcast_to(np.arange(3.0), (NUM_EVENTS, 3)))
    assert np.isfinite(flat(result.state)).all()


@pytest.mark.parametrize("name", a.__all__)
def test_every_method_has_a_twin(name):
    """A method that has none is run by no suite."""
    assert name in MAIN_METHODS, (
        f"asyncflax.algorithms.{name} has no twin: write one in NumPy in a file of tests/reference/, a subclass of "
        f"Server with rows = (Row({name!r}, copies=...),), see CONTRIBUTING.md"
    )
    assert MAIN_METHODS[name].copies is not None, (
        f"Row({name!r}, ...) in tests/reference/ lacks copies=, the copies of the parameters in the state for 8 workers"
    )


def test_every_twin_has_a_method():
    unknown = [row.name for row, _ in reference.ROWS if row.method not in a.__all__]
    assert unknown == [], f"rows in tests/reference/ name methods that asyncflax.algorithms lacks: {unknown}"
    names = [row.name for row, _ in reference.ROWS]
    assert len(names) == len(set(names)), "two rows in tests/reference/ have the same name"


@pytest.mark.parametrize("row", [m for m in METHODS.values() if m.copies is not None], ids=lambda m: m.name)
def test_what_the_server_keeps(row):
    """The memory that the papers state, in copies of the parameters."""
    size = 1_000_000
    algorithm = row.make(num_workers=8)
    state = jax.eval_shape(algorithm.init, jax.ShapeDtypeStruct((size,), jnp.float32))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert row.copies * size <= numbers <= row.copies * size + 20_000


def needs_backups(row):
    """Whether the rule looks at what the worker had read: then a real server keeps that, for every worker."""
    algorithm = row.factory(**{**row.arguments(ETA, MU, 8), "weight_decay": 0.0})
    params, steps = jnp.array([1.0, -2.0]), []
    for read in (jnp.array([0.5, 3.0]), jnp.array([-1.0, 0.25])):
        state, event = algorithm.init(params), {"worker": 1, "staleness": 2, "read_params": read}
        for _ in range(8):
            step, state = algorithm.update(jnp.array([0.3, -0.1]), state, params, value=1.0, **event)
        steps.append(step)
    return differ(*steps, 1e-9)


def test_the_page_of_methods_has_these_numbers():
    """What the server and a worker of a real cluster keep, and the emulator."""
    page = pathlib.Path(__file__).parents[2].joinpath("docs", "methods.md").read_text()
    number = r"(\d+|(?:\d+ )?N(?: \+ \d+)?)"
    rows = re.findall(rf"^\| `(\w+)` \|.*\| {number} \| {number} \| {number} \| [^|]+ \|$", page, re.MULTILINE)
    missing = set(a.__all__) - {name for name, *_ in rows}
    assert not missing, f"the table in docs/methods.md lacks {missing}: method, update, view, three numbers, source"
    for name, *said in rows:
        assert name in MAIN_METHODS, (
            f"the table in docs/methods.md has {name}, asyncflax.algorithms and its twin do not"
        )
        row = MAIN_METHODS[name]
        server, worker, here = (eval(re.sub(r"(\d) N", r"\1 * N", text), {"N": 8}) for text in said)
        assert here == row.copies and worker == row.worker_copies, name
        assert server == here + 8 * needs_backups(row) - 8 * worker, name
