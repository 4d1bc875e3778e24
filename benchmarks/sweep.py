"""Cells per second of a sweep against a Python loop of runs, and the cost of compiling a program.

    python benchmarks/sweep.py [--updates 100] [--alternations 5]

Digits, SmallCnn, batch 32, 8 workers. The loop runs one cell after the other with `run_chunk`, which is compiled once;
the sweep trains tiles of 1 to 50 cells. Both train and evaluate the same cells, in turn; medians. Then the four worker
counts 1, 2, 4, 8 as one program each, and as one program for all with traces padded to one plan shape.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import jax
import numpy as np

import asyncflax
from asyncflax.lab.sweep.program import Program
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import load_data, make_experiment

TILES = (1, 5, 10, 25, 50)
WORKERS = (1, 2, 4, 8)


def seconds(function) -> float:
    """The wall time of a call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def hypers(count: int) -> np.ndarray:
    """[count, 2], learning rates and momenta."""
    return np.stack([np.full(count, 0.1), np.linspace(0.0, 0.5, count)], axis=1)


def loop(config: TrainConfig, images):
    """A function that trains a number of cells one by one."""
    made = make_experiment(dataclasses.replace(config, checkpoint_every=config.num_updates), images=images)

    def train(count: int) -> None:
        for learning_rate, momentum in hypers(count):
            algorithm = asyncflax.algorithms.momentum_asgd(float(learning_rate), float(momentum))
            state = asyncflax.init_run(algorithm, made.params, made.plan, key=made.key)
            losses = []
            for chunk in made.plan:
                state, out = asyncflax.run_chunk(algorithm, made.gradient_fn, state, chunk, made.batches(chunk))
                losses.append(out.losses)
            jax.block_until_ready((losses, made.evaluate(state.params)))

    return train


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="cells a second of sweeps")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--alternations", type=int, default=5)
    arguments = parser.parse_args()
    updates = arguments.updates
    config = TrainConfig(num_workers=8, num_updates=updates, log_every=updates, eval_every=updates)
    images = load_data(config)
    environment = (("seed", 0),)

    one_by_one = loop(config, images)
    one_by_one(1)
    print(f"{updates} updates a cell, {arguments.alternations} alternations, medians")
    print(f"{'cells at once':>13} {'compile s':>10} {'cells/s':>9} {'loop cells/s':>13} {'ratio':>6}")
    for count in TILES:
        program = Program(config, [environment], images)
        compiling = seconds(lambda: program._programs([environment], count))  # noqa: B023
        program.train([environment], hypers(count))
        swept, looped = [], []
        for _ in range(arguments.alternations):
            swept.append(seconds(lambda: program.train([environment], hypers(count))) / count)  # noqa: B023
            looped.append(seconds(lambda: one_by_one(min(count, 5))) / min(count, 5))  # noqa: B023
        rate, loop_rate = 1 / statistics.median(swept), 1 / statistics.median(looped)
        print(f"{count:13d} {compiling:10.1f} {rate:9.2f} {loop_rate:13.2f} {rate / loop_rate:6.2f}", flush=True)

    count = 10
    begin = time.perf_counter()
    for workers in WORKERS:
        Program(dataclasses.replace(config, num_workers=workers), [environment], images).train(
            [environment], hypers(count)
        )
    apart = time.perf_counter() - begin
    environments = [(("num_workers", workers), *environment) for workers in WORKERS]
    begin = time.perf_counter()
    padded = Program(config, environments, images)
    for each in environments:
        padded.train([each], hypers(count))
    together = time.perf_counter() - begin
    again = [seconds(lambda: padded.train([environments[0]], hypers(count))) for _ in range(arguments.alternations)]
    alone = Program(dataclasses.replace(config, num_workers=1), [environment], images)
    alone.train([environment], hypers(count))
    plain = [seconds(lambda: alone.train([environment], hypers(count))) for _ in range(arguments.alternations)]
    print(f"\n{count} cells for each of {WORKERS} workers, compilation included:")
    print(f"  a program each {apart:.1f} s, one program with padded plans {together:.1f} s")
    alone_s, padded_s = statistics.median(plain), statistics.median(again)
    print(f"  one worker, compiled: {alone_s:.2f} s alone, {padded_s:.2f} s padded to 8 slots")


if __name__ == "__main__":
    main()
