r"""Measures the cluster on which a trace was recorded, and predicts other clusters of such workers.

A trace with times has, for each gradient, the seconds from the read of its version to its update, and the gaps between
updates. If an update takes time at the server, no gap is shorter, and every gap is that long while gradients wait: if
hardly any gap is shorter than the most frequent one, this is the time of the server. With the times of workers and
server the queue is simulated for other numbers of workers or a faster server.

The mean staleness is M - 1 in all cases; its distribution decides whether it acts as a momentum of
:math:`1 - 1/M` (Mitliagkas et al. 2016, Theorems 3 and 5) or as the kernel of Theorem 2.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check, _style, queues, theory
from asyncflax._files import write_atomically
from asyncflax.queues import ServiceTime
from asyncflax.staleness import StalenessLaw, geometric
from asyncflax.staleness import measured as measured_staleness
from asyncflax.trace import Trace

__all__ = ["Cluster", "Scenario", "draw", "files", "measure", "save", "table", "what_if"]

_EVENTS = 20_000  # of each simulation
_WORKERS = (1, 2, 4, 8, 16, 32)
_ENOUGH = 50  # gaps, to detect a server
_STRAGGLER = 2.0  # times the median
_BUSY = 0.95  # of the time; above it hardly any gradient, and so no service time, is free of the wait for the server
_GEOMETRIC = 0.1  # total variation up to which a single momentum suffices
_CLUSTER = "a Cluster (cluster.measure makes one)"


class Cluster(NamedTuple):
    """The measurements of a cluster.

    Attributes:
      num_workers: M, the number of workers.
      events: the number of updates.
      seconds: float, seconds per update.
      service_seconds: float64 [M], the mean seconds of each worker's gradients, without those at the server.
      server_seconds: float, the seconds of the server for one update; 0 if they cannot be detected.
      busy: float, the share of the time in which the server made updates.
      saturation: float, the number of such workers that keep the server busy; inf if its time cannot be detected.
      staleness: the distribution of the staleness, without the first tenth of the events.
      from_geometric: float, the total variation between it and the geometric distribution with mean M - 1.
      service_time: the distribution of the service times.
      fit: float, the seconds per update of a simulation with these measurements, relative to `seconds`; far from 1 if
        times depend on each other, as for workers that share a processor.

    Example: see `measure`.
    """

    num_workers: int
    events: int
    seconds: float
    service_seconds: np.ndarray
    server_seconds: float
    busy: float
    saturation: float
    staleness: StalenessLaw
    from_geometric: float
    service_time: ServiceTime
    fit: float


class Scenario(NamedTuple):
    """A simulated number of workers like those measured.

    Attributes:
      name: 'as measured', 'server twice as fast' or 'no stragglers', in which workers that take more than twice the
        median take the median.
      num_workers: M, the number of workers.
      hardware: float, seconds per update relative to one worker as measured.
      busy: float, the share of the time in which the server makes updates.
      staleness_std: float, the standard deviation of the staleness; its mean is M - 1.
      from_geometric: float, see `Cluster`.

    Example: see `what_if`.
    """

    name: str
    num_workers: int
    hardware: float
    busy: float
    staleness_std: float
    from_geometric: float


def measure(trace: Trace, *, server_seconds: float | None = None) -> Cluster:
    """Measures workers, server and staleness of a trace.

    Args:
      trace: a trace with times; with `begun` if workers may pause before they read the next version.
      server_seconds: the seconds of the server for one update, if known; by default they are detected in the trace,
        which requires that they hardly vary and that at least about one gradient in ten waits.

    Raises:
      TypeError, ValueError: the trace has no times, only one event, or too few of a worker.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5 for the geometric distribution.

    Example:
      >>> from asyncflax import queues
      >>> from asyncflax.theory import cluster
      >>> times = {"service_time": queues.gamma(0.3), "server_time": queues.gamma(0.05, mean=0.1)}
      >>> found = cluster.measure(queues.simulate(num_workers=8, num_updates=4000, **times))
      >>> round(found.server_seconds, 2), round(found.busy, 1), round(found.saturation), found.service_seconds.round(1)
      (0.1, 0.7, 11, array([1., 1., 1., 1., 1., 1., 1., 1.]))
    """
    _check.instance("trace", trace, Trace, "a Trace (see Trace.load and Trace.from_log)")
    gaps = np.diff(() if trace.time is None else trace.time)
    if not gaps.any():
        raise ValueError("trace must have the times of at least two updates.")
    if server_seconds is None:
        server_seconds = _seen_server(gaps) if trace.num_workers > 1 else 0.0
    server_seconds = _check.scalar("server_seconds", server_seconds, low=0.0)
    service_time = queues.measured(trace, server_time=server_seconds)
    means = queues.mean_seconds(service_time, trace.num_workers)
    alone = trace.num_workers / np.sum(1 / (means + server_seconds))  # seconds between a worker's updates if none waits
    staleness = measured_staleness(trace, burn_in=len(trace) // 10)
    cluster = Cluster(
        num_workers=trace.num_workers,
        events=len(trace),
        seconds=float(gaps.mean()),
        service_seconds=means,
        server_seconds=server_seconds,
        busy=min(server_seconds / float(gaps.mean()), 1.0),
        saturation=float(alone) / server_seconds if server_seconds else np.inf,
        staleness=staleness,
        from_geometric=_from_geometric(staleness, trace.num_workers),
        service_time=service_time,
        fit=np.nan,
    )
    return cluster._replace(fit=_simulated(cluster, trace.num_workers, "as measured")[0] / cluster.seconds)


def what_if(
    cluster: Cluster,
    num_workers: Sequence[int] | None = None,
    *,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> list[Scenario]:
    """Simulates other numbers of workers: as measured, with a server twice as fast, without stragglers.

    The workers are those measured: fast and slow ones in the same proportion, in the order of their means.

    Args:
      cluster: the result of `measure`.
      num_workers: increasing numbers M of workers; default 1, 2, 4, 8, 16, 32.
      progress: a function such as tqdm that wraps the iterable of numbers of workers.

    Raises:
      TypeError, ValueError: an argument is out of range.

    Example:
      >>> from asyncflax import queues
      >>> from asyncflax.theory import cluster
      >>> times = {"service_time": queues.gamma(0.3), "server_time": queues.deterministic(0.1)}
      >>> found = cluster.measure(queues.simulate(num_workers=8, num_updates=4000, **times))
      >>> for scenario in cluster.what_if(found, [4, 32]):
      ...     print(f"{scenario.num_workers} {scenario.name}: {scenario.hardware:.2f}, busy {scenario.busy:.0%}")
      4 as measured: 0.25, busy 36%
      4 server twice as fast: 0.24, busy 19%
      32 as measured: 0.09, busy 100%
      32 server twice as fast: 0.05, busy 100%
    """
    _check.instance("cluster", cluster, Cluster, _CLUSTER)
    _check.function("progress", progress, ", such as tqdm")
    workers = _check.integers("num_workers", _WORKERS if num_workers is None else num_workers, 1)
    if not workers or workers != sorted(set(workers)):
        raise ValueError(f"num_workers must be a list of increasing numbers, got {workers}.")
    server, names = cluster.server_seconds, ["as measured"]
    if server:
        names.append("server twice as fast")
    if cluster.service_seconds.max() > _STRAGGLER * np.median(cluster.service_seconds):
        names.append("no stragglers")
    one, _ = _simulated(cluster, 1, "as measured")
    found = []
    for m in progress(workers):
        for name in names:
            seconds, staleness = _simulated(cluster, m, name)
            takes = server / 2 if name == "server twice as fast" else server
            found.append(
                Scenario(
                    name=name,
                    num_workers=m,
                    hardware=seconds / one,
                    busy=min(takes / seconds, 1.0),
                    staleness_std=float(np.sqrt(staleness.variance)),
                    from_geometric=_from_geometric(staleness, m),
                )
            )
    return found


def table(cluster: Cluster, scenarios: Sequence[Scenario], target_momentum: float = 0.8) -> str:
    """The measurements and a table of the scenarios, for the terminal.

    Args:
      cluster: the result of `measure`.
      scenarios: the result of `what_if`.
      target_momentum: mu*, the best momentum of one worker; adds the explicit momentum to set.

    Example:
      >>> from asyncflax import queues
      >>> from asyncflax.theory import cluster
      >>> found = cluster.measure(queues.simulate(num_workers=4, num_updates=4000, service_time=queues.exponential()))
      >>> print(cluster.table(found, cluster.what_if(found, [2, 4])))  # doctest: +ELLIPSIS
      Measured: 4,000 updates by 4 workers, 0.2497 s an update
      ...
    """
    _check.instance("cluster", cluster, Cluster, _CLUSTER)
    target = _check.scalar(
        "target_momentum", target_momentum, low=0.0, high=1.0, exclusive_low=True, exclusive_high=True
    )
    names = [*dict.fromkeys(scenario.name for scenario in _checked(scenarios))]
    lines = [
        *_measured_lines(cluster, target),
        "",
        "What if: seconds per update relative to one worker, share of the time in which the server is busy, standard",
        "deviation of the staleness and its total variation from geometric",
        " workers" + "".join(f"  {name:^30}" for name in names),
        "        " + "".join("   seconds   busy    std    from" for _ in names),
    ]
    for m in dict.fromkeys(scenario.num_workers for scenario in scenarios):
        cells = [
            f"  {found.hardware:8.4f}  {found.busy:5.0%}  {found.staleness_std:6.2f}  {found.from_geometric:5.2f} "
            for found in scenarios
            if found.num_workers == m
        ]
        lines.append(f"  {m:6d}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _measured_lines(cluster: Cluster, target: float) -> list[str]:
    m, means, law = cluster.num_workers, cluster.service_seconds, cluster.staleness
    workers = f"mean {means.mean():.4g} s, of one worker {means.min():.4g} to {means.max():.4g}"
    if cluster.busy > _BUSY:
        workers += ", not to be told from the wait for the server"
    slow = np.flatnonzero(means > _STRAGGLER * np.median(means))
    if len(slow):
        workers += f"; stragglers: {_style.listed(slow, 'd')}"
    server = "no time is seen: updates are as close to each other as chance has them"
    if cluster.server_seconds:
        server = (
            f"{cluster.server_seconds:.4g} s an update, busy {cluster.busy:.0%} of the time; it saturates at "
            f"{cluster.saturation:.3g} workers"
        )
    staleness = f"mean {law.mean:.4g}, standard deviation {np.sqrt(law.variance):.3g}"
    acts = "the kernel of Theorem 2 over past gradients, not as one momentum"
    if cluster.from_geometric <= _GEOMETRIC:
        implicit = 1 - 1 / m
        acts = (
            f"an implicit momentum of 1 - 1/M = {implicit:.3f}; to set, mu* - {implicit:.3f} = {target - implicit:+.3f}"
        )
    return [
        f"Measured: {cluster.events:,} updates by {_style.workers(m)}, {cluster.seconds:.4g} s an update",
        f"  service time  {workers}",
        f"  server        {server}",
        f"  staleness     {staleness}, {cluster.from_geometric:.2f} from geometric in total variation",
        f"  it acts as    {acts}",
        f"  check         a queue of these times takes {cluster.fit:.3g} times the measured seconds an update",
    ]


def draw(figure: Any, cluster: Cluster, scenarios: Sequence[Scenario]) -> None:
    """Three panels: the staleness, its kernel of Theorem 2, and the seconds per update against workers.

    Args:
      figure: an empty `matplotlib.figure.Figure`.
      cluster: the result of `measure`.
      scenarios: the result of `what_if`.

    Example:
      >>> from matplotlib.figure import Figure
      >>> from asyncflax import queues
      >>> from asyncflax.theory import cluster
      >>> found = cluster.measure(queues.simulate(num_workers=4, num_updates=4000, service_time=queues.exponential()))
      >>> figure = Figure(figsize=(15, 4.5))
      >>> cluster.draw(figure, found, cluster.what_if(found, [2, 4]))
      >>> len(figure.axes)
      3
    """
    _check.instance("cluster", cluster, Cluster, _CLUSTER)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 3)
    laws = {
        "measured": cluster.staleness,
        f"geometric, mean {cluster.num_workers - 1}": geometric(cluster.num_workers - 1),
    }
    last = max(int(cluster.staleness.bound(0.005)), 1)
    for k, (label, law) in enumerate(laws.items()):
        look = _style.look(k, last + 1)
        panels[0].plot(range(last + 1), law.pmf(np.arange(last + 1)), **look, label=label)
        past = np.append(theory.momentum_kernel(law).past, np.zeros(last + 1))[: last + 1]
        panels[1].plot(range(1, last + 2), past, **look, label=label)
    for k, name in enumerate(dict.fromkeys(scenario.name for scenario in _checked(scenarios))):
        of_name = [scenario for scenario in scenarios if scenario.name == name]
        workers, hardware = zip(*((scenario.num_workers, scenario.hardware) for scenario in of_name), strict=True)
        panels[2].plot(workers, hardware, **_style.look(k, len(workers)), label=name)
    if scenarios:
        workers = sorted({scenario.num_workers for scenario in scenarios})
        panels[2].plot(workers, 1 / np.array(workers), color=_style.GREY, linestyle=":", label="1/M")
        _style.log_ticks(panels[2], workers)
        _style.plain_log(panels[2], "y")
    if np.isfinite(cluster.saturation):
        panels[2].axvline(cluster.saturation, color="0.8", linewidth=1, zorder=0, label="the server saturates")
    panels[0].set(title="staleness", xlabel="staleness (updates)", ylabel="share of the gradients")
    panels[1].set(title="the kernel of Theorem 2", xlabel="age of the gradient (updates)", ylabel="weight given back")
    panels[2].set(title="what if", xlabel="workers M", ylabel="seconds per update, relative to one worker")
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.legend(fontsize="small")
    _style.title(figure, f"{cluster.events:,} updates by {_style.workers(cluster.num_workers)}")


def files(folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[pathlib.Path]:
    """The paths that `save` writes: cluster.json and cluster.png in a folder.

    Args:
      folder: the folder, which need not exist.
      overwrite: whether the files may exist.

    Raises:
      FileExistsError: one of the files exists.

    Example:
      >>> from asyncflax.theory import cluster
      >>> [path.name for path in cluster.files("runs/no-plan")]
      ['cluster.json', 'cluster.png']
    """
    folder, overwrite = _check.path("folder", folder), _check.boolean("overwrite", overwrite)
    paths = [folder / name for name in ("cluster.json", "cluster.png")]
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; pass overwrite=True to replace it.")
    return paths


def save(
    cluster: Cluster, scenarios: Sequence[Scenario], folder: str | os.PathLike[str], *, overwrite: bool = False
) -> list[pathlib.Path]:
    """Writes cluster.json and cluster.png atomically. Requires matplotlib (the extra `train`).

    Args:
      cluster: the result of `measure`.
      scenarios: the result of `what_if`.
      folder: the folder, created if it does not exist.
      overwrite: whether to replace existing files.

    Returns:
      The paths.

    Raises:
      FileExistsError: one of the files exists; nothing is written.

    Example:
      >>> import tempfile
      >>> from asyncflax import queues
      >>> from asyncflax.theory import cluster
      >>> found = cluster.measure(queues.simulate(num_workers=4, num_updates=4000, service_time=queues.exponential()))
      >>> [path.name for path in cluster.save(found, cluster.what_if(found, [2, 4]), tempfile.mkdtemp())]
      ['cluster.json', 'cluster.png']
    """
    _check.instance("cluster", cluster, Cluster, _CLUSTER)
    paths = files(folder, overwrite=overwrite)
    content = cluster._asdict() | {
        "service_time": str(cluster.service_time),
        "service_seconds": cluster.service_seconds.tolist(),
        "staleness": cluster.staleness.table.tolist(),
        "saturation": cluster.saturation if np.isfinite(cluster.saturation) else None,
        "scenarios": [scenario._asdict() for scenario in _checked(scenarios)],
    }
    figure = _style.new_figure(15, 4.8)
    draw(figure, cluster, scenarios)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(paths[0], lambda file: file.write(text.encode()))
    _style.save(figure, paths[1])
    return paths


def _checked(scenarios: Sequence[Scenario]) -> list[Scenario]:
    if not isinstance(scenarios, list | tuple) or not all(isinstance(scenario, Scenario) for scenario in scenarios):
        raise TypeError(f"scenarios must be a list from what_if, got {_check.shown(scenarios)}.")
    return [*scenarios]


def _seen_server(gaps: np.ndarray) -> float:
    """The most frequent gap if hardly any are shorter and enough are alike; else 0: gaps are due to workers."""
    if len(gaps) < _ENOUGH:
        return 0.0
    ordered = inside = np.sort(gaps)
    while len(inside) > 3:  # the half-sample mode
        half = -(-len(inside) // 2)
        first = int(np.argmin(inside[half - 1 :] - inside[: len(inside) - half + 1]))
        inside = inside[first : first + half]
    mode = float(np.median(inside))
    shorter, alike = np.mean(ordered < 0.5 * mode), np.mean(np.abs(ordered - mode) <= 0.3 * mode)
    return mode if shorter <= 0.03 and alike >= 0.06 else 0.0


def _from_geometric(law: StalenessLaw, num_workers: int) -> float:
    values = np.arange(law.maximum + 1)
    other = geometric(num_workers - 1.0)
    return float(np.abs(law.pmf(values) - other.pmf(values)).sum() + other.tail(law.maximum)) / 2


def _simulated(cluster: Cluster, num_workers: int, name: str) -> tuple[float, StalenessLaw]:
    """The seconds per update and the staleness of a scenario."""
    order = np.argsort(cluster.service_seconds, kind="stable")
    picked = order[((np.arange(num_workers) + 0.5) * cluster.num_workers / num_workers).astype(int)]
    means, median = cluster.service_seconds[picked], np.median(cluster.service_seconds)
    if name == "no stragglers":
        means = np.where(means > _STRAGGLER * median, median, means)
    tasks = tuple(cluster.service_time.task_of(int(i)) for i in picked)
    seconds = cluster.server_seconds / (2 if name == "server twice as fast" else 1)
    trace = queues.simulate(
        num_workers=num_workers,
        num_updates=_EVENTS,
        service_time=ServiceTime(name, lambda rng, m: means, tasks),
        server_time=queues.deterministic(seconds) if seconds else None,
    )
    assert trace.time is not None
    return float(trace.time[-1]) / _EVENTS, measured_staleness(trace, burn_in=_EVENTS // 10)
