"""The dynamics of E x under asynchrony: exact recursions, growth factors, limits; see `asyncflax.theory`."""

from __future__ import annotations

import numpy as np

from asyncflax import _check, _memory
from asyncflax.theory._model import (
    FORMS,
    ExponentialQueue,
    Staleness,
    as_law,
    characteristic,
    checked_momentum,
    checked_step,
    is_fixed,
    queue_update,
)
from asyncflax.theory._numerics import crossings, largest_root, powers


def mean_iterates(
    staleness: Staleness, h: float, num_updates: int, *, momentum: float = 0.0, before_start: str = "clamp"
) -> np.ndarray:
    r"""E x_0, ..., E x_T as float64 [T + 1], from x_0 = 1 and velocity 0.

    .. math:: E x_{t+1} = E x_t + \mu_L E(x_t - x_{t-1}) - h \sum_l q_l E x_{t-l}

    For queues see `queue_mean_matrix`.

    Args:
      before_start: while tau > t, 'clamp' reads x_0; 'drop' updates nothing at that tick, not even the velocity, and t
        counts ticks. A queue has nothing to drop.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 5 and 6; Theorem 5 for the queue.

    Example:
      >>> from asyncflax import staleness, theory
      >>> theory.mean_iterates(staleness.geometric(3.0), h=0.5, num_updates=3)
      array([ 1.       ,  0.5      ,  0.0625   , -0.2734375])
      >>> theory.mean_iterates(theory.ExponentialQueue(4), h=0.5, num_updates=3)
      array([ 1.       ,  0.5      ,  0.0625   , -0.2734375])
    """
    h, momentum = checked_step(h), checked_momentum(momentum)
    num_updates = _check.integer("num_updates", num_updates, 1)
    _check.choice("before_start", before_start, ("clamp", "drop"))
    _memory.need("num_updates", num_updates, 50 * num_updates, "the iterates")
    if isinstance(staleness, ExponentialQueue):
        if before_start == "drop":
            raise ValueError("before_start='drop' needs a distribution, since every worker of a queue starts with x_0.")
        return powers(queue_mean_matrix(staleness.num_workers, h, momentum), np.array([1.0, 0.0, 1.0]), num_updates)
    q = as_law(staleness).table
    x, velocity = np.ones(num_updates + 1), 0.0
    for t in range(num_updates):
        reach = min(t + 1, len(q))
        read, happens = q[:reach] @ x[t::-1][:reach], q[:reach].sum()  # only versions that exist: tau <= t
        if before_start == "clamp":
            read, happens = read + (1.0 - happens) * x[0], 1.0
        step = happens * momentum * velocity - h * read
        x[t + 1] = x[t] + step
        velocity = step + (1.0 - happens) * velocity  # without an update the velocity is kept
    return x


def queue_mean_matrix(num_workers: int, h: float, momentum: float = 0.0) -> np.ndarray:
    r"""The map of (E x, E v, E m) in the exponential queue: server, velocity x - x^-, mean of the M snapshots.

    .. math::
        v' = \mu_L v - h m, \qquad x' = x + v', \qquad m' = (1 - 1/M) m + x' / M

    It is float64 [3, 3]; the start is (1, 0, 1).

    Source: derived; E x follows Theorems 6 and 7 of Mitliagkas et al. 2016 (arXiv:1605.09774), Allerton version, and
    without momentum Theorem 5.

    Example:
      >>> from asyncflax import theory
      >>> theory.queue_mean_matrix(num_workers=2, h=0.5)
      array([[ 1.  ,  0.  , -0.5 ],
             [ 0.  ,  0.  , -0.5 ],
             [ 0.5 ,  0.  ,  0.25]])
    """
    x, v, _, m = queue_update(num_workers, checked_step(h), checked_momentum(momentum))
    mean = [0, 1, 3]  # a random snapshot has the mean of all
    return np.array([row[mean] + row[2] * np.eye(3)[2] for row in (x, v, m)])


def mean_radius(staleness: Staleness, h: float, *, momentum: float = 0.0, form: str = "heavy_ball") -> float:
    r"""The asymptotic factor by which E x grows or shrinks per update: the spectral radius of its recursion.

    Args:
      form: 'heavy_ball' adds a fresh velocity to the stale gradient. 'shifted' uses the velocity of the version read,
        :math:`v_{t+1} = \mu_L v_{t-\tau} - \alpha \nabla f(x_{t-\tau})`, hence
        :math:`(z-1) z - (\mu_L (z - 1) - h z) Q(z) = 0`.

    Source: derived; shifted momentum after Giladi et al. 2020 (arXiv:1909.12340), whose equation is second-hand.

    Example: momentum makes a fresh iteration faster and a stale one unstable.
      >>> from asyncflax import theory
      >>> [round(theory.mean_radius(0, h=0.03, momentum=momentum), 3) for momentum in (0.0, 0.8)]
      [0.97, 0.894]
      >>> [round(theory.mean_radius(10, h=0.03, momentum=momentum), 3) for momentum in (0.0, 0.8)]
      [0.95, 1.009]
    """
    a, b = characteristic(staleness, checked_momentum(momentum), form)
    return largest_root(a, b, checked_step(h))


def stability_limit(staleness: Staleness, momentum: float = 0.0, *, form: str = "heavy_ball") -> float:
    r"""The step size times curvature up to which E x is stable: for all h below it, :math:`E x_t \to 0`.

    Without momentum, a constant staleness tau has the closed form

    .. math:: h_{max} = 2 \sin \frac{\pi}{2 (2 \tau + 1)}

    and the geometric distribution :math:`2 (1 + \mu_S) / (1 - \mu_S) = 2 (2 M - 1)`. In general it is the smallest
    h > 0 at which the characteristic polynomial has a root on the unit circle, found where the imaginary part of
    :math:`-(z-1)(z-\mu_L) / (z Q(z))` vanishes on it, with 16 points per oscillation and Newton steps.

    Source: derived; Giladi et al. 2020 (arXiv:1909.12340) conclude that steps have to shrink like 1 / tau.

    Example:
      >>> from asyncflax import theory
      >>> [round(theory.stability_limit(7, momentum), 4) for momentum in (0.5, 0.0, -0.3)]
      [0.0958, 0.2091, 0.2792]
      >>> round(theory.stability_limit(7, 0.5, form="shifted"), 4)
      0.126
    """
    momentum = checked_momentum(momentum, inside=True)
    _check.choice("form", form, FORMS)
    if momentum == 0.0 and is_fixed(staleness):
        return float(2 * np.sin(np.pi / (2 * (2 * as_law(staleness).maximum + 1))))
    a, b = characteristic(staleness, momentum, form)
    return float(crossings(a, b, radius=1.0)[0])
