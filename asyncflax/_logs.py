"""Reads logs of asynchronous runs, whatever their column names, for `Trace.from_log`."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from asyncflax import _check

_NAMES = ("worker", "version", "made", "time", "begun", "ticket")


class _Log(NamedTuple):
    """The columns of a log under our names, as lists of Python values, and how messages refer to line t."""

    columns: dict[str, list[Any]]
    where: Callable[[int], str]

    def read(self, name: str, convert: Callable[[Any], Any]) -> list[Any]:
        """A column, each cell converted."""
        cells = []
        for t, cell in enumerate(self.columns[name]):
            try:
                cells.append(convert(cell))
            except (TypeError, ValueError, OverflowError):
                what = {"time": "a time", "begun": "a time", "ticket": "an integer"}.get(name, "a name or a number")
                raise ValueError(f"{self.where(t)}: {name} must be {what}, got {_check.shown(cell)}.") from None
        return cells


def events(log: Any, columns: Mapping[str, str | None] | None, before_start: str) -> dict[str, Any]:
    """The arguments of `Trace` for a log, one event per line."""
    _check.choice("before_start", before_start, ("refuse", "clamp"))
    columns = _checked(columns)
    log = _of_file(pathlib.Path(log), columns) if isinstance(log, str | os.PathLike) else _of_table(log, columns)
    made: dict[str, Any] = {"worker": _numbered(log.read("worker", _label))}
    times = {name: np.array(log.read(name, _seconds)) for name in ("time", "begun") if name in log.columns}
    if "time" in times:
        _refuse_back(log, times["time"])
    if "version" not in log.columns:
        made["read_version"] = np.searchsorted(times["time"], times["begun"], side="right")
        made["read_version"] = np.minimum(made["read_version"], np.arange(len(made["worker"])))
    elif "made" in log.columns:
        made["read_version"] = _matched(log, made["worker"], clamp=before_start == "clamp")
    else:
        made["read_version"] = _counted(log)
    start = min((seconds.min() for seconds in times.values()), default=0.0)
    made |= {name: seconds - start for name, seconds in times.items()}
    if "ticket" in log.columns:
        made["ticket"] = log.read("ticket", lambda cell: int(_label(cell)))
    return made


# --- Tables ----------------------------------------------------------------------------------------------------------


def _checked(columns: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """The log's name for each of our columns; None omits the column."""
    if columns is not None and not isinstance(columns, Mapping):
        raise TypeError(f"columns must be a dict such as {{'worker': 'rank'}}, got {_check.shown(columns)}.")
    for name in columns or {}:
        _check.choice("columns", name, _NAMES)
    return {**(columns or {})}


def _picked(keys: Sequence[Any], columns: dict[str, str | None], log: str) -> dict[str, str]:
    """The log's name for each of our columns that it has."""
    for name, key in columns.items():
        if key is not None and key not in keys:
            raise ValueError(
                f"columns maps {name!r} to {key!r}, but {log} has {_check.shown([*keys])}{_check.nearest(key, keys)}"
            )
    picked = {name: key for name in _NAMES if (key := columns.get(name, name)) is not None and key in keys}
    missing = [] if "worker" in picked else ["which worker delivered ('worker')"]
    if "version" not in picked and not {"time", "begun"} <= picked.keys():
        missing.append("which version was read ('version'), or when ('time' and 'begun')")
    if missing:
        raise ValueError(
            f"{log} does not say {' and '.join(missing)}; pass columns=, available: {_check.shown([*keys])}."
        )
    return picked


def _of_table(log: Any, columns: dict[str, str | None]) -> _Log:
    """A dict of columns, or a DataFrame of pandas or polars."""
    if not isinstance(log, Mapping) and not (hasattr(log, "columns") and hasattr(log, "__getitem__")):
        raise TypeError(
            f"log must be the path of a .csv or .jsonl file, a DataFrame or a dict of lists, got {_check.shown(log)} "
            f"({type(log).__name__})."
        )
    table = {}
    for name, key in _picked([*(log if isinstance(log, Mapping) else log.columns)], columns, "log").items():
        try:
            cells = np.asarray(log[key])
        except (TypeError, ValueError):  # lists of different lengths
            cells = np.zeros(())
        if cells.ndim != 1 or len(cells) == 0 or len(cells) != len(table.get("worker", cells)):
            raise ValueError(f"log[{key!r}] must be a list with one entry per update, got shape {cells.shape}.")
        table[name] = (cells.astype("datetime64[us]") if cells.dtype.kind == "M" else cells).tolist()
    return _Log(table, lambda t: f"log, row {t}")


