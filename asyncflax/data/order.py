"""The order of the training examples: a new random permutation every epoch."""

from __future__ import annotations

import functools

import numpy as np

from asyncflax import _check, _memory

__all__ = ["batch_rows"]


def batch_rows(num_examples: int, batch_size: int, events: range | slice, *, seed: int = 0) -> np.ndarray:
    """The examples in the batches of some events, in a new random order every epoch.

    Args:
      num_examples: the size of the training set.
      batch_size: examples per batch; an epoch's last batch is filled up from the next epoch.
      events: a range of event indices, for example `chunk.events`.
      seed: determines the orders.

    Returns:
      int32 [len(events), batch_size]. Row i belongs to event events.start + i, whatever the range.

    Raises:
      ValueError: the batch is larger than the training set, or the events are not consecutive.

    Example:
      >>> import asyncflax
      >>> rows = asyncflax.data.batch_rows(10, 4, range(100))
      >>> bool((rows[50:60] == asyncflax.data.batch_rows(10, 4, range(50, 60))).all())
      True
    """
    num_examples = _check.integer("num_examples", num_examples, 1)
    batch_size = _check.integer("batch_size", batch_size, 1)
    if batch_size > num_examples:
        raise ValueError(f"batch_size={batch_size} is larger than the {num_examples} examples.")
    if not isinstance(events, range | slice):
        raise TypeError(f"events must be a range of consecutive events, got {_check.shown(events)}.")
    if events.step not in (None, 1) or events.stop is None:
        raise ValueError(f"events must be a range of consecutive events, got {events}.")
    first_event = _check.integer("events.start", events.start or 0, 0)
    stop_event = _check.integer("events.stop", events.stop, first_event)
    seed = _check.integer("seed", seed, 0, None)
    start, stop = first_event * batch_size, stop_event * batch_size
    _memory.need("num_examples", num_examples, 12 * num_examples, "an order of them")
    _memory.need("events", events, 8 * (stop - start + 2 * num_examples), "their rows")
    first, last = start // num_examples, -(-stop // num_examples)
    if start == stop:
        return np.zeros((0, batch_size), np.int32)
    order = np.concatenate([_order(num_examples, seed, epoch) for epoch in range(first, last)])
    offset = first * num_examples
    return order[start - offset : stop - offset].reshape(-1, batch_size)


@functools.lru_cache(maxsize=4)  # consecutive events are mostly of the same epoch
def _order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """int32 [num_examples], read-only: the permutation of an epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples).astype(np.int32)
    order.flags.writeable = False
    return order
