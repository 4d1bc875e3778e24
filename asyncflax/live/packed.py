"""PyTrees with few buffers, for transfers between the server and its workers.

Programs and transfers cost time per array: updating 160 arrays took four times as long as updating a single one of
the same size (150,000 parameters). So small arrays share one buffer per dtype; large ones, for which a copy costs more
than a separate buffer, stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _check

__all__ = ["Packed", "pack"]

_LARGE = 2**16  # bytes from which an array has a buffer of its own


@dataclasses.dataclass(frozen=True, eq=False)  # interned, so that comparing two of them is fast
class _Layout:
    """The structure of a tree, and the shape and the buffer of each leaf."""

    structure: Any
    leaves: tuple[tuple[tuple[int, ...], int], ...]


_layout = functools.lru_cache(maxsize=256)(_Layout)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["buffers"], meta_fields=["layout"])
@dataclasses.dataclass(frozen=True)
class Packed:
    """A PyTree of arrays, with one buffer for the small ones of each dtype; itself a PyTree.

        Attributes:
          buffers: tuple of arrays [n], the content.
          layout: the positions of the leaves, for `unpack`.

        Example:
          >>> import jax.numpy as jnp

    from asyncflax import _check
          >>> from asyncflax.live.packed import pack
          >>> packed = pack({"w": jnp.ones((2, 2)), "b": jnp.zeros(3), "count": jnp.array(7)})
          >>> [buffer.shape for buffer in packed.buffers], packed.unpack()["count"].item()
          ([(7,), (1,)], 7)
    """

    buffers: tuple[jax.Array, ...]
    layout: Any

    def unpack(self) -> Any:
        """The tree."""
        taken, leaves = [0] * len(self.buffers), []
        for shape, number in self.layout.leaves:
            start = taken[number]
            taken[number] += math.prod(shape)
            leaves.append(self.buffers[number][start : taken[number]].reshape(shape))
        return jax.tree.unflatten(self.layout.structure, leaves)


def pack(tree: Any) -> Packed:
    """Packs a PyTree of arrays, the `tree`.

    Inside a compiled program the computation of its leaves is not fused with the packing.
    """
    leaves, structure = jax.tree.flatten(tree)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    if any(map(_check.is_traced, leaves)):
        leaves = jax.lax.optimization_barrier(leaves)
    parts: dict[Any, list[jax.Array]] = {}
    names = [leaf.dtype if leaf.nbytes < _LARGE else number for number, leaf in enumerate(leaves)]
    for name, leaf in zip(names, leaves, strict=True):
        parts.setdefault(name, []).append(leaf.reshape(-1))
    order = list(parts)
    places = tuple((leaf.shape, order.index(name)) for leaf, name in zip(leaves, names, strict=True))
    return Packed(
        tuple(part[0] if len(part) == 1 else jnp.concatenate(part) for part in parts.values()),
        _layout(structure, places),
    )
