"""Logs of asynchronous runs in their own words, for `Trace.from_log`: which update was computed on which version."""

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
    """The columns of a log by our names, as lists of Python's values, and what to call line t in a message."""

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
    """The arguments of the Trace of a log: one event for each of its lines."""
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
    """The log's names of our columns, None for those to leave out."""
    if columns is not None and not isinstance(columns, Mapping):
        raise TypeError(f"columns must be a dict such as {{'worker': 'rank'}}, got {_check.shown(columns)}.")
    for name in columns or {}:
        _check.choice("columns", name, _NAMES)
    return {**(columns or {})}


def _picked(keys: Sequence[Any], columns: dict[str, str | None], log: str) -> dict[str, str]:
    """The log's names of the columns that it has, by ours."""
    for name, key in columns.items():
        if key is not None and key not in keys:
            raise ValueError(
                f"columns has {name!r}: {key!r}, {log} has {_check.shown([*keys])}{_check.nearest(key, keys)}"
            )
    picked = {name: key for name in _NAMES if (key := columns.get(name, name)) is not None and key in keys}
    missing = [] if "worker" in picked else ["who delivered ('worker')"]
    if "version" not in picked and not {"time", "begun"} <= picked.keys():
        missing.append("which version was read ('version'), or when ('time' and 'begun')")
    if missing:
        raise ValueError(f"{log} does not say {' and '.join(missing)}; name its columns, of {_check.shown([*keys])}.")
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
            raise ValueError(f"log[{key!r}] must be a list with an entry for each update, its shape is {cells.shape}.")
        table[name] = (cells.astype("datetime64[us]") if cells.dtype.kind == "M" else cells).tolist()
    return _Log(table, lambda t: f"log, row {t}")


def _of_file(path: pathlib.Path, columns: dict[str, str | None]) -> _Log:
    """A .csv file with a header, or one of JSON lines."""
    readers = {".csv": _csv_lines, ".jsonl": _json_lines, ".ndjson": _json_lines}
    if path.suffix not in readers:
        raise ValueError(f"log must be a file {', '.join(readers)}, got {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"no log at {path}.")
    numbers: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = readers[path.suffix](path, file)
        first = next(lines, None)
        if first is None:
            raise ValueError(f"{path} has no lines; it must have one for each update.")
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
                    raise ValueError(f"it must be a JSON object, got {_check.shown(cells)}")
                yield number, cells
    except ValueError as error:  # of JSON and of what is no text as well
        raise ValueError(f"{path}, line {number}: {error}.") from error


# --- Cells -----------------------------------------------------------------------------------------------------------


def _label(cell: Any) -> str:
    """What names a worker or a version, alike for 7, 7.0 and '7'."""
    if cell is None or isinstance(cell, bool | list | dict) or cell != cell:  # NaN
        raise ValueError
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def _seconds(cell: Any) -> float:
    """A number of seconds, or a date and time, in ISO 8601 as text; without a zone it is UTC."""
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
    """Workers by number, in the order of their names, where numbers count as such: w2 comes before w10."""
    parts = lambda label: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", label)]
    number = {label: i for i, label in enumerate(sorted(set(labels), key=parts))}
    return np.array([number[label] for label in labels])


def _refuse_back(log: _Log, time: np.ndarray) -> None:
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back):
        t = int(back[0]) + 1
        now, before = (_check.shown(log.columns["time"][k]) for k in (t, t - 1))
        raise ValueError(
            f"{log.where(t)}: time={now} is before {before} of the line ahead of it; sort the lines in the order in "
            "which updates were made."
        )


# --- Versions --------------------------------------------------------------------------------------------------------


def _counted(log: _Log) -> np.ndarray:
    """Versions that are counted from 0, one more for each line."""
    versions = []
    for t, label in enumerate(log.read("version", _label)):
        if not label.isdecimal() or int(label) > t:
            raise ValueError(
                f"{log.where(t)}: version={label} is read, of the versions 0..{t} that there are after {t} lines; if "
                "they are called otherwise, name the column that says which one each line made, columns={'made': ...}."
            )
        versions.append(int(label))
    return np.array(versions)


def _matched(log: _Log, worker: np.ndarray, *, clamp: bool) -> np.ndarray:
    """Versions by the names of those that lines made; several lines in a row may make one, as in a buffer.

    Version 0 has one name that no line made. With `clamp` it may have several, each in the first line of a worker.
    """
    made, read = log.read("made", _label), log.read("version", _label)
    after: dict[str, int] = {}  # a name, and how many lines have been there when its version was
    for t, label in enumerate(made):
        if after.get(label, t) != t:
            raise ValueError(f"{log.where(t)}: version {label} is made again, first in {log.where(after[label] - 1)}.")
        after[label] = t + 1
    versions, seen, initial = [], set(), None
    for t, label in enumerate(read):
        known = after.get(label, 0)
        if known > t:
            raise ValueError(
                f"{log.where(t)}: version {label} is read before it exists, {log.where(known - 1)}, made it; `made` is "
                "the version after an update."
            )
        initial = label if not known and initial is None else initial
        if not known and label != initial and not (clamp and worker[t] not in seen):
            raise ValueError(
                f"{log.where(t)}: version {label} is read and no line made it, nor is it the initial one, {initial}; "
                "the log has a gap, or it begins in the middle of a run: then pass before_start='clamp'."
            )
        seen.add(worker[t])
        versions.append(known)
    return np.array(versions)
