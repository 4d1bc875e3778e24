"""Tuned momentum against the number of workers: Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._runs import closest, draw_runs
from asyncflax.lab.figures._words import train_config, words
from asyncflax.lab.figures.efficiency import trained_on
from asyncflax.lab.statistics import Interval, student
from asyncflax.lab.sweep import best_cells, updates_to_target
from asyncflax.theory import implicit_momentum

AXES = ("num_workers", "momentum", "learning_rate", "seed")


def tuned_momentum(figure: Any, results: xarray.Dataset, *, target: float, metric: str = "test_accuracy") -> Findings:
    """Draws updates to a target against momentum, the tuned momentum against workers, and the tuned runs in time.

    The learning rate is tuned for each momentum. A cell in which a seed does not reach the target has no number of
    updates. Of workers that never reach it the run that comes closest is drawn; if none do, the best evaluations
    are, and the runs. The tuned momentum is the mean of those tuned for each seed alone.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      target: of the metric.
      metric: see `sweep.updates_to_target`.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figures 2 and 3; the values are in the Allerton version.

    Example: see `configs/figure3.py`.
    """
    updates = updates_to_target(results, target, metric)
    workers = results.num_workers.values
    by_momentum = best_cells(updates, over=("learning_rate",)).score  # [num_workers, momentum]
    best = best_cells(updates)
    single = best_cells(updates.rename(seed="run")).momentum  # [num_workers, run], tuned on each seed alone
    tuned = {int(m): student(single.sel(num_workers=m).values) for m in workers}

    left, middle, right = figure.subplots(1, 3)
    runs, none = closest(results, metric), bool(by_momentum.isnull().all())
    lines = closest(results, metric, ("learning_rate",)).score if none else by_momentum
    large = runs if none else best
    for k, m in enumerate(workers):
        line, at, look = lines.sel(num_workers=m), large.sel(num_workers=m), _style.look(k)
        if bool(line.notnull().any()):
            left.plot(line.momentum, line, **look)
            left.plot(at.momentum, at.score, **look | {"markersize": 10})
    left.set_xlabel("explicit momentum (large: tuned)")
    if none:
        left.set_ylabel(f"best {words(metric)} of a run, learning rate tuned")
        draw_runs(middle, results, runs, metric, target=target)
        middle.set_title("target not reached: the runs that come closest")
    else:
        left.set_ylabel(f"updates to {words(metric)} {target:g}, learning rate tuned")
        _style.plain_log(left, "y")
        _draw_tuned(middle, tuned, single)
    draw_runs(right, results, best.fillna(runs), metric, target=target, against="simulated_time")
    right.legend()
    if none:
        right.set_ylabel("")
    return Findings(*_findings(results, best, tuned, single, target, metric))


def _draw_tuned(axes: Any, tuned: dict[int, Interval], single: xarray.DataArray) -> None:
    """The tuned momentum against workers, and the rule of Figure 2 from that of the fewest workers."""
    workers = np.array(list(tuned))
    means = np.array([interval.value for interval in tuned.values()])
    for run in single.run:
        label = "of each seed alone" if run == single.run[0] else None
        axes.plot(workers, single.sel(run=run), "x", color=_style.GREY, label=label)
    axes.plot(workers, means, **_style.look(0) | {"markersize": 7}, label="tuned, mean over seeds")
    first = means[0] + implicit_momentum(int(workers[0]))
    if np.isfinite(first):
        finer = np.arange(workers.min(), workers.max() + 1)
        theory = [first - implicit_momentum(int(m)) for m in finer]
        axes.plot(finer, theory, color="black", linestyle="--", label=r"$\mu^* - (1 - 1/M)$")
    axes.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    axes.set_xticks(workers, [str(m) for m in workers])
    axes.set_xlabel("workers M")
    axes.set_ylabel("tuned explicit momentum")
    axes.legend()


def _findings(results, best, tuned, single, target, metric):
    workers = [int(m) for m in results.num_workers.values]
    rows = [f"{'workers':>7} {'tuned momentum':>22} {'learning rate':>14} {'updates':>8} {'theory':>7}"]
    first = tuned[workers[0]].value + implicit_momentum(workers[0])
    for m in workers:
        at, mean = best.sel(num_workers=m), tuned[m]
        interval = f"{mean.value:.2f} ({mean.low:.2f} to {mean.high:.2f})"
        rows.append(
            f"{m:7d} {interval:>22} {float(at.learning_rate):14g} {float(at.score):8.0f} "
            f"{first - implicit_momentum(m):7.2f}"
        )
    diverged = int((results.diverged_at >= 0).sum())
    rows.append(f"{results.diverged_at.size} cells, {diverged} of them diverged")
    drops = single.sel(num_workers=workers[0]) - single.sel(num_workers=workers[-1])
    fell = student(drops.values)
    if not np.isfinite(fell.low):
        return "\n".join([*rows, f"the target {target:g} is not reached by all seeds of some worker count"]), ()
    text = ", ".join(f"{tuned[m].value:.2f}" for m in workers)
    name, dataset = trained_on(train_config(results))
    claim = {
        "name": f"tuned-momentum-{name}-{metric}".replace("_", "-"),
        "statement": f"The tuned explicit momentum falls as workers are added ({dataset}, updates to "
        f"{words(metric)} {target:g}, momenta {results.momentum.values.min():g} to {results.momentum.values.max():g}).",
        "source": "Mitliagkas et al. 2016, Figure 3",
        "paper": "0.7, 0.6, 0.2, 0.1 at 1, 2, 4, 8 workers on CIFAR-10; 0.6, 0.6, 0.6, 0.6, 0.3, 0 at 1 to 32 on "
        "ImageNet (Allerton version)",
        "ours": f"{text} at {', '.join(map(str, workers))} workers; falls by {fell.value:.2f} "
        f"({fell.low:.2f} to {fell.high:.2f}) from {workers[0]} to {workers[-1]}",
        "value": fell.value,
        "interval": (fell.low, fell.high),
        "seeds": len(results.seed),
    }
    return "\n".join(rows), [claim]
