"""What is checked at the end of a run: it holds for runs, and anything that is broken is seen."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

import asyncflax
from asyncflax.errors import RunError
from asyncflax.train import TrainConfig, train_and_evaluate
from asyncflax.train._invariants import check_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = TrainConfig(
        model="Mlp(hidden=4)",
        num_workers=8,
        asynchrony="queue(max_staleness=9, policy=discard)",
        num_updates=30,
        log_every=7,
        eval_every=10,
    )
    folder = tmp_path_factory.mktemp("invariants") / "run"
    summary = train_and_evaluate(config, folder)
    return asyncflax.Trace.load(folder / "trace.npz"), summary


def test_a_run_ends_with_what_was_checked(run):
    trace, summary = run
    assert trace.staleness.max() <= 9
    assert summary.table.splitlines()[-1] == (
        "checked         30 events, as many updates, times in order, versions within the past, "
        "staleness as in the trace and at most 9, state finite"
    )
    assert "at most 4," in check_run(asyncflax.staleness.constant(4).trace(30), summary.state, rows_of(4))


def rows_of(staleness):
    means = np.minimum(np.arange(30), staleness).reshape(3, 10).mean(axis=1)
    return [{"update": 0}, *({"update": 10 * k + 10, "staleness": mean} for k, mean in enumerate(means))]


def spoil(name, at, value):
    def of_trace(trace, state, rows):
        arrays = {key: getattr(trace, key).copy() for key in ("worker", "read_version", "time", "staleness")}
        arrays[name][at] = value
        return Spoiled(len(trace), **arrays), state, rows

    return of_trace


class Spoiled(types.SimpleNamespace):
    def __init__(self, length, **arrays):
        super().__init__(**arrays)
        self.length = length

    def __len__(self):
        return self.length


def of_rows(at, **values):
    return lambda trace, state, rows: (trace, state, [row | values if k == at else row for k, row in enumerate(rows)])


def of_state(**values):
    return lambda trace, state, rows: (trace, state._replace(**values), rows)


@pytest.mark.parametrize(
    "spoiled, message",
    [
        (spoil("time", 5, 0.0), r"event 5 is earlier than the event before it"),
        (spoil("time", 5, np.nan), r"event 5 is earlier than the event before it"),
        (spoil("read_version", 3, 4), r"event 3 has read version 4"),
        (spoil("read_version", 3, -1), r"event 3 has read version -1"),
        (spoil("read_version", 29, 0), r"logged staleness differs"),
        (of_rows(2, staleness=9.5), r"logged staleness differs"),
        (of_rows(2, simulated_time=0.5), r"logged times differ"),
        (of_rows(2, update=7), r"not ordered by update"),
        (lambda trace, state, rows: (trace, state, rows[:-1]), "row of metrics belongs to update 28, not to 30"),
        (of_state(event=29), r"the engine executed 29 of 30 updates"),
        (of_state(params={"w": jnp.array([1.0, np.inf])}), r"the state \['params'\]\['w'\] is not finite"),
        (of_state(algorithm={"u": jnp.array(np.nan)}), r"the state \['algorithm'\]\['u'\] is not finite"),
    ],
)
def test_what_is_broken_is_seen(run, spoiled, message):
    trace, summary = run
    with pytest.raises(RunError, match=rf"^invariant violated: .*{message}"):
        check_run(*spoiled(trace, summary.state, summary.rows))


def test_a_bound_of_the_staleness_is_checked(run):
    trace, summary = run
    largest = int(trace.staleness.max())
    assert f"at most {largest}," in check_run(trace, summary.state, summary.rows, bound=largest)
    with pytest.raises(RunError, match=f"the largest staleness is {largest}, but the bound is {largest - 1}"):
        check_run(trace, summary.state, summary.rows, bound=largest - 1)
