"""Numbers with intervals, and verdicts on a number by its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check

VERDICTS = ("seen", "refuted", "equivalent", "not decided")
LEVEL = 0.05  # significance of two-sided tests, and of each of the two one-sided tests of equivalence


class Interval(NamedTuple):
    """A number and its confidence interval.

    Attributes:
      value: float, the number; like the ends, NaN if missing.
      low: float, the lower end.
      high: float, the upper end.
    """

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """Formats as '0.50 (0.45 to 0.55)'."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    @property
    def of_claim(self) -> dict[str, Any]:
        """The interval as fields of a `Claim`."""
        return {"value": self.value, "interval": (self.low, self.high)}

    def exp(self) -> Interval:
        """The interval of a ratio, from that of a difference of logarithms."""
        return Interval(*(float(np.exp(number)) for number in self))


def student(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """The mean of independent numbers, with Student's interval.

    Args:
      values: float [seeds]; the interval of a single number is NaN.
      confidence: the confidence level, in (0, 1).

    Example:
      >>> student(np.array([0.1, 0.2, 0.3])).text()
      '0.20 (-0.05 to 0.45)'
    """
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def spread(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean, minimum and maximum of numbers that are not a sample.

    Args:
      values: float [...].

    Example:
      >>> spread(np.array([0.1, 0.2, 0.6])).text()
      '0.30 (0.10 to 0.60)'
    """
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def resampled(values: np.ndarray) -> Interval:
    """The mean of independent numbers, with a percentile bootstrap interval.

    Args:
      values: float [seeds], at least two.

    Source: Efron 1979 (doi:10.1214/aos/1176344552).

    Example:
      >>> resampled(np.array([0.1, 0.2, 0.3])).text()
      '0.20 (0.10 to 0.30)'
    """
    return bootstrap(lambda seeds, axis=-1: values[seeds].mean(axis), len(values), 10_000, seed=0)


def bootstrap(statistic: Callable[..., np.ndarray], count: int, resamples: int, seed: int) -> Interval:
    """A statistic of the indices of seeds, with a percentile bootstrap interval that contains it."""
    from scipy import stats

    indices = np.arange(count)
    found = stats.bootstrap(
        (indices,),
        statistic,
        n_resamples=resamples,
        vectorized=True,
        confidence_level=1 - LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    value, (low, high) = float(statistic(indices)), map(float, found.confidence_interval)
    return Interval(value, min(low, value), max(high, value))


def proportion(hits: int, total: int) -> Interval:
    """The proportion of successes in independent trials, with Wilson's interval.

    Args:
      hits: the number of successes.
      total: the number of trials.

    Source: Wilson 1927 (doi:10.1080/01621459.1927.10502953).

    Example:
      >>> proportion(95, total=100).text()
      '0.95 (0.89 to 0.98)'
    """
    from scipy import stats

    found = stats.binomtest(hits, total)
    return Interval(float(found.statistic), *map(float, found.proportion_ci(1 - LEVEL, method="wilson")))


def decide_number(interval: tuple[float, float], *, low: float = -math.inf, high: float = math.inf) -> str:
    """Decides by its interval whether a number is in the claimed range.

    A claim of equality has the range number +- tolerance. An interval that crosses an end of the range decides nothing,
    so a wide interval does not pass for agreement. For an exact identity, pass the largest difference as both ends.

    Args:
      interval: the ends (low, high) of the interval.
      low: the lower end of the range.
      high: the upper end of the range, at least `low`.

    Returns:
      'seen' if the interval is inside [low, high], 'refuted' if it is outside, 'not decided' otherwise.

    Example:
      >>> decide_number((0.8748, 0.8764), low=0.87, high=0.88)
      'seen'
      >>> decide_number((0.84, 0.90), low=0.87, high=0.88), decide_number((1.2, 1.3), high=1.0)
      ('not decided', 'refuted')
    """
    first, last = (_check.scalar("interval", end) for end in interval)
    if not first <= last:
        raise ValueError(f"interval must be (low, high), got {interval!r}.")
    if not low <= high:
        raise ValueError(f"low must be at most high, got {low=}, {high=}.")
    if low <= first and last <= high:
        return "seen"
    return "refuted" if last < low or first > high else "not decided"
