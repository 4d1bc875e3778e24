"""Exact dynamics on quadratics: enumeration of all events, lifted covariances, polynomial roots, published tables."""

import itertools

import numpy as np
import pytest
import reference
from problems import assert_close

from asyncflax import queues, staleness, theory

H = 0.3
KAPPA = ((1 + 0.8**0.5) / (1 - 0.8**0.5)) ** 2  # the synchronous optimum is mu* = 0.8
SMALL = staleness.empirical([0.3, 0.0, 0.5, 0.2])
MOMENTA = [0.0, 0.5, -0.3]


# --- Every course of events -----------------------------------------------------------------------------------------


def all_paths_under_law(law, steps, h, momentum, before_start="clamp", noise=0.0):
    """All x_0..x_T [paths, T + 1] with their probabilities: every staleness, and every sign of the noise."""
    signs = (-1, 1) if noise else (0,)
    paths, weights = [], []
    for draws in itertools.product(itertools.product(np.flatnonzero(law.table), signs), repeat=steps):
        x, v = [1.0], 0.0
        for t, (tau, sign) in enumerate(draws):
            if tau <= t or before_start == "clamp":
                v = momentum * v - h * (x[max(t - tau, 0)] + noise * sign)
                x.append(x[t] + v)
            else:
                x.append(x[t])
        paths.append(x)
        weights.append(np.prod([law.table[tau] / len(signs) for tau, _ in draws]))
    return np.array(paths), np.array(weights)


def all_paths_of_queue(num_workers, steps, h, momentum, noise=0.0):
    """The same for every order of deliveries."""
    signs = (-1, 1) if noise else (0,)
    paths = []
    for draws in itertools.product(itertools.product(range(num_workers), signs), repeat=steps):
        x, v, snapshots = [1.0], 0.0, [1.0] * num_workers
        for i, sign in draws:
            v = momentum * v - h * (snapshots[i] + noise * sign)
            x.append(x[-1] + v)
            snapshots[i] = x[-1]
        paths.append(x)
    return np.array(paths), np.full(len(paths), 1 / len(paths))


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("before_start", ["clamp", "drop"])
def test_the_mean_under_a_law_is_that_of_all_draws(momentum, before_start):
    paths, weights = all_paths_under_law(SMALL, 6, H, momentum, before_start)
    got = theory.mean_iterates(SMALL, H, 6, momentum=momentum, before_start=before_start)
    assert_close(got, weights @ paths)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_the_mean_square_under_a_law_is_that_of_all_draws(momentum, noise):
    steps = 4 if noise else 6
    paths, weights = all_paths_under_law(SMALL, steps, H, momentum, noise=noise)
    got = theory.mean_square_iterates(SMALL, H, steps, momentum=momentum, sigma=noise)
    assert_close(got, weights @ paths**2)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("num_workers, steps, noise", [(1, 5, 0.7), (2, 9, 0.0), (3, 6, 0.0), (2, 5, 0.7)])
def test_the_moments_of_the_queue_are_those_of_all_orders(num_workers, steps, noise, momentum):
    paths, weights = all_paths_of_queue(num_workers, steps, H, momentum, noise)
    queue = theory.ExponentialQueue(num_workers)
    assert_close(theory.mean_iterates(queue, H, steps, momentum=momentum), weights @ paths)
    got = theory.mean_square_iterates(queue, H, steps, momentum=momentum, sigma=noise)
    assert_close(got, weights @ paths**2)


@pytest.mark.parametrize("num_workers", range(1, 9))
def test_queue_and_geometric_law_share_momentum_sgd_as_their_mean(num_workers):
    """The table of initial conditions: clamp has a full first step, drop starts at rest; the queue is clamped."""
    mu, steps = 1 - 1 / num_workers, 200
    law = staleness.geometric(num_workers - 1.0)
    full = reference.momentum_recursion(mu, (1 - mu) * H, 1.0, -H, steps)
    at_rest = reference.momentum_recursion(mu, (1 - mu) * H, 1.0, -(1 - mu) * H, steps)
    assert_close(theory.mean_iterates(law, H, steps), full)
    assert_close(theory.mean_iterates(law, H, steps, before_start="drop"), at_rest)
    assert_close(theory.mean_iterates(theory.ExponentialQueue(num_workers), H, steps), full)
    assert_close(reference.queue_mean(num_workers, H, 1.0, steps), full)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_queue_and_geometric_law_share_their_mean_with_explicit_momentum(num_workers, momentum):
    law = staleness.geometric(num_workers - 1.0)
    got = theory.mean_iterates(theory.ExponentialQueue(num_workers), 0.1, 200, momentum=momentum)
    assert_close(got, theory.mean_iterates(law, 0.1, 200, momentum=momentum))


