"""Metrics of asynchrony."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _check

__all__ = ["gap", "normalised_gap", "rms"]

_HINT = "pass JAX or NumPy arrays."


def rms(tree: Any) -> jax.Array:
    """Root mean square of all d numbers in `tree`, ||x||_2 / sqrt(d), in float32 or wider.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> asyncflax.metrics.rms({"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)})
      Array(2.5, dtype=float32)
    """
    _check.arrays("tree", tree, _HINT)

    def square(x):
        x = jnp.abs(jnp.asarray(x))
        return jnp.sum(jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))))

    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(sum(map(square, leaves)) / max(sum(map(jnp.size, leaves)), 1))


def gap(params: Any, read_params: Any) -> jax.Array:
    """Distance of the server's parameters from those read, ||theta_now - theta_read||_2 / sqrt(d), float32 or wider.

    Args:
      params: the server's parameters when the gradient arrives, d numbers in all.
      read_params: the parameters at which the gradient was computed.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), the gap G = RMSE(Delta), second-hand.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> asyncflax.metrics.gap({"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([1.0, 1.0])}).round(4)
      Array(1.4142, dtype=float32)
    """
    _check.arrays("params", params, _HINT)
    _check.arrays("read_params", read_params, _HINT)
    _check.like("read_params", read_params, "params", params)
    return rms(jax.tree.map(lambda now, read: jnp.asarray(now) - jnp.asarray(read), params, read_params))


def normalised_gap(gap: Any, gradient_rms: Any) -> jax.Array:
    """The gap relative to the gradient norm, ||theta_now - theta_read|| / ||g||; 0 where both are 0.

    Unlike the gap, it does not shrink with the gradients.

    Args:
      gap: `result.gap` of a run, see `gap`.
      gradient_rms: `result.gradient_rms`, of the same shape: the root mean square of the gradients.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), the normalised gap G*, second-hand.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> asyncflax.metrics.normalised_gap(jnp.array([0.0, 0.2]), jnp.array([0.0, 0.5]))
      Array([0. , 0.4], dtype=float32)
    """
    for name, value in {"gap": gap, "gradient_rms": gradient_rms}.items():
        if not _check.is_traced(value):
            _check.numbers(name, value, "an array of numbers")
    if jnp.shape(gap) != jnp.shape(gradient_rms):
        raise ValueError(f"gap and gradient_rms must have one shape, got {jnp.shape(gap)}, {jnp.shape(gradient_rms)}.")
    gap, gradient_rms = jnp.asarray(gap), jnp.asarray(gradient_rms)
    return jnp.where(gap == 0.0, 0.0, gap / jnp.where(gap == 0.0, 1.0, gradient_rms))
