"""Step sizes that depend on the staleness."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.transforms._dtypes import with_promotion
from asyncflax.transforms._trees import given


def scale_by_staleness(fn: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by `fn(staleness)`.

    Args:
      fn: a function of the staleness tau (float []) that returns a number; tau = 0 is a fresh gradient.

    The update requires the extra argument `staleness`.

    Source: Zhang et al. 2015 (staleness-aware learning rates, second-hand); Mishchenko et al. 2022 (arXiv:2206.07638).

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> tx = asyncflax.transforms.scale_by_staleness(lambda tau: 1 / (1 + tau))
      >>> tx.update(jnp.ones(2), tx.init(None), staleness=3)[0]
      Array([0.25, 0.25], dtype=float32)
    """
    _check.function("fn", fn, " of the staleness (under optax.inject_hyperparams pass static_args=('fn',))")

    @with_promotion
    def update_fn(updates, state, params=None, *, staleness=None, **extra):
        given("scale_by_staleness", "staleness", staleness)
        factor = fn(jnp.asarray(staleness, jnp.result_type(float)))
        return jax.tree.map(lambda u: (u * factor).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)  # pyright: ignore[reportArgumentType]
