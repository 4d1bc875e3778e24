"""Where files are, and files that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO, Any


def cache_folder() -> pathlib.Path:
    """Where to keep what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "asyncflax"


def data_folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder of TensorFlow Datasets: what was given, or where they are by default."""
    return pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def write_atomically(path: pathlib.Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Lets `write` fill a file beside `path`, and moves it there when it is on the disk."""
    file = tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False)  # noqa: SIM115
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)  # closed: Windows moves no file that is open
    except BaseException:
        os.unlink(file.name)
        raise
