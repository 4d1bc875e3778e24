"""Every rule of the table of methods against its twin, by replay: all traces, rates, schedules, bounds, identities."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from hypothesis import given
from problems import MAIN_METHODS, METHODS, SOFTMAX_PARAMS, assert_close, batch_rows
from replay import replay

import asyncflax

BATCHES = batch_rows()
TRACES = problems.some_traces()

all_methods = pytest.mark.parametrize("row", METHODS.values(), ids=METHODS.keys())


def queue_of(row):
    """A trace for which the method is made: synchronous rounds for ssgd."""
    return TRACES["barrier" if row.name.startswith("ssgd") else "exponential"]


@all_methods
def test_on_every_kind_of_trace(row):
    for trace in TRACES.values():
        for learning_rate, momentum in ((0.3, 0.6), (0.07, -0.25)):
            found = replay(row.make(learning_rate, momentum), trace, BATCHES)
            twin = problems.softmax_twin(row, trace, BATCHES, learning_rate=learning_rate, momentum=momentum)
            assert_close(found.theta, twin.theta)
            assert_close(found.losses, twin.losses)


@pytest.mark.parametrize("row", MAIN_METHODS.values(), ids=MAIN_METHODS.keys())
@given(problems.traces())
def test_on_any_trace(row, trace):
    found, twin = replay(row.make(), trace, BATCHES), problems.softmax_twin(row, trace, BATCHES)
    assert_close(found.theta, twin.theta)
    assert_close(found.losses, twin.losses)


@all_methods
def test_schedules_count_server_updates(row):
    schedule, trace = lambda count: 0.3 * 0.9**count, queue_of(row)
    twin = problems.softmax_twin(row, trace, BATCHES, learning_rate=schedule)
    assert_close(replay(row.make(schedule), trace, BATCHES).theta, twin.theta, 1e-10)


@pytest.mark.parametrize("row", [m for m in METHODS.values() if m.has_momentum], ids=lambda m: m.name)
@pytest.mark.parametrize("momentum", [1.0, -1.0])
def test_momentum_at_its_bounds(row, momentum):
    trace = queue_of(row)
    twin = problems.softmax_twin(row, trace, BATCHES, learning_rate=0.01, momentum=momentum)
    assert_close(replay(row.make(0.01, momentum), trace, BATCHES).theta, twin.theta, 1e-10)


@pytest.mark.parametrize("row", [m for m in METHODS.values() if m.textbook], ids=lambda m: m.name)
def test_one_synchronous_worker_is_the_textbook_method(row):
    """Without staleness a method is SGD, heavy ball or Nesterov, as Optax has them."""
    trace = asyncflax.staleness.constant(0).trace(num_updates=len(BATCHES))
    decay = optax.add_decayed_weights(dict(row.options).get("weight_decay", 0.0))
    momentum = 0.6 if row.has_momentum else 0.0
    # At a constant learning rate the two forms of momentum agree. Optax keeps the look-ahead, and decays it.
    twin = optax.chain(decay, optax.sgd(0.3, momentum, nesterov=row.textbook != "heavy_ball"))
    found = replay(row.make(0.3, 0.6, num_workers=1), trace, BATCHES)
    want = replay(asyncflax.from_optax(twin), trace, BATCHES)
    assert_close(found.losses, want.losses)
    if row.textbook != "lookahead":
        assert_close(found.theta, want.theta)


@pytest.mark.parametrize("name", ["multi_asgd", "nag_asgd", "dana_dc", "ormo", "gap_aware_asgd", "smega2"])
def test_a_replay_is_a_run(name):
    """The loop of the tests and the engine are the same thing."""
    algorithm = METHODS[name].make()
    found = replay(algorithm, TRACES["assigned"], BATCHES)
    gradient_fn = asyncflax.from_loss(problems.softmax_loss)
    result = asyncflax.run(algorithm, gradient_fn, SOFTMAX_PARAMS, TRACES["assigned"], BATCHES, width=4)
    assert_close(result.params, found.theta)
    assert_close(result.losses, found.losses)
    state = lambda tree: [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    assert_close(state(result.state), state(found.state))


def test_the_replay_can_fail():
    trace = TRACES["exponential"]
    late = asyncflax.Trace(trace.worker, np.maximum(trace.read_version - 1, 0), num_workers=4)
    twin = problems.softmax_twin(METHODS["asgd"], trace, BATCHES)
    found = replay(METHODS["asgd"].make(), late, BATCHES)
    assert jnp.max(jnp.abs(found.theta - twin.theta)) > 1e-3
