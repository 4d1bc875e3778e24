"""The measurements of a study, part by part: each is computed once and kept."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import numpy as np

from asyncflax._files import read_arrays, write_arrays

_KIND = "part of a study of a method, format 1:"


class Parts:
    """The finished parts of a study, in the files of a folder; `run` is the digest of the run that they belong to."""

    def __init__(self, folder: pathlib.Path, run: str):
        self._folder, self._run, self._seconds = folder, run, 0.0
        folder.mkdir(exist_ok=True)

    def get(self, name: str, measure: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a part, measured unless it has a file; ValueError if that is corrupted or of another run."""
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
        """User and system time that measured the parts so far."""
        return round(self._seconds / 60, 1)
