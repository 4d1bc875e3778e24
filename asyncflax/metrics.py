"""Measures of asynchrony during a run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def gap(params: Any, read_params: Any) -> jax.Array:
    """How far the server has moved since a worker read: ||theta_now - theta_read||_2 / sqrt(d), float32 or wider.

    Args:
      params: PyTree of arrays with d numbers in all, the server's parameters when the gradient arrives.
      read_params: the same structure, the parameters at which the gradient was computed.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), the gap G = RMSE(Delta).

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> asyncflax.metrics.gap({"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([1.0, 1.0])}).round(4)
      Array(1.4142, dtype=float32)
    """

    def square(now, read):
        delta = jnp.abs(jnp.asarray(now) - jnp.asarray(read))
        return jnp.sum(jnp.square(delta.astype(jnp.promote_types(delta.dtype, jnp.float32))))

    squares = jax.tree.leaves(jax.tree.map(square, params, read_params))
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    return jnp.sqrt(sum(squares) / max(size, 1))
