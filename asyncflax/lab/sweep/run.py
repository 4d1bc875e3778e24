"""Trains a grid tile by tile and labels the results.

    workdir/run.json      the config and the versions at the start
    workdir/cells/        one file per finished tile of cells
    workdir/results.nc    all cells, an `xarray.Dataset` (netCDF), once the last one is finished

A sweep that was stopped or killed resumes with the unfinished cells.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray

from asyncflax import _check
from asyncflax._files import CorruptedError, read_arrays, set_aside, write_arrays, write_atomically, write_once
from asyncflax.errors import RunError
from asyncflax.lab.sweep.grid import Cells, Grid, SweepConfig
from asyncflax.lab.sweep.program import Program
from asyncflax.train import progress
from asyncflax.train.asynchrony import inputs as trace_inputs
from asyncflax.train.columns import describe, of_evaluation
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, load_data, make_experiment
from asyncflax.train.method import explicit_momentum
from asyncflax.train.workdir import Workdir

Index = tuple[int, ...]
_CELLS = "cells of a sweep, format 2"
_THREEFRY = "set JAX_DEFAULT_PRNG_IMPL=threefry2x32"


class SweepUnfinishedError(RunError):
    """The time limit was reached before the grid was finished; rerun the same call to resume.

    Example: see `run_sweep`.
    """

    exit_status = 75  # 'try again' in sysexits.h


def run_sweep(
    config: SweepConfig, workdir: str | os.PathLike[str], *, stop_after_minutes: float = float("inf")
) -> xarray.Dataset:
    """Trains the cells of a grid that are not finished yet.

    Each cell equals a run of `train_and_evaluate` with its config, up to rounding. Diverged cells do not stop the
    sweep; their metrics are NaN from then on.

    Args:
      config: the config of the sweep.
      workdir: a new or empty folder, or the folder of the same sweep.
      stop_after_minutes: the time limit; no tile of cells starts that is not expected to finish within it.

    Returns:
      An `xarray.Dataset` over the axes of the grid and
        `update`: test_loss, test_accuracy, simulated_time (seconds; NaN for traces without a clock);
        `trained`: train_loss, train_accuracy, staleness, gap, normalised_gap, explicit_momentum, means over the updates
          since the previous row;
        neither: diverged_at, the update of the first row that is not finite, or -1;
      with the attributes config, device and cpu_minutes (of all cells); variables have units and long_name.

    Raises:
      RunError: the config or the folder is invalid, or cells do not fit into memory.
      SweepUnfinishedError: the time limit is reached.

    Example:
      >>> import tempfile
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import SweepConfig, run_sweep
      >>> train = TrainConfig(model="Mlp", num_workers=4, num_updates=20, eval_every=10)
      >>> config = SweepConfig(train, axes="momentum=(0, 0.5), seed=(0, 1, 2)")
      >>> results = run_sweep(config, tempfile.mkdtemp())  # doctest: +ELLIPSIS
      Grid(momentum: 2, seed: 3; 6 cells): 6 to train...
      >>> dict(results.test_accuracy.sizes)
      {'momentum': 2, 'seed': 3, 'update': 3}
      >>> int((results.diverged_at >= 0).sum())
      0
    """
    try:
        grid = Grid.of(config)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    return train_cells(config, grid, workdir, stop_after_minutes=stop_after_minutes)


def train_cells(
    config: Any,
    grid: Cells,
    workdir: str | os.PathLike[str],
    *,
    stop_after_minutes: float = float("inf"),
    summarize: Callable[[xarray.Dataset], xarray.Dataset] | None = None,
) -> xarray.Dataset:
    """`run_sweep` for cells of any kind.

    Args:
      config: a dataclass with the fields train, cells_at_once and memory_gb.
      grid: the validated cells.
      summarize: the function from all cells to the results, which may depend on free fields of the config.
    """
    try:
        _check.minutes("stop_after_minutes", stop_after_minutes)
        folder = Workdir(workdir, config)
        images = load_data(config.train)
        made = [
            make_experiment(grid.config(cells[0]), images=images) for _, cells in _grouped(list(grid), grid.program)
        ]
        _check.batchable("the key of cells", made[0].key, _THREEFRY)
        sources = {name: digest for one in made for name, digest in one.config.named.sources().items()}
        inputs = _inputs(made)
    except (TypeError, ValueError, OSError) as error:
        raise RunError(str(error)) from error
    try:
        with folder.owned():
            folder.begin(inputs=inputs, sources=sources)
            finished = _Finished(folder.path / "cells", grid, folder.began["sha256"])
            if len(finished):
                for change in folder.changes():
                    progress.say(f"note: {change}")
            _finish(config, grid, finished, images, time.monotonic() + 60 * stop_after_minutes)
            results = _dataset(config, grid, finished, folder.began["environment"]["device"])
            path = folder.path / "results.nc"
            results = describe(results if summarize is None else summarize(results))
            content = bytes(results.to_netcdf(engine="scipy"))
            if summarize is not None:
                write_atomically(path, lambda file: file.write(content))
            elif note := write_once(path, content):
                progress.say(note)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    except OSError as error:  # such as a full disk or a removed folder
        raise RunError(f"{error}; finished cells are saved; rerun the same command to resume") from error
    return results


def _finish(config: Any, grid: Cells, finished: _Finished, images: Any, deadline: float) -> None:
    """Trains the unfinished cells."""
    to_do = [index for index in grid if index not in finished]
    if not to_do:
        return
    cpu = time.process_time()
    updates = config.train.num_updates
    progress.say(f"{grid}: {len(to_do)} to train, {updates:,} updates each")
    began, slowest = time.monotonic(), 0.0
    with progress.bar(len(grid) * updates, len(finished) * updates, unit_scale=True) as bar:
        tiles, since = _tiles(config, grid, to_do, images), began
        while len(finished) < len(grid):
            if since + slowest > deadline:  # checked before the next program is compiled
                raise SweepUnfinishedError(
                    f"{len(finished)} of {len(grid)} cells are finished and saved, but no time is left for more; "
                    "rerun the same command to resume"
                )
            cells, train = next(tiles)
            before, count = bar.n, len(cells)
            rows = train(lambda done, before=before, count=count: bar.update(before + done * count - bar.n))
            cpu, earlier = time.process_time(), cpu
            finished.add(cells, rows | {"cpu_seconds": np.array(cpu - earlier)})
            since, last = time.monotonic(), since
            slowest = max(slowest, since - last)
            diverged = sum(int(cell["diverged_at"]) >= 0 for cell in finished.values())
            bar.set_postfix_str(f"{len(finished)} of {len(grid)} cells, {diverged} diverged")
    seconds = time.monotonic() - began
    progress.say(f"{len(to_do)} cells in {seconds:.1f} s, {len(to_do) / seconds:.3g} cells/s")


def _tiles(
    config: Any, grid: Cells, to_do: list[Index], images: Any
) -> Iterator[tuple[list[Index], Callable[[Callable[[int], Any]], dict[str, np.ndarray]]]]:
    """Cells to train together, and a function of `on_updates` that trains them and returns their metrics."""
    for _, cells in _grouped(to_do, grid.program):
        environments = list(dict.fromkeys(map(grid.environment, cells)))
        program = Program(grid.config(cells[0]), environments, images, config.memory_gb, grid.numbers)
        cell_of = {(grid.environment(cell), grid.hyper(cell)): cell for cell in cells}
        hypers = {environment: tuple(h for e, h in cell_of if e == environment) for environment in environments}
        # Together: environments of one structure with the same hyperparameters to train.
        by = lambda e, program=program, hypers=hypers: (program.structure(e), hypers[e])
        for (_, asked), alike in _grouped(environments, by):
            size = program.tile(alike, len(asked), config.cells_at_once)
            for some, few in itertools.product(_batched(alike, size[0]), _batched(asked, size[1])):

                def train(on_updates, program=program, some=some, few=few, size=size):
                    out = program.train(some, np.array(few), on_updates, size)
                    rows = {name: values.reshape(-1, *values.shape[2:]) for name, values in out.items()}
                    return rows | {"updates": program.updates, "evaluated": program.evaluated}

                yield [cell_of[e, h] for e in some for h in few], train


def _inputs(programs: Sequence[Experiment]) -> dict[str, str]:
    """Digests of the files that a sweep reads; a folder holds the cells of one set of inputs."""
    digests: dict[str, list[str]] = {}
    for made in programs:
        start, warm = made.config.start_from, {}
        if start and made.config.named.start_from is None:
            warm = {"start_from": hashlib.sha256(pathlib.Path(start, "SHA256SUMS").read_bytes()).hexdigest()}
        for name, digest in (trace_inputs(made.config.named.asynchrony) | warm).items():
            digests.setdefault(name, []).append(digest)
    return {name: " ".join(dict.fromkeys(found)) for name, found in digests.items()}


def _grouped(items: Sequence[Any], key: Callable[[Any], Any]) -> Iterator[tuple[Any, list[Any]]]:
    """The items of each key, in order of first appearance."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    yield from groups.items()


