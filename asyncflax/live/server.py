"""The server of a live run: tickets out, gradients in, and a trace of what happened.

It has no thread and does no I/O. Whoever drives it (threads, actors, a test) calls one method at a time, and the trace
that it records replays in `engine.run`: gradients are applied in the order of the log by the engine's own function, and
the batch and the random keys of a gradient belong to its ticket, which is handed out with the parameters.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check, metrics
from asyncflax.base import AsyncAlgorithm, server_params
from asyncflax.engine.execute import begin
from asyncflax.engine.step import RunOutput, apply
from asyncflax.gradients import GradientResult
from asyncflax.trace import Trace

__all__ = ["Job", "Server", "Snapshot"]

_COLUMNS = {"worker": np.int32, "read_version": np.int32, "ticket": np.int32, "begun": float, "time": float}


class Job(NamedTuple):
    """What a worker is asked to do.

    Attributes:
      ticket: int, to which the batch and the random key of the gradient belong.
      lease: int, unlike that of any other job: a ticket that is handed out again has another one.
      version: int, the number of updates in what is handed out.
      params: PyTree, the parameters to compute on: the method's view of the server's.
      model_state: PyTree, or None.
    """

    ticket: int
    lease: int
    version: int
    params: Any
    model_state: Any


class Snapshot(NamedTuple):
    """Everything that a server needs to resume.

    Attributes:
      params: PyTree, the server's parameters.
      algorithm: the method's state.
      model_state: PyTree, or None.
      log: arrays of the events so far, by name: worker, read_version, ticket, begun, time.
      open_tickets: int32 [n], those handed out and not delivered.
    """

    params: Any
    algorithm: Any
    model_state: Any
    log: dict[str, np.ndarray]
    open_tickets: np.ndarray


class Server:
    """A method at work: hands out jobs, applies what is delivered, records the trace.

    A worker reads, computes, delivers, and receives its next job in return. Workers may come and go: the ticket of a
    worker that was forgotten goes to the next reader. A delivery is applied once at most. After `num_updates` of them
    the server hands out nothing more; what is still being computed then is dropped.

    Not safe for threads: callers take turns.

    Args:
      algorithm: the method. Its view must be the same for all workers, as that of every method in `algorithms` is.
      params: PyTree of arrays, the initial parameters.
      num_workers: how many workers there may be, with ids below it.
      num_updates: T.
      model_state: PyTree of what gradients do not train, or None.
      clock: returns seconds; only differences matter.
      warn: called with a sentence when a delivery is refused.

    Attributes:
      num_applied: the updates made so far.
      busy: seconds spent on updates.

    Raises:
      TypeError, ValueError: an argument is invalid.

    Example: one worker, driven by hand.
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> from asyncflax.live import Server
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.sum((w - batch) ** 2))
      >>> server = Server(asyncflax.algorithms.asgd(0.25), jnp.zeros(2), num_workers=1, num_updates=3)
      >>> job = server.read(worker=0)
      >>> while job is not None:
      ...     job = server.deliver(0, job.lease, gradient_fn(job.params, jnp.ones(2)))
      >>> server.params, server.trace().staleness
      (Array([0.875, 0.875], dtype=float32), array([0, 0, 0], dtype=int32))
    """

    def __init__(
        self,
        algorithm: AsyncAlgorithm,
        params: Any,
        *,
        num_workers: int,
        num_updates: int,
        model_state: Any = None,
        clock: Callable[[], float] = time.monotonic,
        warn: Callable[[str], Any] = print,
    ):
        _check.instance("algorithm", algorithm, AsyncAlgorithm, _check.METHOD)
        _check.parameters("params", params)
        _check.arrays("model_state", model_state, "pass arrays of JAX or NumPy.")
        self.num_workers = _check.integer("num_workers", num_workers, 1)
        self.num_updates = _check.integer("num_updates", num_updates, 1)
        if algorithm.num_workers is not None and num_workers > algorithm.num_workers:
            raise ValueError(f"num_workers={num_workers}, the algorithm was built for {algorithm.num_workers}.")
        self.algorithm, self.warn, self.busy = algorithm, warn, 0.0
        # Copies: the method's state is updated in place, and may hold the parameters themselves.
        self._own = jax.tree.map(jnp.copy, begin(algorithm, params, model_state))
        self._refuse_view_of_worker()
        self._view = self._viewed()
        self._log: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._outputs: list[RunOutput] = []
        self._jobs: dict[int, tuple[Job, float]] = {}  # by worker, with the time of reading
        self._returned: list[int] = []  # a heap of tickets to be handed out again
        self._next_ticket = 0
        self._leases = itertools.count(secrets.randbits(48))  # a server that was restarted has others
        self._clock = clock
        self._zero = clock()

    def _refuse_view_of_worker(self) -> None:
        """Raises for a view that depends on the worker: here several may read one version, a replay has one of each."""
        params, state, _ = self._own
        view = jax.make_jaxpr(lambda worker: self.algorithm.view(params, state, worker=worker))(np.int32(0)).jaxpr
        (worker,) = view.invars
        if any(worker in equation.invars for equation in view.eqns) or worker in view.outvars:
            raise ValueError(
                "the view of the algorithm depends on the worker; in a live run several workers may read one version. "
                "Run the method over a trace with asyncflax.run."
            )

    @property
    def num_applied(self) -> int:
        """The updates made so far."""
        return len(self._log["time"])

    @property
    def params(self) -> Any:
        """The server's parameters."""
        return self._own[0]

    @property
    def model_state(self) -> Any:
        """The server's model state."""
        return self._own[2]

    def read(self, worker: int) -> Job | None:
        """The next job of a worker, on the newest parameters; None after the last update.

        A worker that reads before it has delivered begins anew: its ticket is returned first.
        """
        worker = _check.integer("worker", worker, 0, self.num_workers - 1)
        self.forget(worker)
        if self.num_applied >= self.num_updates:
            return None
        if self._returned:
            ticket = heapq.heappop(self._returned)
        else:
            ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        job = Job(ticket, next(self._leases), self.num_applied, self._view, self.model_state)
        self._jobs[worker] = job, self._now()
        return job

    def deliver(self, worker: int, lease: int, result: GradientResult) -> Job | None:
        """Applies a gradient, unless it is not expected; the worker's next job, or None after the last update.

        Args:
          worker: who delivers.
          lease: of the worker's job. A second delivery, one of another lease and one of a forgotten worker are refused
            with a warning; the worker then receives its present job, or a new one.
          result: what the gradient function returned.

        Raises:
          ValueError: the gradients do not match the parameters.
        """
        worker = _check.integer("worker", worker, 0, self.num_workers - 1)
        if self.num_applied >= self.num_updates:
            return None
        job, begun = self._jobs.get(worker, (None, 0.0))
        if job is None or job.lease != lease:
            self.warn(f"worker {worker} delivers a gradient that is not expected from it; it is dropped")
            return self.read(worker) if job is None else job
        staleness = self.num_applied - job.version
        before = self._now()
        *self._own, view, out = _apply(
            self.algorithm, *self._own, result, np.int32(worker), np.int32(staleness), job.params
        )
        self._view = self.params if view is None else view
        jax.block_until_ready(self._view)  # so that the times are those of updates, not of dispatch
        now = self._now()
        self.busy += now - before
        event = (worker, job.version, job.ticket, begun, now)
        for values, value in zip(self._log.values(), event, strict=True):
            values.append(value)
        self._outputs.append(out)
        del self._jobs[worker]
        return self.read(worker)

    def forget(self, worker: int) -> None:
        """Takes the job of a worker back, if it has one; its ticket goes to the next reader."""
        job, _ = self._jobs.pop(worker, (None, 0.0))
        if job is not None:
            heapq.heappush(self._returned, job.ticket)

    def trace(self) -> Trace:
        """The trace of the updates made so far, with tickets and times in seconds.

        Raises:
          ValueError: there are none.
        """
        return Trace(**self._arrays(), num_workers=self.num_workers)

    def outputs(self) -> RunOutput:
        """What the events since the last call have reported, with a leading axis; see `RunOutput`.

        Raises:
          ValueError: there were none.
        """
        outputs, self._outputs = self._outputs, []
        if not outputs:
            raise ValueError("no event since the last call.")
        return jax.tree.map(lambda *x: jnp.stack(x), *outputs)

    def state(self) -> Snapshot:
        """What `restore` needs; the method's state is a copy."""
        params, algorithm, model_state = self._own
        open_tickets = sorted([*self._returned, *(job.ticket for job, _ in self._jobs.values())])
        own = (params, jax.tree.map(jnp.copy, algorithm), model_state)
        return Snapshot(*own, self._arrays(), np.array(open_tickets, np.int32))

    def restore(self, snapshot: Snapshot) -> None:
        """Resumes from a snapshot: open tickets go to the next readers, and the clock continues at the last event.

        Raises:
          ValueError: it is not of this method, or has more updates or workers.
        """
        own = (snapshot.params, snapshot.algorithm, snapshot.model_state)
        _check.like("the snapshot", own, "the state of this server", self._own)
        log = {name: np.asarray(snapshot.log[name]).tolist() for name in _COLUMNS}
        if len(log["time"]) > self.num_updates or max(log["worker"], default=0) >= self.num_workers:
            raise ValueError(
                f"the snapshot has {len(log['time'])} updates of {max(log['worker'], default=0) + 1} workers, "
                f"num_updates={self.num_updates} and num_workers={self.num_workers}."
            )
        self._own, self._log, self._outputs, self._jobs = jax.tree.map(jnp.copy, own), log, [], {}
        self._returned = np.asarray(snapshot.open_tickets).tolist()
        self._next_ticket = 1 + max([*log["ticket"], *self._returned], default=-1)
        self._zero = self._clock() - (log["time"][-1] if log["time"] else 0.0)
        self._view = self._viewed()

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.array(self._log[name], dtype) for name, dtype in _COLUMNS.items()}

    def _now(self) -> float:
        return self._clock() - self._zero

    def _viewed(self) -> Any:
        params, state, _ = self._own
        return params if _is_plain(self.algorithm) else _view(self.algorithm, params, state)


def _is_plain(algorithm: AsyncAlgorithm) -> bool:
    """Whether workers read the server's parameters themselves."""
    return getattr(algorithm.view, "func", None) is server_params


@jax.jit
def _view(algorithm: AsyncAlgorithm, params: Any, state: Any) -> Any:
    return algorithm.view(params, state, worker=None)


@functools.partial(jax.jit, donate_argnums=2)  # parameters are read by workers, the method's state by nobody
def _apply(algorithm, params, state, model_state, result: GradientResult, worker, staleness, read_params):
    """The server after an event, what it hands out if that is not the parameters, and what the event reports."""
    moved, size = metrics.gap(params, read_params), metrics.rms(result.grads)
    event = {"worker": worker, "staleness": staleness, "read_params": read_params}
    params, state, model_state = apply(algorithm, params, state, model_state, result, **event)
    view = None if _is_plain(algorithm) else algorithm.view(params, state, worker=None)
    return params, state, model_state, view, RunOutput(result.loss, staleness, moved, size, result.aux)
