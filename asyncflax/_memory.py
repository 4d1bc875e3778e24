"""Memory estimates: arguments that would not fit are rejected before anything is computed or written."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from asyncflax import _check

_PROC, _CGROUPS = pathlib.Path("/proc"), pathlib.Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that this process can still allocate, according to the system and its cgroup; None if unknown."""
    found = [size for size in (_of_system(), _of_group()) if size is not None]
    return min(found, default=None)


def on_devices() -> int | None:
    """Bytes that are still available on all devices together; on CPUs, to all processes."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_limit" in stats for stats in found):
        return jax.process_count() * sum(stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in found)
    here = available()
    return None if here is None else jax.process_count() * here


def need(name: str, value: Any, size: float, what: str, *, there_are: int | None = None) -> None:
    """Raises a ValueError if an argument requires more memory than is available.

    Args:
      name, value: the argument.
      size: estimate in bytes.
      what: what requires the memory.
      there_are: available bytes; by default, those of this process.
    """
    there_are = available() if there_are is None else there_are
    if there_are is not None and size > there_are:
        raise ValueError(
            f"{name}={_check.shown(value)} is too large: {what} would take about {_text(size)} of memory, "
            f"but only {_text(there_are)} is available; reduce it."
        )


def need_rows(name: str, value: Any, num_rows: int, row: Any) -> None:
    """Raises if `num_rows` copies of `row`, a PyTree of arrays, do not fit on the devices; ignores traced ones."""
    leaves = jax.tree.leaves(row)
    if not any(map(_check.is_traced, (*leaves, jnp.zeros(())))):
        need(name, value, num_rows * num_bytes(leaves), f"{num_rows} rows of arrays", there_are=on_devices())


def num_bytes(tree: Any) -> int:
    """Total size of all arrays, in bytes."""
    return sum(math.prod(jnp.shape(x)) * jnp.result_type(x).itemsize for x in jax.tree.leaves(tree))


def _text(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _of_system() -> int | None:
    """The memory that Linux can allocate without swapping; elsewhere the free or the total memory."""
    for line in _lines(_PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    names = getattr(os, "sysconf_names", {})
    pages = next((name for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES") if name in names), None)
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages else None


def _of_group() -> int | None:
    """The memory left by the limits of the control group (version 2) and its parents."""
    own = next((line[3:].strip("/") for line in _lines(_PROC / "self" / "cgroup") if line.startswith("0::")), None)
    if own is None:
        return None
    left = []
    for folder in (_CGROUPS / own, *(_CGROUPS / own).parents):
        limit, used = _lines(folder / "memory.max"), _lines(folder / "memory.current")
        if limit and used and limit[0].isdigit():
            files = [line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith("inactive_file ")]
            left.append(int(limit[0]) - int(used[0]) + sum(map(int, files)))  # cached files are evicted
        if folder == _CGROUPS:
            break
    return max(min(left), 0) if left else None


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
