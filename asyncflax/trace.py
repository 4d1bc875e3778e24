"""Asynchrony as data: which worker delivers each gradient, and which version it was computed on.

Time t counts server updates, and version v is the server's parameters after v updates; version 0 is the initial ones.
Event t turns version t into version t + 1. A trace comes from a staleness distribution (`asyncflax.staleness`), an
event-driven queue of workers (`asyncflax.queues`) or the recording of a real asynchronous run.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncflax import _check, _memory
from asyncflax._files import sign, verified, write_atomically

_FORMATS = (1, 2)  # readable file formats; the last one is written, the first one lacks ticket and begun
_ARRAYS = {"format", "num_workers", "worker", "read_version"}  # of every file
_OPTIONAL = {"time", "ticket", "begun"}


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """The events of one asynchronous run: T gradients in the order in which the server applied them.

    Args:
      worker: int [T], the worker that delivers event t, in 0..num_workers-1.
      read_version: int [T], the version on which the gradient of event t was computed, in 0..t.
      time: float [T] or None, when the server applies event t, in simulated seconds; non-decreasing.
      num_workers: the number of workers; by default the largest id + 1.
      ticket: int [T] or None, the unique number under which the gradient of event t was begun, which determines
        its batch and random key; by default t.
      begun: float [T] or None, when its version was read: not after `time`, and not before the version existed.
        `time - begun` is the service time; it includes links and the wait at the server.

    The arrays are copied to read-only int32 and float64 arrays.

    Raises:
      ValueError: an event is invalid; the message names the first one and its values.

    Example:
      >>> import asyncflax
      >>> trace = asyncflax.Trace(worker=[0, 1, 0], read_version=[0, 0, 1], time=[1.0, 1.5, 2.0])
      >>> trace.staleness
      array([0, 1, 1], dtype=int32)
      >>> asyncflax.Trace(worker=[0, 1], read_version=[0, 2])
      Traceback (most recent call last):
        ...
      ValueError: event 1: read_version=2 is not in 0..1; event t can only read a version that exists before it.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 4: v_t = w_{t - tau_t}.
    """

    worker: np.ndarray
    read_version: np.ndarray
    time: np.ndarray | None = None
    num_workers: int = None  # type: ignore[assignment]  # always an int after construction
    ticket: np.ndarray = None  # type: ignore[assignment]  # always an array after construction
    begun: np.ndarray | None = None

    def __post_init__(self):
        worker = _integers("worker", self.worker)
        read_version = _integers("read_version", self.read_version)
        if len(worker) != len(read_version):
            raise ValueError(
                f"worker and read_version must have the same length, got {len(worker)} and {len(read_version)} events."
            )
        if len(worker) == 0:
            raise ValueError("worker must have at least one event, got none.")
        if len(worker) > _check.LARGEST:
            raise ValueError(f"worker must have at most {_check.LARGEST} events, got {len(worker)}.")
        num_workers = self.num_workers
        if num_workers is None:
            _refuse_first(worker >= _check.LARGEST, lambda t: f"worker={worker[t]} is not in 0..{_check.LARGEST - 1}.")
            num_workers = max(int(worker.max()), 0) + 1
        num_workers = _check.integer("num_workers", num_workers, 1)
        _refuse_first(
            (worker < 0) | (worker >= num_workers),
            lambda t: f"worker={worker[t]} is not in 0..{num_workers - 1}.",
        )
        _refuse_first(
            (read_version < 0) | (read_version > np.arange(len(read_version))),
            lambda t: (
                f"read_version={read_version[t]} is not in 0..{t}; "
                "event t can only read a version that exists before it."
            ),
        )
        time = self._seconds("time", len(worker))
        if time is not None:
            _refuse_first(
                np.diff(time, prepend=time[0]) < 0,
                lambda t: f"time={time[t]} is before time={time[t - 1]} of event {t - 1}.",
            )
        begun = self._seconds("begun", len(worker))
        if begun is not None:
            if time is None:
                raise ValueError("begun requires time; pass both or neither.")
            _refuse_first(begun > time, lambda t: f"begun={begun[t]} is after time={time[t]}.")
            made = np.append(-np.inf, time)[read_version]
            _refuse_first(
                begun < made,
                lambda t: f"begun={begun[t]} is before version {read_version[t]} existed, at time={made[t]}.",
            )
        fields = {
            "worker": worker.astype(np.int32),
            "read_version": read_version.astype(np.int32),
            "time": time,
            "ticket": _tickets(self.ticket, len(worker)),
            "begun": begun,
        }
        for name, array in fields.items():
            if array is not None:
                array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "num_workers", num_workers)

    def _seconds(self, name: str, num_events: int) -> np.ndarray | None:
        """A copy of an optional column of times."""
        if getattr(self, name) is None:
            return None
        seconds = np.array(_check.numbers(name, getattr(self, name), "a list of seconds"))
        if seconds.shape != (num_events,):
            raise ValueError(f"{name} must have shape ({num_events},), got {seconds.shape}.")
        _refuse_first(~np.isfinite(seconds), lambda t: f"{name}={seconds[t]} is not finite.")
        return seconds

    def __len__(self) -> int:
        """The number of events T."""
        return len(self.worker)

    def __repr__(self) -> str:
        staleness = self.staleness
        return (
            f"Trace({len(self)} events, {self.num_workers} workers, "
            f"staleness mean {staleness.mean():.2f} max {staleness.max()})"
        )

    @property
    def staleness(self) -> np.ndarray:
        """int32 [T]: tau_t = t - read_version[t] >= 0, in server updates; 0 means fresh."""
        return np.arange(len(self), dtype=np.int32) - self.read_version

    @property
    def in_order(self) -> bool:
        """Whether ticket t is event t, as in every trace that was not recorded."""
        return bool(np.array_equal(self.ticket, np.arange(len(self))))

    @property
    def recorded(self) -> bool:
        """Whether it is the record of a live run: it has `begun`, or tickets out of order."""
        return self.begun is not None or not self.in_order

    @property
    def num_tickets(self) -> int:
        """The largest ticket + 1: T, or more if some tickets were never delivered."""
        return int(self.ticket.max()) + 1

    def prefix(self, num_events: int) -> Trace:
        """The trace of the first `num_events` events.

        Raises:
          ValueError: the trace is shorter.

        Example:
          >>> import asyncflax
          >>> asyncflax.staleness.constant(1).trace(num_updates=5).prefix(2)
          Trace(2 events, 1 workers, staleness mean 0.50 max 1)
        """
        num_events = _check.integer("num_events", num_events, 1)
        if num_events > len(self):
            raise ValueError(f"num_events={num_events} exceeds the {len(self)} events of the trace.")
        columns = {name: x for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        return dataclasses.replace(self, **{name: x[:num_events] for name, x in columns.items()})

    def summary(self) -> dict[str, float]:
        """Summary statistics: counts, moments and quantiles of the staleness, events per second.

        >>> import asyncflax
        >>> trace = asyncflax.staleness.constant(3).trace(num_updates=100)
        >>> trace.summary()["staleness_max"]
        3.0
        """
        staleness = self.staleness
        figures = {
            "events": float(len(self)),
            "workers": float(self.num_workers),
            "staleness_mean": float(staleness.mean()),
            "staleness_std": float(staleness.std()),
            "staleness_p95": float(np.quantile(staleness, 0.95)),
            "staleness_max": float(staleness.max()),
        }
        if self.time is not None and self.time[-1] > 0:
            figures["events_per_second"] = len(self) / float(self.time[-1])
        return figures

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the trace atomically to `path` (.npz, compressed), with a format version and a checksum.

        Raises:
          FileExistsError: the file exists and `overwrite` is False.
        """
        path, overwrite = _check.path("path", path), _check.boolean("overwrite", overwrite)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; pass overwrite=True to replace it.")
        archive = io.BytesIO()
        np.savez_compressed(archive, format=np.int64(_FORMATS[-1]), **self._arrays())
        write_atomically(path, lambda file: file.write(sign(archive.getvalue())))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Loads a trace written by `save`.

        Nothing in the file is executed, and its size is checked before it is unpacked.

        Raises:
          FileNotFoundError: the file does not exist.
          ValueError: the file is corrupted, was not written by `save`, has a newer format, or does not fit in memory.

        Example:
          >>> import asyncflax, tempfile, os
          >>> path = os.path.join(tempfile.mkdtemp(), "trace.npz")
          >>> asyncflax.staleness.constant(1).trace(num_updates=5).save(path)
          >>> asyncflax.Trace.load(path)
          Trace(5 events, 1 workers, staleness mean 0.80 max 1)
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no trace at {path}; pass the path of a file written by Trace.save.")
        try:
            content = _unpack(path)
        except (OSError, MemoryError, _TooLargeError):
            raise
        except Exception as error:  # the readers of zip and npy may raise anything
            raise ValueError(
                f"{path} is corrupted or not a trace ({error}); restore it from a copy, or save the trace again."
            ) from error
        if (number := content.pop("format")) not in _FORMATS:
            raise ValueError(
                f"{path} has trace format {number}, but this version reads {' and '.join(map(str, _FORMATS))}; install "
                "the version of asyncflax that wrote it."
            )
        try:
            return cls(num_workers=int(content.pop("num_workers")), **content)
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error

    @classmethod
    def from_log(
        cls, log: Any, *, columns: Mapping[str, str | None] | None = None, before_start: str = "refuse"
    ) -> Trace:
        """The trace of a logged run: one line per update, in the order in which they were made.

        A line has the worker of the update, its time and the version on which it was computed. The columns, under
        these names or those of `columns`:

        =========  =============================================================================================
        worker     the worker that delivered, under any name; workers are numbered in the order of their names
        version    the version that was read: a number, a hash, a time or any other name
        made       the version that the update made. Consecutive lines may share one, as with buffered updates.
                   Without this column, versions are numbers and count the updates from 0
        time       when the update was made: seconds, or a date and time
        begun      when the version was read; without `version`, it was the newest one at that time
        ticket     an integer
        =========  =============================================================================================

        Worker and version are required, or worker, time and begun. Seconds count from the earliest time in the log.

        Args:
          log: the path of a .csv file with a header or of a file with one JSON object per line (.jsonl, .ndjson), a
            pandas or polars DataFrame, or a dict of lists.
          columns: the log's name for each of our columns; None omits a column.
          before_start: what to do if several versions were made by no line. 'refuse' raises. 'clamp' treats them as
            version 0 if they occur in the first line of a worker, as in a log that begins in the middle of a run; their
            staleness is then too small.

        Raises:
          FileNotFoundError: the file does not exist.
          TypeError, ValueError: columns are missing or unknown, a cell is missing or invalid, a version is read before
            it exists or made by no line, or times decrease; the message names the line.

        Example: asynchronous RL: step 4 of the trainer used samples that actor w2 drew with the policy of step 2.
          >>> import asyncflax
          >>> log = {"actor": ["w1", "w10", "w2"], "policy": [1, 1, 2], "step": [2, 3, 4], "seconds": [9.0, 9.5, 11.0]}
          >>> words = {"worker": "actor", "version": "policy", "made": "step", "time": "seconds"}
          >>> trace = asyncflax.Trace.from_log(log, columns=words)
          >>> trace.worker.tolist(), trace.read_version.tolist(), trace.time.tolist()
          ([0, 2, 1], [0, 0, 1], [0.0, 0.5, 2.0])
        """
        from asyncflax import _logs

        arguments = _logs.events(log, columns, before_start)
        try:
            return cls(**arguments)
        except ValueError as error:
            raise ValueError(f"log, {error}") from error

    def _arrays(self) -> dict[str, Any]:
        arrays = {
            "worker": self.worker,
            "read_version": self.read_version,
            "num_workers": np.int64(self.num_workers),
        }
        if not self.in_order:
            arrays["ticket"] = self.ticket
        return arrays | {name: x for name in ("time", "begun") if (x := getattr(self, name)) is not None}


