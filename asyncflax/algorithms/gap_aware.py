"""Gap-aware asynchronous SGD: the further the server has moved, the smaller the step."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, decayed, step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import explicit_momentum
from asyncflax.transforms._dtypes import wide, with_promotion
from asyncflax.transforms._trees import matching


class StepSizeState(NamedTuple):
    """State of the penalty: the average step of the server so far.

    Attributes:
      updates: int32 [], t.
      average: the running average of |step|; PyTree like params, or with one number for each leaf or for all.
      momentum: state of the velocity.
    """

    updates: jax.Array
    average: Any
    momentum: Any


def _sizes(tree: Any, granularity: str) -> Any:
    """The size of a step or a gap: of each number, of each array, or of the whole (then on every leaf)."""
    if granularity == "parameter":
        return jax.tree.map(lambda x: jnp.abs(wide(x)), tree)
    squares = jax.tree.map(lambda x: jnp.sum(jnp.square(wide(x))), tree)
    if granularity == "global":
        total = sum(jax.tree.leaves(squares))
        squares = jax.tree.map(lambda _: total, squares)
    return jax.tree.map(jnp.sqrt, squares)


@method
def gap_aware_asgd(
    learning_rate: LearningRate,
    momentum: float = 0.0,
    *,
    granularity: str = "parameter",
    average: str = "cumulative",
    average_decay: float = 0.99,
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Divides each gradient by the number of average steps that the server has moved since it was requested.

    .. math:: \Phi = 1 + |\theta - \theta^i| / C, \qquad u \leftarrow \mu u + \eta g / \Phi, \qquad
        \theta \leftarrow \theta - u

    C is the running average of the server's steps |theta_{s+1} - theta_s| before this one; the penalty Phi of a fresh
    gradient is 1. The server keeps C and u, 2 d numbers ('parameter').

    Args:
      granularity: how sizes are measured: 'parameter', each number on its own ("elementwise" in our second-hand
        description of the rule), 'leaf', the norm of each array, or 'global', the norm of all.
      average: 'cumulative', the mean of all steps, which has no constant to choose, or 'ema', a bias-corrected
        exponential average, which follows shrinking steps.
      average_decay: the decay of 'ema', in [0, 1).

    Source: Barkai, Hakimi and Schuster 2020, Gap-Aware Mitigation of Gradient Staleness (arXiv:1909.10802),
    second-hand; what is uncertain is an option.
    """
    _check.choice("granularity", granularity, ("parameter", "leaf", "global"))
    _check.choice("average", average, ("cumulative", "ema"))
    _check.number("average_decay", average_decay, low=0.0, high=1.0, exclusive_high=True)
    steps = optax.chain(step(learning_rate), explicit_momentum(momentum))

    def init_fn(params):
        _check.real("gap_aware_asgd", params)
        zero = lambda p: jnp.zeros_like(p) if granularity == "parameter" else jnp.zeros((), jnp.result_type(p))
        return StepSizeState(jnp.zeros((), jnp.int32), jax.tree.map(zero, params), steps.init(params))

    @with_promotion
    def update_fn(updates, state, params=None, *, read_params=None, **extra):
        params = matching("gap_aware_asgd", "params", params, updates)
        read_params = matching("gap_aware_asgd", "read_params", read_params, updates)
        gap = jax.tree.map(lambda now, read: wide(now) - read, params, read_params)
        moved = _sizes(gap, granularity)
        past = state.updates.astype(jnp.result_type(float))
        debias = 1.0 if average == "cumulative" else 1.0 - jnp.where(past > 0, average_decay**past, 0.0)

        def penalised(g, gap, c):
            ratio = gap * debias / jnp.where(c == 0.0, 1.0, c)  # before the first step nothing has moved
            return (g / (1.0 + ratio)).astype(g.dtype)

        updates = jax.tree.map(penalised, updates, moved, state.average)
        updates, momentum_state = steps.update(updates, state.momentum)
        keep = past / (past + 1.0) if average == "cumulative" else average_decay
        mix = lambda c, size: (keep * c + (1.0 - keep) * size).astype(c.dtype)
        means = jax.tree.map(mix, state.average, _sizes(updates, granularity))
        return updates, StepSizeState(state.updates + 1, means, momentum_state)

    penalised_steps = optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
    return from_optax(optax.chain(decayed(**decay), penalised_steps))
