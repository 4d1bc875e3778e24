"""The theorems, exactly: expectations by running every possible trace, stability limits by bisection."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from problems import assert_close, of_one_shape

import asyncflax
from asyncflax import algorithms, staleness

H = 0.3  # step size times curvature
square = asyncflax.from_loss(lambda x, batch: 0.5 * x**2 + 0.0 * batch)


def recorded(algorithm, num_events):
    """The algorithm, with the server's parameters after each event in its state."""

    def update(grads, state, params, **event):
        inner, path, t = state
        updates, inner = algorithm.update(grads, inner, params, **event)
        return updates, (inner, path.at[t].set(params + updates), t + 1)

    return asyncflax.AsyncAlgorithm(
        lambda params: (algorithm.init(params), jnp.zeros(num_events), 0), update, algorithm.view
    )


def all_paths(traces, algorithm, num_events):
    """x_t for t = 1..T on the quadratic, from x_0 = 1, a row for each trace, by the engine.

    A trace with fewer events than T keeps its last parameters.
    """
    plans = [of_one_shape(asyncflax.make_plan(trace), num_events) for trace in traces]
    chunks = [dataclasses.replace(plan[0], exclusive=False) for plan in plans]
    stacked = jax.tree.map(lambda *x: np.stack(x), *chunks)
    algorithm = recorded(algorithm, num_events)
    states = jax.vmap(lambda _: asyncflax.init_run(algorithm, jnp.ones(()), plans[0]))(jnp.arange(len(plans)))
    # Every state starts at event 0; the slots must fit the padded chunks.
    states = states._replace(slots=jax.tree.map(lambda x: jnp.ones((len(plans), num_events)), states.slots))
    run = lambda state, chunk: asyncflax.run_chunk(algorithm, square, state, chunk, jnp.zeros(num_events))[0]
    final = jax.vmap(run)(states, stacked)
    _, path, _ = final.algorithm
    lengths = np.array([len(trace) for trace in traces])[:, None]
    return np.asarray(jnp.where(np.arange(num_events)[None] < lengths, path, final.params[:, None]))


def expected_path(traces, weights, algorithm, num_events):
    """E x_t for t = 1..T: the weighted mean over all traces."""
    return np.asarray(weights) @ all_paths(traces, algorithm, num_events)


def all_clamped_traces(law, num_events):
    """Every trace under the law with its probability: tau_t in 0..t, everything older clamped to t."""
    for tau in itertools.product(*[range(t + 1) for t in range(num_events)]):
        weight = np.prod([law.pmf(k) if k < t else law.tail(k - 1) for t, k in enumerate(tau)])
        if weight > 0:
            yield asyncflax.Trace([0] * num_events, [t - k for t, k in enumerate(tau)]), weight


def all_queue_traces(num_workers, num_events):
    """Every order of deliveries; with exponential work all are equally likely."""
    for workers in itertools.product(range(num_workers), repeat=num_events):
        last = [0] * num_workers
        read = []
        for t, i in enumerate(workers):
            read.append(last[i])
            last[i] = t + 1
        yield asyncflax.Trace(workers, read, num_workers=num_workers), num_workers**-num_events


