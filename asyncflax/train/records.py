"""The metrics of a run as they come: JSON lines, TensorBoard, and a CSV table at the end.

A row belongs to an update of the server. A run that is resumed takes the rows until then from its checkpoint, and
writes all files anew: what they say later is computed again, and what happened to them meanwhile does not matter. Where
several processes run, all have the rows and the primary writes them. Needs tensorboardX (the extra `train`).
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from asyncflax._files import write_atomically
from asyncflax.train.distributed import is_primary

__all__ = ["Records"]


class Records:
    """The rows of one run, in `metrics.jsonl`, `metrics.csv` and `tensorboard/` of its folder.

    Args:
      folder: of the run.
      rows: what has been recorded so far; from a checkpoint.

    Attributes:
      rows: list of dicts, each with 'update' and numbers by name.

    Example:
      >>> import tempfile
      >>> from asyncflax.train.records import Records
      >>> folder = tempfile.mkdtemp()
      >>> with Records(folder) as records:
      ...     records.write({"update": 20, "train_loss": 2.3})
      ...     records.write({"update": 40, "train_loss": 1.9, "test_accuracy": 0.4})
      >>> with Records(folder, rows=records.rows[:1]) as records:
      ...     records.rows
      [{'update': 20, 'train_loss': 2.3}]
    """

    def __init__(self, folder: str | os.PathLike[str], *, rows: Iterable[Mapping[str, Any]] = ()):
        from tensorboardX import SummaryWriter

        self.folder, self._writes = pathlib.Path(folder), is_primary()
        path = self.folder / "metrics.jsonl"
        self.rows = [dict(row) for row in rows]
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
