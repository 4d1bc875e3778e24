"""A random sample of the coordinates of a PyTree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec


def draw(params: Any, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Sorted, distinct indices into the raveled leaves of `params`: `count` in all, or all if there are fewer.

    Each leaf gets the same number, as far as its size allows, so that small layers count as much as large ones; if
    there are more leaves than coordinates, the largest get one each.
    """
    rng = np.random.default_rng(seed)
    sizes = [int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(params)]
    shares = zip(sizes, _shares(sizes, count), strict=True)
    return tuple(np.sort(rng.choice(size, share, replace=False)).astype(np.int32) for size, share in shares)


def take(tree: Any, places: tuple[Any, ...]) -> Any:
    """The coordinates at `places`, a PyTree of one-dimensional arrays."""
    leaves, structure = jax.tree.flatten(tree)

    def pick(leaf, rows):
        if any(jax.typeof(leaf).sharding.spec):  # JAX cannot ravel explicitly sharded types
            places = jnp.unravel_index(rows, leaf.shape)
            return leaf.at[places].get(mode="promise_in_bounds", out_sharding=PartitionSpec(None))
        return jnp.ravel(leaf).at[rows].get(mode="promise_in_bounds")

    return jax.tree.unflatten(structure, map(pick, leaves, places))


def flat(tree: Any) -> jax.Array:
    """The coordinates from `take` as one vector."""
    return jnp.concatenate(jax.tree.leaves(tree))


def _shares(sizes: list[int], total: int) -> list[int]:
    """Splits `total` equally, as far as the sizes allow."""
    shares = [0] * len(sizes)
    for left, i in zip(range(len(sizes), 0, -1), np.argsort(sizes, kind="stable"), strict=True):
        shares[i] = min(sizes[i], total // left)
        total -= shares[i]
    return shares
