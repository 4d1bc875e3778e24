"""A folder belongs to one process, by the locks of either kind of system."""

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
