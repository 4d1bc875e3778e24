"""Cheap parallel streams of independent numbers of mean 0 and variance 1.

A stream is drawn in blocks, since a random word of 32 bits holds the signs of several updates. Block b depends only on
the key and b. Trajectories are the last axis, so that the processor can vectorise over them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

LAWS = ("signs", "gaussian")  # -1 or 1 with equal probability; normal


def updates_per_block(law: str, size: int) -> int:
    """The number of updates, of `size` numbers each, per block."""
    return max(32 // size, 1) if law == "signs" else 1


def draw(law: str, key: jax.Array, block: jax.Array, size: int, trajectories: int) -> jax.Array:
    """One block for all trajectories: words [W, R], or numbers [size, R]."""
    key = jax.random.fold_in(key, block)
    if law == "signs":
        return jax.random.bits(key, (-(-size // 32), trajectories), jnp.uint32)
    return jax.random.normal(key, (size, trajectories))


def numbers(law: str, block: jax.Array, place: jax.Array, size: int) -> jax.Array:
    """The numbers [size, R] of update `place` of the block."""
    if law == "gaussian":
        return block
    position = jnp.arange(size, dtype=jnp.uint32)
    words = block if size <= 32 else block[position // 32]
    position = (jnp.asarray(place, jnp.uint32) * jnp.uint32(size) + position) % jnp.uint32(32)
    signs = (words >> position[:, None]) & jnp.uint32(1)
    return 1.0 - 2.0 * signs.astype(jnp.zeros(()).dtype)
