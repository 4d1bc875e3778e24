"""Rounds on a mesh of device groups: the iterates of one device, whatever the mesh, the width and the server."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from hypothesis import given, settings
from jax.sharding import AxisType, Mesh
from problems import METHODS, NUM_EVENTS, SOFTMAX_PARAMS, assert_close, batch_rows

import asyncflax
from asyncflax import engine
from asyncflax.engine import execute
from asyncflax.engine.placement import Placement

BATCHES = batch_rows()
TRACES = problems.some_traces()
START = {"key": jax.random.key(7), "model_state": problems.NORM_STATE}


def run_norm(row, trace, batches=BATCHES, **where):
    """A model with batch statistics, dropout, and model state that the forward pass reads."""
    return asyncflax.run(row.make(), problems.norm_gradient, problems.NORM_PARAMS, trace, batches, **START, **where)


def all_but_state(result):
    return result._replace(state=None, staleness=None)


@pytest.fixture(scope="module")
def alone():
    """The run on one device, one event after the other."""
    return run_norm(METHODS["multi_asgd"], TRACES["exponential"])


@pytest.mark.parametrize(
    "group, replica, width, server",
    [
        (8, 1, 8, "replicated"),
        (1, 2, 3, "replicated"),
        (2, 4, 2, "replicated"),
        (1, 4, 1, "sharded"),
        (4, 2, 4, "sharded"),  # no axis can be divided over 8 devices
        *(
            pytest.param(*place, marks=pytest.mark.slow)
            for place in [
                (1, 1, 1, "replicated"),
                (2, 1, 4, "replicated"),
                (4, 1, 4, "replicated"),
                (4, 2, 8, "replicated"),
                (2, 1, 2, "sharded"),
                (4, 1, 8, "sharded"),
                (2, 2, 4, "sharded"),
            ]
        ),
    ],
)
def test_every_mesh_gives_the_iterates_of_one_device(group, replica, width, server, alone):
    trace, row = TRACES["exponential"], METHODS["multi_asgd"]
    mesh = asyncflax.make_mesh(group, replica)
    result = run_norm(row, trace, width=width, mesh=mesh, server=server)
    assert_close(all_but_state(result), all_but_state(alone))
    assert_close(result.state, alone.state)
    assert_close(result.params, problems.norm_twin(row, trace, BATCHES, START["key"]).theta)


@given(problems.traces())
@settings(max_examples=8)
@pytest.mark.parametrize(
    "name, group, replica, width, server",
    [("dc_asgd", 2, 2, 4, "replicated"), ("multi_asgd", 4, 1, 8, "sharded"), ("nag_asgd", 2, 4, 2, "sharded")],
)
def test_any_trace_on_a_mesh_equals_the_numpy_server(name, group, replica, width, server, trace):
    row = METHODS[name]
    where = {"width": width, "mesh": asyncflax.make_mesh(group, replica), "server": server}
    plan = problems.of_one_shape(asyncflax.make_plan(trace, **where))
    gradient_fn = asyncflax.from_loss(problems.softmax_loss)
    state, out = problems.run_with_plan(row.make(), gradient_fn, SOFTMAX_PARAMS, plan, BATCHES)
    twin = problems.softmax_twin(row, trace, BATCHES)
    assert_close(state.params, twin.theta)
    assert_close(out.losses, twin.losses)
    assert_close(out.gap, twin.gaps)


def test_chunks_on_a_mesh_compile_once_and_go_on_elsewhere():
    """A chunk's state has the layout that the next one takes; brought to another mesh, the run goes on there."""
    traced = []

    def gradient_fn(params, batch, *, key, model_state):
        traced.append(1)
        return problems.norm_gradient(params, batch, key=key, model_state=model_state)

    trace, row, cuts = TRACES["exponential"], METHODS["multi_asgd"], (6, 12, 18)
    where = {"width": 4, "mesh": asyncflax.make_mesh(2, 2), "server": "sharded"}
    plan = asyncflax.make_plan(trace, cuts=cuts, **where)
    state, first = asyncflax.init_run(row.make(), problems.NORM_PARAMS, plan, **START), 0
    for chunk in list(plan)[:3]:
        state, _ = asyncflax.run_chunk(row.make(), gradient_fn, state, chunk, chunk.take(BATCHES))
        first = first if chunk.first_event else len(traced)
    assert len(traced) == first
    # Leaves that the four devices can divide are divided: the weights of both layers are.
    assert [leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params)] == [False, False]
    assert jax.tree.leaves(state.slots)[0].addressable_shards[0].data.size * 4 == jax.tree.leaves(state.slots)[0].size

    other = asyncflax.make_plan(trace, cuts=cuts, width=8, mesh=asyncflax.make_mesh(8))
    begun = asyncflax.init_run(row.make(), problems.NORM_PARAMS, other, **START)
    there = jax.tree.map(lambda x: x.sharding, begun._replace(event=None))
    moved = jax.device_put(state._replace(event=None), there)._replace(event=state.event)
    for chunk in other.chunks_from(int(state.event)):
        moved, _ = asyncflax.run_chunk(row.make(), gradient_fn, moved, chunk, chunk.take(BATCHES))
    assert_close(moved.params, run_norm(row, trace).params)


