"""The location of an optimum on a grid, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax.lab.statistics.intervals import Interval, bootstrap

_RESAMPLES = 2000


class Optimum(NamedTuple):
    """The location of an optimum, or the distance between two.

    Attributes:
      interval: the 95 % `Interval`, in units of the grid.
      at_edge: bool, whether an optimum is at an end of the grid, so that the true one may be outside.
    """

    interval: Interval
    at_edge: bool


def optimum(curves: np.ndarray, grid: np.ndarray, *, largest: bool = False, seed: int = 0) -> Optimum:
    """Locates the minimum of the curve averaged over seeds.

    It is the vertex of the parabola through the lowest point and its neighbours, with a percentile bootstrap interval
    over seeds. The minimum of a single seed's curve is noise where the curve is flat; that of the average is not.
    Points where any seed is not finite (it diverged) are dropped.

    Args:
      curves: float [seeds, points], losses or logarithms of updates to a target.
      grid: float [points], increasing, at least three; use the logarithm of learning rates.
      largest: whether to locate the maximum instead.

    Raises:
      ValueError: the grid does not increase, or fewer than three points are finite.

    Source: Efron 1979 (doi:10.1214/aos/1176344552) for the bootstrap.

    Example:
      >>> momentum = np.linspace(0.0, 0.9, 10)
      >>> noise = np.random.default_rng(0).normal(scale=0.02, size=(16, 10))
      >>> found = optimum((momentum - 0.42) ** 2 + noise, momentum)
      >>> found.interval.text(), found.at_edge
      ('0.45 (0.40 to 0.48)', False)
    """
    return _located([_finite("curves", curves, grid, largest)], lambda place: place, seed)


def optimum_shift(
    first: np.ndarray, second: np.ndarray, grid: np.ndarray, *, largest: bool = False, seed: int = 0
) -> Optimum:
    """Measures the distance of the optimum of the second arm above that of the first.

    The bootstrap draws the same seeds for both arms. On a grid of logarithms, `interval.exp()` is the ratio of the
    optima.

    Args:
      first: float [seeds, points].
      second: float [seeds, points], with the same seeds.
      grid, largest: as in `optimum`.

    Example:
      >>> rates = np.log([0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
      >>> noise = np.random.default_rng(0).normal(scale=0.2, size=(2, 16, 6))
      >>> first, second = ((rates - np.log(best)) ** 2 for best in (0.1, 0.05))
      >>> optimum_shift(first + noise[0], second + noise[1], rates).interval.exp().text()
      '0.51 (0.45 to 0.57)'
    """
    arms = [_finite(name, arm, grid, largest) for name, arm in {"first": first, "second": second}.items()]
    if len(arms[0][0]) != len(arms[1][0]):
        counts = f"{len(arms[0][0])} and {len(arms[1][0])}"
        raise ValueError(f"first and second must have the same number of seeds, got {counts}.")
    return _located(arms, lambda place, other: other - place, seed)


def _finite(name: str, curves: Any, grid: Any, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """Curves to minimize [seeds, points] and their grid, where all seeds are finite."""
    curves, grid = np.asarray(curves, float), np.asarray(grid, float)
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or not np.all(np.diff(grid) > 0):
        raise ValueError(f"grid must be one-dimensional and increasing, got {grid.tolist()}.")
    if curves.ndim != 2 or curves.shape[1] != len(grid) or len(curves) < 2:
        raise ValueError(f"{name} must have shape [seeds, {len(grid)}], with at least 2 seeds, got {curves.shape}.")
    there = np.all(np.isfinite(curves), axis=0)
    if there.sum() < 3:
        raise ValueError(f"{name} must be finite for all seeds at 3 or more points of the grid, got {grid[there]}.")
    return curves[:, there] * (-1.0 if largest else 1.0), grid[there]


def _located(arms: Sequence[tuple[np.ndarray, np.ndarray]], change: Callable[..., np.ndarray], seed: int) -> Optimum:
    """A function of the minima of the averaged curves, with a bootstrap interval over the seeds of all arms."""

    def statistic(seeds: np.ndarray, axis: int = -1) -> np.ndarray:
        return change(*(_lowest(curves[seeds].mean(axis - 1), grid) for curves, grid in arms))

    ends = [np.argmin(curves.mean(0)) in (0, len(grid) - 1) for curves, grid in arms]
    return Optimum(bootstrap(statistic, len(arms[0][0]), _RESAMPLES, seed), any(ends))


def _lowest(curve: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The vertices of the parabolas through the lowest points of curves [..., points] and their neighbours."""
    best = np.argmin(curve, axis=-1)
    left = np.clip(best - 1, 0, len(grid) - 3)
    midpoints, slopes = (grid[1:] + grid[:-1]) / 2, np.diff(curve, axis=-1) / np.diff(grid)
    falls, rises = (np.take_along_axis(slopes, (left + i)[..., None], axis=-1)[..., 0] for i in (0, 1))
    inside = best == left + 1
    bend = np.where(inside, rises - falls, 1.0)
    vertex = midpoints[left] - falls * (midpoints[left + 1] - midpoints[left]) / bend
    return np.where(inside, vertex, grid[best])
