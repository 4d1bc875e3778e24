r"""How many workers, which momentum, which step size: what the exact theory says before anything is trained.

For each number of workers M: the implicit momentum, the explicit momentum to set, the stable step sizes, and

    hardware efficiency     seconds per update relative to one worker: the queue's clock
    statistical efficiency  updates to the target relative to one worker: exact recursions on quadratics
    time                    their product; where it rises with M, asynchrony costs more than it gives

after Mitliagkas et al. 2016 (arXiv:1605.09774), section 1. Statistical efficiency is worked out twice, for curvatures
in :math:`[L / \kappa, L]`: for the mean E x, which is what the theorems and Figure 2 are about, and for the root mean
square of x, which is what a run sees. Staleness is random, so the second allows far smaller steps. The quadratics have
no gradient noise; noise is what many synchronous workers average away, and it favours more workers.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check, _style, queues, theory
from asyncflax._files import write_atomically
from asyncflax.queues import ServiceTime
from asyncflax.staleness import StalenessLaw, empirical
from asyncflax.trace import Trace

__all__ = ["ClusterPlan", "Forecast", "advice", "condition_number_of", "draw", "files", "make", "save", "table"]

_EVENTS = 20_000  # of a simulated queue, from which its law of staleness is counted
_ROUNDS = 4_000  # of simulated barriers
_PLAN = "a ClusterPlan (planner.make makes one)"
_WORKERS = (1, 2, 4, 8, 16)
_MOMENTA = (-0.6, -0.3, 0.0, 0.3, 0.6)  # what is tried where no momentum is best to more digits


class Forecast(NamedTuple):
    r"""What the theory says about one number of workers.

    Attributes:
      num_workers: M.
      staleness: float, the mean staleness.
      implicit_momentum: float, 1 - 1/M; nan where the staleness is not geometric and there is no one momentum.
      rule_momentum: float, mu* - (1 - 1/M), the rule of Figure 2; nan as above.
      mean_momentum: float, the explicit momentum with which E x shrinks fastest.
      mean_step_size: float, alpha L with which it does.
      mean_updates: float, updates to the target relative to one worker.
      mean_time: float, `mean_updates` times `hardware`.
      run_momentum: float, the explicit momentum with which the root mean square shrinks fastest: what to set.
      run_step_size: float, alpha L with which it does.
      run_updates: float, updates to the target relative to one worker.
      run_time: float, `run_updates` times `hardware`.
      mean_limit: float, alpha L up to which E x is stable at `mean_momentum`.
      run_limit: float, alpha L up to which E x^2 is at `run_momentum`: the largest step that a run survives.
      hardware: float, seconds per update relative to one worker; nan without a clock.
      barrier: float, seconds per gradient if the workers wait for each other, relative to one worker; nan as above.

    Example: see `make`.
    """

    num_workers: int
    staleness: float
    implicit_momentum: float
    rule_momentum: float
    mean_momentum: float
    mean_step_size: float
    mean_updates: float
    mean_time: float
    run_momentum: float
    run_step_size: float
    run_updates: float
    run_time: float
    mean_limit: float
    run_limit: float
    hardware: float
    barrier: float


class ClusterPlan(NamedTuple):
    """The forecasts of all numbers of workers, and what they are for.

    Attributes:
      forecasts: list of `Forecast`, by number of workers.
      condition_number: float, kappa.
      target_momentum: float, mu*, what is best for one worker.
      curvature_max: float, L; nan where it is unknown, and with it the absolute step size.
      updates: float, updates per factor e of one worker at its best.
      source: str, where the asynchrony comes from.

    Example: see `make`.
    """

    forecasts: list[Forecast]
    condition_number: float
    target_momentum: float
    curvature_max: float
    updates: float
    source: str


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
    target_momentum: float | None = None,
    condition_number: float | None = None,
    curvature_min: float | None = None,
    curvature_max: float | None = None,
    update_seconds: Sequence[float] | None = None,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> ClusterPlan:
    r"""Forecasts for several numbers of workers, or for the asynchrony of a trace.

    With exponential work everything is exact. Any other service time, and a trace, is known by a histogram of its
    staleness (of 20,000 simulated events): the mean then follows Theorem 2's kernel with no one momentum, explicit
    momenta are compared in steps of 0.3, and mean squares are those of independent draws, a little larger than in the
    queue.

    Args:
      num_workers: the numbers M of workers; default 1, 2, 4, 8, 16, or that of the trace.
      service_time: how long one gradient takes, a law of `asyncflax.queues`; default exponential.
      trace: instead of a queue; it must say how many workers it has, else M is 1 + its mean staleness.
      target_momentum: mu*, the momentum that is best for one worker; 0.8 if nothing says otherwise.
      condition_number: kappa, instead of mu*.
      curvature_min: the smallest curvature, instead of mu*.
      curvature_max: the largest one, L.
      update_seconds: measured seconds per update for each number of workers, 1 among them, instead of the clock.
      progress: is called with the numbers of workers and gives them back one by one, as tqdm does.

    Raises:
      TypeError, ValueError: an argument is out of range, or two say the same in different ways.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorems 2, 3 and 5 and Figure 2; recursions derived.

    Example: two workers have an implicit momentum of 1/2, and the mean wants less on top of it than the run does.
      >>> from asyncflax.theory import planner
      >>> plan = planner.make([1, 2], condition_number=9.0)
      >>> [round(forecast.rule_momentum, 3) for forecast in plan.forecasts]
      [0.25, -0.25]
      >>> print(planner.table(plan))  # doctest: +ELLIPSIS
      What to set, for curvatures from L/9 to L (mu* = 0.25), exponential(1.0)
      ...
    """
    _check.function("progress", progress, ", such as tqdm")
    kappa = _kappa(target_momentum, condition_number, curvature_min, curvature_max)
    law = queues.exponential() if service_time is None else service_time
    _check.instance("service_time", law, ServiceTime, "a law of asyncflax.queues such as exponential()")
    if trace is None:
        workers = _check.integers("num_workers", _WORKERS if num_workers is None else num_workers, 1)
        if not workers or workers != sorted(set(workers)):
            raise ValueError(f"num_workers must be a list of increasing numbers, got {workers}.")
        asynchrony = lambda m: _of_queue(law, m)
        one = float(np.mean(queues.mean_seconds(law, max(workers))))  # seconds of an average worker
    else:
        _check.instance("trace", trace, Trace, "a Trace, see Trace.load")
        for name, value in {"service_time": service_time, "num_workers": num_workers}.items():
            if value is not None:
                raise ValueError(f"{name} and trace exclude each other, got both; keep one.")
        stale = _of_trace(trace)
        workers = [trace.num_workers if trace.num_workers > 1 else round(1 + stale.mean)]
        asynchrony = lambda m: (stale, *_clock(trace))
        one = _seconds_of_one(trace)
    measured = _measured(update_seconds, workers)

    target = ((math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)) ** 2
    reference = theory.BestHyperParameters(target, 4 / (1 + 1 / math.sqrt(kappa)) ** 2, math.sqrt(target))
    updates = _updates(reference.radius)
    forecasts = []
    for m in progress(workers):
        staleness, seconds, barrier = asynchrony(m)
        mean, run = _best(staleness, kappa, reference)
        geometric = isinstance(staleness, theory.ExponentialQueue)
        implicit = theory.implicit_momentum(m) if geometric else math.nan
        hardware = measured[m] / measured[1] if measured else seconds / one
        forecasts.append(
            Forecast(
                num_workers=m,
                staleness=m - 1.0 if isinstance(staleness, theory.ExponentialQueue) else staleness.mean,
                implicit_momentum=implicit,
                rule_momentum=target - implicit,
                mean_momentum=mean.momentum,
                mean_step_size=mean.step_size,
                mean_updates=_updates(mean.radius) / updates,
                mean_time=_updates(mean.radius) / updates * hardware,
                run_momentum=run.momentum,
                run_step_size=run.step_size,
                run_updates=_updates(run.radius) / updates,
                run_time=_updates(run.radius) / updates * hardware,
                mean_limit=theory.stability_limit(staleness, mean.momentum),
                run_limit=theory.mean_square_limit(staleness, run.momentum),
                hardware=hardware,
                barrier=barrier / one,
            )
        )
    largest = math.nan if curvature_max is None else float(curvature_max)
    source = str(law) if trace is None else f"a trace of {len(trace):,} events"
    return ClusterPlan(forecasts, kappa, target, largest, updates, source)


def table(plan: ClusterPlan) -> str:
    """Two tables for the terminal: what to set, and what it buys.

    Args:
      plan: from `make`.

    Example: see `make`.
    """
    _check.instance("plan", plan, ClusterPlan, _PLAN)
    kappa, target = plan.condition_number, plan.target_momentum
    known = plan.curvature_max == plan.curvature_max
    lines = [
        f"What to set, for curvatures from L/{kappa:.4g} to L (mu* = {target:.3g}), {plan.source}",
        "          momentum                                    step size times L = stable up to",
        " workers  implicit  mu*-impl.  best mean  best run    best mean  best run   mean (E x)  run (E x^2)"
        + ("  largest step" if known else ""),
    ]
    for f in plan.forecasts:
        lines.append(
            f"  {f.num_workers:6d}  {_text(f.implicit_momentum, '8.3f')}  {_text(f.rule_momentum, '+9.3f')}  "
            f"{f.mean_momentum:+9.3f}  {f.run_momentum:+8.3f}    {f.mean_step_size:9.4g}  {f.run_step_size:8.4g}   "
            f"{f.mean_limit:10.4g}  {f.run_limit:11.4g}"
            + (f"  {f.run_limit / plan.curvature_max:12.4g}" if known else "")
        )
    lines += [
        "",
        f"What it buys, relative to one worker ({plan.updates:.1f} updates per factor e of the distance)",
        "          seconds per update     updates to the target    time = seconds x updates",
        " workers  async     barrier      mean       run           mean       run",
    ]
    for f in plan.forecasts:
        lines.append(
            f"  {f.num_workers:6d}  {_text(f.hardware, '8.4f')}  {_text(f.barrier, '8.4f')}     {f.mean_updates:8.3f}  "
            f"{f.run_updates:8.2f}      {_text(f.mean_time, '8.4f')}  {_text(f.run_time, '8.3f')}"
        )
    return "\n".join(lines)


def advice(plan: ClusterPlan) -> str:
    """What follows from the forecasts, in sentences.

    Args:
      plan: from `make`.

    Example:
      >>> from asyncflax.theory import planner
      >>> print(planner.advice(planner.make([1, 2], condition_number=1.5)).splitlines()[0])  # doctest: +ELLIPSIS
      Asynchrony alone has the momentum mu* at 1.01 workers; with more, the mean wants negative explicit momentum.
    """
    _check.instance("plan", plan, ClusterPlan, _PLAN)
    forecasts, sentences = plan.forecasts, []
    if math.isfinite(forecasts[-1].implicit_momentum):
        workers = theory.turning_point(plan.target_momentum)
        sentences.append(
            f"Asynchrony alone has the momentum mu* at {workers:.3g} workers; "
            "with more, the mean wants negative explicit momentum."
        )
    else:
        sentences.append(
            "The staleness is a histogram, not a geometric law: it acts as a kernel over past gradients, not as one "
            "momentum. "
            "Explicit momenta were compared in steps of 0.3; mean squares are those of independent draws."
        )
    if math.isnan(forecasts[-1].hardware):
        sentences.append("There is no clock, so nothing is said about hardware efficiency; see update_seconds.")
    else:
        sentences += [_balance(forecasts, "the mean", "mean_time"), _balance(forecasts, "a run", "run_time")]
        sentences.append("Gradients have no noise here; noise makes small steps best for one worker too.")
    beyond = [f.num_workers for f in forecasts if f.mean_step_size > f.run_limit and f.num_workers > 1]
    if beyond:
        sentences.append(
            f"At {', '.join(map(str, beyond))} workers the step size that is best for the mean is more than a run "
            "survives: the mean converges while trajectories blow up. To train, stay below the limit of E x^2."
        )
    return "\n".join(sentences)


def draw(figure: Any, plan: ClusterPlan) -> None:
    """Three panels against the number of workers: momentum, step sizes, and time.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      plan: from `make`.

    Example:
      >>> from matplotlib.figure import Figure
      >>> from asyncflax.theory import planner
      >>> figure = Figure(figsize=(15, 4.5))
      >>> planner.draw(figure, planner.make([1, 2], condition_number=9.0))
      >>> len(figure.axes)
      3
    """
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 3)
    column = lambda name: np.array([getattr(f, name) for f in plan.forecasts])
    workers, mean, run = column("num_workers"), _style.look(0), _style.look(1)
    limits, grey = {"linestyle": "--", "marker": ""}, {"color": _style.GREY, "linestyle": "--"}
    what = (
        {
            "implicit, 1 - 1/M": ("implicit_momentum", grey),
            "rule: mu* - (1 - 1/M)": ("rule_momentum", _style.look(2)),
            "best for the mean": ("mean_momentum", mean),
            "best for a run": ("run_momentum", run),
        },
        {
            "limit of the mean, E x": ("mean_limit", mean | limits),
            "best for the mean": ("mean_step_size", mean),
            "limit of a run, E x^2": ("run_limit", run | limits),
            "best for a run": ("run_step_size", run),
        },
        {
            "seconds per update": ("hardware", grey),
            "seconds per gradient with barriers": ("barrier", grey | {"linestyle": ":"}),
            "time to the target, mean": ("mean_time", mean),
            "time to the target, a run": ("run_time", run),
        },
    )
    for axes, lines in zip(panels, what, strict=True):
        for label, (name, look) in lines.items():
            if np.isfinite(column(name)).any():
                axes.plot(workers, column(name), **look, label=label)
        _style.log_ticks(axes, workers)
        axes.set_xlabel("workers M")
        axes.grid(alpha=0.25)
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=2, frameon=False)
    momentum, step, time = panels
    momentum.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    momentum.set(title="what to set", ylabel="momentum")
    step.set(title="how large a step", ylabel="step size times the largest curvature")
    time.set(title="what it buys (stars: best)", ylabel="relative to one worker")
    for name, look in (("mean_time", mean), ("run_time", run)):
        if np.isfinite(column(name)).all():
            best = int(np.argmin(column(name)))
            time.plot(workers[best], column(name)[best], marker="*", color=look["color"], markersize=14, zorder=3)
    for axes in (step, time):
        _style.plain_log(axes, "y")
    condition = f"condition number {plan.condition_number:.4g}, mu* = {plan.target_momentum:.3g}"
    _style.title(figure, f"{plan.source}, {condition}")


def files(folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[pathlib.Path]:
    """Where `save` writes: plan.csv, plan.json and plan.png in a folder.

    Args:
      folder: need not exist.
      overwrite: whether files may be there.

    Raises:
      FileExistsError: one of the files exists.
      NotADirectoryError: the folder is a file.

    Example:
      >>> from asyncflax.theory import planner
      >>> [path.name for path in planner.files("runs/no-plan")]
      ['plan.csv', 'plan.json', 'plan.png']
    """
    folder, overwrite = _check.path("folder", folder), _check.boolean("overwrite", overwrite)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, it must be a folder or a new name.")
    paths = [folder / f"plan.{suffix}" for suffix in ("csv", "json", "png")]
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; pass overwrite=True to replace it.")
    return paths


def save(plan: ClusterPlan, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[pathlib.Path]:
    """Writes plan.csv, plan.json and plan.png, each whole or not at all. Needs matplotlib (the extra `train`).

    Args:
      plan: from `make`.
      folder: is made if there is none.
      overwrite: replaces what is there.

    Returns:
      The three paths.

    Raises:
      FileExistsError: one of the files exists; nothing has been written.

    Example:
      >>> import tempfile
      >>> from asyncflax.theory import planner
      >>> [path.name for path in planner.save(planner.make([1, 2], condition_number=9.0), tempfile.mkdtemp())]
      ['plan.csv', 'plan.json', 'plan.png']
    """
    _check.instance("plan", plan, ClusterPlan, _PLAN)
    paths = files(folder, overwrite=overwrite)
    rows = [[_number(value) for value in forecast] for forecast in plan.forecasts]
    lines = [Forecast._fields, *(["" if value is None else repr(value) for value in row] for row in rows)]
    about = {name: _number(value) for name, value in plan._asdict().items() if name != "forecasts"}
    content = {**about, "forecasts": [dict(zip(Forecast._fields, row, strict=True)) for row in rows]}
    figure = _style.new_figure(15, 5.4)
    draw(figure, plan)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    text = "".join(",".join(line) + "\n" for line in lines)
    write_atomically(paths[0], lambda file: file.write(text.encode()))
    write_atomically(
        paths[1], lambda file: file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    )
    _style.save(figure, paths[2])
    return paths


def _kappa(target: float | None, kappa: float | None, smallest: float | None, largest: float | None) -> float:
    """The condition number, whichever way it was given."""
    given = [
        name
        for name, value in (("target_momentum", target), ("condition_number", kappa), ("curvature_min", smallest))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} say the same in two ways, got both; keep one.")
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


def _of_queue(law: ServiceTime, num_workers: int) -> tuple[theory.ExponentialQueue | StalenessLaw, float, float]:
    """The staleness, the seconds per update and the seconds per gradient with barriers of so many workers."""
    means = queues.mean_seconds(law, num_workers)
    seconds = float(1 / np.sum(1 / means))  # exact in the long run, for any law
    rounds = queues.barrier(num_workers=num_workers, num_updates=_ROUNDS * num_workers, service_time=law)
    barrier = _clock(rounds)[0] if num_workers > 1 else seconds
    if num_workers == 1 or law.staleness(num_workers) is not None:
        return theory.ExponentialQueue(num_workers), seconds, barrier
    trace = queues.simulate(num_workers=num_workers, num_updates=_EVENTS, service_time=law)
    return _of_trace(trace), seconds, barrier


def _of_trace(trace: Trace) -> StalenessLaw:
    """The histogram of the staleness, without the first tenth of the events, in which the queue fills."""
    staleness = trace.staleness[len(trace) // 10 :]
    return empirical(np.bincount(staleness) / len(staleness))


def _clock(trace: Trace) -> tuple[float, float]:
    """The seconds per update of a trace; what it would be with barriers is unknown."""
    if trace.time is None or len(trace) == 1:
        return math.nan, math.nan
    return float(trace.time[-1]) / len(trace), math.nan


def _seconds_of_one(trace: Trace) -> float:
    """The mean seconds between two deliveries of one worker, averaged over the workers."""
    if trace.time is None:
        return math.nan
    between = [np.diff(trace.time[trace.worker == i], prepend=0.0) for i in np.unique(trace.worker)]
    return float(np.mean([np.mean(seconds) for seconds in between]))


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


def _best(
    staleness: theory.ExponentialQueue | StalenessLaw, kappa: float, reference: theory.BestHyperParameters
) -> tuple[theory.BestHyperParameters, theory.BestHyperParameters]:
    """What is best for the mean and for the root mean square; radius is the factor per update of either."""
    if isinstance(staleness, theory.ExponentialQueue):
        if staleness.num_workers == 1:
            return reference, reference
        return theory.best_hyper_parameters(staleness, kappa), _best_of_runs(staleness.num_workers, kappa)
    means = [theory.best_hyper_parameters(staleness, kappa, momentum=momentum) for momentum in _MOMENTA]
    mean = min(means, key=lambda best: best.radius)
    if np.count_nonzero(staleness.table) == 1:
        return mean, mean  # nothing is random: runs are the mean
    # The flattest direction shrinks by h / (kappa (1 - mu_L)) an update: the momentum that allows the most of it.
    momentum = max(_MOMENTA, key=lambda momentum: theory.mean_square_limit(staleness, momentum) / (1 - momentum))
    radius = lambda h: theory.mean_square_radius(staleness, h, momentum=momentum)
    h, square = _balanced(radius, theory.mean_square_limit(staleness, momentum), kappa, halvings=7)
    return mean, theory.BestHyperParameters(momentum, h, math.sqrt(square))


def _best_of_runs(num_workers: int, kappa: float) -> theory.BestHyperParameters:
    """What makes the root mean square shrink fastest in the exponential queue: grids of momenta, each finer."""
    best = theory.BestHyperParameters(0.0, 0.0, math.inf)
    for spacing, count in ((0.08, 11), (0.02, 4), (0.004, 5)):
        for momentum in best.momentum + spacing * np.arange(-count, count + 1):
            # The map is of second degree in h, so three of them say all.
            at_0, at_1, at_2 = (theory.queue_mean_square_matrix(num_workers, h, momentum) for h in (0.0, 1.0, 2.0))
            linear, square = (4 * at_1 - 3 * at_0 - at_2) / 2, (at_0 - 2 * at_1 + at_2) / 2
            radius = lambda h, a=at_0, b=linear, c=square: float(np.abs(np.linalg.eigvals(a + h * b + h**2 * c)).max())
            unstable = (1 - abs(momentum)) / num_workers
            while radius(unstable) < 1:
                unstable *= 2
            h, reached = _balanced(radius, unstable, kappa, halvings=20)
            if math.sqrt(reached) < best.radius:
                best = theory.BestHyperParameters(float(momentum), h, math.sqrt(reached))
    return best


def _balanced(radius: Callable[[float], float], unstable: float, kappa: float, *, halvings: int) -> tuple[float, float]:
    """The step at which the steepest direction shrinks as fast as the flattest, and the larger factor there.

    The radius falls with h, then rises to 1 and beyond: the worst direction is one of the two.
    """
    low, high = 0.0, unstable
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) < radius(middle / kappa) else (low, middle)
    h = float(low or high)
    return h, max(radius(h), radius(h / kappa))


def _updates(radius: float) -> float:
    """Updates per factor e."""
    return -1 / math.log(radius) if radius < 1 else math.inf


def _balance(forecasts: list[Forecast], who: str, field: str) -> str:
    best = min(forecasts, key=lambda forecast: getattr(forecast, field))
    time, last = getattr(best, field), forecasts[-1]
    at = lambda forecast: f"{getattr(forecast, field):.3g} times its time at {forecast.num_workers} workers"
    if best.num_workers == 1 or time >= 1:
        others = dict.fromkeys((forecasts[1 if forecasts[0].num_workers == 1 and last.num_workers > 1 else 0], last))
        return (
            f"For {who}, one worker is the fastest: asynchrony costs more than it gives ({', '.join(map(at, others))})."
        )
    start = (
        f"For {who}, {best.num_workers} workers are the fastest of these, with {time:.3g} times the time of one worker"
    )
    if best is last:
        return f"{start}; up to there asynchrony gives more than it costs."
    return f"{start}; beyond, asynchrony costs more than it gives ({at(last)})."


def _text(value: float, form: str) -> str:
    width = form.lstrip("+").partition(".")[0]
    return f"{value:{form}}" if math.isfinite(value) else f"{'-':>{width}}"


def _number(value: Any) -> Any:
    """As JSON knows it; nan is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
