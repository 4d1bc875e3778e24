"""The grid itself: final test accuracy over two hyperparameters, one panel per value of the other axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.figures._words import Findings
from asyncflax.lab.sweep import best_cells
from asyncflax.lab.sweep.grid import HYPER
from asyncflax.lab.sweep.results import numbers_of
from asyncflax.train.method import OPTION


def grid(figure: Any, results: xarray.Dataset) -> Findings:
    """Draws the mean final test accuracy over seeds; diverged cells are grey.

    Learning rate and momentum are the axes of a panel; one that is not tuned is replaced by another hyperparameter.
    """
    from matplotlib import colormaps

    last = results.test_accuracy.isel(update=-1, drop=True)
    diverged = int((results.diverged_at >= 0).sum())
    mean = last.mean("seed", skipna=False) if "seed" in last.dims else last
    numbers = numbers_of(mean)
    others = iter(name for name in numbers if name not in HYPER)
    x, y = (name if name in numbers else next(others, name) for name in HYPER)
    rest = [name for name in mean.dims if name not in (x, y)]
    flat = mean.expand_dims([name for name in (x, y) if name not in numbers])
    flat = flat.stack(panel=rest) if rest else flat.expand_dims("panel")
    count = flat.sizes["panel"]
    panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    colors = colormaps["viridis"].with_extremes(bad="0.8")
    image = None
    for k, axes in enumerate(panels):
        values = flat.isel(panel=k).transpose(y, x).values
        image = axes.imshow(values, vmin=0, vmax=1, origin="lower", aspect="auto", cmap=colors)
        for name, axis in ((x, axes.xaxis), (y, axes.yaxis)):
            labels = [f"{value:g}" for value in results[name].values] if name in numbers else [""]
            axis.set_ticks(range(len(labels)), labels)
        if rest:
            labels = np.atleast_1d(np.array(flat.panel.values[k], dtype=object)).tolist()
            labels = labels[0] if isinstance(labels[0], tuple) else labels
            axes.set_title(", ".join(_named(*pair) for pair in zip(rest, labels, strict=True)), wrap=True)
    for name, label in ((x, figure.supxlabel), (y, figure.supylabel)):
        if name in numbers:
            label(_words(name), fontsize="medium")
    label = f"test accuracy after the last update{' (grey: diverged)' if diverged else ''}"
    figure.colorbar(image, ax=panels.tolist(), label=label)
    table = f"{last.size} cells, {diverged} of them diverged"
    if numbers:
        best = best_cells(last, largest=True)
        table += "\n" + (best.to_dataframe().to_string() if best.sizes else _line(best))
    return Findings(table)


def _named(name: str, value: Any) -> str:
    return _style.workers(value) if name == "num_workers" else f"{_words(name)} {value}"


def _words(name: str) -> str:
    return name.removeprefix(OPTION).replace("_", " ")


def _line(best: xarray.Dataset) -> str:
    return "best: " + ", ".join(f"{name} {float(value):.4g}" for name, value in best.data_vars.items())
