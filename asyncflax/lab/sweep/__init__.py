"""Trains grids in few compiled programs: seeds x learning rates x momenta for each number of workers.

`grid` validates the cells before anything is traced, `cells` and `program` train many of them at once, `run` resumes an
unfinished grid and returns a labelled `xarray.Dataset`, `results` reads it. Needs the extra `train`.
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