def test_the_gradient_of_replicas_is_the_gradient_of_one_device():
    """One event, asgd with step 1: what the server has lost is the gradient, of a mean and with a penalty."""
    trace = asyncflax.staleness.constant(0).trace(num_updates=1)
    params, rows = SOFTMAX_PARAMS, np.arange(8)[None]

    def loss_fn(params, rows):
        return problems.softmax_loss(params, rows) + 0.1 * sum(jnp.sum(p**2) for p in params)

    want = jax.grad(loss_fn)(jax.tree.map(jnp.asarray, params), rows[0])
    for group, replica in [(1, 1), (1, 2), (1, 4), (1, 8)]:
        result = asyncflax.run(
            asyncflax.algorithms.asgd(1.0),
            jax.value_and_grad(loss_fn),
            params,
            trace,
            rows,
            mesh=asyncflax.make_mesh(group, replica),
        )
        got = jax.tree.map(lambda before, after: before - after, params, result.params)
        assert_close(got, want)


def test_a_mesh_with_explicit_axes_and_one_inside_jit_are_taken():
    trace, row = TRACES["exponential"], METHODS["asgd"]
    explicit = Mesh(
        np.array(jax.devices()[:4]).reshape(2, 2), ("group", "replica"), axis_types=(AxisType.Explicit,) * 2
    )
    gradient_fn = jax.value_and_grad(problems.softmax_loss)

    @jax.jit
    def last(params):
        return asyncflax.run(row.make(), gradient_fn, params, trace, BATCHES, width=4, mesh=explicit).params

    want = asyncflax.run(row.make(), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES).params
    assert_close(last(SOFTMAX_PARAMS), want)


def test_width_none_is_what_the_planner_takes():
    trace, mesh = TRACES["exponential"], asyncflax.make_mesh(4, 2)
    assert asyncflax.make_plan(trace, width=None, mesh=mesh).width == engine.best_width(trace, 4, replicas=2).width
    summary = asyncflax.make_plan(trace, width=None, mesh=mesh).summary(SOFTMAX_PARAMS)
    assert "8 devices: 4 groups of 2" in summary and "lanes filled" in summary and "receives in a round" in summary


def received(hlo: str) -> int:
    """The bytes that one device receives in the collectives of a program, each counted once, rings assumed."""
    total = 0.0
    for result, operation, rest in re.findall(r"= (.*?) (all-gather|all-reduce|all-to-all)\((.*)", hlo):
        shapes = [[int(n) for n in dims.split(",") if n] for dims in re.findall(r"f64\[([\d,]*)\]", result)]
        devices = _devices(re.search(r"replica_groups=(\S+(?: \{[^}]*\})?)", rest)[1])
        each = 2 if operation == "all-reduce" else 1
        total += each * 8 * sum(map(math.prod, shapes)) * (devices - 1) / devices
    return round(total)


def _devices(groups: str) -> int:
    """How many devices take part: '[2,4]<=[8]', '{{0,1},{2,3}}' or "mesh['a'=2,'b'=4] {'b'}"."""
    if groups.startswith("["):
        return int(re.match(r"\[\d+,(\d+)\]", groups)[1])
    if groups.startswith("{{"):
        return len(re.match(r"\{\{([\d,]+)\}", groups)[1].split(","))
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'(?!=)", groups))


