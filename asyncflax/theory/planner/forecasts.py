"""The plan itself: forecasts for several numbers of workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from asyncflax import _check, queues, theory
from asyncflax.queues import ServiceTime
from asyncflax.theory.descent import soonest
from asyncflax.theory.planner import _asynchrony, _long_run
from asyncflax.theory.spectrum import SPECTRUM, Spectrum
from asyncflax.trace import Trace

__all__ = ["ClusterPlan", "Forecast", "condition_number_of", "make"]

_WORKERS = (1, 2, 4, 8, 16)
_WORTH = 1.1  # more workers must save a tenth of the time to be recommended


class Forecast(NamedTuple):
    r"""What the theory says about one number of workers.

    Attributes:
      num_workers: M.
      momentum: float, the explicit momentum that reaches the target first: what to set.
      step_size: float, alpha L that does.
      updates: float, updates to the target relative to one worker.
      hardware: float, seconds per update relative to one worker; nan without a clock.
      time: float, `updates` times `hardware`.
      barrier: float, seconds per gradient if the workers wait for each other, relative to one worker; nan as above.
      staleness: float, the mean staleness.
      implicit_momentum: float, 1 - 1/M; nan where the staleness is not geometric and there is no one momentum.
      rule_momentum: float, mu* - (1 - 1/M), the rule of Figure 2; nan as above.
      mean_momentum: float, the explicit momentum with which E x shrinks fastest in the long run, without noise.
      mean_step_size: float, alpha L with which it does.
      mean_updates: float, updates for the same factor relative to one worker.
      mean_limit: float, alpha L up to which E x is stable at `mean_momentum`.
      run_momentum: float, the explicit momentum with which the root mean square shrinks fastest, likewise.
      run_step_size: float, alpha L with which it does.
      run_updates: float, updates for the same factor relative to one worker.
      run_limit: float, alpha L up to which E x^2 is stable at `run_momentum`: the largest step that a run survives.

    Example: see `make`.
    """

    num_workers: int
    momentum: float
    step_size: float
    updates: float
    hardware: float
    time: float
    barrier: float
    staleness: float
    implicit_momentum: float
    rule_momentum: float
    mean_momentum: float
    mean_step_size: float
    mean_updates: float
    mean_limit: float
    run_momentum: float
    run_step_size: float
    run_updates: float
    run_limit: float


class ClusterPlan(NamedTuple):
    """The forecasts of all numbers of workers, and what they are for.

    Attributes:
      forecasts: list of `Forecast`, by number of workers.
      spectrum: `Spectrum`, the training.
      target: float, the excess loss to be reached over that before training.
      updates: float, updates of one worker to the target.
      condition_number: float, kappa.
      target_momentum: float, mu*, what is best for one worker without noise.
      curvature_max: float, L; nan where it is unknown, and with it the absolute step size.
      source: str, where the asynchrony comes from.

    Example: see `make`.
    """

    forecasts: list[Forecast]
    spectrum: Spectrum
    target: float
    updates: float
    condition_number: float
    target_momentum: float
    curvature_max: float
    source: str

    @property
    def recommended(self) -> Forecast:
        """The fewest workers that take at most 1.1 times the time of the fastest; without a clock, of the updates."""
        costs = np.array([f.updates if math.isnan(f.hardware) else f.time for f in self.forecasts])
        return self.forecasts[int(np.argmax(costs <= _WORTH * costs.min()))]


def condition_number_of(target_momentum: float) -> float:
    r"""The range of curvatures for which a momentum is best when nothing is stale.

    .. math:: \mu^* = \left(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\right)^2

    Args:
      target_momentum: mu* in (0, 1).

    Raises:
      ValueError: it is not there.

    Example:
      >>> from asyncflax.theory import planner
      >>> round(planner.condition_number_of(0.8), 1)
      322.0
    """
    target = _check.scalar("target_momentum", target_momentum, low=0.0, high=1.0, exclusive_low=True)
    if target == 1.0:
        raise ValueError("target_momentum must be below 1, got target_momentum=1.0: that is best for no curvatures.")
    return ((1 + math.sqrt(target)) / (1 - math.sqrt(target))) ** 2


def make(
    num_workers: Sequence[int] | None = None,
    *,
    service_time: ServiceTime | None = None,
    trace: Trace | None = None,
    spectrum: Spectrum | None = None,
    target_momentum: float | None = None,
    condition_number: float | None = None,
    curvature_min: float | None = None,
    curvature_max: float | None = None,
    noise: float | None = None,
    target: float = 0.1,
    update_seconds: Sequence[float] | None = None,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> ClusterPlan:
    r"""Forecasts for several numbers of workers, or for the asynchrony of a trace.

    With exponential work everything is exact. With any other service time, and for a trace, what to set for the target
    is exact along one simulated queue (of 20,000 events), or along the trace (see `descent`). In the long run a
    histogram of its staleness stands for it: the mean then follows Theorem 2's kernel with no one momentum, so there is
    no explicit momentum either, and mean squares are those of independent draws, a little larger than in the queue.

    Args:
      num_workers: the numbers M of workers; default 1, 2, 4, 8, 16, or that of the trace.
      service_time: how long one gradient takes, a law of `asyncflax.queues`; default exponential.
      trace: instead of a queue; it must say how many workers it has, else M is 1 + its mean staleness.
      spectrum: the training, for example from `Spectrum.measured`; default as much loss in every direction, with the
        range of curvatures and the noise that follow.
      target_momentum: mu*, the momentum that is best for one worker without noise; 0.8 if nothing says otherwise.
      condition_number: kappa, instead of mu*.
      curvature_min: the smallest curvature, instead of mu*.
      curvature_max: the largest one, L.
      noise: the variance of a gradient over its square before training, in a batch as it will be used; default 0.
      target: the excess loss to be reached over that before training, in (0, 1).
      update_seconds: measured seconds per update for each number of workers, 1 among them, instead of the clock.
      progress: is called with the numbers of workers and gives them back one by one, as tqdm does.

    Raises:
      TypeError, ValueError: an argument is out of range, or two say the same in different ways.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorems 2, 3 and 5 and Figure 2; recursions derived.

    Example: noise makes small steps best, and with small steps staleness costs nothing.
      >>> from asyncflax.theory import planner
      >>> calm, noisy = (planner.make([1, 4], condition_number=9.0, noise=noise) for noise in (0.0, 9.0))
      >>> [(plan.recommended.num_workers, round(plan.forecasts[1].time, 2)) for plan in (calm, noisy)]
      [(1, 1.2), (4, 0.26)]
      >>> [round(forecast.rule_momentum, 3) for forecast in calm.forecasts]
      [0.25, -0.5]
      >>> print(planner.recommendation(noisy))  # doctest: +ELLIPSIS
      Set: 4 workers, ...
    """
    _check.function("progress", progress, ", such as tqdm")
    target = _check.scalar("target", target, low=0.0, high=1.0, exclusive_low=True)
    curvatures = {
        "target_momentum": target_momentum, "condition_number": condition_number, "curvature_min": curvature_min
    }  # fmt: skip
    _one_of({"spectrum": spectrum, **curvatures})
    if spectrum is None:
        kappa = _kappa(target_momentum, condition_number, curvature_min, curvature_max)
        spectrum = Spectrum.even(kappa, noise=0.0 if noise is None else noise)
        largest = math.nan if curvature_max is None else float(curvature_max)
    else:
        _check.instance("spectrum", spectrum, Spectrum, SPECTRUM)
        _one_of({"spectrum": spectrum, "noise": noise})
        _one_of({"spectrum": spectrum, "curvature_max": curvature_max})
        spectrum = spectrum.checked()
        largest = float(spectrum.curvatures.max())
        kappa = largest / float(spectrum.curvatures.min())
    law = queues.exponential() if service_time is None else service_time
    _check.instance("service_time", law, ServiceTime, "a law of asyncflax.queues such as exponential()")
    if trace is None:
        workers = _check.integers("num_workers", _WORKERS if num_workers is None else num_workers, 1)
        if not workers or workers != sorted(set(workers)):
            raise ValueError(f"num_workers must be a list of increasing numbers, got {workers}.")
        of = lambda m: _asynchrony.of_queue(law, m)
        one = float(np.mean(queues.mean_seconds(law, max(workers))))  # seconds of an average worker
    else:
        _check.instance("trace", trace, Trace, "a Trace, see Trace.load")
        _one_of({"service_time": service_time, "trace": trace})
        _one_of({"num_workers": num_workers, "trace": trace})
        asynchrony = _asynchrony.of_trace(trace)
        workers = [trace.num_workers if trace.num_workers > 1 else round(1 + asynchrony.mean)]
        of = lambda m: asynchrony
        one = _asynchrony.seconds_of_one(trace)
    measured = _measured(update_seconds, workers)

    best = ((math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)) ** 2
    reference = theory.BestHyperParameters(best, 4 / (1 + 1 / math.sqrt(kappa)) ** 2, math.sqrt(best))
    alone = soonest(spectrum, theory.ExponentialQueue(1), target)
    scale = float(spectrum.curvatures.max())
    forecasts = []
    for m in progress(workers):
        asynchrony = of(m)
        staleness = asynchrony.staleness
        exact = isinstance(staleness, theory.ExponentialQueue)
        found = alone if exact and m == 1 else soonest(spectrum, staleness if exact else asynchrony.trace, target)
        mean, run = _long_run.best(staleness, kappa, reference)
        implicit = theory.implicit_momentum(m) if exact else math.nan
        hardware = measured[m] / measured[1] if measured else asynchrony.seconds / one
        updates = found.updates / alone.updates
        forecasts.append(
            Forecast(
                num_workers=m,
                momentum=found.momentum,
                step_size=found.step_size * scale,
                updates=updates,
                hardware=hardware,
                time=updates * hardware,
                barrier=asynchrony.barrier / one,
                staleness=asynchrony.mean,
                implicit_momentum=implicit,
                rule_momentum=best - implicit,
                mean_momentum=mean.momentum,
                mean_step_size=mean.step_size,
                mean_updates=math.log(reference.radius) / math.log(mean.radius),
                mean_limit=theory.stability_limit(staleness, mean.momentum),
                run_momentum=run.momentum,
                run_step_size=run.step_size,
                run_updates=math.log(reference.radius) / math.log(run.radius),
                run_limit=theory.mean_square_limit(staleness, run.momentum),
            )
        )
    source = str(law) if trace is None else f"a trace of {len(trace):,} events"
    return ClusterPlan(forecasts, spectrum, target, alone.updates, kappa, best, largest, source)


def _one_of(given: dict[str, object]) -> None:
    """Raises if two of these arguments are given."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{names[0]} and {names[1]} exclude each other, got both; keep one.")


