"""A training, as far as quadratics know it: curvatures, the loss in each direction, gradient noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.theory.meter import Readout

__all__ = ["Spectrum"]

SPECTRUM = "a theory.Spectrum, for example Spectrum.even(100.0)"
_EVENTS = 12
_DIRECTIONS = 16
_LEAST = 1e-3  # share of the loss that every curvature has, so that all of them limit the steps


class Spectrum(NamedTuple):
    r"""A training: directions with a curvature lambda_i, an excess loss L_i before training, and noise.

    .. math:: L = \sum_i L_i x_i^2, \qquad E n_i^2 = r + r_L \frac{L}{L^0}

    with :math:`x_i = 1` before training and :math:`\lambda_i n_i` the noise of a gradient next to the gradient
    :math:`\lambda_i x_i`: noise is relative to the gradient before training, in all directions alike.

    Attributes:
      curvatures: float [n], positive.
      losses: float [n], the excess loss in each direction before training.
      noise: float, r, the variance of a gradient that stays, over the square of the gradient before training.
      loss_noise: float, r_L, likewise the variance that falls with the excess loss at what a worker read.

    Example: see `even` and `measured`.
    """

    curvatures: np.ndarray
    losses: np.ndarray
    noise: float = 0.0
    loss_noise: float = 0.0

    @classmethod
    def even(cls, condition_number: float, *, noise: float = 0.0, directions: int = 12) -> Spectrum:
        """As much loss in every direction, curvatures from 1 / kappa to 1, evenly spaced in their logarithm.

        Args:
          condition_number: kappa, above 1.
          noise: the variance of a gradient over its square before training.
          directions: how many, at least 2.

        Raises:
          ValueError: a number is out of range.

        Example:
          >>> from asyncflax.theory.spectrum import Spectrum
          >>> Spectrum.even(16.0, directions=3).curvatures
          array([0.0625, 0.25  , 1.    ])
        """
        kappa = _check.scalar("condition_number", condition_number, low=1.0, exclusive_low=True)
        noise = _check.scalar("noise", noise, low=0.0)
        directions = _check.integer("directions", directions, 2)
        return cls(np.geomspace(1 / kappa, 1.0, directions), np.full(directions, 1 / directions), noise)

    @classmethod
    def measured(cls, losses: Any, readout: Readout, *, learning_rate: float, curvature_max: float) -> Spectrum:
        r"""What a short run of one worker without momentum shows.

        Small steps follow gradient flow, so the loss after t updates is :math:`\sum_i L_i e^{-2 \lambda_i \alpha t}`:
        the losses are fitted so, with curvatures up to L and no negative :math:`L_i`. Two gradients in a row differ by
        twice the variance of one, which is fitted as a constant and a share of the loss.

        Args:
          losses: float [T], excess losses of the batches, in order: a loss that no training can reach is subtracted.
          readout: what `meter.watch` reports of the same events, with as many coordinates as there are parameters.
          learning_rate: alpha, at most a tenth of the largest one that is stable.
          curvature_max: L, for example from `largest_curvature` where the run has ended.

        Raises:
          TypeError, ValueError: shapes differ, there are fewer than 12 events, or a number is out of range.

        Source: derived; McCandlish et al. 2018 (arXiv:1812.06162) for gradient noise as a scale.

        Example: gradients whose variance is their square before training.
          >>> import asyncflax, jax, jax.numpy as jnp
          >>> from asyncflax.theory import meter
          >>> from asyncflax.theory.spectrum import Spectrum
          >>> noise = jax.random.normal(jax.random.key(0), (300, 64))
          >>> loss_fn = lambda x, noise: 0.5 * jnp.sum(x**2) + jnp.vdot(x, noise)
          >>> watched = meter.watch(jax.value_and_grad(loss_fn), jnp.ones(64))
          >>> trace = asyncflax.staleness.constant(0).trace(300)
          >>> run = asyncflax.run(asyncflax.algorithms.asgd(0.02), watched, jnp.ones(64), trace, noise)
          >>> excess = 0.5 * (run.aux["meter"].params ** 2).sum(axis=1)
          >>> spectrum = Spectrum.measured(excess, run.aux["meter"], learning_rate=0.02, curvature_max=1.0)
          >>> round(spectrum.noise + spectrum.loss_noise, 1)
          1.1
        """
        from scipy import optimize

        losses = _check.numbers("losses", losses, "a list of numbers")
        _check.instance("readout", readout, Readout, "a meter.Readout, the entry 'meter' of what events report")
        grads = _check.numbers("readout", readout.grads, "an array of numbers")
        if losses.ndim != 1 or len(losses) < _EVENTS or grads.ndim != 2 or len(grads) != len(losses):
            raise ValueError(
                f"losses and readout must have a row for each of {_EVENTS} events at least, got the shapes "
                f"{losses.shape} and {grads.shape}."
            )
        if not (np.all(np.isfinite(losses)) and np.all(np.isfinite(grads)) and losses[0] > 0):
            raise ValueError(
                f"losses must begin above 0, and they and readout must be finite, got losses from {losses[0]:.3g} to "
                f"{losses[-1]:.3g}; if the run diverged, take a smaller learning_rate."
            )
        alpha = _check.scalar("learning_rate", learning_rate, low=0.0, exclusive_low=True)
        largest = _check.scalar("curvature_max", curvature_max, low=0.0, exclusive_low=True)
        time = alpha * np.arange(len(losses))
        curvatures = np.geomspace(min(1 / (40 * time[-1]), largest / 2), largest, _DIRECTIONS)
        decays = np.exp(-2 * np.outer(time, curvatures))
        fitted, _ = optimize.nnls(decays, losses)
        variance = np.sum(np.diff(grads, axis=0) ** 2, axis=1) / 2
        share = decays @ fitted / fitted.sum()
        noises, _ = optimize.nnls(np.stack([np.ones_like(variance), share[:-1]], axis=1), variance)
        square = 2 * curvatures @ fitted  # of the gradient before training, as fitted
        return cls(curvatures, np.maximum(fitted, _LEAST * fitted.sum()), *(noises / square).tolist())

    def checked(self) -> Spectrum:
        """The same with float64 arrays.

        Raises:
          TypeError, ValueError: it is no spectrum.
        """
        curvatures, losses = (_check.numbers(f, getattr(self, f), "a list of numbers") for f in self._fields[:2])
        if curvatures.ndim != 1 or curvatures.shape != losses.shape or not len(losses):
            raise ValueError(
                f"curvatures and losses must be lists of the same length, got the shapes {curvatures.shape} and "
                f"{losses.shape}."
            )
        _check.scalar("curvatures", curvatures.min(), low=0.0, exclusive_low=True)
        _check.scalar("losses", losses.min(), low=0.0)
        _check.scalar("the sum of losses", losses.sum(), low=0.0, exclusive_low=True)
        noise, loss_noise = (_check.scalar(f, getattr(self, f), low=0.0) for f in self._fields[2:])
        return Spectrum(curvatures, losses, noise, loss_noise)
