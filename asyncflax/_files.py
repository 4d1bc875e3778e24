"""Default folders, atomic writes, and files with checksums."""

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
    """A file has been modified, or belongs to something else."""


def cache_folder() -> pathlib.Path:
    """Folder for caches."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "asyncflax"


def data_folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Folder of TensorFlow Datasets: the given one, or the default."""
    return pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def write_atomically(path: pathlib.Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes to a temporary file next to `path`, syncs it and renames it.

    A symbolic link at `path` is replaced, not followed. Permissions follow the umask.
    """
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)  # after closing: Windows cannot rename open files
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray], *, kind: str, run: str = "") -> None:
    """Writes or replaces an .npz file with a checksum, for `read_arrays`.

    Args:
      path, arrays: as for `numpy.savez`; object arrays are not allowed.
      kind: content and format version of the file, such as 'cells of a sweep, format 1'.
      run: identifier of the run that it belongs to, see `Workdir.began`.
    """
    archive = io.BytesIO()
    about = {"kind": kind, "run": run}
    np.savez(archive, about=np.array(json.dumps(about)), **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(path, lambda file: file.write(sign(archive.getvalue())))


def read_arrays(path: pathlib.Path, *, kind: str, run: str = "") -> dict[str, np.ndarray]:
    """Reads a file of `write_arrays`; raises a CorruptedError if it was modified or is of another kind or run."""
    try:
        archive = verified(path.read_bytes())
        if archive is None:
            raise CorruptedError("its bytes do not match their SHA-256")
        if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(io.BytesIO(archive)).filelist):
            raise CorruptedError("it is compressed")  # we write uncompressed; this excludes zip bombs
        with np.load(io.BytesIO(archive), allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
        found = about["kind"], about["run"]
    except CorruptedError:
        raise
    except Exception as error:  # zip, npy and JSON raise many types
        raise CorruptedError(f"it cannot be read: {error}") from error
    if found[0] != kind:
        raise CorruptedError(f"it holds {found[0]!r}, not {kind!r}")
    if found[1] != run:
        raise CorruptedError("it belongs to another run")
    return arrays


def cached(
    path: pathlib.Path, make: Callable[[], Mapping[str, np.ndarray]], *, kind: str, what: str, replace: bool = True
) -> Mapping[str, np.ndarray]:
    """The arrays in a cache file of `kind`, which is created from `make()` if it does not exist.

    If `replace`, a corrupted file is renamed and recreated; otherwise it raises a ValueError about `what`.
    """
    if path.exists():
        try:
            return read_arrays(path, kind=kind)
        except CorruptedError as error:
            why = f"{path} is corrupted or not a cache of {what} ({error})"
            if not replace:
                raise ValueError(f"{why}; delete it or pass another file to recreate it.") from None
            print(f"note: {why}; it was renamed to {set_aside(path).name} and will be recreated")
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, arrays, kind=kind)
    return arrays


def write_once(path: pathlib.Path, content: bytes) -> str:
    """Writes a derived file unless it exists; a file with other content is renamed. Returns a note if so."""
    note = ""
    if path.exists():
        if path.read_bytes() == content:
            return note
        note = f"note: {path} was modified; it was renamed to {set_aside(path).name} and rewritten"
    write_atomically(path, lambda file: file.write(content))
    return note


def sign(archive: bytes) -> bytes:
    """Appends the SHA-256 of a zip archive as its comment, whose length is in the last two bytes."""
    digest = hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(digest).to_bytes(2, "little") + digest


def verified(signed: bytes) -> bytes | None:
    """Inverse of `sign`: the archive, or None if the checksum does not match."""
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
    """Syncs a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