def test_an_integer_is_a_constant_law():
    for tau in (0, 2):
        want = theory.mean_iterates(staleness.constant(tau), H, 20, momentum=0.5)
        assert_close(theory.mean_iterates(tau, H, 20, momentum=0.5), want)
        assert_close(theory.mean_square_iterates(tau, H, 20, momentum=0.5), want**2)  # nothing is random
        assert theory.mean_square_limit(tau, 0.5) == theory.stability_limit(staleness.constant(tau), 0.5)


# --- Stability of the mean ------------------------------------------------------------------------------------------

# h_max for mu = -.3, -.09, 0, .5, .9
HEAVY_BALL = {
    0: (1.4, 1.82, 2.0, 3.0, 3.8),
    1: (1.3, 1.09, 1.0, 0.5, 0.1),
    2: (0.84269, 0.68387, 0.61803, 0.28078, 0.05125),
    3: (0.60542, 0.49238, 0.44504, 0.19927, 0.03478),
    7: (0.27918, 0.22999, 0.20906, 0.09575, 0.01575),
    15: (0.13355, 0.11096, 0.10130, 0.04804, 0.00793),
    31: (0.06528, 0.05449, 0.04986, 0.02422, 0.00418),
}
# for mu = .5, .9; the last of tau = 7 is .02795
SHIFTED = {
    1: (0.75, 0.19),
    2: (0.4114, 0.0966),
    3: (0.2832, 0.0648),
    7: (0.1260, 0.02795),
    15: (0.0597, 0.0131),
    31: (0.0291, 0.0063),
}


@pytest.mark.parametrize("tau", HEAVY_BALL)
def test_limits_of_heavy_ball_under_a_constant_delay(tau):
    got = [theory.stability_limit(tau, momentum) for momentum in (-0.3, -0.09, 0.0, 0.5, 0.9)]
    np.testing.assert_allclose(got, HEAVY_BALL[tau], atol=5.1e-6)
    assert got[2] == pytest.approx(reference.delay_limit(tau), rel=1e-14)


@pytest.mark.parametrize("tau", SHIFTED)
def test_limits_of_shifted_momentum_under_a_constant_delay(tau):
    got = [theory.stability_limit(tau, momentum, form="shifted") for momentum in (0.5, 0.9)]
    np.testing.assert_allclose(got, SHIFTED[tau], atol=5.1e-5)
    assert theory.stability_limit(tau, 0.0, form="shifted") == theory.stability_limit(tau)


def test_dampened_momentum_lowers_the_limit_unless_it_is_shifted():
    """h / (1 - mu) at tau = 7: what momentum leaves of the step size when gradients are scaled by 1 - mu."""
    plain = [theory.stability_limit(7, momentum) / (1 - momentum) for momentum in (0.0, 0.5, 0.9)]
    shifted = [theory.stability_limit(7, momentum, form="shifted") / (1 - momentum) for momentum in (0.0, 0.5, 0.9)]
    np.testing.assert_allclose(plain, [0.209, 0.192, 0.158], atol=6e-4)
    np.testing.assert_allclose(shifted, [0.209, 0.252, 0.28], atol=6e-4)


def characteristic_roots(law, h, momentum, form):
    """Roots of the recursion, written down term by term."""
    size = len(law.table) + 1  # x_{t+1} = z^size, x_{t-l} = z^(size-1-l)
    p = np.zeros(size + 2)
    p[0], p[1] = 1.0, -1.0
    if form == "heavy_ball":
        p[1] -= momentum
        p[2] += momentum
    for lag, q in enumerate(law.table):
        p[1 + lag] += h * q
        if form == "shifted":
            p[1 + lag] -= momentum * q
            p[2 + lag] += momentum * q
    return np.roots(p)


