"""The metrics of a run as they come: JSON lines, TensorBoard, and a CSV table at the end.

A row belongs to an update of the server. When a run is resumed, the rows after its checkpoint are dropped: they are
computed again. Where several processes run, all have the rows and the primary writes them. Needs tensorboardX (the
extra `train`).
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from asyncflax._files import write_atomically
from asyncflax.train.distributed import is_primary

__all__ = ["Records"]


class Records:
    """The rows of one run, in `metrics.jsonl`, `metrics.csv` and `tensorboard/` of its folder.

    Args:
      folder: of the run.
      resume_at: rows of later updates are dropped; 0 keeps those of update 0, -1 drops all.

    Attributes:
      rows: list of dicts, each with 'update' and numbers by name.

    Raises:
      ValueError: a row of metrics.jsonl that should stay is missing or cannot be read.

    Example:
      >>> import tempfile
      >>> from asyncflax.train.records import Records
      >>> folder = tempfile.mkdtemp()
      >>> with Records(folder) as records:
      ...     records.write({"update": 20, "train_loss": 2.3})
      ...     records.write({"update": 40, "train_loss": 1.9, "test_accuracy": 0.4})
      >>> with Records(folder, resume_at=20) as records:
      ...     records.rows
      [{'update': 20, 'train_loss': 2.3}]
    """

    def __init__(self, folder: str | os.PathLike[str], *, resume_at: int = -1):
        from tensorboardX import SummaryWriter

        self.folder, self._writes = pathlib.Path(folder), is_primary()
        path = self.folder / "metrics.jsonl"
        self.rows = _read(path, resume_at)
        if not self._writes:
            return
        text = "".join(map(_line, self.rows))
        write_atomically(path, lambda file: file.write(text.encode()))
        self._file = path.open("a")
        for old in self.folder.glob("tensorboard/events.out.tfevents.*"):
            old.unlink()  # written anew from the rows that stay
        self._board = SummaryWriter(os.fspath(self.folder / "tensorboard"))
        for row in self.rows:
            self._show(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row: 'update' and numbers by name."""
        self.rows.append(dict(row))
        if not self._writes:
            return
        self._file.write(_line(row))
        self._file.flush()
        self._show(row)

    def sync(self) -> None:
        """Returns when all rows are on the disk."""
        if not self._writes:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """The updates at which a metric was recorded, and its values."""
        rows = [row for row in self.rows if name in row]
        return [row["update"] for row in rows], [row[name] for row in rows]

    def _show(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "update":
                self._board.add_scalar(name, value, row["update"])

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *error: Any) -> None:
        if not self._writes:
            return
        self._file.close()
        self._board.close()
        table = io.StringIO()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.folder / "metrics.csv", lambda file: file.write(table.getvalue().encode()))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _read(path: pathlib.Path, last_update: int) -> list[dict[str, Any]]:
    """The rows up to an update, which there must be. What a killed process left half written lies behind them."""
    rows = []
    if last_update < 0:
        return rows
    content = path.read_bytes().decode(errors="replace") if path.exists() else ""
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
            update = row["update"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}, line {number} is no row of metrics: {line[:80]!r}; put it right.") from None
        rows.append(row)
        if update >= last_update:
            break
    if not rows or rows[-1]["update"] != last_update:
        have = f"ends at update {rows[-1]['update']}" if rows else "has no rows"
        raise ValueError(f"{path} {have}, but the newest checkpoint is of update {last_update}; put the file back.")
    return rows
