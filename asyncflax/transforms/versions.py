"""Old parameters for your own loop: eq. 6 itself, with versions in the optimizer's state."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.history import Ring, RingState, read_ring
from asyncflax.transforms._draws import Staleness, draws_from, for_each_part, is_one, poison
from asyncflax.transforms._trees import given, is_masked


class StoredVersions(NamedTuple):
    """State of `store_versions`.

    Attributes:
      ring: the parameters before the newest updates.
      stale: PyTree like params, the version for the next gradient, unless its staleness is 0. The update reads it right
        after writing the newest one, since reading the ring before writing makes XLA copy all of it.
      staleness: int32 [], the staleness of the next gradient; -1 after the end of a trace.
      clipped: int32 [], the number of steps whose version was no longer in the ring.
    """

    ring: RingState
    stale: Any
    staleness: jax.Array
    clipped: jax.Array


def store_versions(
    staleness: Staleness | Any,
    *,
    labels: Any = None,
    max_staleness: int | None = None,
    beyond: str = "error",
    seed: int = 0,
    memory: str = "device",
) -> optax.GradientTransformation:
    r"""Keeps past parameters in the optimizer's state, for `read_stale_params`; updates pass unchanged.

    With it, your own loop is eq. 6: fresh samples, evaluated at old parameters.

    .. math:: w_{t+1} = w_t - \alpha \nabla f(w_{t - \tau_t}; z_t)

    Before enough versions exist the initial parameters are read (tau is clamped to t). The update requires `params`.
    For the arguments see `asyncflax.transforms`.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 6.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp, optax
      >>> tx = optax.chain(optax.sgd(0.25), asyncflax.transforms.store_versions(1))
      >>> params = jnp.ones(())
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     read = asyncflax.transforms.read_stale_params(state, params)  # the only new line of the loop
      ...     updates, state = tx.update(jax.grad(lambda w: w**2)(read), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params)
      0.5
      0.0
      -0.25
    """
    options: dict[str, Any] = {"max_staleness": max_staleness, "beyond": beyond, "memory": memory}
    if labels is not None or not is_one(staleness):
        return for_each_part(functools.partial(store_versions, **options), staleness, labels, seed)
    draws = draws_from(staleness, max_staleness, beyond, seed)
    # The newest version is the loop's own `params`; the ring holds those before it.
    ring = Ring(max(draws.maximum, 1), memory)

    def init_fn(params):
        zero = lambda: jnp.zeros((), jnp.int32)
        return StoredVersions(ring.empty(params), jax.tree.map(jnp.zeros_like, params), zero(), zero())

    def update_fn(updates, state, params=None):
        given("store_versions", "params", params)
        held = ring.push(state.ring, params)
        turn = draws.turn(held.pushed)  # the next one
        stale = read_ring(held, jnp.maximum(turn.recorded - 1, 0))
        return updates, StoredVersions(held, stale, turn.recorded, state.clipped + turn.is_lost)

    return optax.GradientTransformation(init_fn, update_fn)


def read_stale_params(opt_state: Any, params: Any) -> Any:
    """The parameters at which to compute the next gradient; PyTree like `params`.

    Args:
      opt_state: state of an optimizer with `store_versions` anywhere in it; its arrays may be wrapped, as in Flax's
        `nnx.Optimizer`. Masked parameters are read fresh. Of several states (one per part of the parameters) exactly
        one must hold each leaf.
      params: the newest parameters, PyTree of arrays; for a module, `nnx.state(model, nnx.Param)`.

    Raises:
      ValueError: there is no `store_versions` in the state, a leaf differs from its versions in shape or dtype, or not
        exactly one of several states holds it.
      TypeError: a leaf of `params` is not an array.
    """
    _check.arrays("params", params)
    is_stored = lambda x: isinstance(x, StoredVersions)
    states = [x for x in jax.tree.leaves(opt_state, is_leaf=is_stored) if is_stored(x)]
    if not states:
        raise ValueError(
            "opt_state has no state of store_versions; add asyncflax.transforms.store_versions(...) to the chain."
        )
    newest, structure = jax.tree_util.tree_flatten_with_path(params)
    read = []
    for (path, new), *older in zip(newest, *(_read_leaves(state, params) for state in states), strict=True):
        found = [old for old in older if not is_masked(old)]
        name = f"params{jax.tree_util.keystr(path)}"
        if len(states) > 1 and len(found) != 1:
            raise ValueError(
                f"{name} must be in exactly one of the {len(states)} states of store_versions, got {len(found)}."
            )
        read.append(_choose(name, new, *found[0]) if found else new)
    return jax.tree.unflatten(structure, read)


def _read_leaves(state: StoredVersions, params: Any) -> list[Any]:
    """For each leaf of the parameters its stale version and the staleness, or a masked node."""
    (staleness,) = jax.tree.leaves(state.staleness)  # possibly wrapped by another library
    held, structure = jax.tree.flatten(state.stale, is_leaf=is_masked)
    try:  # a mask may remove a whole subtree
        parts = structure.flatten_up_to(params)
    except ValueError:  # arrays wrapped in other types are matched by order
        parts = jax.tree.leaves(params)
    if len(parts) != len(held):
        raise ValueError(
            f"params must have the {len(held)} leaves that store_versions was built for, got {len(parts)}; "
            "for an NNX model, pass nnx.state(model, nnx.Param)."
        )
    leaves = []
    for old, part in zip(held, parts, strict=True):
        leaves += [old] * len(jax.tree.leaves(part)) if is_masked(old) else [(old, staleness)]
    return leaves


def _choose(name: str, new: Any, old: jax.Array, staleness: jax.Array) -> jax.Array:
    like = jnp.shape(new), jnp.result_type(new)
    if like != (old.shape, old.dtype):
        raise ValueError(f"{name} must match its stored versions, {old.dtype}{old.shape}; got {like[1]}{like[0]}.")
    return poison(jnp.where(staleness == 0, new, old), staleness < 0)