@pytest.mark.parametrize("form", ["heavy_ball", "shifted"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, -0.3, -0.9])
@pytest.mark.parametrize(
    "law",
    [staleness.constant(5), staleness.uniform(0, 6), staleness.poisson(3.0), SMALL],
    ids=lambda law: law.name,
)
def test_the_limit_is_where_a_root_leaves_the_circle(law, momentum, form):
    """Also where the first root to leave is not the one of lowest frequency, as at -0.9."""
    radius = lambda h: np.abs(characteristic_roots(law, h, momentum, form)).max()
    limit = theory.stability_limit(law, momentum, form=form)
    assert radius(limit * (1 + 1e-6)) > 1
    assert all(radius(h) < 1 for h in limit * np.linspace(0.02, 1 - 1e-6, 40))
    for h in (0.3 * limit, 2 * limit):
        assert theory.mean_radius(law, h, momentum=momentum, form=form) == pytest.approx(radius(h), abs=1e-7)


@pytest.mark.parametrize("num_workers", [1, 2, 4, 8, 1024])
def test_the_geometric_mean_is_stable_up_to_2_times_2m_minus_1(num_workers):
    for asynchrony in (theory.ExponentialQueue(num_workers), staleness.geometric(num_workers - 1.0)):
        assert theory.stability_limit(asynchrony) == pytest.approx(2 * (2 * num_workers - 1))
    matrix = theory.queue_mean_matrix(num_workers, 0.7, 0.4)
    radius = theory.mean_radius(theory.ExponentialQueue(num_workers), 0.7, momentum=0.4)
    assert radius == pytest.approx(np.abs(np.linalg.eigvals(matrix)).max(), abs=1e-9)


def test_heavy_ball_converges_as_sqrt_mu_in_its_robust_region():
    """(1 - sqrt h)^2 <= mu <= (1 + sqrt h)^2 (YellowFin)."""
    for h in (0.1, 0.5, 1.0, 2.5):
        for mu in np.linspace((1 - np.sqrt(h)) ** 2 + 1e-3, 0.99, 5):
            assert theory.mean_radius(0, h, momentum=float(mu)) == pytest.approx(np.sqrt(mu), abs=1e-9)


# --- Stability of the mean square -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "num_workers, limit",
    [(2, 1.28078), (3, 1.0), (4, 0.84307), (8, 0.56639), (16, 0.38618), (32, 0.26611), (64, 0.18476), (256, 0.09036)],
)
def test_mean_square_limits_of_the_queue(num_workers, limit):
    queue = theory.ExponentialQueue(num_workers)
    assert theory.mean_square_limit(queue) == pytest.approx(limit, abs=5.1e-6)
    radius = lambda h: np.abs(np.linalg.eigvals(reference.queue_mean_square_matrix(h, num_workers))).max()
    for h in (0.2 * limit, 0.999 * limit, 1.5 * limit):
        assert theory.mean_square_radius(queue, h) == pytest.approx(radius(h), abs=1e-9)


def test_mean_square_limits_of_many_workers_approach_sqrt_2_over_m():
    assert theory.mean_square_limit(theory.ExponentialQueue(2)) == pytest.approx((1 + np.sqrt(17)) / 4, rel=1e-12)
    for num_workers, scaled in [(64, 1.478), (256, 1.446), (1024, 1.430), (4096, 1.422)]:
        limit = theory.mean_square_limit(theory.ExponentialQueue(num_workers))
        assert limit * np.sqrt(num_workers) == pytest.approx(scaled, abs=6e-4)


@pytest.mark.parametrize("num_workers, limit", [(2, 1.106), (3, 0.872), (4, 0.743), (8, 0.513)])
def test_mean_square_limits_of_independent_geometric_staleness(num_workers, limit):
    assert theory.mean_square_limit(staleness.geometric(num_workers - 1.0)) == pytest.approx(limit, abs=5.1e-4)


def test_fixed_staleness_is_least_stable_and_the_queue_most():
    """All have mean 3."""
    laws = 3, staleness.uniform(0, 6), staleness.geometric(3.0), theory.ExponentialQueue(4)
    limits = [theory.mean_square_limit(law) for law in laws]
    np.testing.assert_allclose(limits, [0.445, 0.520, 0.743, 0.843], atol=6e-4)
    assert limits == sorted(limits)


