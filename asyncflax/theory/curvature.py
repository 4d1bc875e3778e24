"""The largest curvature of a loss: where steps end, for one worker and for many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from asyncflax import _check
from asyncflax.base import as_partial

__all__ = ["largest_curvature"]


def largest_curvature(loss_fn: Callable[..., Any], params: Any, *batch: Any, steps: int = 40) -> float:
    """The largest eigenvalue of the Hessian in modulus, by power iteration with Hessian-vector products.

    Args:
      loss_fn: `loss_fn(params, *batch)`, a number; twice differentiable.
      params: PyTree of float arrays, where it is measured.
      batch: passed to `loss_fn`; many examples, so that their noise is small.
      steps: of the iteration.

    Raises:
      TypeError, ValueError: an argument is not what it should be.

    Source: power iteration, von Mises and Pollaczek-Geiringer 1929 (doi:10.1002/zamm.19290090206).

    Example:
      >>> import jax.numpy as jnp
      >>> from asyncflax import theory
      >>> round(theory.largest_curvature(lambda x, scale: jnp.sum(scale * x**2), jnp.ones(3), jnp.arange(3.0)), 4)
      4.0
    """
    _check.function("loss_fn", loss_fn, " of (params, *batch)")
    _check.arrays("params", params)
    steps = _check.integer("steps", steps, 1)
    flat, as_params = ravel_pytree(params)
    vector = np.random.default_rng(0).normal(size=flat.shape).astype(flat.dtype)
    return float(_iterate(as_partial(loss_fn), as_params, flat, batch, vector, steps))


@functools.partial(jax.jit, static_argnums=(1, 5))
def _iterate(loss_fn: Any, as_params: Any, flat: jax.Array, batch: Any, vector: jax.Array, steps: int) -> jax.Array:
    """The norm of the last product, from a vector that need not have the norm 1."""
    gradient = jax.grad(lambda flat: loss_fn(as_params(flat), *batch))
    product = lambda _, vector: jax.jvp(gradient, (flat,), (vector / jnp.linalg.norm(vector),))[1]
    return jnp.linalg.norm(jax.lax.fori_loop(0, steps, product, vector))
