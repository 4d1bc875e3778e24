r"""The noisy quadratic, for which the theory is exact.

.. math:: f(w; n) = \frac{\lambda}{2} w^2 + \lambda \sigma n w, \qquad \nabla f(w; n) = \lambda (w + \sigma n)

with independent n of mean 0 and variance 1. With :math:`h = \alpha \lambda` this is the model of `asyncflax.theory`:
`mean_iterates`, `mean_square_iterates` and `stationary_variance` describe an ensemble.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from asyncflax import _check
from asyncflax.theory.problems import _streams
from asyncflax.theory.problems.ensemble import Problem


@functools.partial(jax.tree_util.register_dataclass, data_fields=["curvature", "noise"], meta_fields=["stream"])
@dataclasses.dataclass(frozen=True)
class NoisyQuadratic(Problem):
    r"""(lambda/2) w^2 with noisy gradients.

    Attributes:
      curvature: lambda > 0.
      noise: sigma >= 0, the standard deviation of a gradient's noise divided by the curvature.
      stream: the distribution of n: 'signs', -1 or 1, thirty-two per random word, or 'gaussian'. Means and mean squares
        of the iterates do not depend on it.

    Raises:
      ValueError: a number is out of range, or the stream is unknown.

    Source: the model of `asyncflax.theory`, after Mitliagkas et al. 2016 (arXiv:1605.09774).

    Example: 4,000 trajectories of 4 asynchronous workers; the mean is that of momentum SGD (Theorem 5).
      >>> from asyncflax.theory import problems
      >>> from asyncflax import theory
      >>> problem, queue = problems.NoisyQuadratic(noise=0.5), theory.ExponentialQueue(4)
      >>> ensemble = problem.ensemble(queue, learning_rate=0.3, num_updates=20, num_trajectories=4000, every=10)
      >>> theory.mean_iterates(queue, h=0.3, num_updates=20)[::10].round(2)
      array([ 1.  , -0.28,  0.06])
      >>> bool(abs(ensemble.paths.mean(axis=1) - theory.mean_iterates(queue, h=0.3, num_updates=20)[::10]).max() < 0.05)
      True
    """

    curvature: float = 1.0
    noise: float = 0.0
    stream: str = "signs"

    def __post_init__(self):
        if not _check.is_leaf(self.curvature):
            _check.number("curvature", self.curvature, low=0.0, exclusive_low=True)
        if not _check.is_leaf(self.noise):
            _check.number("noise", self.noise, low=0.0)
        _check.choice("stream", self.stream, _streams.LAWS)

    @property
    def start(self) -> np.ndarray:
        """1, since w and a sample n are numbers."""
        return np.ones(())

    def gradient(self, params: Any, sample: Any) -> tuple[jax.Array, jax.Array]:
        """The loss and its gradient at w with noise n, for `asyncflax.run`.

        Example:
          >>> import asyncflax, jax
          >>> problem = asyncflax.problems.NoisyQuadratic(curvature=2.0, noise=0.1)
          >>> trace, noise = asyncflax.staleness.constant(3).trace(50), jax.random.normal(jax.random.key(0), (50,))
          >>> algorithm = asyncflax.algorithms.momentum_asgd(0.05, 0.3)
          >>> bool(abs(asyncflax.run(algorithm, problem.gradient, 1.0, trace, noise).params) < 0.3)
          True
        """
        noise = self.noise * sample
        return self.curvature * params * (params / 2 + noise), self.curvature * (params + noise)
