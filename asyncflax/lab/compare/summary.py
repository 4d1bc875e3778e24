"""Summarizes a comparison: learning rates, means with intervals, failures, tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.statistics import Interval, student
from asyncflax.lab.sweep import updates_to_target

RULES = {
    "train_loss": "the lowest mean training loss over the last tenth of the gradients; test images are not used",
    "test_accuracy": "the highest test accuracy at the end; picked on the reported test images",
}
"""Rules that pick the learning rate of each method, service time and number of workers, from means over seeds.

Rates with the fewest diverged seeds come first. 'test_accuracy', the practice of papers without a validation set, leaks
test data, and the table reports it.
"""

_CELL = ("method", "service_time", "num_workers")


def summarize(
    results: xarray.Dataset,
    *,
    pick: str = "train_loss",
    choosing: int = 0,
    failed_below: float = 0.0,
    target: float = 0.0,
) -> xarray.Dataset:
    """Adds a summary to the results.

    Args:
      results: a dataset of test_accuracy [method, service_time, num_workers, (learning_rate_scale,) seed, update],
        train_loss (`trained` in place of `update`), diverged_at (neither), and learning_rate if several are tried.
      pick, choosing, failed_below, target: as in `CompareConfig`; `choosing=0` picks on all seeds.

    Returns:
      The results and, over method, service_time and num_workers,
        picked_scale, picked_learning_rate: float, on which the others are based (only if several are tried);
        final_accuracy: float [..., seed], NaN where the training diverged;
        failed: int [..., seed], 1 where it diverged or ended below `failed_below`;
        mean, low, high: float, of final_accuracy over the seeds that did not fail, with Student's 95 % interval;
        gradients_to_target, steps_to_target, seconds_to_target: float [..., seed], gradients, server steps and
          simulated seconds until the target is first reached, NaN if it is not (only with a target).

    Example:
      >>> import numpy as np, xarray
      >>> from asyncflax.lab.compare import summarize
      >>> axes = ("method", "service_time", "num_workers", "seed")
      >>> accuracy, loss = np.array([0.9, 0.92, 0.1]), np.array([0.2, 0.1, 2.3])
      >>> results = xarray.Dataset(
      ...     {
      ...         "test_accuracy": ((*axes, "update"), accuracy.reshape(1, 1, 1, 3, 1)),
      ...         "train_loss": ((*axes, "trained"), loss.reshape(1, 1, 1, 3, 1)),
      ...         "diverged_at": (axes, np.full((1, 1, 1, 3), -1)),
      ...     },
      ...     {"method": ["asgd"], "service_time": ["equal"], "num_workers": [8], "seed": [0, 1, 2]},
      ... )
      >>> summary = summarize(results, failed_below=0.2)
      >>> summary.failed.values.ravel(), round(float(summary["mean"].item()), 3)
      (array([0, 0, 1], dtype=int32), 0.91)
    """
    accuracy = results.test_accuracy.isel(update=-1, drop=True)
    diverged = results.diverged_at >= 0
    added: dict[str, Any] = {}
    scale = "learning_rate_scale"
    if scale in results.dims:
        score = -last_losses(results) if pick == "train_loss" else accuracy
        some = slice(choosing or None)
        place = _best(score.where(~diverged).isel(seed=some), diverged.isel(seed=some).sum("seed"))
        added["picked_scale"] = results[scale].isel({scale: place}).drop_vars(scale)
        added["picked_learning_rate"] = results.learning_rate.isel({scale: place}).drop_vars(scale).transpose(*_CELL)
        accuracy, diverged = (x.isel({scale: place}).drop_vars(scale) for x in (accuracy, diverged))
    accuracy = accuracy.transpose(*_CELL, "seed").where(~diverged)
    failed = ~(accuracy >= failed_below)
    good = accuracy.where(~failed)
    intervals = np.array([_interval(seeds) for seeds in good.values.reshape(-1, good.sizes["seed"])])
    for name, values in zip(("mean", "low", "high"), intervals.T, strict=True):
        added[name] = (_CELL, values.reshape(good.shape[:-1]))
    summary = results.assign(final_accuracy=accuracy, failed=failed.astype(np.int32), **added)
    return summary.assign(_to_target(summary, target)) if target else summary


def last_losses(results: xarray.Dataset) -> xarray.DataArray:
    """The mean training loss over the last tenth of the gradients, NaN for diverged runs."""
    rows = results.sizes["trained"]
    return results.train_loss.isel(trained=slice(rows - max(rows // 10, 1), None)).mean("trained", skipna=False)


def with_picked_rates(summary: xarray.Dataset, *names: str) -> xarray.Dataset:
    """Variables of a summary at the picked learning rates, without their axis."""
    runs, scale = summary[[*names]], "learning_rate_scale"
    return runs.sel({scale: summary.picked_scale}).drop_vars(scale) if scale in runs.dims else runs


def _to_target(summary: xarray.Dataset, target: float) -> dict[str, xarray.DataArray]:
    """When the target is first reached; accuracy and simulated time are interpolated linearly between evaluations."""
    runs = with_picked_rates(summary, "test_accuracy", "simulated_time").transpose(*_CELL, "seed", "update")
    gradients = updates_to_target(runs, target)
    clocks = runs.simulated_time.values
    seconds = gradients.copy()
    for place in np.ndindex(gradients.shape):
        seconds.values[place] = np.interp(gradients.values[place], runs["update"].values, clocks[place])
    steps = gradients / xarray.where(summary.algorithm == "ssgd", summary.num_workers, 1)
    steps = steps.transpose(*gradients.dims).drop_vars("algorithm", errors="ignore")
    return {"gradients_to_target": gradients, "steps_to_target": steps, "seconds_to_target": seconds}


def _best(score: xarray.DataArray, failures: xarray.DataArray) -> xarray.DataArray:
    """The index of the learning rate with the highest mean among those with the fewest failures."""
    mean = score.mean("seed").fillna(np.finfo(np.float32).min)
    fewest = failures == failures.min("learning_rate_scale")
    return mean.where(fewest, -np.inf).argmax("learning_rate_scale")


def _interval(seeds: np.ndarray) -> Interval:
    """Student's interval of the finite numbers."""
    there = seeds[np.isfinite(seeds)]
    return student(there) if len(there) else Interval(np.nan, np.nan, np.nan)


