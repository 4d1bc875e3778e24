"""The dynamics of E x^2 under asynchrony, with and without noise; see `asyncflax.theory`."""

from __future__ import annotations

import numpy as np

from asyncflax import _check, _memory
from asyncflax.theory._model import (
    ExponentialQueue,
    Staleness,
    as_law,
    checked_momentum,
    checked_step,
    generating_function,
    is_fixed,
    queue_update,
)
from asyncflax.theory._numerics import gains, powers, spectral_radius, zero
from asyncflax.theory.mean import mean_iterates, mean_radius, stability_limit


def mean_square_iterates(
    staleness: Staleness, h: float, num_updates: int, *, momentum: float = 0.0, sigma: float = 0.0
) -> np.ndarray:
    r"""E x_0^2, ..., E x_T^2 as float64 [T + 1], from x_0 = 1 and velocity 0; x_0 is read while tau > t ('clamp').

    With independent draws, the effect of staleness is a mean and a deviation that is independent between updates, like
    the noise of a gradient. With r_k the response to one such deviation after k updates,

    .. math::
        E x_t^2 = (E x_t)^2 + \sum_{s<t} r_{t-s}^2 V_s, \qquad
        V_t = \sigma^2 + \sum_l q_l E x_{t-l}^2 - E \big(\sum_l q_l x_{t-l}\big)^2

    at a cost of order T^2. In the queue the map is `queue_mean_square_matrix`.

    Source: derived.

    Example: the same distribution of staleness, drawn independently or in a queue.
      >>> from asyncflax import staleness, theory
      >>> theory.mean_square_iterates(staleness.geometric(1.0), h=0.5, num_updates=4).round(4)
      array([1.    , 0.25  , 0.0312, 0.0508, 0.0903])
      >>> theory.mean_square_iterates(theory.ExponentialQueue(2), h=0.5, num_updates=4).round(4)
      array([1.    , 0.25  , 0.0312, 0.0352, 0.0552])
    """
    h, momentum = checked_step(h), checked_momentum(momentum)
    num_updates = _check.integer("num_updates", num_updates, 1)
    sigma = _check.scalar("sigma", sigma, low=0.0)
    _memory.need("num_updates", num_updates, 100 * num_updates, "the iterates")
    if isinstance(staleness, ExponentialQueue) and staleness.num_workers > 1:
        matrix, noise = queue_map(staleness.num_workers, h, momentum)
        return powers(matrix, QUEUE_START, num_updates, sigma**2 * noise)
    q = as_law(staleness).table[: num_updates + 1]  # older versions are x_0
    mean = mean_iterates(staleness, h, num_updates, momentum=momentum)
    response = _response(q, h, num_updates, momentum)
    read_response = np.convolve(q, response)[: num_updates + 1]
    square, variance = np.ones(num_updates + 1), np.zeros(num_updates)
    for t in range(num_updates):
        reach = min(t + 1, len(q))
        older = 1.0 - q[:reach].sum()
        read_square = q[:reach] @ square[t::-1][:reach] + older
        read_mean = q[:reach] @ mean[t::-1][:reach] + older
        read_mean_square = read_mean**2 + read_response[t:0:-1] ** 2 @ variance[:t]
        variance[t] = sigma**2 + read_square - read_mean_square
        square[t + 1] = mean[t + 1] ** 2 + response[t + 1 : 0 : -1] ** 2 @ variance[: t + 1]
    return square


