"""Figures that judge: some seeds of a sweep choose hyperparameters, the others decide, by updates to a target."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import xarray

from asyncflax import _style
from asyncflax.lab.figures._words import Findings, trained_on, updates_to, workers_of
from asyncflax.lab.statistics import JUDGING_SEEDS, Interval, Verdict, check_seeds, decide_updates, log_updates, student
from asyncflax.train.columns import long_name

_OPTIONS = """A run that misses the target counts with all its updates.

Args:
  target: the target value of the metric.
  metric: the metric, see `sweep.updates_to_target`.
  choosing: the number of leading seeds that choose hyperparameters; the others judge.
  exception: the reason why fewer than `statistics.JUDGING_SEEDS` seeds judge; without it, they make no claim.
"""


def judging(draw: Callable[..., Findings]) -> Callable[..., Findings]:
    """Turns `draw(figure, race, **options)` into a figure that takes the options of `Race` and of `draw`."""

    def figure_of(
        figure: Any,
        results: xarray.Dataset,
        *,
        target: float,
        metric: str = "train_loss",
        choosing: int = 8,
        exception: str = "",
        **options: Any,
    ) -> Findings:
        return draw(figure, Race(results, target, metric, choosing, exception), **options)

    *shared, _ = inspect.signature(figure_of).parameters.values()
    _, _, *own = inspect.signature(draw).parameters.values()
    functools.update_wrapper(figure_of, draw, assigned=("__module__", "__name__", "__qualname__"))
    figure_of.__signature__ = inspect.Signature([*shared, *own])  # pyright: ignore[reportFunctionMemberAccess]
    figure_of.__doc__ = f"{inspect.getdoc(draw)}\n\n{_OPTIONS}"
    return figure_of


def judging_seeds(seeds: Sequence[int], choosing: int) -> list[int]:
    """All but the first `choosing` seeds; raises ValueError if none chooses or fewer than two judge."""
    if choosing < 1 or len(seeds) < choosing + 2:
        raise ValueError(
            f"choosing must be at least 1 and leave at least 2 judging seeds, got {choosing} of {len(seeds)} seeds; "
            "set config.axes or the option choosing."
        )
    check_seeds(seeds[:choosing], seeds[choosing:])
    return [int(seed) for seed in seeds[choosing:]]


class Race:
    """Compares cells of a sweep by their updates to a target.

    Attributes:
      results: the results of `run_sweep`.
      tried: the mean of `log_updates` over the choosing seeds [...].
      logs: the `log_updates` of the judging seeds [..., seed].
      decides: whether enough seeds judge for a verdict, or `exception` gives the reason for fewer.
      goal: the metric and its target, as in 'train loss 0.1'.
      workers: the numbers of workers.
      slug, trained: see `trained_on`.
    """

    def __init__(self, results: xarray.Dataset, target: float, metric: str, choosing: int, exception: str):
        updates = updates_to(results, target, metric)
        axis = "trained" if "trained" in results[metric].dims else "update"
        self.results, self._target, self._metric = results, target, metric
        self._horizon = float(results[axis][-1])
        self._updates = updates.isel(seed=slice(choosing, None))
        self.tried = log_updates(updates.isel(seed=slice(choosing)), self._horizon).mean("seed")
        self.logs = log_updates(self._updates, self._horizon)
        self._judges = self.logs.sizes["seed"]
        self.decides = bool(exception) or self._judges >= JUDGING_SEEDS
        self.exception = exception if self.decides else "few seeds"
        self.goal = f"{long_name(metric)} {target:g}"
        self.workers = workers_of(results)
        self.slug, self.trained = trained_on(results)

    def choose(self, **labels: Any) -> dict[str, Any]:
        """The best cell on the choosing seeds, among those with the given labels."""
        tried = self.tried.sel(labels)
        best = tried.isel(tried.argmin(tried.dims))
        return {str(name): best[name].item() for name in self.tried.dims}

    def updates(self, cell: Mapping[str, Any]) -> float:
        """The geometric mean of a cell's updates over the judging seeds."""
        return math.exp(self.logs.sel(cell).mean())

    def ratio(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Interval:
        """The ratio of geometric mean updates, second cell over first, with the paired t interval."""
        return student((self.logs.sel(second) - self.logs.sel(first)).values).exp()

    def decide(self, first: Mapping[str, Any], second: Mapping[str, Any], *, claim: str = "sooner") -> Verdict:
        """The verdict on whether the first cell is sooner than the second, or as soon."""
        arms = (self._updates.sel(cell).values for cell in (first, second))
        return decide_updates(*arms, horizon=self._horizon, exception=self.exception, claim=claim)

    def draw(self, axes: Any, cells: Mapping[str, Mapping[str, Any]]) -> None:
        """Draws the metric of labelled cells against updates: means over the judging seeds until one diverges."""
        judged = self.results[self._metric].sel(seed=self.logs.seed)
        for k, (label, cell) in enumerate(cells.items()):
            mean = judged.sel(cell).mean("seed", skipna=False)
            axes.plot(mean[mean.dims[0]], mean, **_style.look(k) | {"marker": ""}, label=label)
        axes.axhline(self._target, color=_style.GREY, linewidth=1, label=f"target {self._target:g}")
        if self._metric.endswith("loss"):
            axes.set_yscale("log")
        _style.integer_ticks(axes.xaxis)
        axes.set_xlabel("updates")
        axes.set_ylabel(f"{long_name(self._metric)}, best of each, mean over seeds")
        axes.legend()

    def findings(self, rows: Sequence[str], *claims: dict[str, Any], conclusion: str = "") -> Findings:
        """The table and the claims; if too few seeds judge, the reason replaces conclusion and claims."""
        if not self.decides:
            claims = ()
            conclusion = (
                f"no verdict: only {self._judges} seeds judge; use {JUDGING_SEEDS}, or set exception to the reason"
            )
        lines = [*rows, conclusion] if conclusion else rows
        return Findings("\n".join(lines), tuple(claim | {"seeds": self._judges} for claim in claims))


def times(verdict: Verdict) -> str:
    """The ratio of updates, second arm over first, as '1.47 (1.41 to 1.53)'; a share if ranks decide."""
    text = verdict.of_updates.text()
    return f"sooner by {text} of the couples" if verdict.test == "Gehan" else text


def by_workers(verdicts: Mapping[int, Verdict]) -> str:
    """Formats as '1.10 (1.05 to 1.15) at 2 workers, seen; ...'"""
    return "; ".join(f"{times(verdict)} at {_style.workers(m)}, {verdict.words}" for m, verdict in verdicts.items())


def detectable(verdicts: Iterable[Verdict]) -> str:
    """The smallest ratio that undecided comparisons would have shown, as a clause; '' if all are decided."""
    open_ones = [each.detectable for each in verdicts if each.verdict == "not decided" and each.test == "paired t"]
    return f"; in 4 of 5 such experiments a ratio of {math.exp(max(open_ones)):.2f} would be seen" if open_ones else ""
