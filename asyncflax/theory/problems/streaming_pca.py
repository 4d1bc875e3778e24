r"""Streaming PCA: the direction of largest variance of a stream, by Oja's rule with momentum.

.. math:: \max_v \; v^T \Sigma v \quad \text{with } |v| = 1, \qquad \Sigma = E X X^T

Asynchronous momentum SGD (Async-MSGD), with a fresh velocity and Oja's gradient stale, without projection:

.. math:: v_{k+1} = v_k + \mu (v_k - v_{k-1}) + \eta (I - u u^T) X_k X_k^T u, \qquad u = v_{k - \tau_k}

Oja's gradient is *added*: the variance is maximised. `StreamingPca.gradient` is its negative, so Async-MSGD is
simply `algorithms.momentum_asgd(eta, mu)`. Optima are v = e_1 and -e_1, all other e_i are saddles (the last one a
minimum on the sphere).

Source: Liu, Li, Shi, Zhou and Zhao 2018 (arXiv:1806.01660). We know the abstract only; the rule is second-hand.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check
from asyncflax.theory.problems import _streams
from asyncflax.theory.problems.ensemble import Problem


@functools.partial(jax.tree_util.register_dataclass, data_fields=["eigenvalues"], meta_fields=["stream"])
@dataclasses.dataclass(frozen=True)
class StreamingPca(Problem):
    r"""The first principal component of a stream with covariance diag(lambda_1, ..., lambda_d).

    The coordinates are those of the eigenvectors, without loss of generality: Async-MSGD commutes with rotations.

    Attributes:
      eigenvalues: lambda_1 > lambda_2 >= ... >= lambda_d > 0, d >= 2.
      stream: the distribution of the independent :math:`X_i / \sqrt{\lambda_i}`: 'signs', -1 or 1, several updates per
        random word, or 'gaussian'. Both have :math:`E X_i^2 X_j^2 = \lambda_i \lambda_j` for different i and j, which
        determines the diffusion limits; the length of v is noisier under 'gaussian'.

    Raises:
      TypeError, ValueError: eigenvalues are not positive or not in descending order, or the stream is unknown.

    Source: Liu et al. 2018 (arXiv:1806.01660); diag(4, 3, 2, 1) is said to be their example (second-hand).

    Example: 2,000 trajectories leave the saddle e_2 for e_1 or -e_1, half of them each.
      >>> import numpy as np
      >>> from asyncflax.theory import problems
      >>> problem = problems.StreamingPca()
      >>> ensemble = problem.ensemble(20, learning_rate=1e-3, momentum=0.8, num_updates=4000, num_trajectories=2000)
      >>> bool(np.mean(problem.error(ensemble.paths[-1])) < 0.1)
      True
      >>> bool(abs(np.mean(ensemble.paths[-1][:, 0] > 0) - 0.5) < 0.05)
      True
    """

    eigenvalues: tuple[float, ...] = (4.0, 3.0, 2.0, 1.0)
    stream: str = "signs"

    def __post_init__(self):
        values = self.eigenvalues
        if isinstance(values, np.ndarray) or not (isinstance(values, tuple) or _check.is_leaf(values)):
            raise TypeError(f"eigenvalues must be a tuple of numbers, got {_check.shown(values)}.")
        if isinstance(values, tuple) and not any(map(_check.is_leaf, values)):  # which JAX may store as leaves
            _check.number("eigenvalues", values, low=0.0, exclusive_low=True)
            if len(values) < 2 or any(np.diff(values) > 0) or values[0] == values[1]:
                raise ValueError(f"eigenvalues must be at least two and descend, the first strictly, got {values}.")
        _check.choice("stream", self.stream, _streams.LAWS)

    @property
    def start(self) -> np.ndarray:
        """The saddle e_2."""
        return self.axis(1)

    def sample(self, numbers: Any) -> jax.Array:
        """X, from independent numbers [d] of mean 0 and variance 1.

        >>> import jax.numpy as jnp
        >>> from asyncflax.theory import problems
        >>> problems.StreamingPca((4.0, 1.0)).sample(jnp.array([1.0, -1.0]))
        Array([ 2., -1.], dtype=float32)
        """
        return jnp.sqrt(jnp.asarray(self.eigenvalues)).astype(jnp.result_type(numbers)) * numbers

    def axis(self, index: int) -> np.ndarray:
        """The eigenvector with the given index as float64 [d]: 0 is the optimum, 1 the saddle hardest to escape.

        >>> from asyncflax.theory import problems
        >>> problems.StreamingPca().axis(1)
        array([0., 1., 0., 0.])
        """
        d = len(self.eigenvalues)
        return np.eye(d)[_check.integer("index", index, 0, d - 1)]

    def gradient(self, params: Any, sample: Any) -> tuple[jax.Array, jax.Array]:
        r"""The loss and the *negative* of Oja's gradient at v with sample X, for `asyncflax.run`.

        .. math:: -\tfrac12 (X^T v)^2, \qquad -(I - v v^T) X X^T v

        Example: Async-MSGD in the engine, with 4 asynchronous workers.
          >>> import asyncflax, jax
          >>> problem = asyncflax.problems.StreamingPca()
          >>> samples = jax.vmap(problem.sample)(jax.random.normal(jax.random.key(0), (3000, 4)))
          >>> trace = asyncflax.queues.simulate(
          ...     num_workers=4, num_updates=3000, service_time=asyncflax.queues.exponential())
          >>> async_msgd = asyncflax.algorithms.momentum_asgd(learning_rate=1e-3, momentum=0.8)
          >>> result = asyncflax.run(async_msgd, problem.gradient, jax.numpy.asarray(problem.axis(1)), trace, samples)
          >>> bool(problem.error(result.params) < 0.2)
          True
        """
        along = jnp.sum(sample * params)
        return -(along**2) / 2, along * (along * params - sample)

    def error(self, params: Any) -> Any:
        r"""The squared distance of v, float [..., d], to the nearer optimum, its length included; 2 at a saddle.

        .. math:: \min(|v - e_1|^2, |v + e_1|^2) = (1 - |v_1|)^2 + v_2^2 + ... + v_d^2

        >>> import numpy as np
        >>> from asyncflax.theory import problems
        >>> problems.StreamingPca().error(np.array([[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
        array([0., 2.])
        """
        return (params**2).sum(axis=-1) + 1 - 2 * abs(params[..., 0])
