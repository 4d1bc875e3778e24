"""Closed-loop momentum against fixed momentum: YellowFin's appendix G, on handwritten digits.

There, 16 workers take turns, so that the delay is 15, and closed-loop YellowFin is 20.1 times as fast as open-loop.
Here `closed_loop_momentum` steers a perceptron's total momentum to 0.9 (its loop is open for the first 240 updates,
which count), with workers in turn and with exponential service times. For each there are three questions: is it sooner
than a fixed explicit momentum of 0.9 if each has its best learning rate? If both have that of the closed loop? Is it as
soon as the best fixed momentum of a grid?
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from asyncflax import _style, algorithms, queues
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._protocol import Protocol
from asyncflax.lab.sweep.cells import Make

_LAWS = {"turns": queues.deterministic(), "exponential": queues.exponential()}
_WORDS = {"turns": "workers in turn", "exponential": "workers with exponential work"}
_CLOSED = "closed loop"
_PAPER = "20.1 times as fast as open-loop YellowFin (CIFAR-100, 16 workers in turn)"


@dataclasses.dataclass(frozen=True)
class Design:
    """The settings, fixed beforehand."""

    num_workers: int
    target: float  # the total momentum to reach, and the fixed momentum to compare with
    momenta: tuple[float, ...]  # the grid of fixed momenta, the target among them
    race: Protocol


DESIGN = Design(
    num_workers=16,
    target=0.9,
    momenta=(-0.3, -0.15, 0.0, 0.15, 0.3, 0.5, 0.7, 0.9),
    race=Protocol(
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
# The digest of `DESIGN`, committed before judging.
CRITERION = "20257e8babd7766cc31d8ee7e6b512737dbdee51cd6fd114b65fcc7afa12e05b"


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claims, and the figure."""
    facts, panels = [], {}
    for kind in _LAWS:
        of_kind, panels[f"{design.num_workers} {_WORDS[kind]}"] = _of_kind(design, parts, kind)
        facts += of_kind
    figure = _style.new_figure(11, 4.6)
    design.race.draw(figure, panels)
    return facts, figure


def _of_kind(design: Design, parts: Parts, kind: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The fields of the claims of one kind of queue, and updates of the choosing seeds by name of the arm."""
    race, workers, target = design.race, design.num_workers, design.target
    make: dict[str, Make] = {_CLOSED: lambda rate: algorithms.closed_loop_momentum(rate, target, num_workers=workers)}
    for mu in design.momenta:
        make[f"fixed {mu}"] = lambda rate, mu=mu: algorithms.momentum_asgd(rate, mu)
    tried = list(make)
    make["yellowfin"] = algorithms.yellowfin
    queue = {"num_workers": workers, "num_updates": race.updates, "service_time": _LAWS[kind]}
    trace = lambda seed: queues.simulate(**queue, seed=seed)
    measure = lambda phase, name, arm, rates: race.measure(parts, phase, f"{kind}-{name}", make[arm], rates, trace)
    judged = lambda name, arm, rate: measure("judging", name, arm, [rate])[0]

    chosen = {arm: measure("choosing", arm, arm, race.rates) for arm in tried}
    rate = {arm: race.best(chosen[arm]) for arm in tried}
    fixed = f"fixed {target}"
    tuned = min(tried[1:], key=lambda arm: race.mean_log(chosen[arm]).min())
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
        other = judged(name, arm, other_rate)
        fields = race.decide((_CLOSED, closed), (arm, other), "equal" if equal else "sooner")
        fields["ours"] += f" (learning rates {other_rate:.3g} and {rate[_CLOSED]:.3g}){more}"
        facts.append(
            {
                "name": f"closed-loop-{kind}-{name}",
                "statement": f"With {workers} {_WORDS[kind]} {statement}: updates to a training loss of {race.loss:g} "
                "(digits, perceptron).",
                "source": "Zhang and Mitliagkas 2017 (arXiv:1706.03471), Appendix G",
                "paper": "no number" if equal else _PAPER,
                **fields,
            }
        )
    return facts, {arm: chosen[arm] for arm in dict.fromkeys((_CLOSED, fixed, tuned))}
