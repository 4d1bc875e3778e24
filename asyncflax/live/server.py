"""The server of a live run: tickets out, gradients in, and a trace of what happened.

It has no threads and does no I/O. Its driver (threads, actors, a test) calls one method at a time, and the recorded
trace replays in `engine.run`: gradients are applied in the order of the log by the engine's own function, and the
batch and the random key of a gradient belong to its ticket, which is handed out with the parameters.
"""

from __future__ import annotations

import array
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
from asyncflax.engine.step import RunOutput, apply, compute
from asyncflax.gradients import GradientResult
from asyncflax.live.packed import Packed, pack
from asyncflax.trace import Trace

__all__ = ["Gradient", "Job", "Read", "Server", "Snapshot", "gradient"]

# Typed arrays, which a snapshot copies at once: of lists each cut of a long run would convert all events again.
_COLUMNS = {"worker": "i", "read_version": "i", "ticket": "i", "begun": "d", "time": "d"}


class Read(NamedTuple):
    """The version that a server hands out with a job.

    Attributes:
      params: `Packed`, the parameters.
      model_state: `Packed`, the model state.
    """

    params: Packed
    model_state: Packed


class Gradient(NamedTuple):
    """A delivery of a worker.

    Attributes:
      grads: `Packed`, the gradients.
      rest: `Packed`, the `GradientResult` without grads.
    """

    grads: Packed
    rest: Packed


class Job(NamedTuple):
    """A gradient for a worker to compute.

    Attributes:
      ticket: int, which determines the batch and the random key of the gradient.
      lease: int, unique to the job: a ticket that is handed out again gets a new lease.
      version: int, the number of updates in the version handed out.
      read: `Read`, the version to compute on.
    """

    ticket: int
    lease: int
    version: int
    read: Read

    @property
    def params(self) -> Any:
        """PyTree, the parameters to compute on: the method's view of the server's."""
        return _unpack(self.read.params)

    @property
    def model_state(self) -> Any:
        """PyTree or None, the model state to compute on."""
        return _unpack(self.read.model_state)


class Snapshot(NamedTuple):
    """Everything that a server needs to resume.

    Attributes:
      params: PyTree, the server's parameters.
      algorithm: the method's state.
      model_state: PyTree, or None.
      log: the arrays of the events so far, by name: worker, read_version, ticket, begun, time.
      open_tickets: int32 [n], the tickets handed out and not delivered.
    """

    params: Any
    algorithm: Any
    model_state: Any
    log: dict[str, np.ndarray]
    open_tickets: np.ndarray


