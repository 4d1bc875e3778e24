"""The order of the training examples: a new random permutation every epoch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from asyncflax import _check, _memory

__all__ = ["batch_rows"]


def batch_rows(num_examples: int, batch_size: int, events: range | slice | Any, *, seed: int = 0) -> np.ndarray:
    """Returns the examples of each event's batch, in a new random order every epoch.

    Args:
      num_examples: the size of the training set.
      batch_size: the number of examples per batch; an epoch's last batch is filled up from the next epoch.
      events: event indices as a range, such as `chunk.events`, or as integers in any order, such as `chunk.tickets`.
      seed: the random seed of the permutations.

    Returns:
      int32 [len(events), batch_size]. Each row depends only on its event.

    Example:
      >>> import asyncflax
      >>> rows = asyncflax.data.batch_rows(10, 4, range(100))
      >>> bool((rows[50:60] == asyncflax.data.batch_rows(10, 4, range(50, 60))).all())
      True
      >>> bool((rows[[7, 3]] == asyncflax.data.batch_rows(10, 4, [7, 3])).all())
      True
    """
    num_examples = _check.integer("num_examples", num_examples, 1)
    batch_size = _check.integer("batch_size", batch_size, 1)
    if batch_size > num_examples:
        raise ValueError(f"batch_size={batch_size} is larger than the {num_examples} examples.")
    if isinstance(events, slice):
        if events.stop is None:
            raise ValueError(f"events must have an end, got {events}.")
        events = range(events.start or 0, events.stop, 1 if events.step is None else events.step)
    if isinstance(events, range):
        _memory.need("events", events, 24 * batch_size * len(events), "their rows")
        _check.integer("events.start", events.start, 0)
    else:
        events = _check.integers("events", events, 0)
    events = np.asarray(events, np.int64)
    seed = _check.integer("seed", seed, 0, None)
    if not events.size:
        return np.zeros((0, batch_size), np.int32)
    epoch, place = np.divmod(events[:, None] * batch_size + np.arange(batch_size), num_examples)
    epochs, number = np.unique(epoch, return_inverse=True)
    _memory.need("num_examples", num_examples, 12 * num_examples * len(epochs), "their orders")
    orders = np.stack([_order(num_examples, seed, one) for one in epochs.tolist()])
    return orders[number.reshape(epoch.shape), place]


@functools.lru_cache(maxsize=4)  # consecutive events mostly belong to the same epoch
def _order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """int32 [num_examples], read-only: the permutation of an epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples).astype(np.int32)
    order.flags.writeable = False
    return order
