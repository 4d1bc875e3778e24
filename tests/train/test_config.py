"""The config: its checks, its options, its flags, what may change when a run goes on; and the files in configs/."""

import ast
import dataclasses
import json
import pathlib
import re
import runpy

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from asyncflax.lab import figures
from asyncflax.lab.compare import CompareConfig, Comparison
from asyncflax.lab.sweep import SweepConfig
from asyncflax.train import config as config_module
from asyncflax.train.config import TrainConfig
from asyncflax.train.loop import train_and_evaluate
from asyncflax.train.method import make_algorithm
from asyncflax.train.workdir import differences

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"num_workers": "8"}, TypeError, r"config\.num_workers must be of type int, got '8' \(str\)"),
        ({"num_workers": 0}, ValueError, r"config\.num_workers must be an integer >= 1, got config\.num_workers=0"),
        ({"num_workers": True}, TypeError, r"config\.num_workers must be of type int, got True"),
        ({"batch_size": 3.0}, TypeError, r"config\.batch_size must be of type int, got 3\.0"),
        ({"learning_rate": "fast"}, TypeError, r"config\.learning_rate must be of type float, got 'fast'"),
        ({"learning_rate": float("nan")}, ValueError, r"config\.learning_rate must be finite"),
        ({"learning_rate": -0.1}, ValueError, r"config\.learning_rate must be finite and in \[0, inf\]"),
        (
            {"momentum": 1.5},
            ValueError,
            r"config\.momentum must be finite and in \[-1, 1\].*grows without bound",
        ),
        ({"pixel_scale": 0.0}, ValueError, r"config\.pixel_scale must be finite and in \(0, inf\]"),
        ({"crop_pad": -1}, ValueError, r"config\.crop_pad must be an integer >= 0"),
        ({"flip": 1}, TypeError, r"config\.flip must be of type bool, got 1"),
        ({"clip_norm": -1.0}, ValueError, r"config\.clip_norm must be finite and in \[0, inf\]"),
        ({"ema_decay": 1.5}, ValueError, r"config\.ema_decay must be finite and in \[0, 1\]"),
        ({"decay_mask": "kernels"}, ValueError, "config.decay_mask must be one of 'all', 'weights', got 'kernels'"),
        ({"schedule": "cosin"}, ValueError, "config.schedule must be one of .*; did you mean 'cosine'"),
        ({"schedule": "cosine(warm=3)"}, ValueError, "cosine has no option 'warm'.*did you mean 'warmup'"),
        ({"crop_area": 0.5}, TypeError, r"config\.crop_area must be a tuple of numbers, got 0\.5"),
        (
            {"precision": "bf16"},
            ValueError,
            r"config\.precision must be one of 'float32', 'tf32', 'bfloat16', got 'bf16'",
        ),
        ({"precision": "float23"}, ValueError, r"got 'float23'; did you mean 'float32'"),
        (
            {"dataset": "digit"},
            ValueError,
            r"config\.dataset must be one of 'cifar10', .*, 'imagenet_eight', got 'digit'; did you mean 'digits'",
        ),
        (
            {"algorithm": "dc-asgd"},
            ValueError,
            r"config\.algorithm must be one of .*, got 'dc-asgd'; did you mean 'dc_",
        ),
        (
            {"asynchrony": "queue(service_time=gama)"},
            ValueError,
            r"config\.asynchrony: service_time must be one of .* did you mean 'gamma'\?",
        ),
        (
            {"asynchrony": "law(distribution=geometrical(mean=7))"},
            ValueError,
            r"config\.asynchrony: distribution must be one of .* did you mean 'geometric'",
        ),
        ({"asynchrony": "que"}, ValueError, r"config\.asynchrony must be one of 'barrier', .* got 'que'"),
        ({"asynchrony": ""}, ValueError, r"config\.asynchrony must be like 'NAME\(option=value\)', got ''"),
        ({"mesh": "mesh(device_group=2)"}, ValueError, r"config\.mesh: mesh has no option .* mean 'device_groups'"),
        ({"seed": 2**32}, ValueError, r"config\.seed must be at most 4294967295"),
        ({"algorithm": "ssgd"}, ValueError, r"config\.algorithm='ssgd' .* set config\.asynchrony='barrier"),
        ({"algorithm": "dc_asgd", "bias_multiplier": 2.0}, ValueError, r"linear in the gradient, which dc_asgd is not"),
    ],
)
def test_bad_fields_are_one_clear_error(fields, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**fields).check()


