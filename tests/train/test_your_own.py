"""What a user brings in a file of their own, without an edit of the package: from the command line, as they would."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import killing
import numpy as np
import pytest
import xarray

import asyncflax
from asyncflax.errors import RunError
from asyncflax.lab.sweep import SweepConfig, run_sweep
from asyncflax.train import TrainConfig, train_and_evaluate
from asyncflax.train.experiment import make_experiment
from asyncflax.train.method import make_algorithm

ROOT = pathlib.Path(__file__).parents[2]
OWN = '''
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx
import asyncflax
from asyncflax import queues, staleness, transforms
from asyncflax.lab.figures import Findings
from asyncflax.train.asynchrony import Asynchrony

def velocities(learning_rate, momentum, num_workers, scale=1.0):
    """One velocity a worker, as multi_asgd has them."""
    state = transforms.per_worker(optax.trace(momentum), num_workers)
    return asyncflax.from_optax(optax.chain(optax.scale_by_learning_rate(learning_rate), optax.scale(scale), state))

def clipped(learning_rate, limit=1.0):
    return optax.chain(optax.clip(limit), optax.scale_by_learning_rate(learning_rate))

def by_size(learning_rate, times: int = 2, limit: float = 1.0):
    steps = [optax.clip(limit)] * times if limit > 0 else []
    return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate))

def fails(learning_rate, num_workers, option: "np.nothing_there" = 1):
    assert num_workers > 99, "a line\\nand another"

def fails_later(learning_rate):
    scale = lambda updates, state, params=None: ({"other": updates}, state)
    return optax.GradientTransformation(lambda params: optax.EmptyState(), scale)

def no_rate(limit=1.0):
    return optax.clip(limit)

def not_a_method(learning_rate):
    return learning_rate

class Tiny(nnx.Module):
    def __init__(self, image_shape, num_classes, width=4, *, rngs):
        self.one = nnx.Linear(int(np.prod(image_shape)), width, rngs=rngs)
        self.two = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.two(nnx.relu(self.one(images.reshape(len(images), -1))))

def stripes(n=60):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=n).astype(np.int32)
    rows = np.arange(8)[None, :, None, None] % 2 == labels[:, None, None, None]
    images = np.broadcast_to(200 * rows, (n, 8, 8, 1)).astype(np.uint8)
    return asyncflax.data.ImageData(images, labels, images[:20], labels[:20])

def coin(slow=1.5):
    task = lambda rng, n: rng.choice([2 - slow, slow], n)
    return queues.ServiceTime("coin", lambda rng, num_workers: np.ones(num_workers), task)

def two_or_none():
    return staleness.empirical([0.5, 0.0, 0.5])

def one_late(num_workers, num_updates, late=3):
    return Asynchrony(staleness.constant(late).trace(num_updates, num_workers=num_workers))

def bars(figure, results, color="C0"):
    figure.subplots().hist(np.ravel(results.test_loss), color=color)
    return Findings(f"{results.diverged_at.size} cells in {color}")
'''
BROKEN = "import nothing_of_the_kind"
SHORT = ["--config.num_updates=40", "--config.log_every=10", "--config.eval_every=20", "--config.checkpoint_every=10"]
METHOD = ["--config.algorithm=my_things.velocities(scale=0.5)", "--config.num_workers=4", "--config.momentum=0.3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with the user's file in it."""
    folder = tmp_path_factory.mktemp("own")
    folder.joinpath("my_things.py").write_text(OWN)
    folder.joinpath("broken.py").write_text(BROKEN)
    folder.joinpath("statistics.py").write_text("")
    return folder


def start(folder, launcher, config, *flags):
    command = [sys.executable, str(ROOT / "launch" / launcher), f"--config={ROOT}/configs/{config}", *flags]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_ENABLE_X64": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def launch(folder, launcher, config, *flags):
    process = start(folder, launcher, config, *flags)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.slow
