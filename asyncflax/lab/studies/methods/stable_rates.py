"""The largest stable learning rate of each method, with 8 to 64 workers of nearly equal speed.

A perceptron on handwritten digits. A learning rate is *stable* if its last training losses, on average, are less
than half of the initial one. Its limit is found by bisection for each seed, all seeds in one program. Methods with
momentum share its value. `ssgd` waits for all workers (`queues.barrier`); it and `delayed_nesterov` divide the learning
rate by M, and for `yellowfin` it is a factor of the rate that it tunes.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflax import _style, algorithms, queues
from asyncflax.base import AsyncAlgorithm
from asyncflax.lab import statistics
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._trainings import Trainings

_BY_WORKER = (  # methods with one velocity per worker, or that order deliveries
    "dana_dc",
    "dana_slim",
    "dana_zero",
    "delayed_nesterov",
    "multi_asgd",
    "ormo",
    "ormo_da",
    "shifted_momentum",
    "smega2",
)


@dataclasses.dataclass(frozen=True)
class Design:
    """The settings, fixed beforehand."""

    methods: tuple[str, ...]
    order: tuple[str, ...]  # the claimed order of some of them, the largest limit first
    num_workers: tuple[int, ...]  # increasing
    momentum: float
    variation: float  # of service times: gamma(cv)
    octaves: tuple[float, float]  # the limit is searched between these powers of 2
    halvings: int  # of that interval
    updates_a_worker: int  # 7 / (1 - mu), see statistics.least_updates
    looks: int  # the number of evaluations of the training loss
    last: int  # the number of last ones that are averaged
    level: float  # the share of the initial loss below which a rate is stable
    hidden: int
    batch_size: int
    exponent_bound: float  # the equivalence bound of the exponent of M
    judging: tuple[int, ...]  # seeds; nothing is chosen


DESIGN = Design(
    methods=tuple(name for name in algorithms.__all__ if name != "citation"),
    order=("dana_slim", "multi_asgd", "nag_asgd"),
    num_workers=(8, 16, 32, 64),
    momentum=0.9,
    variation=0.1,
    octaves=(-10.0, 8.0),
    halvings=9,
    updates_a_worker=70,
    looks=20,
    last=5,
    level=0.5,
    hidden=32,
    batch_size=16,
    exponent_bound=0.1,
    judging=tuple(range(100, 116)),
)
QUICK = dataclasses.replace(
    DESIGN, methods=("asgd", *DESIGN.order), num_workers=(2, 4, 8), halvings=6, judging=tuple(range(1000, 1016))
)

# The digest of `DESIGN`, committed before judging.
CRITERION = "2c41786db281d17bd64b67d2b8177f71d0b9c21e3198a7cb7edf563ba8972dc2"


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claims, and the figure."""
    limit = lambda name, m: parts.get(f"{name}-{m}", lambda: _limits(design, name, m))
    measured = {m: {name: limit(name, m) for name in design.methods} for m in design.num_workers}
    limits = {name: np.stack([of[name] for of in measured.values()], axis=1) for name in design.methods}
    return decide(design, limits), _draw(design, limits)


def bisect(is_stable: Callable[[np.ndarray], np.ndarray], octaves: tuple[float, float], halvings: int) -> np.ndarray:
    """The binary logarithm of the largest stable learning rate of each seed.

    Args:
      is_stable: (learning rates [seeds]) -> bool [seeds].
      octaves: binary logarithms of a stable and of an unstable learning rate; neither is tried.
      halvings: the number of halvings of that interval.
    """
    low, high = np.array(octaves[0]), np.array(octaves[1])
    for _ in range(halvings):
        middle = (low + high) / 2
        stable = is_stable(2.0**middle)
        low, high = np.where(stable, middle, low), np.where(stable, high, middle)
    return (low + high) / 2


