"""The folder of a run: whose it is, and with which config and trace the run began.

Where several processes run, they must all see it, and the primary alone writes in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import jax
import numpy as np

from asyncflax._files import write_atomically
from asyncflax.errors import RunError
from asyncflax.trace import Trace
from asyncflax.train.distributed import broadcast, is_primary, sync

__all__ = ["Workdir", "differences"]


class Workdir:
    """The folder of a run.

    Args:
      path: a new name, an empty folder, or the folder of a run with the same config.
      config: of the run, a dataclass; its fields with metadata 'free' may change.

    Raises:
      ValueError: the folder is something else, or cannot be written; nothing has been written.

    Example:
      >>> import asyncflax, tempfile
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.train.workdir import Workdir
      >>> config, path = TrainConfig(num_updates=10), tempfile.mkdtemp()
      >>> trace = asyncflax.staleness.constant(0).trace(10)
      >>> with Workdir(path, config).owned() as workdir:
      ...     workdir.begin(trace)
      >>> Workdir(path, TrainConfig(num_updates=20))  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: workdir=... holds a run of another config: config.num_updates was 10, now it is 20. Take a new \
workdir, or the old config to go on.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any):
        self.path, self.config, self._kind = pathlib.Path(path), config, type(config).__name__
        self._name = f"workdir={os.fspath(path)!r}"
        self._record, self._trace = self.path / "run.json", self.path / "trace.npz"
        self._sources: dict[str, str] = {}
        if is_primary():
            self._refuse_other_folder()

    def _refuse_other_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self._name} is a file, it must be a folder or a new name.")
        parent = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ValueError(f"{self._name} cannot be written, {parent} does not allow it.")
        if self._record.exists():
            self._refuse_other_config()
        elif self.path.exists():
            ours = {".lock", self._trace.name}  # what a process that was killed at its start leaves
            others = [p.name for p in self.path.iterdir() if p.name not in ours and p.suffix != ".part"]
            if others:
                raise ValueError(f"{self._name} holds other things ({others[0]}) and no run.json; take a new folder.")

    @contextlib.contextmanager
    def owned(self) -> Iterator[Workdir]:
        """Makes the folder and keeps other processes out of it.

        Raises:
          RunError: another process is in it, or it cannot be made.
        """
        if not is_primary():
            yield self
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(f"{self._name} cannot be written: {error}") from error
        with file:
            try:
                _lock(file)
            except (BlockingIOError, PermissionError):  # on POSIX, on Windows
                raise RunError(f"another process trains in {self._name}.") from None
            except OSError as error:
                raise RunError(f"{self._name} cannot be locked: {error}") from error
            yield self

    def begin(
        self,
        trace: Trace | None = None,
        *,
        inputs: Mapping[str, str] | None = None,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Writes config, versions and trace of a new run, or checks that the trace of an old one is still the same.

        Args:
          trace: of the run; a sweep has many, which follow from its config.
          inputs: digests by name, of files that the run reads: with another one it is another run.
          sources: digests by the name of a module, of code that is not the library's: see `changes`.

        Raises:
          ValueError: the config or the trace is another one, or a file is damaged; other processes see another folder.
        """
        self._sources = {**(sources or {})}
        if is_primary():
            self._write_or_compare(trace, inputs)
        sync("run.json is there")
        seen = self._record.read_text() if self._record.exists() else ""
        if seen != broadcast(seen):
            raise ValueError(f"{self._name} is another folder here than in process 0; take one that all processes see.")

    def _write_or_compare(self, trace: Trace | None, inputs: Mapping[str, str] | None) -> None:
        if not self._record.exists():
            if trace is not None:
                trace.save(self._trace, overwrite=True)  # what a killed process left may lie there
            about = {
                "kind": self._kind,
                "config": dataclasses.asdict(self.config),
                "inputs": {**(inputs or {})},
                "sources": self._sources,
                **_versions(),
            }
            text = json.dumps(about, indent=1) + "\n"
            write_atomically(self._record, lambda file: file.write(text.encode()))
            return
        self._refuse_other_config()  # another process may have begun meanwhile
        before = self._began().get("inputs", {})
        for name in (inputs or {}).keys() | before.keys():
            if before.get(name) != (inputs or {}).get(name):
                raise ValueError(f"{self._name} holds a run that read another file as {name}; take a new workdir.")
        if trace is None:
            return
        old = Trace.load(self._trace)
        if not (np.array_equal(old.worker, trace.worker) and np.array_equal(old.read_version, trace.read_version)):
            raise ValueError(
                f"the config makes another trace than the run began with, {self._trace}; take a new workdir."
            )

    def changes(self) -> list[str]:
        """What is not as it was when the run began, in words: versions and the code that is not the library's."""
        began = self._began()
        versions = [
            f"{name} was {began.get(name)}, now it is {now}; the last bits may differ"
            for name, now in _versions().items()
            if began.get(name) != now
        ]
        before = began.get("sources", {})
        names = sorted(before.keys() | self._sources.keys())
        other = [name for name in names if before.get(name) != self._sources.get(name)]
        return versions + [f"the source of {name} has changed since the run began" for name in other]

    def _refuse_other_config(self) -> None:
        began = self._began()
        if began.get("kind", self._kind) != self._kind:
            raise ValueError(
                f"{self._name} has a {began['kind']} in its run.json, no {self._kind}; take a new workdir."
            )
        changed = differences(began["config"], self.config)
        if changed:
            raise ValueError(
                f"{self._name} holds a run of another config: {'; '.join(changed)}. "
                "Take a new workdir, or the old config to go on."
            )

    def _began(self) -> dict:
        try:
            began = json.loads(self._record.read_text())
            if not isinstance(began["config"], dict):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{self._record} cannot be read; put it right, or take a new workdir.") from None
        return began


def _lock(file: IO[str]) -> None:
    """Locks an open file until it is closed, or this process ends; an OSError if it is locked already."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def differences(old: Mapping[str, Any], new: Any, name: str = "config") -> list[str]:
    """What keeps a run with config `old` (as a dict) from being resumed with `new`, in words that call it `name`.

    >>> import dataclasses
    >>> from asyncflax.train.config import TrainConfig
    >>> from asyncflax.train.workdir import differences
    >>> differences(dataclasses.asdict(TrainConfig()), TrainConfig(momentum=0.5, data_dir="elsewhere"))
    ['config.momentum was 0.0, now it is 0.5']
    """
    lines = []
    for field in dataclasses.fields(new):
        if field.metadata.get("free"):
            continue
        listed = lambda value: list(value) if isinstance(value, tuple) else value  # as JSON has it
        before, now = listed(old.get(field.name, field.default)), listed(getattr(new, field.name))
        plain = field.metadata.get("plain", lambda value: value)
        if dataclasses.is_dataclass(now):
            lines += differences(before if isinstance(before, Mapping) else {}, now, f"{name}.{field.name}")
        elif plain(before) != plain(now):
            lines.append(f"{name}.{field.name} was {before!r}, now it is {now!r}")
    return lines + [f"{name}.{other} no longer exists" for other in old if not hasattr(new, other)]


def _versions() -> dict[str, str]:
    """What the last bits of a run depend on."""
    packages = ("asyncflax", "jax", "jaxlib", "numpy", "optax", "flax")
    return {name: importlib.metadata.version(name) for name in packages} | {"device": jax.devices()[0].device_kind}
