"""The momentum with the best accuracy, by number of workers: the deep network of Liu et al. 2018 (arXiv:1806.01660)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._runs import draw_closest
from asyncflax.lab.figures._words import Findings
from asyncflax.lab.statistics import Interval, student
from asyncflax.lab.sweep import best_cells

AXES = {"num_workers": 1, "momentum": 1, "learning_rate": 1, "seed": 2}


def best_momentum(figure: Any, results: xarray.Dataset) -> Findings:
    """Draws the final test accuracy against momentum, and the best momentum against workers.

    The learning rate is tuned for each momentum. Ties are broken by test loss, and a cell with a diverged seed counts
    as the worst. Intervals are Student's over seeds; the best momentum is chosen for each seed alone.

    Source: Liu et al. 2018 (arXiv:1806.01660), their deep network, second-hand.
    """
    last = results.test_accuracy.isel(update=-1, drop=True)
    choice = last - 1e-6 * results.test_loss.isel(update=-1, drop=True)  # accuracies on few images often tie
    workers = [int(m) for m in results.num_workers.values]
    rate = best_cells(choice, largest=True, over=("learning_rate",)).learning_rate  # [num_workers, momentum]
    single = best_cells(choice.rename(seed="run"), largest=True).momentum  # [num_workers, run]
    best = {m: student(single.sel(num_workers=m).values) for m in workers}
    left, right = figure.subplots(1, 2)
    rows = [f"{'workers':>7} {'best momentum':>22} {'accuracy by momentum':>22}"]
    for k, m in enumerate(workers):
        shown, accuracy = [], []
        for mu in results.momentum.values:
            at = float(rate.sel(num_workers=m, momentum=mu))
            if np.isfinite(at):
                shown.append(float(mu))
                accuracy.append(student(last.sel(num_workers=m, momentum=mu, learning_rate=at).values))
        if shown:
            _style.intervals(left, shown, accuracy, k, label=_style.workers(m))
        text = ", ".join(f"{mu:g}: {100 * found.value:.1f} %" for mu, found in zip(shown, accuracy, strict=True))
        rows.append(f"{m:7d} {best[m].text():>22} {text}")
    if left.lines:
        left.set_ylim(max(left.get_ylim()[0], -0.05), min(left.get_ylim()[1], 1.05))  # of an accuracy
        left.set_xlabel("explicit momentum")
        left.set_ylabel("test accuracy after the last update, learning rate tuned")
        _draw_best(right, best)
    else:
        draw_closest(left, right, results, "test_accuracy")
        left.set_title("all runs diverged: the best until then")
    left.legend()
    return Findings("\n".join(rows))


def _draw_best(axes: Any, best: dict[int, Interval]) -> None:
    workers = list(best)
    _style.intervals(axes, workers, best.values())
    axes.set_xticks(workers, [str(m) for m in workers])
    axes.set_xlabel("workers")
    axes.set_ylabel("best explicit momentum")
