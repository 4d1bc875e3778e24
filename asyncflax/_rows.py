"""Stores: PyTrees whose leaves have a leading axis of rows, which are read and written one at a time."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _memory


def fill_rows(row: Any, num_rows: int, name: str = "num_rows") -> Any:
    """A store of `num_rows` copies of a row, in new memory; `name` is the argument named in errors."""
    _memory.need_rows(name, num_rows, num_rows, row)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rows, *jnp.shape(x))), row)


def take_row(store: Any, index: Any) -> Any:
    """Row `index` of every leaf, as a copy of its own.

    Reading, changing and writing back a row in a loop makes XLA copy the whole store, because it fuses the readers of
    the row with the read, so they need the old store after the write. Something opaque between the store and its
    readers prevents that: a barrier, which XLA:CPU ignores before jaxlib 0.12, so on CPU a conditional that is always
    true.
    """
    return jax.tree.map(lambda leaf: _take(leaf, index), store)


@functools.partial(jax.jit, inline=True)  # part of the surrounding program; on its own, compiled once per shape
def _take(leaf: jax.Array, index: Any) -> jax.Array:
    def take(leaf):
        return jax.lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False)

    def conditional(leaf):
        return jax.lax.cond(index >= 0, take, lambda leaf: jnp.zeros_like(leaf[0]), leaf)

    def barrier(leaf):
        return jax.lax.optimization_barrier(take(leaf))

    return jax.lax.platform_dependent(leaf, cpu=conditional, default=barrier)


def put_row(store: Any, index: Any, row: Any) -> Any:
    """The store with row `index` of every leaf replaced; keeps the store's dtype."""
    return jax.tree.map(
        lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, jnp.asarray(new, leaf.dtype), index, 0), store, row
    )
