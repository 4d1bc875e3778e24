"""The share of time that a device waits for images in a training run on records.

    python benchmarks/input_wait.py [--config FILE[:VARIANT]] [--model ResNet50] [--image_size 224] [--batch 256]
        [--precision bfloat16] [--decode_processes 0 8 14] [--num_workers 8] [--events 20] [--chunks 3]
        [--alternations 5] [--data_dir FOLDER]
    python benchmarks/input_wait.py --events 4 --chunks 2 --alternations 3     # small: SmallCnn on crops of 64x64

Arguments override the config. `fed` is what `asyncflax.train` does: the batches of the next chunk are loaded and sent
to the device while it computes the present one. `ready` runs the same chunks with the same batches, which are on the
device already. The two take turns in one process; a block is `--chunks` chunks, timed from the end of the chunk before
it, after the prefetched batches are used up. Nothing is evaluated, saved or logged. Waiting is
1 - time(ready) / time(fed), in pairs; CPU time is that of all threads and decoding processes. Prints medians, one row
per number of decoding processes, 0 being threads.

On a CPU, decoding and computing share the cores: waiting then includes the time that decoding takes from computing, and
does not vanish with more decoding processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import asyncflax
from asyncflax.engine.plan import Chunk
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, make_experiment
from asyncflax.train.feeds import make_feed

REST = 3.0  # seconds for the feed to prefetch, so that it is idle while `ready` is measured


def chunks_ahead(workers: int, events: int) -> int:
    """How many chunks no feed makes ahead: a process has a batch under way and at most two that wait."""
    return -(-max(8, 3 * workers) // events)


def make_config(args: argparse.Namespace) -> TrainConfig:
    """The config with what the arguments change, and as many updates as the measurement takes."""
    file, _, variant = args.config.partition(":")
    config = runpy.run_path(file)["get_config"](variant)
    given = {
        "model": args.model,
        "image_size": args.image_size,
        "batch_size": args.batch,
        "precision": args.precision,
        "num_workers": args.num_workers,
        "data_dir": args.data_dir,
    }
    ahead = chunks_ahead(max(args.decode_processes), args.events)
    chunks = (args.alternations + 1) * (ahead + args.chunks + 2) + ahead + 1  # so that the feed never ends
    return dataclasses.replace(
        config,
        num_updates=chunks * args.events,
        log_every=args.events,
        eval_every=args.events,
        checkpoint_every=args.events,
        **{name: value for name, value in given.items() if value is not None},
    )


def cpu_seconds() -> float:
    """CPU time of this process, and of those that decode for it where /proc reports it."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        stat = pathlib.Path(f"/proc/{child.pid}/stat")
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            seconds += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


def block(
    experiment: Experiment, state: Any, chunks: Sequence[Chunk], batches_of: Callable[[Chunk], Any]
) -> tuple[Any, np.ndarray]:
    """The state after some chunks, and the seconds and CPU seconds of all but the first and the last."""
    state = state._replace(event=np.int32(chunks[0].first_event))
    waiting, clocks = None, []
    for chunk in chunks:  # as in training, a chunk is awaited once the next one has been dispatched
        batches = batches_of(chunk)
        state, out = asyncflax.run_chunk(experiment.algorithm, experiment.gradient_fn, state, chunk, batches)
        if waiting is not None:
            jax.block_until_ready(waiting)
            clocks.append((time.perf_counter(), cpu_seconds()))
        waiting = out
    jax.block_until_ready(waiting)
    return state, np.subtract(clocks[-1], clocks[0])


def measured(experiment: Experiment, state: Any, args: argparse.Namespace, workers: int) -> tuple[Any, np.ndarray]:
    """The state, and [alternations, 2 (fed, ready), 2 (wall, CPU)] seconds of blocks."""
    config = dataclasses.replace(experiment.config, decode_processes=workers)
    experiment = experiment._replace(feed=make_feed(config, experiment.data, experiment.plan))
    chunks, times = iter(experiment.plan), []
    for _ in range(args.alternations + 1):  # the first one compiles
        for _ in range(chunks_ahead(workers, args.events)):
            experiment.feed.batches(next(chunks))
        taken = [next(chunks) for _ in range(args.chunks + 2)]
        kept = {}

        def fed(chunk: Chunk, kept: dict[int, Any] = kept) -> Any:
            kept[chunk.events.start] = experiment.batches(chunk)
            return kept[chunk.events.start]

        state, of_fed = block(experiment, state, taken, fed)
        time.sleep(REST)
        state, of_ready = block(experiment, state, taken, lambda chunk, kept=kept: kept[chunk.events.start])
        times.append((of_fed, of_ready))
    experiment.feed.close()
    return state, np.array(times[1:])


def main() -> None:
    """Prints a row for each number of processes that decode."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="configs/imagenet_eight.py")
    parser.add_argument("--model")
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--precision")
    parser.add_argument("--num_workers", type=int)
    parser.add_argument("--data_dir")
    parser.add_argument("--decode_processes", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--events", type=int, default=20, help="number of events per chunk")
    parser.add_argument("--chunks", type=int, default=3, help="number of chunks per block")
    parser.add_argument("--alternations", type=int, default=5)
    args = parser.parse_args()
    try:
        experiment = make_experiment(make_config(args))
    except FileNotFoundError as error:
        print(f"no images to measure: {error}")
        return
    config = experiment.config
    begin = {"key": experiment.key, "model_state": experiment.model_state}
    state = asyncflax.init_run(experiment.algorithm, experiment.params, experiment.plan, **begin)
    print(f"{config.model}, {config.image_size} pixels, batch {config.batch_size}, {config.precision}, ", end="")
    print(f"{config.num_workers} workers, blocks of {args.chunks} chunks of {args.events} events")
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}\n")
    print("| decoding processes | fed, images/s | ready, images/s | waiting | fed, CPU ms an image | ready, CPU ms |")
    print("|---|---|---|---|---|---|")
    images = args.chunks * args.events * config.batch_size
    for workers in args.decode_processes:
        state, times = measured(experiment, state, args, workers)
        fed, ready = images / np.median(times[..., 0], axis=0)
        waiting = np.median(1 - times[:, 1, 0] / times[:, 0, 0])
        cpu = 1e3 * np.median(times[..., 1], axis=0) / images
        print(
            f"| {workers or 'threads'} | {fed:.1f} | {ready:.1f} | {waiting:.1%} | {cpu[0]:.2f} | {cpu[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
