"""Where files are, files that appear whole or not at all, and files that are known again when they are read back."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pathlib
import secrets
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np


class CorruptedError(ValueError):
    """A file is not what was written, or belongs to something else."""


def cache_folder() -> pathlib.Path:
    """Where to keep what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "asyncflax"


def data_folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder of TensorFlow Datasets: what was given, or where they are by default."""
    return pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def write_atomically(path: pathlib.Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Lets `write` fill a file beside `path`, and moves it there when it is on the disk.

    A link at `path` is replaced, not followed. The file has the permissions that the umask leaves.
    """
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb"
        ) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)  # closed: Windows moves no file that is open
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray], *, kind: str, run: str = "") -> None:
    """Writes an .npz that `read_arrays` knows again.

    Args:
      path: of the file; replaced if it exists.
      arrays: by name, none of objects.
      kind: what the file is, with the version of its format, for example 'cells of a sweep, format 1'.
      run: what the run is known by to which it belongs, see `Workdir.began`.
    """
    archive = io.BytesIO()
    about = {"kind": kind, "run": run}
    np.savez(archive, about=np.array(json.dumps(about)), **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(path, lambda file: file.write(sign(archive.getvalue())))


def read_arrays(path: pathlib.Path, *, kind: str, run: str = "") -> dict[str, np.ndarray]:
    """What `write_arrays` wrote to `path`, of the same kind and run.

    Raises:
      CorruptedError: a byte has changed, or the file is of another kind or run; the message says which.
    """
    try:
        archive = verified(path.read_bytes())
        if archive is None:
            raise CorruptedError("its bytes do not match their SHA-256")
        if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(io.BytesIO(archive)).filelist):
            raise CorruptedError("it is compressed")  # nothing here unpacks to more than the file has
        with np.load(io.BytesIO(archive), allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
        found = about["kind"], about["run"]
    except CorruptedError:
        raise
    except Exception as error:  # zip, npy and JSON have a dozen kinds
        raise CorruptedError(f"it cannot be read: {error}") from error
    if found[0] != kind:
        raise CorruptedError(f"it holds {found[0]!r}, not {kind!r}")
    if found[1] != run:
        raise CorruptedError("it belongs to another run")
    return arrays


def write_once(path: pathlib.Path, content: bytes) -> str:
    """Writes a file that follows from others, if it is not there; one with another content is set aside, with a note.

    Returns:
      the note, '' where there is none.
    """
    note = ""
    if path.exists():
        if path.read_bytes() == content:
            return note
        note = f"note: {path} is not what was written; it is now {set_aside(path).name} and written again"
    write_atomically(path, lambda file: file.write(content))
    return note


def sign(archive: bytes) -> bytes:
    """A zip archive with the SHA-256 of all its bytes as its comment; the last two bytes are the comment's length."""
    digest = hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(digest).to_bytes(2, "little") + digest


def verified(signed: bytes) -> bytes | None:
    """The archive that `sign` signed, None if a byte is not as it was."""
    archive = signed[:-66] + b"\0\0"
    return archive if sign(archive) == signed else None


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a file or folder to 'NAME.corrupted' (or '.corrupted-2', ...), and returns the new path."""
    aside = path.with_name(f"{path.name}.corrupted")
    numbered = (aside.with_name(f"{aside.name}-{n}") for n in itertools.count(2))
    free = next(name for name in itertools.chain([aside], numbered) if not os.path.lexists(name))
    path.rename(free)
    return free


def sync(path: pathlib.Path) -> None:
    """Returns when a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
