r"""How much delay does momentum tolerate? The study of streaming PCA, from a config to a figure, arrays and claims.

    workdir/run.json             the config and the versions at the start
    workdir/cells/*.npz          the mean error of each setting: float64 [records + 1, replicates]
    workdir/results.npz          all arrays of the figure; `NAME.axes` names the axes of NAME
    workdir/streaming_pca.png    the figure
    workdir/claims/*.json        the claims, and the figure

Every trajectory starts at the saddle e_2 and makes :math:`N = S (1 - \mu) / \eta` updates, S of slow time, in which the
limit without delay is the same curve for every mu. Its error is the squared distance to the nearer optimum, capped at
its value 2 at the saddle, also for diverged trajectories. The mean error determines two delays:

*Tolerable*: the largest constant delay at which the mean error over the last S/12 of slow time is at most 1 + r times
that without delay; the logarithm of the error is interpolated between delays of the grid.

*Optimal*: the delay that first brings the mean error to a target, twice the final error without delay, if tau + 1
workers make tau + 1 updates in the time of one. Counted in updates, no delay is best.

Verdicts: the tolerable delay falls, no faster than the paper's sufficient condition, if the interval of the fitted
power of 1 - mu is between 0 and 2; the optimal delay falls if that of its ratio is above 1; asynchrony is not momentum
if that of the ratio of errors is outside 1 / 1.1 to 1.1.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
from typing import NamedTuple

import numpy as np

from asyncflax import _style
from asyncflax._files import CorruptedError, read_arrays, set_aside, write_arrays
from asyncflax.errors import RunError
from asyncflax.lab.claims import Claim, cpu_minutes
from asyncflax.lab.studies.streaming_pca import report
from asyncflax.lab.studies.streaming_pca.config import Cell, StreamingPcaConfig, cells_of
from asyncflax.lab.studies.streaming_pca.results import Results, evaluate
from asyncflax.theory.problems import StreamingPca
from asyncflax.train import progress
from asyncflax.train.workdir import Workdir

__all__ = ["Results", "StreamingPcaConfig", "Study", "run_study"]

_CELL = "setting of a study of streaming PCA, format 1:"
_WORST = 2.0  # the error at a saddle, and of diverged trajectories


class Study(NamedTuple):
    """A finished study.

    Attributes:
      results: the arrays of the figure.
      claims: the claims, with intervals and verdicts.
      figure: the path of the figure.
      table: the results as text.
    """

    results: Results
    claims: list[Claim]
    figure: pathlib.Path
    table: str


def run_study(config: StreamingPcaConfig, workdir: str | os.PathLike[str], *, command: str) -> Study:
    """Runs or resumes a study.

    Args:
      config: the config of the study.
      workdir: a new or empty folder, or the folder of a study with this config.
      command: the command that reproduces the study, stored in the claims.

    Raises:
      RunError: the config or the folder is invalid.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig, run_study
      >>> config = StreamingPcaConfig(momenta=(0.5, 0.8), learning_rates=(4e-3,), margins=(0.5, 1.0, 1.4),
      ...     records=12, replicates=2, trajectories=64)
      >>> study = run_study(config, tempfile.mkdtemp(), command="python launch/streaming_pca.py")
      >>> study.results.tolerable.shape
      (1, 2, 2)
    """
    try:
        config = dataclasses.replace(config)
        config.check()
        folder = Workdir(workdir, config)
        with folder.owned():
            folder.begin()
            for change in folder.changes():
                progress.say(f"note: {change}")
            resumes = any((folder.path / "cells").glob("*.npz"))
            results = evaluate(config, _simulate(config, folder.path / "cells", folder.began["sha256"]))
            figure, claims = folder.path / "streaming_pca.png", report.claims(config, results, command)
            results.save(folder.path / "results.npz")
            if not figure.exists():
                _style.save(report.draw(config, results), figure)
            minutes = 0.0 if resumes else round(cpu_minutes(), 3)  # the CPU time of an earlier process is unknown
            for claim in claims:
                _save_claim(dataclasses.replace(claim, cpu_minutes=minutes), folder.path / "claims")
            (folder.path / "claims" / figure.name).write_bytes(figure.read_bytes())
    except (TypeError, ValueError, OSError) as error:
        raise RunError(str(error)) from error
    return Study(results, claims, figure, report.table(config, results))


def _save_claim(claim: Claim, folder: pathlib.Path) -> None:
    """Writes a claim; machine and CPU minutes of an earlier file are kept."""
    try:
        before = Claim.load(folder / f"{claim.name}.json")
        claim = dataclasses.replace(claim, machine=before.machine, cpu_minutes=before.cpu_minutes)
    except (OSError, TypeError, ValueError):
        pass  # no file, or a corrupted one
    claim.save(folder, overwrite=True)  # follows from the cells, which are kept


def _simulate(config: StreamingPcaConfig, folder: pathlib.Path, run_id: str) -> dict[str, np.ndarray]:
    """The mean error of each setting, float64 [records + 1, replicates]; finished ones are read from the folder."""
    problem = StreamingPca(config.eigenvalues, config.stream)
    folder.mkdir(exist_ok=True)

    def run(cell: Cell) -> np.ndarray:
        path, kind = folder / f"{cell.name}.npz", f"{_CELL} {cell.name}"
        if path.exists():
            try:
                return read_arrays(path, kind=kind, run=run_id)["error"]
            except CorruptedError as error:
                aside = set_aside(path).name
                progress.say(f"note: {path} is corrupted ({error}); it was renamed to {aside} and is simulated again")
        ensemble = problem.ensemble(
            cell.staleness,
            learning_rate=cell.learning_rate,
            momentum=cell.momentum,
            num_updates=cell.every * config.records,
            num_trajectories=config.replicates * config.trajectories,
            every=cell.every,
            seed=config.seed,
        )
        with np.errstate(over="ignore", invalid="ignore"):  # diverged trajectories
            error = problem.error(ensemble.paths.astype(np.float64))
        error = np.where(error < _WORST, error, _WORST).reshape(-1, config.replicates, config.trajectories).mean(-1)
        write_arrays(path, {"error": error}, kind=kind, run=run_id)
        return error

    cells, errors = cells_of(config), {}
    updates = config.records * config.replicates * config.trajectories  # per update between two records
    bar = progress.bar(updates * sum(cell.every for cell in cells), unit_scale=True)
    executor = concurrent.futures.ThreadPoolExecutor(config.threads or os.cpu_count())
    try:
        running = {executor.submit(run, cell): cell for cell in cells}
        for done in concurrent.futures.as_completed(running):
            cell = running[done]
            errors[cell.name] = done.result()
            bar.update(updates * cell.every)
    finally:
        executor.shutdown(cancel_futures=True)
        bar.close()
    return errors
