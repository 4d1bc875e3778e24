"""Stores: PyTrees whose leaves have a leading axis of rows, which are read and written one at a time."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _memory


def fill_rows(row: Any, num_rows: int, name: str = "num_rows") -> Any:
    """A store of `num_rows` copies of a row: each leaf gets a leading axis [num_rows], in memory of its own.

    Args:
      row: PyTree of arrays.
      num_rows: how many.
      name: of the argument that says how many, for the error if they do not fit into memory.
    """
    _memory.need_rows(name, num_rows, num_rows, row)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rows, *jnp.shape(x))), row)


def take_row(store: Any, index: Any) -> Any:
    """Row `index` of every leaf, as a copy of its own.

    A row that is read, changed and written back in a loop makes XLA copy the whole store, because the readers of the
    row are fused with the read and still want the old store after the write. Something opaque between the store and its
    readers prevents that: a barrier, which XLA:CPU ignores before jaxlib 0.12, so on CPU a conditional that is always
    true.
    """

    return jax.tree.map(lambda leaf: _take(leaf, index), store)


@functools.partial(jax.jit, inline=True)  # a part of the program around it; called by itself, compiled once a shape
def _take(leaf: jax.Array, index: Any) -> jax.Array:
    def take(leaf):
        return jax.lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False)

    def conditional(leaf):
        return jax.lax.cond(index >= 0, take, lambda leaf: jnp.zeros_like(leaf[0]), leaf)

    def barrier(leaf):
        return jax.lax.optimization_barrier(take(leaf))

    return jax.lax.platform_dependent(leaf, cpu=conditional, default=barrier)


def put_row(store: Any, index: Any, row: Any) -> Any:
    """The store with row `index` of every leaf replaced; shapes must agree, the dtype is the store's."""
    return jax.tree.map(
        lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, jnp.asarray(new, leaf.dtype), index, 0),
        store,
        row,
    )
