"""Which arm reaches a training loss first: learning rates are chosen on some seeds, arms judged on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflax import _style
from asyncflax.lab import statistics
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._trainings import Trainings
from asyncflax.lab.sweep.cells import Make
from asyncflax.trace import Trace


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The settings shared by all arms, fixed beforehand."""

    loss: float  # the training loss to reach
    updates: int  # the length of a run
    every: int  # updates between two evaluations of the loss
    hidden: int
    batch_size: int
    octaves: tuple[float, float]  # learning rates are powers of 2 between these, in half octaves
    choosing: tuple[int, ...]  # the seeds on which learning rates are chosen
    judging: tuple[int, ...]  # the seeds on which arms are judged

    def __post_init__(self):
        statistics.check_seeds(self.choosing, self.judging)

    @property
    def rates(self) -> np.ndarray:
        """The grid of learning rates."""
        low, high = self.octaves
        return 2.0 ** np.linspace(low, high, round(2 * (high - low)) + 1)

    def measure(
        self, parts: Parts, phase: str, arm: str, make: Make, rates: Any, trace: Callable[[int], Trace], **options: Any
    ) -> np.ndarray:
        """The updates that an arm takes, [rates, seeds], kept in `parts` as PHASE-ARM.

        Args:
          phase: 'choosing' or 'judging', the seeds to train.
          make: the function from a learning rate to a method.
          trace: the function from a seed to a trace.
          options: further arguments of `Trainings`.
        """
        seeds = self.choosing if phase == "choosing" else self.judging
        options |= {"hidden": self.hidden, "batch_size": self.batch_size, "every": self.every}
        trainings = lambda: Trainings([trace(seed) for seed in seeds], seeds, **options)
        return parts.get(f"{phase}-{arm.replace(' ', '-')}", lambda: self.updates_to(trainings(), make, rates))

    def updates_to(self, trainings: Trainings, make: Make, rates: Any) -> np.ndarray:
        """The updates that runs take to reach the loss, [rates, seeds]; NaN where they do not reach it."""
        losses = trainings.losses(make, np.repeat(np.asarray(rates, float)[:, None], len(trainings.seeds), axis=1))
        reached = losses <= self.loss
        return np.where(reached.any(axis=-1), self.every * reached.argmax(axis=-1), np.nan)

    def mean_log(self, updates: np.ndarray) -> np.ndarray:
        """The mean of `statistics.log_updates` over seeds [..., seeds]."""
        return np.mean(statistics.log_updates(updates, self.updates), axis=-1)

    def best(self, updates: np.ndarray) -> float:
        """The learning rate with the smallest mean logarithm of updates [rates, seeds]."""
        return float(self.rates[np.argmin(self.mean_log(updates))])

    def decide(
        self, first: tuple[str, np.ndarray], second: tuple[str, np.ndarray], claim: str = "sooner"
    ) -> dict[str, Any]:
        """The fields of a claim that the first arm is sooner, or 'equal'; an arm is its name and updates [seeds]."""
        (one, updates), (other, others) = first, second
        decided = statistics.decide_updates(updates, others, horizon=self.updates, claim=claim)
        shown = decided.of_updates
        if decided.test == "Gehan":
            ours = f"P({one} sooner) - P({other} sooner) = {shown.text()}"
        else:
            ours = f"{other} takes {shown.text()} times as many updates as {one}"
        if np.isnan([updates, others]).any():
            misses = ", ".join(f"{name} {np.isnan(arm).sum()} times" for name, arm in (first, second))
            ours += f"; of {len(updates)} trainings miss the loss: {misses}"
        return {**shown.of_claim, "ours": ours, "verdict": decided.verdict, "seeds": len(updates)}

    def draw(self, figure: Any, panels: dict[str, dict[str, np.ndarray]]) -> None:
        """Draws updates [rates, seeds] against learning rates: one panel per title, one line per arm."""
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, arms) in zip(all_axes, panels.items(), strict=True):
            for k, (name, updates) in enumerate(arms.items()):
                there = ~np.isnan(updates).all(axis=1)
                axes.plot(self.rates[there], np.exp(self.mean_log(updates))[there], **_style.look(k), label=name)
            _style.plain_log(axes, "x")
            _style.plain_log(axes, "y")
            axes.set_xlabel("learning rate")
            axes.set_title(title)
            axes.legend()
        all_axes[0].set_ylabel(f"updates to a training loss of {self.loss:g}")
