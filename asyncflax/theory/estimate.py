r"""The implicit momentum of a recorded run and its confidence interval, by regression with instruments.

With explicit momentum m, step size alpha and the gradient :math:`g_t = \nabla f(x_t)` at the *fresh* parameters, let

.. math::
    y_t = Dx_{t+1} - m Dx_t + \alpha g_t, \qquad z_t = Dx_t - m Dx_{t-1} + \alpha g_t, \qquad Dx_{t+1} = x_{t+1} - x_t .

Then :math:`E y_t = \mu_S E z_t`: eq. 8 of Mitliagkas et al. 2016, with explicit momentum (on a quadratic the recurrence
of Theorems 6 and 7 of their Allerton version). Along a single run, more holds:

.. math:: E[y_t - \mu_S z_t \mid \text{all events that made } x_{t-1}] = 0 ,

but :math:`z_t` is correlated with the error, since both contain the last applied gradient, so least squares of y on z
(and a median of the ratios y/z) is biased. Quantities known at t-1 are uncorrelated with it and serve as instruments.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.theory._model import checked_momentum

_MEMORIES = (1, 2, 4, 8, 16)  # versions over which the instruments average the gradient
_BATCHES = 40


class MomentumEstimate(NamedTuple):
    """An implicit momentum and its confidence interval.

    Attributes:
      value: float, the estimate of mu_S.
      low: float, the lower end of the interval.
      high: float, the upper end.
    """

    value: float
    low: float
    high: float


def estimate_momentum(
    params: Any, grads: Any, *, learning_rate: float, momentum: float = 0.0, confidence: float = 0.95
) -> MomentumEstimate:
    r"""Measures implicit momentum from the server's parameters and the gradients at them.

    Two-stage least squares, pooled over coordinates, updates and runs: z_t is predicted from running averages of the
    gradients :math:`g_{t-1}, g_{t-2}, ...` (memories of 1, 2, 4, 8 and 16 versions), and

    .. math:: \hat\mu_S = \frac{\sum_t \hat z_t \cdot y_t}{\sum_t \hat z_t \cdot z_t} .

    The interval is a jackknife over about 40 segments of the runs, with a normal quantile.

    *Assumptions*, for any differentiable f: staleness from M workers with exponential work of equal mean
    (:math:`\mu_S = 1 - 1/M`) or drawn independently from a geometric distribution; a constant step size; heavy-ball
    momentum with a fresh velocity (`algorithms.momentum_asgd`); gradient noise that is independent between updates.
    `grads` may be the gradient of the objective at x_t or an unbiased estimate from samples drawn at t: either other
    samples than those of the workers, or the gradient that a worker computed on x_t, although it is applied later.

    *Errors.* The ratio has a bias of order 1/T. Where z_t can hardly be predicted (few coordinates, small steps, mostly
    noise) the estimate is unreliable and its interval can be too narrow. A converging run is informative only at its
    start; then many short runs help more than a long one. Under any other distribution of staleness there is no single
    momentum (`momentum_kernel`), and the value is a best fit.

    Args:
      params: float [T], [T, d] or [R, T, d]: x_t after each update, in order, for R independent runs; all coordinates
        of the model, or a fixed subset.
      grads: float of the same shape, the gradient at each of params.
      learning_rate: alpha, positive.
      momentum: m, the explicit momentum in [-1, 1].
      confidence: the confidence level of the interval, in (0, 1).

    Raises:
      TypeError: an argument is not numeric.
      ValueError: shapes differ, there are fewer than 12 versions, a number is out of range or not finite, or the
        gradients do not predict z_t, because nothing moves.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 8, and Theorems 6 and 7 of the Allerton version, for
    the relation; the instruments are derived.

    Example: the mean of runs of 4 workers with explicit momentum 0.3 has implicit momentum 3/4.
      >>> from asyncflax import theory
      >>> x = theory.mean_iterates(theory.ExponentialQueue(4), h=0.2, num_updates=50, momentum=0.3)
      >>> estimate = theory.estimate_momentum(x, 0.2 * x, learning_rate=1.0, momentum=0.3)
      >>> round(estimate.value, 6)
      0.75
    """
    x, g = _runs("params", params), _runs("grads", grads)
    if x.shape != g.shape:
        raise ValueError(f"grads must have the shape of params, {np.shape(params)}; got {np.shape(grads)}.")
    alpha = _check.scalar("learning_rate", learning_rate, low=0.0, exclusive_low=True)
    m = checked_momentum(momentum)
    confidence = _check.scalar("confidence", confidence, low=0.0, high=1.0, exclusive_low=True, exclusive_high=True)

    step = np.diff(x, axis=1)
    applied = step[:, 1:] - m * step[:, :-1]  # [k] made x_{k+2}: -alpha times a stale gradient
    fresh = alpha * g[:, 2:-1]
    y, z = (applied[:, 1:] + fresh)[:, 1:], (applied[:, :-1] + fresh)[:, 1:]
    instruments = _running_averages(alpha * g)[:, :, 2:-2]  # those of t - 1, for t = 3, 4, ...
    batches = _batches(*z.shape[:2])
    products = lambda a, b: np.add.reduceat((a * b).sum(-1).reshape(*a.shape[:-3], -1), batches, axis=-1)
    with_y, with_z = products(instruments, y), products(instruments, z)  # [instruments, batches]
    gram = np.array([products(instruments, one) for one in instruments])

    value = _two_stage(with_y.sum(-1), with_z.sum(-1), gram.sum(-1))
    if not np.isfinite(value):
        raise ValueError("params and grads do not move, so the gradients do not predict the next update.")
    without = [  # the estimate without one of the batches
        _two_stage(with_y.sum(-1) - with_y[:, i], with_z.sum(-1) - with_z[:, i], gram.sum(-1) - gram[..., i])
        for i in range(len(batches))
    ]
    error = np.sqrt((len(batches) - 1) * np.var(without)) if np.all(np.isfinite(without)) else np.inf
    half_width = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * error
    return MomentumEstimate(value, float(value - half_width), float(value + half_width))


def _runs(name: str, values: Any) -> np.ndarray:
    """The values as float64 [R, T, d]."""
    _check.number(name, values)
    array = np.asarray(values, dtype=np.float64)
    if not 1 <= array.ndim <= 3:
        raise ValueError(f"{name} must have the shape [T], [T, d] or [R, T, d], got {array.shape}.")
    array = array.reshape(-1, 1) if array.ndim == 1 else array
    array = array[None] if array.ndim == 2 else array
    if array.shape[1] < 12 or array.size == 0:
        raise ValueError(f"{name} must have at least 12 versions, got shape {np.shape(values)}.")
    return array


def _running_averages(g: np.ndarray) -> np.ndarray:
    """Running averages of g up to each t, from g_0, float64 [memories, R, T, d]."""
    decay = 1.0 - 1.0 / np.array(_MEMORIES).reshape(-1, 1, 1)
    averages = np.empty((len(_MEMORIES), *g.shape))
    averages[:, :, 0] = g[:, 0]
    for t in range(1, g.shape[1]):
        averages[:, :, t] = decay * averages[:, :, t - 1] + (1.0 - decay) * g[:, t]
    return averages


def _batches(num_runs: int, length: int) -> np.ndarray:
    """The starts of the segments of the concatenated runs: about 40 in all, none across two runs."""
    each = min(max(_BATCHES // num_runs, 1), length)
    starts = np.arange(each) * length // each
    return np.ravel(np.arange(num_runs)[:, None] * length + starts)


def _two_stage(with_y: np.ndarray, with_z: np.ndarray, gram: np.ndarray) -> float:
    """The ratio of the products of y and of z with the instruments' best prediction of z."""
    weights = np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ with_z
    strength = float(weights @ with_z)
    return float(weights @ with_y) / strength if strength > 0 else np.nan
