"""Live trainings: the folder of a run is as that of an emulated one, and its trace replays to the same table."""

import json
import pathlib
import random

import jax
import killing
import numpy as np
import pytest

from asyncflax.engine.execute import RunState
from asyncflax.errors import RunError
from asyncflax.trace import Trace
from asyncflax.train import TrainConfig, train_and_evaluate
from asyncflax.train import loop as train_loop

FIELDS = {
    "num_workers": 2,
    "num_updates": 60,
    "learning_rate": 0.1,
    "momentum": 0.3,
    "log_every": 10,
    "eval_every": 30,
    "checkpoint_every": 20,
    "crop_pad": 1,
    "flip": True,
    "model": "Mlp(dropout=0.2)",
    "execution": "threads(service_time=exponential(mean=0.003))",
    "writers": "",
}


def replayed(workdir: pathlib.Path, **fields):
    """The replay of a live run: its rows and state."""
    emulated = {"execution": "emulated", "asynchrony": f"recorded(path='{workdir / 'trace.npz'}')"}
    return train_and_evaluate(TrainConfig(**{**FIELDS, **fields, **emulated}), workdir.with_name("replay"))


def assert_same(live, replay):
    clocks = {"wall_seconds", "updates_per_second"}
    assert len(live.rows) == len(replay.rows)
    for row, again in zip(live.rows, replay.rows, strict=True):
        assert row.keys() == again.keys()
        for name in row.keys() - clocks:
            np.testing.assert_allclose(row[name], again[name], rtol=1e-5, atol=1e-7, err_msg=name)
    own = lambda state: jax.tree.leaves((state.params, state.algorithm, state.model_state))
    for a, b in zip(own(live.state), own(replay.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param(
            {"model": "ResNet20", "num_updates": 8, "batch_size": 8, "learning_rate": 0.003}, marks=pytest.mark.slow
        ),
        pytest.param({"algorithm": "dana_zero", "schedule": "cosine", "clip_norm": 1.0}, marks=pytest.mark.slow),
        pytest.param({"algorithm": "closed_loop_momentum", "ema_decay": 0.9}, marks=pytest.mark.slow),
    ],
    ids=["dropout_and_augmentation", "batch_norm", "view", "closed_loop"],
)
def test_the_table_of_a_live_run_is_that_of_its_replay(fields, tmp_path):
    live = train_and_evaluate(TrainConfig(**{**FIELDS, **fields}), tmp_path / "live")
    assert (tmp_path / "live" / "training.png").exists() and isinstance(live.state, RunState)
    trace = Trace.load(tmp_path / "live" / "trace.npz")
    assert len(trace) == live.rows[-1]["update"] and trace.staleness.max() > 0
    assert live.rows[-1]["simulated_time"] == trace.time[-1]
    assert_same(live, replayed(tmp_path / "live", **fields))


def test_a_live_run_that_stopped_resumes_and_replays(tmp_path, monkeypatch):
    """Stopped in the middle, by an error that is not the training's; open tickets are handed out again."""
    workdir, saved = tmp_path / "live", []
    save = train_loop.Checkpoints.save

    def fail_at_the_second(self, update, *args, **kwargs):
        if saved:
            raise KeyboardInterrupt
        save(self, update, *args, **kwargs)
        saved.append(update)

    monkeypatch.setattr(train_loop.Checkpoints, "save", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(TrainConfig(**FIELDS), workdir)
    monkeypatch.setattr(train_loop.Checkpoints, "save", save)
    assert saved == [20] and len(Trace.load(workdir / "trace.npz")) == 20
    live = train_and_evaluate(TrainConfig(**FIELDS), workdir)
    assert [row["update"] for row in live.rows] == [0, 10, 20, 30, 40, 50, 60]
    assert_same(live, replayed(workdir))
    again = train_and_evaluate(TrainConfig(**FIELDS), workdir)  # complete: its results
    assert again.rows == live.rows


@pytest.mark.slow
def test_a_killed_live_run_resumes_and_replays(tmp_path, monkeypatch):
    """SIGKILL of the process, in 32 bits: arrays of the last checkpoint and metrics but the gap, to the last bit."""
    fields = {**killing.DIGITS, "num_workers": 2, "asynchrony": "queue", "execution": "threads"}
    monkeypatch.setitem(killing.KINDS, "live", ("train", "digits.py", fields))
    workdir, again = tmp_path / "run", tmp_path / "again"
    assert killing.kill(workdir, 60, "write", random.Random(2), "live") != "after the end"
    killing.finish(workdir, 60, "live")
    emulated = {**fields, "execution": "emulated", "asynchrony": f"recorded(path='{workdir}/trace.npz')"}
    monkeypatch.setitem(killing.KINDS, "replay", ("train", "digits.py", emulated))
    killing.finish(again, 60, "replay")
    live, replay = killing.results(workdir), killing.results(again)
    rows = [[json.loads(row) for row in found.pop("metrics")] for found in (live, replay)]
    for row, other in zip(*rows, strict=True):
        for name in ("gap", "normalised_gap", "gradient_rms"):  # summed in another order
            assert row.pop(name, 0.0) == pytest.approx(other.pop(name, 0.0), rel=1e-5)
        assert row == other
    names = [name for name in replay if "slots" not in name]  # versions are with the workers
    assert killing.differing({name: live[name] for name in names}, {name: replay[name] for name in names}) == []


def test_the_execution_is_a_part_of_the_identity(tmp_path):
    short = {**FIELDS, "num_updates": 10, "crop_pad": 0, "flip": False, "model": "Mlp"}
    train_and_evaluate(TrainConfig(**short), tmp_path / "live")
    began = json.loads((tmp_path / "live" / "run.json").read_text())
    assert began["trace"] is None and began["config"]["execution"] == FIELDS["execution"]
    with pytest.raises(RunError, match=r"config.execution was 'threads\(.*, now it is 'emulated'"):
        train_and_evaluate(TrainConfig(**{**short, "execution": "emulated"}), tmp_path / "live")


BAD = {
    "workers": ({"execution": "threads(workers=0)"}, "threads has no option 'workers'"),
    "num_workers": ({"num_workers": 0}, "config.num_workers must be an integer >= 1"),
    "devices": ({"execution": "threads(devices=99)"}, "devices must be"),
    "mesh": ({"mesh": "mesh(device_groups=2)"}, "requires an emulated run"),
    "store": ({"store": "host"}, "config.store='host' requires an emulated run"),
    "extend": ({"extend": (10,)}, r"config.extend=\(10,\) requires an emulated run"),
    "ssgd": ({"algorithm": "ssgd"}, "has no rounds; leave it at 'emulated'"),
}


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_error(fields, message, tmp_path):
    with pytest.raises(RunError, match=message) as raised:
        train_and_evaluate(TrainConfig(**{**FIELDS, **fields}), tmp_path / "run")
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()
