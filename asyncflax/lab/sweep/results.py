"""Results of a sweep: updates to a target, the best cells, paired comparisons with intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray

from asyncflax import _check
from asyncflax.lab.statistics import student
from asyncflax.lab.sweep.grid import HYPER


class PairedChange(NamedTuple):
    """A relative change, paired over seeds.

    Attributes:
      value: the mean change; NaN if a pair is incomplete.
      low: the lower end of the interval.
      high: the upper end.
      seeds: the number of pairs.
    """

    value: float
    low: float
    high: float
    seeds: int


def updates_to_target(results: xarray.Dataset, target: float, metric: str = "test_accuracy") -> xarray.DataArray:
    """The updates after which a metric first reaches a target, over the axes of the grid; NaN where it never does.

    The metric is interpolated linearly between evaluations.

    Args:
      results: the results of `run_sweep`.
      target: the target value of the metric.
      metric: an accuracy, which rises, or a loss, which falls: 'test_accuracy', 'train_loss', ...

    Raises:
      ValueError: `metric` is unknown.

    Example:
      >>> import xarray
      >>> from asyncflax.lab.sweep import updates_to_target
      >>> accuracy = [[0.1, 0.5, 0.9], [0.1, 0.2, 0.3]]
      >>> results = xarray.Dataset({"test_accuracy": (("seed", "update"), accuracy)}, {"update": [0, 100, 200]})
      >>> updates_to_target(results, 0.7).values
      array([150.,  nan])
    """
    _check.instance("results", results, xarray.Dataset, "an xarray.Dataset from run_sweep")
    target = _check.scalar("target", target)
    metrics = [str(name) for name in results.data_vars if str(name).endswith(("accuracy", "loss"))]
    _check.choice("metric", metric, metrics)
    axis = "trained" if "trained" in results[metric].dims else "update"
    values = results[metric].transpose(..., axis).values * (-1.0 if metric.endswith("loss") else 1.0)
    target = -target if metric.endswith("loss") else target
    updates = results[axis].values.astype(float)
    reached = values >= target  # NaN is not
    last = np.argmax(reached, axis=-1)
    before = np.maximum(last - 1, 0)
    at = lambda index: np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
    rise = at(last) - at(before)
    share = np.where(rise > 0, (target - at(before)) / np.where(rise > 0, rise, 1.0), 1.0)
    crossed = updates[before] + share * (updates[last] - updates[before])
    crossed = np.where(reached.any(axis=-1), crossed, np.nan)
    return results[metric].isel({axis: 0}, drop=True).copy(data=crossed)


def numbers_of(score: xarray.DataArray) -> list[str]:
    """The axes of hyperparameters: learning rate, momentum, then all others whose values are floats.

    >>> import xarray
    >>> axes = {"algorithm.strength": [0.0, 0.04], "seed": [0, 1], "momentum": [0.5]}
    >>> numbers_of(xarray.DataArray(0.0, axes, list(axes)))
    ['momentum', 'algorithm.strength']
    """
    floats = (str(name) for name in score.dims if score[name].dtype.kind == "f")
    return [name for name in dict.fromkeys((*HYPER, *floats)) if name in score.dims]


def best_cells(
    score: xarray.DataArray, *, largest: bool = False, over: tuple[str, ...] | None = None
) -> xarray.Dataset:
    """The hyperparameters with the best mean over seeds.

    A cell that is NaN for some seed (diverged, target not reached) is the worst.

    Args:
      score: a number per cell, for example from `updates_to_target`.
      largest: whether the largest score is the best.
      over: the axes to choose on; None takes all hyperparameters.

    Returns:
      A Dataset over the other axes except the seed: the best coordinate on each axis of `over`, and its mean 'score';
      NaN where all cells are.

    Raises:
      ValueError: `score` has none of the axes to choose on.

    Example:
      >>> import xarray
      >>> from asyncflax.lab.sweep import best_cells
      >>> updates = xarray.DataArray([[90.0, 110.0], [80.0, float("nan")]], {"momentum": [0.0, 0.5], "seed": [0, 1]})
      >>> best = best_cells(updates)
      >>> float(best.momentum), float(best.score)
      (0.0, 100.0)
    """
    _check.instance("score", score, xarray.DataArray, "an xarray.DataArray")
    largest = _check.boolean("largest", largest)
    if over is not None:
        _check.instance("over", over, tuple, "a tuple of axes")
    axes = numbers_of(score) if over is None else [name for name in over if name in score.dims]
    if not axes:
        needed = "an axis of floats" if over is None else f"one of the axes over={over}"
        raise ValueError(f"score must have {needed}, got {score.dims}.")
    mean = score.mean("seed", skipna=False) if "seed" in score.dims else score
    worst = -np.inf if largest else np.inf
    flat = mean.stack(cell=axes)
    filled = flat.fillna(worst)
    place = filled.argmax("cell") if largest else filled.argmin("cell")
    chosen = flat.isel(cell=place)
    found = chosen.notnull()
    out = {name: chosen[name].astype(float).where(found).drop_vars(axes, errors="ignore") for name in axes}
    dataset = xarray.Dataset({"score": chosen.drop_vars(["cell", *axes])})
    return dataset.assign({name: (values.dims, values.values) for name, values in out.items()})


def paired_change(new: xarray.DataArray, old: xarray.DataArray, *, confidence: float = 0.95) -> PairedChange:
    """The mean over seeds of 1 - new/old, with Student's interval: 0.15 is 15 % fewer.

    Args:
      new: the new values [seed].
      old: the old values [seed], for the same seeds.
      confidence: the confidence level of the interval.

    Raises:
      ValueError: the seeds differ, or there are fewer than two.

    Example:
      >>> import xarray
      >>> from asyncflax.lab.sweep import paired_change
      >>> seeds = {"seed": [0, 1, 2]}
      >>> new, old = xarray.DataArray([80.0, 90.0, 85.0], seeds), xarray.DataArray([100.0, 100.0, 100.0], seeds)
      >>> change = paired_change(new, old)
      >>> round(change.value, 3), round(change.low, 3), round(change.high, 3), change.seeds
      (0.15, 0.026, 0.274, 3)
    """
    for name, value in {"new": new, "old": old}.items():
        _check.instance(name, value, xarray.DataArray, "an xarray.DataArray")
    confidence = _check.scalar("confidence", confidence, low=0.0, high=1.0, exclusive_low=True, exclusive_high=True)
    if new.dims != ("seed",) or old.dims != ("seed",) or not np.array_equal(new.seed, old.seed) or len(new) < 2:
        raise ValueError(f"new and old must have the same seeds, at least two, got {new.coords} and {old.coords}.")
    changes = 1 - new.values / old.values
    return PairedChange(*student(changes, confidence), len(changes))