@pytest.mark.parametrize("group, replica, server", [(4, 1, "replicated"), (2, 2, "replicated"), (4, 1, "sharded")])
def test_the_compiled_program_moves_what_the_planner_says(group, replica, server):
    mesh = asyncflax.make_mesh(group, replica)
    plan = asyncflax.make_plan(TRACES["exponential"], width=4, mesh=mesh, server=server)
    params = {"kernel": jnp.zeros((64, 32)), "bias": jnp.zeros(64)}
    loss_fn = lambda p, x: jnp.mean(jnp.tanh(x @ p["kernel"].T + p["bias"][None]) ** 2)
    algorithm = asyncflax.algorithms.momentum_asgd(0.1)
    state = asyncflax.init_run(algorithm, params, plan)
    batches = plan.placement.put_batches(np.zeros((NUM_EVENTS, 16, 32)))
    program = execute._run_chunk.lower(algorithm, asyncflax.from_loss(loss_fn), state, plan[0], batches).compile()
    said = engine.traffic(params, width=4, device_groups=group, replicas=replica, server=server).total
    assert said <= received(program.as_text()) <= said + 200  # losses and norms are not counted
    aliased = program.memory_analysis().alias_size_in_bytes
    own = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves((state.params, state.slots)))
    assert aliased >= 0.99 * own  # donated buffers are updated in place


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("width", 6, r"width=6 cannot be divided over the device_groups=4 of the mesh"),
        ("width", 0, r"width must be an integer >= 1, got width=0"),
        ("mesh", Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model")), r"must have the 2 axes .*'data'"),
        ("mesh", Mesh(np.array(jax.devices()[:4]), ("group",)), r"must have the 2 axes .*got 1"),
        ("mesh", 4, r"mesh must be a jax.sharding.Mesh .*got 4"),
        ("server", "shared", r"server must be one of 'replicated', 'sharded', got 'shared'"),
        ("store", "disk", r"store must be one of 'device', 'host', 'ring', got 'disk'"),
    ],
)
def test_bad_placements_are_refused(name, value, message):
    arguments = {"width": 4, "mesh": asyncflax.make_mesh(4, 2)} | {name: value}
    with pytest.raises((ValueError, TypeError), match=message):
        asyncflax.make_plan(TRACES["exponential"], **arguments)


def test_bad_meshes_batches_and_states_are_refused():
    trace, row = TRACES["exponential"], METHODS["asgd"]
    with pytest.raises(ValueError, match=r"device_groups=4 times replicas=4 needs 16 devices, but only 8 are"):
        asyncflax.make_mesh(4, 4)
    with pytest.raises(ValueError, match=r"server='sharded' needs several devices"):
        Placement(server="sharded")
    gradient_fn = jax.value_and_grad(problems.softmax_loss)
    with pytest.raises(ValueError, match=r"batches have 3 rows per event, .* replicas=2 devices"):
        mesh = asyncflax.make_mesh(2, 2)
        asyncflax.run(row.make(), gradient_fn, SOFTMAX_PARAMS, trace, BATCHES[:, :3], width=4, mesh=mesh)
    with pytest.raises(ValueError, match=r"store='host' .* cannot be traced"):
        jax.jit(lambda p: asyncflax.run(row.make(), gradient_fn, p, trace, BATCHES, store="host").params)(
            SOFTMAX_PARAMS
        )
    with pytest.raises(ValueError, match=r"num_slots=3 is too few: store='device' needs 4"):
        asyncflax.make_plan(trace, num_slots=3)

    narrow = asyncflax.make_plan(trace, width=1, rounds_per_chunk=5)
    state = asyncflax.init_run(row.make(), SOFTMAX_PARAMS, narrow)
    state, _ = asyncflax.run_chunk(row.make(), gradient_fn, state, narrow[0], narrow[0].take(BATCHES))
    wide = asyncflax.make_plan(trace, width=4, rounds_per_chunk=5)
    with pytest.raises(ValueError, match=r"is at event 5, where no chunk of this plan begins \(width=4;.* event 0"):
        wide.chunks_from(int(state.event))
    with pytest.raises(ValueError, match=r"is at event 5, but the chunk begins at event 0"):
        asyncflax.run_chunk(row.make(), gradient_fn, state, wide[0], wide[0].take(BATCHES))
    assert [chunk.first_event for chunk in narrow.chunks_from(NUM_EVENTS)] == []