def test_the_moments_without_momentum_are_the_four_of_the_paper_table():
    keep = [0, 3, 5, 6]
    for num_workers in (2, 5):
        got = theory.queue_mean_square_matrix(num_workers, 0.4)[keep]
        assert_close(got[:, keep], reference.queue_mean_square_matrix(0.4, num_workers))
        assert_close(got[:, [1, 2, 4]], np.zeros((4, 3)))


def kronecker_of_queue(num_workers, h, momentum):
    """The mean of B_i (x) B_i over the workers, for the state (x, v, s_1, ..., s_M)."""
    size, total = num_workers + 2, 0.0
    for i in range(num_workers):
        b = np.eye(size)
        b[1] = momentum * np.eye(size)[1] - h * np.eye(size)[2 + i]
        b[0] += b[1]
        b[2 + i] = b[0]
        total = total + np.kron(b, b) / num_workers
    return total


def kronecker_of_law(law, h, momentum):
    """The same over the staleness, for the state (x_t, x_{t-1}, ..., x_{t-K})."""
    size, total = max(len(law.table), 2), 0.0
    for lag, q in enumerate(law.table):
        b = np.eye(size, k=-1)
        b[0, 0] += 1 + momentum
        b[0, 1] -= momentum
        b[0, lag] -= h
        total = total + q * np.kron(b, b)
    return total


def stationary(matrix, h):
    """Var x when each update of the first coordinate(s) has noise h n."""
    size = int(np.sqrt(len(matrix)))
    noise = np.zeros((size, size))
    noise[0, 0] = h**2
    return np.linalg.solve(np.eye(len(matrix)) - matrix, noise.ravel())[0]


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize(
    "law",
    [SMALL, staleness.uniform(0, 6), staleness.uniform(1, 3), staleness.empirical([0.9, 0, 0, 0, 0.1])],
    ids=lambda law: law.name,
)
def test_the_mean_square_under_a_law_is_that_of_lifted_covariances(law, momentum):
    radius = lambda h: np.abs(np.linalg.eigvals(kronecker_of_law(law, h, momentum))).max()
    limit = theory.mean_square_limit(law, momentum)
    assert radius(limit * (1 - 1e-5)) < 1 < radius(limit * (1 + 1e-5))
    for h in (0.4 * limit, 0.7 * limit, 1.3 * limit):
        assert theory.mean_square_radius(law, h, momentum=momentum) == pytest.approx(radius(h), rel=1e-4)
    h = 0.6 * limit
    want = 0.49 * stationary(kronecker_of_law(law, h, momentum), h)
    assert theory.stationary_variance(law, h, momentum=momentum, sigma=0.7) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("num_workers", [2, 3, 4])
def test_the_mean_square_of_the_queue_is_that_of_lifted_covariances(num_workers, momentum):
    queue = theory.ExponentialQueue(num_workers)
    limit = theory.mean_square_limit(queue, momentum)
    for h in (0.1 * limit, 0.7 * limit, limit, 1.5 * limit):
        want = np.abs(np.linalg.eigvals(kronecker_of_queue(num_workers, h, momentum))).max()
        assert theory.mean_square_radius(queue, h, momentum=momentum) == pytest.approx(want, abs=1e-7)
    assert want > 1


def test_iterates_grow_by_the_radius():
    """Geometric staleness, whose lifted covariance has no end: below, at and above the limit, with momentum."""
    law = staleness.geometric(3.0)
    for h, momentum in [(0.4, 0.0), (0.8, 0.0), (0.4, 0.3), (0.8, -0.3)]:
        squares = theory.mean_square_iterates(law, h, 800, momentum=momentum)
        growth = (squares[800] / squares[400]) ** (1 / 400)
        assert theory.mean_square_radius(law, h, momentum=momentum) == pytest.approx(growth, rel=1e-3)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_stationary_variance_is_where_iterates_end(momentum):
    for asynchrony in (2, SMALL, staleness.geometric(3.0), theory.ExponentialQueue(1), theory.ExponentialQueue(4)):
        h = 0.5 * theory.mean_square_limit(asynchrony, momentum)
        squares = theory.mean_square_iterates(asynchrony, h, 1500, momentum=momentum, sigma=0.7)
        want = theory.stationary_variance(asynchrony, h, momentum=momentum, sigma=0.7)
        assert squares[-1] == pytest.approx(want, rel=1e-6)
        assert theory.stationary_variance(asynchrony, 3 * h, momentum=momentum) == np.inf


