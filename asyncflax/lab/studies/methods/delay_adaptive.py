"""Do steps that adapt to the delay help against stragglers, at the same learning rate?

Mishchenko et al. 2022 bound delay-adaptive asynchronous SGD without the maximum delay. Here 4 of 16 workers are ten
times slower. `delay_adaptive_asgd` and `asgd` train a perceptron on handwritten digits with the same learning rate: the
best of `asgd`, and twice that.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from asyncflax import _style, algorithms, queues
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Design:
    """The settings, fixed beforehand."""

    num_workers: int
    num_slow: int
    slowdown: float
    factors: tuple[float, ...]  # of the best learning rate of asgd, at which both are judged
    race: Protocol


DESIGN = Design(
    num_workers=16,
    num_slow=4,
    slowdown=10.0,
    factors=(1.0, 2.0),
    race=Protocol(
        loss=0.1,
        updates=2400,
        every=10,
        hidden=64,
        batch_size=8,
        octaves=(-5.0, 1.0),
        choosing=tuple(range(8)),
        judging=tuple(range(100, 116)),
    ),
)
QUICK = dataclasses.replace(
    DESIGN,
    race=dataclasses.replace(
        DESIGN.race,
        updates=1200,
        hidden=8,
        loss=0.3,
        octaves=(-3.0, 1.0),
        choosing=(1000, 1001),
        judging=tuple(range(1100, 1116)),
    ),
)
# The digest of `DESIGN`, committed before judging.
CRITERION = "083f637c8f6eca205f5328ce3ba50c8f9871614c454338e15d51e31711eb9145"


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claims, and the figure."""
    race, adaptive = design.race, "delay_adaptive_asgd"
    arms = {
        "asgd": algorithms.asgd,
        adaptive: lambda rate: algorithms.delay_adaptive_asgd(rate, num_workers=design.num_workers),
    }
    law = queues.stragglers(design.num_slow, design.slowdown)
    queue = {"num_workers": design.num_workers, "num_updates": race.updates, "service_time": law}
    trace = lambda seed: queues.simulate(**queue, seed=seed)
    measure = lambda phase, rates: {
        name: race.measure(parts, phase, name, make, rates, trace) for name, make in arms.items()
    }
    chosen = measure("choosing", race.rates)
    rates = race.best(chosen["asgd"]) * np.array(design.factors)
    judged = measure("judging", rates)
    facts = []
    for i, factor in enumerate(design.factors):
        times = "the best learning rate of asgd" if factor == 1 else f"{factor:g} times the best learning rate of asgd"
        fields = race.decide((adaptive, judged[adaptive][i]), ("asgd", judged["asgd"][i]))
        fields["ours"] += f" (learning rate {rates[i]:.3g})"
        facts.append(
            {
                "name": f"delay-adaptive-rate-{factor:g}".replace(".", "-"),
                "statement": f"Delay-adaptive steps reach a training loss of {race.loss:g} sooner than asgd at {times} "
                f"(digits, perceptron, {design.num_slow} of {design.num_workers} workers {design.slowdown:g} times "
                "slower).",
                "source": "Mishchenko et al. 2022 (arXiv:2206.07638)",
                "paper": "bounds without the maximum delay; in its code the same tuned learning rate for both",
                **fields,
            }
        )
    figure = _style.new_figure(7.5, 4.8)
    race.draw(figure, {"": chosen})
    for rate in rates:
        figure.axes[0].axvline(rate, color=_style.GREY, linewidth=1, linestyle=":", zorder=1)
    slower = f"{design.num_slow} of {design.num_workers} workers {design.slowdown:g} times slower"
    _style.title(figure, f"{slower}; dotted: where arms are judged")
    return facts, figure
