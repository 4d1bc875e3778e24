"""Tuned momentum against the number of workers: Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._judging import Race
from asyncflax.lab.figures._runs import draw_loss
from asyncflax.lab.figures._words import trained_on, words, workers_of
from asyncflax.lab.statistics import Optimum, decide_trend, optimum, optimum_shift
from asyncflax.theory import implicit_momentum

AXES = ("num_workers", "momentum", "learning_rate", "seed")
PUBLISHED = {1: 0.7, 2: 0.6, 4: 0.2, 8: 0.1}  # on CIFAR-10, in the Allerton version


def tuned_momentum(
    figure: Any,
    results: xarray.Dataset,
    *,
    target: float,
    metric: str = "train_loss",
    choosing: int = 8,
    exception: str = "",
) -> Findings:
    """Draws updates to a target against momentum, the tuned momentum against workers, and the tuned trainings.

    The first seeds choose the learning rate of each momentum, the others judge: the tuned momentum of so many workers
    is the optimum of log updates averaged over them. Whether it falls as workers are added is decided by Page's test
    on the momentum that is best for each of these seeds alone. A training that misses the target counts with all its
    updates.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      target: of the metric.
      metric: see `sweep.updates_to_target`.
      choosing: how many of the first seeds choose.
      exception: why fewer seeds judge than `statistics.JUDGING_SEEDS`.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figures 2 and 3; the values are in the Allerton version.

    Example: see `configs/figure3.py`.
    """
    results = results.sortby("momentum")
    race = Race.of(results, target, metric, choosing, exception)
    workers, momenta = workers_of(results), results.momentum.values
    rate = race.best(("learning_rate",)).learning_rate  # [num_workers, momentum]
    curves = race.of_judges(race.logs).sel(learning_rate=rate).transpose("num_workers", "seed", "momentum")
    tuned = {m: optimum(curves.sel(num_workers=m).values, momenta) for m in workers}
    alone = curves.idxmin("momentum")  # [num_workers, seed]
    place = curves.mean("seed").idxmin("momentum")

    left, middle, right = figure.subplots(1, 3)
    for k, m in enumerate(workers):
        line, look = np.exp(curves.sel(num_workers=m).mean("seed")), _style.look(k)
        left.plot(momenta, line, **look, label=_style.workers(m))
        left.plot(place.sel(num_workers=m), line.min(), **look | {"markersize": 10})
        cell = {"num_workers": m, "momentum": float(place.sel(num_workers=m))}
        cell["learning_rate"] = float(rate.sel(cell))
        draw_loss(right, race.of_judges(results[metric].sel(cell)), metric, target if k == 0 else None, look)
    left.set_xlabel("explicit momentum (large: best)")
    left.set_ylabel(f"updates to {words(metric)} {target:g}, learning rate tuned")
    left.legend()
    _style.plain_log(left, "y")
    _draw_tuned(middle, tuned, alone)

    rows = [f"{'workers':>7} {'tuned momentum':>24} {'best of the grid':>16} {'learning rate':>14} {'updates':>8}"]
    for m in workers:
        mu = float(place.sel(num_workers=m))
        rows.append(
            f"{m:7d} {tuned[m].interval.text():>24} {mu:16g} "
            f"{float(rate.sel(num_workers=m, momentum=mu)):14g} "
            f"{float(np.exp(curves.sel(num_workers=m, momentum=mu).mean())):8.0f}"
        )
    diverged = int((results.diverged_at >= 0).sum())
    rows.append(f"{results.diverged_at.size} cells, {diverged} of them diverged")
    if not race.decides:
        return Findings("\n".join([*rows, race.no_verdict]))
    if len(workers) < 3:
        return Findings("\n".join([*rows, "a trend needs three numbers of workers: no verdict"]))
    trend = decide_trend(alone.transpose("seed", "num_workers").values, direction="falls", exception=exception)
    most, fewest = (curves.sel(num_workers=m).values for m in (workers[-1], workers[0]))
    shift = optimum_shift(most, fewest, momenta)
    rows.append(f"falls: {trend.verdict}, Page's test, p = {trend.p:.2g}; Spearman's {trend.interval.text()}")
    name, trained = trained_on(results)
    at = f"at {_style.workers(*workers)}"
    claim = {
        "name": f"tuned-momentum-{name}",
        "statement": f"The tuned explicit momentum falls as workers are added ({trained}, updates to {words(metric)} "
        f"{target:g}, {len(momenta)} momenta from {momenta.min():g} to {momenta.max():g}).",
        "source": "Mitliagkas et al. 2016, Figure 3",
        "paper": f"{', '.join(f'{mu:g}' for mu in PUBLISHED.values())} at {_style.workers(*PUBLISHED)} on CIFAR-10; "
        "0.6, 0.6, 0.6, 0.6, 0.3, 0 at 1 to 32 on ImageNet (Allerton version)",
        "ours": f"{', '.join(f'{tuned[m].interval.value:.2f}' for m in workers)} {at}, optima of the pooled curves; "
        f"falls by {shift.interval.text()} from {workers[0]} to {workers[-1]}; Page's test p = {trend.p:.1g}",
        **shift.interval.of_claim,
        "seeds": race.judges,
        "verdict": trend.verdict,
    }
    return Findings("\n".join(rows), [claim])


def _draw_tuned(axes: Any, tuned: dict[int, Optimum], alone: xarray.DataArray) -> None:
    """The tuned momentum against workers, the rule of Figure 2 from that of the fewest, and what is published."""
    workers = np.array(list(tuned))
    intervals = [found.interval for found in tuned.values()]
    for i in range(alone.sizes["seed"]):
        label = "of each seed alone" if i == 0 else None
        axes.plot(workers, alone.isel(seed=i), "x", color=_style.GREY, label=label, zorder=1)
    _style.intervals(axes, workers, intervals, label="tuned")
    first = intervals[0].value + implicit_momentum(int(workers[0]))
    finer = np.arange(workers.min(), workers.max() + 1)
    rule = [first - implicit_momentum(int(m)) for m in finer]
    axes.plot(finer, rule, color="black", linestyle="--", label=r"$\mu^* - (1 - 1/M)$")
    axes.plot(list(PUBLISHED), list(PUBLISHED.values()), **_style.look(1), label="paper, CIFAR-10")
    axes.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    _style.log_ticks(axes, workers)
    axes.set_xlabel("workers M")
    axes.set_ylabel("tuned explicit momentum")
    axes.legend()
