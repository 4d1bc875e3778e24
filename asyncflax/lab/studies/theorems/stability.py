"""Limits of the step size in closed form, against recursions run forward."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from scipy import optimize

from asyncflax import _style, staleness, theory
from asyncflax.lab.statistics import decide_number
from asyncflax.lab.studies.theorems._facts import PAPER, Found, Size, identity, of_all

_DERIVED = f"{PAPER}, derived from eq. 5 and 6"


def stability(size: Size) -> Found:
    """Checks the limit of a constant delay, and the order of limits of distributions with the same mean."""
    delays = [0, 1, 2, 3, 5, 7, 11, 15, 23, 31]
    closed = [2 * math.sin(math.pi / (4 * tau + 2)) for tau in delays]
    found = [_limit_of_delay(tau) for tau in delays]
    constant = identity(
        "stability-constant",
        "Gradients that are always tau updates old allow steps up to 2 sin(pi / (4 tau + 2)) over the curvature.",
        "",
        float(np.abs(np.divide(found, closed) - 1).max()),
        len(delays),
        "delays from 0 to 31, relative",
        1e-9,  # a root is not exact to rounding
    )
    constant |= {"source": _DERIVED, "paper": "no number"}

    laws = {
        "always 3": staleness.constant(3),
        "uniform 0 to 6": staleness.uniform(0, 6),
        "geometric, independent": staleness.geometric(3.0),
        "queue, exponential": theory.ExponentialQueue(4),
    }
    limits = {name: theory.mean_square_limit(law) for name, law in laws.items()}
    brackets = {name: _bracket(laws[name], limit) for name, limit in limits.items()}
    order = {
        "name": "stability-order",
        "statement": "With the same mean staleness 3, fixed staleness allows the smallest steps, then uniform, then "
        "independent geometric; the queue of 4 workers the largest.",
        "source": _DERIVED,
        "paper": "no number",
        "ours": ", ".join(f"{limit:.3f}" for limit in limits.values()) + "; by E x² run forward within 1 %",
        "value": limits["queue, exponential"],
        "interval": brackets["queue, exponential"],
        "verdict": of_all(
            decide_number((b[0] - a[1], b[1] - a[0]), low=0.0) for a, b in itertools.pairwise(brackets.values())
        ),
        "seeds": len(laws),
        "confidence": 1.0,
    }

    figure = _style.new_figure(15, 4.2)
    left, right, constants = figure.subplots(1, 3)
    left.barh(list(limits), list(limits.values()), color=_style.COLORS[: len(limits)], height=0.6)
    left.invert_yaxis()
    for i, (name, limit) in enumerate(limits.items()):
        low, high = brackets[name]
        left.annotate(f"{limit:.3f}", (limit, i), xytext=(10, 0), textcoords="offset points", va="center")
        left.errorbar(limit, i, xerr=[[limit - low], [high - limit]], color="black", capsize=4)
    left.set(xlim=(0, 1.0), xlabel="largest stable step size times curvature, E x²")
    left.set_title("4 workers, mean staleness 3")
    h = np.linspace(0.02, 1.0, 36)
    for k, (name, law) in enumerate(laws.items()):
        right.plot(h, [theory.mean_square_radius(law, step) for step in h], **_style.look(k, len(h)), label=name)
    right.axhline(1.0, color="0.6", linewidth=1, zorder=0)
    right.set(ylim=(0.3, 1.3), xlabel="step size times curvature", ylabel="factor of E x² per update")
    right.legend()
    constants.plot(delays, closed, color="black", zorder=1, label="2 sin(pi / (4 tau + 2))")
    constants.plot(delays, found, **_style.look(0) | {"linestyle": ""}, label="root of the recursion")
    constants.set(yscale="log", xlabel="constant staleness tau")
    constants.set_ylabel("largest stable step size times curvature, E x")
    constants.legend()
    return [constant, order], figure


def _limit_of_delay(tau: int) -> float:
    """The largest stable h of x_{t+1} = x_t - h x_{t-tau}: where the spectral radius of its companion is 1."""

    def growth(h: float) -> float:
        companion = np.eye(tau + 1, k=-1)
        companion[0, 0] += 1.0
        companion[0, tau] -= h
        return float(np.abs(np.linalg.eigvals(companion)).max()) - 1

    return optimize.root_scalar(growth, bracket=(0.01, 2.1)).root


def _bracket(law: Any, limit: float) -> tuple[float, float]:
    """The steps around a limit at which E x^2 falls and at which it grows over 1,200 updates."""
    for factor, falls in ((0.99, True), (1.01, False)):
        course = theory.mean_square_iterates(law, factor * limit, 1200)
        if (np.max(course[900:]) < np.max(course[300:600])) != falls:
            raise RuntimeError(f"E x^2 of {law} must fall below the limit {limit:.4g} and grow above it, but does not.")
    return 0.99 * limit, 1.01 * limit
