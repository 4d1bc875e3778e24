"""Forecasts of rounds against plans and closed forms; traffic against a count of who holds what; the report."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncflax
from asyncflax import engine, queues, staleness
from asyncflax.engine.report import _size


def simulate(num_workers, law, num_updates=2000, seed=0):
    return queues.simulate(num_workers=num_workers, num_updates=num_updates, service_time=law, seed=seed)


# --- How many events a round has ------------------------------------------------------------------------------------


@given(problems.traces(), st.integers(1, 30))
def test_a_forecast_is_what_the_plan_does(trace, width):
    plan, found = asyncflax.make_plan(trace, width=width), engine.forecast(trace, width)
    assert found.mean_round == plan.mean_round
    assert found.num_rounds == sum(int(chunk.num_rounds) for chunk in plan)
    assert found.width == width and found.filled == found.mean_round / width and 0 < found.filled <= 1
    assert found.speed_up == pytest.approx(found.filled)  # one device computes every lane


@pytest.mark.parametrize("law", [queues.exponential(), queues.gamma(0.1), queues.heterogeneous_gamma()])
def test_a_forecast_of_a_long_queue_is_what_the_plan_does(law):
    trace = simulate(32, law)
    for width in (1, 2, 8, 16, 64):
        assert engine.forecast(trace, width).mean_round == asyncflax.make_plan(trace, width=width).mean_round


@pytest.mark.parametrize("num_workers", [1, 2, 3, 8])
def test_workers_that_take_turns_fill_rounds_up_to_their_number(num_workers):
    """Event t reads version t - M + 1: a round that starts at s may have events s..s + M - 1."""
    trace = simulate(num_workers, queues.deterministic(), 840)
    for width in range(1, 12):
        events = min(width, num_workers)
        assert engine.forecast(trace, width).num_rounds == math.ceil(840 / events)


@given(st.integers(0, 12), st.integers(1, 20))
def test_a_constant_staleness_allows_one_event_more_than_it(tau, width):
    found = engine.forecast(staleness.constant(tau).trace(num_updates=100), width)
    assert found.num_rounds == math.ceil(100 / min(tau + 1, width))


def test_barriers_fill_rounds_that_divide_them():
    trace = queues.barrier(num_workers=8, num_updates=800, service_time=queues.exponential())
    assert [engine.forecast(trace, width).filled for width in (2, 5, 8, 16)] == [1.0, 0.8, 1.0, 0.5]


# --- What a width is worth ------------------------------------------------------------------------------------------


@given(problems.traces(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6))
def test_free_launches_and_updates_leave_devices_times_lanes_filled(trace, groups, replicas, lanes):
    found = engine.forecast(trace, groups * lanes, device_groups=groups, replicas=replicas)
    assert found.speed_up == pytest.approx(groups * replicas * found.filled)
    assert found.speed_up <= groups * replicas


@given(problems.traces(), st.integers(1, 4), st.integers(1, 3), st.floats(0, 1), st.floats(0, 2))
def test_the_best_width_is_no_worse_than_any_other(trace, groups, replicas, fixed, update):
    """All widths up to beyond the whole trace, each with its time added up round by round."""
    options = {"replicas": replicas, "fixed": fixed, "update": update}
    best = engine.best_width(trace, groups, **options)
    assert best == engine.forecast(trace, best.width, device_groups=groups, **options)
    speed_up = {}
    for width in range(groups, len(trace) + 2 * groups, groups):
        plan = asyncflax.make_plan(trace, width=width)
        sizes = [int(n) for chunk in plan for n in chunk.round_size[: chunk.num_rounds]]
        seconds = sum(fixed + (1 - fixed) * width / (groups * replicas) + update * size for size in sizes)
        speed_up[width] = len(trace) * (1 + update) / seconds
    assert best.speed_up == pytest.approx(speed_up[best.width])
    assert best.speed_up >= max(speed_up.values()) * (1 - 1e-12)
    if fixed == 0:
        assert best.width == groups
    some = sorted(speed_up)[1::2]
    assert engine.best_width(trace, groups, widths=some, **options).speed_up == pytest.approx(
        max(speed_up[width] for width in some)
    )


def test_of_equally_good_widths_the_smallest():
    """If launches are all of the time, rounds beyond the workers' number cost and bring nothing."""
    assert engine.best_width(simulate(6, queues.deterministic(), 600), 1, fixed=1.0).width == 6
    assert engine.best_width(simulate(1, queues.exponential(), 100), 4, fixed=1.0).width == 4


