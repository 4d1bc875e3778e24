"""SMEGA2: a single momentum, fed once a cycle with the mean gradient."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, ahead, decayed, step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms._dtypes import with_promotion


class SingleMomentumState(NamedTuple):
    """State of SMEGA2. Momentum and sum hold updates, so that their signs are those of -m and -G.

    Attributes:
      arrived: int32 [], s, the gradients of the present cycle.
      momentum: PyTree like params, -m.
      gathered: PyTree like params, -G, the sum of the present cycle.
    """

    arrived: jax.Array
    momentum: Any
    gathered: Any


def _single_momentum(gamma: float | jax.Array, num_workers: int, dampening: float | jax.Array):
    """The rule of `smega2`, for updates -eta g."""

    def init_fn(params):
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        return SingleMomentumState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update_fn(updates, state, params=None):
        del params
        arrived = (state.arrived + 1) % num_workers
        complete = arrived == 0
        changes = jax.tree.map(lambda u, m: (u + gamma * m).astype(m.dtype), updates, state.momentum)
        gathered = jax.tree.map(lambda u, s: (s + u).astype(s.dtype), updates, state.gathered)

        def new_momentum(m, s):
            return jnp.where(complete, gamma * m + (1.0 - dampening) * s / num_workers, m).astype(m.dtype)

        momentum = jax.tree.map(new_momentum, state.momentum, gathered)
        gathered = jax.tree.map(lambda s: jnp.where(complete, jnp.zeros_like(s), s), gathered)
        return changes, SingleMomentumState(arrived, momentum, gathered)

    return optax.GradientTransformation(init_fn, update_fn)


@method
def smega2(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    estimate: str = "advanced",
    dampening: float = 0.0,
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""One momentum m for all workers, renewed every N gradients with their mean, and an estimate of what it will do.

    .. math::
        s \leftarrow (s + 1) \bmod N, \qquad G \leftarrow G + \eta g, \qquad
        \theta \leftarrow \theta - (\eta g + \gamma m) \\
        \text{if } s = 0: \quad m \leftarrow \gamma m + (1 - d) G / N, \qquad G \leftarrow 0 \\
        \text{send } \theta - \gamma \left[ (N + s (\gamma - 1)) m + (s / N) G \right]

    The step size is inside m and G (the code has it outside, where the estimate is wrong after a change of the learning
    rate). The server keeps m and G, 2 d numbers, whatever N. With one worker it is Nesterov's method, with gamma = 0
    asynchronous SGD.

    Args:
      learning_rate: eta >= 0 or a schedule.
      momentum: gamma in [-1, 1].
      num_workers: N >= 1, the length of a cycle.
      estimate: 'advanced', as above, or 'naive', which sends theta - gamma N m.
      dampening: d in [0, 1].

    Source: Cohen, Hakimi and Schuster 2022, SMEGA2: Distributed Asynchronous Deep Neural Network Training With a Single
    Momentum Buffer (doi:10.1145/3545008.3545010); the rule is that of the authors' code, rafi-cohen/SMEGA2.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.smega2(0.1, 0.9, num_workers=8)
    """
    _check.momentum(momentum)
    _check.number("dampening", dampening, low=0.0, high=1.0)
    _check.choice("estimate", estimate, ("advanced", "naive"))
    n = _check.integer("num_workers", num_workers, 1)
    tx = optax.chain(decayed(**decay), step(learning_rate), _single_momentum(momentum, n, dampening))

    @with_promotion
    def look_ahead(params, state, *, worker=None):
        del worker
        s, m, gathered = state[-1]
        if estimate == "naive":
            return ahead(params, m, momentum * n)
        rest = jax.tree.map(lambda m, g: (n + s * (momentum - 1.0)) * m + s / n * g, m, gathered)
        return ahead(params, rest, momentum)

    return from_optax(tx, view=look_ahead, num_workers=n)
