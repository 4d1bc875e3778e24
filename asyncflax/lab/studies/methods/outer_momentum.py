"""Does outer momentum hurt in asynchronous local SGD?

Liu et al. 2024 say so, and propose Delayed Nesterov. Eight workers make ten local steps of a perceptron on handwritten
digits; the server takes their pseudo-gradients without momentum, with Nesterov's, or with Delayed Nesterov. In
synchronous rounds (`queues.barrier`) Delayed Nesterov is Nesterov's step with the mean of a round. The outer learning
rate is chosen for each arm; it is that of one delivery, a step of Delayed Nesterov divided by the number of workers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import optax

from asyncflax import _style, algorithms, local, queues
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._race import Race

_NESTEROV, _DELAYED, _PLAIN = "Nesterov", "Delayed Nesterov", "no momentum"


@dataclasses.dataclass(frozen=True)
class Design:
    """What is fixed beforehand."""

    num_workers: int
    local_steps: int
    local_learning_rate: float
    momentum: float  # outer
    variation: float  # of service times: gamma(cv)
    race: Race


DESIGN = Design(
    num_workers=8,
    local_steps=10,
    local_learning_rate=0.1,
    momentum=0.9,
    variation=0.1,
    race=Race(
        loss=0.05,
        updates=560,
        every=4,
        hidden=64,
        batch_size=8,
        octaves=(-6.0, 1.0),
        choosing=tuple(range(8)),
        judging=tuple(range(100, 116)),
    ),
)
QUICK = dataclasses.replace(
    DESIGN,
    num_workers=4,
    local_steps=2,
    race=dataclasses.replace(
        DESIGN.race,
        loss=0.5,
        updates=280,
        hidden=8,
        octaves=(-3.0, 1.0),
        choosing=(1000, 1001),
        judging=tuple(range(1100, 1116)),
    ),
)
# The digest of `DESIGN`, committed before it was judged.
CRITERION = "673680e8da8a3c1abcceb591f32f1e2fa4ec0c8a7591fc1874959d83c89ac659"


def criterion(design: Design) -> str:
    """The digest of what is fixed beforehand."""
    return design.race.criterion(design)


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claims, and the figure."""
    race, workers, mu = design.race, design.num_workers, design.momentum
    delayed = lambda rate: algorithms.delayed_nesterov(workers * rate, mu, num_workers=workers)
    nesterov = lambda rate: algorithms.nag_asgd(rate, mu, variant="shifted")  # as optax.sgd(nesterov=True)
    arms = {
        "asynchronous": {_PLAIN: algorithms.asgd, _NESTEROV: nesterov, _DELAYED: delayed},
        "synchronous": {_PLAIN: algorithms.asgd, _NESTEROV: delayed},
    }
    worker = lambda gradient_fn: local.local_sgd(gradient_fn, optax.sgd(design.local_learning_rate), design.local_steps)

    def measure(kind: str, make: Any, seeds: tuple[int, ...], rates: np.ndarray) -> np.ndarray:
        queue = queues.simulate if kind == "asynchronous" else queues.barrier
        law = queues.gamma(design.variation)
        trace = lambda seed: queue(num_workers=workers, num_updates=race.updates, service_time=law, seed=seed)
        trainings = race.trainings(trace, seeds, worker=worker, local_steps=design.local_steps)
        return race.updates_to(trainings, make, rates)

    chosen, judged, rates = {}, {}, {}
    for kind, of_kind in arms.items():
        for name, make in of_kind.items():
            arm, part = (kind, name), f"{kind}-{name.replace(' ', '-').lower()}"
            chosen[arm] = parts.get(f"choosing-{part}", lambda k=kind, m=make: measure(k, m, race.choosing, race.rates))
            rates[arm] = float(race.rates[race.best(chosen[arm])])
            judged[arm] = parts.get(
                f"judging-{part}",
                lambda k=kind, m=make, rate=rates[arm]: measure(k, m, race.judging, np.array([rate])),
            )[0]

    facts = []
    for name, kind, first, second, statement in (
        ("asynchronous", "asynchronous", _PLAIN, _NESTEROV, "hurts in asynchronous local SGD"),
        ("synchronous", "synchronous", _NESTEROV, _PLAIN, "helps in synchronous local SGD"),
        ("delayed", "asynchronous", _DELAYED, _NESTEROV, "hurts less if it is delayed (Delayed Nesterov)"),
    ):
        fields = race.decide((first, second), judged[kind, first], judged[kind, second])
        fields["ours"] += f" (outer learning rates {rates[kind, second]:.2g} and {rates[kind, first]:.2g})"
        facts.append(
            {
                "name": f"outer-momentum-{name}",
                "statement": f"Nesterov momentum of {mu} at the server {statement}: updates to a training loss of "
                f"{race.loss:g}, outer learning rates tuned (digits, perceptron, {workers} workers, "
                f"{design.local_steps} local steps).",
                "source": "Liu et al. 2024 (arXiv:2401.09135), abstract",
                "paper": "no number",
                "criterion": criterion(design),
                **fields,
            }
        )
    return facts, _draw(design, chosen)


def _draw(design: Design, chosen: dict[tuple[str, str], np.ndarray]) -> Any:
    figure = _style.new_figure(11, 4.6)
    both = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(both, ("asynchronous", "synchronous"), strict=True):
        design.race.draw(axes, {name: updates for (of, name), updates in chosen.items() if of == kind})
        axes.set_xlabel("outer learning rate of one delivery")
        axes.set_title(kind)
        axes.legend()
    both[0].set_ylabel(f"updates to a training loss of {design.race.loss:g}")
    _style.title(
        figure,
        f"local SGD, {design.num_workers} workers, {design.local_steps} local steps, outer momentum {design.momentum}",
    )
    return figure
