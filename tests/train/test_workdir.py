"""A folder belongs to one process, by the locks of either kind of system; and it knows what its run began with."""

import os
import random
import sys

import numpy as np
import pytest

import asyncflax
from asyncflax.errors import RunError
from asyncflax.train.config import TrainConfig
from asyncflax.train.workdir import Workdir


class Locks:
    """Those of Windows: by file descriptor here, since a process does not exclude itself."""

    LK_NBLCK = 2

    def __init__(self):
        self.held = []

    def locking(self, descriptor, mode, size):
        assert (mode, size) == (self.LK_NBLCK, 1)
        if self.held:
            raise PermissionError(13, "Permission denied")
        self.held.append(descriptor)


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_a_folder_belongs_to_one_process(tmp_path, monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setitem(sys.modules, "msvcrt", Locks())
    if system == "win32":
        monkeypatch.setitem(sys.modules, "fcntl", None)  # there is none
    with (
        Workdir(tmp_path / "run", TrainConfig()).owned(),
        pytest.raises(RunError, match=r"another process is training in workdir="),
        Workdir(tmp_path / "run", TrainConfig()).owned(),
    ):
        pass


def test_sources_that_changed_since_the_run_began_are_named(tmp_path):
    """Only those: what is new or gone is a change as well."""
    config, sources = TrainConfig(), {"my_model": "a1", "my_data": "b2"}

    def changes(sources):
        workdir = Workdir(tmp_path / "run", config)
        with workdir.owned():
            workdir.begin(None, sources=sources)
            return workdir.changes()

    says = "the source of {} has changed since the run began".format
    assert changes(sources) == []
    assert changes(sources) == []
    assert changes(sources | {"my_data": "b3"}) == [says("my_data")]
    assert changes({"my_model": "a1", "other": "c"}) == [says("my_data"), says("other")]


def test_run_json_and_the_trace_are_known_again(tmp_path):
    """Every bit of run.json counts; a trace that is lost is the config's, which run.json knows."""
    config, trace = TrainConfig(), asyncflax.staleness.constant(2).trace(10)
    with Workdir(tmp_path, config).owned() as workdir:
        workdir.begin(trace)
    record, saved = tmp_path / "run.json", tmp_path / "trace.npz"
    content, rng = record.read_bytes(), random.Random(0)
    for position in rng.sample(range(len(content)), 200):
        record.write_bytes(
            content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]
        )
        with pytest.raises(ValueError, match=r"run\.json (is corrupted|has format)"):
            Workdir(tmp_path, config)
    for other in ("", "[]", "[" * 100_000, '{"format": 1}'):
        record.write_text(other)
        with pytest.raises(ValueError, match=r"run\.json is corrupted or not a run record"):
            Workdir(tmp_path, config)
    record.write_bytes(content)
    for spoil, what in ((saved.unlink, "missing"), (lambda: saved.write_bytes(b"?"), "corrupted; it is now")):
        spoil()
        workdir = Workdir(tmp_path, config)
        workdir.begin(trace)
        assert len(workdir.changes()) == 1 and f"trace.npz was {what}" in workdir.changes()[0]
        assert np.array_equal(asyncflax.Trace.load(saved).read_version, trace.read_version)
    with pytest.raises(ValueError, match="holds a run whose trace differs from the config's"):
        Workdir(tmp_path, config).begin(asyncflax.staleness.constant(3).trace(10))


@pytest.mark.parametrize("name", [".lock", "checkpoints", "checkpoints/5/state", "metrics.jsonl", "wandb", "elsewhere"])
def test_no_link_inside_the_folder_is_followed(tmp_path, name):
    """The folder itself may be one; a dangling link is one too."""
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    config = TrainConfig()
    with Workdir(tmp_path / "run", config).owned() as workdir:
        workdir.begin()
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    for target in (precious, tmp_path / "nothing"):
        link.symlink_to(target)
        with pytest.raises(ValueError, match=rf"contains a link, {name}; links inside a run's folder are not followed"):
            Workdir(tmp_path / "run", config)
        if name == ".lock":  # made after the look
            with pytest.raises(RunError, match=r"is not writable"), workdir.owned():
                pass
        link.unlink()
    assert precious.read_text() == "do not touch" and not (tmp_path / "nothing").exists()


def test_a_link_among_the_logs_of_wandb_is_no_obstacle(tmp_path):
    with Workdir(tmp_path, TrainConfig()).owned() as workdir:
        workdir.begin()
    (tmp_path / "wandb" / "logs").mkdir(parents=True)
    (tmp_path / "wandb" / "logs" / "core.log").symlink_to(tmp_path / "nothing")
    Workdir(tmp_path, TrainConfig())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no umask on Windows")
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        with Workdir(tmp_path / "run", TrainConfig()).owned() as workdir:
            workdir.begin(asyncflax.staleness.constant(2).trace(10))
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").iterdir()}
    assert modes == dict.fromkeys((".lock", "run.json", "trace.npz"), "0o640")