def queue_mean_square_matrix(num_workers: int, h: float, momentum: float = 0.0) -> np.ndarray:
    r"""The exact map of second moments in the exponential queue, float64 [7, 7].

    They are, in this order, :math:`E x^2, E x v, E v^2, E x m, E v m, E \frac{1}{M} \sum_i s_i^2, E m^2` with x the
    server, v its last step, s_i the workers' snapshots and m their mean; the start is (1, 0, 0, 1, 0, 1, 1). At the
    event of a uniformly drawn worker i:

    .. math::
        v' = \mu_L v - h s_i, \qquad x' = x + v', \qquad s_i' = x', \qquad m' = m + (x' - s_i) / M

    Args:
      num_workers: M, at least 2 (the snapshot of a single worker is the server).
      h, momentum: see `asyncflax.theory`. At momentum 0 the moments without v are a closed system.

    Source: derived.

    Example: the rows of E x^2, E x m, mean s^2 and E m^2 without momentum.
      >>> from asyncflax import theory
      >>> keep = [0, 3, 5, 6]
      >>> theory.queue_mean_square_matrix(num_workers=2, h=0.5)[keep][:, keep]
      array([[ 1.    , -1.    ,  0.25  ,  0.    ],
             [ 0.5   ,  0.    ,  0.375 , -0.5   ],
             [ 0.5   , -0.5   ,  0.625 ,  0.    ],
             [ 0.25  ,  0.25  ,  0.5625, -0.5   ]])
    """
    num_workers = _check.integer("num_workers", num_workers, 2)
    return queue_map(num_workers, checked_step(h), checked_momentum(momentum))[0]


def mean_square_radius(staleness: Staleness, h: float, *, momentum: float = 0.0) -> float:
    r"""The asymptotic factor by which E x^2 grows or shrinks per update, without gradient noise.

    With independent draws it is the larger of `mean_radius` squared and the root rho of

    .. math:: Q(\rho) \|G\|_\rho^2 - \|Q G\|_\rho^2 = 1, \qquad G(z) = \frac{h z}{(z - 1)(z - \mu_L) + h z Q(z)}

    where the norm is the mean of squares over the circle :math:`|z|^2 = \rho`. A root closer than 1e-4 to `mean_radius`
    squared is not distinguished from it. In the queue it is the spectral radius of `queue_mean_square_matrix`.

    Source: derived.

    Example: the same mean dynamics, but a queue is steadier than independent draws.
      >>> from asyncflax import staleness, theory
      >>> round(theory.mean_square_radius(staleness.geometric(3.0), h=0.8), 4)
      1.0227
      >>> round(theory.mean_square_radius(theory.ExponentialQueue(4), h=0.8), 4)
      0.9847
    """
    h, momentum = checked_step(h), checked_momentum(momentum)
    if isinstance(staleness, ExponentialQueue) and staleness.num_workers > 1:
        return spectral_radius(queue_mean_square_matrix(staleness.num_workers, h, momentum))
    numerator, denominator = generating_function(staleness)
    poles = max(np.abs(np.roots(denominator)), default=0.0)
    smallest = max(mean_radius(staleness, h, momentum=momentum) ** 2, poles)
    if h == 0.0 or is_fixed(staleness):
        return float(smallest)
    # In the logarithm of rho / smallest - 1, of which the logarithm of the gain is nearly linear.
    gain = lambda log: np.log(gains(numerator, denominator, h, momentum, smallest * (1 + np.exp(log)))[1])
    high, lowest = 0.0, np.log(1e-4)
    while gain(high) > 0:
        high += 2.0
    while gain(low := max(high - 2.0, lowest)) < 0:
        if low == lowest:
            return float(smallest)
        high = low
    return float(smallest * (1 + np.exp(zero(gain, low, high))))


def mean_square_limit(staleness: Staleness, momentum: float = 0.0) -> float:
    """The step size times curvature up to which E x^2 is stable, as in a simulation.

    It never exceeds `stability_limit`: under random staleness, trajectories may diverge while their mean converges. It
    is the first crossing in an upward search in steps of 5 % from h = (1 - |mu_L|) / (20 (1 + E tau)).

    Source: derived.

    Example: with the same mean, fixed staleness is the least stable, the queue the most.
      >>> from asyncflax import staleness, theory
      >>> cases = 3, staleness.uniform(0, 6), staleness.geometric(3.0), theory.ExponentialQueue(4)
      >>> [round(theory.mean_square_limit(case), 3) for case in cases]
      [0.445, 0.52, 0.743, 0.843]
    """
    momentum = checked_momentum(momentum, inside=True)
    mean_limit = stability_limit(staleness, momentum)
    if is_fixed(staleness):
        return mean_limit
    if isinstance(staleness, ExponentialQueue):
        mean = staleness.num_workers - 1.0
        growth = lambda h: np.log(mean_square_radius(staleness, h, momentum=momentum))
    else:
        mean = as_law(staleness).mean
        fraction = generating_function(staleness)
        growth = lambda h: np.log(gains(*fraction, h, momentum, 1.0)[1])
    low = min(0.05 * (1 - abs(momentum)) / (1 + mean), mean_limit / 2)
    while growth(low) > 0:
        low /= 2
    highest = mean_limit * (1 - 1e-6)  # at the limit itself the gain can be infinite
    while growth(high := min(1.05 * low, highest)) < 0:
        if high == highest:
            return mean_limit
        low = high
    return zero(growth, low, high)


