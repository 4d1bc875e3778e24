"""Tuned momentum against a fixed one: Figure 4 of Mitliagkas et al. 2016 (arXiv:1605.09774, Allerton version)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._judging import Race, by_workers, detectable
from asyncflax.lab.figures._words import trained_on, words, workers_of
from asyncflax.lab.statistics import decide_all

AXES = ("num_workers", "momentum", "learning_rate", "seed")


def fixed_momentum(
    figure: Any,
    results: xarray.Dataset,
    *,
    target: float,
    metric: str = "train_loss",
    fixed: float = 0.9,
    choosing: int = 8,
    exception: str = "",
) -> Findings:
    """Draws updates to a target with a fixed momentum and with a tuned one, not negative, against workers.

    The first seeds choose: for each number of workers the momentum, and the learning rate of both. The others judge
    whether tuned momentum is sooner, at all numbers of workers but one (Holm's adjustment). A training that misses the
    target counts with all its updates.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      target: of the metric.
      metric: see `sweep.updates_to_target`.
      fixed: a momentum of the grid.
      choosing: how many of the first seeds choose.
      exception: why fewer seeds judge than `statistics.JUDGING_SEEDS`.

    Source: Mitliagkas et al. 2016, Allerton version, Figure 4: on CIFAR-10 with 1, 2, 4, 8, 16 workers 2, 2, 2, 3, 16
    times the updates with momentum 0.9, and 1, 1, 2, 2, 6 with tuned momentum that is not negative.

    Example: see `configs/figure3.py`.
    """
    race = Race.of(results, target, metric, choosing, exception)
    workers, momenta = workers_of(results), results.momentum.values
    if fixed not in momenta:
        raise ValueError(f"fixed={fixed:g} is no momentum of the grid, there are {_style.listed(momenta)}")
    tuned = race.best(("learning_rate", "momentum"), momentum=momenta[momenta >= 0])
    usual = race.best(("learning_rate",), momentum=[fixed]).learning_rate.sel(momentum=fixed)
    cells = {
        m: {
            "tuned": {name: float(tuned[name].sel(num_workers=m)) for name in ("momentum", "learning_rate")},
            f"fixed {fixed:g}": {"momentum": fixed, "learning_rate": float(usual.sel(num_workers=m))},
        }
        for m in workers
    }
    cells = {m: {arm: {"num_workers": m, **cell} for arm, cell in arms.items()} for m, arms in cells.items()}
    verdicts = {m: race.decide(*arms.values()) for m, arms in cells.items()}
    needed = {
        m: [float(np.exp(race.of_judges(race.logs).sel(cell).mean())) for cell in arms.values()]
        for m, arms in cells.items()
    }

    left, right = figure.subplots(1, 2)
    for k, arm in enumerate(cells[workers[0]]):
        left.plot(workers, [needed[m][k] / needed[workers[0]][0] for m in workers], **_style.look(k), label=arm)
    for k, (arm, published) in enumerate((("tuned", (1, 1, 2, 2, 6)), (f"fixed {fixed:g}", (2, 2, 2, 3, 16)))):
        look = _style.look(k) | {"linestyle": ":", "markerfacecolor": "none"}
        left.plot([1, 2, 4, 8, 16], published, **look, label=f"{arm}, paper, CIFAR-10")
    left.set_ylabel(
        f"updates to {words(metric)} {target:g}, relative to\ntuned momentum at {_style.workers(workers[0])}"
    )
    left.legend()
    _style.plain_log(left, "y")
    _style.intervals(right, workers, [race.ratio(*arms.values()) for arms in cells.values()], label="measured")
    right.plot(
        [1, 2, 4, 8, 16], np.array([2, 2, 2, 3, 16]) / [1, 1, 2, 2, 6], **_style.look(1), label="paper, CIFAR-10"
    )
    right.axhline(1.0, color="0.8", linewidth=1, zorder=0)
    right.set_ylabel(f"updates with {fixed:g} over updates tuned")
    right.legend()
    for axes in (left, right):
        _style.log_ticks(axes, workers)
        axes.set_xlabel("workers")

    rows = [f"{'workers':>7} {'tuned':>6} {'updates':>8} {f'with {fixed:g}':>9}  fixed over tuned"]
    for m in workers:
        rows.append(
            f"{m:7d} {cells[m]['tuned']['momentum']:6g} {needed[m][0]:8.0f} {needed[m][1]:9.0f}  "
            f"{by_workers({m: verdicts[m]})}"
        )
    several = {m: verdict for m, verdict in verdicts.items() if m > 1}
    if not race.decides:
        return Findings("\n".join([*rows, race.no_verdict]))
    if not several:
        return Findings("\n".join([*rows, "one number of workers: no verdict"]))
    found = [arms["tuned"]["momentum"] for arms in cells.values()]
    decided = decide_all(list(several.values()))
    most = max(several)
    name, trained = trained_on(results)
    claim = {
        "name": f"fixed-momentum-{name}",
        "statement": f"With {_style.workers(*several)} tuned momentum (not negative) needs fewer updates than a fixed "
        f"{fixed:g} ({trained}, {words(metric)} {target:g}).",
        "source": "Mitliagkas et al. 2016, Figure 4 (Allerton version)",
        "paper": "penalties of 1, 1, 2, 2, 6 tuned and 2, 2, 2, 3, 16 with 0.9 at 1, 2, 4, 8, 16 workers on CIFAR-10, "
        "so 0.9 needs 2, 2, 1, 1.5, 2.7 times the updates",
        "ours": f"times as many with {fixed:g}: {by_workers(verdicts)}; tuned momenta {_style.listed(found)}"
        f"{detectable(several.values())}",
        **several[most].of_updates.of_claim,
        "seeds": race.judges,
        "verdict": decided.verdict,
    }
    return Findings("\n".join([*rows, f"tuned is sooner at all: {decided.verdict}"]), [claim])