def test_numbers_may_be_written_plainly():
    config = TrainConfig(dataset="imagenet2012", learning_rate=1, crop_area=[0.5, 1]).check()
    assert (config.learning_rate, config.crop_area) == (1.0, (0.5, 1.0))
    config = TrainConfig(learning_rate=np.float32(0.5), num_workers=np.int64(4)).check()
    assert (config.learning_rate, config.num_workers) == (0.5, 4) and type(config.num_workers) is int


def test_a_training_reads_each_field_once(tmp_path, monkeypatch):
    fields, read = [], config_module.read
    monkeypatch.setattr(
        config_module, "read", lambda *args, **options: fields.append(args[0]) or read(*args, **options)
    )
    train_and_evaluate(
        TrainConfig(model="Mlp", num_workers=2, num_updates=4, momentum=0.5, schedule="cosine"), tmp_path
    )
    names = ("dataset", "asynchrony", "execution", "algorithm", "schedule", "model")
    assert sorted(fields) == sorted(f"config.{name}" for name in names)


def test_a_checked_config_cannot_be_changed():
    config = TrainConfig(algorithm="dc_asgd(strength=0.1)")
    checked = config.check()
    assert checked == config and checked.check() is checked and checked.named is checked.named
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"cannot set config\.algorithm once checked"):
        checked.algorithm = "asgd"
    other = dataclasses.replace(checked, algorithm="asgd")
    other.momentum = 0.5
    assert other.named.algorithm.name == "asgd" and checked.named.algorithm.name == "dc_asgd"


def test_a_run_goes_on_with_data_elsewhere_but_not_with_other_hyper_parameters():
    config = TrainConfig(crop_area=(0.5, 0.5))
    began = {**dataclasses.asdict(config), "crop_area": [0.5, 0.5]}  # as JSON has it
    assert differences(began, dataclasses.replace(config, data_dir="/elsewhere", keep_checkpoints=9)) == []
    for same in ({"algorithm": "momentum_asgd( )"}, {"asynchrony": "queue()"}, {"model": " SmallCnn"}):
        assert differences(began, dataclasses.replace(config, **same)) == []
    assert differences(began, dataclasses.replace(config, algorithm="momentum_asgd(form=outside)")) == [
        "config.algorithm was 'momentum_asgd', now it is 'momentum_asgd(form=outside)'"
    ]
    here, there = (TrainConfig(asynchrony=f"recorded(path='{name}.npz')") for name in ("here", "there"))
    assert differences(dataclasses.asdict(here), there) == []  # the content counts: see the inputs of a `Workdir`
    sweep = SweepConfig(axes={"momentum": (0, 0.5)})
    assert differences(json.loads(json.dumps(dataclasses.asdict(sweep))), SweepConfig(axes="momentum=(0, 0.5)")) == []
    assert differences(began, dataclasses.replace(config, seed=1)) == ["config.seed was 0, now it is 1"]
    assert differences({**began, "gone": 1}, config) == ["config.gone no longer exists"]
    del began["flip"]  # a run of an older version
    assert differences(began, config) == []


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize("text, classes", [("range(8)", tuple(range(8))), ("range(2, 8, 3)", (2, 5)), ("3,1", (3, 1))])
def test_classes_may_be_ranges_in_a_flag(text, classes, monkeypatch):
    command = ["train.py", f"--config={ROOT}/configs/imagenet_caffenet.py", f"--config.classes={text}"]
    monkeypatch.setattr("sys.argv", command)  # where ml_collections looks for fields
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    values(command)
    assert values.config.check().classes == classes


def variants(path):
    """Those that the docstring of a config tells of, in its table or in a sentence."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    return ["", *re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE), *re.findall(r"`:(\w+)` behind", text)]


CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize(
    "path, variant",
    [(path, v) for path in CONFIGS for v in variants(path)],
    ids=lambda value: getattr(value, "stem", value),
)
def test_every_variant_that_a_config_tells_of_is_in_order(path, variant):
    config = runpy.run_path(str(path))["get_config"](*[variant] * bool(variant))
    if isinstance(config, SweepConfig):
        figures.check(config)  # the grid as well
    elif isinstance(config, CompareConfig):
        assert len(Comparison(config)) > 1
    else:
        config.check()
    if isinstance(config, TrainConfig):
        make_algorithm(config)


@pytest.mark.parametrize("path", [path for path in CONFIGS if len(variants(path)) > 1], ids=lambda path: path.stem)
def test_a_variant_that_there_is_not_is_refused_with_those_that_there_are(path):
    with pytest.raises(ValueError, match=f"configs/{path.name} has the variants? .* not 'slow'") as error:
        runpy.run_path(str(path))["get_config"]("slow")
    named = re.findall(r"\w+", str(error.value).split(" variant")[1])
    assert set(named) - {"s", "and", "not", "slow"} == set(variants(path)) - {""}
