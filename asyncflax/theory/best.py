"""The best step size and explicit momentum for the mean; see `asyncflax.theory`."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.theory._model import Staleness, characteristic, checked_momentum
from asyncflax.theory._numerics import crossings, largest_root


class BestHyperParameters(NamedTuple):
    """The result of `best_hyper_parameters`.

    Attributes:
      momentum: float, mu_L.
      step_size: float, alpha L: the step size times the largest curvature.
      radius: float, the factor per update by which E x shrinks at the worst curvature.
    """

    momentum: float
    step_size: float
    radius: float


def best_hyper_parameters(
    staleness: Staleness, condition_number: float, *, momentum: float | None = None, form: str = "heavy_ball"
) -> BestHyperParameters:
    r"""The step size and explicit momentum that minimise `mean_radius` over a range of curvatures.

    .. math:: \min_{\mu_L, \alpha} \max_{\lambda \in [L / \kappa, L]} \rho(\alpha \lambda, \mu_L)

    Exact in alpha and lambda: with a given momentum a radius r is attainable if an interval of h, in which all roots of
    the characteristic polynomial have modulus at most r, spans a factor of kappa. The smallest such r comes from
    bisection to 1e-10, the momentum from a grid of step 0.04 and Brent's method around its best point.

    The best step is often far above `mean_square_limit`, where the mean converges but trajectories diverge: this is the
    optimum for E x, not a recipe for training.

    Args:
      condition_number: kappa, the largest curvature over the smallest, at least 1.
      momentum: a fixed mu_L; None searches for the best.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorems 6 and 7 of the Allerton version for the recurrence; its
    Figure 6 has 20 best momenta for condition numbers 5 and 20, all within 0.011 of these. The search is derived.

    Example: synchronous heavy ball, mu* = ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^2, and with 8 workers.
      >>> from asyncflax import theory
      >>> [round(value, 2) for value in theory.best_hyper_parameters(0, condition_number=9.0)]
      [0.25, 2.25, 0.5]
      >>> theory.best_hyper_parameters(theory.ExponentialQueue(8), condition_number=9.0).momentum < 0
      True
    """
    from scipy import optimize

    kappa = _check.scalar("condition_number", condition_number, low=1.0)
    characteristic(staleness, 0.0, form)  # checks before the search
    if momentum is not None:
        momentum = checked_momentum(momentum, inside=True)
        return _best_step(staleness, kappa, momentum, form)
    coarse = lambda m: _best_step(staleness, kappa, m, form, tolerance=1e-5).radius
    fine = lambda m: _best_step(staleness, kappa, m, form)
    start = min(map(float, np.linspace(-0.96, 0.96, 49)), key=coarse)
    around = (start - 0.039, start + 0.039)
    found: Any = optimize.minimize_scalar(lambda m: fine(m).radius, bounds=around, options={"xatol": 1e-5})
    return min(fine(start), fine(float(found.x)), key=lambda best: best.radius)


def _best_step(
    staleness: Staleness, kappa: float, momentum: float, form: str, *, tolerance: float = 1e-10
) -> BestHyperParameters:
    a, b = characteristic(staleness, momentum, form)
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
    for low, high in itertools.pairwise(crossings(a, b, radius)):
        if high >= kappa * low and largest_root(a, b, np.sqrt(low * high)) <= radius:
            return float(high)
    return None
