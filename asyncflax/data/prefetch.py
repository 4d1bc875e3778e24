"""Prefetching of batches by threads or worker processes. Needs grain (the extra `train`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from asyncflax import _check

__all__ = ["Batches"]

_THREADS = 4  # number of threads if there are no worker processes; each holds a batch


class Batches:
    """A repositionable iterator over batches, prefetched by threads or worker processes.

    Close it, or use it in a `with` statement, to stop the workers.

    Args:
      make: a function from a batch number to the batch, a dict of arrays; pickled for the workers.
      num_batches: the number of batches (0, 1, ...), or their numbers in the order of use.
      decode_processes: the number of worker processes; 0 uses threads.

    Attributes:
      make: the function that builds a batch.
      decode_processes: the number of worker processes; a change takes effect at the next start.

    Example:
      >>> import numpy as np
      >>> from asyncflax.data.prefetch import Batches
      >>> with Batches(lambda t: {"squares": np.array([t, t * t])}, 10) as batches:
      ...     _ = batches.take(6)
      ...     state = batches.get_state()
      ...     print(next(batches))
      ...     batches.set_state(state)
      ...     print(batches.take(2))
      {'squares': array([ 6, 36])}
      {'squares': array([[ 6, 36],
             [ 7, 49]])}
    """

    def __init__(
        self,
        make: Callable[[int], dict[str, np.ndarray]],
        num_batches: int | Sequence[int] | np.ndarray,
        *,
        decode_processes: int = 0,
    ):
        self.make, self._next, self._iterator = make, 0, None
        if np.ndim(num_batches):
            self._numbers = _check.integers("num_batches", num_batches, 0)
        else:
            self._numbers = range(_check.integer("num_batches", num_batches, 0))
        self._num_batches = len(self._numbers)
        self.decode_processes = _check.integer("decode_processes", decode_processes, 0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch. If building it fails, the next call retries it."""
        if self._next == self._num_batches:
            self.close()
            raise StopIteration
        if self._iterator is None:
            self._iterator = self._start()
        try:
            batch = next(self._iterator)
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError) and "Worker process was terminated" in str(error):
                raise RuntimeError(
                    f"{str(error).split('. ')[0]}. Exit code -15 means SIGTERM, -9 usually out of memory, -7 a full "
                    "/dev/shm, and 1 an error at startup, printed above. Try fewer workers; batches do not depend "
                    "on their number."
                ) from error
            raise
        self._next += 1
        return {name: np.asarray(array) for name, array in batch.items()}

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The next `count` batches, stacked along a new leading axis; raises a ValueError if fewer remain."""
        count = _check.integer("count", count, 1, self._num_batches - self._next)
        before, stacked = self.get_state(), {}
        try:
            for k in range(count):
                for name, array in next(self).items():
                    if k == 0:
                        stacked[name] = np.empty((count, *array.shape), array.dtype)
                    stacked[name][k] = array
        except BaseException:
            self.set_state(before)  # all or none
            raise
        if self._next == self._num_batches:
            self.close()  # exhausted
        return stacked

    def get_state(self) -> dict[str, int]:
        """The position as JSON; unlike Grain's own state it does not depend on the number of workers."""
        return {"next_batch": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Moves to a saved position without building earlier batches."""
        following = _check.integer("next_batch", state["next_batch"], 0, self._num_batches)
        if following != self._next:
            self.close()
            self._next = following

    def close(self) -> None:
        """Stops the workers; asking for another batch restarts them."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> Any:
        """Grain's iterator, starting at the next batch."""
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads its own flags when it starts workers
            flags.FLAGS.mark_as_parsed()
        threads = 0 if self.decode_processes else min(_THREADS, os.cpu_count() or 1)
        dataset = grain.MapDataset.source(self._numbers[self._next :]).map(self.make)
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        workers = min(self.decode_processes, self._num_batches - self._next)
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        return iter(dataset.mp_prefetch(options, worker_init_fn=_begin_worker))


def _begin_worker(index: int, count: int) -> None:
    """Keeps a worker off accelerators, ignores signals, and exits when the parent does."""
    del index, count
    jax.config.update("jax_platforms", "cpu")
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent saves first
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
