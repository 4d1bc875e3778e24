"""What a plan says: a recommendation, tables, a figure, files."""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from asyncflax import _check, _style, theory
from asyncflax._files import write_atomically
from asyncflax.theory.planner.forecasts import ClusterPlan, Forecast

__all__ = ["advice", "draw", "files", "recommendation", "save", "table"]

_PLAN = "a ClusterPlan (planner.make makes one)"


def recommendation(plan: ClusterPlan) -> str:
    """Three lines: what to set, what it buys, what the other numbers of workers would.

    Args:
      plan: from `make`.

    Example:
      >>> from asyncflax.theory import planner
      >>> print(planner.recommendation(planner.make([1, 2], condition_number=9.0, noise=9.0)))
      Set: 2 workers, explicit momentum 0.26, step size 0.027 / L.
      Buys: 0.1 of the excess loss in 0.51 of the time of one worker; 1.01 times its updates, 0.50 of its seconds each.
      Others: time 1 worker 1.00.
    """
    _check.instance("plan", plan, ClusterPlan, _PLAN)
    best, workers = plan.recommended, lambda f: f"{f.num_workers} worker" + "s" * (f.num_workers > 1)
    known = math.isfinite(plan.curvature_max)
    size = (
        f"{best.step_size / plan.curvature_max:.3g} ({best.step_size:.2g} / L)"
        if known
        else f"{best.step_size:.2g} / L"
    )
    if math.isnan(best.hardware):
        buys = f"{best.updates:.2f} times the updates of one worker; the seconds are unknown"
        others, what = [(f, f.updates) for f in plan.forecasts], "updates"
    else:
        buys = f"{best.time:.2f} of the time of one worker"
        buys += f"; {best.updates:.2f} times its updates, {best.hardware:.2f} of its seconds each"
        others, what = [(f, f.time) for f in plan.forecasts], "time"
    rest = [f"{workers(f)} {value:.2f}" for f, value in others if f is not best]
    return "\n".join(
        [
            f"Set: {workers(best)}, explicit momentum {best.momentum:.2f}, step size {size}.",
            f"Buys: {plan.target:.3g} of the excess loss in {buys}.",
            f"Others: {what} {', '.join(rest)}." if rest else "Others: none were asked for.",
        ]
    )


def table(plan: ClusterPlan) -> str:
    """Two tables for the terminal: to the target, and in the long run without noise.

    Args:
      plan: from `make`.

    Example:
      >>> from asyncflax.theory import planner
      >>> print(planner.table(planner.make([1, 2], condition_number=9.0)))  # doctest: +ELLIPSIS
      To 0.1 of the excess loss, for curvatures from L/9 to L (mu* = 0.25), noise 0, exponential(1.0)
      ...
    """
    _check.instance("plan", plan, ClusterPlan, _PLAN)
    kappa, best, spectrum = plan.condition_number, plan.target_momentum, plan.spectrum
    noise = f"noise {spectrum.noise:.3g}" + f" and {spectrum.loss_noise:.3g} with the loss" * (spectrum.loss_noise > 0)
    known = math.isfinite(plan.curvature_max)
    lines = [
        f"To {plan.target:.3g} of the excess loss, for curvatures from L/{kappa:.4g} to L (mu* = {best:.3g}), {noise}, "
        f"{plan.source}",
        f"                                   relative to one worker ({plan.updates:.1f} updates)",
        " workers  momentum  step size x L   updates  seconds per update     time = updates x seconds"
        + ("   step size" if known else ""),
        "                                             async     barrier",
    ]
    for f in plan.forecasts:
        lines.append(
            f"  {f.num_workers:6d}  {f.momentum:+8.2f}  {f.step_size:13.4g}  {_text(f.updates, '8.2f')}  "
            f"{_text(f.hardware, '8.4f')}  {_text(f.barrier, '8.4f')}     {_text(f.time, '8.3f')}"
            + (f"  {f.step_size / plan.curvature_max:24.4g}" if known else "")
        )
    lines += [
        "",
        "In the long run, without noise: the mean (E x) and the root mean square, which a run follows (E x^2)",
        "          momentum                                    step size times L = stable up to         updates",
        " workers  implicit  mu*-impl.  best mean  best run    best mean  best run   mean     run        mean      run",
    ]
    for f in plan.forecasts:
        lines.append(
            f"  {f.num_workers:6d}  {_text(f.implicit_momentum, '8.3f')}  {_text(f.rule_momentum, '+9.3f')}  "
            f"{f.mean_momentum:+9.3f}  {f.run_momentum:+8.3f}    {f.mean_step_size:9.4g}  {f.run_step_size:8.4g}   "
            f"{f.mean_limit:7.4g}  {f.run_limit:7.4g}  {f.mean_updates:8.3f}  {f.run_updates:8.2f}"
        )
    return "\n".join(lines)


