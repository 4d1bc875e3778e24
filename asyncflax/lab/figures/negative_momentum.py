"""Negative explicit momentum: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4, longer version Figure 8."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflax import _style
from asyncflax.lab.figures._judging import Race, judging, times
from asyncflax.lab.figures._words import Findings
from asyncflax.lab.statistics import RATIO_BOUND, Interval, Verdict, decide_difference

AXES = {"momentum": 1, "learning_rate": 1, "seed": 2}


@judging
def negative_momentum(figure: Any, race: Race) -> Findings:
    """Draws the updates to a target with non-negative momentum, relative to those with any momentum.

    The best momentum with its learning rate, and the best non-negative one with its own, are chosen from the whole grid
    and from each subgrid with one learning rate per decade; the two may coincide. The verdicts are on the ratio of
    their updates with the whole grid, and on the mean logarithm of this ratio over the subgrids, which is what to
    expect from such a grid. Learning rates must be evenly spaced in their logarithm.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4: 15 % at -0.09, called preliminary there; Figure 8 of
    the Allerton version: nothing up to 8 workers, twice as fast with 16 and -0.675.
    """
    momenta, rates = np.sort(race.results.momentum.values), np.sort(race.results.learning_rate.values)
    a_decade = _a_decade(rates)
    signs = {"any momentum": momenta, "not negative": momenta[momenta >= 0]}
    if not 0 < len(signs["not negative"]) < len(momenta):
        raise ValueError(f"momenta must include negative and non-negative values, got {_style.listed(momenta)}")

    arms = lambda rates: [race.choose(momentum=some, learning_rate=rates) for some in signs.values()]
    phases = [slice(phase, None, a_decade) for phase in range(a_decade)]
    fine, grids = arms(rates), [arms(rates[phase]) for phase in phases]
    of_fine, of_grids = race.decide(*fine), [race.decide(*cells) for cells in grids]
    gains = np.stack([(race.logs.sel(other) - race.logs.sel(cell)).values for cell, other in grids])
    of_mean = decide_difference(gains.mean(0), bound=np.log(RATIO_BOUND), exception=race.exception)

    left, middle, right = figure.subplots(1, 3)
    lines = {"mean of these": of_mean.interval.exp(), "all rates": race.ratio(*fine)}
    _draw_gains(left, rates[:a_decade], [race.ratio(*cells) for cells in grids], lines)
    curves = np.exp(race.logs.mean("seed").sel(momentum=momenta, learning_rate=rates))
    middle.plot(momenta, curves.min("learning_rate"), **_style.look(0), label="all rates")
    coarse = {"marker": ".", "color": _style.GREY, "linewidth": 1, "zorder": 1}
    for k, phase in enumerate(phases):
        best = curves.isel(learning_rate=phase).min("learning_rate")
        middle.plot(momenta, best, **coarse, label=None if k else "one a decade")
    _style.plain_log(middle, "y")
    middle.set_xlabel("explicit momentum")
    middle.set_ylabel(f"updates to {race.goal}, best learning rate")
    middle.legend()
    named = lambda sign, at: f"{sign}: {at['momentum']:g}, learning rate {at['learning_rate']:g}"
    race.draw(right, {named(sign, cell): cell for sign, cell in zip(signs, fine, strict=True)})

    rows = [f"{'learning rates':>24} {'best':>9} {'not negative':>13}  times as many updates with the latter"]
    for rate, cells, verdict in zip(rates, grids, of_grids, strict=False):
        rows.append(_row(f"{rate:.3g} and its decades", cells, verdict))
    rows += [_row("all", fine, of_fine), f"mean over one a decade: {times(of_mean)}, {of_mean.verdict}"]
    workers = race.workers[0]
    least, largest = (times(extreme(of_grids, key=lambda each: each.interval.value)) for extreme in (min, max))
    common = {
        "source": "Mitliagkas et al. 2016, section 4 and Figure 8",
        "paper": "8 workers: 15 % fewer updates with -0.09, called preliminary; Allerton version, Figure 8: no gain up "
        "to 8 workers, 2 times at 16 with -0.675, learning rates in decades",
    }
    statement = f"With {_style.workers(workers)} it takes fewer updates if momentum may be negative ({race.trained}, "
    coarse_claim = {
        "name": f"negative-momentum-{race.slug}-{workers}-decades",
        "statement": f"{statement}{race.goal}, learning rates in decades, mean over {a_decade} such grids).",
        "ours": f"{times(of_mean)} times as many if not, {of_mean.words}; {least} to {largest} by where the grid "
        "begins",
        **of_mean.interval.exp().of_claim,
        "verdict": of_mean.verdict,
    }
    fine_claim = {
        "name": f"negative-momentum-{race.slug}-{workers}-fine",
        "statement": f"{statement}{race.goal}, {a_decade} learning rates a decade).",
        "ours": f"{times(of_fine)} times as many if not, {of_fine.words}; momentum {fine[0]['momentum']:g} against "
        f"{fine[1]['momentum']:g}",
        **of_fine.of_updates.of_claim,
        "verdict": of_fine.verdict,
    }
    return race.findings(rows, coarse_claim | common, fine_claim | common)


def _a_decade(rates: np.ndarray) -> int:
    """The number of learning rates per decade; ValueError unless evenly spaced in their logarithm."""
    steps = np.diff(np.log10(rates))
    count = round(1 / steps.mean()) if len(steps) else 0
    if count < 2 or len(rates) < count + 1 or not np.allclose(steps, 1 / count, atol=0.02):
        raise ValueError(
            "learning rates must be evenly spaced in their logarithm, two or more per decade, over more than one, got "
            f"{_style.listed(rates)}"
        )
    return count


def _row(at: str, cells: list[dict[str, float]], verdict: Verdict) -> str:
    best, other = (cell["momentum"] for cell in cells)
    return f"{at:>24} {best:9g} {other:13g}  {times(verdict)}, {verdict.verdict}"


def _draw_gains(axes: Any, phases: np.ndarray, of_grids: list[Interval], lines: dict[str, Interval]) -> None:
    """Draws the ratios of the subgrids by their smallest rate, and `lines` as bands."""
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
