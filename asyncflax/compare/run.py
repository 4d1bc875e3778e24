"""Trains a comparison, many trainings at once, and leaves a folder.

    workdir/run.json      the config and the versions that it began with
    workdir/cells/        one file for each tile of trainings that is finished
    workdir/results.nc    all trainings and what they come to, an `xarray.Dataset` (netCDF), when the last is finished
    workdir/table.md      the summary in numbers
    workdir/*.png         the figures, see `figures.comparison`

A comparison that stopped, however it did, goes on with what is not finished when it is started again.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import xarray

from asyncflax._files import write_atomically
from asyncflax.compare.grid import CompareConfig, Comparison
from asyncflax.compare.summary import markdown_tables, summarize
from asyncflax.figures import comparison as figures
from asyncflax.sweep.run import train_cells
from asyncflax.workdir import RunError


class Compared(NamedTuple):
    """What `draw_comparison` leaves.

    Attributes:
      table: the summary, Markdown.
      figures: the paths of the PNGs.

    Example: see `run_comparison`.
    """

    table: str
    figures: list[pathlib.Path]


def run_comparison(
    config: CompareConfig, workdir: str | os.PathLike[str], *, stop_after_minutes: float = float("inf")
) -> xarray.Dataset:
    """Trains all methods, or goes on with what is not finished.

    Methods are compared in pairs: with one seed, service time and number of workers all of them have the same trace,
    the same data in the same order and the same initial weights. Only ssgd, whose workers wait for each other, has
    another trace: the rounds of the same workers with the same service times. A training gives what `launch/train.py`
    gives with its config, within rounding.

    Args:
      config: of the comparison.
      workdir: a new or empty folder, or the folder of the same comparison.
      stop_after_minutes: begin no tile of trainings that is not expected to be finished by then.

    Returns:
      an `xarray.Dataset` over method, service_time, num_groups, (learning_rate_scale,) seed and
        `update`, the number of gradients: test_loss, test_accuracy, simulated_time (seconds);
        `trained`, likewise: train_loss, train_accuracy, gap, means over the gradients since the row before;
        neither: diverged_at, the gradient at which a training was seen to have diverged, or -1;
      server_steps [method, num_groups, update], which are the gradients but for ssgd; learning_rate [method,
      num_groups, (learning_rate_scale)]; by label the algorithm with its options and the law of service times; and what
      `summarize` adds. xarray has an argument called method: select one as `results.sel({"method": "asgd"})`.

    Raises:
      RunError: the config or the folder is not as it should be, or trainings do not fit into memory; a clear sentence.
      SweepUnfinishedError: the time is over.

    Example:
      >>> import tempfile
      >>> from asyncflax.compare import CompareConfig, markdown_tables, run_comparison
      >>> from asyncflax.config import TrainConfig
      >>> train = TrainConfig(model="Mlp", model_options="hidden=8", num_updates=20, eval_every=10, momentum=0.5)
      >>> config = CompareConfig(train, "asgd; nag_asgd", "equal: gamma", num_groups=(2, 4), seeds=(0, 1))
      >>> results = run_comparison(config, tempfile.mkdtemp())  # doctest: +ELLIPSIS
      Comparison(method: 2, service_time: 1, num_groups: 2, seed: 2; 8 cells): 8 to train...
      >>> dict(results.final_accuracy.sizes)
      {'method': 2, 'service_time': 1, 'num_groups': 2, 'seed': 2}
      >>> markdown_tables(results).splitlines()[-1]
      '8 trainings, 0 failed: 0 diverged'
    """
    try:
        comparison = Comparison(config)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error

    def complete(results: xarray.Dataset) -> xarray.Dataset:
        described = _describe(results, comparison)
        return summarize(described, pick=config.pick, failed_below=config.failed_below, target=config.target)

    limit: dict[str, Any] = {"stop_after_minutes": stop_after_minutes}
    return train_cells(config, comparison, workdir, **limit, summarize=complete)


def draw_comparison(results: xarray.Dataset, workdir: str | os.PathLike[str]) -> Compared:
    """Writes the tables and the figures beside the results.

    Args:
      results: of `run_comparison`.
      workdir: its folder.

    Raises:
      RunError: the folder cannot be written.

    Example: see `launch/compare.py`.
    """
    folder, table = pathlib.Path(workdir), markdown_tables(results)
    paths = []
    try:
        write_atomically(folder / "table.md", lambda file: file.write(f"{table}\n".encode()))
        for name, figure in figures.all_figures(results):
            path = folder / f"{name}.png"
            write_atomically(path, lambda file, figure=figure: figure.savefig(file, dpi=110, format="png"))
            paths.append(path)
    except OSError as error:
        raise RunError(f"{error}; the results are in {workdir}/results.nc") from error
    return Compared(table, paths)


def _describe(results: xarray.Dataset, comparison: Comparison) -> xarray.Dataset:
    """Adds what the labels stand for, and how many steps the server has made."""
    methods, laws = comparison.methods.values(), comparison.service_times.values()
    updates, groups = results["update"].values, results.num_groups.values
    over = [name for name in ("method", "num_groups", "learning_rate_scale") if name in comparison.axes]
    first = dict.fromkeys(comparison.axes, 0)
    rates = np.empty([results.sizes[name] for name in over])
    for place in np.ndindex(rates.shape):
        index = first | dict(zip(over, place, strict=True))
        rates[place] = comparison.config(tuple(index.values())).learning_rate
    steps = [[updates // (m if entry.name == "ssgd" else 1) for m in groups] for entry in methods]
    return results.assign_coords(
        algorithm=("method", [entry.name for entry in methods]),
        algorithm_options=("method", [entry.options for entry in methods]),
        law=("service_time", [f"{entry.name}({entry.options})" for entry in laws]),
    ).assign(
        server_steps=(("method", "num_groups", "update"), np.array(steps, dtype=np.int32)),
        learning_rate=(over, rates),
    )