def _batched(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


class _Finished(dict[Index, dict[str, np.ndarray]]):
    """The metrics of finished cells. Each tile has a file, written atomically."""

    def __init__(self, folder: pathlib.Path, grid: Cells, run: str):
        super().__init__()
        self._folder, self._run, self.cpu_seconds = folder, run, 0.0
        folder.mkdir(exist_ok=True)
        for path in sorted(folder.glob("*.npz")):
            try:
                arrays = read_arrays(path, kind=_CELLS, run=run)
                if path.name != _name(arrays["cells"].tolist()):
                    raise CorruptedError(f"it holds the cells of {_name(arrays['cells'].tolist())}")
            except CorruptedError as error:
                aside = set_aside(path)
                note = f"note: {path} is corrupted ({error}); it was renamed to {aside.name}"
                progress.say(f"{note}, and its cells are trained again")
            else:
                self._take(arrays)
        if self:
            progress.say(f"{len(self)} of {len(grid)} cells are finished")

    def add(self, cells: list[Index], rows: dict[str, np.ndarray]) -> None:
        """Saves the metrics of a tile."""
        arrays = {"cells": np.array(cells), **rows}
        write_arrays(self._folder / _name(cells), arrays, kind=_CELLS, run=self._run)
        self._take(arrays)

    def _take(self, arrays: dict[str, np.ndarray]) -> None:
        cells, shared = arrays.pop("cells"), {name: arrays.pop(name) for name in ("updates", "evaluated")}
        self.cpu_seconds += float(arrays.pop("cpu_seconds"))
        for row, index in enumerate(cells.tolist()):
            self[tuple(index)] = {name: values[row] for name, values in arrays.items()} | shared


def _name(cells: Sequence[Sequence[int]]) -> str:
    """The name of a tile's file."""
    return "-".join(map(str, cells[0])) + f"x{len(cells)}.npz"


def _dataset(config: Any, grid: Cells, finished: _Finished, device: str) -> xarray.Dataset:
    """All cells, labelled."""
    axes = tuple(grid.axes)
    cells = [_with_momentum(finished[index], grid.config(index)) for index in grid]
    coordinates = {name: list(values) for name, values in grid.axes.items()}
    coordinates |= {"update": cells[0]["evaluated"], "trained": cells[0]["updates"]}
    variables = {}
    for name, value in cells[0].items():
        if name in ("updates", "evaluated") or not all(name in cell for cell in cells):  # from an older version
            continue
        values = np.stack([cell[name] for cell in cells]).reshape(*grid.shape, *value.shape)
        evaluated = of_evaluation(name) or name == "simulated_time"
        last = () if value.ndim == 0 else ("update",) if evaluated else ("trained",)
        variables[name] = ((*axes, *last), values.astype(np.int32) if value.dtype.kind == "i" else values)
    minutes = round(finished.cpu_seconds / 60, 3)
    about = {"config": json.dumps(dataclasses.asdict(config)), "device": device, "cpu_minutes": minutes}
    return xarray.Dataset(variables, coords=coordinates, attrs=about)


def _with_momentum(cell: dict[str, np.ndarray], config: TrainConfig) -> dict[str, np.ndarray]:
    """A cell with the column of explicit momentum, unless the method has logged it."""
    momentum = np.where(np.isnan(cell["train_loss"]), np.nan, explicit_momentum(config))
    return {"explicit_momentum": momentum.astype(cell["train_loss"].dtype)} | cell
