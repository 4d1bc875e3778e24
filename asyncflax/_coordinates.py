"""A few coordinates of a PyTree, which stand for all of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec


def draw(params: Any, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Places in the leaves: the same number from each, as far as it has so many, without replacement and sorted.

    So small layers count as much as large ones; where there are more leaves than coordinates, the largest have one
    each.

    Args:
      params: PyTree of arrays; only shapes matter.
      count: how many; all, where there are fewer.
      seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    sizes = [int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(params)]
    shares = zip(sizes, _shares(sizes, count), strict=True)
    return tuple(np.sort(rng.choice(size, share, replace=False)).astype(np.int32) for size, share in shares)


def take(tree: Any, places: tuple[Any, ...]) -> Any:
    """The coordinates, a PyTree of one-dimensional arrays."""
    leaves, structure = jax.tree.flatten(tree)

    def pick(leaf, rows):
        if any(jax.typeof(leaf).sharding.spec):  # a type with a mesh axis in it cannot be ravelled
            places = jnp.unravel_index(rows, leaf.shape)
            return leaf.at[places].get(mode="promise_in_bounds", out_sharding=PartitionSpec(None))
        return jnp.ravel(leaf).at[rows].get(mode="promise_in_bounds")

    return jax.tree.unflatten(structure, map(pick, leaves, places))


def flat(tree: Any) -> jax.Array:
    """All that `take` has taken, in one row."""
    return jnp.concatenate(jax.tree.leaves(tree))


def _shares(sizes: list[int], total: int) -> list[int]:
    """How many of each, equal as far as the sizes allow."""
    shares = [0] * len(sizes)
    for left, i in zip(range(len(sizes), 0, -1), np.argsort(sizes, kind="stable"), strict=True):
        shares[i] = min(sizes[i], total // left)
        total -= shares[i]
    return shares
