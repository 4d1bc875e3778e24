"""Live workers on one host: one thread per worker, each with a device or a share of the cores."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from asyncflax import _check
from asyncflax.base import AsyncAlgorithm, as_partial
from asyncflax.engine.execute import RunResult
from asyncflax.engine.step import RunOutput
from asyncflax.live.server import Server, Snapshot, gradient
from asyncflax.queues import ServiceTime, mean_seconds
from asyncflax.trace import Trace

__all__ = ["Segment", "Threads", "run_threads"]

_AHEAD = 2  # segments that may be queued before workers block
_POLL = 0.1  # seconds between checks of whether a thread must stop


class Segment(NamedTuple):
    """The events between two cuts of a live run.

    Attributes:
      events: slice, the events from the previous cut to this one.
      out: the `RunOutput` of these events.
      snapshot: the `Snapshot` of the server after them.
    """

    events: slice
    out: RunOutput
    snapshot: Snapshot


class Threads:
    """Workers as threads of this process that drive a server; iterate over it to run them.

    Gradients of different workers overlap as far as the devices allow: JAX releases Python's lock while a program runs,
    and on a CPU all programs share the cores.

    Args:
      server: the `Server`, used by these threads only until they have ended.
      gradient_fn: see `gradients`.
      batch: `batch(ticket) -> PyTree`, the batch of a ticket; called in the worker's thread.
      key: a typed JAX key; a ticket uses fold_in(key, ticket).
      cuts: the numbers of updates at which a segment ends; the last update is one.
      devices: n devices, by default the local ones. Worker i computes on devices[i % n], the server on its own device.
      service_time: the distribution of the minimum seconds per gradient; the thread sleeps for the rest of them. None
        sets no minimum.
      seed: the random seed of the service times, which are drawn by ticket.

    Raises:
      TypeError, ValueError: an argument is invalid.

    Example: see `run_threads`.
    """

    def __init__(
        self,
        server: Server,
        gradient_fn: Callable[..., Any],
        batch: Callable[[int], Any],
        *,
        key: jax.Array,
        cuts: Iterable[int] = (),
        devices: Sequence[Any] | None = None,
        service_time: ServiceTime | None = None,
        seed: int = 0,
    ):
        _check.instance("server", server, Server, "an asyncflax.live.Server")
        _check.function("gradient_fn", gradient_fn, _check.GRADIENT)
        _check.function("batch", batch, " of a ticket")
        _check.key("key", key)
        self._server, self._batch, self._key, self._seed = server, batch, key, _check.integer("seed", seed, 0, None)
        self._cuts = {*_check.integers("cuts", cuts, 0), server.num_updates}
        self._devices = list(jax.local_devices() if devices is None else devices)
        if not self._devices:
            raise ValueError("devices must have at least one device, got none.")
        used = self._devices[: server.num_workers]
        self._gradient_fns = [jax.device_put(as_partial(gradient_fn), device) for device in used]
        self._service_time = service_time
        if service_time is not None:
            _check.instance("service_time", service_time, ServiceTime, "a ServiceTime such as queues.exponential()")
            self._means = mean_seconds(service_time, server.num_workers, seed)
        self._turn, self._stop = _InTurn(), threading.Event()
        self._segments: queue.Queue[Segment | BaseException] = queue.Queue(_AHEAD)

    def __iter__(self) -> Iterator[Segment]:
        """Runs the workers; yields at each cut while they continue. Closing the iteration stops them."""
        self._stop.clear()
        self._warm_up()
        self._begin = end = self._server.num_applied
        threads = [
            threading.Thread(target=self._guarded, args=(worker,), name=f"worker {worker}", daemon=True)
            for worker in range(self._server.num_workers)
        ]
        try:
            for thread in threads:
                thread.start()
            while end < self._server.num_updates:
                segment = self._segments.get()
                if isinstance(segment, BaseException):
                    raise segment
                end = segment.events.stop
                yield segment
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self._segments = queue.Queue(_AHEAD)

    def _warm_up(self) -> None:
        """Compiles the programs before the first worker reads."""
        batch = self._batch(0)
        for device, gradient_fn in zip(self._devices, self._gradient_fns, strict=False):
            key, read, rows = jax.device_put((self._key, self._server.latest, batch), device)
            result = gradient(gradient_fn, key, read, rows, np.int32(0), np.int32(0))
            self._server.warm_up(jax.device_put(result, self._server.device))

    def _guarded(self, worker: int) -> None:
        try:
            self._work(worker)
        except BaseException as error:  # raised by the iteration
            self._put(error)

    def _work(self, worker: int) -> None:
        """The loop of a worker."""
        number = worker % len(self._gradient_fns)
        device, gradient_fn = self._devices[number], self._gradient_fns[number]
        key = jax.device_put(self._key, device)
        with self._turn:
            job = self._server.read(worker)
        while job is not None and not self._stop.is_set():
            due = time.monotonic() + self._seconds(worker, job.ticket)
            read, batch = jax.device_put((job.read, self._batch(job.ticket)), device)
            result = gradient(gradient_fn, key, read, batch, np.int32(job.ticket), np.int32(worker))
            result = jax.block_until_ready(jax.device_put(result, self._server.device))
            if self._stop.wait(max(0.0, due - time.monotonic())):
                break
            with self._turn:
                before = self._server.num_applied
                job = self._server.deliver(worker, job.lease, result)
                after = self._server.num_applied
                if after > before and after in self._cuts:
                    events, self._begin = slice(self._begin, after), after
                    self._put(Segment(events, self._server.outputs(), self._server.state()))

    def _seconds(self, worker: int, ticket: int) -> float:
        """The minimum seconds of the gradient of a ticket."""
        if self._service_time is None:
            return 0.0
        generator = np.random.default_rng([self._seed, 1, ticket])
        return float(self._means[worker] * np.asarray(self._service_time.task_of(worker)(generator, 1))[0])

    def _put(self, segment: Segment | BaseException) -> None:
        """Enqueues a segment or an error; blocks while the queue is full, unless the workers are being stopped."""
        while not self._stop.is_set():
            try:
                self._segments.put(segment, timeout=_POLL)
            except queue.Full:
                continue
            return


class _InTurn:
    """A lock that is passed on in the order of arrival; `threading.Lock` prefers threads that have just had it."""

    def __init__(self):
        self._changed, self._arrived, self._served = threading.Condition(), 0, 0

    def __enter__(self) -> None:
        with self._changed:
            number, self._arrived = self._arrived, self._arrived + 1
            self._changed.wait_for(lambda: self._served == number)

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()


def run_threads(
    algorithm: AsyncAlgorithm,
    gradient_fn: Callable[..., Any],
    params: Any,
    batches: Any,
    *,
    num_workers: int,
    num_updates: int,
    key: jax.Array | None = None,
    model_state: Any = None,
    devices: Sequence[Any] | None = None,
    service_time: ServiceTime | None = None,
    seed: int = 0,
) -> tuple[RunResult, Trace]:
    """Trains with concurrent workers, and records their asynchrony.

    `run(algorithm, gradient_fn, params, trace, batches)` with the recorded trace reproduces the result up to rounding,
    and bitwise if the compiler orders the arithmetic of the method alike.

    Args:
      algorithm, gradient_fn, params, key, model_state: as in `run`.
      batches: PyTree with at least num_updates + num_workers - 1 rows, one for each ticket; or a function from a ticket
        to its batch.
      num_workers: the number of threads.
      num_updates: T, the number of updates.
      devices, service_time, seed: see `Threads`.

    Returns:
      The `RunResult` of T events, and the recorded `Trace`.

    Raises:
      TypeError, ValueError: an argument is invalid.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp, numpy as np
      >>> batches = jax.random.normal(jax.random.key(1), (101, 4)) + 3.0
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.mean((w - batch) ** 2))
      >>> problem = (asyncflax.algorithms.asgd(0.05), gradient_fn, jnp.zeros(()))
      >>> result, trace = asyncflax.live.run_threads(*problem, batches, num_workers=2, num_updates=100)
      >>> len(trace), bool(np.allclose(asyncflax.run(*problem, trace, batches).params, result.params))
      (100, True)
    """
    server = Server(algorithm, params, num_workers=num_workers, num_updates=num_updates, model_state=model_state)
    if not callable(batches):
        count = server.num_updates + server.num_workers - 1
        _check.rows("batches", batches, count, at_least=True, of="tickets that may be handed out")
    of_ticket = batches if callable(batches) else lambda ticket: jax.tree.map(lambda x: x[ticket], batches)
    key = jax.random.key(0) if key is None else key
    threads = Threads(server, gradient_fn, of_ticket, key=key, devices=devices, service_time=service_time, seed=seed)
    (segment,) = threads
    own = segment.snapshot
    return RunResult(own.params, own.algorithm, *segment.out, own.model_state), server.trace()
