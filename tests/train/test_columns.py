"""One table of columns: what runs, sweeps and comparisons write is in it, and so is the page."""

import dataclasses
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import asyncflax
from asyncflax.lab.compare import CompareConfig, run_comparison
from asyncflax.lab.sweep import SweepConfig, run_sweep
from asyncflax.train import TrainConfig, columns, train_and_evaluate
from asyncflax.train.method import steered_momentum

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"
OF_TRAINING = {column.name for column in columns.ROWS if column.of_events} | {"explicit_momentum"}
MEASURED = {"implicit_momentum", "implicit_momentum_low", "implicit_momentum_high", "total_momentum"}
AVERAGED = {"ema_test_loss", "ema_test_accuracy"}
TOP5 = {"test_top5_accuracy", "ema_test_top5_accuracy"}
SHORT = TrainConfig(model="Mlp(hidden=4)", num_workers=2, num_updates=20, log_every=10, eval_every=10, meter_window=0)


def test_the_page_has_the_table():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(column.name, column.unit, column.long_name) for column in (*columns.ROWS, *columns.RESULTS)]
    assert len({name for name, _, _ in rows}) == len(rows)


def test_the_rows_of_a_run_have_these_columns(tmp_path):
    rows = train_and_evaluate(dataclasses.replace(SHORT, ema_decay=0.9), tmp_path / "run").rows
    first, *others = [set(row) for row in rows]
    assert others == [{column.name for column in columns.ROWS} - MEASURED - TOP5] * 2
    assert first == {"update", "simulated_time", "wall_seconds", "test_loss", "test_accuracy", *AVERAGED}


def test_a_new_metric_is_one_line(tmp_path, monkeypatch):
    new = columns.Column("gradient_rms", "1", "gradient (RMS)", lambda out: out.gradient_rms)
    monkeypatch.setattr(columns, "ROWS", (*columns.ROWS, new))
    rows = train_and_evaluate(SHORT, tmp_path / "run").rows
    swept = run_sweep(SweepConfig(SHORT, "seed=(0,)"), tmp_path / "sweep").gradient_rms
    assert swept.attrs == {"units": "1", "long_name": "gradient (RMS)"} and (swept > 0).all()
    np.testing.assert_allclose(swept.values[0], [row["gradient_rms"] for row in rows[1:]], rtol=1e-4)


@pytest.mark.parametrize(
    "method, momentum, column",
    [
        ("momentum_asgd", -0.09, [-0.09] * 2),
        ("asgd", 0.0, [0.0] * 2),
        ("optax.sgd(momentum=0.25)", 0.0, [0.25] * 2),
        ("yellowfin", 0.0, None),
    ],
)
def test_explicit_momentum_is_always_a_column(method, momentum, column, tmp_path):
    config = dataclasses.replace(SHORT, algorithm=method, momentum=momentum, learning_rate=0.01)
    summary = train_and_evaluate(config, tmp_path / "run")
    found = [row["explicit_momentum"] for row in summary.rows[1:]]
    assert found == (column or [found[0], float(optax.tree.get(summary.state.algorithm, "explicit_momentum"))])


def test_a_schedule_of_optax_is_seen():
    momentum = optax.linear_schedule(0.0, 0.5, 4)
    tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=momentum))
    state = tx.init(jnp.zeros(2))
    for expected in (0.0, 0.125, 0.25):
        _, state = tx.update(jnp.ones(2), state)
        assert float(steered_momentum(state)) == expected
    assert steered_momentum(optax.sgd(0.1, momentum=0.9).init(jnp.zeros(2))) is None
    assert steered_momentum(asyncflax.algorithms.smega2(0.1, num_workers=2).init(jnp.zeros(2))) is None


def test_a_sweep_and_a_comparison_say_what_their_variables_are(tmp_path):
    """With a method that steers its momentum, and one of Optax."""
    axes = "algorithm=(yellowfin, asgd, 'optax.sgd(momentum=0.25)'), batch_size=(16,), momentum=(0,)"
    run_sweep(SweepConfig(SHORT, axes), tmp_path / "sweep")
    axes = {"seeds": (0, 1), "num_workers": (2,), "learning_rate_scales": (1.0, 2.0)}
    run_comparison(CompareConfig(SHORT, "asgd, momentum_asgd(momentum=0.5)", target=0.05, **axes), tmp_path / "compare")
    table = {column.name: column for column in (*columns.ROWS, *columns.RESULTS)}
    seen, momenta = set(), []
    for name in ("sweep", "compare"):
        with xarray.open_dataset(tmp_path / name / "results.nc", engine="scipy") as results:
            assert all(results[column].dims[-1] == "trained" for column in OF_TRAINING)
            for variable, values in results.variables.items():
                known = table.get(variable, columns.Column(variable, "1", f"config.train.{variable}"))
                assert values.attrs == {"units": known.unit, "long_name": known.long_name}
                assert (values.dtype.kind in "OSU") == (known.unit == "text")
                seen.add(variable)
            momenta += [*results.explicit_momentum.values.reshape(-1, 2)]
    steered, none, own, *compared = map(tuple, momenta)
    assert none == (0, 0) and own == (0.25, 0.25) and steered not in (none, own)
    assert set(compared[:4]) == {(0, 0)} and set(compared[4:]) == {(0.5, 0.5)}
    assert seen - {*table} == {"batch_size"}
    assert {*table} - seen == {*MEASURED, *AVERAGED, *TOP5, "updates_per_second", "wall_seconds"}
