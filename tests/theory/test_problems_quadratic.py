"""The noisy quadratic: ensembles against the engine, a loop in NumPy and exact theory."""

import functools

import jax
import numpy as np
import pytest
from problems import assert_close

import asyncflax
from asyncflax import staleness, theory
from asyncflax.theory.problems import NoisyQuadratic, StreamingPca
from asyncflax.theory.problems.ensemble import _simulate

GEOMETRIC = staleness.geometric(3.0)
KINDS = {"fresh": 0, "constant": 5, "law": GEOMETRIC, "queue": theory.ExponentialQueue(4)}
PROBLEM = NoisyQuadratic(curvature=0.5, noise=0.7)


def loop(curvature, noise, learning_rate, momentum, read_version, samples, start):
    """w_{t+1} = w_t + mu (w_t - w_{t-1}) - alpha lambda (w_read + sigma n_t), one after the other."""
    w = [start]
    for t, (read, n) in enumerate(zip(read_version, samples, strict=True)):
        before = w[t - 1] if t else start
        w.append(w[t] + momentum * (w[t] - before) - learning_rate * curvature * (w[read] + noise * n))
    return np.array(w)


@functools.cache
def small_ensemble(kind, stream="signs"):
    problem = NoisyQuadratic(curvature=0.5, noise=0.7, stream=stream)
    return problem.ensemble(
        KINDS[kind], learning_rate=0.3, momentum=0.4, num_updates=400, num_trajectories=3, every=50, start=2.0, seed=5
    )


@pytest.mark.parametrize("kind, stream", [*((kind, "signs") for kind in KINDS), ("constant", "gaussian")])
def test_every_trajectory_is_that_of_the_loop(kind, stream):
    ensemble = small_ensemble(kind, stream)
    for trajectory in range(3):
        trace, samples = ensemble.replay(trajectory)
        path = loop(0.5, 0.7, 0.3, 0.4, trace.read_version, samples, 2.0)
        assert_close(ensemble.paths[:, trajectory], path[::50])
    assert len({float(w) for w in ensemble.paths[-1]}) == 3  # each has a stream of its own


def test_the_engine_replays_a_trajectory():
    ensemble = small_ensemble("queue")
    trace, samples = ensemble.replay(1)
    algorithm = asyncflax.algorithms.momentum_asgd(0.3, 0.4)
    result = asyncflax.run(algorithm, ensemble.problem.gradient, np.float64(2.0), trace, samples, width=4)
    assert_close(result.params, ensemble.paths[-1, 1])


def test_the_traces_are_those_of_the_staleness():
    traces = {kind: [small_ensemble(kind).replay(i)[0] for i in range(3)] for kind in KINDS}
    assert set(traces["constant"][0].staleness[5:]) == {5}
    for kind in ("law", "queue"):
        staleness = np.concatenate([trace.staleness for trace in traces[kind]])
        assert abs(staleness.mean() - 3.0) < 4 * (12 / len(staleness)) ** 0.5
        assert not np.array_equal(traces[kind][0].read_version, traces[kind][1].read_version)
    read = traces["queue"][0].read_version
    assert traces["queue"][0].num_workers == 4
    assert len(set(read[read > 0])) == np.count_nonzero(read)  # a version is read by one worker


def test_the_gradient_is_that_of_the_loss():
    for w, n in ((0.3, 1.0), (-2.0, -1.0)):
        loss, gradient = PROBLEM.gradient(w, n)
        assert_close(gradient, jax.grad(lambda w, n=n: PROBLEM.gradient(w, n)[0])(w))
        assert_close(loss, 0.5 / 2 * w**2 + 0.5 * 0.7 * n * w)


