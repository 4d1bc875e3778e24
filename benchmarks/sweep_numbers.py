"""A sweep over an option of the method in one program, against one sweep per value; and the check of a grid.

    python benchmarks/sweep_numbers.py [--alternations 3]

Digits, SmallCnn, 8 workers, 100 updates a cell: 3 strengths of `dc_asgd` x 2 learning rates x 2 seeds. CPU seconds with
compilation, in turn, medians. Then those of the check of nine million cells, whose results need not fit into memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import numpy as np

from asyncflax import _memory
from asyncflax.lab.sweep import Grid, SweepConfig, run_sweep
from asyncflax.train.config import TrainConfig

STRENGTHS = (0.0, 0.04, 1.0)
TRAIN = TrainConfig(num_workers=8, algorithm="dc_asgd", num_updates=100, eval_every=50)


def cpu_seconds(function) -> float:
    """The CPU time of a call on all cores."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def sweep(*strengths: float) -> None:
    """Trains the grid of some strengths."""
    axes = {"algorithm.strength": strengths, "learning_rate": (0.1, 0.2), "seed": (0, 1)}
    run_sweep(SweepConfig(TRAIN, axes), tempfile.mkdtemp())


def one_by_one() -> None:
    """Trains a grid of each strength."""
    for strength in STRENGTHS:
        sweep(strength)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="sweeps over a number of the method")
    parser.add_argument("--alternations", type=int, default=3)
    alternations = parser.parse_args().alternations
    times = [(cpu_seconds(lambda: sweep(*STRENGTHS)), cpu_seconds(one_by_one)) for _ in range(alternations)]
    together, apart = map(statistics.median, zip(*times, strict=True))
    print(f"3 x 2 x 2 cells: one program {together:.1f} s of CPU, three sweeps {apart:.1f} s")
    _memory.available = lambda: None
    axes = {
        "learning_rate": tuple(np.linspace(0, 1, 300).tolist()),
        "momentum": tuple(np.linspace(-1, 1, 300).tolist()),
    }
    seconds = cpu_seconds(lambda: print(Grid(TRAIN, axes | {"seed": tuple(range(100))})))
    print(f"checked in {seconds:.3f} s of CPU")


if __name__ == "__main__":
    main()