def _of_file(path: pathlib.Path, columns: dict[str, str | None]) -> _Log:
    """A .csv file with a header, or a file of JSON lines."""
    readers = {".csv": _csv_lines, ".jsonl": _json_lines, ".ndjson": _json_lines}
    if path.suffix not in readers:
        raise ValueError(f"log must end in one of {', '.join(readers)}, got {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"no log at {path}.")
    numbers: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = readers[path.suffix](path, file)
        first = next(lines, None)
        if first is None:
            raise ValueError(f"{path} has no lines; expected one line per update.")
        picked = _picked([*first[1]], columns, str(path))
        table: dict[str, list[Any]] = {name: [] for name in picked}
        for number, cells in itertools.chain([first], lines):
            numbers.append(number)
            for name, key in picked.items():
                if cells.get(key) in (None, ""):
                    raise ValueError(f"{path}, line {number}: {key!r} is missing.")
                table[name].append(cells[key])
    return _Log(table, lambda t: f"{path}, line {numbers[t]}")


def _csv_lines(path: pathlib.Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file)
    try:
        for cells in reader:
            if None in cells:
                raise ValueError(f"{path}, line {reader.line_num}: it has more cells than the header.")
            yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}, after line {reader.line_num}: {error}.") from error


def _json_lines(path: pathlib.Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if line.strip():
                cells = json.loads(line)
                if not isinstance(cells, dict):
                    raise ValueError(f"expected a JSON object, got {_check.shown(cells)}")
                yield number, cells
    except ValueError as error:  # invalid JSON, or bytes that are not text
        raise ValueError(f"{path}, line {number}: {error}.") from error


# --- Cells -----------------------------------------------------------------------------------------------------------


def _label(cell: Any) -> str:
    """The name of a worker or a version, the same for 7, 7.0 and '7'."""
    if cell is None or isinstance(cell, bool | list | dict) or cell != cell:  # NaN
        raise ValueError
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def _seconds(cell: Any) -> float:
    """Seconds, from a number or a date and time (as text in ISO 8601); UTC if it has no time zone."""
    if isinstance(cell, bool):
        raise TypeError
    if isinstance(cell, str):
        try:
            cell = float(cell)
        except ValueError:
            cell = datetime.datetime.fromisoformat(cell.strip())
    if isinstance(cell, datetime.datetime):
        cell = (cell if cell.tzinfo else cell.replace(tzinfo=datetime.UTC)).timestamp()
    if not np.isfinite(seconds := float(cell)):
        raise ValueError
    return seconds


def _numbered(labels: list[str]) -> np.ndarray:
    """Numbers the workers in the natural order of their names: w2 comes before w10."""
    parts = lambda label: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", label)]
    number = {label: i for i, label in enumerate(sorted(set(labels), key=parts))}
    return np.array([number[label] for label in labels])


def _refuse_back(log: _Log, time: np.ndarray) -> None:
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back):
        t = int(back[0]) + 1
        now, before = (_check.shown(log.columns["time"][k]) for k in (t, t - 1))
        raise ValueError(
            f"{log.where(t)}: time={now} is before time={before} of the previous line; sort the lines in the order "
            "of the updates."
        )


# --- Versions --------------------------------------------------------------------------------------------------------


def _counted(log: _Log) -> np.ndarray:
    """Versions that are counted from 0 and incremented by each line."""
    versions = []
    for t, label in enumerate(log.read("version", _label)):
        if not label.isdecimal() or int(label) > t:
            raise ValueError(
                f"{log.where(t)}: version={label} is read, but only versions 0..{t} exist then; if versions are "
                "named otherwise, pass the column of the version that each line made, columns={'made': ...}."
            )
        versions.append(int(label))
    return np.array(versions)


def _matched(log: _Log, worker: np.ndarray, *, clamp: bool) -> np.ndarray:
    """Versions named by the line that made them; consecutive lines may share one, as with buffered updates.

    Version 0 has one name, which no line made; with `clamp` it may have several, each in the first line of a worker.
    """
    made, read = log.read("made", _label), log.read("version", _label)
    after: dict[str, int] = {}  # the number of lines after which the version of each name exists
    for t, label in enumerate(made):
        if after.get(label, t) != t:
            raise ValueError(f"{log.where(t)}: version {label} was already made by {log.where(after[label] - 1)}.")
        after[label] = t + 1
    versions, seen, initial = [], set(), None
    for t, label in enumerate(read):
        known = after.get(label, 0)
        if known > t:
            raise ValueError(
                f"{log.where(t)}: version {label} is read before it was made ({log.where(known - 1)}); `made` must be "
                "the version after the update."
            )
        initial = label if not known and initial is None else initial
        if not known and label != initial and not (clamp and worker[t] not in seen):
            raise ValueError(
                f"{log.where(t)}: version {label} is read, but no line made it and the initial version is {initial}; "
                "the log has a gap, or begins in the middle of a run (then pass before_start='clamp')."
            )
        seen.add(worker[t])
        versions.append(known)
    return np.array(versions)
