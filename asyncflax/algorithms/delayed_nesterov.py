"""Delayed Nesterov: momentum once every N gradients."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.algorithms._cycle import begin, gather
from asyncflax.algorithms.parts import LearningRate, decayed, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method


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
    r"""Plain steps of size eta / N, and every N gradients a momentum step; their mean updates the momentum.

    .. math::
        \text{gradients } 1, ..., N-1: \quad \Delta \leftarrow \Delta + g, \qquad
        \theta \leftarrow \theta - \eta (c \beta m + g / N) \\
        \text{gradient } N: \quad \Delta \leftarrow \Delta + g, \quad m \leftarrow \beta m + \Delta / N, \quad
        \theta \leftarrow \theta - \eta ((1 - c N + c) \beta m + g / N), \quad \Delta \leftarrow 0

    With c = 0 the N steps together are one Nesterov step with the mean of the gradients. The server keeps m and Delta,
    2 d numbers. It was designed for the pseudo-gradients of local SGD, see `local.local_sgd`.

    Args:
      num_workers: N, the number of gradients between two momentum steps.
      activation: c in [0, 1/N], the share of the momentum in the other steps.
      form: 'outside', as in HALoS's code, the source of the rule, or 'inside'.

    Source: Liu et al. 2024, Asynchronous Local-SGD Training for Language Modeling (arXiv:2401.09135), Delayed Nesterov;
    the rule is that of utnslab/halos, the code of HALoS.
    """
    _check.momentum(momentum)
    period = _check.integer("num_workers", num_workers, 1)
    _check.number("activation", activation, low=0.0, high=1.0 / period)

    def update_fn(updates, state, params=None):
        complete, state = gather(state, updates, momentum, period)
        share = jnp.where(complete, 1.0 - activation * period + activation, activation)
        change = lambda g, m: (share * momentum * m + g / period).astype(m.dtype)
        return jax.tree.map(change, updates, state.momentum), state

    nesterov = optax.GradientTransformation(begin, update_fn)
    tx = optax.chain(decayed(**decay), with_step(learning_rate, nesterov, form))
    return from_optax(tx, num_workers=period)