LAWS = [
    staleness.geometric(3.0),
    staleness.uniform(1, 4),
    staleness.negative_binomial(2.0, 2.0),
    staleness.empirical([0.2, 0.0, 0.5, 0.3]),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_theorem_2_for_any_law(law):
    """E dx_{t+1} = E dx_t - h q_0 E x_t + h sum_l (q_l - q_{l+1}) E x_{t-l-1}; before the start x is constant."""
    steps = 6
    traces, weights = zip(*all_clamped_traces(law, steps), strict=True)
    assert np.sum(weights) == pytest.approx(1.0, abs=1e-13)
    path = expected_path(traces, weights, algorithms.asgd(H), steps)
    q = np.append(law.pmf(np.arange(steps)), law.tail(steps - 1))
    assert_close(path, reference.mean_under_law(q, H, 1.0, steps)[1:])

    # The history is constant at x_0 before the start, which is the gradient h x_0 at all those times.
    past = 400
    x = [1.0] * past + [1.0, *path]
    q = law.pmf(np.arange(past + 1))
    for t in range(1, steps):
        now = past + t
        kernel = sum((q[lag] - q[lag + 1]) * x[now - lag - 1] for lag in range(past - 1))
        assert_close(x[now + 1] - x[now], (x[now] - x[now - 1]) - H * q[0] * x[now] + H * kernel)


def test_theorem_3_geometric_staleness_is_momentum():
    """With clamp the first step is full; with drop the velocity starts at zero. mu = 3/4."""
    law, mu, steps = staleness.geometric(3.0), 0.75, 6
    traces, weights = zip(*all_clamped_traces(law, steps), strict=True)
    clamp = expected_path(traces, weights, algorithms.asgd(H), steps)
    assert_close(clamp, reference.momentum_recursion(mu, (1 - mu) * H, 1.0, -H, steps)[1:])
    assert_close(clamp, reference.mean_under_law(_lumped(law, steps), H, 1.0, steps, "clamp")[1:])


def test_theorem_3_when_updates_before_the_start_are_dropped():
    """Ticks without an update count: the trace holds the updates that were made, and its time their ticks."""
    law, mu, steps = staleness.geometric(3.0), 0.75, 5
    ends = np.zeros(steps)
    for ticks in range(1, steps + 1):
        traces, weights = [], []
        for tau in itertools.product(range(ticks + 1), repeat=ticks):  # tau = ticks stands for all that is older
            weight = np.prod([law.pmf(k) if k < ticks else law.tail(ticks - 1) for k in tau])
            version, read = [0], []
            for tick, k in enumerate(tau):
                if k <= tick:
                    read.append(version[tick - k])
                version.append(len(read))
            if read:
                traces.append(asyncflax.Trace([0] * len(read), read))
                weights.append(weight)
        nothing = 1.0 - np.sum(weights)  # no update at all: x stays at 1
        ends[ticks - 1] = expected_path(traces, weights, algorithms.asgd(H), ticks)[-1] + nothing
    assert_close(ends, reference.momentum_recursion(mu, (1 - mu) * H, 1.0, -(1 - mu) * H, steps)[1:])


def _lumped(law, steps):
    return np.append(law.pmf(np.arange(steps)), law.tail(steps - 1))


@pytest.mark.parametrize("num_workers, steps", [(1, 5), (2, 9), (3, 6)])
def test_theorem_5_the_exponential_queue_is_momentum(num_workers, steps):
    """E dx_{t+1} = (1 - 1/M) E dx_t - (h/M) E x_t, exactly, although staleness depends on the past there."""
    traces, weights = zip(*all_queue_traces(num_workers, steps), strict=True)
    path = expected_path(traces, weights, algorithms.asgd(H), steps)
    assert_close(path, reference.queue_mean(num_workers, H, 1.0, steps)[1:])
    mu = 1 - 1 / num_workers
    assert_close(path, reference.momentum_recursion(mu, H / num_workers, 1.0, -H, steps)[1:])


@pytest.mark.parametrize("explicit", [0.5, -0.3])
def test_explicit_and_implicit_momentum_multiply(explicit):
    """(1 - mu_L B)(1 - mu_S B)(x_{t+1} - x_t) = -(1 - mu_S) h x_t: more than the sum of the two momenta."""
    num_workers, steps = 2, 8
    traces, weights = zip(*all_queue_traces(num_workers, steps), strict=True)
    path = expected_path(traces, weights, algorithms.momentum_asgd(H, explicit), steps)
    implicit = 1 - 1 / num_workers
    x = np.concatenate([[1.0], path])
    dx = np.diff(x)
    for t in range(2, steps):
        want = (explicit + implicit) * dx[t - 1] - explicit * implicit * dx[t - 2] - (1 - implicit) * H * x[t]
        assert_close(dx[t], want)


def stability_limit(delay, make_algorithm, upper):
    """The largest step times curvature at which x does not grow under a constant delay, by bisection."""
    steps = 6000
    trace = staleness.constant(delay).trace(num_updates=steps)

    @jax.jit
    def grows(h):
        x = jnp.abs(
            jnp.sqrt(2 * asyncflax.run(make_algorithm(h), square, jnp.ones(()), trace, jnp.zeros(steps)).losses)
        )
        early, late = x[1000:2000].max(), x[-1000:].max()
        return ~(late <= early)  # NaN grows

    low, high = 0.0, upper
    for _ in range(13):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return (low + high) / 2


@pytest.mark.parametrize("delay", [0, 1, 3, 7, 15])
def test_stability_limit_of_a_constant_delay(delay):
    """h < 2 sin(pi / (2 (2 tau + 1)))."""
    limit = stability_limit(delay, algorithms.asgd, 2.5)
    assert limit == pytest.approx(reference.delay_limit(delay), rel=2e-3)


@pytest.mark.parametrize(
    "delay, momentum, limit",
    [
        (0, 0.5, 3.0),
        (1, 0.5, 0.5),
        (1, -0.3, 1.3),
        (3, 0.9, 0.03478),
        (7, -0.09, 0.22999),
        (7, -0.3, 0.27918),
        (7, 0.5, 0.09575),
    ],
)
def test_stability_limit_with_explicit_momentum(delay, momentum, limit):
    """(z - 1)(z - mu) z^tau + h z = 0; at tau = 1 exactly 1 - mu. Negative momentum raises the limit."""
    measured = stability_limit(delay, lambda h: algorithms.momentum_asgd(h, momentum), 4.0)
    assert measured == pytest.approx(limit, rel=5e-3, abs=3e-4)


@pytest.mark.parametrize("num_workers, steps", [(2, 9), (3, 6)])
def test_the_mean_square_of_the_exponential_queue(num_workers, steps):
    """E x_t^2 is the linear recursion on (E x^2, E x m, mean E s_i^2, E m^2), whose limit at M = 4 is 0.84307."""
    traces, weights = zip(*all_queue_traces(num_workers, steps), strict=True)
    squares = np.asarray(weights) @ all_paths(traces, algorithms.asgd(H), steps) ** 2
    moments, want = np.ones(4), []  # at the start the server and all snapshots are x_0 = 1
    for _ in range(steps):
        moments = reference.queue_mean_square_matrix(H, num_workers) @ moments
        want.append(moments[0])
    assert_close(squares, want)
    radius = lambda h: np.abs(np.linalg.eigvals(reference.queue_mean_square_matrix(h, 4))).max()
    assert radius(0.8430) < 1 < radius(0.8432)