def test_a_method_with_a_state_for_each_worker_trains_is_killed_and_resumes(folder):
    """Its numbers are those of `multi_asgd` with half the learning rate; a changed source is noted."""
    status, out, err = launch(folder, "train.py", "digits.py", "--workdir=whole", *SHORT, *METHOD)
    assert status == 0, err
    whole = killing.results(folder / "whole")
    flags = ["--workdir=killed", *SHORT, *METHOD, "--config.num_updates=400"]
    process = start(folder, "train.py", "digits.py", *flags)
    killing.wait_for(lambda: (folder / "killed" / "checkpoints" / "20").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, out, err = launch(folder, "train.py", "digits.py", *flags)
    assert status == 0 and "resumes at update" in out and "note:" not in out, out + err
    status, _, err = launch(folder, "train.py", "digits.py", "--workdir=straight", *flags[1:])
    assert status == 0, err
    assert set(killing.differing(killing.results(folder / "straight"), killing.results(folder / "killed"))) <= {"kept"}
    half = ["--config.algorithm=multi_asgd(form=inside)", "--config.learning_rate=0.1", *METHOD[1:]]
    status, _, err = launch(folder, "train.py", "digits.py", "--workdir=twin", *SHORT, *half)
    assert status == 0, err
    twin = killing.results(folder / "twin")
    names = [name for name in whole if name.startswith("['params']")]
    assert names and all(np.allclose(whole[name], twin[name], atol=1e-6) for name in names)
    began = json.loads((folder / "whole" / "run.json").read_text())
    assert list(began["sources"]) == ["my_things"] and len(began["sources"]["my_things"]) == 64
    source = folder / "my_things.py"
    source.write_text(f"{OWN}\n# a change\n")
    try:
        status, out, _ = launch(folder, "train.py", "digits.py", "--workdir=whole", *SHORT, *METHOD)
    finally:
        source.write_text(OWN)
    assert status == 0 and "note: the source of my_things has changed since the run began" in out


@pytest.mark.slow
def test_it_is_swept_and_compared(folder):
    axes = "--config.axes=algorithm=(my_things.velocities, asgd), momentum=(0,), seed=(0, 1)"
    small = ["--config.train.num_updates=20", "--config.train.model=Mlp", "--config.train.eval_every=10"]
    flags = ["--workdir=sweep", axes, "--config.figure=my_things.bars(color=red)", *small]
    status, out, err = launch(folder, "sweep.py", "figure3.py:fast", *flags)
    assert status == 0 and "4 cells in red" in out and (folder / "sweep" / "claims" / "bars.png").exists(), err
    with xarray.open_dataset(folder / "sweep" / "results.nc", engine="scipy") as results:
        one, other = results.test_loss.values
        np.testing.assert_allclose(one, other, rtol=1e-5)  # without momentum it is asgd
        assert results.algorithm.values.tolist() == ["my_things.velocities", "asgd"]
    flags = ["--workdir=compared", "--config.service_times=my_things.coin, gamma", *small]
    flags += ["--config.methods=own=my_things.velocities(momentum=0.2), adam=optax.adam(b1=0.8), asgd"]
    status, out, err = launch(folder, "compare.py", "dana_table.py:fast", "--config.linear_scaling=asgd", *flags)
    assert status == 0 and "| own " in out and "| adam" in out, err
    with xarray.open_dataset(folder / "compared" / "results.nc", engine="scipy") as results:
        assert dict(results.diverged_at.sizes) == {"method": 3, "service_time": 2, "num_workers": 2, "seed": 2}
        assert np.isfinite(results.test_loss).all()
        assert results.law.values.tolist() == ["my_things.coin()", "gamma()"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--config.model=my_things.Tiny(width=6)", "--config.dataset=my_things.stripes(n=50)"],
        ["--config.asynchrony=law(distribution=my_things.two_or_none)"],
        ["--config.asynchrony=queue(service_time=my_things.coin(slow=1.2))"],
        ["--config.asynchrony=my_things.one_late(late=2)", "--config.num_workers=2"],
        ["--config.algorithm=optax.contrib.muon(weight_decay=0.01)", "--config.momentum=0"],
        ["--config.algorithm=my_things.by_size", "--config.momentum=0"],
        ["--config.algorithm=my_things.clipped(limit=0.1)", "--config.momentum=0", "--config.num_workers=2"],
    ],
    ids=[
        "network and data",
        "distribution",
        "service time",
        "asynchrony",
        "muon",
        "a chain by size",
        "a chain of Optax",
    ],
)
def test_each_of_them_trains(folder, flags, request):
    workdir = re.sub(r"\W", "_", request.node.callspec.id)
    status, out, err = launch(folder, "train.py", "digits.py", f"--workdir={workdir}", *SHORT, *flags)
    assert status == 0, err
    assert "test accuracy" in out


