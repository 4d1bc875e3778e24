"""Sweeps: a grid gives what the runs one by one give, survives being killed, and refuses what cannot be."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import asyncflax
from asyncflax import _memory
from asyncflax.errors import RunError
from asyncflax.lab.sweep import Grid, SweepConfig, SweepUnfinishedError, grid, program, run_sweep
from asyncflax.train import experiment, loop
from asyncflax.train.config import Named, TrainConfig
from asyncflax.train.method import make_algorithm

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = TrainConfig(model="Mlp(hidden=8)", num_workers=3, num_updates=24, log_every=4, eval_every=12, batch_size=8)


def in_float64(config, *, images=None):
    """The experiment with weights in float64."""
    made = experiment.make_experiment(config, images=images)
    return made._replace(params=jax.tree.map(lambda x: x.astype(jnp.float64), made.params))


def one_by_one(config: TrainConfig, common: experiment.Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Means of the training loss every `log_every` updates and the test losses of one training.

    Its gradient function is `common`'s, so that it compiles once.
    """
    made = in_float64(dataclasses.replace(config, checkpoint_every=config.num_updates))
    state = asyncflax.init_run(made.algorithm, made.params, made.plan, key=made.key)
    train, test = [], [common.evaluate(state.params)["test_loss"]]
    for chunk in made.plan:
        state, out = asyncflax.run_chunk(made.algorithm, common.gradient_fn, state, chunk, made.batches(chunk))
        train.append(np.mean(out.losses[: int(chunk.num_events)]))
        if chunk.events.stop % config.eval_every == 0 or chunk.events.stop == config.num_updates:
            test.append(common.evaluate(state.params)["test_loss"])
    return np.array(train), np.array(test)


