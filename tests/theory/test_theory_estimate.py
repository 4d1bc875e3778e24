"""Implicit momentum recovered from trajectories: bias, coverage and width of the interval over seeds."""

import numpy as np
import pytest

from asyncflax import queues, staleness, theory

SEEDS, DIMENSION = 50, 32
EXPLICIT = [0.0, 0.3, -0.09]


def run_all(traces, gradient, momentum, noise, start, seed=0):
    """x_0..x_T [seeds, T + 1, d]: momentum SGD with step size 1 on a trace a seed, all at once."""
    read = np.stack([trace.read_version for trace in traces])
    runs, length = read.shape
    rng, x, v = np.random.default_rng(seed), np.empty((length + 1, runs, start.shape[-1])), 0.0
    x[0] = start
    for t in range(length):
        stale = gradient(x[read[:, t], np.arange(runs)])
        v = momentum * v - stale - noise * rng.standard_normal(stale.shape)
        x[t + 1] = x[t] + v
    return x.swapaxes(0, 1)


def queue_traces(num_workers, num_updates, count=SEEDS):
    exponential = queues.exponential()
    return [
        queues.simulate(num_workers=num_workers, num_updates=num_updates, service_time=exponential, seed=seed)
        for seed in range(count)
    ]


@pytest.mark.parametrize("momentum", EXPLICIT)
@pytest.mark.parametrize("num_workers, h", [(2, 0.5), (4, 0.33), (8, 0.23)])
def test_single_noisy_runs_show_one_minus_one_over_m(num_workers, h, momentum):
    """Each of 50 runs of 1000 updates on a noisy quadratic; h is about 0.4 of the mean-square limit."""
    curvature = np.linspace(0.7 * h, h, DIMENSION)
    traces = queue_traces(num_workers, 1000)
    x = run_all(traces, lambda x: curvature * x, momentum, 0.3 * curvature, np.zeros(DIMENSION))
    estimates = [
        theory.estimate_momentum(path, curvature * path, learning_rate=1.0, momentum=momentum, confidence=0.95)
        for path in x
    ]
    value, low, high = np.array(estimates).T
    want = 1 - 1 / num_workers
    assert np.max(high - low) / 2 <= 0.05
    assert np.mean((low <= want) & (want <= high)) >= 0.9
    assert abs(np.mean(value) - want) < 0.01


@pytest.mark.parametrize("momentum", EXPLICIT)
@pytest.mark.parametrize("num_workers", [2, 5, 8])
def test_the_mean_of_all_runs_shows_it_exactly(num_workers, momentum):
    """The mean system has no noise: every ratio y / z is 1 - 1/M, for several curvatures at once."""
    curvature = np.array([0.05, 0.1, 0.3])
    queue = theory.ExponentialQueue(num_workers)
    x = np.stack([theory.mean_iterates(queue, h, 60, momentum=momentum) for h in curvature], axis=1)
    estimate = theory.estimate_momentum(x, curvature * x / 0.1, learning_rate=0.1, momentum=momentum)
    np.testing.assert_allclose(estimate, 1 - 1 / num_workers, atol=1e-9)


def test_many_short_runs_without_noise():
    """80 descents from x_0 = 1 to the optimum: only the order of deliveries is random."""
    curvature = np.array([0.05, 0.1, 0.15, 0.2])
    x = run_all(queue_traces(4, 60, count=80), lambda x: curvature * x, 0.3, 0.0, np.ones(4))
    value, low, high = theory.estimate_momentum(x, curvature * x, learning_rate=1.0, momentum=0.3, confidence=0.99)
    assert low < 0.75 < high and (high - low) / 2 < 0.1 and abs(value - 0.75) < 0.1


def test_the_gradient_need_not_be_linear():
    """f = sum log cosh x: the relation is about gradients, wherever they are."""
    gradient = lambda x: 0.3 * np.tanh(2 * x)
    x = run_all(queue_traces(4, 3000, count=4), gradient, 0.3, 0.4, np.zeros(DIMENSION))
    value, low, high = theory.estimate_momentum(x, gradient(x), learning_rate=1.0, momentum=0.3, confidence=0.99)
    assert low < 0.75 < high and (high - low) / 2 < 0.05 and abs(value - 0.75) < 0.05


def test_independent_geometric_staleness_shows_its_mu():
    curvature = np.full(DIMENSION, 0.3)
    traces = [staleness.geometric(3.0).trace(2000, seed=seed) for seed in range(4)]
    x = run_all(traces, lambda x: curvature * x, 0.0, 0.1, np.zeros(DIMENSION))
    value, low, high = theory.estimate_momentum(x, curvature * x, learning_rate=1.0, confidence=0.99)
    assert low < 0.75 < high and (high - low) / 2 < 0.05 and abs(value - 0.75) < 0.05


