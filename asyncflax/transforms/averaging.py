"""A moving average of the parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.transforms._dtypes import wide_dtype, with_promotion
from asyncflax.transforms._trees import given


class ParamsAverageState(NamedTuple):
    """State of `average_params`.

    Attributes:
      updates: int32 [], t.
      params_average: PyTree like params, float32 or wider; initially the parameters.
    """

    updates: jax.Array
    params_average: Any


def average_params(decay: float | jax.Array) -> optax.GradientTransformation:
    r"""Averages the updated parameters; updates pass unchanged. Place it last in a chain.

    .. math:: \bar w_{t+1} = \bar w_t + \max(1 - \beta, \tfrac{1}{t+1}) \, (w_{t+1} - \bar w_t)

    This is the mean over the first 1 / (1 - beta) updates and an exponential moving average after them, without a need
    for bias correction. With beta = 1 it is Polyak-Ruppert averaging.

    Args:
      decay: beta in [0, 1].

    Source: Polyak and Juditsky 1992 (doi:10.1137/0330046) for the mean; the exponential average is common practice.

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> tx = optax.chain(optax.sgd(1.0), asyncflax.transforms.average_params(1.0))
      >>> params, state = jnp.array(0.0), tx.init(jnp.array(0.0))
      >>> for gradient in (-1.0, -1.0, -1.0):
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params, state[-1].params_average
      (Array(3., dtype=float32), Array(2., dtype=float32))
    """
    _check.number("decay", decay, low=0.0, high=1.0)

    def init_fn(params):
        copy = lambda w: jnp.array(w, wide_dtype(w))
        return ParamsAverageState(jnp.zeros((), jnp.int32), jax.tree.map(copy, params))

    @with_promotion
    def update_fn(updates, state, params=None):
        params = given("average_params", "params", params)
        count = jnp.asarray(optax.safe_increment(state.updates))
        weight = jnp.maximum(1 - decay, 1 / count)
        new = optax.apply_updates(params, updates)
        toward = lambda mean, w: (mean + weight * (w - mean)).astype(mean.dtype)
        return updates, ParamsAverageState(count, jax.tree.map(toward, state.params_average, new))

    return optax.GradientTransformation(init_fn, update_fn)
