"""Which trainings a figure shows, and their curves: all that there is to see where a target is not reached."""

from __future__ import annotations

from typing import Any

import xarray

from asyncflax import _style
from asyncflax.lab.sweep import best_cells
from asyncflax.train.columns import long_name

CLOCK = "simulated time (seconds)"


def closest(results: xarray.Dataset, metric: str, over: tuple[str, ...] | None = None) -> xarray.Dataset:
    """The hyper-parameters, on the axes of `over`, whose best evaluation, mean over seeds, is the best.

    Their 'score' is that mean. It counts what was seen before a training diverged.
    """
    rises = metric.endswith("accuracy")
    best = results[metric].max("update") if rises else results[metric].min("update")
    return best_cells(best, largest=rises, over=over)


def draw_runs(
    axes: Any,
    results: xarray.Dataset,
    cells: xarray.Dataset,
    metric: str,
    *,
    target: float | None = None,
    against: str = "update",
    gradient_seconds: float = 1.0,
) -> None:
    """The metric, mean over seeds until one diverges, of one cell for each number of workers.

    Args:
      axes: `matplotlib.axes.Axes`.
      results: of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      cells: of `best_cells` or `closest`: momentum and learning rate by num_workers.
      metric: 'test_accuracy' or 'test_loss'.
      target: has a line.
      against: 'update' or 'simulated_time'.
      gradient_seconds: what the clock is multiplied with.
    """
    for k, m in enumerate(results.num_workers.values):
        at = {name: cells[name].sel(num_workers=m).item() for name in cells if name != "score"}
        run = results[[metric, "simulated_time"]].sel(at | {"num_workers": m}).mean("seed", skipna=False)
        x = run["update"] if against == "update" else gradient_seconds * run.simulated_time
        there = (run[metric].notnull() & ((x > 0) | (against == "update"))).values  # the axis of time is logarithmic
        look = _style.look(k, int(there.sum()))
        axes.plot(x.values[there], run[metric].values[there], **look, label=_style.workers(int(m)))
    if target is not None:
        axes.axhline(target, color=_style.GREY, linewidth=1, label=f"target {target:g}")
    if against == "update":
        _style.integer_ticks(axes.xaxis)
    else:
        _style.plain_log(axes, "x")
    axes.set_xlabel("updates" if against == "update" else CLOCK)
    axes.set_ylabel(f"{long_name(metric)}, mean over seeds")
