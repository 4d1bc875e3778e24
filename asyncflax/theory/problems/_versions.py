"""Past versions of many trajectories, for every kind of staleness.

A store has the shape [slots, ..., R], the trajectories last. Initially all slots hold version 0, which is read before
enough versions exist (the 'clamp' of `StalenessLaw.trace`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax.staleness import StalenessLaw
from asyncflax.theory import ExponentialQueue
from asyncflax.theory._model import Staleness


def num_slots(staleness: Staleness) -> int:
    """The slots: one per worker, or one per version that may be read (a power of two, for few programs)."""
    if isinstance(staleness, ExponentialQueue):
        return staleness.num_workers
    oldest = staleness.maximum if isinstance(staleness, StalenessLaw) else staleness
    return 1 << int(oldest).bit_length()


def draw(staleness: Staleness, key: jax.Array, event: jax.Array, trajectories: int) -> jax.Array:
    """int32 [R], the staleness of each trajectory or the worker that delivers; [] if constant."""
    if not isinstance(staleness, StalenessLaw | ExponentialQueue):
        return jnp.asarray(staleness, jnp.int32)
    key = jax.random.fold_in(key, event)
    if isinstance(staleness, ExponentialQueue):
        return jax.random.randint(key, (trajectories,), 0, staleness.num_workers)
    return staleness.sample(key, (trajectories,))


def read(staleness: Staleness, store: jax.Array, event: jax.Array, drawn: jax.Array) -> jax.Array:
    """The version that each trajectory reads, [..., R]."""
    slot = drawn if isinstance(staleness, ExponentialQueue) else (event - drawn) % store.shape[0]
    if jnp.ndim(slot) == 0:
        return jax.lax.dynamic_index_in_dim(store, slot, keepdims=False)
    return jnp.take_along_axis(store, _rows(store, slot), axis=0, mode="promise_in_bounds")[0]


def write(staleness: Staleness, store: jax.Array, event: jax.Array, drawn: jax.Array, new: jax.Array) -> jax.Array:
    """The store with the version that the event created."""
    if isinstance(staleness, ExponentialQueue):  # downloaded by the worker that delivered
        rows = _rows(store, drawn)
        return jnp.put_along_axis(store, rows, new[None], axis=0, inplace=False, mode="promise_in_bounds")
    return jax.lax.dynamic_update_index_in_dim(store, new, (event + 1) % store.shape[0], 0)


def _rows(store: jax.Array, slot: jax.Array) -> jax.Array:
    """The slot of each trajectory as indices [1, ..., R] into the store."""
    return jnp.broadcast_to(slot.reshape(*(1,) * (store.ndim - 1), -1), (1, *store.shape[1:]))


def events(staleness: Staleness, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Worker and read version of every event of one trajectory, from its draws."""
    if not isinstance(staleness, ExponentialQueue):
        return np.zeros(len(drawn), int), np.maximum(np.arange(len(drawn)) - drawn, 0)
    read_version, newest = [], np.zeros(staleness.num_workers, int)
    for event, worker in enumerate(drawn):
        read_version.append(newest[worker])
        newest[worker] = event + 1
    return drawn, np.array(read_version)
