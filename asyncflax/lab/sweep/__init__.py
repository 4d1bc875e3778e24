"""Grids of trainings as few compiled programs: seeds x learning rates x momenta for each number of workers.

`grid` says which cells there are, and refuses what cannot be before anything is traced; `program` trains many cells at
once; `run` works through the grid, keeps what is finished, and makes a labelled `xarray.Dataset`; `results` reads it:
updates to a target, the best cells, paired comparisons with intervals. Needs the extra `train`.
"""

from asyncflax.lab.sweep.grid import Grid, SweepConfig
from asyncflax.lab.sweep.results import PairedChange, best_cells, paired_change, updates_to_target
from asyncflax.lab.sweep.run import SweepUnfinishedError, run_sweep

__all__ = [
    "Grid",
    "PairedChange",
    "SweepConfig",
    "SweepUnfinishedError",
    "best_cells",
    "paired_change",
    "run_sweep",
    "updates_to_target",
]