class Server:
    """Runs a method: hands out jobs, applies the deliveries, records the trace.

    A worker reads, computes, delivers, and receives its next job in return. Workers may come and go: the ticket of a
    forgotten worker goes to the next reader. A delivery is applied at most once. After `num_updates` updates the server
    hands out no more jobs; gradients still being computed are dropped.

    Not thread-safe: calls must not overlap.

    Args:
      algorithm: the method. Its view must be the same for all workers, as that of every method in `algorithms` is.
      params: PyTree of arrays, the initial parameters.
      num_workers: the maximum number of workers; ids are below it.
      num_updates: T, the number of updates.
      model_state: PyTree of arrays that gradients do not train, or None.
      clock: a function that returns seconds; only differences matter.
      warn: a function that is called with a message when a delivery is rejected.

    Attributes:
      num_applied: the number of updates so far.
      device: the device of the server, that of the parameters.
      busy: the seconds spent on updates.

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
        _check.arrays("model_state", model_state, "pass JAX or NumPy arrays.")
        _check.function("clock", clock, " that returns seconds")
        _check.function("warn", warn, " of a message")
        self.num_workers = _check.integer("num_workers", num_workers, 1)
        self.num_updates = _check.integer("num_updates", num_updates, 1)
        if algorithm.num_workers is not None and num_workers > algorithm.num_workers:
            raise ValueError(f"num_workers={num_workers}, but the algorithm was built for {algorithm.num_workers}.")
        self.algorithm, self.warn, self.busy = algorithm, warn, 0.0
        params, state, model_state = begin(algorithm, params, model_state)
        _refuse_view_of_worker(algorithm, params, state)
        (self.device,) = jax.tree.leaves(_pack(params))[0].devices()
        self._hold(params, state, model_state)
        self._log = {name: array.array(kind) for name, kind in _COLUMNS.items()}
        self._outputs: list[RunOutput] = []
        self._jobs: dict[int, tuple[Job, float]] = {}  # by worker, with the time of the read
        self._returned: list[int] = []  # a heap of tickets to be handed out again
        self._next_ticket = 0
        self._leases = itertools.count(secrets.randbits(48))  # a restarted server has others
        self._clock, self._zero, self._last = clock, clock(), 0.0

    @property
    def num_applied(self) -> int:
        """The number of updates so far."""
        return len(self._log["time"])

    @property
    def params(self) -> Any:
        """PyTree, the server's parameters."""
        return _unpack(self._model.params)

    @property
    def model_state(self) -> Any:
        """PyTree, the server's model state, or None."""
        return _unpack(self._model.model_state)

    @property
    def latest(self) -> Read:
        """What a worker would read now."""
        return self._read

    def warm_up(self, delivered: Gradient) -> None:
        """Compiles the update and then sets the clock to the last event, so that times are those of computation.

        Args:
          delivered: a gradient like those to come; its values do not matter.
        """
        state, event = jax.tree.map(jnp.copy, self._state), (np.int32(0), np.int32(0))
        jax.block_until_ready(_apply(self.algorithm, self._model, state, self._read, delivered, *event))
        self._zero = self._clock() - self._last

    def read(self, worker: int) -> Job | None:
        """The next job of a worker, on the newest parameters; None after the last update.

        If a worker reads before it has delivered, its open ticket is returned first.
        """
        worker = _check.integer("worker", worker, 0, self.num_workers - 1)
        self.forget(worker)
        if self.num_applied >= self.num_updates:
            return None
        if self._returned:
            ticket = heapq.heappop(self._returned)
        else:
            ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        job = Job(ticket, next(self._leases), self.num_applied, self._read)
        self._jobs[worker] = job, self._now()
        return job

    def deliver(self, worker: int, lease: int, result: GradientResult | Gradient) -> Job | None:
        """Applies an expected gradient; returns the worker's next job, or None after the last update.

        Args:
          worker: the worker that delivers.
          lease: the lease of its job. A second delivery, another lease or a forgotten worker is rejected with a
            warning; the worker then receives its current job, or a new one.
          result: the result of the gradient function, or of `gradient`.

        Raises:
          ValueError: the gradients do not match the parameters.
        """
        worker = _check.integer("worker", worker, 0, self.num_workers - 1)
        if self.num_applied >= self.num_updates:
            return None
        job, begun = self._jobs.get(worker, (None, 0.0))
        if job is None or job.lease != lease:
            self.warn(f"worker {worker} delivered an unexpected gradient, which is dropped")
            return self.read(worker) if job is None else job
        staleness = self.num_applied - job.version
        before = self._now()
        gradient = result if isinstance(result, Gradient) else _packed(result)
        event = (np.int32(worker), np.int32(staleness))
        self._model, self._state, out = _apply(self.algorithm, self._model, self._state, job.read, gradient, *event)
        self._read = self._handed_out()
        jax.block_until_ready(self._read)  # so that times include the updates, not only their dispatch
        now = self._now()
        self.busy += now - before
        row = (worker, job.version, job.ticket, begun, now)
        for values, value in zip(self._log.values(), row, strict=True):
            values.append(value)
        self._outputs.append(out)
        del self._jobs[worker]
        return self.read(worker)

    def forget(self, worker: int) -> None:
        """Revokes the job of a worker, if it has one; its ticket goes to the next reader."""
        job, _ = self._jobs.pop(worker, (None, 0.0))
        if job is not None:
            heapq.heappush(self._returned, job.ticket)

    def trace(self) -> Trace:
        """The trace of the updates so far, with tickets and times in seconds.

        Raises:
          ValueError: there are no updates.
        """
        return Trace(**self._arrays(), num_workers=self.num_workers)

    def outputs(self) -> RunOutput:
        """The reports of the events since the last call: a `RunOutput` of NumPy arrays with a leading axis.

        Raises:
          ValueError: there were no events.
        """
        outputs, self._outputs = self._outputs, []
        if not outputs:
            raise ValueError("there were no events since the last call.")
        return jax.tree.map(lambda *x: np.stack([np.asarray(one) for one in x]), *outputs)

    def state(self) -> Snapshot:
        """A copy of everything that `restore` needs."""
        open_tickets = sorted([*self._returned, *(job.ticket for job, _ in self._jobs.values())])
        own = (self.params, _unpack(self._state), self.model_state)
        return Snapshot(*own, self._arrays(), np.array(open_tickets, np.int32))

    def restore(self, snapshot: Snapshot) -> None:
        """Resumes from a snapshot: open tickets go to the next readers, and the clock continues at the last event.

        Raises:
          ValueError: the snapshot is of another method, or has more updates or workers.
        """
        own = (snapshot.params, snapshot.algorithm, snapshot.model_state)
        here = (self._model.params, self._state, self._model.model_state)
        shapes = tuple(jax.eval_shape(Packed.unpack, part) for part in here)
        _check.like("the snapshot", own, "the state of this server", shapes)
        log = {name: array.array(kind, np.asarray(snapshot.log[name]).tolist()) for name, kind in _COLUMNS.items()}
        if len(log["time"]) > self.num_updates or max(log["worker"], default=0) >= self.num_workers:
            raise ValueError(
                f"the snapshot has {len(log['time'])} updates of {max(log['worker'], default=0) + 1} workers, "
                f"but num_updates={self.num_updates} and num_workers={self.num_workers}."
            )
        self._hold(snapshot.params, snapshot.algorithm, snapshot.model_state)
        self._log, self._outputs, self._jobs = log, [], {}
        self._returned = np.asarray(snapshot.open_tickets).tolist()
        self._next_ticket = 1 + max([*log["ticket"], *self._returned], default=-1)
        self._last = log["time"][-1] if log["time"] else 0.0
        self._zero = self._clock() - self._last

    def _hold(self, params: Any, state: Any, model_state: Any) -> None:
        """Takes parameters and state, committed to the server's device as they are after an update: one program."""
        packed = jax.device_put((_pack(params), _pack(model_state), _pack(state)), self.device)
        self._model, self._state = Read(*packed[:2]), packed[2]
        self._read = self._handed_out()

    def _handed_out(self) -> Read:
        """The version that workers read now."""
        if _is_plain(self.algorithm):
            return self._model
        return self._model._replace(params=_view(self.algorithm, self._model.params, self._state))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.array(values) for name, values in self._log.items()}

    def _now(self) -> float:
        """Seconds since the start; never less than before, by rounding or by a clock that was set back."""
        self._last = max(self._last, self._clock() - self._zero)
        return self._last