def test_fresh_gradients_have_no_implicit_momentum():
    curvature = np.full(DIMENSION, 0.5)
    x = run_all(queue_traces(1, 2000, count=4), lambda x: curvature * x, 0.5, 0.1, np.zeros(DIMENSION))
    _, low, high = theory.estimate_momentum(x, curvature * x, learning_rate=1.0, momentum=0.5, confidence=0.99)
    assert low < 0.0 < high and (high - low) / 2 < 0.05


@pytest.mark.parametrize("samples", ["other", "delivered"])
def test_noisy_gradients_at_the_fresh_parameters_will_do(samples):
    """From other samples, or those that are applied when they are stale."""
    length, runs = 3000, 4
    read = np.stack([trace.read_version for trace in queue_traces(4, length, runs)])
    rng, run = np.random.default_rng(0), np.arange(runs)
    noise, measured = 0.1 * rng.standard_normal((2, length + 1, runs, DIMENSION))
    x = np.zeros_like(noise)
    for t in range(length):
        version = read[:, t]
        x[t + 1] = x[t] - 0.3 * x[version, run] - noise[version, run]
    grads = 0.3 * x + (noise if samples == "delivered" else measured)
    estimate = theory.estimate_momentum(x.swapaxes(0, 1), grads.swapaxes(0, 1), learning_rate=1.0, confidence=0.99)
    assert estimate.low < 0.75 < estimate.high
    assert (estimate.high - estimate.low) / 2 < 0.05


def test_least_squares_would_be_biased():
    """What the instruments are for: y and z share the last applied gradient."""
    x = run_all(queue_traces(4, 2000, count=1), lambda x: 0.3 * x, 0.0, 0.1, np.zeros(DIMENSION))[0]
    dx, g = np.diff(x, axis=0), 0.3 * x
    y, z = dx[1:] + g[1:-1], dx[:-1] + g[1:-1]
    assert np.sum(y * z) / np.sum(z * z) < 0.4
    assert np.median(y / z) < 0.4
    assert abs(theory.estimate_momentum(x, g, learning_rate=1.0).value - 0.75) < 0.05


def test_shapes_scales_and_confidence():
    curvature = np.full(4, 0.3)
    x = run_all(queue_traces(3, 300, count=2), lambda x: curvature * x, 0.0, 0.1, np.zeros(4))
    both = theory.estimate_momentum(x, curvature * x, learning_rate=1.0)
    # Only alpha g matters, and neither the unit nor the order of coordinates does.
    scaled = theory.estimate_momentum(7 * x, 7 * curvature * x[..., ::-1][..., ::-1] / 0.01, learning_rate=0.01)
    np.testing.assert_allclose(scaled, both, rtol=1e-9)
    wider = theory.estimate_momentum(x, curvature * x, learning_rate=1.0, confidence=0.99)
    assert (wider.high - wider.low) / (both.high - both.low) == pytest.approx(2.575829 / 1.959964)
    one = theory.estimate_momentum(x[0], curvature * x[0], learning_rate=1.0)
    assert one == theory.estimate_momentum(x[:1], curvature * x[:1], learning_rate=1.0)
    flat = theory.estimate_momentum(x[0, :, 0], 0.3 * x[0, :, 0], learning_rate=1.0)
    assert flat == theory.estimate_momentum(x[0, :, :1], 0.3 * x[0, :, :1], learning_rate=1.0)


PATH = np.linspace(1.0, 0.0, 30)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: theory.estimate_momentum(PATH, PATH[1:], learning_rate=1.0), ValueError, "grads must have the shape"),
        (lambda: theory.estimate_momentum(PATH[:8], PATH[:8], learning_rate=1.0), ValueError, "at least 12 versions"),
        (lambda: theory.estimate_momentum(PATH * np.nan, PATH, learning_rate=1.0), ValueError, "params must be finite"),
        (lambda: theory.estimate_momentum(["x"], PATH, learning_rate=1.0), TypeError, "params must be a number"),
        (
            lambda: theory.estimate_momentum(np.ones((2, 2, 30, 1)), PATH, learning_rate=1.0),
            ValueError,
            r"params must have the shape \[T\], \[T, d\] or \[R, T, d\]",
        ),
        (lambda: theory.estimate_momentum(PATH, PATH, learning_rate=0.0), ValueError, "learning_rate must be finite"),
        (
            lambda: theory.estimate_momentum(PATH, PATH, learning_rate=1.0, momentum=2.0),
            ValueError,
            "momentum must be finite and in",
        ),
        (
            lambda: theory.estimate_momentum(PATH, PATH, learning_rate=1.0, confidence=1.0),
            ValueError,
            r"confidence must be .* in \(0, 1\)",
        ),
        (lambda: theory.estimate_momentum(PATH * 0, PATH * 0, learning_rate=1.0), ValueError, "do not move"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
