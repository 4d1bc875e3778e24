"""The results of a study of streaming PCA, computed from its mean errors."""

from __future__ import annotations

import io
import pathlib
from typing import NamedTuple

import numpy as np

from asyncflax._files import write_once
from asyncflax.lab.studies.streaming_pca.config import StreamingPcaConfig, delays_of, kinds_of, margin_of
from asyncflax.train import progress

_GRID = ["learning_rate", "momentum"]
_AXES = {
    "learning_rates": ["learning_rate"],
    "momenta": ["momentum"],
    "delays": [*_GRID, "delay"],
    "margin": _GRID,
    "error": [*_GRID, "delay", "replicate"],
    "tolerable": [*_GRID, "replicate"],
    "optimal": [*_GRID, "replicate"],
    "exponent": ["learning_rate", "replicate"],
    "kinds": ["kind"],
    "updates": ["record"],
    "curves": ["kind", "record", "replicate"],
}


class Results(NamedTuple):
    """The results of a study. Axes: E step sizes, M momenta, D delays, K + 1 records, R replicates.

    Attributes:
      learning_rates: float [E], eta.
      momenta: float [M], mu.
      delays: float [E, M, D], in updates; the first is 0, NaN where a grid has fewer.
      margin: float [E, M], the delay that the linearized recursion tolerates.
      error: float [E, M, D, R], the mean error at the end.
      tolerable: float [E, M, R], the tolerable delay.
      optimal: float [E, M, R], the optimal delay.
      exponent: float [E, R], slope of log tolerable against log (1 - mu).
      kinds: str [4], the curves that compare asynchrony and momentum.
      updates: int [K + 1], their abscissae.
      curves: float [4, K + 1, R], their mean errors.
    """

    learning_rates: np.ndarray
    momenta: np.ndarray
    delays: np.ndarray
    margin: np.ndarray
    error: np.ndarray
    tolerable: np.ndarray
    optimal: np.ndarray
    exponent: np.ndarray
    kinds: np.ndarray
    updates: np.ndarray
    curves: np.ndarray

    def save(self, path: pathlib.Path) -> None:
        """Writes the arrays and, as `NAME.axes`, the names of their axes; a file with other content is set aside."""
        arrays = self._asdict() | {f"{name}.axes": np.array(axes) for name, axes in _AXES.items()}
        archive = io.BytesIO()
        np.savez(archive, **arrays)  # pyright: ignore[reportArgumentType]
        if note := write_once(path, archive.getvalue()):
            progress.say(note)


def evaluate(config: StreamingPcaConfig, errors: dict[str, np.ndarray]) -> Results:
    """Computes delays and curves from the mean error of each setting."""
    rates, momenta = np.array(config.learning_rates), np.array(config.momenta)
    shape = (len(rates), len(momenta))
    width = max(len(delays_of(config, eta, mu)) for eta in config.learning_rates for mu in config.momenta)
    delays, margin = np.full((*shape, width), np.nan), np.zeros(shape)
    error = np.full((*shape, width, config.replicates), np.nan)
    tolerable, optimal = np.zeros((*shape, config.replicates)), np.zeros((*shape, config.replicates))
    for e, m in np.ndindex(shape):
        eta, mu = config.learning_rates[e], config.momenta[m]
        grid = np.array(delays_of(config, eta, mu), float)
        paths = np.stack([errors[f"eta{eta:g}-mu{mu:g}-tau{delay:.0f}"] for delay in grid])
        last = paths[:, -(config.records // 12) :].mean(axis=1)
        margin[e, m] = margin_of(config, eta, mu)
        delays[e, m, : len(grid)], error[e, m, : len(grid)] = grid, last
        tolerable[e, m] = [tolerable_delay(grid, column, config.tolerance) for column in last.T]
        target = 2 * last[0].mean()
        optimal[e, m] = [optimal_delay(grid, paths[..., r], target) for r in range(config.replicates)]
    if np.isnan(tolerable).any():
        raise ValueError(
            f"config.margins={config.margins} ends before the error is 1 + {config.tolerance} times that without "
            "delay; add larger margins."
        )
    exponent = np.array([np.polyfit(np.log(1 - momenta), np.log(part), 1)[0] for part in tolerable])
    kinds = kinds_of(config)
    updates = kinds[0].every * np.arange(config.records + 1)
    curves, names = np.stack([errors[cell.name] for cell in kinds]), np.array([cell.name for cell in kinds])
    return Results(rates, momenta, delays, margin, error, tolerable, optimal, exponent, names, updates, curves)


def tolerable_delay(delays: np.ndarray, error: np.ndarray, tolerance: float) -> float:
    """The delay at which the error first exceeds 1 + tolerance times that at delays[0]; NaN if there is none."""
    excess = np.log(error / error[0]) - np.log1p(tolerance)
    if not np.any(excess > 0):
        return np.nan
    i = int(np.argmax(excess > 0))
    return float(np.interp(0.0, excess[i - 1 : i + 1], delays[i - 1 : i + 1]))


def optimal_delay(delays: np.ndarray, paths: np.ndarray, target: float) -> float:
    """The delay with the shortest time to the target, for paths [D, K + 1]."""

    def records_to_target(path: np.ndarray) -> float:
        if not np.any(path <= target):
            return np.inf
        i = max(int(np.argmax(path <= target)), 1)
        return i - 1 + float(np.interp(-np.log(target), -np.log(path[i - 1 : i + 1]), [0.0, 1.0]))

    times = [records_to_target(path) / (delay + 1) for path, delay in zip(paths, delays, strict=True)]
    return float(delays[np.argmin(times)])
