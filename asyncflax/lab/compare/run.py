"""Trains a comparison, many trainings at once, and leaves a folder.

    workdir/run.json      the config and the versions that it began with
    workdir/cells/        one file for each tile of trainings that is finished
    workdir/results.nc    all trainings and what they come to, an `xarray.Dataset` (netCDF), when the last is finished
    workdir/table.md      the summary in numbers
    workdir/*.png         the figures, see `compare.figures`
    workdir/claims/       a claim, with its figure, for each order that the config names and each law of service times

A comparison that stopped, however it did, goes on with what is not finished when it is started again.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

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


class Compared(NamedTuple):
    """What `draw_comparison` leaves.

    Attributes:
      table: the summary, and what became of the orders that the config names; Markdown.
      figures: the paths of the PNGs.
      claims: one for each order and law of service times; none where nothing can be computed, the table says why.

    Example: see `run_comparison`.
    """

    table: str
    figures: list[pathlib.Path]
    claims: list[Claim]


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
      an `xarray.Dataset` over method, service_time, num_workers, (learning_rate_scale,) seed and
        `update`, the number of gradients: test_loss, test_accuracy, simulated_time (seconds);
        `trained`, likewise: train_loss, train_accuracy, staleness, gap, normalised_gap, explicit_momentum, means over
          the gradients since the row before;
        neither: diverged_at, the gradient at which a training was seen to have diverged, or -1;
      server_steps [method, num_workers, update], which are the gradients but for ssgd; learning_rate [method,
      num_workers, (learning_rate_scale)]; by label the call of the method and of the service time; and
      what `summarize` adds. xarray has an argument called method: select one as `results.sel({"method": "asgd"})`.

    Raises:
      RunError: the config or the folder is not as it should be, or trainings do not fit into memory; a clear sentence.
      SweepUnfinishedError: the time is over.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.compare import CompareConfig, markdown_tables, run_comparison
      >>> from asyncflax.train.config import TrainConfig
      >>> train = TrainConfig(model="Mlp(hidden=8)", num_updates=20, eval_every=10, momentum=0.5)
      >>> config = CompareConfig(train, "asgd, nag_asgd", {"equal": "gamma"}, num_workers=(2, 4), seeds=(0, 1))
      >>> results = run_comparison(config, tempfile.mkdtemp())  # doctest: +ELLIPSIS
      Comparison(method: 2, service_time: 1, num_workers: 2, seed: 2; 8 cells): 8 to train...
      >>> dict(results.final_accuracy.sizes)
      {'method': 2, 'service_time': 1, 'num_workers': 2, 'seed': 2}
      >>> markdown_tables(results).splitlines()[-1]
      '8 trainings, 0 failed: 0 diverged'
    """
    try:
        comparison = Comparison(config)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error

    def complete(results: xarray.Dataset) -> xarray.Dataset:
        described = _describe(results, comparison).assign_attrs(criteria=json.dumps(criteria(config)))
        options = {"pick": config.pick, "choosing": config.choosing, "failed_below": config.failed_below}
        return summarize(described, **options, target=config.target)

    limit: dict[str, Any] = {"stop_after_minutes": stop_after_minutes}
    return train_cells(config, comparison, workdir, **limit, summarize=complete)


def draw_comparison(results: xarray.Dataset, workdir: str | os.PathLike[str], *, command: str = "") -> Compared:
    """Writes the tables and the figures beside the results, and the claims of orders with their figures.

    Args:
      results: of `run_comparison`.
      workdir: its folder.
      command: that makes the results, for the claims; without it there are none.

    Raises:
      RunError: the folder cannot be written.

    Example: see `launch/compare.py`.
    """
    folder, findings = pathlib.Path(workdir), check_orders(results)
    table = "\n".join([markdown_tables(results), *_order_tables(findings)])
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


def _order_tables(findings: list[Finding]) -> list[str]:
    if not findings:
        return []
    lines = []
    if any(finding.verdicts for finding in findings):
        lines += [
            "",
            "What papers claim, paired over seeds, with Student's 95 % intervals and the verdicts of "
            "asyncflax.lab.statistics: ratios of training losses at the end, differences of test accuracies.",
        ]
    for finding in findings:
        lines += ["", *finding.table]
    return lines


def _write_claim(results: xarray.Dataset, finding: Finding, folder: pathlib.Path, command: str) -> Claim:
    """The claim of an order, and its figure."""
    assert finding.claim is not None
    name = f"{finding.claim['name']}.png"
    assert finding.order is not None
    criterion = json.loads(results.attrs.get("criteria", "{}")).get(finding.order.name, "")
    about = {"criterion": criterion, "cpu_minutes": results.attrs.get("cpu_minutes", 0.0)}
    claim = Claim(**finding.claim, **about, command=portable(command), figure=name)
    folder.mkdir(exist_ok=True)
    shown = results.sel({"method": finding.methods, "service_time": finding.service_time})
    _style.save(figures.order_figure(shown, finding), folder / name)
    claim.save(folder, overwrite=True)  # follows from the results, which are kept
    return claim


def _describe(results: xarray.Dataset, comparison: Comparison) -> xarray.Dataset:
    """Adds what the labels stand for, and how many steps the server has made."""
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
