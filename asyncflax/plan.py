"""The plan of a run: where past versions are stored and which gradients are computed together.

Both follow from the trace alone, on the host, before the run.

*Slots.* Version v is kept from its creation to its last read. Slots are allocated by these live ranges, as a compiler
allocates registers: exact, and small. A queue of M workers needs M slots.

*Rounds.* Consecutive events whose versions all exist before the first of them form a round. Their gradients do not
depend on each other, so they are computed in parallel; then they are applied in order. The iterates are those of one
event after the other.

*Chunks.* A chunk is a fixed number of rounds, which one compiled program executes. The planner ends a chunk at every
cut: where the caller evaluates, saves or changes something.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from asyncflax import _check
from asyncflax.trace import Trace


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "first_event",
        "total_events",
        "num_events",
        "num_rounds",
        "round_start",
        "round_size",
        "worker",
        "staleness",
        "read_slot",
        "write_slot",
        "reader",
    ],
    meta_fields=["width", "num_slots", "padded", "exclusive"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """A stretch of a run for one call of `run_chunk`: int32 arrays for up to E events in up to R rounds.

    All chunks of a plan have the same shapes; what lies beyond `num_events` and `num_rounds` is never executed.

    Attributes:
      first_event: [], the index t of the chunk's first event.
      total_events: [], the number of events of the trace, T.
      num_events: [], how many events it has.
      num_rounds: [], how many rounds it has.
      round_start: [R], the position in the chunk of the first event of each round.
      round_size: [R], how many events each round has, at most `width`.
      worker: [E], who delivers.
      staleness: [E], in updates.
      read_slot: [E], where the version that the event reads is stored.
      write_slot: [E], where the version that the event makes will be stored.
      reader: [E], who will read the version that the event makes.
      width: how many gradients are computed together at most.
      num_slots: how many versions are stored at once.
      padded: whether some chunk of the plan has fewer than R rounds.
      exclusive: whether every version after 0 is read by one worker only.

    Example:
      >>> import asyncflax
      >>> chunk = asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=4))[0]
      >>> chunk.read_slot, chunk.write_slot, chunk.num_slots
      (array([0, 0, 1, 0], dtype=int32), array([1, 0, 1, 0], dtype=int32), 2)
    """

    first_event: Any
    total_events: Any
    num_events: Any
    num_rounds: Any
    round_start: Any
    round_size: Any
    worker: Any
    staleness: Any
    read_slot: Any
    write_slot: Any
    reader: Any
    width: int
    num_slots: int
    padded: bool
    exclusive: bool

    @property
    def events(self) -> slice:
        """Which events of the trace the chunk executes."""
        return slice(int(self.first_event), int(self.first_event + self.num_events))

    def take(self, batches: Any) -> Any:
        """The chunk's part of `batches` (PyTree, leading axis T), its last row repeated up to E rows.

        Raises:
          ValueError: a leaf does not have T rows.

        Example: see `run_chunk`.
        """
        _check.rows("batches", batches, int(self.total_events))
        return self.pad(jax.tree.map(lambda x: x[self.events], batches))

    def pad(self, batches: Any) -> Any:
        """The batches of the chunk's own events (PyTree, leading axis `num_events`), the last repeated up to E rows.

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
    """All chunks of a run; `plan[k]` is the k-th.

    Attributes:
      chunks: a `Chunk` whose arrays have a leading axis of chunks.
      num_events: the number of events of the trace, T.
      num_workers: the number of workers of the trace.
      mean_round: how many gradients are computed together on average.

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

    def __len__(self) -> int:
        """The number of chunks."""
        return len(self.chunks.num_events)

    def __getitem__(self, k: int) -> Chunk:
        k = _check.integer("the index of a chunk", k, -len(self))
        if k >= len(self):
            raise IndexError(f"chunk {k} of a plan of {len(self)} chunks.")
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
        """How many gradients are computed together at most."""
        return self.chunks.width

    @property
    def num_slots(self) -> int:
        """How many versions are stored at once."""
        return self.chunks.num_slots


def make_plan(
    trace: Trace,
    *,
    width: int = 1,
    cuts: Iterable[int] = (),
    rounds_per_chunk: int | None = None,
) -> Plan:
    """Plans the run of a trace.

    Args:
      trace: the events.
      width: how many gradients a round may have; 1 executes one event after the other.
      cuts: event indices at which a chunk must begin, for example where the run is evaluated or saved.
      rounds_per_chunk: the size of a chunk; by default that of the longest stretch between cuts.

    Returns:
      a `Plan` whose chunks cover events 0..T-1 in order.

    Raises:
      TypeError: `trace` is no Trace.
      ValueError: width or rounds_per_chunk below 1, a cut outside 0..T.

    Example:
      >>> import asyncflax
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential())
      >>> asyncflax.make_plan(trace, width=8, cuts=range(0, 6400, 1600))
      Plan(6400 events, 64 workers: 4 chunks, width 8, 6.76 events a round, 64 slots)
    """
    _check.instance("trace", trace, Trace, "an asyncflax.Trace (a law makes one with .trace(num_updates=...))")
    width = _check.integer("width", width, 1)
    if not isinstance(cuts, Iterable):
        raise TypeError(f"cuts must be a list of event indices, got {cuts!r}.")
    cuts = sorted({_check.integer("cuts", cut, 0) for cut in cuts})
    if cuts and cuts[-1] > len(trace):
        raise ValueError(f"cuts={cuts[-1]} lies beyond the {len(trace)} events of the trace.")
    bounds = np.array([0, *(cut for cut in cuts if 0 < cut < len(trace)), len(trace)])
    starts = _round_starts(trace.read_version, width, bounds)
    sizes = np.diff(starts, append=len(trace))

    stretch = np.searchsorted(starts, bounds)  # the first round of each stretch between cuts
    rounds = int(np.diff(stretch).max())
    if rounds_per_chunk is not None:
        rounds = min(rounds, _check.integer("rounds_per_chunk", rounds_per_chunk, 1))
    first_round = np.concatenate([np.arange(a, b, rounds) for a, b in itertools.pairwise(stretch)])
    num_rounds = np.diff(first_round, append=len(starts))
    first_event = starts[first_round]
    num_events = np.diff(first_event, append=len(trace))

    slot, num_slots = _allocate_slots(trace.read_version)
    reader, exclusive = _readers(trace)

    def by_round(values: np.ndarray) -> np.ndarray:
        return _rows(values, first_round, num_rounds, rounds)

    def by_event(values: np.ndarray) -> np.ndarray:
        return _rows(values, first_event, num_events, int(num_events.max()))

    chunks = Chunk(
        first_event=first_event.astype(np.int32),
        total_events=np.full(len(first_event), len(trace), np.int32),
        num_events=num_events.astype(np.int32),
        num_rounds=num_rounds.astype(np.int32),
        round_start=by_round(starts - np.repeat(first_event, num_rounds)),
        round_size=by_round(sizes),
        worker=by_event(trace.worker),
        staleness=by_event(trace.staleness),
        read_slot=by_event(slot[trace.read_version]),
        write_slot=by_event(slot[1:]),
        reader=by_event(reader),
        width=width,
        num_slots=num_slots,
        padded=bool(np.any(num_rounds < rounds)),
        exclusive=exclusive,
    )
    return Plan(chunks, len(trace), trace.num_workers, len(trace) / len(starts))


def _allocate_slots(read_version: np.ndarray) -> tuple[np.ndarray, int]:
    """The slot of each version 0..T, and how many slots there are.

    Version v >= 1 is written after event v - 1 and may be overwritten after event last_use[v]. A version that nobody
    reads is written as well and dies at once, which costs at most one slot and spares the engine a condition. The slots
    go round in the order in which they become free.
    """
    num_events = len(read_version)
    last_use = np.arange(num_events + 1)
    last_use[read_version] = np.arange(num_events)  # of repeated indices NumPy keeps the last
    freed_before = np.concatenate([[0], np.cumsum(np.bincount(last_use, minlength=num_events + 1))[:-1]])
    num_slots = int(np.max(np.arange(1, num_events + 2) - freed_before))
    order_of_death = np.argsort(last_use, kind="stable").tolist()
    slot = list(range(num_slots))
    for version in range(num_slots, num_events + 1):
        slot.append(slot[order_of_death[version - num_slots]])
    return np.array(slot[: num_events + 1]), num_slots


def _round_starts(read_version: np.ndarray, width: int, bounds: np.ndarray) -> np.ndarray:
    """The first event of each round: greedy, as long as the versions read exist at the round's start."""
    if width == 1:
        return np.arange(len(read_version))
    reads, starts = read_version.tolist(), []
    for begin, end in itertools.pairwise(bounds.tolist()):
        t = begin
        while t < end:
            start = t
            starts.append(start)
            limit = min(start + width, end)
            t += 1
            while t < limit and reads[t] <= start:
                t += 1
    return np.array(starts)


def _readers(trace: Trace) -> tuple[np.ndarray, bool]:
    """Who reads version t + 1, for each event t (its own worker if nobody does), and whether nobody else reads it."""
    reader = np.append(trace.worker[:1], trace.worker)  # [T + 1], by version
    reader[trace.read_version] = trace.worker
    later = trace.read_version > 0
    exclusive = bool(np.all(reader[trace.read_version[later]] == trace.worker[later]))
    return reader[1:], exclusive


def _rows(values: np.ndarray, first: np.ndarray, count: np.ndarray, length: int) -> np.ndarray:
    """int32 [len(first), length]: the stretches of `values`, filled up with zeros."""
    columns = np.arange(length)
    index = np.minimum(first[:, None] + columns, len(values) - 1)
    return np.where(columns < count[:, None], values[index], 0).astype(np.int32)
