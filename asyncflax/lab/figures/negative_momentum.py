"""Negative explicit momentum: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4, longer version Figure 8."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._judging import Race, times
from asyncflax.lab.figures._runs import draw_loss
from asyncflax.lab.figures._words import trained_on, words, workers_of
from asyncflax.lab.statistics import RATIO_BOUND, Interval, Verdict, decide_difference

AXES = ("momentum", "learning_rate", "seed")


def negative_momentum(
    figure: Any,
    results: xarray.Dataset,
    *,
    target: float,
    metric: str = "train_loss",
    choosing: int = 8,
    exception: str = "",
) -> Findings:
    """Draws how many times as many updates to a target it takes if momentum must not be negative.

    The learning rates are even in their logarithm, so many a decade. With all of them, and with one a decade, as many
    grids as there are rates in a decade, the first seeds choose the best momentum with its learning rate, and the best
    one that is not negative with its own; they may be the same. The others judge the ratio of their updates, and the
    mean of its logarithm over the grids of one rate a decade, which is what somebody with such a grid has to expect. A
    training that misses the target counts with all its updates.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over learning_rate, momentum and seed.
      target: of the metric.
      metric: see `sweep.updates_to_target`.
      choosing: how many of the first seeds choose.
      exception: why fewer seeds judge than `statistics.JUDGING_SEEDS`.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4: 15 % at -0.09, called preliminary there; Figure 8 of
    the Allerton version: nothing up to 8 workers, twice as fast with 16 and -0.675.

    Example: see `configs/negative_momentum.py`.
    """
    results = results.sortby(["momentum", "learning_rate"])
    race = Race.of(results, target, metric, choosing, exception)
    momenta, rates = results.momentum.values, results.learning_rate.values
    a_decade = _a_decade(rates)
    signs = {"any momentum": momenta, "not negative": momenta[momenta >= 0]}
    if not 0 < len(signs["not negative"]) < len(momenta):
        raise ValueError(f"momenta must be negative and not, got {_style.listed(momenta)}")

    def arms(rates: np.ndarray) -> list[dict[str, float]]:
        best = (race.best(("momentum", "learning_rate"), momentum=some, learning_rate=rates) for some in signs.values())
        return [{name: float(cell[name]) for name in ("momentum", "learning_rate")} for cell in best]

    fine, grids = arms(rates), [arms(rates[phase::a_decade]) for phase in range(a_decade)]
    of_fine, of_grids = race.decide(*fine), [race.decide(*cells) for cells in grids]
    logs = race.of_judges(race.logs)
    gains = np.stack([(logs.sel(other) - logs.sel(cell)).values for cell, other in grids])
    few = exception or ("" if race.decides else "few seeds")
    of_mean = decide_difference(gains.mean(0), bound=np.log(RATIO_BOUND), exception=few)

    left, middle, right = figure.subplots(1, 3)
    lines = {"mean of these": of_mean.interval.exp(), "all rates": race.ratio(*fine)}
    _draw_gains(left, rates[:a_decade], [race.ratio(*cells) for cells in grids], lines)
    curves = xarray.apply_ufunc(np.exp, logs.mean("seed"))
    middle.plot(momenta, curves.min("learning_rate").transpose("momentum"), **_style.look(0), label="all rates")
    coarse = [curves.isel(learning_rate=slice(phase, None, a_decade)).min("learning_rate") for phase in range(a_decade)]
    for k, line in enumerate(coarse):
        middle.plot(
            momenta,
            line,
            marker=".",
            color=_style.GREY,
            linewidth=1,
            zorder=1,
            label="one a decade" if k == 0 else None,
        )
    _style.plain_log(middle, "y")
    middle.set_xlabel("explicit momentum")
    middle.set_ylabel(f"updates to {words(metric)} {target:g}, best learning rate")
    middle.legend()
    for k, (sign, cell) in enumerate(zip(signs, fine, strict=True)):
        label = f"{sign}: {cell['momentum']:g}, learning rate {cell['learning_rate']:g}"
        runs = race.of_judges(results[metric].sel(cell))
        draw_loss(right, runs, metric, target if k else None, _style.look(k) | {"label": label})

    rows = [f"{'learning rates':>24} {'best':>9} {'not negative':>13}  times as many updates with the latter"]
    for phase, (cells, verdict) in enumerate(zip(grids, of_grids, strict=True)):
        at = f"{rates[phase]:.3g} and its decades"
        rows.append(_row(at, cells, verdict))
    rows += [_row("all", fine, of_fine), f"mean over one a decade: {times(of_mean)}, {of_mean.verdict}"]
    if not race.decides:
        return Findings("\n".join([*rows, race.no_verdict]))
    (workers,), (name, trained) = workers_of(results), trained_on(results)
    least, largest = (extreme(of_grids, key=lambda each: each.interval.value) for extreme in (min, max))
    common = {
        "source": "Mitliagkas et al. 2016, section 4 and Figure 8",
        "paper": "8 workers: 15 % fewer updates with -0.09, called preliminary; Allerton version, Figure 8: no gain up "
        "to 8 workers, 2 times at 16 with -0.675, learning rates in decades",
        "seeds": race.judges,
    }
    question = f"With {_style.workers(workers)} it takes fewer updates if momentum may be negative"
    where = f"({trained}, {words(metric)} {target:g}"
    coarse_claim = {
        "name": f"negative-momentum-{name}-{workers}-decades",
        "statement": f"{question} {where}, learning rates in decades, mean over {a_decade} such grids).",
        "ours": f"{times(of_mean)} times as many if not, {of_mean.words}; {times(least)} to {times(largest)} by where "
        "the grid begins",
        **of_mean.interval.exp().of_claim,
        "verdict": of_mean.verdict,
    }
    fine_claim = {
        "name": f"negative-momentum-{name}-{workers}-fine",
        "statement": f"{question} {where}, {a_decade} learning rates a decade).",
        "ours": f"{times(of_fine)} times as many if not, {of_fine.words}; momentum {fine[0]['momentum']:g} against "
        f"{fine[1]['momentum']:g}",
        **of_fine.of_updates.of_claim,
        "verdict": of_fine.verdict,
    }
    return Findings("\n".join(rows), [coarse_claim | common, fine_claim | common])


def _a_decade(rates: np.ndarray) -> int:
    """How many learning rates a decade has; they must be even in their logarithm, over a decade at least."""
    steps = np.diff(np.log10(rates))
    count = round(1 / steps.mean()) if len(steps) else 0
    if count < 2 or len(rates) < count + 1 or not np.allclose(steps, 1 / count, atol=0.02):
        raise ValueError(
            "learning rates must be two or more a decade, even in their logarithm, over more than a decade, got "
            f"{_style.listed(rates)}"
        )
    return count


def _row(at: str, cells: list[dict[str, float]], verdict: Verdict) -> str:
    best, other = (cell["momentum"] for cell in cells)
    return f"{at:>24} {best:9g} {other:13g}  {times(verdict)}, {verdict.verdict}"


def _draw_gains(axes: Any, phases: np.ndarray, of_grids: list[Interval], lines: dict[str, Interval]) -> None:
    """The ratio by where a grid of one rate a decade lies, and those of the mean and of all rates as bands."""
    _style.intervals(axes, phases, of_grids, label="one rate a decade")
    for k, (label, interval) in enumerate(lines.items(), start=1):
        color = _style.look(k)["color"]
        axes.axhline(interval.value, color=color, linestyle="--", label=label)
        axes.axhspan(*interval[1:], color=color, alpha=0.15, linewidth=0)
    axes.axhline(1.0, color="0.8", linewidth=1, zorder=0)
    _style.plain_log(axes, "x")
    axes.set_xlabel("smallest learning rate of the grid")
    axes.set_ylabel("updates if momentum must not be negative, relative")
    axes.legend()