def decide(design: Design, limits: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The fields of the claims, from the logarithms of limits [seeds, numbers of workers]."""
    workers, seeds = design.num_workers, len(design.judging)
    where = f"digits, perceptron, {workers[0]} to {workers[-1]} workers"
    facts = [_of_asgd(design, limits["asgd"], where), _of_order(design, limits, where), _of_all(design, limits, where)]
    return [fact | {"seeds": seeds} for fact in facts]


def _of_asgd(design: Design, limits: np.ndarray, where: str) -> dict[str, Any]:
    """Whether the exponent of M is -1."""
    exponents = _exponents(design, limits)
    mean = statistics.student(exponents)
    return {
        "name": "stable-rate-asgd",
        "statement": "The largest stable learning rate of ASGD is inversely proportional to the number of workers: the "
        f"exponent of M ({where}).",
        "source": "Giladi et al. 2020 (arXiv:1909.12340), abstract",
        "paper": "inversely proportional to a high constant delay",
        "ours": mean.text(),
        **mean.of_claim,
        "verdict": statistics.decide_difference(exponents + 1, bound=design.exponent_bound, claim="equal").verdict,
    }


def _of_order(design: Design, limits: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    """Whether the order holds between neighbours at every number of workers."""
    neighbours = list(itertools.pairwise(design.order))
    pairs = [(*pair, k) for pair in neighbours for k in range(len(design.num_workers))]
    differences = np.stack([limits[better][:, k] - limits[worse][:, k] for better, worse, k in pairs], axis=1)
    order = statistics.decide_order(differences, bound=np.log2(statistics.RATIO_BOUND))
    ratios = [statistics.Interval(*(2.0**end for end in pair.interval)) for pair in order.pairs]
    weakest = int(np.argmin(differences.mean(axis=0)))
    better, worse, k = pairs[weakest]
    several = lambda pair: ", ".join(f"{x.value:.2f}" for x, at in zip(ratios, pairs, strict=True) if at[:2] == pair)
    return {
        "name": "stable-rate-order",
        "statement": f"{' > '.join(design.order)} in the largest stable learning rate at every number of workers "
        f"(momentum {design.momentum}; {where}): the smallest ratio.",
        "source": "Hakimi et al. 2019 (arXiv:1907.11612), abstract",
        "paper": "no number; DANA outperforms existing methods up to 64 workers",
        "ours": f"{ratios[weakest].text()}, {better} over {worse} at {design.num_workers[k]} workers; at "
        f"{', '.join(map(str, design.num_workers))}: "
        + "; ".join(f"{one} {several((one, other))} times that of {other}" for one, other in neighbours),
        **ratios[weakest].of_claim,
        "verdict": order.verdict,
    }


def _of_all(design: Design, limits: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    """Whether the limit falls with M for all methods (Page's test, Holm's adjustment)."""
    trends = [statistics.decide_trend(values, direction="falls") for values in limits.values()]
    adjusted = statistics.holm(np.array([trend.p for trend in trends]))
    verdicts = {
        name: trend.verdict if p <= statistics.LEVEL else "not decided"
        for name, trend, p in zip(limits, trends, adjusted, strict=True)
    }
    exponents = np.array([_exponents(design, values).mean() for values in limits.values()])
    median, low, high = np.median(exponents), exponents.min(), exponents.max()
    ours = f"{median:.2f} ({low:.2f} to {high:.2f}); falls for {[*verdicts.values()].count('seen')} of {len(limits)}"
    for other, words in {"refuted": "rises", "not decided": "not decided"}.items():
        names = [name for name, verdict in verdicts.items() if verdict == other]
        ours += f"; {words}: {', '.join(names)}" if names else ""
    return {
        "name": "stable-rate-methods",
        "statement": "The largest stable learning rate falls with the number of workers, whatever the method: the "
        f"exponent of M, median and range of {len(limits)} methods ({where}).",
        "source": "Giladi et al. 2020 (arXiv:1909.12340), abstract; here for all methods",
        "paper": "-1 for SGD",
        "ours": ours,
        "value": float(median),
        "interval": (float(low), float(high)),
        "verdict": next((v for v in ("refuted", "not decided") if v in verdicts.values()), "seen"),
        "confidence": 1.0,
    }


def _limits(design: Design, name: str, workers: int) -> np.ndarray:
    """The binary logarithms of the limits, [seeds]."""
    queue = queues.barrier if name == "ssgd" else queues.simulate
    updates = design.updates_a_worker * workers
    about = {"num_workers": workers, "num_updates": updates, "service_time": queues.gamma(design.variation)}
    traces = [queue(**about, seed=seed) for seed in design.judging]
    every = -(-updates // design.looks)
    trainings = Trainings(traces, design.judging, hidden=design.hidden, batch_size=design.batch_size, every=every)
    make = method(name, num_workers=workers, momentum=design.momentum)

    def is_stable(learning_rates: np.ndarray) -> np.ndarray:
        losses = trainings.losses(make, np.broadcast_to(learning_rates, (1, len(design.judging))))[0]
        return losses[:, -design.last :].mean(axis=1) < design.level * losses[:, 0]

    return bisect(is_stable, design.octaves, design.halvings)


def method(name: str, **options: Any) -> Callable[[Any], AsyncAlgorithm]:
    """The function from a learning rate to a method, with the options that the method accepts."""
    factory = getattr(algorithms, name)
    known = {option: value for option, value in options.items() if option in inspect.signature(factory).parameters}
    return lambda learning_rate: factory(learning_rate, **known)


def _exponents(design: Design, limits: np.ndarray) -> np.ndarray:
    """The exponent of M, [seeds]."""
    return np.polyfit(np.log2(design.num_workers), limits.T, 1)[0]


def _draw(design: Design, limits: dict[str, np.ndarray]) -> Any:
    figure = _style.new_figure(12, 5.6)
    both = figure.subplots(1, 2, sharey=True)
    groups = [name for name in limits if name not in _BY_WORKER], [name for name in limits if name in _BY_WORKER]
    titles = "one velocity for all workers, or none", "velocities by worker, or in order"
    for axes, group, title in zip(both, groups, titles, strict=True):
        for k, name in enumerate(group):
            axes.plot(design.num_workers, 2.0 ** limits[name].mean(axis=0), **_style.look(k), label=name)
        _style.plain_log(axes, "x")
        axes.set_xticks(design.num_workers, [str(m) for m in design.num_workers])
        axes.set_xlabel("workers")
        axes.set_title(title)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    _style.plain_log(both[0], "y")
    both[0].set_ylabel("largest stable learning rate")
    _style.title(figure, f"digits, perceptron, momentum {design.momentum}, means over {len(design.judging)} seeds")
    return figure