@pytest.mark.parametrize("law", [staleness.geometric(3.0), staleness.poisson(3.0), staleness.constant(3)])
def test_the_stationary_variance_equals_the_fixed_point_of_the_covariance(law):
    want = reference.stationary_variance_eq6(law.table, 0.2, 0.2 * 0.7)
    assert theory.stationary_variance(law, 0.2, sigma=0.7) == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_simulated_traces_have_the_stationary_variance(momentum):
    """Long runs on the library's traces, in which queue and independent draws of one law are told apart."""
    h, length, runs, mean = 0.4 - momentum / 2, 3000, 16, 3.0
    variances = {}
    for name in ("queue", "law"):
        traces = [
            queues.simulate(num_workers=4, num_updates=length, service_time=queues.exponential(), seed=seed)
            if name == "queue"
            else staleness.geometric(mean).trace(length, seed=seed)
            for seed in range(runs)
        ]
        read = np.stack([trace.read_version for trace in traces])
        noise = np.random.default_rng(0).standard_normal((length, runs, 24))
        x, v = np.zeros((length + 1, runs, 24)), 0.0
        for t in range(length):
            v = momentum * v - h * (x[read[:, t], np.arange(runs)] + noise[t])
            x[t + 1] = x[t] + v
        means = np.mean(x[200:] ** 2, axis=(0, 2))
        variances[name] = np.mean(means), np.std(means, ddof=1) / np.sqrt(runs)
    (in_queue, error), (drawn, _) = variances["queue"], variances["law"]
    assert drawn - in_queue > 4 * error
    for name, asynchrony in [("queue", theory.ExponentialQueue(4)), ("law", staleness.geometric(mean))]:
        value, error = variances[name]
        want = theory.stationary_variance(asynchrony, h, momentum=momentum)
        assert abs(value - want) < 4 * error
        assert error < 0.03 * want


# --- The best hyper-parameters --------------------------------------------------------------------------------------


def worst_radius(num_workers, momentum, step_size, kappa):
    """The largest growth factor over a fine grid of curvatures, from the third-order recursion."""
    mu, worst = 1 - 1 / num_workers, 0.0
    for h in np.geomspace(step_size / kappa, step_size, 400):
        p = np.convolve([1.0, -1.0], np.convolve([1.0, -mu], [1.0, -momentum]))
        worst = max(worst, np.abs(np.roots(p + (1 - mu) * h * np.array([0.0, 1.0, 0.0, 0.0]))).max())
    return worst


@pytest.mark.parametrize(
    "num_workers, momentum, radius, step_size",
    [
        (1, 0.8, 0.8944, 3.59),
        (2, 0.176, 0.9725, 7.06),
        (3, 0.083, 0.9598, 10.83),
        (4, 0.041, 0.9420, 14.56),
        (5, 0.0, 0.8944, 17.94),
        (6, -0.182, 0.9122, 17.58),
        (8, -0.311, 0.9347, 19.98),
        (12, -0.319, 0.9567, None),
        (16, -0.322, 0.9675, 41.33),
    ],
)
def test_the_best_momentum_of_asynchronous_training(num_workers, momentum, radius, step_size):
    """kappa = 322: explicit momentum turns negative beyond 5 workers, its values are not 0.8 - mu_S."""
    best = theory.best_hyper_parameters(theory.ExponentialQueue(num_workers), KAPPA)
    assert best.momentum == pytest.approx(momentum, abs=6e-4)
    assert best.radius == pytest.approx(radius, abs=6e-5)
    if step_size is not None:
        assert best.step_size == pytest.approx(step_size, abs=6e-3)
    assert worst_radius(num_workers, best.momentum, best.step_size, KAPPA) == pytest.approx(best.radius, abs=2e-5)


def test_no_momentum_helps_under_a_constant_delay():
    """Two in turn: all momenta are alike within 2e-5. Three: the best is negative and gains next to nothing."""
    radii = []
    for momentum in (-0.8, -0.3, 0.0, 0.3, 0.5):
        best = theory.best_hyper_parameters(1, KAPPA, momentum=momentum)
        assert best.step_size == pytest.approx(0.99 * (1 - momentum), rel=0.01)
        radii.append(best.radius)
    assert np.round(radii, 4) == pytest.approx(0.9969)
    assert np.ptp(radii) < 2e-5
    best = theory.best_hyper_parameters(2, KAPPA)
    assert best.momentum == pytest.approx(-0.499, abs=6e-4)
    assert best.radius == pytest.approx(0.99793, abs=6e-6)
    assert theory.best_hyper_parameters(2, KAPPA, momentum=0.0).radius == pytest.approx(0.99809, abs=6e-6)