def test_a_larger_fixed_share_wants_wider_rounds():
    trace = simulate(64, queues.exponential())
    widths = [engine.best_width(trace, 2, fixed=h).width for h in (0.0, 0.3, 0.6, 0.9)]
    assert widths[0] == 2 and widths == sorted(set(widths))


# --- Traffic and memory ---------------------------------------------------------------------------------------------


def received(groups, replicas, width, size, server):
    """Plays a round of `size` numbers: what each device holds before, needs after, and receives in between.

    Returns (total, between), numbers that one device receives, the same for all of them.
    """
    devices = list(itertools.product(range(groups), range(replicas)))
    part = {device: np.arange(size) * len(devices) // size == k for k, device in enumerate(devices)}
    all_of = np.ones(size, bool)
    counts = {device: np.zeros(2, int) for device in devices}
    lanes = range(width // groups)

    # A version is read by one group, all of which needs it. Through each device comes what its group has not.
    for group, _ in itertools.product(range(groups), lanes):
        members = [(group, r) for r in range(replicas)]
        for device in members:
            counts[device][0] += np.sum(~part[device]) if server == "sharded" else 0
        if server == "sharded":
            missing = ~np.any([part[device] for device in members], axis=0)
            for r, device in enumerate(members):  # an equal share each
                counts[device][1] += np.sum(missing) // replicas + (r < np.sum(missing) % replicas)

    # A ring inside each group: how many parts of the batch are in each device's sums. Device r ends up with piece r,
    # which is what the devices r of all groups keep together.
    piece = {r: np.any([part[(0, r)]] + [part[(g, r)] for g in range(groups)], axis=0) for r in range(replicas)}
    assert np.array_equal(sum(x.astype(int) for x in piece.values()), np.ones(size))
    for group, _ in itertools.product(range(groups), lanes):
        parts_in = {r: np.ones(size, int) for r in range(replicas)}
        for step in range(replicas - 1):
            sent = {r: piece[(r - step - 1) % replicas] for r in range(replicas)}
            values = {r: parts_in[r].copy() for r in range(replicas)}
            for r in range(replicas):
                to = (r + 1) % replicas
                parts_in[to][sent[r]] += values[r][sent[r]]
                counts[(group, to)][0] += sent[r].sum()
        for r in range(replicas):
            assert np.all(parts_in[r][piece[r]] == replicas)  # its own piece of the sum is whole
            if server == "replicated":
                counts[(group, r)][0] += np.sum(~piece[r])

    # The gradients of the other groups, in whole or in part, from the device of the same place in each of them.
    for group, r in devices:
        need = all_of if server == "replicated" else part[(group, r)]
        have = all_of if server == "replicated" else piece[r]
        assert np.all(have[need])
        counts[(group, r)] += (groups - 1) * len(lanes) * need.sum()
    assert len({tuple(count) for count in counts.values()}) == 1
    return counts[devices[0]]


@pytest.mark.parametrize("server", ["replicated", "sharded"])
@pytest.mark.parametrize("groups, replicas, lanes", [(1, 1, 3), (4, 1, 1), (1, 4, 2), (2, 3, 2), (4, 2, 3), (3, 4, 1)])
def test_traffic_is_what_devices_lack(groups, replicas, lanes, server):
    options = {"width": groups * lanes, "device_groups": groups, "replicas": replicas}
    size = 2 * groups * replicas * replicas
    moved = engine.traffic({"w": jnp.zeros(size, jnp.float32)}, server=server, **options)
    np.testing.assert_array_equal(moved, 4 * received(groups, replicas, groups * lanes, size, server))
    # What cannot be divided is on every device, whatever the server.
    odd = {"b": jnp.zeros(groups * replicas + 1, jnp.int8)} if groups * replicas > 1 else {"b": jnp.zeros((), jnp.int8)}
    whole = engine.traffic(odd, server="replicated", **options)
    assert engine.traffic(odd, server=server, **options) == whole
    both = engine.traffic({"w": jnp.zeros(size, jnp.float32), **odd}, server=server, **options)
    np.testing.assert_allclose(both, np.add(moved, whole), atol=1)


def test_a_sharded_server_moves_what_data_parallelism_moves():
    params = jax.ShapeDtypeStruct((1024, 3), jnp.bfloat16)
    for devices in (2, 8):
        moved = engine.traffic(params, width=devices, device_groups=devices, server="sharded")
        assert moved.total == moved.between == 2 * 6144 * (devices - 1) // devices
    one = engine.traffic(params, width=8, device_groups=1)
    assert one.total == 0 and one == engine.traffic(params, width=8, device_groups=1, server="sharded")


def test_memory_is_that_of_its_parts():
    params = {"w": jax.ShapeDtypeStruct((16, 3), jnp.float32), "b": np.zeros(3, np.float32)}  # 192 and 12 bytes
    state = {"velocity": params, "count": jnp.zeros((), jnp.int32)}
    options = {"width": 8, "num_slots": 20, "device_groups": 4, "replicas": 2, "state": state}
    whole = engine.memory(params, **options)
    assert whole == (204, 208, 20 * 204, 2 * 8 * 204 + 2 * 2 * 204, 0) and whole.device == sum(whole)
    assert engine.memory(params, store="ring", **options) == whole
    part = 192 // 8 + 12
    sharded = engine.memory(params, server="sharded", **options)
    assert sharded == (part, part + 4, 20 * part, 2 * 8 * part + 2 * 2 * 204, 0)
    hosted = engine.memory(params, server="sharded", store="host", **options)
    assert hosted == sharded._replace(versions=0, round=sharded.round + 5 * 8 * part, host=20 * part)
    assert hosted.device == engine.memory(params, server="sharded", store="host", **options | {"num_slots": 99}).device
    assert engine.memory(params, width=1, num_slots=1) == (204, 0, 204, 408, 0)


def test_memory_holds_what_a_run_holds():
    """Parameters, state and slots of a state that a run starts with."""
    trace = simulate(8, queues.exponential(), 100)
    plan = asyncflax.make_plan(trace, width=4)
    algorithm = asyncflax.algorithms.multi_asgd(0.1, num_workers=8)
    state = asyncflax.init_run(algorithm, problems.SOFTMAX_PARAMS, plan)
    shapes = jax.eval_shape(algorithm.init, problems.SOFTMAX_PARAMS)
    kept = engine.memory(problems.SOFTMAX_PARAMS, width=4, num_slots=plan.num_slots, state=shapes)
    held = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert (kept.params, kept.state) == (held(state.params), held(state.algorithm))
    assert kept.versions == held(state.slots)


# --- The report, the figure, bad input -------------------------------------------------------------------------------


def test_the_report_says_what_the_functions_say():
    trace = simulate(16, queues.exponential())
    plan = asyncflax.make_plan(trace, width=4)
    params = jax.ShapeDtypeStruct((1000, 4), jnp.float32)
    text = plan.summary(params, device_groups=2, replicas=2, fixed=0.5)
    found = engine.forecast(trace, 4, device_groups=2, replicas=2, fixed=0.5)
    lines = text.splitlines()
    assert lines[0] == "trace     2,000 events of 16 workers"
    assert lines[1].startswith(f"rounds    {found.num_rounds} of width 4, {found.mean_round:.2f} events each")
    assert lines[3].startswith(f"speed-up  {found.speed_up:.2f} ")
    table = {line[:34].strip(): line[34:].split() for line in lines[6:]}
    assert table["on one device"] == ["[replicated]", "sharded"]
    for name, cells in (("replicated", slice(0, 2)), ("sharded", slice(2, 4))):
        options = {"width": 4, "device_groups": 2, "replicas": 2, "server": name}
        moved = engine.traffic(params, **options)
        kept = engine.memory(params, num_slots=16, **options)
        assert table["receives in a round"][cells] == [f"{moved.total / 1000:.3g}", "kB"]
        assert table["from other groups"][cells] == [f"{moved.between / 1000:.3g}", "kB"]
        assert table["keeps, without activations"][cells] == [f"{kept.device / 1000:.3g}", "kB"]
        assert table["the round in progress"][cells] == [f"{kept.round / 1000:.3g}", "kB"]
        assert table["keeps in host memory"][cells] == ["0", "B"]
    assert len({len(line) for line in lines[7:]}) == 1
    assert len(plan.summary().splitlines()) == 5
    alone = asyncflax.make_plan(trace, width=4, store="host").summary(params)
    assert "receives" not in alone and "sharded" not in alone and "256 kB" in alone.splitlines()[-1]


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (2.048e12, "2.05 TB")],
)
def test_bytes_for_people(size, text):
    assert _size(int(size)) == text


