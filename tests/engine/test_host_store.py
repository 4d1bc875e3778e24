"""Versions in host memory and in a ring: the same iterates, and device memory that workers do not fill."""

import collections
import gc

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from hypothesis import given, settings
from problems import METHODS, NUM_EVENTS, SOFTMAX_PARAMS, assert_close, batch_rows

import asyncflax
from asyncflax import queues
from asyncflax.engine import host_store

BATCHES = batch_rows()
TRACES = problems.some_traces()
START = {"key": jax.random.key(7), "model_state": problems.NORM_STATE}
gradient_fn = asyncflax.from_loss(problems.softmax_loss)


@given(problems.traces())
@settings(max_examples=8)
@pytest.mark.parametrize("store, width", [("host", 1), ("host", 4), ("ring", 4)])
def test_any_trace_from_any_store_equals_the_numpy_server(store, width, trace):
    row = METHODS["multi_asgd"]
    plan = asyncflax.make_plan(trace, width=width, store=store, num_slots=NUM_EVENTS)
    state, out = problems.run_with_plan(row.make(), gradient_fn, SOFTMAX_PARAMS, problems.of_one_shape(plan), BATCHES)
    twin = problems.softmax_twin(row, trace, BATCHES)
    assert_close(state.params, twin.theta)
    assert_close(out.losses, twin.losses)


def test_chunks_on_the_host_store_go_on_exactly():
    algorithm = METHODS["multi_asgd"].make()
    plan = asyncflax.make_plan(TRACES["exponential"], width=4, store="host", cuts=[7, 15])
    state = asyncflax.init_run(algorithm, problems.NORM_PARAMS, plan, **START)
    for chunk in plan:
        state, _ = asyncflax.run_chunk(algorithm, problems.norm_gradient, state, chunk, chunk.take(BATCHES))
    whole = asyncflax.run(
        algorithm, problems.norm_gradient, problems.NORM_PARAMS, TRACES["exponential"], BATCHES, **START
    )
    assert_close(state.params, whole.params)
    spaces = {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.slots)}
    assert spaces == {"pinned_host"}


def device_bytes(monkeypatch, num_workers, width=2):
    """The most bytes of arrays in device memory while a run executes, and those of one version.

    In a queue that goes round no version is read in the round after it was made, so that all of them cross over.
    """
    trace = queues.simulate(num_workers=num_workers, num_updates=200, service_time=queues.deterministic())
    params = jnp.zeros(20_000)
    seen, fetch = [], host_store._Versions.fetch

    def watched(self, wanted):
        fetch(self, wanted)
        seen.append(in_use() - before)

    def in_use():
        live = [x for x in jax.live_arrays() if x.sharding.memory_kind != "pinned_host" and x.size >= params.size]
        return sum(x.nbytes for x in live)

    gc.collect()
    before = in_use()
    monkeypatch.setattr(host_store._Versions, "fetch", watched)
    batches = np.zeros(200)
    loss_fn = lambda p, batch: jnp.sum((p - batch) ** 2)
    algorithm = asyncflax.algorithms.momentum_asgd(0.1)
    plan = asyncflax.make_plan(trace, width=width, store="host")
    assert plan.num_slots == num_workers
    state = asyncflax.init_run(algorithm, params, plan)
    state, _ = asyncflax.run_chunk(algorithm, asyncflax.from_loss(loss_fn), state, plan[0], batches)
    jax.block_until_ready(state)
    return max(seen), params.nbytes


def test_device_memory_does_not_depend_on_the_number_of_workers(monkeypatch):
    few, one = device_bytes(monkeypatch, 8)
    many, _ = device_bytes(monkeypatch, 64)
    assert abs(many / few - 1) <= 0.02
    assert many < 12 * one  # 64 slots are not among them


def test_a_version_that_is_read_at_once_never_comes_back_from_the_host(monkeypatch):
    """A constant delay of one round: every version is read in the round after it was made."""
    brought = collections.Counter()
    to_device = host_store.to_device

    def counting(trees):
        brought["rows"] += len(trees)
        return to_device(trees)

    monkeypatch.setattr(host_store, "to_device", counting)
    trace = asyncflax.staleness.constant(3).trace(num_updates=NUM_EVENTS)
    asyncflax.run(METHODS["asgd"].make(), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES, width=4, store="host")
    assert brought["rows"] == 1  # version 0


def test_a_ring_that_is_too_short_is_refused():
    trace = asyncflax.staleness.constant(5).trace(num_updates=NUM_EVENTS)
    with pytest.raises(ValueError, match=r"num_slots=5 is too few: store='ring' needs 6"):
        asyncflax.make_plan(trace, store="ring", num_slots=5)
    assert asyncflax.make_plan(trace, store="ring", num_slots=9).num_slots == 9


def test_a_state_of_another_store_is_refused():
    algorithm = METHODS["asgd"].make()
    plan = asyncflax.make_plan(TRACES["exponential"], store="host")
    state = asyncflax.init_run(algorithm, SOFTMAX_PARAMS, asyncflax.make_plan(TRACES["exponential"]))
    with pytest.raises(ValueError, match=r"versions are on the device, but the plan has store='host'"):
        asyncflax.run_chunk(algorithm, gradient_fn, state, plan[0], BATCHES)
