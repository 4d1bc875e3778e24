"""Hardware efficiency, statistical efficiency, and their product: Figure 1 of Mitliagkas et al. 2016."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._runs import draw_closest
from asyncflax.lab.figures._words import Findings, updates_to
from asyncflax.lab.statistics import Interval, student
from asyncflax.lab.sweep import best_cells
from asyncflax.train.columns import long_name

AXES = {"num_workers": 1, "momentum": 1, "learning_rate": 1, "seed": 2}


def efficiency(
    figure: Any,
    results: xarray.Dataset,
    *,
    target: float,
    metric: str = "test_accuracy",
    gradient_seconds: float = 1.0,
    start: str = "cold",
) -> Findings:
    """Draws hardware efficiency, statistical efficiency and their product against workers, relative to the fewest.

    These are the simulated time of an update, the updates to a target with tuned momentum and learning rate, and the
    time to the target: geometric means over seeds, with intervals. If the fewest workers do not reach the target, or no
    others do, the closest runs are drawn instead.

    Args:
      target: the target value of the metric.
      metric: the metric, see `sweep.updates_to_target`.
      gradient_seconds: the measured mean time of a gradient, the unit of simulated time.
      start: 'cold' or 'warm', used in the labels.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figure 1; Figure 5 of the Allerton version for the penalties.
    """
    updates = updates_to(results, target, metric)
    best = best_cells(updates)
    workers = results.num_workers.values
    absolute = {}
    for m in map(int, workers):
        # The best cell in the mean over seeds; if none reaches the target, the updates are NaN.
        at = best.sel(num_workers=m)
        cell = {name: at[name].fillna(results[name][0]) for name in ("momentum", "learning_rate")}
        needed = updates.sel(num_workers=m).sel(cell).values * (1.0 if np.isfinite(at.score) else np.nan)
        clock = results.simulated_time.sel(num_workers=m).sel(cell)
        seconds = gradient_seconds * clock.isel(update=-1).values / float(results["update"][-1])
        absolute[m] = {"hardware": seconds, "statistical": needed, "time to target": seconds * needed}
    fewest = int(workers[0])
    relative = {
        name: {m: student(np.log(of[name] / absolute[fewest][name])).exp() for m, of in absolute.items()}
        for name in absolute[fewest]
    }

    titles = {
        "hardware": "time of an update",
        "statistical": f"updates to {long_name(metric)} {target:g}",
        "time to target": "their product: time to the target",
    }
    panels = dict(zip(relative, figure.subplots(1, 3), strict=True))
    compared = sum(np.isfinite(interval.value) for interval in relative["statistical"].values()) > 1
    for name in relative if compared else ["hardware"]:
        _draw_relative(panels[name], workers, relative[name], constant=name == "statistical")
        panels[name].set_title(titles[name])
    panels["hardware"].set_ylabel(f"relative to {_style.workers(fewest)} ({start} start)")
    panels["hardware"].legend()
    if not compared:
        left, right = panels["statistical"], panels["time to target"]
        draw_closest(left, right, results, metric, target=target, gradient_seconds=gradient_seconds)
        for axes in (left, right):
            axes.set_title(f"the runs closest to {target:g}")
        right.set_ylabel("")
        left.legend()

    rows = [
        f"{'workers':>7} {'momentum':>9} {'rate':>6} {'s/update':>9} {'updates':>8} "
        + " ".join(f"{n:>24}" for n in relative)
    ]
    for m, of in absolute.items():
        at, needed = best.sel(num_workers=m), of["statistical"].mean()
        mean = f"{needed:.0f}" if np.isfinite(needed) else "none"
        rows.append(
            f"{m:7d} {float(at.momentum):9g} {float(at.learning_rate):6g} {of['hardware'].mean():9.3g} {mean:>8} "
            + " ".join(f"{relative[name][m].text(2):>24}" for name in relative)
        )
    rows.append(f"target {long_name(metric)} {target:g} from a {start} start; 'none': not reached by all seeds")
    return Findings("\n".join(rows))


def _draw_relative(axes: Any, workers: np.ndarray, intervals: dict[int, Interval], *, constant: bool) -> None:
    """Draws ratios with their intervals, and the ideal: constant, or 1/M."""
    _style.intervals(axes, workers, intervals.values(), label="measured")
    ideal = np.ones(len(workers)) if constant else workers[0] / workers
    axes.plot(workers, ideal, color="black", linestyle="--", label="without any loss")
    axes.set_yscale("log", base=2)
    _style.log_ticks(axes, workers)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.3g}")
    axes.set_xlabel("workers")
