"""Which seeds of a sweep choose hyper-parameters and which judge them, and what is compared: updates to a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import xarray

from asyncflax import _style
from asyncflax.lab.figures._words import refuse_no_updates
from asyncflax.lab.statistics import JUDGING_SEEDS, Interval, Verdict, check_seeds, decide_updates, log_updates, student
from asyncflax.lab.sweep import best_cells, updates_to_target

_FEW = "few seeds"


def judging_seeds(seeds: Sequence[int], choosing: int) -> list[int]:
    """All but the first `choosing` seeds, which choose learning rates and momenta.

    Raises:
      ValueError: no seed chooses, or fewer than two judge.
    """
    if choosing < 1 or len(seeds) < choosing + 2:
        raise ValueError(
            f"choosing={choosing} of {len(seeds)} seeds choose; it takes 1 at least, and 2 more that judge. "
            "Set config.axes or the option choosing."
        )
    check_seeds(seeds[:choosing], seeds[choosing:])
    return [int(seed) for seed in seeds[choosing:]]


class Race(NamedTuple):
    """Updates to a target in the trainings of a sweep.

    Attributes:
      updates: float [..., seed], NaN where the target is missed.
      horizon: T, how many updates a training has.
      choosing: how many of the first seeds choose.
      exception: why fewer seeds judge than `JUDGING_SEEDS`, or ''.

    Example: see `tuned_momentum`.
    """

    updates: xarray.DataArray
    horizon: float
    choosing: int
    exception: str

    @classmethod
    def of(cls, results: xarray.Dataset, target: float, metric: str, choosing: int, exception: str) -> Race:
        """From the results of `run_sweep`; the target must not be reached before the first update."""
        updates = updates_to_target(results, target, metric)
        refuse_no_updates(updates, target)
        axis = "trained" if "trained" in results[metric].dims else "update"
        return cls(updates, float(results[axis][-1]), choosing, exception)

    @property
    def decides(self) -> bool:
        """Whether enough seeds judge for a verdict."""
        return bool(self.exception) or self.judges >= JUDGING_SEEDS

    @property
    def judges(self) -> int:
        """How many seeds judge."""
        return self.updates.sizes["seed"] - self.choosing

    @property
    def logs(self) -> xarray.DataArray:
        """log min(t, T), with T where the target is missed."""
        return log_updates(self.updates, self.horizon)

    def best(self, over: tuple[str, ...], **labels: Any) -> xarray.Dataset:
        """`best_cells` on the seeds that choose, in the mean of log min(t, T), among some labels of the axes."""
        logs = self.logs.isel(seed=slice(self.choosing))
        return best_cells(logs.sel(labels), over=over)

    def of_judges(self, numbers: xarray.DataArray) -> xarray.DataArray:
        """Those of the seeds that judge."""
        return numbers.isel(seed=slice(self.choosing, None))

    def ratio(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Interval:
        """The updates of the second of two cells over those of the first, geometric means; T where a target is missed.

        Where the paired t interval decides, this is it.
        """
        logs = self.of_judges(self.logs)
        one, other = (logs.sel({name: float(value) for name, value in cell.items()}).values for cell in (first, second))
        return student(other - one).exp()

    def decide(self, first: Mapping[str, Any], second: Mapping[str, Any], **options: Any) -> Verdict:
        """Whether the first of two cells is sooner than the second; `options` are those of `decide_updates`."""
        judged = self.of_judges(self.updates)
        arms = (judged.sel({name: float(value) for name, value in cell.items()}).values for cell in (first, second))
        return decide_updates(*arms, horizon=self.horizon, exception=self.exception or _FEW, **options)

    @property
    def no_verdict(self) -> str:
        """A line that says why there is none."""
        return f"{self.judges} seeds judge: no verdict; it takes {JUDGING_SEEDS}, or a reason for fewer in exception"


def times(verdict: Verdict) -> str:
    """How many times as many updates the second arm needs, as '1.47 (1.41 to 1.53)'; shares where ranks decide."""
    text = verdict.of_updates.text()
    return f"sooner by {text} of the couples" if verdict.test == "Gehan" else text


def by_workers(verdicts: Mapping[int, Verdict]) -> str:
    """'1.10 (1.05 to 1.15) at 2 workers, seen; ...'"""
    return "; ".join(f"{times(verdict)} at {_style.workers(m)}, {verdict.words}" for m, verdict in verdicts.items())


def detectable(verdicts: Iterable[Verdict]) -> str:
    """What would have been seen where nothing was decided, to be added to what was found; '' where all was."""
    open_ones = [each.detectable for each in verdicts if each.verdict == "not decided" and each.test == "paired t"]
    return f"; in 4 of 5 such experiments a ratio of {math.exp(max(open_ones)):.2f} would be seen" if open_ones else ""
