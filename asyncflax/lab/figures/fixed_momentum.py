"""Tuned momentum against a fixed one: Figure 4 of Mitliagkas et al. 2016 (arXiv:1605.09774, Allerton version)."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflax import _style
from asyncflax.lab.figures._judging import Race, by_workers, detectable, judging
from asyncflax.lab.figures._words import Findings
from asyncflax.lab.statistics import decide_all

AXES = {"num_workers": 1, "momentum": 1, "learning_rate": 1, "seed": 2}
WORKERS = (1, 2, 4, 8, 16)
PUBLISHED = {"tuned": (1, 1, 2, 2, 6), "fixed": (2, 2, 2, 3, 16)}  # penalties on CIFAR-10


@judging
def fixed_momentum(figure: Any, race: Race, *, fixed: float = 0.9) -> Findings:
    """Draws updates to a target against workers, with a fixed momentum and with a tuned one, not negative.

    `fixed` must be on the grid. The tuned momentum, and the learning rate of both, are chosen for each number of
    workers. The verdict is whether tuned momentum is sooner at every number of workers above 1 (Holm's adjustment).

    Source: Mitliagkas et al. 2016, Allerton version, Figure 4: on CIFAR-10 with 1, 2, 4, 8, 16 workers 2, 2, 2, 3, 16
    times the updates with momentum 0.9, and 1, 1, 2, 2, 6 with tuned momentum that is not negative.
    """
    workers, momenta = race.workers, race.results.momentum.values
    if fixed not in momenta:
        raise ValueError(f"fixed must be on the grid of momenta {_style.listed(momenta)}, got {fixed:g}")
    tuned = {m: race.choose(num_workers=m, momentum=momenta[momenta >= 0]) for m in workers}
    usual = {m: race.choose(num_workers=m, momentum=fixed) for m in workers}
    verdicts = {m: race.decide(tuned[m], usual[m]) for m in workers}
    updates = {"tuned": [race.updates(tuned[m]) for m in workers], "fixed": [race.updates(usual[m]) for m in workers]}

    left, right = figure.subplots(1, 2)
    for k, (arm, label) in enumerate({"tuned": "tuned", "fixed": f"fixed {fixed:g}"}.items()):
        look = _style.look(k)
        left.plot(workers, np.divide(updates[arm], updates["tuned"][0]), **look, label=label)
        look |= {"linestyle": ":", "markerfacecolor": "none"}
        left.plot(WORKERS, PUBLISHED[arm], **look, label=f"{label}, paper, CIFAR-10")
    left.set_ylabel(f"updates to {race.goal}, relative to\ntuned momentum at {_style.workers(workers[0])}")
    _style.plain_log(left, "y")
    _style.intervals(right, workers, [race.ratio(tuned[m], usual[m]) for m in workers], label="measured")
    ratios = np.divide(PUBLISHED["fixed"], PUBLISHED["tuned"])
    right.plot(WORKERS, ratios, **_style.look(1), label="paper, CIFAR-10")
    right.axhline(1.0, color="0.8", linewidth=1, zorder=0)
    right.set_ylabel(f"updates with {fixed:g} over updates tuned")
    for axes in (left, right):
        _style.log_ticks(axes, workers)
        axes.set_xlabel("workers")
        axes.legend()

    rows = [f"{'workers':>7} {'tuned':>6} {'updates':>8} {f'with {fixed:g}':>9}  fixed over tuned"]
    for m, with_tuned, with_fixed in zip(workers, *updates.values(), strict=True):
        found = by_workers({m: verdicts[m]})
        rows.append(f"{m:7d} {tuned[m]['momentum']:6g} {with_tuned:8.0f} {with_fixed:9.0f}  {found}")
    several = {m: verdict for m, verdict in verdicts.items() if m > 1}
    if not several:
        return race.findings(rows, conclusion="one number of workers: no verdict")
    decided = decide_all(list(several.values()))
    claim = {
        "name": f"fixed-momentum-{race.slug}",
        "statement": f"With {_style.workers(*several)} tuned momentum (not negative) needs fewer updates than a fixed "
        f"{fixed:g} ({race.trained}, {race.goal}).",
        "source": "Mitliagkas et al. 2016, Figure 4 (Allerton version)",
        "paper": "penalties of 1, 1, 2, 2, 6 tuned and 2, 2, 2, 3, 16 with 0.9 at 1, 2, 4, 8, 16 workers on CIFAR-10, "
        "so 0.9 needs 2, 2, 1, 1.5, 2.7 times the updates",
        "ours": f"times as many with {fixed:g}: {by_workers(verdicts)}; tuned momenta "
        f"{_style.listed(cell['momentum'] for cell in tuned.values())}{detectable(several.values())}",
        **several[max(several)].of_updates.of_claim,
        "verdict": decided.verdict,
    }
    return race.findings(rows, claim, conclusion=f"tuned is sooner at all: {decided.verdict}")