def stationary_variance(staleness: Staleness, h: float, *, momentum: float = 0.0, sigma: float = 1.0) -> float:
    r"""The stationary variance of x with noise in every gradient; infinite beyond `mean_square_limit`.

    With independent draws, G and the norm of `mean_square_radius` at rho = 1,

    .. math:: \mathrm{Var}\, x = \frac{\sigma^2 \|G\|^2}{1 - (\|G\|^2 - \|Q G\|^2)}

    In the queue it is the fixed point of `queue_mean_square_matrix` with the noise's second moments added.

    Source: derived.

    Example: for a fresh gradient it is h sigma^2 / (2 - h).
      >>> from asyncflax import theory
      >>> round(theory.stationary_variance(0, h=0.5), 6), round(theory.stationary_variance(1, h=0.5), 6)
      (0.333333, 0.6)
    """
    h, momentum = checked_step(h, positive=True), checked_momentum(momentum, inside=True)
    sigma = _check.scalar("sigma", sigma, low=0.0)
    if isinstance(staleness, ExponentialQueue) and staleness.num_workers > 1:
        matrix, noise = queue_map(staleness.num_workers, h, momentum)
        if spectral_radius(matrix) >= 1:
            return np.inf
        return float(sigma**2 * np.linalg.solve(np.eye(7) - matrix, noise)[0])
    if mean_radius(staleness, h, momentum=momentum) >= 1:
        return np.inf
    response, feedback = gains(*generating_function(staleness), h, momentum, 1.0)
    return float(sigma**2 * response / (1 - feedback)) if feedback < 1 else np.inf


QUEUE_START = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0])  # of the seven moments

# The second moments of (x, v, s_i, m, n) for a random worker i, as indices of the moments
# E x^2, E x v, E v^2, E x m, E v m, mean s^2, E m^2, E n^2; 8 stands for those with a single factor n, which vanish.
_MOMENT = np.array([[0, 1, 3, 3, 8], [1, 2, 4, 4, 8], [3, 4, 5, 6, 8], [3, 4, 6, 6, 8], [8, 8, 8, 8, 7]])


def queue_map(num_workers: int, h: float, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """The map of the seven moments, and their increments due to noise of variance 1."""
    x, v, s, m = queue_update(num_workers, h, momentum)

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.bincount(_MOMENT.ravel(), weights=np.outer(a, b).ravel(), minlength=9)[:8]

    others = (1 - 1 / num_workers) * np.eye(8)[5]  # snapshots of the workers that did not deliver
    snapshots = others + product(s, s) / num_workers
    rows = [product(x, x), product(x, v), product(v, v), product(x, m), product(v, m), snapshots, product(m, m)]
    return np.array(rows)[:, :7], np.array(rows)[:, 7]


def _response(q: np.ndarray, h: float, num_updates: int, momentum: float) -> np.ndarray:
    """The deviation of x, 0 to T updates after a gradient that was too small by 1 (times the curvature)."""
    response = np.zeros(num_updates + 1)
    response[1] = velocity = h
    for t in range(1, num_updates):
        reach = min(t + 1, len(q))
        velocity = momentum * velocity - h * (q[:reach] @ response[t::-1][:reach])
        response[t + 1] = response[t] + velocity
    return response
