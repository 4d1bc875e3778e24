r"""Streaming PCA under asynchronous momentum SGD: limits of small step sizes, and tolerated delays.

Async-MSGD is the rule of `problems.streaming_pca`, with step size eta, momentum mu and delay tau. In slow time
:math:`s = k \eta` it follows an ordinary differential equation everywhere, and near a stationary point a stochastic one
for :math:`U = V / \sqrt{\eta}`. Tolerated delays appear in neither equation.

Arguments of several functions: `momentum`, mu in (-1, 1); `learning_rate`, eta > 0; `eigenvalues`, float [d], the
diagonal of Sigma in the coordinates of the eigenvectors, :math:`\lambda_1 > \lambda_2 \ge ...`. A value out of range
raises a `ValueError`.

Source: Liu, Li, Shi, Zhou and Zhao 2018 (arXiv:1806.01660). We know the abstract only; equations and ranges of delays
are second-hand. Checked here: the closed forms solve the equations, the delay margin is that of the linearised
recursion, and ensembles of `problems.StreamingPca` agree with the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.theory._model import checked_momentum

__all__ = ["Phases", "Sde", "delay_margin", "ode", "phases", "sde", "tolerable_delay"]

_EXPONENT = {"ode": 1.0, "sde": 0.5}


def ode(
    start: Sequence[float] | np.ndarray,
    eigenvalues: Sequence[float],
    time: float | Sequence[float] | np.ndarray,
    *,
    momentum: float = 0.0,
) -> np.ndarray:
    r"""V(s) as float64 [..., d], the limit of Async-MSGD for eta to 0 with s = k eta fixed.

    .. math::
        \frac{dV}{ds} = \frac{1}{1 - \mu} \left( \Sigma V - (V^T \Sigma V) V \right), \qquad
        V(s) = \frac{e^{\Sigma s / (1 - \mu)} V(0)}{|e^{\Sigma s / (1 - \mu)} V(0)|}

    Momentum only rescales time; with eta / (1 - mu) fixed, v_k is the same curve for every mu.

    Args:
      start: float [d], V(0), not zero; it is normalised.
      eigenvalues, momentum: see the module.
      time: float [...], s >= 0.

    Source: Liu et al. 2018 (arXiv:1806.01660), the ODE limit (second-hand; the closed form is checked against it).

    Example:
      >>> from asyncflax.theory import streaming_pca
      >>> streaming_pca.ode([0.1, 1.0], eigenvalues=[2.0, 1.0], time=[0.0, 2.0], momentum=0.5).round(3)
      array([[0.1  , 0.995],
             [0.984, 0.18 ]])
    """
    values, start = _eigenvalues(eigenvalues), _check.numbers("start", start)
    if start.shape != values.shape or not np.all(np.isfinite(start)) or not np.any(start):
        raise ValueError(f"start must be {len(values)} finite numbers, not all zero, got start={_check.shown(start)}.")
    _check.number("time", time, low=0.0)
    slow = np.asarray(time, np.float64)[..., None] / (1.0 - checked_momentum(momentum, inside=True))
    with np.errstate(divide="ignore"):
        log = np.log(np.abs(start)) + values * slow  # without overflow
    grown = np.sign(start) * np.exp(log - log.max(axis=-1, keepdims=True))
    return grown / np.linalg.norm(grown, axis=-1, keepdims=True)


class Sde(NamedTuple):
    r"""An Ornstein-Uhlenbeck process for each direction i, :math:`dU_i = drift_i U_i ds + noise_i dB_i`.

    Attributes:
      drift: float64 [d], :math:`(\lambda_i - \lambda_j) / (1 - \mu)`, 0 at i = j.
      noise: float64 [d], :math:`\alpha_{ij} / (1 - \mu)`, 0 at i = j, where the linearisation does not apply.
    """

    drift: np.ndarray
    noise: np.ndarray

    def variance(self, time: float | np.ndarray, start: float | np.ndarray = 0.0) -> np.ndarray:
        r"""E U_i^2 at slow time s, float64 [d]; times eta, it is E v_i^2.

        .. math:: E U^2(s) = e^{2 b s} E U^2(0) + \frac{\sigma^2}{2 b} (e^{2 b s} - 1)

        Args:
          time: s >= 0; infinity gives the stationary variance :math:`\sigma^2 / (-2 b)` where it exists.
          start: float [d], E U_i^2 at s = 0.

        >>> from asyncflax.theory import streaming_pca
        >>> streaming_pca.sde([4.0, 3.0, 2.0, 1.0]).variance(float("inf"))[1:]
        array([6.        , 2.        , 0.66666667])
        """
        time = _check.numbers("time", time)
        if not np.all(time >= 0):
            raise ValueError(f"time must be >= 0, got time={_check.shown(time)}.")
        _check.number("start", start, low=0.0)
        start = np.asarray(start, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = np.where(self.drift == 0.0, 1.0, np.exp(2 * self.drift * time))
            added = np.where(self.drift == 0.0, 0.0, self.noise**2 * (growth - 1) / (2 * self.drift))
            kept = np.where(np.equal(start, 0.0), 0.0, growth * start)
        return kept + added


def sde(eigenvalues: Sequence[float], *, momentum: float = 0.0, near: int = 0) -> Sde:
    r"""The diffusion limit of :math:`U = v / \sqrt{\eta}` near the stationary point e_near.

    .. math::
        dU_i = \frac{\lambda_i - \lambda_j}{1 - \mu} U_i ds + \frac{\alpha_{ij}}{1 - \mu} dB_i, \qquad
        \alpha_{ij}^2 = E X_i^2 X_j^2 = \lambda_i \lambda_j

    for a stream with independent coordinates. Near the optimum (j = 1) every direction has the stationary variance
    :math:`\eta \lambda_i \lambda_1 / (2 (1 - \mu) (\lambda_1 - \lambda_i))`. Near a saddle, directions of larger
    eigenvalues grow.

    Args:
      eigenvalues, momentum: see the module.
      near: the index of e_j; 0 is the optimum.

    Source: Liu et al. 2018 (arXiv:1806.01660), the SDE limits (second-hand; ensembles agree with them).

    Example: near the saddle e_2 the first direction grows.
      >>> from asyncflax.theory import streaming_pca
      >>> streaming_pca.sde([4.0, 3.0, 2.0], momentum=0.5, near=1)
      Sde(drift=array([ 2.,  0., -2.]), noise=array([6.92820323, 0.        , 4.89897949]))
    """
    values, rest = _eigenvalues(eigenvalues), 1.0 - checked_momentum(momentum, inside=True)
    near = _check.integer("near", near, 0, len(values) - 1)
    noise = np.sqrt(values * values[near]) / rest
    noise[near] = 0.0
    return Sde((values - values[near]) / rest, noise)


def tolerable_delay(
    momentum: float, learning_rate: float, *, regime: str, gamma: float, constant: float = 1.0
) -> float:
    r"""The delay up to which a limit is said to hold as without delay.

    .. math::
        \tau_k \lesssim \frac{(1 - \mu)^2}{\eta^{1 - \gamma}} \;\text{(ODE)}, \qquad
        \tau_k \lesssim \frac{(1 - \mu)^2}{\eta^{1/2 - \gamma}} \;\text{(SDE)}

    Both hold up to an unknown constant. Second-hand sources mix them, and we do not know which is the main result of
    the paper. The delay that the linearised recursion tolerates, `delay_margin`, decreases like (1 - mu) for small eta,
    not like its square.

    Args:
      momentum, learning_rate: see the module.
      regime: 'ode' or 'sde'.
      gamma: the exponent, in (0, 1] for 'ode' and in (0, 1/2] for 'sde'.
      constant: the unknown constant.

    Source: Liu et al. 2018 (arXiv:1806.01660) (second-hand, not checked).

    Example:
      >>> from asyncflax.theory import streaming_pca
      >>> round(streaming_pca.tolerable_delay(0.9, 1e-4, regime="ode", gamma=0.25), 2)
      10.0
      >>> round(streaming_pca.tolerable_delay(0.9, 1e-4, regime="sde", gamma=0.25), 2)
      0.1
    """
    _check.choice("regime", regime, tuple(_EXPONENT))
    rest = 1.0 - checked_momentum(momentum, inside=True)
    eta = _check.scalar("learning_rate", learning_rate, low=0.0, exclusive_low=True)
    gamma = _check.scalar("gamma", gamma, low=0.0, high=_EXPONENT[regime], exclusive_low=True)
    constant = _check.scalar("constant", constant, low=0.0, exclusive_low=True)
    return constant * rest**2 / eta ** (_EXPONENT[regime] - gamma)


def delay_margin(momentum: float, h: float) -> float:
    r"""The constant delay at which :math:`(z - 1)(z - \mu) z^{\tau - 1} + h = 0` first has a root on the unit circle.

    .. math::
        \tau = 1 + \frac{1}{\theta} \left( \frac{\pi - \theta}{2} - \arg(e^{i \theta} - \mu) \right), \qquad
        4 s ((1 - \mu)^2 + 4 \mu s) = h^2, \quad s = \sin^2 \frac{\theta}{2}

    A real number, the inverse of `theory.stability_limit`: smaller delays are stable. It is negative if even a fresh
    gradient is unstable. For small h > 0

    .. math:: \tau \approx \frac{\pi}{2} \frac{1 - \mu}{h} - \frac{1}{1 - \mu} + \frac12

    so to leading order it decreases like (1 - mu). In streaming PCA the largest curvature at the optimum is that of the
    length of v, h = 2 eta lambda_1.

    Source: derived.

    Example:
      >>> from asyncflax import theory
      >>> round(theory.streaming_pca.delay_margin(0.5, theory.stability_limit(7, 0.5)), 6)
      7.0
    """
    mu, h = checked_momentum(momentum, inside=True), _check.scalar("h", h, low=0.0, exclusive_low=True)
    if h >= 2 * (1 + mu):
        return -1.0
    # The root of 16 mu s^2 + 4 (1 - mu)^2 s - h^2 = 0 in a form without cancellation.
    b = 4 * (1 - mu) ** 2
    s = 2 * h**2 / (b + np.sqrt(b**2 + 64 * mu * h**2))
    theta = 2 * np.arcsin(np.sqrt(s))
    return float(1 + ((np.pi - theta) / 2 - np.arctan2(np.sin(theta), np.cos(theta) - mu)) / theta)


class Phases(NamedTuple):
    """The number of updates of each phase.

    Attributes:
      escape: float, from the saddle until E v_1^2 is delta^2.
      traverse: float, from v_1^2 = delta^2 to 1 - delta^2 along the ODE, in the plane of the first two directions.
      settle: float, from there until E v_2^2 is the accuracy; infinite if noise prevents it.
    """

    escape: float
    traverse: float
    settle: float


def phases(
    eigenvalues: Sequence[float], learning_rate: float, *, momentum: float = 0.0, accuracy: float, delta: float = 0.3
) -> Phases:
    r"""The lengths of the three phases from the saddle e_2: escape, deterministic traverse, noise.

    With the gap :math:`g = \lambda_1 - \lambda_2` and the stationary variance
    :math:`q = \eta \lambda_1 \lambda_2 / (2 (1 - \mu) g)` of v_2,

    .. math::
        N_1 = \frac{1 - \mu}{2 \eta g} \log \left(1 + \frac{\delta^2}{q} \right), \qquad
        N_2 = \frac{1 - \mu}{\eta g} \log \frac{1 - \delta^2}{\delta^2}, \qquad
        N_3 = \frac{1 - \mu}{2 \eta g} \log \frac{\delta^2 - q}{\epsilon - q}

    Each is :math:`(1 - \mu) / (\eta g)` times a logarithm, as the paper is said to have it; the logarithms are derived.
    With eta chosen for an accuracy, :math:`\eta \propto (1 - \mu) \epsilon`, momentum drops out.

    Args:
      eigenvalues, learning_rate, momentum: see the module.
      accuracy: epsilon in (0, delta^2), the mean square of v_2 at which to stop.
      delta: the boundary between the phases, in (0, 0.7).

    Source: Liu et al. 2018 (arXiv:1806.01660) for the phases (second-hand); the logarithms are derived.

    Example:
      >>> from asyncflax.theory import streaming_pca
      >>> lengths = streaming_pca.phases([4.0, 3.0, 2.0, 1.0], 1e-4, momentum=0.8, accuracy=0.01)
      >>> [round(count) for count in lengths]
      [3434, 4627, 2520]
    """
    values, rest = _eigenvalues(eigenvalues), 1.0 - checked_momentum(momentum, inside=True)
    eta = _check.scalar("learning_rate", learning_rate, low=0.0, exclusive_low=True)
    delta = _check.scalar("delta", delta, low=0.0, high=0.7, exclusive_low=True)
    accuracy = _check.scalar("accuracy", accuracy, low=0.0, high=delta**2, exclusive_low=True)
    gap = values[0] - values[1]
    if gap <= 0:
        raise ValueError(f"eigenvalues must be in descending order, the first strictly, got {tuple(values)}.")
    unit, floor = rest / (eta * gap), eta * values[0] * values[1] / (2 * rest * gap)
    left = (delta**2 - floor) / (accuracy - floor) if accuracy > floor else np.inf
    return Phases(
        float(unit / 2 * np.log1p(delta**2 / floor)),
        float(unit * np.log((1 - delta**2) / delta**2)),
        float(unit / 2 * np.log(left)),
    )


def _eigenvalues(eigenvalues: Sequence[float]) -> np.ndarray:
    _check.number("eigenvalues", eigenvalues, low=0.0)
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"eigenvalues must be a list of at least two numbers, got {eigenvalues!r}.")
    return values
