"""Draws the runs closest to a target that none reaches."""

from __future__ import annotations

from typing import Any

import xarray

from asyncflax import _style
from asyncflax.lab.sweep import best_cells
from asyncflax.train.columns import long_name


def draw_closest(
    by_update: Any,
    by_time: Any,
    results: xarray.Dataset,
    metric: str,
    *,
    target: float | None = None,
    gradient_seconds: float = 1.0,
) -> None:
    """Draws a metric against updates and against simulated time, mean over seeds until one diverges.

    Each number of workers is represented by the cell with the best evaluation, averaged over seeds.

    Args:
      by_update: the `matplotlib.axes.Axes` against updates.
      by_time: the `matplotlib.axes.Axes` against simulated time.
      results: the results of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      metric: 'test_accuracy' or 'test_loss'.
      target: the target, drawn as a line.
      gradient_seconds: the factor that scales the simulated time.
    """
    rises = metric.endswith("accuracy")
    best = best_cells(results[metric].max("update") if rises else results[metric].min("update"), largest=rises)
    for k, m in enumerate(results.num_workers.values):
        at = {name: best[name].sel(num_workers=m).item() for name in best if name != "score"}
        run = results[[metric, "simulated_time"]].sel(at | {"num_workers": m}).mean("seed", skipna=False)
        seconds = gradient_seconds * run.simulated_time
        for axes, x, shown in ((by_update, run["update"], True), (by_time, seconds, seconds > 0)):
            there = (run[metric].notnull() & shown).values
            look = _style.look(k, int(there.sum()))
            axes.plot(x.values[there], run[metric].values[there], **look, label=_style.workers(int(m)))
    _style.integer_ticks(by_update.xaxis)
    _style.plain_log(by_time, "x")
    by_update.set_xlabel("updates")
    by_time.set_xlabel("simulated time (seconds)")
    for axes in (by_update, by_time):
        if target is not None:
            axes.axhline(target, color=_style.GREY, linewidth=1, label=f"target {target:g}")
        axes.set_ylabel(f"{long_name(metric)}, mean over seeds")