def advice(plan: ClusterPlan) -> str:
    """What stands behind the recommendation, and what it leaves out, in sentences.

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
            "momentum. The long run is that without explicit momentum, and mean squares are those of independent draws."
        )
    if math.isnan(forecasts[-1].hardware):
        sentences.append("There is no clock, so nothing is said about hardware efficiency; see update_seconds.")
    if plan.spectrum.noise == plan.spectrum.loss_noise == 0:
        sentences.append(
            "Gradients have no noise here. Noise makes small steps best for one worker too, and then many workers cost "
            "few updates: give a noise level, or measure it."
        )
    if math.isinf(plan.updates):
        sentences.append("One worker does not reach the target: the noise is too large for it, or the loss too small.")
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
    workers, mean, run, best = column("num_workers"), *map(_style.look, range(3))
    limits, grey = {"linestyle": "--", "marker": ""}, {"color": _style.GREY, "linestyle": "--"}
    what = (
        {
            "implicit, 1 - 1/M": ("implicit_momentum", grey),
            "rule: mu* - (1 - 1/M)": ("rule_momentum", grey | {"linestyle": ":"}),
            "best for the mean, E x": ("mean_momentum", mean),
            "best for a run, E x²": ("run_momentum", run),
            "best for the target": ("momentum", best),
        },
        {
            "limit of the mean": ("mean_limit", mean | limits),
            "best for the mean": ("mean_step_size", mean),
            "limit of a run": ("run_limit", run | limits),
            "best for a run": ("run_step_size", run),
            "best for the target": ("step_size", best),
        },
        {
            "seconds per update": ("hardware", grey),
            "seconds per gradient with barriers": ("barrier", grey | {"linestyle": ":"}),
            "updates to the target": ("updates", best | limits),
            "time to the target": ("time", best),
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
    time.set(title="what it buys (star: recommended)", ylabel="relative to one worker")
    chosen = plan.recommended
    if math.isfinite(chosen.time):
        time.plot(chosen.num_workers, chosen.time, marker="*", color=best["color"], markersize=14, zorder=3)
    for axes in (step, time):
        _style.plain_log(axes, "y")
    condition = f"condition number {plan.condition_number:.4g}, mu* = {plan.target_momentum:.3g}"
    _style.title(figure, f"{plan.source}, {condition}, noise {plan.spectrum.noise:.3g}")


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
    content = {name: _number(value) for name, value in plan._asdict().items()} | {
        "recommended": plan.recommended.num_workers,
        "spectrum": {name: np.asarray(value).tolist() for name, value in plan.spectrum._asdict().items()},
        "forecasts": [dict(zip(Forecast._fields, row, strict=True)) for row in rows],
    }
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


def _text(value: float, form: str) -> str:
    width = form.lstrip("+").partition(".")[0]
    return f"{value:{form}}" if math.isfinite(value) else f"{'-':>{width}}"


def _number(value: Any) -> Any:
    """As JSON knows it; nan is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
