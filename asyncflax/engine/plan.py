"""The plan of a run: where past versions are stored and which gradients are computed together.

A plan is made from the trace on the host, before the run:

- *Slots.* Version v is kept from its creation to its last read. Slots are allocated by live range, like registers in a
  compiler. A queue of M workers needs M.
- *Rounds.* Consecutive events whose versions all exist before the first of them form a round. Their gradients are
  independent: they are computed in parallel and applied in order, with the iterates of sequential execution.
- *Chunks.* A chunk is a fixed number of rounds, executed by one compiled program. A chunk ends at every cut, where the
  caller evaluates or saves.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from asyncflax import _check, _memory
from asyncflax.engine.forecasts import Cost, best_width, round_ends
from asyncflax.engine.placement import Placement
from asyncflax.trace import Trace

_OF_EVENTS = {"of_events": True}
_STATIC = {"static": True}  # for JAX


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """Input of one call of `run_chunk`: int32 arrays for up to E events in up to R rounds.

    All chunks of a plan have the same shapes; entries beyond `num_events` and `num_rounds` are padding.

    Attributes:
      first_event: [], the index t of the chunk's first event.
      total_events: [], the index of the trace's last event + 1.
      total_tickets: [], the largest ticket of the trace + 1.
      num_events: [], the number of events.
      num_rounds: [], the number of rounds.
      round_start: [R], the position in the chunk of the first event of each round.
      round_size: [R], the number of events of each round, at most `width`.
      ticket: [E], the ticket that determines the batch and the random key of the event.
      worker: [E], the worker that delivers.
      staleness: [E], in updates.
      read_slot: [E], the slot of the version that the event reads.
      write_slot: [E], the slot of the version that the event creates.
      reader: [E], the worker that reads the created version.
      width: the maximum number of gradients computed together.
      num_slots: the number of slots.
      padded: whether some chunk of the plan has fewer than R rounds.
      exclusive: whether every version after 0 is read by one worker only.
      recorded: whether the trace was recorded by a live run, which may have more batches than events.
      placement: the `Placement`: devices and store of versions.

    Example:
      >>> import asyncflax
      >>> chunk = asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=4))[0]
      >>> chunk.read_slot, chunk.write_slot, chunk.num_slots
      (array([0, 0, 1, 0], dtype=int32), array([1, 0, 1, 0], dtype=int32), 2)
    """

    first_event: Any
    total_events: Any
    total_tickets: Any
    num_events: Any
    num_rounds: Any
    round_start: Any
    round_size: Any
    ticket: Any = dataclasses.field(metadata=_OF_EVENTS)
    worker: Any = dataclasses.field(metadata=_OF_EVENTS)
    staleness: Any = dataclasses.field(metadata=_OF_EVENTS)
    read_slot: Any = dataclasses.field(metadata=_OF_EVENTS)
    write_slot: Any = dataclasses.field(metadata=_OF_EVENTS)
    reader: Any = dataclasses.field(metadata=_OF_EVENTS)
    width: int = dataclasses.field(metadata=_STATIC)
    num_slots: int = dataclasses.field(metadata=_STATIC)
    padded: bool = dataclasses.field(metadata=_STATIC)
    exclusive: bool = dataclasses.field(metadata=_STATIC)
    recorded: bool = dataclasses.field(default=False, metadata=_STATIC)
    placement: Placement = dataclasses.field(default_factory=Placement, metadata=_STATIC)

    @classmethod
    def stack(cls, chunks: Sequence[Chunk]) -> Chunk:
        """Stacks chunks of several traces for `jax.vmap`, see `in_axes`: arrays of events get a leading axis.

        Args:
          chunks: at least one, with equal rounds and equal static fields.

        Raises:
          ValueError: the chunks differ in a field that is not stacked.

        Example:
          >>> import asyncflax, jax
          >>> from asyncflax.engine.plan import Chunk
          >>> traces = [asyncflax.staleness.constant(tau).trace(num_updates=6) for tau in (0, 2)]
          >>> chunks = Chunk.stack([asyncflax.make_plan(trace, num_slots=3)[0] for trace in traces])
          >>> chunks.staleness.shape, chunks.num_events.shape
          ((2, 6), ())
          >>> jax.vmap(lambda chunk: chunk.staleness.sum(), in_axes=(chunks.in_axes,))(chunks).tolist()
          [0, 9]
        """
        first, arrays = chunks[0], {}
        for field in dataclasses.fields(cls):
            values = [getattr(chunk, field.name) for chunk in chunks]
            if field.metadata.get("of_events"):
                arrays[field.name] = np.stack(values)
            elif any(np.any(value != values[0]) for value in values[1:]):
                raise ValueError(f"chunks must have the same {field.name} to be stacked, got {_check.shown(values)}.")
        return dataclasses.replace(first, **arrays)

    @property
    def in_axes(self) -> Chunk:
        """The `in_axes` of `jax.vmap` for a chunk returned by `stack`."""
        arrays = [field for field in dataclasses.fields(self) if not field.metadata.get("static")]
        axes = {field.name: 0 if field.metadata.get("of_events") else None for field in arrays}
        return dataclasses.replace(self, **axes)

    @property
    def events(self) -> slice:
        """The events of the trace in this chunk."""
        return slice(int(self.first_event), int(self.first_event + self.num_events))

    @property
    def tickets(self) -> np.ndarray:
        """int32 [num_events]: the tickets of the chunk's events."""
        return np.asarray(self.ticket)[: int(self.num_events)]

    def take(self, batches: Any) -> Any:
        """The rows of `batches` (PyTree, one row per ticket) for the chunk's events, padded to E with the last row.

        Raises:
          ValueError: a leaf does not have T rows or, for a recorded trace, at least the largest ticket + 1.
        """
        tickets, of = self.tickets, "tickets" if self.recorded else "events"
        _check.rows("batches", batches, int(self.total_tickets), at_least=self.recorded, of=of)
        in_order = np.array_equal(tickets, np.arange(tickets[0], tickets[0] + len(tickets)))
        rows = slice(int(tickets[0]), int(tickets[0]) + len(tickets)) if in_order else tickets
        return self.pad(jax.tree.map(lambda x: x[rows], batches))

    def pad(self, batches: Any) -> Any:
        """Pads the batches of the chunk's events (PyTree, leading axis `num_events`) to E rows with the last row.

        Raises:
          ValueError: a leaf does not have `num_events` rows.

        >>> import asyncflax, numpy as np
        >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=5), cuts=[3])
        >>> plan[1].events, plan[1].pad(np.array([3, 4]))
        (slice(3, 5, None), array([3, 4, 4]))
        """
        count = int(self.num_events)
        _check.rows("batches", batches, count)
        capacity = self.worker.shape[-1]
        if capacity == count:
            return batches
        rows = np.minimum(np.arange(capacity), count - 1)
        return jax.tree.map(lambda x: x[rows], batches)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The chunks of a run; `plan[k]` is the k-th.

    Attributes:
      chunks: a `Chunk` whose arrays have a leading axis of chunks.
      num_events: the number of events of the trace, T.
      num_workers: the number of workers of the trace.
      mean_round: the mean number of events in a round.

    Example:
      >>> import asyncflax
      >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=100), width=4, cuts=[50])
      >>> len(plan), plan[1].events, plan.num_slots
      (2, slice(50, 100, None), 4)
    """

    chunks: Chunk
    num_events: int
    num_workers: int
    mean_round: float

    @property
    def events(self) -> range:
        """The events of the plan."""
        end = int(self.chunks.total_events[0])
        return range(end - self.num_events, end)

    @property
    def tickets(self) -> np.ndarray:
        """int32 [num_events]: the tickets of the events of the plan."""
        chunks = self.chunks
        return chunks.ticket[np.arange(chunks.ticket.shape[-1]) < chunks.num_events[:, None]]

    def __len__(self) -> int:
        """The number of chunks."""
        return len(self.chunks.num_events)

    def __getitem__(self, k: int) -> Chunk:
        k = _check.integer("the index of a chunk", k, -len(self))
        if k >= len(self):
            raise IndexError(f"the plan has {len(self)} chunks, got index {k}.")
        return jax.tree.map(lambda x: x[k], self.chunks)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"Plan({self.num_events} events, {self.num_workers} workers: {len(self)} chunks, width {self.width}, "
            f"{self.mean_round:.2f} events a round, {self.num_slots} slots)"
        )

    @property
    def width(self) -> int:
        """The maximum number of gradients computed together."""
        return self.chunks.width

    @property
    def num_slots(self) -> int:
        """The number of versions stored at once."""
        return self.chunks.num_slots

    @property
    def placement(self) -> Placement:
        """The devices of the plan, and the store of versions."""
        return self.chunks.placement

    def summary(
        self,
        params: Any = None,
        state: Any = None,
        *,
        device_groups: int | None = None,
        replicas: int | None = None,
        server: str | None = None,
        fixed: float = 0.0,
        update: float = 0.0,
    ) -> str:
        """Forecasts rounds, devices and speed-up as text; with `params` also traffic and memory.

        Args:
          params: PyTree of arrays or `jax.ShapeDtypeStruct`; None omits traffic and memory.
          state: the method's state, for example `jax.eval_shape(algorithm.init, params)`.
          device_groups, replicas, server: by default the plan's.
          fixed, update: h and u, as in `engine.forecast`.

        Raises:
          TypeError, ValueError: as in `engine.forecast`, `engine.traffic` and `engine.memory`.

        Example:
          >>> import asyncflax, jax, jax.numpy as jnp
          >>> trace = asyncflax.queues.simulate(
          ...     num_workers=64, num_updates=6400, service_time=asyncflax.queues.exponential()
          ... )
          >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
          >>> print(asyncflax.make_plan(trace, width=8).summary(params, params, device_groups=8, server="sharded"))
          trace     6,400 events of 64 workers
          rounds    946 of width 8, 6.77 events each, 84.6 % of the lanes filled
          devices   8 devices: 8 groups of 1, sharded server
          speed-up  6.77 expected over one device, one event after the other
          versions  64 at once, in slots on the device
          <BLANKLINE>
          on one device                        replicated      [sharded]
          receives in a round                       28 MB          7 MB
            from other groups                       28 MB          7 MB
          keeps, without activations               336 MB         49 MB
            server's parameters                      4 MB        500 kB
            method's state                           4 MB        500 kB
            versions                               256 MB         32 MB
            the round in progress                   72 MB         16 MB
          keeps in host memory                        0 B           0 B
        """
        from asyncflax.engine.report import summary

        place = self.placement
        groups = place.groups if device_groups is None else device_groups
        cost = Cost(groups, place.replicas if replicas is None else replicas, fixed, update)
        return summary(self, cost, place.server if server is None else server, params, state)

    def place(self, tree: Any) -> Any:
        """Copies arrays (PyTree) to every device of the mesh, for example a data set in a gradient function.

        Otherwise `run_chunk` copies them in each call. Without a mesh the arrays stay where they are.

        >>> import asyncflax
        >>> asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=100)).place(1.0)
        1.0
        """
        return self.placement.put(tree)

    def chunks_from(self, event: int) -> Iterator[Chunk]:
        """The chunks from `event` on, to resume a saved state.

        Raises:
          ValueError: no chunk begins there, because the state was saved with another width or other cuts.

        >>> import asyncflax
        >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=100), cuts=[50])
        >>> [chunk.events for chunk in plan.chunks_from(50)]
        [slice(50, 100, None)]
        """
        event = _check.integer("event", event, 0)
        first = self.chunks.first_event
        if event not in first and event != self.events.stop:
            before = first[first < event].max(initial=0)
            raise ValueError(
                f"the state is at event {event}, where no chunk of this plan begins (width={self.width}; the previous "
                f"chunk begins at event {before}); make the plan with the width and the cuts of the saved state, or "
                f"with cuts=[{event}, ...]."
            )
        return (chunk for chunk in self if chunk.first_event >= event)


def make_plan(
    trace: Trace,
    *,
    width: int | None = 1,
    mesh: Mesh | None = None,
    server: str = "replicated",
    store: str = "device",
    num_slots: int | None = None,
    cuts: Iterable[int] = (),
    rounds_per_chunk: int | None = None,
    first_event: int = 0,
) -> Plan:
    """Plans the run of a trace.

    Args:
      trace: the events.
      width: the maximum number of gradients in a round; 1 executes events one by one. None takes one per device group,
        the fastest if a group computes its lanes one by one (see `engine.best_width`).
      mesh: the devices, from `make_mesh`; its groups share the gradients of a round. None runs on one device.
      server: 'replicated' keeps the whole server on every device, 'sharded' a part on each.
      store: the store of versions: 'device', slots on the device; 'ring', a ring buffer there, version v at v modulo
        its length; 'host', slots in host memory, so that device memory does not depend on their number.
      num_slots: the number of slots; by default as many as needed. Traces with the same number share a program.
      cuts: event indices at which a chunk must begin, for example where the run is evaluated or saved.
      rounds_per_chunk: the size of a chunk; by default the longest stretch between cuts.
      first_event: the index of the first event if the trace continues another one (`init_run` with
        `algorithm_state`); cuts are relative to it.

    Returns:
      A `Plan` whose chunks cover the events in order.

    Raises:
      TypeError: `trace` is not a Trace.
      ValueError: width or rounds_per_chunk is below 1, a cut is outside 0..T, the width is not a multiple of the number
        of groups, the mesh lacks its axes, or there are fewer slots than versions.

    Example:
      >>> import asyncflax
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential())
      >>> asyncflax.make_plan(trace, width=8, cuts=range(0, 6400, 1600))
      Plan(6400 events, 64 workers: 4 chunks, width 8, 6.76 events a round, 64 slots)
    """
    _check.instance("trace", trace, Trace, "an asyncflax.Trace, for example from queues.simulate")
    placement = Placement(mesh, server, store)
    if width is None:
        width = best_width(trace, placement.groups, replicas=placement.replicas).width
    width = _check.integer("width", width, 1)
    if width % placement.groups:
        raise ValueError(
            f"width={width} cannot be divided over the device_groups={placement.groups} of the mesh; use a multiple, "
            "or None for one gradient per group (config.width=0)."
        )
    cuts = sorted({*_check.integers("cuts", cuts, 0)})
    if cuts and cuts[-1] > len(trace):
        raise ValueError(f"cuts={cuts[-1]} exceeds the {len(trace)} events of the trace.")
    bounds = np.array([0, *(cut for cut in cuts if 0 < cut < len(trace)), len(trace)])
    starts = _round_starts(trace, width, bounds)
    sizes = np.diff(starts, append=len(trace))

    stretch = np.searchsorted(starts, bounds)  # the first round of each stretch between cuts
    rounds = int(np.diff(stretch).max())
    if rounds_per_chunk is not None:
        rounds = min(rounds, _check.integer("rounds_per_chunk", rounds_per_chunk, 1))
    first_event = _check.integer("first_event", first_event, 0, _check.LARGEST - len(trace))
    first_round = np.concatenate([np.arange(a, b, rounds) for a, b in itertools.pairwise(stretch)])
    num_rounds = np.diff(first_round, append=len(starts))
    begins = starts[first_round]
    num_events = np.diff(begins, append=len(trace))
    stretches = "cuts" if rounds_per_chunk is None else "rounds_per_chunk"
    shape = len(first_round), rounds, int(num_events.max())  # all chunks are padded to the longest
    size = 20 * len(trace) + 4 * shape[0] * (2 * rounds + 6 * shape[2]) + 24 * shape[0] * max(shape[1:])
    _memory.need(stretches, shape[0], size, f"a plan of {shape[0]} chunks of up to {shape[2]} events")

    num_slots = None if num_slots is None else _check.integer("num_slots", num_slots, 1)
    slot, needed = _in_a_ring(trace, num_slots) if store == "ring" else _allocate_slots(trace.read_version)
    if num_slots is not None and num_slots < needed:
        raise ValueError(f"num_slots={num_slots} is too few: store={store!r} needs {needed} for this trace.")
    reader, exclusive = _readers(trace)

    def by_round(values: np.ndarray) -> np.ndarray:
        return _rows(values, first_round, num_rounds, rounds)

    def by_event(values: np.ndarray) -> np.ndarray:
        return _rows(values, begins, num_events, int(num_events.max()))

    chunks = Chunk(
        first_event=(first_event + begins).astype(np.int32),
        total_events=np.full(len(begins), first_event + len(trace), np.int32),
        total_tickets=np.full(len(begins), first_event + trace.num_tickets, np.int32),
        num_events=num_events.astype(np.int32),
        num_rounds=num_rounds.astype(np.int32),
        round_start=by_round(starts - np.repeat(begins, num_rounds)),
        round_size=by_round(sizes),
        ticket=by_event(first_event + trace.ticket),
        worker=by_event(trace.worker),
        staleness=by_event(trace.staleness),
        read_slot=by_event(slot[trace.read_version]),
        write_slot=by_event(slot[1:]),
        reader=by_event(reader),
        width=width,
        num_slots=needed if num_slots is None else num_slots,
        padded=bool(np.any(num_rounds < rounds)),
        exclusive=exclusive,
        recorded=trace.recorded,
        placement=placement,
    )
    return Plan(chunks, len(trace), trace.num_workers, len(trace) / len(starts))


def _allocate_slots(read_version: np.ndarray) -> tuple[np.ndarray, int]:
    """The slot of each version 0..T, and the number of slots.

    Version v >= 1 is written after event v - 1 and may be overwritten after event last_use[v]. A version that is never
    read is also written and freed at once, which costs at most one slot and spares the engine a condition. Slots are
    reused in the order in which they become free.
    """
    num_events = len(read_version)
    last_use = np.arange(num_events + 1)
    last_use[read_version] = np.arange(num_events)  # NumPy keeps the last value of repeated indices
    freed_before = np.concatenate([[0], np.cumsum(np.bincount(last_use, minlength=num_events + 1))[:-1]])
    num_slots = int(np.max(np.arange(1, num_events + 2) - freed_before))
    order_of_death = np.argsort(last_use, kind="stable").tolist()
    slot = list(range(num_slots))
    for version in range(num_slots, num_events + 1):
        slot.append(slot[order_of_death[version - num_slots]])
    return np.array(slot[: num_events + 1]), num_slots


def _in_a_ring(trace: Trace, capacity: int | None) -> tuple[np.ndarray, int]:
    """The slot of each version 0..T in a ring buffer, and its minimum length: the largest staleness + 1."""
    needed = int(trace.staleness.max()) + 1
    return np.arange(len(trace) + 1) % max(capacity or needed, needed), needed


def _round_starts(trace: Trace, width: int, bounds: np.ndarray) -> np.ndarray:
    """The first event of each round; rounds extend as long as all versions read exist at their start."""
    if width == 1:
        return np.arange(len(trace))
    ends, starts = round_ends(trace), []
    for begin, end in itertools.pairwise(bounds.tolist()):
        t = begin
        while t < end:
            starts.append(t)
            t = min(ends[t], t + width, end)
    return np.array(starts)


def _readers(trace: Trace) -> tuple[np.ndarray, bool]:
    """The reader of version t + 1 for each event t (by default its worker), and whether each has at most one."""
    reader = np.append(trace.worker[:1], trace.worker)  # [T + 1], by version
    reader[trace.read_version] = trace.worker
    later = trace.read_version > 0
    exclusive = bool(np.all(reader[trace.read_version[later]] == trace.worker[later]))
    return reader[1:], exclusive


def _rows(values: np.ndarray, first: np.ndarray, count: np.ndarray, length: int) -> np.ndarray:
    """int32 [len(first), length]: segments of `values`, padded with zeros."""
    columns = np.arange(length)
    index = np.minimum(first[:, None] + columns, len(values) - 1)
    return np.where(columns < count[:, None], values[index], 0).astype(np.int32)
