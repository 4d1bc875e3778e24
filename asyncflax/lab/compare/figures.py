"""Figures of a comparison: a coloured table, accuracy against workers, training curves with gaps.

Each method has its own colour and marker. More than six methods need several rows or pages, with the others in grey.
Accuracy axes are linear in the logarithm of the error, which separates 98 % from 99 % on an axis that begins at 50 %.
All functions take the `results` of `compare.run_comparison`; `figure` is an empty `matplotlib.figure.Figure`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.compare.orders import Finding
from asyncflax.lab.compare.summary import with_picked_rates
from asyncflax.train.columns import long_name

__all__ = ["accuracy_by_workers", "accuracy_figure", "accuracy_table", "all_figures", "curves", "order_figure", "pages"]

_TICKS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
_GREY = "0.85"


def all_figures(results: xarray.Dataset) -> Iterator[tuple[str, Any]]:
    """Draws all figures and yields them with their file names.

    Yields:
      'table', 'accuracy', and 'curves-LABEL' for each service time, with the suffix '-1', '-2', ... if methods need
      several pages.

    Example: see `compare.draw_comparison`.
    """
    columns, rows = results.sizes["num_workers"], pages(results)
    width = 2.2 + results.sizes["service_time"] * max(0.85 * columns, 1.6)
    figure = _style.new_figure(width, 1.3 + 0.4 * results.sizes["method"])
    accuracy_table(figure, results)
    yield "table", figure
    yield "accuracy", accuracy_figure(results)
    for label in map(str, results.service_time.values):
        for page, methods in enumerate(rows, start=1):
            figure = _style.new_figure(16, 1.1 + 3.1 * columns)
            curves(figure, results, label, methods)
            yield "-".join(["curves", *re.findall(r"\w+", label), *([str(page)] if len(rows) > 1 else [])]), figure


def accuracy_figure(results: xarray.Dataset) -> Any:
    """Draws `accuracy_by_workers` into a new figure.

    Example: see `all_figures`.
    """
    figure = _style.new_figure(2.4 + 4.2 * results.sizes["service_time"], 0.5 + 3.6 * len(pages(results)))
    accuracy_by_workers(figure, results)
    return figure


def order_figure(results: xarray.Dataset, finding: Finding) -> Any:
    """Draws the training curves of an order and the intervals of its pairs, one row per number of workers.

    Training losses are geometric means over seeds, up to the first divergence; a ratio above 1 favours the order.
    Methods claimed to be equal are compared by test accuracy.

    Args:
      results: the results of the methods of the order, with one service time.
      finding: the finding of `compare.check_orders` about them.

    Example: see `compare.draw_comparison`.
    """
    order = finding.order
    assert order is not None
    rows = len(finding.verdicts)
    figure = _style.new_figure(14, 0.9 + 3.2 * rows)
    panels = figure.subplots(rows, 2, squeeze=False)
    name, axis = ("test_accuracy", "update") if order.equal else ("train_loss", "trained")
    part = with_picked_rates(results, name)[name]
    for (left, right), (m, verdicts) in zip(panels, finding.verdicts.items(), strict=True):
        for k, method in enumerate(finding.methods):
            run = part.sel({"method": method, "num_workers": m})
            logs = run if order.equal else xarray.apply_ufunc(np.log, run)
            mean = logs.mean("seed", skipna=False)
            mean = mean if order.equal else xarray.apply_ufunc(np.exp, mean)
            left.plot(mean[axis], mean, **_style.look(k, mean.size), label=method)
        if not order.equal:
            _style.plain_log(left, "y")
        _style.integer_ticks(left.xaxis)
        left.set_ylabel(f"{order.criterion}, {_style.workers(m)}")
        left.legend()
        for k, verdict in enumerate(verdicts.values()):
            interval = verdict.interval if order.equal else verdict.interval.exp()
            value, low, high = (100 * x for x in interval) if order.equal else interval
            right.errorbar(value, k, xerr=[[value - low], [high - value]], **_style.look(0), capsize=4)
            right.annotate(verdict.verdict, (value, k), xytext=(0, 7), textcoords="offset points", ha="center")
        names = [f"{a} less\n{b}" if order.equal else f"{b} over\n{a}" for a, b in verdicts]
        right.set_yticks(range(len(names)), names)
        right.set_ylim(len(names) - 0.5, -0.6)
        right.axvline(0.0 if order.equal else 1.0, color="0.8", linewidth=1, zorder=0)
        if order.equal:
            right.axvspan(-100 * order.bound, 100 * order.bound, color="0.95", zorder=0, label="equivalent")
        else:
            _style.plain_log(right, "x")
    panels[-1][0].set_xlabel("gradients")
    panels[-1][1].set_xlabel("difference of test accuracies (points)" if order.equal else "ratio of training losses")
    _style.title(figure, f"{order}; {_trained(results)}, {finding.service_time}, {results.sizes['seed']} seeds")
    return figure


def pages(results: xarray.Dataset) -> list[list[str]]:
    """Splits the methods into pages of at most six, as even as possible, in the order of the config.

    Example:
      >>> import xarray
      >>> from asyncflax.lab.compare import figures
      >>> [len(page) for page in figures.pages(xarray.Dataset(coords={"method": list("abcdefgh")}))]
      [4, 4]
    """
    methods = [str(method) for method in results.method.values]
    count = -(-len(methods) // len(_style.COLORS))
    size = -(-len(methods) // max(count, 1))
    return [methods[i : i + size] for i in range(0, len(methods), size)]


def accuracy_table(figure: Any, results: xarray.Dataset) -> None:
    """Draws the mean final test accuracy, methods x workers, one panel per service time; failures are grey.

    Example: see `all_figures`.
    """
    from matplotlib import colormaps
    from matplotlib.colors import FuncNorm

    methods, workers, seeds = results.method.values, results.num_workers.values, results.sizes["seed"]
    means = results["mean"].where(results.failed.sum("seed") == 0).values
    low, high = (float(f(means)) if np.isfinite(means).any() else 0.5 for f in (np.nanmin, np.nanmax))
    norm = FuncNorm((_stretch, _unstretch), vmin=low, vmax=max(high, low + 1e-3))
    colors = colormaps["cividis"].with_extremes(bad="0.88")
    panels = figure.subplots(1, results.sizes["service_time"], squeeze=False, sharey=True)[0]
    for axes, label in zip(panels, results.service_time.values, strict=True):
        part = results.sel(service_time=label).transpose("method", "num_workers", ...)
        values, failed = part["mean"].values, part.failed.sum("seed").values
        axes.imshow(np.ma.masked_where((failed > 0) | np.isnan(values), values), norm=norm, cmap=colors, aspect="auto")
        for i, j in np.ndindex(values.shape):
            half = 100 * float((part.high - part["mean"])[i, j])
            text = f"{100 * values[i, j]:.1f}" + (f"\n± {half:.1f}" if np.isfinite(half) else "")
            if failed[i, j]:
                text = f"FAIL {failed[i, j]}/{seeds}" + (f"\n{100 * values[i, j]:.1f}" if failed[i, j] < seeds else "")
            dark = failed[i, j] == 0 and float(norm(values[i, j])) < 0.55
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="w" if dark else "k")
        axes.set_xticks(range(len(workers)), map(str, workers))
        axes.set_yticks(range(len(methods)), map(str, methods))
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(workers) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(methods) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="w", linewidth=2)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(str(label), fontsize=11)
    figure.supxlabel("workers", fontsize="medium")
    _style.title(figure, f"{_trained(results)}: test accuracy (%), mean over {seeds} seeds")


def accuracy_by_workers(figure: Any, results: xarray.Dataset) -> None:
    """Draws final test accuracy against workers, one column per service time and one row per page of methods.

    Student's 95 % intervals are over the seeds that did not fail. A hollow marker means that some seeds failed; a
    cross in the strip below means that all did.

    Example: see `all_figures`.
    """
    from matplotlib.patches import Rectangle

    rows, labels, workers = pages(results), results.service_time.values, results.num_workers.values
    places, seeds = np.arange(len(workers)), results.sizes["seed"]
    limits = _limits(np.concatenate([results[name].values.ravel() for name in ("mean", "low", "high")]), strip=True)
    panels = figure.subplots(len(rows), len(labels), squeeze=False, sharex=True, sharey=True)
    for row, methods in zip(panels, rows, strict=True):
        for axes, label in zip(row, labels, strict=True):
            part = results.sel(service_time=label)
            for method in results.method.values:
                if str(method) not in methods:
                    axes.plot(places, part["mean"].sel({"method": method}), color=_GREY, linewidth=1, zorder=1)
            for k, method in enumerate(methods):
                cell = part.sel({"method": method})
                failed = cell.failed.sum("seed").values
                x = places + 0.07 * (k - (len(methods) - 1) / 2)
                look = _style.look(k) | {"markersize": 6}
                bars = np.nan_to_num([cell["mean"] - cell.low, cell.high - cell["mean"]])
                axes.errorbar(x, cell["mean"], yerr=bars, **look, label=method, capsize=2.5, elinewidth=1, zorder=3)
                some, lost = (failed > 0) & (failed < seeds), x[failed == seeds]
                axes.plot(x[some], cell["mean"][some], **look | {"linestyle": ""}, mfc="w", zorder=4)
                at = {"transform": axes.get_xaxis_transform(), "color": look["color"]}
                axes.plot(lost, np.full(len(lost), 0.045), "x", **at, mew=2, zorder=4)
            axes.add_patch(Rectangle((0, 0), 1, 0.09, transform=axes.transAxes, color="0.95", zorder=0))
            axes.text(0.01, 0.045, "FAIL", transform=axes.transAxes, va="center", fontsize=7, color="0.45")
            axes.set_xticks(places, map(str, workers))
            _accuracy_axis(axes, limits)
            if axes in panels[0]:
                axes.set_title(str(label))
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.supxlabel("workers", fontsize="medium")
    figure.supylabel("test accuracy (%)", fontsize="medium")
    note = f"{_trained(results)}; mean and 95 % interval over {seeds} seeds"
    if (results.failed.sum("seed") % seeds > 0).any():
        note += "; hollow: some seeds failed, the mean is that of the others"
    _style.title(figure, note)


def curves(figure: Any, results: xarray.Dataset, service_time: str, methods: list[str]) -> None:
    """Draws accuracy against gradients and simulated time, and the gap, one row per number of workers.

    Lines are means over seeds and bands their range; a line ends in a cross where the first seed diverges.

    Args:
      figure, results: see above.
      service_time: the label of a service time.
      methods: the labels of the methods to show.

    Example: see `all_figures`.
    """
    workers = results.num_workers.values
    part = with_picked_rates(results, "test_accuracy", "simulated_time", "gap").sel(service_time=service_time)
    synchronous = [str(name) == "ssgd" for name in part.algorithm.sel({"method": methods}).values]
    stale = [method for method, one in zip(methods, synchronous, strict=True) if not one]
    gaps = bool((part.gap.sel({"method": stale}) > 0).any())
    panels = figure.subplots(len(workers), 3 if gaps else 2, squeeze=False)
    limits = _limits(part.test_accuracy.sel({"method": methods}).values)
    for row, m in zip(panels, workers, strict=True):
        cell = part.sel(num_workers=m)
        ends = cell.simulated_time.isel(update=-1).sel({"method": methods}).mean("seed").values
        seen = cell.test_accuracy.sel({"method": methods}).where(cell.simulated_time > 0).notnull()
        logarithmic = ends.max() > 4 * ends.min() > 0 and bool(seen.any())
        for k, method in enumerate(methods):
            run, look = cell.sel({"method": method}), _style.look(k)
            mean = lambda name, run=run: run[name].mean("seed", skipna=False)
            accuracy, time, gap = mean("test_accuracy"), mean("simulated_time"), mean("gap")
            time = time.where(time > 0) if logarithmic else time
            low, high = run.test_accuracy.min("seed", skipna=False), run.test_accuracy.max("seed", skipna=False)
            label = f"{method} (a step is M gradients)" if synchronous[k] else method
            for axes, x in ((row[0], accuracy["update"]), (row[1], time)):
                axes.plot(x, accuracy, **look | _every(accuracy, k, methods), label=label)
                axes.fill_between(x.values, low, high, color=look["color"], alpha=0.12, linewidth=0)
                if (last := int(accuracy.notnull().sum())) < len(accuracy):  # a seed has diverged
                    axes.plot(x[last - 1], accuracy[last - 1], "x", color=look["color"], markersize=9, mew=2, zorder=4)
            if gaps and not synchronous[k]:
                row[2].plot(gap.trained, gap.where(gap > 0), **look | _every(gap, k, methods))
        for axes in row[:2]:
            _accuracy_axis(axes, limits)
        if logarithmic:
            _style.plain_log(row[1], "x")
        if gaps:
            row[2].sharex(row[0])
        if gaps and bool((cell.gap.sel({"method": stale}) > 0).any()):
            _style.plain_log(row[2], "y")
        row[0].set_ylabel(_style.workers(int(m)))
        for axes in row[::2]:
            _style.integer_ticks(axes.xaxis)
    titles = ("test accuracy (%)", "test accuracy (%)", long_name("gap"))
    abscissae = ("gradients", "simulated time (seconds)", "gradients")
    for first, last, title, label in zip(panels[0], panels[-1], titles, abscissae, strict=False):
        first.set_title(title)
        last.set_xlabel(label)
    for axes in panels[:, 2:].ravel():
        axes.grid(color="0.93")
    handles, names = panels[0][0].get_legend_handles_labels()
    title = f"{_trained(results)}; {service_time}; lines are means and bands ranges over {results.sizes['seed']} seeds"
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, title=title)


def _every(values: xarray.DataArray, k: int, methods: list[str]) -> dict[str, Any]:
    """About eight markers per line, staggered between methods."""
    every = max(len(values) // 8, 1)
    return {"markevery": (k * every // len(methods), every)}


def _stretch(accuracy: Any) -> Any:
    """The negative logarithm of the error plus 0.5 %, which is finite for an error of 0."""
    return -np.log(1.005 - np.clip(accuracy, -1.0, 1.0))


def _unstretch(place: Any) -> Any:
    return 1.005 - np.exp(-np.asarray(place))


def _limits(accuracy: np.ndarray, *, strip: bool = False) -> tuple[float, float]:
    """The limits of an accuracy axis, with optional room for a strip at the bottom."""
    there = np.clip(accuracy[np.isfinite(accuracy)], 0.0, 1.0)
    low, high = _stretch(np.array([there.min(), there.max()] if there.size else [0.0, 1.0]))
    room = max(high - low, 0.1)
    low, high = _unstretch(np.array([low - (0.16 if strip else 0.04) * room, high + 0.04 * room])).tolist()
    return max(low, -0.9), min(high, 1.0)


def _accuracy_axis(axes: Any, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale("function", functions=(_stretch, _unstretch))
    within = lambda ticks: [tick for tick in ticks if max(limits[0], 0.0) <= tick <= limits[1]]
    ticks = within(_TICKS)
    if len(ticks) < 3:
        ticks = within(MaxNLocator(5).tick_values(*limits))
    axes.set_yticks(ticks, [f"{100 * tick:.4g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(limits)
    axes.grid(axis="y", color="0.93")


def _trained(results: xarray.Dataset) -> str:
    """Formats as 'digits, SmallCnn after 2,500 gradients'."""
    train = json.loads(results.attrs["config"])["train"]
    return f"{train['dataset']}, {train['model']} after {train['num_updates']:,} gradients"