def _kappa(target: float | None, kappa: float | None, smallest: float | None, largest: float | None) -> float:
    """The condition number, whichever way it was given."""
    if smallest is not None:
        smallest = _check.scalar("curvature_min", smallest, low=0.0, exclusive_low=True)
        if largest is None:
            raise ValueError(f"curvature_min={smallest} needs curvature_max, the other end of the range.")
        return _check.scalar("curvature_max", largest, low=smallest, exclusive_low=True) / smallest
    if largest is not None:
        _check.scalar("curvature_max", largest, low=0.0, exclusive_low=True)
    if kappa is not None:
        return _check.scalar("condition_number", kappa, low=1.0, exclusive_low=True)
    return condition_number_of(0.8 if target is None else target)


def _measured(seconds: Sequence[float] | None, workers: list[int]) -> dict[int, float]:
    """Measured seconds per update by number of workers."""
    if seconds is None:
        return {}
    if _check.numbers("update_seconds", seconds, "a list of numbers").ndim != 1:
        raise TypeError(f"update_seconds must be a list of numbers, got {_check.shown(seconds)}.")
    if len(seconds) != len(workers):
        raise ValueError(
            f"update_seconds has {len(seconds)} values for the {len(workers)} numbers of workers {workers}."
        )
    if workers[0] != 1:
        raise ValueError(f"update_seconds needs the seconds of 1 worker, which num_workers={workers} lacks: add it.")
    values = [_check.scalar("update_seconds", value, low=0.0, exclusive_low=True) for value in seconds]
    return dict(zip(workers, values, strict=True))
