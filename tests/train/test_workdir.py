"""A folder belongs to one process, by the locks of either kind of system; and it knows what its run began with."""

import sys

import pytest

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
        pytest.raises(RunError, match=r"another process trains in workdir="),
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
