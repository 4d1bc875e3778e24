"""Partition specs of optimizer states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from asyncflax.transforms._trees import is_masked


def partition_spec(tx: Any, params: Any, specs: Any) -> Any:
    """The partition specs of an optimizer's state, PyTree like `tx.init(params)`; leading axes are replicated.

    Rings and states per worker have an additional leading axis. `optax.tree.map_params` and
    `flax.linen.get_partition_spec` give such a leaf the spec of its parameter, one axis off, and JAX accepts it. Here a
    leaf whose shape ends with that of its parameter has `None` for each leading axis; all other leaves are replicated.

    Args:
      tx: an Optax transformation, or a method (`AsyncAlgorithm`).
      params: PyTree of arrays or `jax.ShapeDtypeStruct`; nothing is allocated.
      specs: PyTree of `PartitionSpec` like params or a prefix of it, such as that of `flax.linen.get_partition_spec`;
        None means replicated.

    Raises:
      ValueError: specs do not match params.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> from jax.sharding import PartitionSpec
      >>> tx = asyncflax.transforms.delay_gradients(3)
      >>> state = asyncflax.transforms.partition_spec(tx, jnp.ones((64, 128)), PartitionSpec(None, "x"))
      >>> state.ring.rows == PartitionSpec(None, None, "x")
      True
    """
    is_spec = lambda x: x is None or isinstance(x, PartitionSpec)
    specs = jax.tree.map(lambda spec, part: jax.tree.map(lambda _: spec, part), specs, params, is_leaf=is_spec)

    def of(leaf: Any, param: Any, spec: PartitionSpec | None) -> Any:
        if is_masked(leaf):
            return leaf
        rows = leaf.ndim - jnp.ndim(param)
        if not spec or rows < 0 or leaf.shape[rows:] != jnp.shape(param):
            return PartitionSpec()
        return PartitionSpec(*[None] * rows, *spec)

    state = jax.eval_shape(tx.init, params)
    replicated = lambda _: PartitionSpec()
    return optax.tree.map_params(tx, of, state, params, specs, transform_non_params=replicated, is_leaf=is_masked)
