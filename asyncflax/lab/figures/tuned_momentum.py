"""Tuned momentum against the number of workers: Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._words import train_config, words
from asyncflax.lab.figures._words import workers as name_of
from asyncflax.lab.figures.efficiency import trained_on
from asyncflax.lab.statistics import student
from asyncflax.lab.sweep import best_cells, updates_to_target
from asyncflax.theory import implicit_momentum

AXES = ("num_workers", "momentum", "learning_rate", "seed")


def tuned_momentum(figure: Any, results: xarray.Dataset, *, target: float, metric: str = "test_accuracy") -> Findings:
    """Draws updates to a target against momentum, the tuned momentum against workers, and the tuned runs in time.

    The learning rate is tuned for each momentum. A cell in which a seed does not reach the target is not drawn. The
    tuned momentum has an interval over seeds (Student's, of the momenta tuned for each seed alone).

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
    for k, m in enumerate(workers):
        line = by_momentum.sel(num_workers=m)
        left.plot(line.momentum, line, color=f"C{k}", marker=".", label=name_of(m))
        at = best.sel(num_workers=m)
        if np.isfinite(at.score):
            left.plot(at.momentum, at.score, color=f"C{k}", marker="o", markersize=9)
            curve = results.sel(num_workers=m, momentum=at.momentum, learning_rate=at.learning_rate)
            right.plot(curve.simulated_time.mean("seed"), curve[metric].mean("seed"), color=f"C{k}", label=name_of(m))
    left.set_yscale("log")
    for axis in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        axis(lambda y, _: f"{y:,.0f}")
    left.set_xlabel("explicit momentum (dots: tuned)")
    left.set_ylabel(f"updates to {words(metric)} {target:g}, learning rate tuned")
    left.legend()
    first = tuned[int(workers[0])].value + implicit_momentum(int(workers[0]))
    means = np.array([tuned[int(m)].value for m in workers])
    middle.plot(workers, means, marker="o", label="tuned, mean over seeds")
    for run in single.run:
        middle.plot(workers, single.sel(run=run), color="C0", marker="x", linestyle="", alpha=0.6)
    finer = np.arange(workers.min(), workers.max() + 1)
    theory = [first - implicit_momentum(int(m)) for m in finer]
    middle.plot(finer, theory, color="black", linestyle="--", label=r"$\mu^* - (1 - 1/M)$")
    middle.axhline(0.0, color="0.8", linewidth=1)
    middle.set_xlabel("workers")
    middle.set_ylabel("tuned explicit momentum (crosses: each seed alone)")
    middle.legend()
    right.axhline(target, color="0.8", linewidth=1)
    right.set_xscale("log")
    right.set_xlabel("simulated time (one gradient takes 1 on average)")
    right.set_ylabel(words(metric))
    right.legend()
    return Findings(*_findings(results, best, tuned, single, target, metric))


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
