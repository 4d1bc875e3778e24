"""Dtypes inside update rules, which compute in float32 or wider and cast their results themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def with_promotion(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the function with standard dtype promotion, even if `jax_numpy_dtype_promotion` is 'strict'."""

    @functools.wraps(function)
    def promoting(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoting


@with_promotion
def wide_dtype(*values: Any) -> Any:
    """The common dtype of all values, at least float32: squares and epsilons underflow in float16."""
    return jnp.result_type(jnp.float32, *values)


def wide(x: Any) -> jax.Array:
    """The array in float32 or wider."""
    return jnp.asarray(x, wide_dtype(x))
