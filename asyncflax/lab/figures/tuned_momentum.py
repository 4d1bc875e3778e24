"""Tuned momentum against the number of workers: Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._judging import Race, judging
from asyncflax.lab.figures._words import Findings
from asyncflax.lab.statistics import Optimum, decide_trend, optimum, optimum_shift
from asyncflax.theory import implicit_momentum

AXES = {"num_workers": 1, "momentum": 3, "learning_rate": 1, "seed": 2}
PUBLISHED = {1: 0.7, 2: 0.6, 4: 0.2, 8: 0.1}  # on CIFAR-10, in the Allerton version


@judging
def tuned_momentum(figure: Any, race: Race) -> Findings:
    """Draws updates to a target against momentum, tuned momentum against workers, and the tuned training curves.

    The learning rate is chosen for each momentum. The tuned momentum is the optimum of log updates averaged over the
    judging seeds. The verdict is whether it falls as workers are added, by Page's test on the best momentum of each
    judging seed.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Figures 2 and 3; the values are in the Allerton version.
    """
    workers, momenta = race.workers, np.sort(race.results.momentum.values)
    rate = race.tried.sel(momentum=momenta).idxmin("learning_rate")  # [num_workers, momentum]
    curves = race.logs.sel(learning_rate=rate).transpose("num_workers", "seed", "momentum")
    pooled, alone = curves.mean("seed"), curves.idxmin("momentum")  # [num_workers, momentum], [num_workers, seed]
    tuned = {m: optimum(curves.sel(num_workers=m).values, momenta) for m in workers}
    best = {m: {"num_workers": m, "momentum": pooled.sel(num_workers=m).idxmin("momentum").item()} for m in workers}
    cells = {m: cell | {"learning_rate": rate.sel(cell).item()} for m, cell in best.items()}

    left, middle, right = figure.subplots(1, 3)
    for k, m in enumerate(workers):
        line, look = np.exp(pooled.sel(num_workers=m)), _style.look(k)
        left.plot(momenta, line, **look, label=_style.workers(m))
        left.plot(best[m]["momentum"], line.min(), **look | {"markersize": 10})
    left.set_xlabel("explicit momentum (large: best)")
    left.set_ylabel(f"updates to {race.goal}, learning rate tuned")
    left.legend()
    _style.plain_log(left, "y")
    _draw_tuned(middle, tuned, alone)
    race.draw(right, {f"_{m}": cell for m, cell in cells.items()})

    rows = [f"{'workers':>7} {'tuned momentum':>24} {'best of the grid':>16} {'learning rate':>14} {'updates':>8}"]
    for m, cell in cells.items():
        rows.append(
            f"{m:7d} {tuned[m].interval.text():>24} {cell['momentum']:16g} {cell['learning_rate']:14g} "
            f"{race.updates(cell):8.0f}"
        )
    diverged = int((race.results.diverged_at >= 0).sum())
    rows.append(f"{race.results.diverged_at.size} cells, {diverged} of them diverged")
    if len(workers) < 3:
        return race.findings(rows, conclusion="a trend needs three numbers of workers: no verdict")
    trend = decide_trend(alone.transpose("seed", "num_workers").values, direction="falls", exception=race.exception)
    most, fewest = (curves.sel(num_workers=m).values for m in (workers[-1], workers[0]))
    shift = optimum_shift(most, fewest, momenta)
    claim = {
        "name": f"tuned-momentum-{race.slug}",
        "statement": f"The tuned explicit momentum falls as workers are added ({race.trained}, updates to "
        f"{race.goal}, {len(momenta)} momenta from {momenta.min():g} to {momenta.max():g}).",
        "source": "Mitliagkas et al. 2016, Figure 3",
        "paper": f"{', '.join(f'{mu:g}' for mu in PUBLISHED.values())} at {_style.workers(*PUBLISHED)} on CIFAR-10; "
        "0.6, 0.6, 0.6, 0.6, 0.3, 0 at 1 to 32 on ImageNet (Allerton version)",
        "ours": f"{', '.join(f'{tuned[m].interval.value:.2f}' for m in workers)} at {_style.workers(*workers)}, optima "
        f"of the pooled curves; falls by {shift.interval.text()} from {workers[0]} to {workers[-1]}; Page's test "
        f"p = {trend.p:.1g}",
        **shift.interval.of_claim,
        "verdict": trend.verdict,
    }
    conclusion = f"falls: {trend.verdict}, Page's test, p = {trend.p:.2g}; Spearman's {trend.interval.text()}"
    return race.findings(rows, claim, conclusion=conclusion)


def _draw_tuned(axes: Any, tuned: dict[int, Optimum], alone: xarray.DataArray) -> None:
    """Draws tuned momentum against workers, the rule of Figure 2 from the fewest on, and the published values."""
    workers, intervals = list(tuned), [found.interval for found in tuned.values()]
    for i in range(alone.sizes["seed"]):
        label = "of each seed alone" if i == 0 else None
        axes.plot(workers, alone.isel(seed=i), "x", color=_style.GREY, label=label, zorder=1)
    _style.intervals(axes, workers, intervals, label="tuned")
    total = intervals[0].value + implicit_momentum(workers[0])
    finer = range(min(workers), max(workers) + 1)
    rule = [total - implicit_momentum(m) for m in finer]
    axes.plot(finer, rule, color="black", linestyle="--", label=r"$\mu^* - (1 - 1/M)$")
    axes.plot(list(PUBLISHED), list(PUBLISHED.values()), **_style.look(1), label="paper, CIFAR-10")
    axes.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    _style.log_ticks(axes, workers)
    axes.set_xlabel("workers M")
    axes.set_ylabel("tuned explicit momentum")
    axes.legend()
