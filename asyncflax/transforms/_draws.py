"""The staleness of each step of a jitted loop: from an integer, a distribution or a trace, or from one per part."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.staleness import StalenessLaw
from asyncflax.trace import Trace

Staleness = int | jax.Array | StalenessLaw | Trace


@dataclasses.dataclass(frozen=True)
class Draws:
    """The staleness of each step of a loop.

    Attributes:
      at: int32 [] step -> int32 [] staleness, regardless of the start and the capacity.
      maximum: the largest staleness in the ring.
      length: the number of steps; None if unlimited.
      worker: int32 [] step -> int32 [] id of the worker that delivers; None if there are no workers.
    """

    at: Callable[[jax.Array], jax.Array]
    maximum: int
    length: int | None = None
    worker: Callable[[jax.Array], jax.Array] | None = None

    def turn(self, step: jax.Array) -> Turn:
        """The staleness of a step."""
        wanted = self.at(step)
        existing = jnp.minimum(wanted, step)
        staleness = jnp.minimum(existing, self.maximum)
        is_lost = (existing > self.maximum).astype(jnp.int32)
        recorded = staleness if self.length is None else jnp.where(step >= self.length, -1, staleness)
        return Turn(staleness, recorded, wanted > step, is_lost)


class Turn(NamedTuple):
    """The staleness of a step.

    Attributes:
      staleness: int32 [], the staleness of the entry used.
      recorded: int32 [], the same for the state; -1 after the end of a trace.
      is_early: bool [], whether the drawn entry is before the start.
      is_lost: int32 [], 1 if the drawn entry is no longer in the ring.
    """

    staleness: jax.Array
    recorded: jax.Array
    is_early: jax.Array
    is_lost: jax.Array


def poison(tree: Any, condition: jax.Array) -> Any:
    """The tree, with NaN in its floating leaves where the condition holds."""
    return jax.tree.map(
        lambda x: jnp.where(condition, jnp.nan, x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x, tree
    )


def draws_from(staleness: Staleness, max_staleness: int | None, beyond: str, seed: int) -> Draws:
    """Checks the shared arguments of delays, and sizes the ring."""
    _check.choice("beyond", beyond, ("error", "clip"))
    seed = seed if _check.is_traced(seed) else _check.integer("seed", seed, 0, 2**32 - 1)  # JAX keeps 32 bits
    if _check.is_traced(max_staleness):
        raise TypeError(
            "max_staleness determines the size of a ring and cannot be traced; "
            "under optax.inject_hyperparams pass static_args=('max_staleness', 'seed')."
        )
    if max_staleness is not None:
        max_staleness = _check.integer("max_staleness", max_staleness, 0, _check.LARGEST - 1)
    if _check.is_traced(staleness):
        if max_staleness is None:
            raise ValueError("max_staleness is required for a traced staleness, because it sizes the ring.")
        delay = jnp.asarray(staleness, jnp.int32)
        return Draws(lambda t: delay, max_staleness, worker=_round_robin(delay))

    length = worker = None
    if isinstance(staleness, Trace):
        values = staleness.staleness
        needed, length = int(values.max()), len(values)
        event = lambda column: lambda t: jnp.asarray(column)[jnp.minimum(t, len(values) - 1)]
        at, worker = event(values), event(staleness.worker)
        tail = lambda k: float((values > k).mean())
    elif isinstance(staleness, StalenessLaw) and staleness.tail(staleness.maximum - 1) < 1.0:
        key = lambda t: _check.unbatched("the key of the staleness", jax.random.fold_in(jax.random.key(seed), t))
        at = lambda t: staleness.sample(key(t))
        needed, tail = staleness.bound(), staleness.tail
    else:
        is_law = isinstance(staleness, StalenessLaw)
        delay = staleness.maximum if is_law else _check.integer("staleness", staleness, 0, _check.LARGEST - 1)
        at, worker = lambda t: jnp.asarray(delay, jnp.int32), _round_robin(delay)
        needed, tail = delay, lambda k: float(k < delay)
    if max_staleness is None:
        max_staleness = needed
    lost = tail(max_staleness)
    if max_staleness < needed and lost > 0:
        what = f"max_staleness={max_staleness} cuts off {lost:.3g} of the probability of {staleness}"
        if beyond == "error":
            raise ValueError(f"{what}; use max_staleness={needed} or beyond='clip'.")
        warnings.warn(f"{what}; those steps read the oldest entry instead.", stacklevel=3)
    return Draws(at, max_staleness, length, worker)


def _round_robin(delay: Any) -> Callable[[jax.Array], jax.Array]:
    """delay + 1 workers take turns, so that each waits for all others."""
    return lambda t: jnp.asarray(t % (delay + 1), jnp.int32)


def is_one(staleness: Any) -> bool:
    """Whether it is a single staleness rather than a tree of them."""
    is_tree = isinstance(staleness, Mapping | tuple | list) or jax.tree.structure(staleness).num_leaves > 1
    return isinstance(staleness, Trace | StalenessLaw) or not is_tree


def for_each_part(
    block: Callable[..., optax.GradientTransformation], staleness: Any, labels: Any, seed: int
) -> optax.GradientTransformation:
    """One `block(staleness, seed=...)` for each part of the parameters, with arguments as in `delay_gradients`."""
    values = staleness
    if labels is None:
        values, structure = jax.tree.flatten(staleness, is_leaf=is_one)
        labels = jax.tree.unflatten(structure, range(len(values)))
    if not isinstance(values, Mapping | tuple | list):
        raise TypeError(f"labels require a mapping or a tuple of staleness by label, got staleness={staleness!r}.")
    of_label = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    if not of_label:
        raise ValueError(f"staleness must have a value for at least one part, got {_check.shown(staleness)}.")

    def checked(tree: Any) -> Any:
        for label in jax.tree.leaves(tree):
            if label not in of_label:
                raise ValueError(f"labels has {label!r}, which has no staleness; available: {list(of_label)}.")
        return tree

    blocks: dict[Hashable, optax.GradientTransformation] = {
        label: block(value, seed=seed + k) for k, (label, value) in enumerate(of_label.items())
    }
    given = labels
    return optax.partition(blocks, (lambda params: checked(given(params))) if callable(given) else checked(given))
