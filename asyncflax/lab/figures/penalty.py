"""The statistical penalty of asynchrony: Figure 5 of Mitliagkas et al. 2016 (arXiv:1605.09774, Allerton version)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._draw import Findings
from asyncflax.lab.figures._judging import Race, by_workers, detectable
from asyncflax.lab.figures._runs import draw_loss
from asyncflax.lab.figures._words import train_config, trained_on, words, workers_of
from asyncflax.lab.statistics import decide_all

AXES = ("num_workers", "momentum", "learning_rate", "seed")
PUBLISHED = {1: 1.0, 2: 0.918, 4: 0.995, 8: 0.932}  # on ImageNet, from a warm start


def penalty(
    figure: Any,
    results: xarray.Dataset,
    *,
    target: float,
    metric: str = "train_loss",
    choosing: int = 8,
    exception: str = "",
) -> Findings:
    """Draws the updates to a target relative to those of the fewest workers, and the trainings.

    The first seeds choose momentum and learning rate for each number of workers, the others judge whether the updates
    are equal, at each number of workers (two one-sided tests, see `statistics.decide_all`). A training that misses the
    target counts with all its updates.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      results: of `run_sweep`, over num_workers, learning_rate, momentum and seed.
      target: of the metric.
      metric: see `sweep.updates_to_target`.
      choosing: how many of the first seeds choose.
      exception: why fewer seeds judge than `statistics.JUDGING_SEEDS`.

    Source: Mitliagkas et al. 2016, Allerton version, Figure 5: 1.00, 0.918, 0.995, 0.932 at 1, 2, 4, 8 workers on
    ImageNet, after 4,000 updates.

    Example: see `configs/figure5.py`.
    """
    race = Race.of(results, target, metric, choosing, exception)
    workers, train = workers_of(results), train_config(results)
    best = race.best(("learning_rate", "momentum"))
    cells = {
        m: {"num_workers": m} | {name: float(best[name].sel(num_workers=m)) for name in ("momentum", "learning_rate")}
        for m in workers
    }
    fewest, *more = workers
    verdicts = {m: race.decide(cells[fewest], cells[m], claim="equal") for m in more}
    needed = {m: float(np.exp(race.of_judges(race.logs).sel(cell).mean())) for m, cell in cells.items()}

    left, right = figure.subplots(1, 2)
    _style.intervals(left, workers, [race.ratio(cells[fewest], cell) for cell in cells.values()], label="measured")
    left.plot(list(PUBLISHED), list(PUBLISHED.values()), **_style.look(1), label="paper, ImageNet, warm start")
    left.axhline(1.0, color="0.8", linewidth=1, zorder=0)
    _style.log_ticks(left, workers)
    left.set_xlabel("workers")
    left.set_ylabel(f"updates to {words(metric)} {target:g} over those of {_style.workers(fewest)}")
    left.legend()
    for k, (m, cell) in enumerate(cells.items()):
        label = f"{_style.workers(m)}: momentum {cell['momentum']:g}, learning rate {cell['learning_rate']:g}"
        runs = race.of_judges(results[metric].sel(cell))
        draw_loss(right, runs, metric, target if m == workers[-1] else None, _style.look(k) | {"label": label})

    start = "warm" if train["start_from"] else "cold"
    rows = [f"{'workers':>7} {'momentum':>9} {'rate':>6} {'updates':>8}  penalty"]
    for m, cell in cells.items():
        found = by_workers({m: verdicts[m]}) if m in verdicts else "1"
        rows.append(f"{m:7d} {cell['momentum']:9g} {cell['learning_rate']:6g} {needed[m]:8.0f}  {found}")
    if not race.decides:
        return Findings("\n".join([*rows, race.no_verdict]))
    decided = decide_all(list(verdicts.values()), claim="equal")
    name, trained = trained_on(results)
    most = verdicts[workers[-1]]
    claim = {
        "name": f"penalty-{start}-{name}-batch-{train['batch_size']}",
        "statement": f"From a {start} start, momentum and learning rate tuned, {_style.workers(*more)} need as many "
        f"updates as {_style.workers(fewest)} ({trained}, {words(metric)} {target:g}).",
        "source": "Mitliagkas et al. 2016, Figure 5 (Allerton version)",
        "paper": f"penalties of {', '.join(f'{x:g}' for x in PUBLISHED.values())} at {_style.workers(*PUBLISHED)} on "
        "ImageNet, from a warm start",
        "ours": by_workers(verdicts) + detectable(verdicts.values()),
        **most.of_updates.of_claim,
        "seeds": race.judges,
        "verdict": decided.verdict,
    }
    return Findings("\n".join([*rows, f"no penalty at all: {decided.verdict}"]), [claim])