class _TooLargeError(ValueError):
    """A file that does not fit in memory."""


def _unpack(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a file by name, after checking their names, shapes and sizes."""
    memory = _memory.available()
    _refuse_larger(path, path.stat().st_size, memory)
    archive = verified(path.read_bytes())
    if archive is None:
        raise ValueError("its content does not match its checksum")
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
        if len(members) != len(file.infolist()) or not _ARRAYS <= members.keys() <= _ARRAYS | _OPTIONAL:
            raise ValueError(f"it holds {[member.filename for member in file.infolist()][:9]}")
        _refuse_larger(path, sum(member.file_size for member in members.values()), memory)
        for name, member in members.items():
            with file.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                shape, _, dtype = read_header(stream)
                size = stream.tell() + math.prod(shape) * dtype.itemsize
            is_column = name not in ("format", "num_workers")
            if dtype.kind not in "iuf" or len(shape) != is_column or member.file_size != size:
                raise ValueError(f"{name} is {dtype}{list(shape)} in {member.file_size:,} bytes")
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _refuse_larger(path: pathlib.Path, size: int, memory: int | None) -> None:
    if memory is not None and size > memory:
        raise _TooLargeError(f"{path} holds {size:,} bytes, more than the {memory:,} bytes of available memory.")


def _integers(name: str, values: object) -> np.ndarray:
    try:
        array = np.array(values)
    except (TypeError, ValueError):  # lists of different lengths
        array = np.array(None)
    has_bools = isinstance(values, list | tuple) and any(isinstance(value, bool) for value in values)
    if has_bools or array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} must be a list of integers, got {_check.shown(values)}.")
    return array


def _tickets(values: object, num_events: int) -> np.ndarray:
    """The tickets as int32 [T]; None is the index of the event."""
    if values is None:
        return np.arange(num_events, dtype=np.int32)
    ticket = _integers("ticket", values)
    if len(ticket) != num_events:
        raise ValueError(f"ticket must have one entry for each of the {num_events} events, got {len(ticket)}.")
    _refuse_first(
        (ticket < 0) | (ticket > _check.LARGEST), lambda t: f"ticket={ticket[t]} is not in 0..{_check.LARGEST}."
    )
    order = np.argsort(ticket, kind="stable")
    again = np.zeros(num_events, bool)
    again[order[1:]] = np.diff(ticket[order]) == 0
    _refuse_first(again, lambda t: f"ticket={ticket[t]} is also the ticket of event {np.argmax(ticket == ticket[t])}.")
    return ticket.astype(np.int32)


def _refuse_first(bad: np.ndarray, message) -> None:
    if bad.any():
        t = int(np.argmax(bad))
        raise ValueError(f"event {t}: {message(t)}")
