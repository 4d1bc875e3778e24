"""Slots, rounds, chunks and cuts, against their definitions."""

import dataclasses

import numpy as np
import problems
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncflax
from asyncflax import queues, staleness
from asyncflax.engine.plan import Chunk, make_plan


@given(problems.traces())
def test_slots_hold_every_version_until_its_last_read_and_are_no_more_than_needed(trace):
    """Plays the trace: an event reads what was written for its version; no plan could do with fewer slots."""
    chunk = asyncflax.make_plan(trace)[0]
    slots = {0: 0}
    for t in range(len(trace)):
        assert slots[int(chunk.read_slot[t])] == trace.read_version[t]
        slots[int(chunk.write_slot[t])] = t + 1
        if t == 0:
            assert chunk.num_slots >= 1
    assert set(slots) <= set(range(chunk.num_slots))
    live = [len({int(v) for v in trace.read_version[t:] if v <= t} | {t}) for t in range(len(trace))]
    assert chunk.num_slots == max(live)


@given(problems.traces(), st.integers(1, 9), st.sets(st.integers(0, problems.NUM_EVENTS)), st.integers(1, 5))
def test_rounds_chunks_and_cuts(trace, width, cuts, rounds_per_chunk):
    for rounds in (None, rounds_per_chunk):
        plan = asyncflax.make_plan(trace, width=width, cuts=cuts, rounds_per_chunk=rounds)
        starts, sizes, first = [], [], 0
        for chunk in plan:
            assert chunk.first_event == first
            assert 1 <= chunk.num_rounds <= len(chunk.round_start)
            begin = chunk.round_start[: chunk.num_rounds]
            size = chunk.round_size[: chunk.num_rounds]
            assert begin[0] == 0 and np.array_equal(begin[1:], np.cumsum(size)[:-1])
            assert size.sum() == chunk.num_events
            if rounds is not None:
                assert len(chunk.round_start) <= rounds
            starts.extend(first + begin)
            sizes.extend(size)
            np.testing.assert_array_equal(chunk.staleness[: chunk.num_events], trace.staleness[chunk.events])
            np.testing.assert_array_equal(chunk.worker[: chunk.num_events], trace.worker[chunk.events])
            first += chunk.num_events
        assert first == len(trace)
        chunk_starts = {chunk.events.start for chunk in plan}
        assert {cut for cut in cuts if cut < len(trace)} <= chunk_starts
        for start, size in zip(starts, sizes, strict=True):
            assert 1 <= size <= width
            assert np.all(trace.read_version[start : start + size] <= start)
            end = start + size  # greedy: a round ends only because it has to
            if end < len(trace) and size < width and end not in chunk_starts:
                assert trace.read_version[end] > start


@given(problems.traces(), st.sets(st.integers(0, problems.NUM_EVENTS)))
def test_a_chunk_takes_its_batches(trace, cuts):
    plan = asyncflax.make_plan(trace, cuts=cuts)
    batches = {"x": np.arange(len(trace)) * 10}
    capacity = plan[0].worker.shape[0]
    taken = [chunk.take(batches)["x"] for chunk in plan]
    assert all(len(x) == capacity for x in taken)
    used = [x[: chunk.num_events] for x, chunk in zip(taken, plan, strict=True)]
    np.testing.assert_array_equal(np.concatenate(used), batches["x"])


def test_a_queue_needs_one_slot_a_worker():
    for law in (queues.exponential(), queues.deterministic(), queues.heterogeneous_gamma()):
        trace = queues.simulate(num_workers=16, num_updates=2000, service_time=law)
        assert asyncflax.make_plan(trace).num_slots == 16


def test_a_law_needs_far_fewer_slots_than_a_ring():
    trace = asyncflax.staleness.geometric(63.0).trace(num_updates=20_000)
    plan = asyncflax.make_plan(trace)
    assert plan.num_slots < 90 and trace.staleness.max() > 500


@pytest.mark.parametrize(
    "num_workers, law, length",
    [(64, queues.exponential(), 6.87), (8, queues.exponential(), 3.22), (8, queues.gamma(0.1), 7.74)],
)
def test_asynchrony_is_parallelism(num_workers, law, length):
    trace = queues.simulate(num_workers=num_workers, num_updates=20_000, service_time=law)
    assert asyncflax.make_plan(trace, width=8).mean_round == pytest.approx(length, rel=0.02)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 0}, "width must be an integer >= 1, got width=0"),
        ({"cuts": [-1]}, "cuts must be an integer >= 0"),
        ({"cuts": [99]}, "cuts=99 exceeds the 10 events"),
        ({"rounds_per_chunk": 0}, "rounds_per_chunk must be an integer >= 1"),
    ],
)
def test_bad_input_is_one_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=10), **options)


def test_a_chunk_that_does_not_exist():
    plan = asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=10), cuts=[5])
    assert plan[-1].events == slice(5, 10)
    with pytest.raises(IndexError, match="the plan has 2 chunks, got index 2"):
        plan[2]
    with pytest.raises(TypeError, match="the index of a chunk must be a concrete integer"):
        plan[0:1]
    with pytest.raises(TypeError, match="cuts must be a list of integers, got 5"):
        asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=10), cuts=5)


def test_chunks_are_stacked_field_by_field():
    """Arrays with a place for each event are stacked; what else differs is refused, a field of tomorrow included."""
    plans = [make_plan(staleness.constant(tau).trace(num_updates=6), num_slots=3, cuts=[4]) for tau in (0, 2)]
    chunks = [plan[0] for plan in plans]
    stacked, axes = Chunk.stack(chunks), Chunk.stack(chunks).in_axes
    for field in dataclasses.fields(Chunk):
        one, both = getattr(chunks[0], field.name), getattr(stacked, field.name)
        of_events = isinstance(one, np.ndarray) and one.shape == (4,) and not field.name.startswith("round_")
        assert np.shape(both) == ((2, 4) if of_events else np.shape(one)), field.name
        if isinstance(one, np.ndarray | np.generic):
            assert getattr(axes, field.name) == (0 if of_events else None)
    for other in (
        plans[1][1],
        dataclasses.replace(chunks[1], num_slots=4),
        dataclasses.replace(chunks[1], exclusive=False),
    ):
        with pytest.raises(ValueError, match="chunks must have the same"):
            Chunk.stack([chunks[0], other])
