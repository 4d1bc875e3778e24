"""Old parameters for people who own their loop: eq. 6 itself, from the optimizer's state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax.history import Ring, RingState, read_ring
from asyncflax.transforms._draws import Staleness, draws_from, poison


class StoredVersions(NamedTuple):
    """State of `store_versions`: arrays only, so that any checkpoint format takes it.

    Attributes:
      ring: the parameters before the newest updates.
      staleness: int32 [], how old the parameters are that the next gradient has to read; -1 after the end of a trace.
      clipped: int32 [], how many steps wanted a version that the ring had held, but holds no more.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> state = asyncflax.transforms.store_versions(asyncflax.staleness.uniform(0, 7)).init(jnp.ones(3))
      >>> state.ring.rows.shape, int(state.staleness)
      ((7, 3), 0)
    """

    ring: RingState
    staleness: jax.Array
    clipped: jax.Array


def store_versions(
    staleness: Staleness,
    *,
    max_staleness: int | None = None,
    beyond: str = "error",
    seed: int = 0,
    memory: str = "device",
) -> optax.GradientTransformation:
    r"""Keeps past parameters in the optimizer's state, for `read_stale_params`; the updates pass unchanged.

    With it a loop of one's own is eq. 6: a fresh sample, evaluated at old parameters.

    .. math:: w_{t+1} = w_t - \alpha \nabla f(w_{t - \tau_t}; z_t)

    Args:
      staleness: an integer, a law of `asyncflax.staleness`, or a `Trace` (its staleness, step by step).
      max_staleness, beyond, seed: as in `delay_gradients`; the memory is max_staleness versions.
      memory: 'device' or 'pinned_host', see `history.Ring`.

    After the end of a trace the parameters read are NaN, so that a longer loop cannot pass unnoticed.

    Before enough versions exist the initial parameters are read (tau is clamped to t). The update needs `params`.

    Raises:
      ValueError: as `delay_gradients`; later, params are missing.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 6.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp, optax
      >>> tx = optax.chain(optax.sgd(0.25), asyncflax.transforms.store_versions(1))
      >>> params = jnp.ones(())
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     read = asyncflax.transforms.read_stale_params(state, params)  # the one line that is new in the loop
      ...     updates, state = tx.update(jax.grad(lambda w: w**2)(read), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params)
      0.5
      0.0
      -0.25
    """
    draws = draws_from(staleness, max_staleness, beyond, seed)
    # The newest version is the loop's own `params`; the ring holds those before it.
    ring = Ring(max(draws.maximum, 1), memory)

    def init_fn(params):
        zero = jnp.zeros((), jnp.int32)
        return StoredVersions(ring.empty(params), zero, zero)

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("store_versions needs the parameters: update(updates, state, params).")
        held = ring.push(state.ring, params)
        step = held.pushed  # the next one
        wanted = jnp.minimum(draws.at(step), step)
        lost = (wanted > draws.maximum).astype(jnp.int32)
        staleness = jnp.where(draws.is_over(step), -1, jnp.minimum(wanted, draws.maximum))
        return updates, StoredVersions(held, staleness, state.clipped + lost)

    return optax.GradientTransformation(init_fn, update_fn)


def read_stale_params(opt_state: Any, params: Any) -> Any:
    """The parameters at which the next gradient is to be computed.

    Args:
      opt_state: the state of an optimizer that has `store_versions` in it, anywhere.
      params: the newest parameters, PyTree of arrays.

    Returns:
      PyTree like `params`.

    Raises:
      ValueError: there is no `store_versions` in the optimizer, or more than one.

    Example: see `store_versions`.
    """
    is_stored = lambda x: isinstance(x, StoredVersions)
    found = [x for x in jax.tree.leaves(opt_state, is_leaf=is_stored) if is_stored(x)]
    if len(found) != 1:
        raise ValueError(
            f"opt_state holds {len(found)} states of store_versions, needs one; "
            "put asyncflax.transforms.store_versions(...) into the chain once."
        )
    state = found[0]
    older = read_ring(state.ring, jnp.maximum(state.staleness - 1, 0))
    is_masked = lambda x: isinstance(x, optax.MaskedNode)

    def choose(old, new):  # what a mask kept out of the ring is read fresh
        return new if is_masked(old) else jnp.where(state.staleness == 0, new, old)

    return poison(jax.tree.map(choose, older, params, is_leaf=is_masked), state.staleness < 0)
