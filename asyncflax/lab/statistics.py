"""A mean and its interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