def test_the_figure_has_the_numbers():
    from matplotlib.figure import Figure

    trace, figure = simulate(16, queues.exponential()), Figure(layout="constrained")
    engine.draw(figure, trace, device_groups=[1, 4], widths=[2, 4, 8], fixed=0.2)
    filled, speed = figure.axes
    share = [100 * engine.forecast(trace, width).filled for width in (2, 4, 8)]
    np.testing.assert_allclose(filled.lines[0].get_xydata(), np.transpose([[2, 4, 8], share]))
    lines = {line.get_label(): line for line in speed.lines}
    four = [engine.forecast(trace, width, device_groups=4, fixed=0.2).speed_up for width in (4, 8)]
    np.testing.assert_allclose(lines["4 device groups"].get_xydata(), np.transpose([[4, 8], four]))
    assert {"1 device group", "4 device groups", "all lanes filled"} <= lines.keys()
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


TRACE = staleness.constant(3).trace(num_updates=20)
PARAMS = jax.ShapeDtypeStruct((4,), jnp.float32)
PLAN = asyncflax.make_plan(TRACE, width=4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: engine.forecast(TRACE, 0), "width must be an integer >= 1, got width=0"),
        (
            lambda: engine.forecast(TRACE, 6, device_groups=4),
            "width must be a multiple of device_groups=4, got width=6",
        ),
        (lambda: engine.forecast(TRACE, 4, fixed=1.5), r"fixed must be finite and in \[0, 1\], got fixed=1.5"),
        (lambda: engine.forecast(TRACE, 4, update=-1.0), r"update must be finite and in \[0, inf\], got update=-1.0"),
        (lambda: engine.best_width(TRACE, 0), "device_groups must be an integer >= 1, got device_groups=0"),
        (lambda: engine.best_width(TRACE, 2, replicas=0), "replicas must be an integer >= 1"),
        (
            lambda: engine.best_width(TRACE, 2, widths=[2, 3]),
            "widths must be a multiple of device_groups=2, got widths=3",
        ),
        (lambda: engine.best_width(TRACE, 2, widths=[]), "widths must have at least one integer, got none"),
        (lambda: engine.traffic(PARAMS, width=3, device_groups=2), "width must be a multiple of device_groups=2"),
        (lambda: engine.traffic(PARAMS, width=2, device_groups=2, server="shard"), "did you mean 'sharded'"),
        (lambda: engine.memory(PARAMS, width=2, num_slots=0), "num_slots must be an integer >= 1"),
        (lambda: engine.memory(PARAMS, width=2, num_slots=2, store="disk"), "store must be one of 'device', 'host'"),
        (lambda: PLAN.summary(device_groups=3), "width must be a multiple of device_groups=3, got width=4"),
        (lambda: PLAN.summary(server="shard"), "did you mean 'sharded'"),
        (
            lambda: engine.draw(None, TRACE, widths=[1, 2], device_groups=[4]),
            "contain no multiple of device_groups=4; add one",
        ),
    ],
)
def test_bad_values_are_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: engine.forecast([0, 1], 2), "trace must be an asyncflax.Trace"),
        (lambda: engine.best_width(TRACE, 2.0), "device_groups must be a concrete integer, got 2.0"),
        (lambda: engine.best_width(TRACE, 2, widths=4), "widths must be a list of integers, got 4"),
        (lambda: engine.traffic({"w": "x"}, width=2, device_groups=2), r"params\['w'\] must be an array"),
        (lambda: engine.memory(PARAMS, width=2, num_slots=2, state=["x"]), r"state\[0\] must be an array"),
        (lambda: engine.draw(None, TRACE, device_groups=4), "device_groups must be a list of integers, got 4"),
    ],
)
def test_bad_types_are_one_clear_error(call, message):
    with pytest.raises(TypeError, match=message):
        call()
