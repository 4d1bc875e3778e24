"""Plots of traces and runs, drawn on given `matplotlib.axes.Axes`. Requires matplotlib (the extra `train`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asyncflax import _check, _style
from asyncflax.staleness import StalenessLaw
from asyncflax.trace import Trace

__all__ = ["curves", "momentum", "staleness_histogram", "training"]


def staleness_histogram(axes: Any, trace: Trace, law: StalenessLaw | None = None, *, burn_in: int = 0) -> None:
    """Histogram of the staleness of a trace, with the expected distribution as a line.

    Args:
      axes: the axes to draw on.
      trace: the trace.
      law: the expected distribution, or None.
      burn_in: the number of initial events to skip.

    Example:
      >>> import asyncflax
      >>> from matplotlib.figure import Figure
      >>> law = asyncflax.staleness.geometric(mean=7.0)
      >>> axes = Figure().subplots()
      >>> asyncflax.plots.staleness_histogram(axes, law.trace(5000), law, burn_in=100)
      >>> axes.get_xlabel()
      'staleness (updates)'
    """
    burn_in = _check.integer("burn_in", burn_in, 0)
    staleness = trace.staleness[burn_in:]
    if len(staleness) == 0:
        raise ValueError(f"burn_in={burn_in} must be less than the number of events, {len(trace)}.")
    last = int(np.quantile(staleness, 0.995))
    values = np.arange(last + 1)
    share = np.bincount(staleness, minlength=last + 1)[: last + 1] / len(staleness)
    label = f"{_style.workers(trace.num_workers)}, mean {staleness.mean():.1f}"
    axes.bar(values, share, width=0.9, color="0.75", label=label)
    if law is not None:
        axes.plot(values, law.pmf(values), **_style.look(1, len(values)), label=str(law))
    axes.set(xlim=(-0.7, max(last, 1) + 0.7), xlabel="staleness (updates)", ylabel="share of the gradients")
    _style.integer_ticks(axes.xaxis)
    axes.legend()


def curves(
    axes: Any, x: Mapping[str, Sequence[float]], y: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str
) -> None:
    """One line per run, such as the loss against updates or simulated seconds.

    Runs without points are skipped.

    Args:
      axes: the axes to draw on.
      x, y: the values of each run, by its name.
      xlabel, ylabel: labels with units.

    Example:
      >>> import asyncflax
      >>> from matplotlib.figure import Figure
      >>> axes = Figure().subplots()
      >>> asyncflax.plots.curves(axes, {"1 worker": [0, 1]}, {"1 worker": [2.3, 0.4]}, xlabel="updates", ylabel="loss")
      >>> len(axes.lines)
      1
    """
    if x.keys() != y.keys():
        raise ValueError(f"x and y must have the same runs, got {sorted(x)} and {sorted(y)}.")
    for k, name in enumerate(x):
        if len(x[name]):
            axes.plot(x[name], y[name], **_style.look(k, len(x[name])), label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if axes.lines:
        axes.legend()


def momentum(axes: Any, rows: Sequence[Mapping[str, Any]], law: StalenessLaw | None = None) -> None:
    """Measured implicit and total momentum with their intervals, and the theoretical value.

    Args:
      axes: the axes to draw on.
      rows: the rows of metrics (see `records.Records`); those with 'implicit_momentum' are drawn.
      law: the distribution of the staleness; a geometric one adds a line at its `implicit_momentum`.

    Example:
      >>> import asyncflax
      >>> from matplotlib.figure import Figure
      >>> row = {"implicit_momentum_low": 0.8, "implicit_momentum_high": 0.9, "total_momentum": 1.15}
      >>> rows = [{"update": update, "implicit_momentum": 0.85, **row} for update in (100, 200)]
      >>> axes = Figure().subplots()
      >>> asyncflax.plots.momentum(axes, rows, asyncflax.staleness.geometric(mean=7.0))
      >>> len(axes.lines)
      3
    """
    rows = [row for row in rows if "implicit_momentum" in row]
    column = lambda name: np.array([row[name] for row in rows])
    updates, implicit = column("update"), column("implicit_momentum")
    low, high = column("implicit_momentum_low"), column("implicit_momentum_high")
    explicit = column("total_momentum") - implicit
    drawn = {"implicit": 0.0, "total, to first order": explicit}
    for k, (label, shift) in enumerate(list(drawn.items())[: 2 if np.any(explicit) else 1]):
        look = _style.look(k, len(updates))
        axes.plot(updates, implicit + shift, **look, label=label)
        axes.fill_between(updates, low + shift, high + shift, color=look["color"], alpha=0.2, linewidth=0)
    theory = None if law is None else law.implicit_momentum
    if theory is not None:
        axes.axhline(theory, color="black", linestyle="--", label=f"implicit, in theory: {theory:.3g}")
    axes.set(xlabel="updates", ylabel="momentum of the window before")
    _style.integer_ticks(axes.xaxis)
    axes.legend()


def training(
    figure: Any, rows: Sequence[Mapping[str, Any]], trace: Trace, law: StalenessLaw | None = None, *, burn_in: int = 0
) -> None:
    """Overview of a run: loss and accuracy against updates and simulated time, gap, momentum, staleness.

    Panels without data (accuracy, momentum, simulated time) are omitted.

    Args:
      figure: an empty `matplotlib.figure.Figure`.
      rows: the rows of metrics (see `records.Records`).
      trace: the trace of the run.
      law, burn_in: see `staleness_histogram`.

    Example:
      >>> import asyncflax
      >>> from matplotlib.figure import Figure
      >>> rows = [{"update": 10, "train_loss": 2.0, "gap": 0.1}, {"update": 20, "train_loss": 1.0, "test_loss": 1.2}]
      >>> figure = Figure(figsize=(15, 4))
      >>> asyncflax.plots.training(figure, rows, asyncflax.staleness.constant(1).trace(20))
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['loss', 'gap of server and worker (RMS)', 'share of the gradients']
    """
    has = lambda *names: any(name in row for row in rows for name in names)
    kinds = [kind for kind in ("loss", "accuracy") if has(f"train_{kind}", f"test_{kind}")]
    against = {"update": "updates"}
    if trace.time is not None:
        against["simulated_time"] = "simulated time (seconds)"
    rest = [*["gap"] * has("gap"), *["momentum"] * has("implicit_momentum"), "staleness"]
    columns = [[f"{kind} {abscissa}" for kind in kinds] for abscissa in against if kinds]
    columns += [rest] if len(rest) < 3 else [rest[:2], rest[2:]]
    figure.set_layout_engine("constrained")
    panels = figure.subplot_mosaic([[column[0] for column in columns], [column[-1] for column in columns]])
    for abscissa, xlabel in against.items():
        for kind in kinds:
            axes = panels[f"{kind} {abscissa}"]
            names = {f"train_{kind}": "training, at what the workers read", f"test_{kind}": "test, at the server"}
            x = {label: [row[abscissa] for row in rows if name in row] for name, label in names.items()}
            y = {label: [row[name] for row in rows if name in row] for name, label in names.items()}
            curves(axes, x, y, xlabel=xlabel, ylabel=kind)
            _style.integer_ticks(axes.xaxis)
            if kind != kinds[-1]:
                axes.set_xlabel("")
                panels[f"{kinds[-1]} {abscissa}"].sharex(axes)
            if abscissa != "update":
                axes.set_ylabel("")
            if (kind, abscissa) != (kinds[0], "update"):
                axes.get_legend().remove()
    if has("gap"):
        x, y = zip(*((row["update"], row["gap"]) for row in rows if "gap" in row), strict=True)
        panels["gap"].plot(x, y, **_style.look(2, len(x)))
        top = 1.1 * max(filter(np.isfinite, y), default=0.0) or 1.0
        xlabel = "" if has("implicit_momentum") else "updates"
        panels["gap"].set(ylim=(-0.03 * top, top), xlabel=xlabel, ylabel="gap of server and worker (RMS)")
        _style.integer_ticks(panels["gap"].xaxis)
    if has("implicit_momentum"):
        if has("gap"):
            panels["momentum"].sharex(panels["gap"])
        momentum(panels["momentum"], rows, law)
    staleness_histogram(panels["staleness"], trace, law, burn_in=burn_in)
