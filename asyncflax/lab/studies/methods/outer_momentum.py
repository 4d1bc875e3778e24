"""Does outer momentum hurt in asynchronous local SGD?

Liu et al. 2024 report that it does, and propose Delayed Nesterov. Eight workers make ten local steps of a perceptron on
handwritten digits; the server applies their pseudo-gradients without momentum, with Nesterov momentum, or with Delayed
Nesterov. In synchronous rounds (`queues.barrier`) Delayed Nesterov is Nesterov's step with the mean of a round. The
outer learning rate is chosen for each arm; it is that of one delivery, a step of Delayed Nesterov divided by M.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from asyncflax import _style, algorithms, local, queues
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._protocol import Protocol

_NESTEROV, _DELAYED, _PLAIN = "Nesterov", "Delayed Nesterov", "no momentum"


@dataclasses.dataclass(frozen=True)
class Design:
    """The settings, fixed beforehand."""

    num_workers: int
    local_steps: int
    local_learning_rate: float
    momentum: float  # outer
    variation: float  # of service times: gamma(cv)
    race: Protocol


DESIGN = Design(
    num_workers=8,
    local_steps=10,
    local_learning_rate=0.1,
    momentum=0.9,
    variation=0.1,
    race=Protocol(
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
# The digest of `DESIGN`, committed before judging.
CRITERION = "673680e8da8a3c1abcceb591f32f1e2fa4ec0c8a7591fc1874959d83c89ac659"


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

    queue = {"num_workers": workers, "num_updates": race.updates, "service_time": queues.gamma(design.variation)}
    traces = {
        "asynchronous": lambda seed: queues.simulate(**queue, seed=seed),
        "synchronous": lambda seed: queues.barrier(**queue, seed=seed),
    }
    chosen, judged, rates = {kind: {} for kind in arms}, {}, {}
    for kind, of_kind in arms.items():
        for name, make in of_kind.items():
            arm, part = (kind, name), f"{kind}-{name.lower()}"
            options = {"trace": traces[kind], "worker": worker, "local_steps": design.local_steps}
            chosen[kind][name] = race.measure(parts, "choosing", part, make, race.rates, **options)
            rates[arm] = race.best(chosen[kind][name])
            judged[arm] = race.measure(parts, "judging", part, make, [rates[arm]], **options)[0]

    facts = []
    for name, kind, first, second, statement in (
        ("asynchronous", "asynchronous", _PLAIN, _NESTEROV, "hurts in asynchronous local SGD"),
        ("synchronous", "synchronous", _NESTEROV, _PLAIN, "helps in synchronous local SGD"),
        ("delayed", "asynchronous", _DELAYED, _NESTEROV, "hurts less if it is delayed (Delayed Nesterov)"),
    ):
        fields = race.decide((first, judged[kind, first]), (second, judged[kind, second]))
        fields["ours"] += f" (outer learning rates {rates[kind, second]:.2g} and {rates[kind, first]:.2g})"
        facts.append(
            {
                "name": f"outer-momentum-{name}",
                "statement": f"Nesterov momentum of {mu} at the server {statement}: updates to a training loss of "
                f"{race.loss:g}, outer learning rates tuned (digits, perceptron, {workers} workers, "
                f"{design.local_steps} local steps).",
                "source": "Liu et al. 2024 (arXiv:2401.09135), abstract",
                "paper": "no number",
                **fields,
            }
        )
    figure = _style.new_figure(11, 4.6)
    race.draw(figure, chosen)
    for axes in figure.axes:
        axes.set_xlabel("outer learning rate of one delivery")
    _style.title(figure, f"local SGD, {workers} workers, {design.local_steps} local steps, outer momentum {mu}")
    return facts, figure
