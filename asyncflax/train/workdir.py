"""The folder of a run, with its original config and trace.

With several processes, all must see the folder; only the primary writes to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from asyncflax._files import set_aside, write_atomically
from asyncflax.errors import RunError
from asyncflax.trace import Trace
from asyncflax.train.distributed import broadcast, is_primary, sync
from asyncflax.train.environment import changes, environment

__all__ = ["Workdir", "differences"]

_FORMAT = 1  # of run.json


class Workdir:
    """The folder of a run.

    Args:
      path: a new or empty folder, or the folder of a run with the same config.
      config: a dataclass; fields with metadata 'free' may change when the run is resumed.

    Raises:
      ValueError: the folder holds something else or is not writable; nothing is written.

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
workdir, or the old config to resume.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any):
        self.path, self.config, self._kind = pathlib.Path(path), config, type(config).__name__
        self._name = f"workdir={os.fspath(path)!r}"
        self._record, self._trace = self.path / "run.json", self.path / "trace.npz"
        self._sources: dict[str, str] = {}
        self._notes: list[str] = []
        if is_primary():
            self._refuse_other_folder()

    def _refuse_other_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self._name} is a file; take a folder or a new name.")
        parent = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ValueError(f"{self._name} is not writable: no permission for {parent}.")
        # W&B symlinks its logs; its folder is never read, and removing it does not follow links.
        links = [p for p in self.path.rglob("*") if p.is_symlink() and self.path / "wandb" not in p.parents]
        if links:
            raise ValueError(
                f"{self._name} contains a link, {links[0].relative_to(self.path)}; links inside a run's folder are "
                "not followed (the folder itself may be one). Replace it with its target, or take a new workdir."
            )
        if self._record.exists():
            self._refuse_other_config()
        elif self.path.exists():
            ours = {".lock", self._trace.name}  # left by a process that was killed while starting
            others = [p.name for p in self.path.iterdir() if p.name not in ours and p.suffix != ".part"]
            if others:
                raise ValueError(f"{self._name} contains other files ({others[0]}) and no run.json; take a new folder.")

    @contextlib.contextmanager
    def owned(self) -> Iterator[Workdir]:
        """Creates the folder and locks it for this process.

        Raises:
          RunError: another process holds the lock, or the folder cannot be created.
        """
        if not is_primary():
            yield self
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            no_link = getattr(os, "O_NOFOLLOW", 0)
            file = open(os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | no_link, 0o666), "r+")  # noqa: SIM115
        except OSError as error:
            raise RunError(f"{self._name} is not writable: {error}") from error
        with file:
            try:
                _lock(file)
            except (BlockingIOError, PermissionError):  # on POSIX, on Windows
                raise RunError(f"another process is training in {self._name}.") from None
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
        """Records config, versions and trace of a new run, or checks that they match those of a resumed one.

        Args:
          trace: the run's trace; None for a sweep, whose traces follow from its config.
          inputs: the digests by name of the files that the run reads, which are part of its identity.
          sources: the digests by module name of code outside the library; see `changes`.

        Raises:
          ValueError: the config or the trace differs, run.json is corrupted, or the processes see different folders.
        """
        self._sources = {**(sources or {})}
        if is_primary():
            self._write_or_compare(trace, inputs)
        sync("run.json written")
        seen = self._record.read_text() if self._record.exists() else ""
        if seen != broadcast(seen):
            raise ValueError(f"{self._name} is another folder here than in process 0; take one that all processes see.")

    def _write_or_compare(self, trace: Trace | None, inputs: Mapping[str, str] | None) -> None:
        digest = None if trace is None else _digest(trace.worker, trace.read_version)
        if not self._record.exists():
            if trace is not None:
                trace.save(self._trace, overwrite=True)  # a killed process may have left one
            about = {
                "format": _FORMAT,
                "kind": self._kind,
                "config": dataclasses.asdict(self.config),
                "inputs": {**(inputs or {})},
                "trace": digest,
                "sources": self._sources,
                "environment": environment(),
            }
            text = json.dumps(about | {"sha256": _digest(_text(about))}, indent=1) + "\n"
            write_atomically(self._record, lambda file: file.write(text.encode()))
            return
        self._refuse_other_config()  # another process may have started meanwhile
        began = self.began
        before = began["inputs"]
        for name in (inputs or {}).keys() | before.keys():
            if before.get(name) != (inputs or {}).get(name):
                raise ValueError(f"{self._name} holds a run with a different {name} file; take a new workdir.")
        if digest != began["trace"]:
            raise ValueError(f"{self._name} holds a run whose trace differs from the config's; take a new workdir.")
        if trace is not None:
            self._restore(trace)

    def _restore(self, trace: Trace) -> None:
        """Restores the trace file if it is missing or corrupted."""
        try:
            saved = Trace.load(self._trace)
            saved = saved.prefix(min(len(saved), len(trace)))  # that of an extended run is longer
            if np.array_equal(saved.worker, trace.worker) and np.array_equal(saved.read_version, trace.read_version):
                return
        except (OSError, ValueError):
            pass
        what = f"corrupted; it is now {set_aside(self._trace).name}" if self._trace.exists() else "missing"
        self._notes.append(f"{self._trace} was {what}; the original trace has been saved again")
        trace.save(self._trace)

    def save_trace(self, trace: Trace) -> None:
        """Replaces the trace file by the longer trace of an extended run."""
        if is_primary():
            trace.save(self._trace, overwrite=True)

    def changes(self) -> list[str]:
        """The changes since the run began, one line each: versions, imported user code, a restored trace."""
        began = self.began
        before = began["sources"]
        names = sorted(before.keys() | self._sources.keys())
        other = [name for name in names if before.get(name) != self._sources.get(name)]
        sources = [f"the source of {name} has changed since the run began" for name in other]
        return self._notes + changes(began["environment"], environment()) + sources

    def _refuse_other_config(self) -> None:
        began = self.began
        if began["kind"] != self._kind:
            raise ValueError(
                f"{self._name} holds a run of a {began['kind']}, expected a {self._kind}; take a new workdir."
            )
        changed = differences(began["config"], self.config)
        if changed:
            raise ValueError(
                f"{self._name} holds a run of another config: {'; '.join(changed)}. "
                "Take a new workdir, or the old config to resume."
            )

    @property
    def began(self) -> dict[str, Any]:
        """The content of run.json: config, versions and digests at the start of the run.

        Its 'sha256' identifies the run and is stored in all its files, so that those of another run are rejected.

        Raises:
          ValueError: run.json is corrupted or has another format.
        """
        try:
            began = json.loads(self._record.read_text())
            found = began.get("format")
            if found == _FORMAT and began["sha256"] != _digest(_text(began)):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f"{self._record} is corrupted or not a run record; restore it from a backup, or take a new workdir."
            ) from None
        if found != _FORMAT:
            raise ValueError(
                f"{self._record} has format {found}, but this version reads {_FORMAT}; take a new workdir, or resume "
                "the run with the version of asyncflax that started it."
            )
        return began


def _lock(file: IO[str]) -> None:
    """Locks an open file until it is closed or the process ends; raises an OSError if it is already locked."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _digest(*parts: Any) -> str:
    """The SHA-256 of texts and arrays of integers."""
    content = [part.encode() if isinstance(part, str) else np.asarray(part, "<i8").tobytes() for part in parts]
    return hashlib.sha256(b"".join(content)).hexdigest()


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in about.items() if name != "sha256"})


def differences(old: Mapping[str, Any], new: Any, name: str = "config") -> list[str]:
    """The fields that prevent a run with config `old` (a dict) from resuming with `new`, one per line, below `name`.

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
        listed = lambda value: list(value) if isinstance(value, tuple) else value  # as in JSON
        before, now = listed(old.get(field.name, field.default)), listed(getattr(new, field.name))
        plain = field.metadata.get("plain", lambda value: value)
        if dataclasses.is_dataclass(now):
            lines += differences(before if isinstance(before, Mapping) else {}, now, f"{name}.{field.name}")
        elif plain(before) != plain(now):
            lines.append(f"{name}.{field.name} was {before!r}, now it is {now!r}")
    return lines + [f"{name}.{other} no longer exists" for other in old if not hasattr(new, other)]
