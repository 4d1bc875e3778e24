"""Dtypes of rules: they compute in what is exact enough and cast what they return themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def with_promotion(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under NumPy's promotion of dtypes, also where `jax_numpy_dtype_promotion` is 'strict'."""

    @functools.wraps(function)
    def promoting(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoting


@with_promotion
def wide_dtype(*values: Any) -> Any:
    """The dtype that all values have in common, float32 at least: squares and epsilons underflow in float16."""
    return jnp.result_type(jnp.float32, *values)


def wide(x: Any) -> jax.Array:
    """The array in float32 at least."""
    return jnp.asarray(x, wide_dtype(x))
