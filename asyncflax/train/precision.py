"""Precision of the network's computation; parameters, updates and state stay float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _check

__all__ = ["PRECISIONS", "compute_in"]

PRECISIONS = ("float32", "tf32", "bfloat16")
_OF_PRODUCTS = {"float32": "float32", "tf32": "tensorfloat32"}  # as JAX calls it


def compute_in(precision: str, apply: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a network to compute in a given precision.

    'float32': matrix products and convolutions in full float32, even on GPUs, whose default is TF32. 'tf32': arrays are
    float32, products are TF32 on devices that support it, else float32. 'bfloat16': parameters and images are cast,
    everything up to the logits is bfloat16, and the logits are cast back to float32. Gradients have the dtype of the
    parameters, float32, and the precision of the network. BatchNorm statistics are always float32.

    Args:
      precision: one of these.
      apply: the network, `apply(params, images, **kwargs) -> logits` as from `models.functional`, or
        `apply(params, model_state, images, **kwargs) -> (logits, update)` as from `models.functional_with_state`.

    Raises:
      ValueError: the precision is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax.train.precision import compute_in
      >>> apply = compute_in("bfloat16", lambda params, images: images @ params)
      >>> params, images = jnp.array([[1.0], [0.001]]), jnp.ones((1, 2))
      >>> apply(params, images), jax.grad(lambda params: apply(params, images).sum())(params).dtype
      (Array([[1.]], dtype=float32), dtype('float32'))
    """
    _check.choice("precision", precision, PRECISIONS)

    def computed(params: Any, *state_and_images: Any, **kwargs: Any) -> Any:
        if precision != "bfloat16":
            with jax.default_matmul_precision(_OF_PRODUCTS[precision]):
                return apply(params, *state_and_images, **kwargs)
        *state, images = state_and_images
        params, images = jax.tree.map(_as_bfloat16, (params, images))
        out = apply(params, *state, images, **kwargs)
        return (out[0].astype(jnp.float32), out[1]) if state else out.astype(jnp.float32)

    return computed


def _as_bfloat16(x: jax.Array) -> jax.Array:
    return x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x
