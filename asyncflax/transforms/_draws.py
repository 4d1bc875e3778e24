"""Which staleness does step t have? One answer for a number, a law and a trace, inside a jitted loop."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _check
from asyncflax.staleness import StalenessLaw
from asyncflax.trace import Trace

Staleness = int | jax.Array | StalenessLaw | Trace


@dataclasses.dataclass(frozen=True)
class Draws:
    """The staleness of each step of a loop.

    Attributes:
      at: int32 [] step -> int32 [] staleness, before the start and the capacity are considered.
      maximum: the largest staleness that is to be held.
      length: the number of steps that have an answer, None if all have.
    """

    at: Callable[[jax.Array], jax.Array]
    maximum: int
    length: int | None = None

    def is_over(self, step: jax.Array) -> jax.Array:
        """bool []: whether the trace ended before this step."""
        return jnp.zeros((), bool) if self.length is None else step >= self.length


def poison(tree: Any, condition: jax.Array) -> Any:
    """The tree, with NaN in all that is floating where the condition holds: an end that cannot pass unnoticed."""
    return jax.tree.map(
        lambda x: jnp.where(condition, jnp.nan, x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x, tree
    )


def draws_from(staleness: Staleness, max_staleness: int | None, beyond: str, seed: int) -> Draws:
    """Checks the arguments that `delay_gradients` and `store_versions` share, and sizes the ring."""
    _check.choice("beyond", beyond, ("error", "clip"))
    seed = seed if _check.is_traced(seed) else _check.integer("seed", seed, 0)
    if _check.is_traced(max_staleness):
        raise TypeError(
            "max_staleness is the size of a ring and cannot be traced; "
            "under optax.inject_hyperparams pass static_args=('max_staleness', 'seed')."
        )
    if max_staleness is not None:
        max_staleness = _check.integer("max_staleness", max_staleness, 0)
    if _check.is_traced(staleness):
        if max_staleness is None:
            raise ValueError("max_staleness must be given for a traced staleness: it sizes the ring.")
        return Draws(lambda t: jnp.asarray(staleness, jnp.int32), max_staleness)

    if isinstance(staleness, Trace):
        values = staleness.staleness
        at = lambda t: jnp.asarray(values)[jnp.minimum(t, len(values) - 1)]
        needed, length = int(values.max()), len(values)
        tail = lambda k: float((values > k).mean())
    elif isinstance(staleness, StalenessLaw):
        at = lambda t: staleness.sample(jax.random.fold_in(jax.random.key(seed), t))
        needed, length, tail = staleness.bound(), None, staleness.tail
    else:
        delay = _check.integer("staleness", staleness, 0)
        at = lambda t: jnp.asarray(delay, jnp.int32)
        needed, length, tail = delay, None, lambda k: float(k < delay)
    if max_staleness is None:
        max_staleness = needed
    lost = tail(max_staleness)
    if max_staleness < needed and lost > 0:
        what = f"max_staleness={max_staleness} cuts off {lost:.3g} of the probability of {staleness}"
        if beyond == "error":
            raise ValueError(f"{what}; take max_staleness={needed}, or beyond='clip'.")
        warnings.warn(f"{what}: those steps read the oldest entry instead.", stacklevel=3)
    return Draws(at, max_staleness, length)
