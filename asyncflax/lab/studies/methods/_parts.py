"""What a study has measured, part by part: each part is computed once and kept."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import numpy as np

from asyncflax._files import read_arrays, write_arrays

_KIND = "part of a study of a method, format 1:"


class Parts:
    """The finished parts of a study.

    Args:
      folder: of their files; is made if there is none.
      run: the digest of the run that they belong to.
    """

    def __init__(self, folder: pathlib.Path, run: str):
        self._folder, self._run, self._seconds = folder, run, 0.0
        folder.mkdir(exist_ok=True)

    def get(self, name: str, measure: Callable[[], np.ndarray]) -> np.ndarray:
        """What was measured, from its file if that is there.

        Args:
          name: of the part.
          measure: makes the array.

        Raises:
          ValueError: the file is corrupted, or of another run.
        """
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
        """User and system time of the parts that were asked for, when they were measured."""
        return round(self._seconds / 60, 1)