BAD = {
    "no module": ({"algorithm": "my_thigns.velocities"}, r"config\.algorithm: no module 'my_thigns'"),
    "no name": ({"algorithm": "my_things.velocitys"}, "my_things has no 'velocitys'; did you mean 'velocities'"),
    "no option": ({"algorithm": "my_things.velocities(sale=1)"}, "has no option 'sale', .* did you mean 'scale'"),
    "broken": ({"model": "broken.Net"}, r"config\.model: broken cannot be imported: it requires nothing_of_the_kind"),
    "no method": (
        {"algorithm": "my_things.not_a_method", "momentum": 0.0},
        r"config\.algorithm: my_things\.not_a_method must return AsyncAlgorithm or GradientTransformation, got",
    ),
    "no rate": (
        {"algorithm": "my_things.no_rate", "momentum": 0.0},
        r"config\.algorithm: my_things\.no_rate has no learning_rate, .* optax\.scale_by_learning_rate",
    ),
    "momentum": ({"algorithm": "optax.adamw"}, r"config\.momentum=0\.3, but optax\.adamw is an Optax transformation"),
    "decay twice": (
        {"algorithm": "optax.adamw", "momentum": 0.0, "weight_decay": 0.1},
        r"config\.weight_decay=0\.1, but optax\.adamw is an Optax transformation; set it to 0",
    ),
    "decay that it lacks": (
        {"algorithm": "my_things.velocities", "weight_decay": 0.1},
        r"config\.weight_decay=0\.1, but my_things\.velocities has no weight decay; set it to 0",
    ),
    "momentum twice": (
        {"algorithm": "my_things.velocities(momentum=0.9)"},
        r"config\.algorithm: momentum of my_things\.velocities is set by a field of its own",
    ),
    "a method that fails": (
        {"algorithm": "my_things.fails(option=2)", "momentum": 0.0},
        r"config\.algorithm='my_things\.fails\(option=2\)': AssertionError: a line and another",
    ),
    "a method that fails later": (
        {"algorithm": "my_things.fails_later", "momentum": 0.0},
        r"config\.algorithm='my_things\.fails_later\(\)': ",
    ),
    "a name of Python": (
        {"algorithm": "statistics.mean", "momentum": 0.0},
        r"config\.algorithm: statistics is .*, not statistics\.py in the working folder; rename yours",
    ),
    "no network": ({"model": "my_things.coin"}, r"config\.model='my_things\.coin\(\)': "),
    "no data": (
        {"dataset": "my_things.coin"},
        r"config\.dataset: my_things\.coin must return ImageData or Im",
    ),
    "no distribution": (
        {"asynchrony": "law(distribution=my_things.coin)"},
        r"config\.asynchrony: distribution: my_things\.coin must return StalenessLaw, got ServiceTime",
    ),
    "no service time": (
        {"asynchrony": "queue(service_time=my_things.two_or_none)"},
        r"config\.asynchrony: service_time: my_things\.two_or_none must return Serv",
    ),
    "no asynchrony": ({"asynchrony": "my_things.coin"}, r"config\.asynchrony: my_things\.coin must return Asynchrony"),
}


@pytest.mark.parametrize("fields, message", BAD.values(), ids=BAD)
def test_a_wrong_name_or_option_is_one_line_and_nothing_is_written(folder, monkeypatch, fields, message):
    monkeypatch.chdir(folder)
    config = TrainConfig(**{"num_updates": 40, "num_workers": 4, "momentum": 0.3, **fields})
    with pytest.raises(RunError, match=message) as error:
        train_and_evaluate(config, folder / "bad")
    assert "\n" not in str(error.value)
    assert not (folder / "bad").exists()


def test_a_recorded_trace_is_known_by_its_content(tmp_path):
    """It may lie elsewhere when a run goes on; another trace under the same name is another run."""
    trace = asyncflax.staleness.constant(1).trace(num_updates=20)
    trace.save(tmp_path / "here.npz")
    small = {"num_updates": 20, "eval_every": 10, "model": "Mlp(hidden=4)"}
    config = lambda name: TrainConfig(asynchrony=f"recorded(path='{tmp_path / name}.npz')", **small)
    rows = train_and_evaluate(config("here"), tmp_path / "run").rows
    sweep = SweepConfig(config("here"), {"momentum": (0.0, 0.5)})
    run_sweep(sweep, tmp_path / "sweep")
    (tmp_path / "here.npz").rename(tmp_path / "there.npz")
    assert train_and_evaluate(config("there"), tmp_path / "run").rows == rows
    run_sweep(dataclasses.replace(sweep, train=config("there")), tmp_path / "sweep")
    asyncflax.staleness.constant(2).trace(num_updates=20).save(tmp_path / "here.npz")
    axis = SweepConfig(TrainConfig(**small), {"asynchrony": (config("there").asynchrony, config("here").asynchrony)})
    run_sweep(axis, tmp_path / "axis")
    asyncflax.staleness.constant(3).trace(num_updates=20).save(tmp_path / "here.npz", overwrite=True)
    for again in (
        lambda: train_and_evaluate(config("here"), tmp_path / "run"),
        lambda: run_sweep(sweep, tmp_path / "sweep"),
        lambda: run_sweep(axis, tmp_path / "axis"),
    ):
        with pytest.raises(RunError, match="holds a run with a different trace file; take a new workdir"):
            again()


def test_a_transformation_of_optax_has_the_schedule_of_the_config():
    config = TrainConfig(algorithm="optax.sgd", num_updates=40, schedule="steps(at=0.5)", learning_rate=0.1)
    params = {"w": np.ones(3, np.float32)}
    for event, rate in ((0, 0.1), (19, 0.1), (20, 0.01)):
        algorithm = make_algorithm(config)
        state = algorithm.init(params)
        for _ in range(event + 1):
            updates, state = algorithm.update(params, state, params, worker=0, staleness=0, read_params=params)
        np.testing.assert_allclose(updates["w"], -rate, rtol=1e-6)
    made = make_experiment(
        TrainConfig(algorithm="optax.adamw(weight_decay=0.1)", num_updates=20, model="Mlp(hidden=4)")
    )
    state = asyncflax.init_run(made.algorithm, made.params, made.plan, key=made.key)
    state, out = asyncflax.run_chunk(made.algorithm, made.gradient_fn, state, made.plan[0], made.batches(made.plan[0]))
    assert np.isfinite(np.asarray(out.losses)).all()
