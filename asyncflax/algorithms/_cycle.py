"""A momentum that is updated once per cycle of N gradients, with their mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class CycleState(NamedTuple):
    """The momentum and the current cycle.

    Attributes:
      arrived: int32 [], the number of gradients of this cycle so far.
      momentum: PyTree like params, m.
      gathered: PyTree like params, the sum of this cycle's updates.
    """

    arrived: jax.Array
    momentum: Any
    gathered: Any


def begin(params: Any) -> CycleState:
    """The first cycle, with zero momentum."""
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return CycleState(jnp.zeros((), jnp.int32), zeros(), zeros())


def gather(
    state: CycleState, updates: Any, decay: float | jax.Array, num_workers: int, weight: float | jax.Array = 1.0
) -> tuple[jax.Array, CycleState]:
    """Whether an update completes the cycle, and the state after it: m <- decay m + weight mean."""
    arrived = (state.arrived + 1) % num_workers
    complete = arrived == 0
    gathered = jax.tree.map(lambda u, s: (s + u).astype(s.dtype), updates, state.gathered)
    renew = lambda m, s: jnp.where(complete, decay * m + weight * s / num_workers, m).astype(m.dtype)
    momentum = jax.tree.map(renew, state.momentum, gathered)
    gathered = jax.tree.map(lambda s: jnp.where(complete, jnp.zeros_like(s), s), gathered)
    return complete, CycleState(arrived, momentum, gathered)
