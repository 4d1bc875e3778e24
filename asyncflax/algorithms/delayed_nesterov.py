"""Delayed Nesterov: momentum once every N gradients."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, decayed, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method


class DelayedNesterovState(NamedTuple):
    """State of Delayed Nesterov.

    Attributes:
      arrived: int32 [], how many gradients since momentum was renewed.
      momentum: PyTree like params, m.
      gathered: PyTree like params, Delta, the sum of the gradients since then.
    """

    arrived: jax.Array
    momentum: Any
    gathered: Any


def _delayed_nesterov(beta: float | jax.Array, period: int, c: float | jax.Array):
    """The rule of `delayed_nesterov` without its step size."""

    def init_fn(params):
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        return DelayedNesterovState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update_fn(updates, state, params=None):
        del params
        complete = state.arrived == period - 1
        gathered = jax.tree.map(lambda g, s: (s + g).astype(s.dtype), updates, state.gathered)
        renewed = lambda m, s: jnp.where(complete, beta * m + s / period, m).astype(m.dtype)
        momentum = jax.tree.map(renewed, state.momentum, gathered)
        share = jnp.where(complete, 1.0 - c * period + c, c)
        changes = jax.tree.map(lambda g, m: (share * beta * m + g / period).astype(m.dtype), updates, momentum)
        gathered = jax.tree.map(lambda s: jnp.where(complete, jnp.zeros_like(s), s), gathered)
        return changes, DelayedNesterovState((state.arrived + 1) % period, momentum, gathered)

    return optax.GradientTransformation(init_fn, update_fn)


@method
def delayed_nesterov(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    activation: float = 0.0,
    form: str = "outside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Plain steps of size eta / N, and every N gradients a step of momentum, which is renewed with their mean.

    .. math::
        \text{gradients } 1, ..., N-1: \quad \Delta \leftarrow \Delta + g, \qquad
        \theta \leftarrow \theta - \eta (c \beta m + g / N) \\
        \text{gradient } N: \quad \Delta \leftarrow \Delta + g, \quad m \leftarrow \beta m + \Delta / N, \quad
        \theta \leftarrow \theta - \eta ((1 - c N + c) \beta m + g / N), \quad \Delta \leftarrow 0

    With c = 0 the N steps are together one Nesterov step with the mean of the gradients. The server keeps m and Delta,
    2 d numbers. It was made for local SGD (see `local_sgd`), whose pseudo-gradients it takes.

    Args:
      learning_rate: eta >= 0 or a schedule.
      momentum: beta in [-1, 1].
      num_workers: N >= 1, after how many gradients momentum is renewed.
      activation: c in [0, 1/N], how much of the momentum acts in between.
      form: 'outside' (that of HALoS's code, from which the rule is) or 'inside', see `momentum_asgd`.

    Source: Liu et al. 2024, Asynchronous Local-SGD Training for Language Modeling (arXiv:2401.09135), Delayed Nesterov;
    the rule is that of utnslab/halos, the code of HALoS.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.delayed_nesterov(0.7, 0.9, num_workers=4)
    """
    _check.momentum(momentum)
    period = _check.integer("num_workers", num_workers, 1)
    _check.number("activation", activation, low=0.0, high=1.0 / period)
    rule = _delayed_nesterov(momentum, period, activation)
    tx = optax.chain(decayed(**decay), with_step(learning_rate, rule, form))
    return from_optax(tx, num_workers=period)
