"""Which arm reaches a training loss first: learning rates are chosen on some seeds, arms are judged on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncflax import _style
from asyncflax.lab import statistics
from asyncflax.lab.studies.methods._trainings import Make, Trainings
from asyncflax.trace import Trace


@dataclasses.dataclass(frozen=True)
class Race:
    """What all arms of a race have in common, fixed beforehand."""

    loss: float  # the training loss to be reached
    updates: int  # after which trainings end
    every: int  # updates between two looks at it
    hidden: int
    batch_size: int
    octaves: tuple[float, float]  # learning rates are powers of 2 between these, in half octaves
    choosing: tuple[int, ...]  # seeds that learning rates are chosen on
    judging: tuple[int, ...]  # seeds that arms are judged on

    @property
    def rates(self) -> np.ndarray:
        """The grid of learning rates."""
        low, high = self.octaves
        return 2.0 ** np.linspace(low, high, round(2 * (high - low)) + 1)

    def trainings(self, trace: Callable[[int], Trace], seeds: Sequence[int], **options: Any) -> Trainings:
        """The trainings of some seeds, each on the trace of its seed."""
        fixed = {"hidden": self.hidden, "batch_size": self.batch_size, "every": self.every}
        return Trainings([trace(seed) for seed in seeds], seeds, **fixed, **options)

    def updates_to(self, trainings: Trainings, make: Make, rates: np.ndarray) -> np.ndarray:
        """The updates that trainings take to the loss, [rates, seeds]; NaN where they do not reach it.

        Args:
          trainings: of the seeds.
          make: the method of a learning rate.
          rates: [rates], the same for all seeds.
        """
        losses = trainings.losses(make, np.repeat(np.asarray(rates, float)[:, None], len(trainings.seeds), axis=1))
        reached = losses <= self.loss
        return np.where(reached.any(axis=-1), self.every * reached.argmax(axis=-1), np.nan)

    def mean_log(self, updates: np.ndarray) -> np.ndarray:
        """The mean of `statistics.log_updates` over seeds [..., seeds]."""
        return np.mean(statistics.log_updates(updates, self.updates), axis=-1)

    def best(self, updates: np.ndarray) -> int:
        """The index of the learning rate with the smallest mean logarithm of updates [rates, seeds]."""
        return int(np.argmin(self.mean_log(updates)))

    def decide(
        self, names: tuple[str, str], first: np.ndarray, second: np.ndarray, claim: str = "sooner"
    ) -> dict[str, Any]:
        """Whether the first arm is sooner, or as soon, as fields of a claim.

        Args:
          names: of the arms.
          first: updates [seeds].
          second: updates [seeds].
          claim: 'sooner' or 'equal'.
        """
        decided = statistics.decide_updates(first, second, horizon=self.updates, claim=claim)
        shown = decided.of_updates
        if decided.test == "Gehan":
            ours = f"P({names[0]} sooner) - P({names[1]} sooner) = {shown.text()}"
        else:
            ours = f"{names[1]} takes {shown.text()} times as many updates as {names[0]}"
        misses = [f"{name} {np.isnan(arm).sum()} times" for name, arm in zip(names, (first, second), strict=True)]
        if np.isnan([first, second]).any():
            ours += f"; of {len(first)} trainings miss the loss: {', '.join(misses)}"
        return {
            **shown.of_claim,
            "ours": ours,
            "verdict": decided.verdict,
            "seeds": len(first),
        }

    def criterion(self, design: Any) -> str:
        """The digest of what is fixed beforehand, of a design with this race."""
        statistics.check_seeds(self.choosing, self.judging)
        return statistics.criterion_digest(design, self.judging)

    def draw(self, axes: Any, arms: dict[str, np.ndarray]) -> None:
        """Updates to the loss against learning rates, of the choosing seeds: [rates, seeds] by name of the arm."""
        for k, (name, updates) in enumerate(arms.items()):
            there = ~np.isnan(updates).all(axis=1)
            axes.plot(self.rates[there], np.exp(self.mean_log(updates))[there], **_style.look(k), label=name)
        _style.plain_log(axes, "x")
        _style.plain_log(axes, "y")
        axes.set_xlabel("learning rate")
