"""What figures share: intervals, and words."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import xarray


class Interval(NamedTuple):
    """A mean and its confidence interval; NaN where a number is missing."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As '0.50 (0.45 to 0.55)'."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def student(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """The mean of independent numbers, with Student's interval."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def refuse_no_updates(updates: xarray.DataArray, target: float) -> None:
    """Refuses a target that is reached before anything is trained: there is nothing to compare."""
    if bool((updates == 0).any()):
        raise ValueError(f"the target {target:g} is reached before the first update; take a higher one")


def groups(m: int) -> str:
    """'1 group', '8 groups'."""
    return f"{m} group{'s' if m > 1 else ''}"


def words(metric: str) -> str:
    """'test accuracy' for 'test_accuracy'."""
    return metric.replace("_", " ")


def train_config(results: xarray.Dataset) -> dict:
    """What all cells of a sweep have in common, a dict of the fields of a `TrainConfig`."""
    return json.loads(results.attrs["config"])["train"]
