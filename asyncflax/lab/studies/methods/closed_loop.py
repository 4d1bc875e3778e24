"""Closed-loop momentum against fixed momentum: YellowFin's appendix G, on handwritten digits.

There, 16 workers take turns, so that the delay is 15, and closed-loop YellowFin is 20.1 times as fast as open-loop.
Here `closed_loop_momentum` steers a perceptron's total momentum to 0.9, from the first update on (its loop is open for
240 updates, which count), with workers in turn and in a queue with exponential work. Three questions each: is it sooner
than a fixed explicit momentum of 0.9, if both have their best learning rates? If both have that of the closed loop? Is
it as soon as the best fixed momentum of a grid?
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from asyncflax import _style, algorithms, queues
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._race import Race
from asyncflax.lab.studies.methods._trainings import Make

_LAWS = {"turns": queues.deterministic(), "exponential": queues.exponential()}
_WORDS = {"turns": "workers in turn", "exponential": "workers with exponential work"}
_CLOSED = "closed loop"
_PAPER = "20.1 times as fast as open-loop YellowFin (CIFAR-100, 16 workers in turn)"


@dataclasses.dataclass(frozen=True)
class Design:
    """What is fixed beforehand."""

    num_workers: int
    target: float  # of total momentum, and the fixed momentum that the closed loop is compared with
    momenta: tuple[float, ...]  # the grid of fixed momenta, the target among them
    race: Race


DESIGN = Design(
    num_workers=16,
    target=0.9,
    momenta=(-0.3, -0.15, 0.0, 0.15, 0.3, 0.5, 0.7, 0.9),
    race=Race(
        loss=0.01,
        updates=4000,
        every=40,
        hidden=64,
        batch_size=8,
        octaves=(-7.0, 1.0),
        choosing=tuple(range(8)),
        judging=tuple(range(100, 116)),
    ),
)
QUICK = dataclasses.replace(
    DESIGN,
    num_workers=4,
    momenta=(0.0, 0.9),
    race=dataclasses.replace(
        DESIGN.race,
        loss=0.3,
        updates=600,
        every=10,
        hidden=8,
        octaves=(-4.0, 0.0),
        choosing=(1000, 1001),
        judging=tuple(range(1100, 1116)),
    ),
)
# The digest of `DESIGN`, committed before it was judged.
CRITERION = "20257e8babd7766cc31d8ee7e6b512737dbdee51cd6fd114b65fcc7afa12e05b"


def criterion(design: Design) -> str:
    """The digest of what is fixed beforehand."""
    return design.race.criterion(design)


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claims, and the figure."""
    facts, curves = [], {}
    for kind in _LAWS:
        of_kind, curves[kind] = _of_kind(design, parts, kind)
        facts += of_kind
    return facts, _draw(design, curves)


def _of_kind(design: Design, parts: Parts, kind: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The fields of the claims of one kind of queue, and updates of the choosing seeds by name of the arm."""
    race, workers, target = design.race, design.num_workers, design.target
    make: dict[str, Make] = {_CLOSED: lambda rate: algorithms.closed_loop_momentum(rate, target, num_workers=workers)}
    for mu in design.momenta:
        make[f"fixed {mu}"] = lambda rate, mu=mu: algorithms.momentum_asgd(rate, mu)
    make["yellowfin"] = algorithms.yellowfin

    def measure(arm: str, seeds: tuple[int, ...], rates: np.ndarray) -> np.ndarray:
        trace = lambda seed: queues.simulate(
            num_workers=workers, num_updates=race.updates, service_time=_LAWS[kind], seed=seed
        )
        return race.updates_to(race.trainings(trace, seeds), make[arm], rates)

    tried = [arm for arm in make if arm != "yellowfin"]
    part = lambda arm: f"{kind}-{arm.replace(' ', '-')}"
    chosen = {
        arm: parts.get(f"choosing-{part(arm)}", lambda arm=arm: measure(arm, race.choosing, race.rates))
        for arm in tried
    }
    rate = {arm: float(race.rates[race.best(chosen[arm])]) for arm in tried}
    fixed = f"fixed {target}"
    tuned = min(tried[1:], key=lambda arm: race.mean_log(chosen[arm]).min())

    def judged(name: str, arm: str, rate: float) -> np.ndarray:
        return parts.get(f"judging-{part(name)}", lambda: measure(arm, race.judging, np.array([rate])))[0]

    closed = judged(_CLOSED, _CLOSED, rate[_CLOSED])
    open_loop = judged("yellowfin", "yellowfin", 1.0)
    loop = f"closed_loop_momentum with the target {target} is"
    open_ratio = np.exp(race.mean_log(open_loop) - race.mean_log(closed))
    questions = {
        "fixed": (
            fixed,
            rate[fixed],
            f"{loop} sooner than a fixed explicit momentum of {target}, each at its best learning rate",
            f"; open-loop yellowfin {open_ratio:.2f} times",
        ),
        "same-rate": (
            fixed,
            rate[_CLOSED],
            f"{loop} sooner than a fixed explicit momentum of {target} at the learning rate that is best for the loop",
            "",
        ),
        "tuned": (
            tuned,
            rate[tuned],
            f"{loop} as soon as the best of {len(design.momenta)} fixed momenta, each at its best learning rate",
            "",
        ),
    }
    facts = []
    for name, (arm, other_rate, statement, more) in questions.items():
        equal = name == "tuned"
        fields = race.decide((_CLOSED, arm), closed, judged(name, arm, other_rate), "equal" if equal else "sooner")
        fields["ours"] += f" (learning rates {other_rate:.3g} and {rate[_CLOSED]:.3g}){more}"
        facts.append(
            {
                "name": f"closed-loop-{kind}-{name}",
                "statement": f"With {workers} {_WORDS[kind]} {statement}: updates to a training loss of {race.loss:g} "
                "(digits, perceptron).",
                "source": "Zhang and Mitliagkas 2017 (arXiv:1706.03471), Appendix G",
                "paper": "no number" if equal else _PAPER,
                "criterion": criterion(design),
                **fields,
            }
        )
    return facts, {arm: chosen[arm] for arm in dict.fromkeys((_CLOSED, fixed, tuned))}


def _draw(design: Design, curves: dict[str, dict[str, np.ndarray]]) -> Any:
    figure = _style.new_figure(11, 4.6)
    both = figure.subplots(1, 2, sharey=True)
    for axes, (kind, arms) in zip(both, curves.items(), strict=True):
        design.race.draw(axes, arms)
        axes.set_title(f"{design.num_workers} {_WORDS[kind]}")
        axes.legend()
    both[0].set_ylabel(f"updates to a training loss of {design.race.loss:g}")
    return figure
