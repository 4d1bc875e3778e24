"""Trains a comparison, many cells at once, into a folder.

    workdir/run.json      the config and the versions at the start
    workdir/cells/        one file per finished tile of cells
    workdir/results.nc    all cells and their summary, an `xarray.Dataset` (netCDF), once the last one is finished
    workdir/table.md      the tables
    workdir/*.png         the figures, see `compare.figures`
    workdir/claims/       a claim, with its figure, for each order in the config and each service time

An interrupted comparison resumes with the unfinished cells.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
import xarray

from asyncflax import _style
from asyncflax._files import write_atomically
from asyncflax.errors import RunError
from asyncflax.lab.claims import Claim, portable
from asyncflax.lab.compare import figures
from asyncflax.lab.compare.grid import CompareConfig, Comparison, criteria
from asyncflax.lab.compare.orders import Finding, check_orders
from asyncflax.lab.compare.summary import markdown_tables, summarize
from asyncflax.lab.sweep.run import train_cells

_JUDGED = (
    "Claims of papers, paired over seeds, with Student's 95 % intervals and the verdicts of "
    "asyncflax.lab.statistics: ratios of final training losses, differences of final test accuracies."
)


class Compared(NamedTuple):
    """The output of `draw_comparison`.

    Attributes:
      table: the summary and the findings about orders, in Markdown.
      figures: the paths of the PNGs.
      claims: one claim for each order and service time that could be judged.
    """

    table: str
    figures: list[pathlib.Path]
    claims: list[Claim]


def run_comparison(
    config: CompareConfig, workdir: str | os.PathLike[str], *, stop_after_minutes: float = float("inf")
) -> xarray.Dataset:
    """Trains all methods, or resumes an interrupted comparison.

    With the same seed, service time and number of workers, all methods share trace, data order and initial weights.
    Only ssgd, whose workers wait for each other, has another trace: rounds of the same workers with the same service
    times. Each cell equals a run of `launch/train.py` with its config, up to rounding.

    Args:
      config: the config of the comparison.
      workdir: a new or empty folder, or the folder of the same comparison.
      stop_after_minutes: the time limit; no tile of cells starts that is not expected to finish within it.

    Returns:
      An `xarray.Dataset` over method, service_time, num_workers, (learning_rate_scale,) seed and
        `update`, the number of gradients: test_loss, test_accuracy, simulated_time (seconds);
        `trained`, likewise: train_loss, train_accuracy, staleness, gap, normalised_gap, explicit_momentum, means over
          the gradients since the row before;
        neither: diverged_at, the gradient at which divergence was detected, or -1;
      server_steps [method, num_workers, update], which differ from the gradients for ssgd; learning_rate [method,
      num_workers, (learning_rate_scale)]; the calls of methods and service times by label; and the summary, see
      `summarize`. xarray has an argument called method: select one as `results.sel({"method": "asgd"})`.

    Raises:
      RunError: the config or the folder is invalid, or a cell does not fit into memory.
      SweepUnfinishedError: the time limit is reached.
    """
    try:
        comparison = Comparison(config)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error

    def complete(results: xarray.Dataset) -> xarray.Dataset:
        described = _describe(results, comparison).assign_attrs(criteria=json.dumps(criteria(config)))
        options = {"pick": config.pick, "choosing": config.choosing, "failed_below": config.failed_below}
        return summarize(described, **options, target=config.target)

    return train_cells(config, comparison, workdir, stop_after_minutes=stop_after_minutes, summarize=complete)


def draw_comparison(results: xarray.Dataset, workdir: str | os.PathLike[str], *, command: str = "") -> Compared:
    """Writes the tables, the figures and the claims about orders.

    Args:
      results: the results of `run_comparison`.
      workdir: the folder of the comparison.
      command: the command that reproduces the results, stored in the claims; '' writes no claims.

    Raises:
      RunError: the folder cannot be written.
    """
    folder, findings = pathlib.Path(workdir), check_orders(results)
    parts = [markdown_tables(results)]
    if any(finding.verdicts for finding in findings):
        parts.append(_JUDGED)
    table = "\n\n".join([*parts, *("\n".join(finding.table) for finding in findings)])
    paths, claims = [], []
    try:
        write_atomically(folder / "table.md", lambda file: file.write(f"{table}\n".encode()))
        for name, figure in figures.all_figures(results):
            paths.append(folder / f"{name}.png")
            _style.save(figure, paths[-1])
        for finding in findings if command else ():
            if finding.claim:
                claims.append(_write_claim(results, finding, folder / "claims", command))
    except OSError as error:
        raise RunError(f"{error}; the results are in {workdir}/results.nc") from error
    return Compared(table, paths, claims)


def _write_claim(results: xarray.Dataset, finding: Finding, folder: pathlib.Path, command: str) -> Claim:
    """Writes the claim of an order, and its figure."""
    assert finding.claim is not None and finding.order is not None
    name = f"{finding.claim['name']}.png"
    criterion = json.loads(results.attrs.get("criteria", "{}")).get(finding.order.name, "")
    about = {"criterion": criterion, "cpu_minutes": results.attrs.get("cpu_minutes", 0.0)}
    claim = Claim(**finding.claim, **about, command=portable(command), figure=name)
    folder.mkdir(exist_ok=True)
    shown = results.sel({"method": finding.methods, "service_time": finding.service_time})
    _style.save(figures.order_figure(shown, finding), folder / name)
    claim.save(folder, overwrite=True)  # follows from the results, which are kept
    return claim


def _describe(results: xarray.Dataset, comparison: Comparison) -> xarray.Dataset:
    """Adds the calls of the labels, server steps and learning rates."""
    methods, laws = comparison.methods.values(), comparison.service_times.values()
    updates, workers = results["update"].values, results.num_workers.values
    over = [name for name in ("method", "num_workers", "learning_rate_scale") if name in comparison.axes]
    first = dict.fromkeys(comparison.axes, 0)
    rates = np.empty([results.sizes[name] for name in over])
    for place in np.ndindex(rates.shape):
        index = first | dict(zip(over, place, strict=True))
        rates[place] = comparison.config(tuple(index.values())).learning_rate
    steps = [[updates // (m if spec.name == "ssgd" else 1) for m in workers] for spec in methods]
    return results.assign_coords(
        algorithm=("method", [spec.name for spec in methods]),
        call=("method", [str(spec) for spec in methods]),
        law=("service_time", [str(spec) for spec in laws]),
    ).assign(
        server_steps=(("method", "num_workers", "update"), np.array(steps, dtype=np.int32)),
        learning_rate=(over, rates),
    )