def markdown_tables(results: xarray.Dataset) -> str:
    """Renders the summary as Markdown, with one table of methods x workers per service time.

    'FAIL' counts the seeds that failed; the mean beside it is over the others.
    """
    config = json.loads(results.attrs["config"])
    seeds, counts = results.sizes["seed"], results.num_workers.values
    lines = [
        f"Test accuracy in % after {int(results['update'][-1]):,} gradients: mean over {seeds} seeds "
        "± Student's 95 % interval."
    ]
    if "ssgd" in results.algorithm.values:
        lines.append("A server step of ssgd takes M gradients, one of each worker; a step of all others takes one.")
    if "picked_scale" in results:
        scales = ", ".join(f"{scale:g}" for scale in results.learning_rate_scale.values)
        rule = f"{config['pick']}: {RULES[config['pick']]}"
        lines.append(f"In brackets the learning rate, of {scales} times each method's, picked by {rule}.")
    for label in results.service_time.values:
        part = results.sel(service_time=label)
        rows = [[str(label), *map(_style.workers, counts)]]
        rows += [
            [str(k), *(_words(part.sel({"method": k, "num_workers": m})) for m in counts)]
            for k in results.method.values
        ]
        lines += ["", *aligned(rows)]
    failed, diverged = int(results.failed.sum()), int((results.final_accuracy.isnull()).sum())
    if "gradients_to_target" in results:
        lines += _target_tables(results, f"{config['target']:.0%}")
    lines += ["", f"{results.failed.size} trainings, {failed} failed: {diverged} diverged"]
    if config["failed_below"]:
        lines[-1] += f", {failed - diverged} ended below {config['failed_below']:.0%}"
    if "picked_scale" in results:
        others = int((results.diverged_at >= 0).sum())
        lines[-1] += f"; of all {results.diverged_at.size} with all learning rates {others} diverged"
    return "\n".join(lines)


def _target_tables(results: xarray.Dataset, target: str) -> list[str]:
    """Gradients and simulated time to the target."""
    lines = ["", f"Gradients to {target}, in brackets simulated seconds: means over the seeds that reach it."]
    counts = results.num_workers.values
    for label in results.service_time.values:
        rows = [[f"{label}, to {target}", *map(_style.workers, counts)]]
        for k in results.method.values:
            cells = (results.sel({"service_time": label, "method": k, "num_workers": m}) for m in counts)
            rows.append([str(k), *map(_target_words, cells)])
        lines += ["", *aligned(rows)]
    return lines


def _target_words(cell: xarray.Dataset) -> str:
    """Formats as '420 (53)', '960 = 60 steps (71)' or '2/3 seeds: 900 (110)'; 'none' where no seed reaches it."""
    reached, seeds = int(cell.gradients_to_target.notnull().sum()), cell.sizes["seed"]
    if not reached:
        return "none"
    gradients, steps, seconds = (float(cell[f"{name}_to_target"].mean()) for name in ("gradients", "steps", "seconds"))
    synchronous = f" = {steps:,.0f} steps" if str(cell.algorithm.values) == "ssgd" else ""
    some = f"{reached}/{seeds} seeds: " if reached < seeds else ""
    return f"{some}{gradients:,.0f}{synchronous} ({seconds:.3g})"


def _words(cell: xarray.Dataset) -> str:
    """Formats as '97.8 ± 0.6', 'FAIL 1/3, 45.1 ± 2.0' or 'FAIL 3/3', and the learning rate if one was picked."""
    failed, seeds = int(cell.failed.sum()), cell.sizes["seed"]
    words = [f"FAIL {failed}/{seeds}"] if failed else []
    if failed < seeds:
        half = 100 * float(cell.high - cell["mean"])
        words.append(f"{100 * float(cell['mean']):.1f}" + (f" ± {half:.1f}" if np.isfinite(half) else ""))
    rate = f" ({float(cell.picked_learning_rate):.3g})" if "picked_scale" in cell and failed < seeds else ""
    return ", ".join(words) + rate


def aligned(rows: list[list[str]]) -> list[str]:
    """A Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    return [line(rows[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows[1:])]
