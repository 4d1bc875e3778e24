"""Hardware efficiency, statistical efficiency, and their product: Figure 1 of Mitliagkas et al. 2016."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._runs import closest, draw_runs
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
    """Draws, against the number of workers, relative to the fewest (geometric means over seeds, with intervals):

    the time of an update on the queue's clock (hardware efficiency), the updates to a target with tuned momentum and
    learning rate (statistical efficiency), and the time to the target, their product. If the target is
    not reached with the fewest workers, or with no others, the runs that come closest are drawn instead.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      target: of the metric.
      metric: see `sweep.updates_to_target`.
      gradient_seconds: how long a worker takes for a gradient on average, measured; the clock counts these.
      start: 'cold' or 'warm', where the trainings begin; for the title.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figure 1; Figure 5 of the Allerton version for the penalties.

    Example: see `configs/figure1.py`.
    """
    updates = updates_to(results, target, metric)
    best = best_cells(updates)
    workers = results.num_workers.values
    relative: dict[str, dict[int, Any]] = {"hardware": {}, "statistical": {}, "time to target": {}}
    absolute = {}
    for m in workers:
        # The cell that is best for the mean over seeds; where no cell reaches the target, there is no number.
        at = best.sel(num_workers=m)
        cell = {"momentum": at.momentum.fillna(results.momentum[0]), "learning_rate": at.learning_rate}
        cell["learning_rate"] = cell["learning_rate"].fillna(results.learning_rate[0])
        needed = updates.sel(num_workers=m).sel(cell).values * (1.0 if np.isfinite(at.score) else np.nan)
        clock = results.simulated_time.sel(num_workers=m).sel(cell)
        seconds = gradient_seconds * clock.isel(update=-1).values / float(results["update"][-1])
        absolute[int(m)] = seconds, needed
    fewest = int(workers[0])
    first = absolute[fewest]
    for m, (seconds, needed) in absolute.items():
        relative["hardware"][m] = _ratio(seconds, first[0])
        relative["statistical"][m] = _ratio(needed, first[1])
        relative["time to target"][m] = _ratio(seconds * needed, first[0] * first[1])

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
        runs = {"target": target, "gradient_seconds": gradient_seconds}
        cells = closest(results, metric)
        for name, against in (("statistical", "update"), ("time to target", "simulated_time")):
            draw_runs(panels[name], results, cells, metric, against=against, **runs)
            panels[name].set_title(f"the runs closest to {target:g}")
        panels["time to target"].set_ylabel("")
        panels["statistical"].legend()

    rows = [
        f"{'workers':>7} {'momentum':>9} {'rate':>6} {'s/update':>9} {'updates':>8} "
        + " ".join(f"{n:>24}" for n in relative)
    ]
    for m, (seconds, needed) in absolute.items():
        at = best.sel(num_workers=m)
        mean = f"{needed.mean():.0f}" if np.isfinite(needed.mean()) else "none"
        rows.append(
            f"{m:7d} {float(at.momentum):9g} {float(at.learning_rate):6g} {seconds.mean():9.3g} {mean:>8} "
            + " ".join(f"{relative[name][m].text(2):>24}" for name in relative)
        )
    rows.append(f"target {long_name(metric)} {target:g} from a {start} start; 'none': not reached by all seeds")
    return Findings("\n".join(rows))


def _draw_relative(axes: Any, workers: np.ndarray, intervals: dict[int, Interval], *, constant: bool) -> None:
    """Ratios with their intervals, and what they are without any loss: constant, or falling as 1/M."""
    _style.intervals(axes, workers, intervals.values(), label="measured")
    ideal = np.ones(len(workers)) if constant else workers[0] / workers
    axes.plot(workers, ideal, color="black", linestyle="--", label="without any loss")
    axes.set_yscale("log", base=2)
    _style.log_ticks(axes, workers)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.3g}")
    axes.set_xlabel("workers")


def _ratio(values: np.ndarray, of: np.ndarray) -> Interval:
    """The geometric mean of the ratios, so that that of a product is the product, with Student's interval."""
    return Interval(*np.exp(student(np.log(values / of))).tolist())