@pytest.mark.parametrize("momentum", [0.4, -0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_mean_square_are_those_of_theory(kind, momentum):
    """8,192 trajectories at three times, and the stationary variance at the last."""
    problem, h, count = NoisyQuadratic(noise=0.5), 0.12, 8192
    ensemble = problem.ensemble(
        KINDS[kind], learning_rate=h, momentum=momentum, num_updates=120, num_trajectories=count, every=40, seed=1
    )
    exact = theory.mean_iterates(KINDS[kind], h, 120, momentum=momentum)[::40]
    square = theory.mean_square_iterates(KINDS[kind], h, 120, momentum=momentum, sigma=0.5)[::40]
    for values, want in ((ensemble.paths, exact), (ensemble.paths**2, square)):
        error = values.std(axis=1) / count**0.5
        assert np.all(np.abs(values.mean(axis=1) - want) <= 4.5 * error + 1e-12)
    last = ensemble.paths[-1] ** 2
    stationary = theory.stationary_variance(KINDS[kind], h, momentum=momentum, sigma=0.5)
    assert abs(last.mean() - stationary) < 4.5 * last.std() / count**0.5 + 0.01 * stationary


def test_settings_share_programs():
    """Delays that need as many slots, all numbers, seeds and lengths; a record more does not."""
    run = lambda **options: PROBLEM.ensemble(
        **{"staleness": 4, "learning_rate": 0.1, "num_updates": 30, "num_trajectories": 8, "every": 10, **options}
    )
    run()
    before = _simulate._cache_size()
    run(staleness=7, learning_rate=0.2, momentum=0.9, seed=3, start=0.0)
    run(num_updates=60, every=20)
    NoisyQuadratic(curvature=2.0).ensemble(5, learning_rate=0.1, num_updates=3, num_trajectories=8, every=1)
    assert _simulate._cache_size() == before
    run(num_updates=40)
    assert _simulate._cache_size() == before + 1


def test_records_do_not_change_the_trajectories():
    run = lambda every: (
        PROBLEM.ensemble(GEOMETRIC, learning_rate=0.1, num_updates=60, num_trajectories=4, every=every).paths
    )
    assert run(None).shape == (2, 4)
    np.testing.assert_array_equal(run(20)[-1], run(None)[-1])


def test_a_stream_of_many_numbers_takes_several_words():
    problem = StreamingPca(tuple(float(v) for v in range(40, 0, -1)))
    ensemble = problem.ensemble(0, learning_rate=1e-4, num_updates=200, num_trajectories=2)
    samples = ensemble.replay(0)[1]
    assert_close(samples**2, np.broadcast_to(np.arange(40.0, 0, -1), (200, 40)))
    assert np.abs(np.mean(np.sign(samples), axis=0)).max() < 0.35
    correlation = np.corrcoef(np.sign(samples).T) - np.eye(40)
    assert np.abs(correlation).max() < 0.4


BAD = {
    "curvature": (lambda: NoisyQuadratic(curvature=0.0), ValueError, "curvature must be finite and in"),
    "noise": (lambda: NoisyQuadratic(noise=-1.0), ValueError, "noise must be finite"),
    "stream": (lambda: NoisyQuadratic(stream="sign"), ValueError, "did you mean 'signs'"),
    "staleness": (lambda: ensemble(staleness=-1), ValueError, "staleness must be an integer >= 0"),
    "no staleness": (lambda: ensemble(staleness="7"), TypeError, "staleness must be a concrete integer"),
    "learning_rate": (lambda: ensemble(learning_rate=-0.1), ValueError, "learning_rate must be finite"),
    "momentum": (lambda: ensemble(momentum=1.5), ValueError, "momentum must be finite"),
    "num_updates": (lambda: ensemble(num_updates=0), ValueError, "num_updates must be an integer >= 1"),
    "num_trajectories": (lambda: ensemble(num_trajectories=0), ValueError, "num_trajectories must be an integer"),
    "every": (lambda: ensemble(every=3), ValueError, "every must divide num_updates, got every=3 and num_updates=10"),
    "start": (lambda: ensemble(start=np.ones(2)), ValueError, r"start must have the shape \(\), got \(2,\)"),
    "seed": (lambda: ensemble(seed=2**32), ValueError, "seed must be at most"),
    "trajectory": (lambda: ensemble().replay(4), ValueError, "trajectory must be at most 3"),
}


def ensemble(**options):
    return PROBLEM.ensemble(
        **{"staleness": 1, "learning_rate": 0.1, "num_updates": 10, "num_trajectories": 4, **options}
    )


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
