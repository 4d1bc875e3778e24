"""The statistical penalty of asynchrony: Figure 5 of Mitliagkas et al. 2016 (arXiv:1605.09774, Allerton version)."""

from __future__ import annotations

from typing import Any

from asyncflax import _style
from asyncflax.lab.figures._judging import Race, by_workers, detectable, judging
from asyncflax.lab.figures._words import Findings, train_config
from asyncflax.lab.statistics import decide_all

AXES = {"num_workers": 2, "momentum": 1, "learning_rate": 1, "seed": 2}
PUBLISHED = {1: 1.0, 2: 0.918, 4: 0.995, 8: 0.932}  # on ImageNet, from a warm start


@judging
def penalty(figure: Any, race: Race) -> Findings:
    """Draws the updates to a target relative to those of the fewest workers, and the training curves.

    Momentum and learning rate are chosen for each number of workers. The verdict is whether all need as many updates as
    the fewest workers (two one-sided tests each, see `statistics.decide_all`).

    Source: Mitliagkas et al. 2016, Allerton version, Figure 5: 1.00, 0.918, 0.995, 0.932 at 1, 2, 4, 8 workers on
    ImageNet, after 4,000 updates.
    """
    cells = {m: race.choose(num_workers=m) for m in race.workers}
    fewest, *more = race.workers
    verdicts = {m: race.decide(cells[fewest], cells[m], claim="equal") for m in more}

    left, right = figure.subplots(1, 2)
    _style.intervals(left, race.workers, [race.ratio(cells[fewest], cell) for cell in cells.values()], label="measured")
    left.plot(list(PUBLISHED), list(PUBLISHED.values()), **_style.look(1), label="paper, ImageNet, warm start")
    left.axhline(1.0, color="0.8", linewidth=1, zorder=0)
    _style.log_ticks(left, race.workers)
    left.set_xlabel("workers")
    left.set_ylabel(f"updates to {race.goal} over those of {_style.workers(fewest)}")
    left.legend()
    named = lambda m, at: f"{_style.workers(m)}: momentum {at['momentum']:g}, learning rate {at['learning_rate']:g}"
    race.draw(right, {named(m, cell): cell for m, cell in cells.items()})

    rows = [f"{'workers':>7} {'momentum':>9} {'rate':>6} {'updates':>8}  penalty"]
    for m, cell in cells.items():
        found = by_workers({m: verdicts[m]}) if m in verdicts else "1"
        rows.append(f"{m:7d} {cell['momentum']:9g} {cell['learning_rate']:6g} {race.updates(cell):8.0f}  {found}")
    decided = decide_all(list(verdicts.values()), claim="equal")
    train = train_config(race.results)
    start = "warm" if train["start_from"] else "cold"
    claim = {
        "name": f"penalty-{start}-{race.slug}-batch-{train['batch_size']}",
        "statement": f"From a {start} start, momentum and learning rate tuned, {_style.workers(*more)} need as many "
        f"updates as {_style.workers(fewest)} ({race.trained}, {race.goal}).",
        "source": "Mitliagkas et al. 2016, Figure 5 (Allerton version)",
        "paper": f"penalties of {', '.join(f'{x:g}' for x in PUBLISHED.values())} at {_style.workers(*PUBLISHED)} on "
        "ImageNet, from a warm start",
        "ours": by_workers(verdicts) + detectable(verdicts.values()),
        **verdicts[more[-1]].of_updates.of_claim,
        "verdict": decided.verdict,
    }
    return race.findings(rows, claim, conclusion=f"no penalty at all: {decided.verdict}")
