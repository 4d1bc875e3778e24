"""Compiled programs that are kept: the second start of a training compiles nothing again."""

from __future__ import annotations

import os
import pathlib
import tempfile

import jax
from jax.experimental.compilation_cache import compilation_cache

from asyncflax.workdir import RunError

__all__ = ["use_cache"]


def use_cache(folder: str | os.PathLike[str] | None) -> None:
    """Takes compiled programs from a folder, and keeps there what this process compiles from now on.

    This is JAX's own cache, which knows a program by what it computes, for which device, with which version of JAX. Any
    number of trainings and sweeps can share a folder at the same time, on machines of one kind; it grows, and can be
    deleted whenever you like. JAX runs what lies in it: share it with people whom you trust.

    Args:
      folder: made where there is none; None or '' changes nothing.

    Raises:
      RunError: it is not a folder, or cannot be written.

    Example: see `launch/train.py`.
    """
    if not folder:
        return
    path = pathlib.Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except FileExistsError:
        raise RunError(
            f"compilation_cache={os.fspath(folder)!r} is a file, it must be a folder or a new name."
        ) from None
    except OSError as error:
        raise RunError(
            f"compilation_cache={os.fspath(folder)!r} cannot be written ({error.strerror}); take another folder."
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs make a start slow too
    compilation_cache.reset_cache()  # JAX goes on with the folder that it had, if it has begun to use one
