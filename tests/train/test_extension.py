"""A training that is longer than it was planned: `config.extend`."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import asyncflax
from asyncflax.errors import RunError
from asyncflax.trace import Trace
from asyncflax.train import extension
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.loop import train_and_evaluate

CONFIG = TrainConfig(
    model="Mlp",
    num_workers=4,
    num_updates=40,
    log_every=10,
    eval_every=20,
    checkpoint_every=15,
    learning_rate=0.1,
    algorithm="dana_slim",
    momentum=0.3,
    schedule="cosine(end=0.1)",
    ema_decay=0.9,
    meter_window=0,
)
longer = lambda *extend: dataclasses.replace(CONFIG, extend=extend)
updates = lambda summary: [row["update"] for row in summary.rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of 40 updates; the same folder extended by 25, then by 10 more; all at once in another folder."""
    folder = tmp_path_factory.mktemp("runs")
    plain = train_and_evaluate(CONFIG, folder / "a")
    figure = (folder / "a" / "training.png").read_bytes()
    once = train_and_evaluate(longer(25), folder / "a")
    twice = train_and_evaluate(longer(25, 10), folder / "a")
    at_once = train_and_evaluate(longer(25, 10), folder / "b")
    return folder, plain, figure, once, twice, at_once


def test_an_extension_goes_on_where_the_plan_ended(runs):
    folder, plain, figure, once, twice, at_once = runs
    assert updates(plain)[-1] == 40 and updates(once)[-1] == 65 and updates(twice)[-1] == 75
    assert once.rows[: len(plain.rows)] == plain.rows and twice.rows[: len(once.rows)] == once.rows
    assert {45, 60, 65, 70, 75} < {*updates(twice)}  # as often as before
    assert updates(at_once) == updates(twice)
    jax.tree.map(np.testing.assert_array_equal, twice.state._replace(key=0), at_once.state._replace(key=0))
    assert (folder / "a" / "training.png").read_bytes() != figure
    assert twice.rows[-1]["learning_rate"] == pytest.approx(0.01) and twice.rows[-1]["simulated_time"] > 0
    assert len(Trace.load(folder / "a" / "trace.npz")) == 75


def test_an_extension_by_hand(runs):
    """The parameters, the velocities and the average go on; all workers begin with the parameters at the end."""
    *_, twice, _ = runs
    trace, plans = extension.extend(make_experiment(longer(25, 10)))
    assert [plan.events for plan in plans] == [range(40), range(40, 65), range(65, 75)]
    assert trace.read_version[40:65].min() == 40 and trace.read_version[65:].min() == 65
    assert np.all(np.diff(trace.time) >= 0)
    experiment = make_experiment(CONFIG)
    gradient_fn, algorithm = jax.jit(experiment.gradient_fn), experiment.algorithm
    update = jax.jit(algorithm.update)
    params, state = experiment.params, algorithm.init(experiment.params)
    views = {0: params}
    for event, (worker, version) in enumerate(zip(trace.worker, trace.read_version, strict=True)):
        if event in (40, 65):
            views[event] = algorithm.view(params, state, worker=None)
        rows = asyncflax.data.batch_rows(1437, 32, range(event, event + 1), seed=0)[0]
        read = views[int(version)]
        grads = gradient_fn(read, rows, key=jax.random.fold_in(experiment.key, event)).grads
        stale = {"worker": worker, "staleness": event - version, "read_params": read, "value": 0.0}
        changes, state = update(grads, state, params, **stale)
        params = jax.tree.map(lambda p, u: p + u, params, changes)
        views[event + 1] = algorithm.view(params, state, worker=worker)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), twice.state.params, params)


@pytest.mark.parametrize("extend", [(), (20,), (10, 25), (25,), (25, 5)])
def test_an_extension_that_the_run_does_not_have_is_refused(runs, extend):
    folder = runs[0]
    trace = (folder / "b" / "trace.npz").read_bytes()
    with pytest.raises(RunError, match=r"is at update 75 of config.extend=\(25, 10\); use that value") as raised:
        train_and_evaluate(longer(*extend), folder / "b")
    assert "\n" not in str(raised.value)
    assert (folder / "b" / "trace.npz").read_bytes() == trace and not [*folder.glob("b/*.corrupted*")]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"schedule": "cosine"}, "learning rate of config.schedule='cosine' is 0 from update 40 on"),
        ({"extend": (0,)}, "config.extend must be an integer >= 1"),
    ],
)
def test_what_cannot_be_extended_says_so(tmp_path, changes, message):
    with pytest.raises(RunError, match=message):
        train_and_evaluate(dataclasses.replace(longer(10), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recorded_trace_cannot_be_extended(tmp_path):
    asyncflax.staleness.constant(1).trace(num_updates=40).save(tmp_path / "trace.npz")
    recorded = {"asynchrony": f"recorded(path={str(tmp_path / 'trace.npz')!r})", "num_workers": 1}
    with pytest.raises(RunError, match="does not support recorded traces"):
        train_and_evaluate(
            dataclasses.replace(longer(10), **recorded, algorithm="asgd", momentum=0.0), tmp_path / "run"
        )


@pytest.mark.parametrize("store", ["host", "ring"])
def test_an_extension_is_the_same_wherever_versions_are(runs, tmp_path, store):
    summary = train_and_evaluate(dataclasses.replace(longer(25, 10), store=store), tmp_path / "run")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), summary.state.params, runs[4].state.params)
