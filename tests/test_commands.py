"""The program `asyncflax`: what there is, what helps, and one line where something is wrong."""

import dataclasses
import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from launching import launch_all

from asyncflax import commands
from asyncflax.commands import _catalogue
from asyncflax.lab import claims
from asyncflax.lab.compare import CompareConfig
from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig
from asyncflax.lab.sweep import SweepConfig
from asyncflax.train import _help, launcher
from asyncflax.train.config import TrainConfig

ROOT = pathlib.Path(__file__).parents[1]
KINDS = {"train": TrainConfig, "sweep": SweepConfig, "compare": CompareConfig, "streaming-pca": StreamingPcaConfig}


def program(monkeypatch, capsys, *arguments):
    """Runs `asyncflax` in this process; its status, what it prints and its errors."""
    monkeypatch.setattr(sys, "argv", ["asyncflax", *arguments])
    status = 0
    try:
        commands.main()
    except SystemExit as end:
        status = end.code or 0
    return status, *capsys.readouterr()


def test_alone_it_says_what_there_is(monkeypatch, capsys):
    for arguments in ((), ("--help",), ("help",)):
        status, out, err = program(monkeypatch, capsys, *arguments)
        assert status == 0 and err == ""
        assert all(f"asyncflax {name}" in out for name in commands.COMMANDS)
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "launch").glob("[!_]*.py")}
    files = {p.stem.replace("_", "-") for p in (ROOT / "asyncflax" / "commands").glob("*.py") if p.stem[0] != "_"}
    assert files == {*commands.COMMANDS} and scripts == files - {"list", "describe"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian"], "error: unknown command 'trian'; did you mean 'train'? 'asyncflax help' lists all\n"),
        (["xyz"], "error: unknown command 'xyz'. 'asyncflax help' lists all\n"),
        (["list", "method"], "error: the kind must be one of 'methods', "),
        (["list", "--all"], "error: unknown flag '--all'; see --help\n"),
        (["describe", "dc_agsd"], "error: the name must be one of "),
        (["describe"], "error: name something to describe; 'asyncflax list' shows all names.\n"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, arguments, message):
    status, out, err = program(monkeypatch, capsys, *arguments)
    assert status == 1 and out == "" and err.startswith(message) and err.count("\n") == 1


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError("No module named 'absl'", name="absl.flags")

    monkeypatch.setattr(importlib, "import_module", missing)
    status, _, err = program(monkeypatch, capsys, "train")
    assert status == 1
    assert err == 'error: train needs absl.flags, which is not installed; pip install "asyncflax[train]"\n'


def test_everything_is_listed_and_described(monkeypatch, capsys):
    _, listed, _ = program(monkeypatch, capsys, "list")
    names = [name for of_kind in _catalogue.catalogue().values() for name in of_kind]
    assert len(names) > 50 and all(f"  {name} " in listed for name in names)
    _, described, _ = program(monkeypatch, capsys, "describe", *names, *_catalogue.configs())
    assert all(f"\n{name}(" in f"\n{described}" for name in names)
    assert "\nMlp(image_shape, num_classes=10, hidden=64, dropout=0.0)    [networks]\n" in described
    status, out, _ = program(monkeypatch, capsys, "describe", "dc_asgd(strength=1)")
    assert status == 0 and "strength=" in out and "Source:" in out and "\\lambda" in out
    assert "decay_at='read'" in out and out.count("`decay_at`, 'read' or 'server'") == 1
    assert program(monkeypatch, capsys, "list", "--help")[1].startswith("Lists everything that a config can name.")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind):
    fields = {field.name: field for field in _help.fields(kind)}
    assert [*fields] == [field.name for field in dataclasses.fields(kind)]
    nested = [name for name, field in fields.items() if dataclasses.is_dataclass(field.default)]
    assert [
        name for name, field in fields.items() if not field.comment and name not in (*nested, "seed", "seeds")
    ] == []
    for field in dataclasses.fields(kind):
        if field.name not in nested:
            assert fields[field.name].default == getattr(kind(), field.name)


def test_help_configs_by_name_and_flags_before_anything_is_loaded(tmp_path):
    """Real processes: help of each command, a config by name in one and in two words, and what is no config."""
    helps = [[f"launch/{path.name}", "--help"] for path in sorted((ROOT / "launch").glob("[!_]*.py"))]
    train = ["launch/train.py", f"--workdir={tmp_path / 'run'}"]
    bad = ["--config.num_workers=0"]
    runs = [[*train, "--config=digits:fast", *bad], [*train, "--config", "digits", *bad], [*train, "--config=digitz"]]
    done = launch_all([*helps, *runs])
    for command, one in zip(helps, done, strict=False):
        assert one.status == 0 and one.err == "" and "Flags:\n" in one.out, (command, one)
    found = {command[0]: one.out for command, one in zip(helps, done, strict=False)}
    for name, kind in KINDS.items():
        text = found[f"launch/{name.replace('-', '_')}.py"]
        assert all(f"  --config.{field.name}" in text for field in dataclasses.fields(kind))
    for one in done[-3:-1]:
        assert one.status == 1 and "config.num_workers must be an integer >= 1" in one.err, one
    assert done[-1].err == (
        "error: unknown config 'digitz'; did you mean 'digits'? 'asyncflax list configs' lists all "
        "(a path must end in .py)\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_claim_that_the_program_makes_names_files_that_there_are(tmp_path):
    """In a sweep the claims are written when everything has been trained: a command they refuse would cost it all."""
    fields = {"name": "x", "statement": "s", "source": "s", "paper": "p", "ours": "o", "value": 1.0, "seeds": 2}
    typed = ["asyncflax sweep --config=figure3:fast --workdir=runs/x", "asyncflax streaming-pca --config=streaming_pca"]
    for command in (*typed, "python launch/sweep.py --config=figure3:fast", "python launch/theory.py --workdir=runs/x"):
        claim = claims.Claim(**fields, interval=(0.5, 1.5), command=claims.portable(command))
        assert claim.command == command and claims.Claim.load(claim.save(tmp_path, overwrite=True)) == claim
        assert all((ROOT / file).is_file() for file in claims.files_of(claim.command))
    with pytest.raises(ValueError, match=r"command must begin with 'python ' and a script.* or 'asyncflax '"):
        claims.Claim(**fields, interval=(0.5, 1.5), command="asyncflax")


@pytest.mark.slow
def test_the_program_trains_and_says_what_to_try_next(tmp_path):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_ENABLE_X64": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "asyncflax", "train", "--config=digits:fast", "--workdir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    following = "asyncflax train --config=digits:fast --config.num_workers=16 --workdir=run-16-workers"
    assert f"next, twice the workers: {following}\n" in done.stdout
    assert launcher.config_folder() == ROOT / "configs"
