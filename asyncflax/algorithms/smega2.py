"""SMEGA2: a single momentum, updated once per cycle with the mean gradient."""

from __future__ import annotations

from typing import Unpack

import jax
import optax

from asyncflax import _check
from asyncflax.algorithms._cycle import begin, gather
from asyncflax.algorithms.parts import LearningRate, ahead, decayed, step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms._dtypes import with_promotion


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
    r"""One momentum m for all workers, updated every N gradients with their mean, and a look-ahead along it.

    .. math::
        s \leftarrow (s + 1) \bmod N, \qquad G \leftarrow G + \eta g, \qquad
        \theta \leftarrow \theta - (\eta g + \gamma m) \\
        \text{if } s = 0: \quad m \leftarrow \gamma m + (1 - d) G / N, \qquad G \leftarrow 0 \\
        \text{send } \theta - \gamma \left[ (N + s (\gamma - 1)) m + (s / N) G \right]

    The step size is inside m and G; in the authors' code it is outside, where the look-ahead is wrong after a change of
    the learning rate. The server keeps m and G, 2 d numbers, whatever N. With one worker it is Nesterov's method; with
    gamma = 0, asynchronous SGD.

    Args:
      num_workers: N, the length of a cycle.
      estimate: 'advanced', as above, or 'naive', which sends theta - gamma N m.
      dampening: d in [0, 1].

    Source: Cohen, Hakimi and Schuster 2022, SMEGA2: Distributed Asynchronous Deep Neural Network Training With a Single
    Momentum Buffer (doi:10.1145/3545008.3545010); the rule is that of the authors' code, rafi-cohen/SMEGA2.
    """
    _check.momentum(momentum)
    _check.number("dampening", dampening, low=0.0, high=1.0)
    _check.choice("estimate", estimate, ("advanced", "naive"))
    n = _check.integer("num_workers", num_workers, 1)

    def update_fn(updates, state, params=None):  # updates are -eta g, so that the state holds -m and -G
        changes = jax.tree.map(lambda u, m: (u + momentum * m).astype(m.dtype), updates, state.momentum)
        return changes, gather(state, updates, momentum, n, 1.0 - dampening)[1]

    single_momentum = optax.GradientTransformation(begin, update_fn)
    tx = optax.chain(decayed(**decay), step(learning_rate), single_momentum)

    @with_promotion
    def look_ahead(params, state, *, worker=None):
        s, m, gathered = state[-1]
        if estimate == "naive":
            return ahead(params, m, momentum * n)
        rest = jax.tree.map(lambda m, g: (n + s * (momentum - 1.0)) * m + s / n * g, m, gathered)
        return ahead(params, rest, momentum)

    return from_optax(tx, view=look_ahead, num_workers=n)