def _refuse_view_of_worker(algorithm: AsyncAlgorithm, params: Any, state: Any) -> None:
    """Raises for a view that depends on the worker: several may read one version, but a replay has one copy of each."""
    view = jax.make_jaxpr(lambda worker: algorithm.view(params, state, worker=worker))(np.int32(0)).jaxpr
    (worker,) = view.invars
    if any(worker in equation.invars for equation in view.eqns) or worker in view.outvars:
        raise ValueError(
            "the view of the algorithm depends on the worker, but in a live run several workers may read one version; "
            "run the method over a trace with asyncflax.run."
        )


def _is_plain(algorithm: AsyncAlgorithm) -> bool:
    """Whether workers read the server's parameters themselves."""
    return getattr(algorithm.view, "func", None) is server_params


_pack, _unpack = jax.jit(pack), jax.jit(Packed.unpack)


@jax.jit
def _packed(result: GradientResult) -> Gradient:
    return Gradient(pack(result.grads), pack(result._replace(grads=None)))


@jax.jit
def gradient(gradient_fn: Any, key: jax.Array, read: Read, batch: Any, ticket: Any, worker: Any) -> Gradient:
    """Computes the gradient of a job in one compiled program, packed for delivery.

    Args:
      gradient_fn: see `gradients`.
      key: a typed JAX key; a ticket uses fold_in(key, ticket).
      read: `Job.read`.
      batch: PyTree, the batch of the ticket.
      ticket, worker: int32 [].

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> from asyncflax import live
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.sum((w - batch) ** 2))
      >>> server = live.Server(asyncflax.algorithms.asgd(0.25), jnp.zeros(2), num_workers=1, num_updates=1)
      >>> job = server.read(worker=0)
      >>> delivery = live.gradient(gradient_fn, jax.random.key(0), job.read, jnp.ones(2), job.ticket, 0)
      >>> server.deliver(0, job.lease, delivery), server.params
      (None, Array([0.5, 0.5], dtype=float32))
    """
    return _packed(compute(gradient_fn, key, (read.params.unpack(), read.model_state.unpack()), batch, ticket, worker))


@jax.jit
def _view(algorithm: AsyncAlgorithm, params: Packed, state: Packed) -> Packed:
    return pack(algorithm.view(params.unpack(), state.unpack(), worker=None))


@functools.partial(jax.jit, donate_argnums=2)  # workers read the parameters, but not the method's state
def _apply(algorithm, model: Read, state: Packed, read: Read, delivered: Gradient, worker, staleness):
    """The server after an event, and the reports of the event."""
    # Of the few buffers; for the leaves it would take as long as the update.
    moved, size = metrics.gap(model.params.buffers, read.params.buffers), metrics.rms(delivered.grads.buffers)
    result = delivered.rest.unpack()._replace(grads=delivered.grads.unpack())
    event = {"worker": worker, "staleness": staleness, "read_params": read.params.unpack()}
    own = (model.params.unpack(), state.unpack(), model.model_state.unpack())
    params, after, model_state = apply(algorithm, *own, result, **event)
    out = RunOutput(result.loss, staleness, moved, size, result.aux)
    return Read(pack(params), pack(model_state)), pack(after), out
