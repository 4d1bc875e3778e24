r"""Do steps have to shrink like 1 / tau, and does momentum have to be shifted? An exact answer on a quadratic.

Giladi et al. 2020 conclude that under high constant delay the learning rate has to be inversely proportional to the
delay, and that momentum has to be turned off or modified. Here the closed-form limits of the learning rate
(`theory.stability_limit`) are compared with the engine: M = tau + 1 workers in turn, one curvature, no noise. The loss
must fall slightly below the limit and grow slightly above it. Momentum is *damped*: gradients are multiplied by 1 - mu,
so that learning rates are comparable across momenta.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _style, algorithms, queues, theory
from asyncflax.base import AsyncAlgorithm
from asyncflax.engine.execute import run
from asyncflax.lab.statistics import spread
from asyncflax.lab.studies.methods._parts import Parts

_SOURCE = "Giladi et al. 2020 (arXiv:1909.12340), abstract"


@dataclasses.dataclass(frozen=True)
class Design:
    """The settings, fixed beforehand."""

    delays: tuple[int, ...]  # tau
    momenta: tuple[float, ...]  # mu, besides 0
    margin: float  # the relative distance of runs below and above a limit
    high: int  # the smallest delay that is called high
    bound: float  # the largest difference of the exponent of tau from -1


DESIGN = Design(delays=(2, 3, 7, 15, 31, 63), momenta=(0.5, 0.9), margin=0.02, high=7, bound=0.1)
QUICK = dataclasses.replace(DESIGN, delays=(2, 7, 15), momenta=(0.9,), margin=0.05)


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claims, and the figure."""
    tau = np.array(design.delays)
    plain = np.array([theory.stability_limit(delay) for delay in design.delays])
    limits = lambda form: np.array(
        [[theory.stability_limit(delay, mu, form=form) / (1 - mu) for delay in design.delays] for mu in design.momenta]
    )
    heavy_ball, shifted = limits("heavy_ball"), limits("shifted")
    agree = parts.get("engine", lambda: _agreement(design, plain, heavy_ball, shifted))
    seen = f"the engine agrees in {agree.sum():.0f} of {agree.size} cases within {100 * design.margin:g} %"

    high = tau >= design.high
    slopes = np.diff(np.log(plain[high])) / np.diff(np.log(tau[high]))
    over, under = shifted / plain, heavy_ball / plain
    common = {"source": _SOURCE, "seeds": agree.size, "confidence": 1.0}
    verdict = lambda holds: "seen" if holds and agree.all() else "refuted"
    claims = [
        dict(
            name="constant-delay-rate",
            statement="The largest stable learning rate of SGD is inversely proportional to a high constant delay: the "
            f"exponent of tau (quadratic, tau = {tau[high][0]} to {tau[-1]}).",
            paper="-1",
            ours=f"{spread(slopes).text(3)}; {seen}",
            **spread(slopes).of_claim,
            verdict=verdict(np.all(np.abs(slopes + 1) <= design.bound)),
            **common,
        ),
        dict(
            name="constant-delay-momentum",
            statement="Momentum has to be turned off or shifted: damped heavy ball lowers the largest stable learning "
            "rate of SGD, damped shifted momentum raises it; its ratio to that of SGD (quadratic, tau = "
            f"{tau[0]} to {tau[-1]}, momentum {', '.join(map(str, design.momenta))}).",
            paper="no number",
            ours=f"shifted momentum {spread(over).text()}, heavy ball {spread(under).text()}; {seen}",
            **spread(over).of_claim,
            verdict=verdict(np.all(over > 1) and np.all(under < 1)),
            **common,
        ),
    ]
    return claims, _draw(design, plain, heavy_ball, shifted)


def _agreement(design: Design, plain: np.ndarray, heavy_ball: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Whether losses fall just below a limit and grow just above it, [forms, delays]."""
    forms: list[tuple[Any, np.ndarray]] = [(lambda h, workers: algorithms.asgd(h), plain)]
    for mu, hb, sm in zip(design.momenta, heavy_ball, shifted, strict=True):
        forms.append((lambda h, workers, mu=mu: algorithms.momentum_asgd(h * (1 - mu), mu), hb))
        shift = lambda h, workers, mu=mu: algorithms.shifted_momentum(h, mu, num_workers=workers, dampening=mu)
        forms.append((shift, sm))

    def agrees(make: Any, delay: int, limit: float) -> bool:
        return is_limit(lambda h: make(h, delay + 1), delay, limit, design.margin)

    return np.array([[agrees(make, *at) for at in zip(design.delays, limits, strict=True)] for make, limits in forms])


def is_limit(make: Any, delay: int, limit: float, margin: float) -> bool:
    """Whether losses on x^2 / 2, delay + 1 workers in turn, fall `margin` below a learning rate and grow above it."""
    periods = int(2 / margin)
    trace = queues.simulate(
        num_workers=delay + 1, num_updates=4 * periods * (delay + 1), service_time=queues.deterministic()
    )
    gradient_fn = jax.value_and_grad(lambda x, _: 0.5 * jnp.sum(x**2))

    def losses(h: jax.Array) -> jax.Array:
        algorithm: AsyncAlgorithm = make(h)
        return run(algorithm, gradient_fn, jnp.ones(()), trace, jnp.zeros(len(trace))).losses

    course = np.asarray(jax.vmap(losses)(limit * jnp.array([1 - margin, 1 + margin])), float)
    half = len(trace) // 2
    early, late = np.max(course[:, half // 2 : half], axis=1), np.max(course[:, -half // 2 :], axis=1)
    return bool(late[0] < early[0] and late[1] > early[1])


def _draw(design: Design, plain: np.ndarray, heavy_ball: np.ndarray, shifted: np.ndarray) -> Any:
    figure = _style.new_figure(7.5, 4.8)
    axes = figure.subplots()
    axes.plot(design.delays, plain, **_style.look(0), label="SGD")
    for k, (mu, hb, sm) in enumerate(zip(design.momenta, heavy_ball, shifted, strict=True)):
        axes.plot(design.delays, sm, **_style.look(1 + 2 * k), label=f"shifted momentum {mu}, damped")
        axes.plot(design.delays, hb, **_style.look(2 + 2 * k), label=f"heavy ball {mu}, damped")
    first = design.delays[0]
    axes.plot(design.delays, [plain[0] * first / tau for tau in design.delays], "--", color="black", label="1 / tau")
    _style.plain_log(axes, "x")
    _style.plain_log(axes, "y")
    axes.set_xticks(design.delays, [str(delay) for delay in design.delays])
    axes.set_xlabel("constant delay tau (updates)")
    axes.set_ylabel("largest stable learning rate times curvature")
    axes.legend()
    return figure
