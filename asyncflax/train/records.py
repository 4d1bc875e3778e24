"""Rows of metrics of a run, passed on to its writers.

A row belongs to an update of the server. A resumed run restores the rows up to its checkpoint; later ones are computed
and written again. With several processes, all have the rows and the primary writes them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from asyncflax.train.distributed import is_primary
from asyncflax.train.options import Spec
from asyncflax.train.writers import MetricWriter, read_writers

__all__ = ["Records"]

_ALWAYS = "jsonl, csv"


class Records:
    """Rows of metrics of one run, written to `metrics.jsonl`, `metrics.csv` and further writers.

    Args:
      folder: the folder of the run.
      rows: the rows recorded so far, from a checkpoint.
      writers: further writers, see `writers.read_writers`.
      config: the config of the run, for the writers.

    Attributes:
      rows: list of dicts with 'update' and metrics by name.

    Raises:
      ValueError: a writer fails to start.

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

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        rows: Iterable[Mapping[str, Any]] = (),
        writers: Iterable[Spec] = (),
        config: Mapping[str, Any] | None = None,
    ):
        self.rows = [dict(row) for row in rows]
        self._writers: list[MetricWriter] = []
        specs = {spec.name: spec for spec in (*read_writers("writers", _ALWAYS), *writers)} if is_primary() else {}
        given = {"folder": pathlib.Path(folder), "rows": tuple(self.rows), "config": config or {}}
        with contextlib.ExitStack() as begun:
            for spec in specs.values():
                self._writers.append(begun.enter_context(contextlib.closing(spec.make(**given))))
            self._begun = begun.pop_all()

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row: 'update' and metrics by name."""
        self.rows.append(dict(row))
        for writer in self._writers:
            writer.write(row)

    def sync(self) -> None:
        """Flushes all rows to disk."""
        for writer in self._writers:
            writer.sync()

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """The updates at which a metric was recorded, and its values."""
        rows = [row for row in self.rows if name in row]
        return [row["update"] for row in rows], [row[name] for row in rows]

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *error: Any) -> None:
        self._begun.close()
