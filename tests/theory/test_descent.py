"""Expected losses with noise: against closed forms, sums over all noise, simulated queues; what is found soonest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asyncflax
from asyncflax import algorithms, queues, staleness, theory
from asyncflax.theory import Spectrum, descent, meter

SPECTRUM = Spectrum([1.0, 0.3], [1.0, 2.0], noise=0.3, loss_noise=0.5)


def by_all_noise(spectrum, stale, num_updates, alpha, mu):
    """x is a number and a sum over what noise each update had: each version as coefficients of them."""
    total, square = np.sum(spectrum.losses), np.zeros(num_updates)
    path = [[np.eye(num_updates + 1)[0] for _ in spectrum.losses]]  # coefficients of 1 and of the noises
    velocity = [np.zeros(num_updates + 1) for _ in spectrum.losses]
    loss = lambda version: sum(
        share * (x[0] ** 2 + np.sum(x[1:] ** 2 * square)) for share, x in zip(spectrum.losses, version, strict=True)
    )
    for t in range(num_updates):
        read = path[t - min(stale[t], t)]
        square[t] = spectrum.noise + spectrum.loss_noise * loss(read) / total
        noise = np.eye(num_updates + 1)[t + 1]
        velocity = [
            mu * v - alpha * curvature * (x + noise)
            for v, curvature, x in zip(velocity, spectrum.curvatures, read, strict=True)
        ]
        path.append([x + v for x, v in zip(path[-1], velocity, strict=True)])
    return [loss(version) for version in path]


@pytest.mark.parametrize(
    "trace",
    [
        staleness.geometric(3.0).trace(40, seed=1),
        queues.simulate(num_workers=5, num_updates=40, service_time=queues.pareto()),
        staleness.uniform(0, 6).trace(40, seed=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("momentum", [0.4, -0.3])
def test_any_trace_is_exact(trace, momentum):
    losses = descent.expected_losses(SPECTRUM, trace, 40, step_size=0.2, momentum=momentum)
    np.testing.assert_allclose(losses, by_all_noise(SPECTRUM, trace.staleness, 40, 0.2, momentum), rtol=1e-12)


def test_a_trace_that_is_too_short_begins_again():
    trace = staleness.geometric(3.0).trace(15, seed=1)
    losses = descent.expected_losses(SPECTRUM, trace, 40, step_size=0.2)
    np.testing.assert_allclose(losses, by_all_noise(SPECTRUM, np.resize(trace.staleness, 40), 40, 0.2, 0.0), rtol=1e-12)


def test_the_queue_is_that_of_the_mean_square():
    for workers in (1, 4):
        queue, one = theory.ExponentialQueue(workers), Spectrum([2.0], [1.0], noise=0.3)
        losses = descent.expected_losses(one, queue, 60, step_size=0.15, momentum=0.2)
        squares = theory.mean_square_iterates(queue, 0.3, 60, momentum=0.2, sigma=0.3**0.5)
        np.testing.assert_allclose(losses, squares, rtol=1e-12)


def test_the_queue_is_the_mean_over_its_traces():
    traces = [
        queues.simulate(num_workers=4, num_updates=30, service_time=queues.exponential(), seed=seed)
        for seed in range(400)
    ]
    losses = np.array([descent.expected_losses(SPECTRUM, t, 30, step_size=0.3, momentum=0.2) for t in traces])
    error = losses.std(axis=0, ddof=1) / len(traces) ** 0.5
    mean = descent.expected_losses(SPECTRUM, theory.ExponentialQueue(4), 30, step_size=0.3, momentum=0.2)
    assert np.all(np.abs(losses.mean(axis=0) - mean) <= 4 * error + 1e-12)
    assert error[-1] < 0.05 * mean[-1]


def test_noise_that_follows_the_loss_has_a_closed_form():
    """One worker: E x^2 shrinks by (1 - h)^2 + h^2 r an update."""
    losses = descent.expected_losses(
        Spectrum([1.0], [2.0], loss_noise=3.0), theory.ExponentialQueue(1), 9, step_size=0.2
    )
    np.testing.assert_allclose(losses, 2 * (0.8**2 + 0.2**2 * 3) ** np.arange(10), rtol=1e-12)


def test_constant_noise_ends_in_the_stationary_variance():
    for along, tau in ((theory.ExponentialQueue(3),) * 2, (staleness.constant(2).trace(400), 2)):
        losses = descent.expected_losses(Spectrum([1.0], [1.0], noise=0.5), along, 400, step_size=0.2, momentum=0.3)
        expected = theory.stationary_variance(tau, 0.2, momentum=0.3, sigma=0.5**0.5)
        assert losses[-1] == pytest.approx(expected, rel=1e-9 if along != tau else 1e-6)


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("law", [queues.exponential(), queues.gamma(0.1)], ids=str)
def test_nothing_on_a_grid_is_much_sooner(law, noise):
    spectrum = Spectrum.even(30.0, noise=noise)
    along = queues.simulate(num_workers=4, num_updates=2000, service_time=law)
    if "exponential" in str(law):
        along = theory.ExponentialQueue(4)
    found = descent.soonest(spectrum, along, 0.1)
    assert found.updates < 2000
    for momentum in (-0.5, -0.2, 0.1, 0.4, 0.7):
        for step_size in found.step_size / (1 - found.momentum) * (1 - momentum) * 2.0 ** np.arange(-1.5, 1.6, 0.75):
            updates = int(found.updates / 1.06)
            losses = descent.expected_losses(spectrum, along, updates, step_size=step_size, momentum=momentum)
            assert losses.min() > 0.1, (momentum, step_size)


def test_what_cannot_be_reached_is_never_reached():
    huge = descent.soonest(Spectrum.even(4.0, noise=1e6), theory.ExponentialQueue(2), 0.01, max_updates=500)
    assert huge.updates == np.inf


def test_a_step_of_one_curvature_is_enough():
    found = descent.soonest(Spectrum([4.0], [1.0]), theory.ExponentialQueue(1), 0.01)
    assert found.updates <= 1.0 and found.step_size * 4.0 == pytest.approx(1.0, abs=0.8)


def test_a_short_run_shows_what_the_plan_needs():
    """On quadratics of known curvatures and noise, updates of 1 and 8 workers are those of the true spectrum."""
    n, count = 30, 600
    curvatures = jnp.geomspace(0.02, 1.0, n)
    start = 1 / jnp.sqrt(curvatures)  # as much loss in each direction
    of_noise = lambda x, noise: jnp.vdot(x - jax.lax.stop_gradient(x), jnp.sqrt(curvatures) * noise)
    loss_fn = lambda x, noise: 0.5 * jnp.sum(curvatures * x**2) + of_noise(x, noise)
    noises = jax.random.normal(jax.random.key(0), (count, n)) * 2.0  # of variance 4 times the square at first
    watched = meter.watch(jax.value_and_grad(loss_fn), start, coordinates=n)
    run = asyncflax.run(algorithms.asgd(0.05), watched, start, staleness.constant(0).trace(count), noises)
    spectrum = Spectrum.measured(run.losses, run.aux["meter"], learning_rate=0.05, curvature_max=1.0)
    true = Spectrum(np.asarray(curvatures), np.full(n, 0.5), noise=4.0)
    updates = lambda spectrum, m: descent.soonest(spectrum, theory.ExponentialQueue(m), 0.2).updates
    for workers in (1, 8):
        assert updates(spectrum, workers) == pytest.approx(updates(true, workers), rel=0.5)
    gains = [updates(s, 1) / updates(s, 8) for s in (spectrum, true)]
    assert gains[0] == pytest.approx(gains[1], rel=0.15)


def test_the_largest_curvature():
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    hessian = matrix @ matrix.T
    loss_fn = lambda tree, hessian: (
        0.5 * jnp.concatenate([tree["a"], tree["b"]]) @ hessian @ jnp.concatenate([tree["a"], tree["b"]])
    )
    found = theory.largest_curvature(loss_fn, {"a": jnp.ones(2), "b": jnp.ones(4)}, jnp.asarray(hessian), steps=200)
    assert found == pytest.approx(np.linalg.eigvalsh(hessian).max(), rel=1e-4)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: descent.soonest(SPECTRUM, 3, 0.1), TypeError, "along must be a Trace or a theory.ExponentialQueue"),
        (lambda: descent.soonest(SPECTRUM, theory.ExponentialQueue(2), 1.0), ValueError, "target must be below 1"),
        (lambda: Spectrum([1.0], [1.0, 2.0]).checked(), ValueError, "must be lists of the same length"),
        (lambda: Spectrum([0.0], [1.0]).checked(), ValueError, "curvatures must be finite and"),
        (lambda: Spectrum([1.0], [0.0]).checked(), ValueError, "the sum of losses must be finite and"),
        (
            lambda: Spectrum.measured(
                np.ones(5), meter.Readout(np.ones((5, 2)), np.ones((5, 2))), learning_rate=0.1, curvature_max=1.0
            ),
            ValueError,
            "a row for each of 12 events at least",
        ),
        (
            lambda: Spectrum.measured(
                np.append(np.ones(19), np.inf),
                meter.Readout(np.ones((20, 2)), np.ones((20, 2))),
                learning_rate=0.1,
                curvature_max=1.0,
            ),
            ValueError,
            "if the run diverged, take a smaller learning_rate",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
