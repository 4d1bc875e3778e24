r"""Asynchrony begets momentum: the theorems of Mitliagkas et al. 2016 (arXiv:1605.09774) as functions.

For any distribution of staleness, :math:`q_l = P(\tau = l)`, Theorem 2, eq. 7:

.. math::
    E[w_{t+1} - w_t] = E[w_t - w_{t-1}] - \alpha q_0 E \nabla f(w_t)
                       + \alpha \sum_{l \ge 0} (q_l - q_{l+1}) E \nabla f(w_{t-(l+1)})

For the geometric distribution, :math:`q_l = (1 - \mu_S) \mu_S^l`, this is momentum SGD, Theorem 3, eq. 8:

.. math:: E[w_{t+1} - w_t] = \mu_S E[w_t - w_{t-1}] - (1 - \mu_S) \alpha E \nabla f(w_t)

and M workers with exponential work have :math:`\mu_S = 1 - 1/M`, Theorem 5, eq. 9. These statements are about expected
iterates and expected gradients, not about gradients at the expected iterate. Theorems 6 and 7 of the longer version of
the paper (Allerton, October 2016) add explicit momentum. In the arguments, `num_workers` is M >= 1, and `target` is
mu*, the best momentum of synchronous training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.staleness import StalenessLaw, empirical


def implicit_momentum(num_workers: int) -> float:
    r"""The momentum that M asynchronous workers with exponential work add.

    .. math:: \mu_S = 1 - 1/M

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5, eq. 9.

    Example:
      >>> from asyncflax import theory
      >>> theory.implicit_momentum(num_workers=8)
      0.875
    """
    return 1.0 - 1.0 / _check.integer("num_workers", num_workers, 1)


class MomentumKernel(NamedTuple):
    r"""The weights of eq. 7 on the expected gradients, in units of the step size.

    :math:`E[w_{t+1} - w_t] = E[w_t - w_{t-1}] - \alpha (current E \nabla f(w_t) - \sum_l past_l E \nabla f(w_{t-1-l}))`

    Attributes:
      current: float, q_0, the weight of the gradient at w_t.
      past: float64 [K + 1], past[l] = q_l - q_{l+1}, the weight of the gradient at w_{t-1-l}. K is the largest
        staleness and q_{K+1} = 0. The entries sum to `current`.
    """

    current: float
    past: np.ndarray


def momentum_kernel(pmf: StalenessLaw | Sequence[float] | np.ndarray) -> MomentumKernel:
    r"""Theorem 2: the effect of any distribution of staleness on the expected iterates.

    Before enough versions exist, w_0 is read (the 'clamp' of `StalenessLaw.trace`): the first step is
    :math:`-\alpha \nabla f(w_0)`, and eq. 7 holds from the second on with :math:`\nabla f(w_0)` at all earlier times.

    Args:
      pmf: a distribution of `asyncflax.staleness`, or float [K + 1] with pmf[l] = P(tau = l) and sum 1 within 1e-9.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 2, eq. 7.

    Example:
      >>> from asyncflax import theory
      >>> theory.momentum_kernel([0.25, 0.5, 0.25])
      MomentumKernel(current=0.25, past=array([-0.25,  0.25,  0.25]))
    """
    q = (pmf if isinstance(pmf, StalenessLaw) else empirical(pmf)).table
    return MomentumKernel(float(q[0]), q - np.append(q[1:], 0.0))


class TotalMomentum(NamedTuple):
    r"""The coefficients of explicit and implicit momentum together.

    :math:`E Dx_{t+1} = first E Dx_t + second E Dx_{t-1} - (1 - \mu_S) \alpha E \nabla f(x_t)`, with
    :math:`Dx_{t+1} = x_{t+1} - x_t`.

    Attributes:
      first: float, mu_L + mu_S.
      second: float, -mu_L mu_S.
    """

    first: float
    second: float


def total_momentum_operator(explicit: float, implicit: float) -> TotalMomentum:
    r"""Explicit and implicit momentum multiply as operators; their sum is the first-order term.

    With the back shift B:

    .. math::
        (1 - \mu_L B)(1 - \mu_S B) E Dx_{t+1} = -(1 - \mu_S) \alpha E \nabla f(x_t)

    exact for linear gradients under independent geometric staleness and in the exponential queue.

    Args:
      explicit: mu_L in [-1, 1], the momentum of the optimizer.
      implicit: mu_S in [0, 1), the momentum of asynchrony, for example `implicit_momentum(num_workers)`.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorems 6 and 7 of the Allerton version, the same recurrence;
    their Figures 2 and 3 keep its first order, mu_L + mu_S.

    Example:
      >>> from asyncflax import theory
      >>> theory.total_momentum_operator(explicit=0.5, implicit=0.75)
      TotalMomentum(first=1.25, second=-0.375)
    """
    explicit = _check.scalar("explicit", explicit, low=-1.0, high=1.0)
    implicit = _check.scalar("implicit", implicit, low=0.0, high=1.0, exclusive_high=True)
    return TotalMomentum(explicit + implicit, -explicit * implicit)


def compensating_momentum(target: float, num_workers: int) -> float:
    r"""The explicit momentum for which the total is the target, to first order.

    .. math:: \mu_L = \mu^* - (1 - 1/M)

    It is negative beyond `turning_point(target)` workers. This is the rule behind Figure 2 of the paper; it neglects
    the second-order term of `total_momentum_operator`, with which only explicit momentum 0 gives heavy ball exactly.
    The best momentum of the exact mean dynamics, `best_hyper_parameters`, has the same sign but other values.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figure 2.

    Example:
      >>> from asyncflax import theory
      >>> [round(theory.compensating_momentum(0.8, num_workers), 3) for num_workers in (1, 4, 5, 8)]
      [0.8, 0.05, 0.0, -0.075]
    """
    target = _check.scalar("target", target, low=-1.0, high=1.0)
    return target - implicit_momentum(num_workers)


def turning_point(target: float) -> float:
    r"""The number of workers, not always an integer, at which implicit momentum alone is the target.

    .. math:: M = 1 / (1 - \mu^*), \qquad 0 \le \mu^* < 1

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figure 2: M = 5 for mu* = 0.8.

    Example:
      >>> from asyncflax import theory
      >>> theory.turning_point(0.75)
      4.0
    """
    return 1.0 / (1.0 - _check.scalar("target", target, low=0.0, high=1.0, exclusive_high=True))