@pytest.mark.parametrize(
    "train, axes, at_once",
    [
        # Tiles of 8 hyper-parameters, one a device, some of them fill-ups; unequal stretches between cuts.
        (
            dataclasses.replace(TRAIN, schedule="steps(at=0.5)", weight_decay=0.01, bias_multiplier=2.0),
            {"num_workers": (1, 3), "momentum": (-0.1, 0.6, 0.3), "learning_rate": (0.1, 0.05, 0.01), "seed": (0, 1)},
            6,
        ),
        # Two environments in one program, a law with as many slots as its draws need, a method with state a worker.
        pytest.param(
            dataclasses.replace(TRAIN, asynchrony="law(distribution=geometric(mean=2))", eval_every=10),
            {"seed": (3, 4, 5), "momentum": (0.0, 0.5)},
            0,
            marks=pytest.mark.slow,
        ),
        (
            dataclasses.replace(TRAIN, algorithm="multi_asgd", model="Mlp(hidden=8, dropout=0.3)", crop_pad=1),
            {"num_workers": (2, 3), "momentum": (0.5,), "seed": (0,)},
            0,
        ),
        # Environments whose staleness differs, and a method that goes by it.
        (
            dataclasses.replace(TRAIN, algorithm="staleness_aware_asgd", model="Mlp(hidden=8)", num_workers=3),
            {"seed": (0, 1)},
            0,
        ),
        # Numbers of the method and fields of the config, whose 0 means that something is left out.
        (
            dataclasses.replace(TRAIN, algorithm="dc_asgd", learning_rate=0.3),
            {"algorithm.strength": (0, 0.04, 2), "weight_decay": (0, 0.01), "clip_norm": (0, 0.5), "seed": (0,)},
            0,
        ),
        (
            dataclasses.replace(TRAIN, algorithm="optax.adamw(b2=0.99)", learning_rate=0.01),
            {"algorithm.b1": (0, 0.9), "algorithm.weight_decay": (0.0, 0.1), "bias_multiplier": (1.0,)},
            0,
        ),
        pytest.param(
            dataclasses.replace(TRAIN, weight_decay=0.01),
            {"bias_multiplier": (1, 2), "weight_decay": (0, 0.01), "momentum": (0, 0.5)},
            0,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dataclasses.replace(TRAIN, algorithm="optax.sgd"),
            {"algorithm.momentum": (0, 0.9), "learning_rate": (0.1, 0.2)},
            0,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["queue", "law", "multi_asgd", "staleness", "dc_asgd", "adamw", "biases", "sgd"],
)
def test_a_grid_gives_what_the_runs_one_by_one_give(monkeypatch, tmp_path, train, axes, at_once):
    monkeypatch.setattr(program, "make_experiment", in_float64)
    config = SweepConfig(train, axes, cells_at_once=at_once)
    results = run_sweep(config, tmp_path / "sweep")
    grid = Grid.of(config)
    cells = list(grid)
    assert {name for program in map(grid.program, cells) for name, _ in program} <= {"num_workers"}
    common = in_float64(train)
    for index in [cells[0], cells[-1], *cells[1 : -1 : max(1, len(cells) // 4)]]:
        train_loss, test_loss = one_by_one(grid.config(index), common)
        cell = results.sel(grid.coordinates(index))
        np.testing.assert_allclose(cell.train_loss.dropna("trained"), train_loss, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(cell.test_loss, test_loss, rtol=1e-6)  # sums of float32 images
        assert int(cell.diverged_at) == -1


def test_divergent_cells_are_masked_and_counted(tmp_path, capsys):
    config = SweepConfig(TRAIN, axes="learning_rate=(0.01, 1e30), momentum=(0.0, 1.0), seed=(0, 1)")
    results = run_sweep(config, tmp_path / "sweep")
    good, bad = results.sel(learning_rate=0.01), results.sel(learning_rate=1e30)
    assert (good.diverged_at == -1).all() and np.isfinite(good.test_loss).all()
    assert ((bad.diverged_at > 0) & (bad.diverged_at <= 12)).all()
    assert np.isnan(bad.test_loss.sel(update=[12, 24])).all() and np.isfinite(bad.test_loss.sel(update=0)).all()
    assert np.isnan(bad.train_accuracy.isel(trained=-1)).all()


def test_finished_cells_are_kept_and_the_rest_is_trained(tmp_path, capsys):
    config = SweepConfig(TRAIN, axes="momentum=(0.0, 0.3, 0.6), seed=(0, 1)", cells_at_once=1)
    whole = run_sweep(config, tmp_path / "whole")
    with pytest.raises(SweepUnfinishedError, match=r"0 of 6 cells are finished .* rerun the same command to resume"):
        run_sweep(config, tmp_path / "part", stop_after_minutes=0.0)
    part = tmp_path / "part"
    files = sorted((tmp_path / "whole" / "cells").iterdir())
    for path in files[:3]:
        (part / "cells" / path.name).write_bytes(path.read_bytes())
    damaged = part / "cells" / files[2].name
    damaged.write_bytes(damaged.read_bytes()[:-7])
    resumed = run_sweep(dataclasses.replace(config, cells_at_once=2), part)  # in other tiles
    assert "2 of 6 cells are finished" in capsys.readouterr().out
    assert [path.suffix for path in (part / "cells").iterdir()].count(".corrupted") == 1
    xarray.testing.assert_allclose(resumed, whole, rtol=1e-5)
    again = run_sweep(config, part)  # complete: nothing is trained
    assert "to train" not in capsys.readouterr().out.split("finished")[-1]
    xarray.testing.assert_identical(again.drop_attrs(), resumed.drop_attrs())
    with xarray.open_dataset(part / "results.nc", engine="scipy") as saved:
        xarray.testing.assert_equal(saved.test_loss, resumed.test_loss)
        assert json.loads(saved.attrs["config"])["train"]["num_updates"] == 24


@pytest.mark.slow
def test_a_killed_sweep_resumes_to_what_an_uninterrupted_one_gives(tmp_path):
    command = [sys.executable, "launch/sweep.py", "--config=configs/figure3.py:fast", "--config.train.model=Mlp"]
    command += ["--config.train.num_updates=20", "--config.train.eval_every=10", "--config.train.log_every=10"]
    command += ["--config.axes=num_workers=(1, 2), momentum=(0.0, 0.5), learning_rate=(0.1,), seed=(0, 1)"]
    command += ["--config.cells_at_once=1", "--config.figure=grid"]
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}

    def start(workdir):
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    killed = tmp_path / "killed"
    process = start(killed)
    while not list((killed / "cells").glob("*.npz")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(list((killed / "cells").glob("*.npz")))
    assert 1 <= done < 8 and not (killed / "results.nc").exists()
    out = start(killed).communicate()[0].decode()
    assert f"{done} of 8 cells are finished" in out and f"{8 - done} to train" in out
    assert "results.nc" in out, out
    whole = tmp_path / "whole"
    assert "8 to train" in start(whole).communicate()[0].decode()
    with (
        xarray.open_dataset(killed / "results.nc", engine="scipy") as one,
        xarray.open_dataset(whole / "results.nc", engine="scipy") as other,
    ):
        xarray.testing.assert_identical(one.drop_attrs(), other.drop_attrs())  # bit by bit


@pytest.mark.parametrize(
    "axes, message",
    [
        ("", "axes is empty"),
        ("momentum=()", "momentum is empty; expected at least one value"),
        ("momentum=(0, 0.3, 0.3)", "momentum must have distinct values, got 0.3 twice"),
        ("learning_rate=(1, 1.0)", "learning_rate must have distinct values, got 1.0 twice"),
        ("momenta=(0, 0.3)", "'momenta' is not a config field .* did you mean 'momentum'"),
        ("dataset=('digits', 'cifar10')", r"dataset selects the data, .* set config\.train\.dataset and"),
        (
            "classes=((0, 1), (2, 3))",
            "classes selects the data, which all cells of a sweep share",
        ),
        ("data_dir=('here', 'there')", "data_dir selects the data"),
        ("data_cache=('one.npz', 'other.npz')", "data_cache selects the data"),
        ("num_updates=(10, 20)", "'num_updates' is not a config field that can vary"),
        (r"momentum=(0.5, 2.0), seed=(0, 1)", r"the cell momentum=2.0, seed=0 is invalid: config.momentum must be"),
        ("num_workers=(1, 2.5)", "the cell num_workers=2.5 is invalid: config.num_workers must be of type int"),
        ("algorithm=('asgd',), momentum=(0.0, 0.9)", "asgd has no momentum; set it to 0"),
        ("crop_area=((), (0.5,))", r"must be numbers below 2\^31 or strings"),
        ("seed=(0, 4000000000)", r"must be numbers below 2\^31"),
        ("algorithm=(momentum_asgd(frm=inside),)", "has no option 'frm'.*did you mean 'form'"),
        ("start_from=('nowhere',)", "nowhere is not a checkpoint"),
        ("momentum=[0, open('x')]", 'is invalid: config.momentum must be of type float, got "open'),
        ("momentum", "axes must be like 'momentum="),
        ("algorithm.frm=(inside, outside)", "momentum_asgd has no option 'frm'.*did you mean 'form'"),
        ("algorithm.momentum=(0, 0.5)", "momentum of momentum_asgd is set by a field of its own"),
        ("algorithm.=(0, 0.5)", "'algorithm.' is not a config field"),
        ("model.hidden=(8, 16)", "'model.hidden' is not a config field"),
        (
            "algorithm=(dc_asgd, dc_asgd(strength=1)), algorithm.strength=(0, 0.5)",
            r"algorithm\.strength is an axis, but algorithm='dc_asgd\(strength=1\)' sets it too",
        ),
        ("algorithm=(dc_asgd, asgd), algorithm.strength=(0, 0.5)", "asgd has no option 'strength'"),
        ("algorithm=(dc_asgd,), algorithm.strength=(0, -0.5, 2)", "the cell .*=-0.5 .* strength must be finite and in"),
        ("algorithm=(dc_asgd,), bias_multiplier=(1, 2)", "bias_multiplier=2.0 is for methods that are linear"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_anything_is_traced(tmp_path, axes, message):
    with pytest.raises(RunError, match=message):
        run_sweep(SweepConfig(TRAIN, axes=axes), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    "axes",
    [
        {"algorithm": ("asgd", "ssgd"), "asynchrony": ("barrier", "queue")},
        {"algorithm": ("momentum_asgd", "asgd"), "momentum": (0.0, 0.5)},
        {"algorithm": ("momentum_asgd", "dc_asgd"), "bias_multiplier": (1.0, 2.0)},
        {"algorithm": ("asgd", "optax.sgd"), "decay_mask": ("all", "weights")},
        {"algorithm": ("asgd", "optax.sgd"), "weight_decay": (0.0, 0.1)},
        {"algorithm": ("asgd", "delayed_nesterov(activation=0.2)"), "num_workers": (4, 7)},
        {"schedule": ("constant", "optax.constant_schedule(value=1e307)"), "learning_rate": (0.1, 100.0)},
    ],
    ids=lambda axes: "-".join(axes),
)
def test_values_that_do_not_go_together_are_refused(axes):
    train = dataclasses.replace(TRAIN, asynchrony="barrier")
    for name in axes:
        Grid(train, axes | {name: axes[name][:1]})
    with pytest.raises(ValueError, match=r"the cell .* is invalid"):
        Grid(train, axes)


@pytest.mark.parametrize("seed", range(20))
def test_a_grid_is_refused_where_one_of_its_cells_is(seed):
    """Whatever is checked by axis: the cells one by one say the same."""
    values = {
        "algorithm": ("asgd", "momentum_asgd", "dc_asgd", "optax.adamw", "ssgd", "delayed_nesterov(activation=0.2)"),
        "algorithm.decay_at": ("read", "server"),
        "asynchrony": ("barrier", "queue"),
        "schedule": ("constant", "cosine(warmup=4, warmup_from=0.5)", "optax.constant_schedule(value=1e307)"),
        "num_workers": (1, 4, 7),
        "decay_mask": ("all", "weights"),
        "learning_rate": (0.0, 0.1, 100),
        "momentum": (0.0, 0.5, -1),
        "weight_decay": (0, 0.1),
        "bias_multiplier": (1.0, 2.0),
        "clip_norm": (0.0, 1.0),
        "ema_decay": (0.0, 0.9),
        "seed": (0, 1, 2),
    }
    draw = np.random.default_rng(seed)
    names = draw.choice([*values], size=4, replace=False)
    axes = {str(name): tuple(draw.permutation(np.array(values[name], object))) for name in names}
    axes = {name: found[: int(draw.integers(1, 4))] for name, found in axes.items()}
    common = {name: draw.choice(np.array(found, object)) for name, found in values.items() if "." not in name}
    train = dataclasses.replace(TRAIN, **common) if draw.random() < 0.3 else TRAIN
    grid = object.__new__(Grid)
    grid.__dict__.update(train=train, axes=axes)
    refused = [index for index in grid if not _can_be(grid, index)]
    if refused:
        with pytest.raises((TypeError, ValueError), match=r"the cell .* is invalid"):
            Grid(train, axes)
    else:
        assert len(Grid(train, axes)) == len(grid)


class Reading:
    """A config that notes which of its fields are read."""

    def __init__(self):
        self.read = set()

    def check(self):
        return self

    @property
    def named(self):
        return Named(self)

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(TRAIN, name)


def test_what_all_cells_share_cannot_vary():
    """All fields that the data depend on, and after which updates rows are logged."""
    of_data, of_rows = Reading(), Reading()
    experiment.load_data(of_data)
    assert of_data.read == {*grid.DATA}
    experiment.plan_of(of_rows, asyncflax.staleness.constant(1).trace(num_updates=24))
    assert of_rows.read - {*grid.PLACES} == {*grid.ROWS} - {"num_updates", "eval_batch_size"}


def _can_be(grid, index):
    try:
        config = grid.config(index)
        config.check()
        make_algorithm(config)
    except (TypeError, ValueError):
        return False
    return True


def test_millions_of_cells_are_checked_by_axis(monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda: 10**12)
    checked, check = [], TrainConfig.check
    monkeypatch.setattr(TrainConfig, "check", lambda config: checked.append(config) or check(config))
    rates, momenta = np.linspace(0, 1, 300), np.linspace(-1, 1, 300).tolist()
    grid = Grid(TRAIN, {"learning_rate": tuple(rates), "momentum": momenta, "seed": tuple(range(100))})
    assert len(grid) == 9_000_000 and len(checked) < 20
    with pytest.raises(ValueError, match=r"momentum=2.0, seed=0 is invalid: config.momentum must be finite"):
        Grid(TRAIN, {"learning_rate": tuple(rates), "momentum": [*momenta, 2.0, 0.123], "seed": tuple(range(100))})
    assert Grid(TRAIN, {"num_workers": tuple(range(1, 3001)), "seed": tuple(range(3000))}).shape == (3000, 3000)


def test_a_number_on_which_an_optimizer_branches_is_a_program_of_its_own(tmp_path, monkeypatch):
    text = """
        import optax

        def nudged(learning_rate, nudge=0.0, decay=0.0):
            tx = optax.sgd(learning_rate) if nudge else optax.identity()
            return optax.chain(optax.add_decayed_weights(decay), tx)
    """
    (tmp_path / "branching.py").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    train = dataclasses.replace(TRAIN, algorithm="branching.nudged", num_updates=12)
    config = SweepConfig(train, axes="algorithm.nudge=(0, 0.5), algorithm.decay=(0, 0.1)")
    grid = Grid.of(config)
    assert grid.numbers == ("learning_rate", "momentum", "algorithm.decay")
    assert {grid.program(index) for index in grid} == {(("algorithm.nudge", 0.0),), (("algorithm.nudge", 0.5),)}
    results = run_sweep(config, tmp_path / "sweep")
    last = results.test_loss.isel(update=-1)
    assert (last.sel({"algorithm.nudge": 0.0}) > last.sel({"algorithm.nudge": 0.5})).all()


def test_a_grid_that_does_not_fit_says_what_does(tmp_path):
    config = SweepConfig(TRAIN, axes="momentum=(0.0, 0.3), seed=(0, 1)", cells_at_once=2, memory_gb=0.0001)
    with pytest.raises(RunError, match=r"one cell needs|cells at once need .* GB of memory, but only 0.0001 GB is"):
        run_sweep(config, tmp_path / "sweep")
    many = SweepConfig(TRAIN, axes="momentum=" + str(tuple(np.linspace(0, 0.9, 64).tolist())), cells_at_once=64)
    need = _memory_of(many)
    half = dataclasses.replace(many, memory_gb=0.6 * need / 1e9)
    with pytest.raises(RunError, match=r"64 cells at once need .* GB of memory, .*; set cells_at_once=3\d"):
        run_sweep(half, tmp_path / "other")


def _memory_of(config: SweepConfig) -> float:
    grid = Grid.of(config)
    made = program.Program(config.train, [grid.environment((0,))], experiment.load_data(config.train))
    return made._memory([grid.environment((0,))], len(grid))


def test_tiles_are_cut_to_the_memory_that_there_is(monkeypatch):
    monkeypatch.setattr(program, "_FAST_ON_CPU", 64)
    config = SweepConfig(TRAIN, axes="momentum=" + str(tuple(np.linspace(0, 0.9, 64).tolist())) + ", seed=(0, 1)")
    grid = Grid.of(config)
    environments = list(dict.fromkeys(map(grid.environment, grid)))
    images = experiment.load_data(config.train)
    need = program.Program(config.train, environments, images)._memory(environments[:1], 64)
    made = program.Program(config.train, environments, images, memory_gb=0.6 * need / 1e9)
    e, h = made.tile(environments, 64)
    assert e == 1 and 16 <= h < 64 and made._memory(environments[:e], h) <= 0.6 * need


def test_averaged_parameters_are_evaluated_in_a_sweep_as_in_trainings(tmp_path):
    train = dataclasses.replace(TRAIN, ema_decay=0.9, learning_rate=0.1)
    results = run_sweep(SweepConfig(train, axes="momentum=(0.0, 0.5), seed=(0, 1)"), tmp_path / "sweep")
    row = loop.train_and_evaluate(dataclasses.replace(train, momentum=0.5, seed=1), tmp_path / "run").rows[-1]
    cell = results.sel(momentum=0.5, seed=1).isel(update=-1)
    for name in ("ema_test_loss", "ema_test_accuracy", "test_loss"):
        assert float(cell[name]) == pytest.approx(row[name], rel=1e-5)
    assert float(cell.ema_test_loss) != float(cell.test_loss)
    with pytest.raises(RunError, match=r"config.extend=\(5,\) requires a single run"):
        run_sweep(SweepConfig(dataclasses.replace(train, extend=(5,)), axes="seed=(0, 1)"), tmp_path / "other")


def test_the_methods_of_one_sweep_may_differ_in_having_momentum(tmp_path):
    train = dataclasses.replace(TRAIN, momentum=0.9)
    config = SweepConfig(train, axes="algorithm=(asgd, momentum_asgd(form=inside)), momentum=(0.0,)")
    results = run_sweep(config, tmp_path / "sweep")
    np.testing.assert_allclose(results.test_loss[0], results.test_loss[1], rtol=1e-6)


def test_the_environments_of_a_program_share_the_checkpoint_that_they_begin_with(tmp_path, monkeypatch):
    from asyncflax.train.loop import train_and_evaluate

    train_and_evaluate(TRAIN, tmp_path / "warm")
    train = dataclasses.replace(TRAIN, start_from=str(tmp_path / "warm" / "checkpoints" / "24"))
    load, read = experiment.load_model, []
    monkeypatch.setattr(experiment, "load_model", lambda *path, **like: read.append(path) or load(*path, **like))
    environments = [(("seed", seed),) for seed in range(3)]
    made = program.Program(train, environments, experiment.load_data(train))
    assert len(read) == 1
    found = made.train(environments, np.array([[0.05, 0.5]]))
    for k, environment in enumerate(environments):
        alone = experiment.make_experiment(dataclasses.replace(train, **dict(environment)))
        loss = float(alone.evaluate(alone.params)["test_loss"])
        np.testing.assert_allclose(found["test_loss"][k, 0, 0], loss, rtol=1e-6)
    assert len(set(found["test_loss"][:, 0, -1])) == 3, "other data and traces"


def test_cells_of_another_start_do_not_belong_to_a_sweep(tmp_path):
    from asyncflax.train.loop import train_and_evaluate

    path = tmp_path / "warm"
    train_and_evaluate(TRAIN, path)
    train = dataclasses.replace(TRAIN, start_from=str(path / "checkpoints" / "24"))
    config = SweepConfig(train, axes="momentum=(0.0, 0.3)")
    run_sweep(config, tmp_path / "sweep")
    shutil.rmtree(path)
    train_and_evaluate(dataclasses.replace(TRAIN, seed=1), path)
    with pytest.raises(RunError, match="holds a run with a different start_from file; take a new workdir"):
        run_sweep(config, tmp_path / "sweep")


def test_the_folder_of_something_else_is_refused(tmp_path):
    config = SweepConfig(TRAIN, axes="momentum=(0.0, 0.3)")
    run_sweep(config, tmp_path / "sweep")
    other = dataclasses.replace(config, train=dataclasses.replace(TRAIN, batch_size=16))
    with pytest.raises(RunError, match=r"config\.train\.batch_size was 8, now it is 16"):
        run_sweep(other, tmp_path / "sweep")
    with pytest.raises(RunError, match=r"config\.axes was"):
        run_sweep(dataclasses.replace(config, axes="momentum=(0.0, 0.5)"), tmp_path / "sweep")
    from asyncflax.train.loop import train_and_evaluate

    with pytest.raises(RunError, match=r"holds a run of a SweepConfig, expected a TrainConfig"):
        train_and_evaluate(TRAIN, tmp_path / "sweep")


def test_keys_that_depend_on_the_company_are_refused_before_anything_is_written(tmp_path):
    with jax.default_prng_impl("rbg"), pytest.raises(RunError, match=r"rbg, .* JAX_DEFAULT_PRNG_IMPL=threefry"):
        run_sweep(SweepConfig(TRAIN, axes="seed=(0, 1)"), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
