"""What shrinks E x and E x^2 fastest in the long run, without noise, over a range of curvatures."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from asyncflax import theory
from asyncflax.staleness import StalenessLaw
from asyncflax.theory import BestHyperParameters


def best(
    staleness: theory.ExponentialQueue | StalenessLaw, kappa: float, reference: BestHyperParameters
) -> tuple[BestHyperParameters, BestHyperParameters]:
    """What is best for the mean and for the root mean square; radius is the factor per update of either.

    Where there is no one momentum of asynchrony, that is without explicit momentum.

    Args:
      staleness: of the workers.
      kappa: the condition number.
      reference: what is best for one worker.
    """
    if isinstance(staleness, theory.ExponentialQueue):
        if staleness.num_workers == 1:
            return reference, reference
        return theory.best_hyper_parameters(staleness, kappa), _best_in_queue(staleness.num_workers, kappa)
    mean = theory.best_hyper_parameters(staleness, kappa, momentum=0.0)
    if np.count_nonzero(staleness.table) == 1:
        return mean, mean  # nothing is random: runs are the mean
    radius = lambda h: theory.mean_square_radius(staleness, h)
    h, square = _balanced(radius, theory.mean_square_limit(staleness), kappa, halvings=7)
    return mean, BestHyperParameters(0.0, h, math.sqrt(square))


def _best_in_queue(num_workers: int, kappa: float) -> BestHyperParameters:
    """What makes the root mean square shrink fastest in the exponential queue: grids of momenta, each finer."""
    best = BestHyperParameters(0.0, 0.0, math.inf)
    for spacing, count in ((0.08, 11), (0.02, 4), (0.004, 5)):
        for momentum in best.momentum + spacing * np.arange(-count, count + 1):
            # The map is of second degree in h, so three of them say all.
            at_0, at_1, at_2 = (theory.queue_mean_square_matrix(num_workers, h, momentum) for h in (0.0, 1.0, 2.0))
            linear, square = (4 * at_1 - 3 * at_0 - at_2) / 2, (at_0 - 2 * at_1 + at_2) / 2
            radius = lambda h, a=at_0, b=linear, c=square: float(np.abs(np.linalg.eigvals(a + h * b + h**2 * c)).max())
            unstable = (1 - abs(momentum)) / num_workers
            while radius(unstable) < 1:
                unstable *= 2
            h, reached = _balanced(radius, unstable, kappa, halvings=20)
            if math.sqrt(reached) < best.radius:
                best = BestHyperParameters(float(momentum), h, math.sqrt(reached))
    return best


def _balanced(radius: Callable[[float], float], unstable: float, kappa: float, *, halvings: int) -> tuple[float, float]:
    """The step at which the steepest direction shrinks as fast as the flattest, and the larger factor there.

    The radius falls with h, then rises to 1 and beyond: the worst direction is one of the two.
    """
    low, high = 0.0, unstable
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) < radius(middle / kappa) else (low, middle)
    h = float(low or high)
    return h, max(radius(h), radius(h / kappa))
