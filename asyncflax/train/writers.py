"""Writers of metrics: JSON lines and CSV, TensorBoard, Weights & Biases, or your own.

    --config.writers='tensorboard, wandb(project=staleness), my_writers.Chat(room=17)'

Each function here returns a `MetricWriter` for the `folder` of a run. It receives the previous `rows` of a resumed run,
replaces earlier output by these and appends new ones, each once, and may use the run's `config`. A dotted name is a
function or class of your own with the same interface; it receives those of folder, rows and config that it has as
parameters.

Example:
  >>> import pathlib, tempfile
  >>> from asyncflax.train import writers
  >>> class Chat:
  ...     def __init__(self, room: int = 0): ...
  ...     def write(self, row): print(f"update {row['update']}")
  ...     def sync(self): ...
  ...     def close(self): ...
  >>> isinstance(Chat(room=17), writers.MetricWriter)
  True
  >>> folder, rows = pathlib.Path(tempfile.mkdtemp()), [{"update": 20, "train_loss": 2.3}]
  >>> for make in (writers.jsonl, writers.csv, writers.tensorboard):
  ...     writer = make(folder, rows)
  ...     writer.write({"update": 40, "train_loss": 1.9})
  ...     writer.close()
  >>> (folder / "metrics.jsonl").read_text().splitlines()
  ['{"update": 20, "train_loss": 2.3}', '{"update": 40, "train_loss": 1.9}']
  >>> (folder / "metrics.csv").read_text().splitlines()
  ['update,train_loss', '20,2.3', '40,1.9']
  >>> [str(writer) for writer in writers.read_writers("config.writers", "tensorboard, jsonl")]
  ['tensorboard()', 'jsonl()']
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pathlib
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from csv import DictWriter
from typing import Any, Protocol, runtime_checkable

from asyncflax._files import write_atomically
from asyncflax.train.options import Spec, makers, parse_items, read

__all__ = ["MetricWriter", "csv", "jsonl", "read_writers", "tensorboard", "wandb"]

Row = Mapping[str, Any]
_GIVEN = ("folder", "rows", "config")


@runtime_checkable
class MetricWriter(Protocol):
    """A destination of the rows of metrics; exists only in the primary process.

    A row has 'update' and metrics by name.
    """

    def write(self, row: Row) -> None:
        """Writes a row."""

    def sync(self) -> None:
        """Flushes all rows; called before a checkpoint is saved."""

    def close(self) -> None:
        """Closes the writer; also called when the run is interrupted."""


def read_writers(field: str, text: str) -> list[Spec]:
    """Parses a list of writers.

    Args:
      field: the field's name in error messages.
      text: comma-separated calls; '' for none.

    Raises:
      TypeError, ValueError: a writer or option is unknown, a writer is repeated, or its package is not installed.
    """
    library, specs = makers(sys.modules[__name__], MetricWriter), {}
    for label, call in parse_items(field, text):
        if label:
            raise ValueError(f"{field} must be like 'tensorboard, NAME(option=value)', got {label}=... in {text!r}.")
        spec = read(field, call, library, _GIVEN, (MetricWriter,))
        if spec.name in specs:
            raise ValueError(f"{field} must name each writer once, got {text!r} with {spec.name} twice.")
        specs[spec.name] = spec
    if "wandb" in specs and importlib.util.find_spec("wandb") is None:
        raise ValueError(f"{field}: wandb is not installed; pip install 'asyncflax[wandb]'")
    return [*specs.values()]


def jsonl(folder: pathlib.Path, rows: Iterable[Row] = ()) -> MetricWriter:
    """Writes `metrics.jsonl`, one line of JSON per row, immediately.

    The file is rewritten when a run is resumed.
    """
    return _JsonLines(folder / "metrics.jsonl", rows)


class _JsonLines:
    def __init__(self, path: pathlib.Path, rows: Iterable[Row]):
        text = "".join(map(self._line, rows))
        write_atomically(path, lambda file: file.write(text.encode()))
        self._file = path.open("a")

    def write(self, row: Row) -> None:
        self._file.write(self._line(row))
        self._file.flush()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def _line(row: Row) -> str:
        return json.dumps(row, allow_nan=False) + "\n"


def csv(folder: pathlib.Path, rows: Iterable[Row] = ()) -> MetricWriter:
    """Writes `metrics.csv`, one column per metric, when the run ends or stops.

    The columns are not known earlier.
    """
    return _Table(folder / "metrics.csv", rows)


class _Table(MetricWriter):
    def __init__(self, path: pathlib.Path, rows: Iterable[Row]):
        self._path, self._rows = path, [*rows]

    def write(self, row: Row) -> None:
        self._rows.append(row)

    def close(self) -> None:
        table = io.StringIO()
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        writer = DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._path, lambda file: file.write(table.getvalue().encode()))


def tensorboard(
    folder: pathlib.Path, rows: Iterable[Row] = (), config: Mapping[str, Any] | None = None
) -> MetricWriter:
    """Writes scalars to `tensorboard/`, and the config to its text tab.

    The event files are rewritten when a run is resumed. Requires tensorboardX (the extra `train`).
    """
    return _TensorBoard(folder / "tensorboard", rows, config or {})


class _TensorBoard:
    def __init__(self, folder: pathlib.Path, rows: Iterable[Row], config: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._board = SummaryWriter(os.fspath(folder))
        lines = [f"| {name} | `{value!r}` |" for name, value in config.items()]
        if lines:
            self._board.add_text("config", "\n".join(["| field | value |", "|---|---|", *lines]))
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "update":
                self._board.add_scalar(name, value, row["update"])

    def sync(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def wandb(
    folder: pathlib.Path,
    rows: Sequence[Row] = (),
    config: Mapping[str, Any] | None = None,
    *,
    project: str = "asyncflax",
) -> MetricWriter:
    """Logs to Weights & Biases, with files in `wandb/`. Requires the extra `wandb`; offline with WANDB_MODE=offline.

    A resumed run continues the same W&B run, which keeps the rows it has received and accepts only later ones; an
    offline run is rewritten.

    Args:
      project: the name of the W&B project. Entity, group, tags and mode are set by W&B's environment variables.

    Raises:
      ValueError: W&B fails to start a run, for example because there is no account.

    Example: see the module.
    """
    return _WandB(folder / "wandb", rows, config or {}, project)


class _WandB(MetricWriter):
    def __init__(self, folder: pathlib.Path, rows: Sequence[Row], config: Mapping[str, Any], project: str):
        import wandb  # pyright: ignore[reportMissingImports]  # an extra of its own

        folder.mkdir(exist_ok=True)
        for old in folder.glob("offline-run-*"):
            shutil.rmtree(old)
        name = folder / "run-id"  # identifies the run to W&B
        if not name.exists():
            write_atomically(name, lambda file: file.write(secrets.token_hex(8).encode()))
        settings = wandb.Settings(console="off", symlink=False)
        try:
            self._run = wandb.init(
                project=project,
                id=name.read_text(),
                resume="allow",
                dir=os.fspath(folder.parent),
                config={**config},
                settings=settings,
            )
        except wandb.Error as error:
            raise ValueError(" ".join(str(error).split())) from error
        self._first = self._run.step
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        if row["update"] >= self._first:
            self._run.log({name: value for name, value in row.items() if name != "update"}, step=row["update"])

    def close(self) -> None:
        self._run.finish()