def test_what_lies_elsewhere_is_brought_to_the_mesh_and_numbers_belong_to_an_event():
    """A committed learning rate, parameters on a mesh in another order, batches with a number for each event."""
    trace, mesh = TRACES["exponential"], asyncflax.make_mesh(2, 2)
    other = asyncflax.make_mesh(2, 2, devices=jax.devices()[3::-1])
    rate = jax.device_put(jnp.asarray(0.3), jax.devices()[5])
    params = jax.device_put(SOFTMAX_PARAMS, jax.sharding.NamedSharding(other, jax.sharding.PartitionSpec()))
    batches = {"rows": BATCHES, "scale": np.linspace(0.5, 1.5, NUM_EVENTS)}
    loss_fn = lambda p, batch: batch["scale"] * problems.softmax_loss(p, batch["rows"])
    gradient_fn = jax.value_and_grad(loss_fn)
    want = asyncflax.run(asyncflax.algorithms.asgd(0.3), gradient_fn, SOFTMAX_PARAMS, trace, batches)
    found = asyncflax.run(asyncflax.algorithms.asgd(rate), gradient_fn, params, trace, batches, mesh=mesh, width=4)
    assert_close(found.params, want.params)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_rows_of_workers_stay_whole_on_a_sharded_server():
    """As many workers as would divide well: no collective moves the state of all of them."""
    trace = asyncflax.queues.simulate(num_workers=64, num_updates=40, service_time=asyncflax.queues.exponential())
    plan = asyncflax.make_plan(trace, width=4, mesh=asyncflax.make_mesh(4, 1), server="sharded")
    algorithm = asyncflax.algorithms.multi_asgd(0.1, 0.5, num_workers=64)
    params, batches = jnp.zeros((32, 16)), plan.placement.put_batches(np.zeros((40, 4, 16)))
    gradient_fn = asyncflax.from_loss(lambda p, x: jnp.mean((x @ p.T) ** 2))
    state = asyncflax.init_run(algorithm, params, plan)
    program = execute._run_chunk.lower(algorithm, gradient_fn, state, plan[0], batches).compile()
    said = engine.traffic(params, width=4, device_groups=4, server="sharded").total
    assert said <= received(program.as_text()) <= said + 200


def test_versions_stay_whole_on_a_sharded_server():
    """As many slots as devices: a leaf that cannot be divided is not divided by versions instead."""
    plan = asyncflax.make_plan(TRACES["exponential"], width=4, mesh=asyncflax.make_mesh(2, 2), server="sharded")
    state = asyncflax.init_run(METHODS["asgd"].make(), {"kernel": np.ones((8, 4)), "bias": np.ones(3)}, plan)
    kernel, bias = state.slots[0]["kernel"], state.slots[0]["bias"]
    assert kernel.shape == (4, 8, 4) and kernel.sharding.shard_shape(kernel.shape) == (4, 8, 1)
    assert bias.shape == (4, 3) and bias.sharding.is_fully_replicated


def test_keys_whose_numbers_depend_on_the_company_are_refused():
    gradient_fn = jax.value_and_grad(problems.softmax_loss)
    start = (METHODS["asgd"].make(), gradient_fn, SOFTMAX_PARAMS, TRACES["exponential"], BATCHES)
    asyncflax.run(*start, key=jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=r"key uses the implementation .*rbg.* instead of width=4"):
        asyncflax.run(*start, key=jax.random.key(0, impl="rbg"), width=4)


def test_a_state_on_other_devices_is_refused():
    trace, algorithm = TRACES["exponential"], METHODS["asgd"].make()
    gradient_fn = jax.value_and_grad(problems.softmax_loss)
    state = asyncflax.init_run(
        algorithm, SOFTMAX_PARAMS, asyncflax.make_plan(trace, mesh=asyncflax.make_mesh(2, 2), width=2)
    )
    for where in ({}, {"mesh": asyncflax.make_mesh(4, 2), "width": 4}):
        with pytest.raises(ValueError, match=r"the state is on 4 devices that are not those of the plan"):
            asyncflax.run_chunk(algorithm, gradient_fn, state, asyncflax.make_plan(trace, **where)[0], BATCHES)
