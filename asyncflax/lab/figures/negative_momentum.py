"""Negative explicit momentum: section 4 of Mitliagkas et al. 2016 (arXiv:1605.09774)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._words import refuse_no_updates, train_config, words
from asyncflax.lab.statistics import student
from asyncflax.lab.sweep import best_cells, paired_change, updates_to_target

AXES = ("momentum", "learning_rate", "seed")


def negative_momentum(
    figure: Any, results: xarray.Dataset, *, target: float, metric: str = "test_accuracy", compared: float = -0.09
) -> Findings:
    """Draws the improvement over momentum 0 in updates to a target, and the runs.

    The improvement is 1 - updates(mu) / updates(0), with the learning rate that is best for each momentum, paired over
    seeds, with Student's interval. Where a seed does not reach the target there is none; the metric after the last
    update is compared then, and it is said how many seeds did not reach it. What is known of no momentum has no panel.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over learning_rate, momentum and seed.
      target: of the metric.
      metric: a rising one, see `sweep.updates_to_target`.
      compared: the momentum whose improvement is the claim.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4: 15 % at -0.09, called preliminary there; Figure 8 of
    the Allerton version: nothing up to 8 workers, twice as fast with 16 and -0.675.

    Example: see `configs/negative_momentum.py`.
    """
    results = results.sortby("momentum")
    updates = updates_to_target(results, target, metric)
    refuse_no_updates(updates, target)
    last = results[metric].isel(update=-1, drop=True)
    # Where no learning rate reaches the target with all seeds, the best one is that with the best end.
    fastest = best_cells(updates, over=("learning_rate",)).learning_rate
    highest = best_cells(last, largest=True, over=("learning_rate",)).learning_rate
    rate = fastest.fillna(highest)
    momenta = results.momentum.values[np.isfinite(rate.values)]  # not those with which all diverged
    if 0.0 not in momenta:
        raise ValueError("with momentum 0 some seed diverges at each learning rate; add lower ones to compare with")
    at = {mu: {"momentum": mu, "learning_rate": float(rate.sel(momentum=mu))} for mu in momenta}
    needed = {mu: updates.sel(at[mu], drop=True) for mu in momenta}
    ends = {mu: last.sel(at[mu], drop=True) for mu in momenta}
    faster = {mu: paired_change(needed[mu], needed[0.0]) for mu in momenta}
    better = {mu: student((ends[mu] - ends[0.0]).values) for mu in momenta}

    changes = {
        f"fewer updates to {words(metric)} {target:g} than with 0 (%)": faster,
        f"{words(metric)} at the end less that with 0 (points)": better,
    }
    known = lambda change: any(np.isfinite(interval.value) for mu, interval in change.items() if mu != 0.0)
    changes = {label: change for label, change in changes.items() if known(change)}
    *panels, right = figure.subplots(1, len(changes) + 1, squeeze=False)[0]
    for axes, (label, change) in zip(panels, changes.items(), strict=True):
        _draw_changes(axes, change)
        axes.set_ylabel(label)
    for k, mu in enumerate(momenta):
        curve = results[metric].sel(at[mu]).mean("seed")
        label = f"{mu:g} (learning rate {at[mu]['learning_rate']:g})"
        right.plot(curve[curve.dims[0]], curve, **_style.look(k, curve.size), label=label)
    note = "" if known(faster) else ", not reached by all"
    right.axhline(target, color=_style.GREY, linewidth=1, label=f"target {target:g}{note}")
    _style.integer_ticks(right.xaxis)
    right.set_xlabel("updates")
    right.set_ylabel(f"{words(metric)}, mean over seeds")
    right.legend(title="explicit momentum")

    rows = [
        f"{'momentum':>8} {'rate':>6} {'updates':>8} {'fewer than with 0':>26} {'not reached':>12} {'at the end':>26}"
    ]
    for mu in momenta:
        lost = int(needed[mu].isnull().sum())
        count = f"{float(needed[mu].mean(skipna=False)):.0f}" if lost == 0 else "none"
        change = _percent(faster[mu]) if np.isfinite(faster[mu].value) else "unknown"
        rows.append(
            f"{mu:8g} {at[mu]['learning_rate']:6g} {count:>8} {change:>26} {f'{lost} of {len(needed[mu])}':>12} "
            f"{student(ends[mu].values).text(3):>26}"
        )
    rows.append(f"target {words(metric)} {target:g}; {int((results.diverged_at >= 0).sum())} cells diverged")
    return Findings("\n".join(rows), [_claim(results, target, metric, compared, needed, faster, better)])


def _draw_changes(axes: Any, changes: dict[float, Any]) -> None:
    """Changes against momentum 0 in hundredths, with their intervals."""
    shown = [mu for mu, change in changes.items() if np.isfinite(change.value)]
    value, low, high = (np.array([getattr(changes[mu], name) for mu in shown]) for name in ("value", "low", "high"))
    axes.errorbar(shown, 100 * value, yerr=100 * np.array([value - low, high - value]), **_style.look(0), capsize=4)
    axes.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    axes.set_xlim(min(changes) - 0.02, max(changes) + 0.02)
    axes.set_xlabel("explicit momentum")


def _claim(results, target, metric, compared, needed, faster, better) -> dict[str, Any]:
    train, rates = train_config(results), results.learning_rate.values
    mu = min(needed, key=lambda m: abs(m - compared))
    reached = np.isfinite(faster[mu].value)
    lost = {m: int(needed[m].isnull().sum()) for m in (mu, 0.0)}
    if reached:
        change, ours = faster[mu], f"{_percent(faster[mu])} fewer updates"
        best = max((m for m in faster if np.isfinite(faster[m].value)), key=lambda m: faster[m].value)
        ours += f"; best of the grid: {best:g}, {_percent(faster[best])}"
    else:
        change = better[mu]
        ours = (
            f"target not reached in {train['num_updates']:,} updates by {lost[mu]} and {lost[0.0]} of "
            f"{len(results.seed)} seeds; {words(metric)} at the end differs by {_percent(change)} (points)"
        )
    return {
        "name": f"negative-momentum-{train['dataset']}",
        "statement": f"With {train['num_workers']} workers, explicit momentum {mu:g} against 0 ({train['dataset']}, "
        f"{words(metric)} {target:g}, {len(rates)} learning rate{'s' if len(rates) > 1 else ''}).",
        "source": "Mitliagkas et al. 2016, section 4",
        "paper": "15 % better with -0.09, the best of -0.2, -0.09, -0.06, -0.03, 0; Allerton version, Figure 8: no "
        "gain up to 8 workers, 2 times at 16 with -0.675",
        "ours": ours,
        "value": change.value,
        "interval": (change.low, change.high),
        "seeds": len(results.seed),
    }


def _percent(interval: Any) -> str:
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
