"""The measurements of a study in parts, each computed once and kept in a file."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import numpy as np

from asyncflax._files import read_arrays, write_arrays

_KIND = "part of a study of a method, format 1:"


class Parts:
    """The finished parts of a study, as files in a folder; `run` is the digest of the run."""

    def __init__(self, folder: pathlib.Path, run: str):
        self._folder, self._run, self._seconds = folder, run, 0.0
        folder.mkdir(exist_ok=True)

    def get(self, name: str, measure: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a part, measured unless it has a file; ValueError if the file is corrupted or foreign."""
        path, kind = self._folder / f"{name}.npz", f"{_KIND} {name}"
        if not path.exists():
            began = time.process_time()
            values = np.asarray(measure(), float)
            seconds = np.array(time.process_time() - began)
            write_arrays(path, {"values": values, "cpu_seconds": seconds}, kind=kind, run=self._run)
        kept = read_arrays(path, kind=kind, run=self._run)
        self._seconds += float(kept["cpu_seconds"])
        return kept["values"]

    @property
    def cpu_minutes(self) -> float:
        """The CPU time of the parts so far."""
        return round(self._seconds / 60, 1)