@pytest.mark.parametrize("law", [SMALL, staleness.uniform(0, 3)], ids=lambda law: law.name)
@pytest.mark.parametrize("form", ["heavy_ball", "shifted"])
def test_the_best_step_under_any_law_beats_its_neighbours(law, form):
    kappa = 20.0
    curvatures = np.geomspace(1 / kappa, 1.0, 300)
    worst = lambda step: max(np.abs(characteristic_roots(law, h, 0.1, form)).max() for h in step * curvatures)
    best = theory.best_hyper_parameters(law, kappa, momentum=0.1, form=form)
    assert worst(best.step_size) == pytest.approx(best.radius, abs=1e-5)
    assert min(worst(best.step_size * factor) for factor in (0.7, 0.9, 0.98, 1.02, 1.1, 1.3)) > best.radius


@pytest.mark.parametrize("kappa", [1.0, 4.0, 100.0])
def test_the_best_synchronous_hyper_parameters(kappa):
    """mu = ((sqrt kappa - 1) / (sqrt kappa + 1))^2, alpha = 4 / (sqrt L + sqrt l)^2."""
    best = theory.best_hyper_parameters(0, kappa)
    root = np.sqrt(kappa)
    assert best.momentum == pytest.approx(((root - 1) / (root + 1)) ** 2, abs=1e-4)
    assert best.step_size == pytest.approx(4 * kappa / (root + 1) ** 2, rel=2e-3)


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: theory.ExponentialQueue(0), ValueError, "num_workers must be an integer >= 1, got num_workers=0"),
        (lambda: theory.stability_limit(-1), ValueError, "staleness must be an integer >= 0, got staleness=-1"),
        (lambda: theory.stability_limit("geometric"), TypeError, "staleness must be a concrete integer"),
        (
            lambda: theory.stability_limit(1, 1.0),
            ValueError,
            r"momentum must be .* in \(-1, 1\), got momentum=1.0",
        ),
        (lambda: theory.stability_limit(1, 1.5), ValueError, "momentum must be finite and in"),
        (lambda: theory.stability_limit(1, form="nesterov"), ValueError, "form must be one of 'heavy_ball', 'shifted'"),
        (lambda: theory.stability_limit(3000, 0.5), ValueError, "staleness must be at most 2047, or geometric"),
        (lambda: theory.mean_iterates(1, -0.1, 5), ValueError, "h must be finite and in"),
        (lambda: theory.mean_iterates(1, np.nan, 5), ValueError, "h must be finite"),
        (lambda: theory.mean_iterates(1, 0.1, 0), ValueError, "num_updates must be an integer >= 1"),
        (lambda: theory.mean_iterates(1, 0.1, 5, before_start="x"), ValueError, "before_start must be one of"),
        (
            lambda: theory.mean_iterates(theory.ExponentialQueue(2), 0.1, 5, before_start="drop"),
            ValueError,
            "before_start='drop' needs a distribution",
        ),
        (lambda: theory.mean_radius(1, [0.1, 0.2]), TypeError, "h must be a single concrete number"),
        (lambda: theory.mean_square_iterates(1, 0.1, 5, sigma=-1.0), ValueError, "sigma must be finite and in"),
        (lambda: theory.queue_mean_square_matrix(1, 0.1), ValueError, "num_workers must be an integer >= 2"),
        (lambda: theory.stationary_variance(1, 0.0), ValueError, "h must be finite and in"),
        (lambda: theory.mean_square_limit(1, -1.0), ValueError, "got momentum=-1.0"),
        (lambda: theory.best_hyper_parameters(1, 0.5), ValueError, "condition_number must be finite and in"),
        (lambda: theory.best_hyper_parameters(1, 9.0, momentum=2.0), ValueError, "momentum must be finite and in"),
        (lambda: theory.best_hyper_parameters(1, 9.0, form="x"), ValueError, "form must be one of"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
