"""Which staleness does step t have? One answer for a number, a law and a trace, inside a jitted loop; or one a part."""

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
      at: int32 [] step -> int32 [] staleness, before the start and the capacity are considered.
      maximum: the largest staleness that is to be held.
      length: the number of steps that have an answer, None if all have.
      worker: int32 [] step -> int32 [] id of who delivers, None if nothing says so.
    """

    at: Callable[[jax.Array], jax.Array]
    maximum: int
    length: int | None = None
    worker: Callable[[jax.Array], jax.Array] | None = None

    def turn(self, step: jax.Array) -> Turn:
        """What happens at a step."""
        wanted = self.at(step)
        there = jnp.minimum(wanted, step)
        staleness = jnp.minimum(there, self.maximum)
        is_over = jnp.zeros((), bool) if self.length is None else step >= self.length
        is_lost = (there > self.maximum).astype(jnp.int32)
        return Turn(staleness, jnp.where(is_over, -1, staleness), wanted > step, is_lost, is_over)


class Turn(NamedTuple):
    """What happens at a step.

    Attributes:
      staleness: int32 [], that there is and is held.
      recorded: int32 [], the same for the state; -1 after the end of a trace.
      is_early: bool [], whether it wanted what was before the start.
      is_lost: int32 [], 1 if it wanted what is held no more.
      is_over: bool [], whether the trace ended before this step.
    """

    staleness: jax.Array
    recorded: jax.Array
    is_early: jax.Array
    is_lost: jax.Array
    is_over: jax.Array


def poison(tree: Any, condition: jax.Array) -> Any:
    """The tree, with NaN in all that is floating where the condition holds: an end that cannot pass unnoticed."""
    return jax.tree.map(
        lambda x: jnp.where(condition, jnp.nan, x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x, tree
    )


def draws_from(staleness: Staleness, max_staleness: int | None, beyond: str, seed: int) -> Draws:
    """Checks the arguments that `delay_gradients` and `store_versions` share, and sizes the ring."""
    _check.choice("beyond", beyond, ("error", "clip"))
    seed = seed if _check.is_traced(seed) else _check.integer("seed", seed, 0, 2**32 - 1)  # JAX keeps 32 bits
    if _check.is_traced(max_staleness):
        raise TypeError(
            "max_staleness is the size of a ring and cannot be traced; "
            "under optax.inject_hyperparams pass static_args=('max_staleness', 'seed')."
        )
    if max_staleness is not None:
        max_staleness = _check.integer("max_staleness", max_staleness, 0, _check.LARGEST - 1)
    if _check.is_traced(staleness):
        if max_staleness is None:
            raise ValueError("max_staleness must be given for a traced staleness: it sizes the ring.")
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
            raise ValueError(f"{what}; take max_staleness={needed}, or beyond='clip'.")
        warnings.warn(f"{what}: those steps read the oldest entry instead.", stacklevel=3)
    return Draws(at, max_staleness, length, worker)


def _round_robin(delay: Any) -> Callable[[jax.Array], jax.Array]:
    """delay + 1 workers take turns, so that each waits for all others."""
    return lambda t: jnp.asarray(t % (delay + 1), jnp.int32)


def is_one(staleness: Any) -> bool:
    """Whether it is one staleness, rather than a tree of them."""
    is_tree = isinstance(staleness, Mapping | tuple | list) or jax.tree.structure(staleness).num_leaves > 1
    return isinstance(staleness, Trace | StalenessLaw) or not is_tree


def for_each_part(
    block: Callable[..., optax.GradientTransformation], staleness: Any, labels: Any, seed: int
) -> optax.GradientTransformation:
    """One block for each part of the parameters that has a staleness of its own; each draws for itself.

    Args:
      block: (staleness, seed=) -> a transformation.
      staleness: a tree prefix of the parameters, or with labels a mapping or a tuple from labels to staleness.
      labels: a tree prefix of labels, a function of the parameters that makes one, or None.
      seed: the k-th part has seed + k.
    """
    if labels is None:
        values, structure = jax.tree.flatten(staleness, is_leaf=is_one)
        of_label, labels = dict(enumerate(values)), jax.tree.unflatten(structure, range(len(values)))
    elif isinstance(staleness, Mapping):
        of_label = dict(staleness)
    elif isinstance(staleness, tuple | list):
        of_label = dict(enumerate(staleness))
    else:
        raise TypeError(f"labels need a staleness for each label, a mapping or a tuple, got staleness={staleness!r}.")

    if not of_label:
        raise ValueError(f"staleness must have a value for one part at least, got {_check.shown(staleness)}.")

    def checked(tree: Any) -> Any:
        for label in jax.tree.leaves(tree):
            if label not in of_label:
                raise ValueError(f"labels has {label!r}, which has no staleness; those with one are {list(of_label)}.")
        return tree

    blocks: dict[Hashable, optax.GradientTransformation] = {
        label: block(value, seed=seed + k) for k, (label, value) in enumerate(of_label.items())
    }
    given = labels
    return optax.partition(blocks, (lambda params: checked(given(params))) if callable(given) else checked(given))
