r"""Exact dynamics of asynchronous SGD with momentum on the quadratic :math:`(\lambda/2) x^2`.

With :math:`h = \alpha \lambda`, explicit momentum :math:`\mu_L` and noise n of variance 1 in each gradient,

.. math:: x_{t+1} = x_t + \mu_L (x_t - x_{t-1}) - h (x_{t-\tau_t} + \sigma n_t), \qquad x_0 = 1,

so sigma is the standard deviation of the gradient's noise divided by the curvature. Everything here is linear: means
and mean squares obey recursions without approximation. What the staleness may be, in every function:

- an integer: always that stale, as in a round robin of staleness + 1 equal workers;
- a law of `asyncflax.staleness`: drawn anew for each update, independently of all else (Mitliagkas et al. 2016, eq. 5);
- `ExponentialQueue(M)`: M workers with exponential work, where a version is read by the worker that made it. Its
  staleness has the geometric law of mean M - 1, its mean dynamics are those of that law, its mean squares are not.

A law is known by the generating function of its table, :math:`Q(z) = \sum_l q_l z^{-l}`; the geometric one by its
closed form :math:`(1 - \mu_S) z / (z - \mu_S)`. Growth factors z of the mean are the roots of

.. math:: (z - 1)(z - \mu_L) + h z Q(z) = 0

Source: derived; Mitliagkas et al. 2016 (arXiv:1605.09774) for the model and its mean, Giladi et al. 2020
(arXiv:1909.12340) for shifted momentum.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.staleness import StalenessLaw, constant

__all__ = [
    "BestHyperParameters",
    "ExponentialQueue",
    "best_hyper_parameters",
    "mean_iterates",
    "mean_radius",
    "mean_square_iterates",
    "mean_square_limit",
    "mean_square_radius",
    "queue_mean_matrix",
    "queue_mean_square_matrix",
    "stability_limit",
    "stationary_variance",
]

_FORMS = ("heavy_ball", "shifted")
_LARGEST_TABLE = 2048  # of a law other than the geometric, whose polynomials have a root for each entry


@dataclasses.dataclass(frozen=True)
class ExponentialQueue:
    """M workers, one gradient in flight each, exponential work of equal mean: who delivers next is a fair draw.

    Attributes:
      num_workers: M.

    Raises:
      ValueError: num_workers is below 1.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 2.1, assumptions A2 and A3.

    Example:
      >>> from asyncflax import theory
      >>> theory.stability_limit(theory.ExponentialQueue(num_workers=4))
      14.0
    """

    num_workers: int

    def __post_init__(self):
        _check.integer("num_workers", self.num_workers, 1)


Staleness = int | StalenessLaw | ExponentialQueue


# --- The mean -------------------------------------------------------------------------------------------------------


def mean_iterates(
    staleness: Staleness,
    h: float,
    num_updates: int,
    *,
    momentum: float = 0.0,
    before_start: str = "clamp",
) -> np.ndarray:
    r"""E x_0, ..., E x_T, from x_0 = 1 and no velocity.

    .. math:: E x_{t+1} = E x_t + \mu_L E(x_t - x_{t-1}) - h \sum_l q_l E x_{t-l}

    and in the queue, with m the mean of the workers' snapshots,
    :math:`E x' = E x + \mu_L E(x - x^-) - h E m`, :math:`E m' = (1 - 1/M) E m + E x' / M`.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      h: step size times curvature, at least 0.
      num_updates: T.
      momentum: mu_L, the explicit momentum in [-1, 1].
      before_start: what happens when tau > t. 'clamp' reads x_0. 'drop' makes no update at that tick, the velocity
        included, and t counts ticks. A queue has nothing to drop.

    Returns:
      float64 [T + 1].

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, an unknown before_start, or 'drop' for a queue.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 5 and 6; Theorem 5 for the queue.

    Example:
      >>> from asyncflax import staleness, theory
      >>> theory.mean_iterates(staleness.geometric(3.0), h=0.5, num_updates=3)
      array([ 1.       ,  0.5      ,  0.0625   , -0.2734375])
      >>> theory.mean_iterates(theory.ExponentialQueue(4), h=0.5, num_updates=3)
      array([ 1.       ,  0.5      ,  0.0625   , -0.2734375])
    """
    h, momentum = _step(h), _momentum(momentum)
    num_updates = _check.integer("num_updates", num_updates, 1)
    _check.choice("before_start", before_start, ("clamp", "drop"))
    if isinstance(staleness, ExponentialQueue):
        if before_start == "drop":
            raise ValueError("before_start='drop' needs a law: every worker of a queue starts with x_0.")
        return _powers(queue_mean_matrix(staleness.num_workers, h, momentum), np.array([1.0, 0.0, 1.0]), num_updates)
    q = _law(staleness).table
    x, velocity = np.ones(num_updates + 1), 0.0
    for t in range(num_updates):
        reach = min(t + 1, len(q))
        read, happens = q[:reach] @ x[t::-1][:reach], q[:reach].sum()  # from versions that exist: tau <= t
        if before_start == "clamp":
            read, happens = read + (1.0 - happens) * x[0], 1.0
        step = happens * momentum * velocity - h * read
        x[t + 1] = x[t] + step
        velocity = step + (1.0 - happens) * velocity  # without an update the velocity waits
    return x


def queue_mean_matrix(num_workers: int, h: float, momentum: float = 0.0) -> np.ndarray:
    r"""The exponential queue's map of (E x, E v, E m): server, velocity x - x^-, mean of the M snapshots.

    .. math::
        v' = \mu_L v - h m, \qquad x' = x + v', \qquad m' = (1 - 1/M) m + x' / M

    Args:
      num_workers: M.
      h: step size times curvature, at least 0.
      momentum: mu_L, the explicit momentum in [-1, 1].

    Returns:
      float64 [3, 3]. The start is (1, 0, 1).

    Raises:
      ValueError: a number is out of range.

    Source: derived; without momentum it is Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5.

    Example:
      >>> from asyncflax import theory
      >>> theory.queue_mean_matrix(num_workers=2, h=0.5)
      array([[ 1.  ,  0.  , -0.5 ],
             [ 0.  ,  0.  , -0.5 ],
             [ 0.5 ,  0.  ,  0.25]])
    """
    x, v, _, m = _queue_update(num_workers, _step(h), _momentum(momentum))
    mean = [0, 1, 3]  # a snapshot chosen at random has the mean of all
    return np.array([row[mean] + row[2] * np.eye(3)[2] for row in (x, v, m)])


def mean_radius(staleness: Staleness, h: float, *, momentum: float = 0.0, form: str = "heavy_ball") -> float:
    r"""The factor by which E x grows or shrinks per update in the long run: the spectral radius of its recursion.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      h: step size times curvature, at least 0.
      momentum: mu_L, the explicit momentum in [-1, 1].
      form: 'heavy_ball' adds a fresh velocity to the stale gradient,
        :math:`(z-1)(z-\mu_L) + h z Q(z) = 0`. 'shifted' takes the velocity from the version that was read too,
        :math:`v_{t+1} = \mu_L v_{t-\tau} - \alpha \nabla f(x_{t-\tau})`, hence
        :math:`(z-1) z - (\mu_L (z - 1) - h z) Q(z) = 0`.

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, an unknown form, or a table too long for the roots of its polynomial.

    Source: derived; shifted momentum after Giladi et al. 2020 (arXiv:1909.12340).

    Example: momentum makes a fresh iteration faster and a stale one unstable.
      >>> from asyncflax import theory
      >>> [round(theory.mean_radius(0, h=0.03, momentum=momentum), 3) for momentum in (0.0, 0.8)]
      [0.97, 0.894]
      >>> [round(theory.mean_radius(10, h=0.03, momentum=momentum), 3) for momentum in (0.0, 0.8)]
      [0.95, 1.009]
    """
    a, b = _characteristic(staleness, _momentum(momentum), form)
    return _largest_root(a, b, _step(h))


def stability_limit(staleness: Staleness, momentum: float = 0.0, *, form: str = "heavy_ball") -> float:
    r"""The step size times curvature up to which E x is stable: for all h below it, :math:`E x_t \to 0`.

    A constant staleness tau without momentum has the closed form

    .. math:: h_{max} = 2 \sin \frac{\pi}{2 (2 \tau + 1)}

    the geometric law :math:`2 (1 + \mu_S) / (1 - \mu_S) = 2 (2 M - 1)`. In general it is the smallest h > 0 at which
    the characteristic polynomial of `mean_radius` has a root on the unit circle; such h are found on it, where the
    imaginary part of :math:`-(z-1)(z-\mu_L) / (z Q(z))` vanishes, with 16 points per oscillation and Newton steps.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      momentum: mu_L, the explicit momentum in (-1, 1).
      form: 'heavy_ball' or 'shifted', see `mean_radius`.

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, an unknown form, or a table too long for the roots of its polynomial.

    Source: derived; Giladi et al. 2020 (arXiv:1909.12340) for constant staleness.

    Example:
      >>> from asyncflax import theory
      >>> [round(theory.stability_limit(7, momentum), 4) for momentum in (0.5, 0.0, -0.3)]
      [0.0958, 0.2091, 0.2792]
      >>> round(theory.stability_limit(7, 0.5, form="shifted"), 4)
      0.126
    """
    momentum = _momentum(momentum, inside=True)
    _check.choice("form", form, _FORMS)
    if momentum == 0.0 and _is_fixed(staleness):
        return float(2 * np.sin(np.pi / (2 * (2 * _law(staleness).maximum + 1))))
    a, b = _characteristic(staleness, momentum, form)
    return float(_crossings(a, b, radius=1.0)[0])


# --- The mean square ------------------------------------------------------------------------------------------------


def mean_square_iterates(
    staleness: Staleness, h: float, num_updates: int, *, momentum: float = 0.0, sigma: float = 0.0
) -> np.ndarray:
    r"""E x_0^2, ..., E x_T^2, from x_0 = 1 and no velocity; where tau > t, x_0 is read ('clamp').

    Under a law, the staleness is a fresh draw and so its effect splits into a mean and a deviation that no other update
    shares, like the noise of a gradient. With r_k the response to one such deviation after k updates,

    .. math::
        E x_t^2 = (E x_t)^2 + \sum_{s<t} r_{t-s}^2 V_s, \qquad
        V_t = \sigma^2 + \sum_l q_l E x_{t-l}^2 - E \big(\sum_l q_l x_{t-l}\big)^2

    In the queue the map is `queue_mean_square_matrix`.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      h: step size times curvature, at least 0.
      num_updates: T; under a law the cost is of order T^2.
      momentum: mu_L, the explicit momentum in [-1, 1].
      sigma: standard deviation of a gradient's noise divided by the curvature.

    Returns:
      float64 [T + 1].

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range.

    Source: derived.

    Example: the same law of staleness, drawn independently or in a queue.
      >>> from asyncflax import staleness, theory
      >>> theory.mean_square_iterates(staleness.geometric(1.0), h=0.5, num_updates=4).round(4)
      array([1.    , 0.25  , 0.0312, 0.0508, 0.0903])
      >>> theory.mean_square_iterates(theory.ExponentialQueue(2), h=0.5, num_updates=4).round(4)
      array([1.    , 0.25  , 0.0312, 0.0352, 0.0552])
    """
    h, momentum = _step(h), _momentum(momentum)
    num_updates = _check.integer("num_updates", num_updates, 1)
    sigma = _check.scalar("sigma", sigma, low=0.0)
    if isinstance(staleness, ExponentialQueue) and staleness.num_workers > 1:
        matrix, noise = _queue_mean_square(staleness.num_workers, h, momentum)
        start = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        return _powers(matrix, start, num_updates, sigma**2 * noise)
    q = _law(staleness).table[: num_updates + 1]  # what is older is x_0
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
    r"""The exponential queue's exact map of second moments.

    They are, in this order, :math:`E x^2, E x v, E v^2, E x m, E v m, E \frac{1}{M} \sum_i s_i^2, E m^2` with x the
    server, v its last step, s_i the workers' snapshots and m their mean. One uniformly drawn event i:

    .. math::
        v' = \mu_L v - h s_i, \qquad x' = x + v', \qquad s_i' = x', \qquad m' = m + (x' - s_i) / M

    Args:
      num_workers: M, at least 2 (one worker is fresh: its snapshot is the server).
      h: step size times curvature, at least 0.
      momentum: mu_L, the explicit momentum in [-1, 1]. At 0 the moments without v are closed in themselves.

    Returns:
      float64 [7, 7]. The start is (1, 0, 0, 1, 0, 1, 1).

    Raises:
      ValueError: a number is out of range.

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
    return _queue_mean_square(_check.integer("num_workers", num_workers, 2), _step(h), _momentum(momentum))[0]


def mean_square_radius(staleness: Staleness, h: float, *, momentum: float = 0.0) -> float:
    r"""The factor by which E x^2 grows or shrinks per update in the long run, without gradient noise.

    Under a law it is the larger of `mean_radius` squared and the root rho of

    .. math:: Q(\rho) \|G\|_\rho^2 - \|Q G\|_\rho^2 = 1, \qquad G(z) = \frac{h z}{(z - 1)(z - \mu_L) + h z Q(z)}

    with the mean of squares over the circle :math:`|z|^2 = \rho` for a norm. A root closer than 1e-4 to `mean_radius`
    squared is not told from it. In the queue it is the spectral radius of `queue_mean_square_matrix`.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      h: step size times curvature, at least 0.
      momentum: mu_L, the explicit momentum in [-1, 1].

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, or a table is too long for the roots of its polynomial.

    Source: derived.

    Example: the same mean dynamics, but a queue is steadier than independent draws.
      >>> from asyncflax import staleness, theory
      >>> round(theory.mean_square_radius(staleness.geometric(3.0), h=0.8), 4)
      1.0227
      >>> round(theory.mean_square_radius(theory.ExponentialQueue(4), h=0.8), 4)
      0.9847
    """
    h, momentum = _step(h), _momentum(momentum)
    if isinstance(staleness, ExponentialQueue) and staleness.num_workers > 1:
        return _spectral_radius(queue_mean_square_matrix(staleness.num_workers, h, momentum))
    numerator, denominator = _generating_function(staleness)
    poles = max(np.abs(np.roots(denominator)), default=0.0)
    smallest = max(mean_radius(staleness, h, momentum=momentum) ** 2, poles)
    if h == 0.0 or _is_fixed(staleness):
        return float(smallest)
    # In the logarithm of rho / smallest - 1, in which the logarithm of the gain is nearly straight.
    gain = lambda log: np.log(_gains(numerator, denominator, h, momentum, smallest * (1 + np.exp(log)))[1])
    high, lowest = 0.0, np.log(1e-4)
    while gain(high) > 0:
        high += 2.0
    while gain(low := max(high - 2.0, lowest)) < 0:
        if low == lowest:
            return float(smallest)
        high = low
    return float(smallest * (1 + np.exp(_zero(gain, low, high))))


def mean_square_limit(staleness: Staleness, momentum: float = 0.0) -> float:
    """The step size times curvature up to which E x^2 is stable: what a simulation sees.

    It is never above `stability_limit`: random staleness makes trajectories blow up whose mean converges. It is
    the first crossing in a search upwards in steps of 5 % from h = (1 - |mu_L|) / (20 (1 + E tau)).

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      momentum: mu_L, the explicit momentum in (-1, 1).

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, or a table is too long for the roots of its polynomial.

    Source: derived.

    Example: with the same mean, fixed staleness is the least stable, the queue the most.
      >>> from asyncflax import staleness, theory
      >>> laws = 3, staleness.uniform(0, 6), staleness.geometric(3.0), theory.ExponentialQueue(4)
      >>> [round(theory.mean_square_limit(law), 3) for law in laws]
      [0.445, 0.52, 0.743, 0.843]
    """
    momentum = _momentum(momentum, inside=True)
    mean_limit = stability_limit(staleness, momentum)
    if _is_fixed(staleness):
        return mean_limit
    if isinstance(staleness, ExponentialQueue):
        mean = staleness.num_workers - 1.0
        growth = lambda h: np.log(mean_square_radius(staleness, h, momentum=momentum))
    else:
        mean = _law(staleness).mean
        fraction = _generating_function(staleness)
        growth = lambda h: np.log(_gains(*fraction, h, momentum, 1.0)[1])
    low = min(0.05 * (1 - abs(momentum)) / (1 + mean), mean_limit / 2)
    while growth(low) > 0:
        low /= 2
    highest = mean_limit * (1 - 1e-6)  # at the limit itself the gain can be infinite
    while growth(high := min(1.05 * low, highest)) < 0:
        if high == highest:
            return mean_limit
        low = high
    return _zero(growth, low, high)


def stationary_variance(staleness: Staleness, h: float, *, momentum: float = 0.0, sigma: float = 1.0) -> float:
    r"""The variance of x in the long run when every gradient has noise; infinite beyond `mean_square_limit`.

    Under a law, with G and the norm of `mean_square_radius` at rho = 1,

    .. math:: \mathrm{Var}\, x = \frac{\sigma^2 \|G\|^2}{1 - (\|G\|^2 - \|Q G\|^2)}

    In the queue it is the fixed point of `queue_mean_square_matrix` with the noise's second moments added.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      h: step size times curvature, positive.
      momentum: mu_L, the explicit momentum in (-1, 1).
      sigma: standard deviation of a gradient's noise divided by the curvature.

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, or a table is too long for the roots of its polynomial.

    Source: derived.

    Example: for a fresh gradient it is h sigma^2 / (2 - h).
      >>> from asyncflax import theory
      >>> round(theory.stationary_variance(0, h=0.5), 6), round(theory.stationary_variance(1, h=0.5), 6)
      (0.333333, 0.6)
    """
    h, momentum = _step(h, positive=True), _momentum(momentum, inside=True)
    sigma = _check.scalar("sigma", sigma, low=0.0)
    if isinstance(staleness, ExponentialQueue) and staleness.num_workers > 1:
        matrix, noise = _queue_mean_square(staleness.num_workers, h, momentum)
        if _spectral_radius(matrix) >= 1:
            return np.inf
        return float(sigma**2 * np.linalg.solve(np.eye(7) - matrix, noise)[0])
    if mean_radius(staleness, h, momentum=momentum) >= 1:
        return np.inf
    response, feedback = _gains(*_generating_function(staleness), h, momentum, 1.0)
    return float(sigma**2 * response / (1 - feedback)) if feedback < 1 else np.inf


# --- The best step size and momentum --------------------------------------------------------------------------------


class BestHyperParameters(NamedTuple):
    r"""What makes E x shrink fastest in the slowest direction of a quadratic.

    Attributes:
      momentum: float, mu_L, the explicit momentum.
      step_size: float, alpha L: the step size times the largest curvature.
      radius: float, the factor per update by which E x shrinks, for the worst curvature.

    Example: see `best_hyper_parameters`.
    """

    momentum: float
    step_size: float
    radius: float


def best_hyper_parameters(
    staleness: Staleness, condition_number: float, *, momentum: float | None = None, form: str = "heavy_ball"
) -> BestHyperParameters:
    r"""The step size and explicit momentum that minimise the spectral radius of the mean over all curvatures.

    .. math:: \min_{\mu_L, \alpha} \max_{\lambda \in [L / \kappa, L]} \rho(\alpha \lambda, \mu_L)

    Exact in alpha and lambda: a radius r is within reach at a given momentum if an interval of h in which all roots of
    the characteristic polynomial have modulus at most r spans a factor of kappa. The smallest such r comes from
    bisection to 1e-10, the momentum from a grid of step 0.04 and a golden section around its best point.

    The best step is often far above `mean_square_limit`, where the mean converges and trajectories blow up: this is
    the answer for E x, not a recipe for training.

    Args:
      staleness: an integer, a law or an `ExponentialQueue`.
      condition_number: kappa, the largest curvature over the smallest, at least 1.
      momentum: fixes mu_L in (-1, 1) instead of searching it.
      form: 'heavy_ball' or 'shifted', see `mean_radius`.

    Raises:
      TypeError: staleness is nothing of the above.
      ValueError: a number is out of range, an unknown form, or a table too long for the roots of its polynomial.

    Source: derived; the optimum behind Mitliagkas et al. 2016 (arXiv:1605.09774), Figure 2, without its first-order
    reading.

    Example: synchronous heavy ball, mu* = ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^2, and with 8 workers.
      >>> from asyncflax import theory
      >>> [round(value, 2) for value in theory.best_hyper_parameters(0, condition_number=9.0)]
      [0.25, 2.25, 0.5]
      >>> theory.best_hyper_parameters(theory.ExponentialQueue(8), condition_number=9.0).momentum < 0
      True
    """
    kappa = _check.scalar("condition_number", condition_number, low=1.0)
    _characteristic(staleness, 0.0, form)  # refuses what is wrong before the search
    if momentum is not None:
        momentum = _momentum(momentum, inside=True)
        return _best_step(staleness, kappa, momentum, form)
    coarse = lambda m: _best_step(staleness, kappa, m, form, tolerance=1e-5).radius
    fine = lambda m: _best_step(staleness, kappa, m, form)
    start = min(map(float, np.linspace(-0.96, 0.96, 49)), key=coarse)
    end = _golden_section(lambda m: fine(m).radius, start - 0.039, start + 0.039)
    return min(fine(start), fine(end), key=lambda best: best.radius)


def _best_step(
    staleness: Staleness, kappa: float, momentum: float, form: str, *, tolerance: float = 1e-10
) -> BestHyperParameters:
    a, b = _characteristic(staleness, momentum, form)
    low, high, largest_h = 0.0, 1.0, 0.0
    while high - low > tolerance:
        radius = (low + high) / 2
        reached = _wide_interval(a, b, radius, kappa)
        if reached is None:
            low = radius
        else:
            high, largest_h = radius, reached
    return BestHyperParameters(momentum, largest_h, high)


def _wide_interval(a: np.ndarray, b: np.ndarray, radius: float, kappa: float) -> float | None:
    """The end of an interval [h / kappa, h] in which all roots of a + h b are within the radius, if there is one."""
    for low, high in itertools.pairwise(_crossings(a, b, radius)):
        if high >= kappa * low and _largest_root(a, b, np.sqrt(low * high)) <= radius:
            return float(high)
    return None


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """The minimiser of a function with one minimum in [low, high], to 1e-5."""
    ratio = (np.sqrt(5.0) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-5:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return float((low + high) / 2)


# --- Polynomials; coefficients stand from the highest power down ----------------------------------------------------


def _generating_function(staleness: Staleness) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of Q(z) = sum_l q_l z^-l."""
    mu = _implicit(staleness)
    if mu is not None:
        return np.array([1.0 - mu, 0.0]), np.array([1.0, -mu])
    q = _law(staleness).table
    if len(q) > _LARGEST_TABLE:
        raise ValueError(
            f"staleness must reach at most {_LARGEST_TABLE - 1}, or be geometric, "
            f"got {_law(staleness)} with a table up to {len(q) - 1}."
        )
    return q, np.append(1.0, np.zeros(len(q) - 1))


def _characteristic(staleness: Staleness, momentum: float, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Polynomials a and b of one length: the growth factors of the mean are the roots of a + h b."""
    _check.choice("form", form, _FORMS)
    numerator, denominator = _generating_function(staleness)
    if form == "heavy_ball":
        a = np.convolve(np.poly([1.0, momentum]), denominator)
    else:
        a = np.convolve([1.0, -1.0], np.append(denominator, 0.0) - momentum * np.append(0.0, numerator))
    return a, np.concatenate([[0.0], numerator, [0.0]])


def _largest_root(a: np.ndarray, b: np.ndarray, h: float) -> float:
    return float(max(np.abs(np.roots(a + h * b)), default=0.0))


def _crossings(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """All h > 0, sorted, at which a + h b has a root on the circle |z| = radius."""
    degree = len(a) - 1
    powers = radius ** np.arange(degree, -1.0, -1.0)
    a, b = a * powers, b * powers
    # At z = e^(i theta), Im(a conj(b)) = sum_k sine[k] sin(k theta), and h = -a / b is real where that is zero: at
    # theta = 0 and pi, and where it is zero after a division by sin(theta), of which all signs are looked at.
    lags = np.correlate(a, b, mode="full")
    sine = lags[:degree][::-1] - lags[degree + 1 :]
    k = np.arange(1, degree + 1)
    size = 16 * degree
    theta = np.pi * np.arange(size + 1) / size
    value = -np.fft.fft(np.append(0.0, sine), 2 * size).imag[: size + 1]
    value[1:-1] /= np.sin(theta[1:-1])
    value[[0, -1]] = k @ sine, -((-1.0) ** k * k) @ sine
    left = np.flatnonzero(np.sign(value[:-1]) != np.sign(value[1:]))
    root = theta[left] - value[left] * (np.pi / size) / (value[left + 1] - value[left])
    for _ in range(6):
        angles = np.outer(root, k)
        imaginary, slope = np.sin(angles) @ sine, np.cos(angles) @ (k * sine)
        sin = np.sin(root)
        derivative = slope - imaginary * np.cos(root) / np.where(sin == 0.0, np.inf, sin)  # sin (imaginary / sin)'
        root = root - imaginary / np.where(derivative == 0.0, np.inf, derivative)
        root = np.clip(root, theta[left], theta[left + 1])
    z = np.exp(1j * np.concatenate([root, [np.pi], [0.0] if radius < 1 else []]))  # at z = 1, h is 0
    with np.errstate(divide="ignore", invalid="ignore"):
        h = -(np.polyval(a, z) / np.polyval(b, z)).real
    return np.sort(h[np.isfinite(h) & (h > 0)])


def _gains(
    numerator: np.ndarray, denominator: np.ndarray, h: float, momentum: float, rho: float
) -> tuple[float, float]:
    """||G||^2 and Q(rho) ||G||^2 - ||Q G||^2 on the circle |z|^2 = rho, with twice the points until they settle."""
    scale = np.sqrt(rho)
    on_circle = lambda p: p * scale ** np.arange(len(p) - 1, -1.0, -1.0)
    total = np.convolve(np.poly([1.0, momentum]), denominator) + h * np.concatenate([[0.0], numerator, [0.0]])
    fresh, read, total = h * scale * on_circle(denominator), h * scale * on_circle(numerator), on_circle(total)
    at_rho = np.polyval(numerator, rho) / np.polyval(denominator, rho)
    before, size = np.inf, 64 * len(total)
    while True:
        fresh_square, read_square, total_square = (np.abs(np.fft.rfft(p, size)) ** 2 for p in (fresh, read, total))
        weights = (
            np.append(1.0, np.full(size // 2, 2.0)) / size / total_square
        )  # the lower half circle mirrors this one
        weights[-1] /= 2
        response, feedback = weights @ fresh_square, weights @ (at_rho * fresh_square - read_square)
        if abs(response - before) <= 1e-13 * response or size >= 2**18:
            return float(response), max(float(feedback), 1e-300)  # it is positive; rounding may not be
        before, size = response, 2 * size


# --- The queue ------------------------------------------------------------------------------------------------------


def _queue_update(num_workers: int, h: float, momentum: float) -> tuple[np.ndarray, ...]:
    """x', v', s_i', m' as coefficients of (x, v, s_i, m, n): the event in which worker i delivers."""
    num_workers = _check.integer("num_workers", num_workers, 1)
    x, v, s, m, n = np.eye(5)
    new_v = momentum * v - h * (s + n)
    new_x = x + new_v
    return new_x, new_v, new_x, m + (new_x - s) / num_workers


# The second moments of (x, v, s_i, m, n) for a worker i drawn at random, as numbers of the moments
# E x^2, E x v, E v^2, E x m, E v m, mean s^2, E m^2, E n^2 and, where a factor n stands alone, of nothing.
_MOMENT = np.array(
    [
        [0, 1, 3, 3, 8],
        [1, 2, 4, 4, 8],
        [3, 4, 5, 6, 8],
        [3, 4, 6, 6, 8],
        [8, 8, 8, 8, 7],
    ]
)


def _queue_mean_square(num_workers: int, h: float, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """The map of the seven moments, and what noise of variance 1 adds to them."""
    x, v, s, m = _queue_update(num_workers, h, momentum)

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.bincount(_MOMENT.ravel(), weights=np.outer(a, b).ravel(), minlength=9)[:8]

    others = (1 - 1 / num_workers) * np.eye(8)[5]  # the snapshots of those who did not deliver
    snapshots = others + product(s, s) / num_workers
    rows = [product(x, x), product(x, v), product(v, v), product(x, m), product(v, m), snapshots, product(m, m)]
    return np.array(rows)[:, :7], np.array(rows)[:, 7]


# --- Small parts ----------------------------------------------------------------------------------------------------


def _response(q: np.ndarray, h: float, num_updates: int, momentum: float) -> np.ndarray:
    """How far x is from its course 0, 1, ..., T updates after a gradient was too small by 1 (times the curvature)."""
    response = np.zeros(num_updates + 1)
    response[1] = velocity = h
    for t in range(1, num_updates):
        reach = min(t + 1, len(q))
        velocity = momentum * velocity - h * (q[:reach] @ response[t::-1][:reach])
        response[t + 1] = response[t] + velocity
    return response


def _powers(matrix: np.ndarray, start: np.ndarray, steps: int, constant: np.ndarray | float = 0.0) -> np.ndarray:
    """The first entry of start, and of what `steps` applications of y -> matrix y + constant make of it."""
    path, y = [start[0]], start
    for _ in range(steps):
        y = matrix @ y + constant
        path.append(y[0])
    return np.array(path)


def _spectral_radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function changes sign between two points, by false position (Illinois), to 12 digits."""
    at_low, at_high = function(low), function(high)
    for _ in range(100):
        middle = high - at_high * (high - low) / (at_high - at_low)
        value = function(middle)
        if value * at_high <= 0:
            low, at_low = high, at_high
        else:
            at_low /= 2
        change = abs(middle - high)
        high, at_high = middle, value
        if value == 0.0 or change <= 1e-12 * abs(middle):
            break
    return float(high)


def _is_fixed(staleness: Staleness) -> bool:
    """Whether nothing about the staleness is random."""
    if isinstance(staleness, ExponentialQueue):
        return staleness.num_workers == 1
    return bool(np.count_nonzero(_law(staleness).table) == 1)


def _law(staleness: Staleness) -> StalenessLaw:
    """The law of a staleness that is none of a queue, or the queue of one worker."""
    if isinstance(staleness, StalenessLaw):
        return staleness
    if isinstance(staleness, ExponentialQueue):
        return constant(0)
    return constant(_check.integer("staleness", staleness, 0))


def _implicit(staleness: Staleness) -> float | None:
    """mu_S of a queue or of a geometric law, else None."""
    if isinstance(staleness, ExponentialQueue):
        return 1.0 - 1.0 / staleness.num_workers
    q = _law(staleness).table
    mu = 1.0 - q[0]
    return float(mu) if np.allclose(q, q[0] * mu ** np.arange(len(q)), rtol=1e-9, atol=0.0) else None


def _step(h: float, *, positive: bool = False) -> float:
    return _check.scalar("h", h, low=0.0, exclusive_low=positive)


def _momentum(momentum: float, *, inside: bool = False) -> float:
    _check.momentum(momentum)
    momentum = _check.scalar("momentum", momentum)
    if inside and abs(momentum) == 1.0:
        raise ValueError(f"momentum must be in (-1, 1), got {momentum=}: at its ends nothing is stable.")
    return momentum
