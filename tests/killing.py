"""Kills real commands with SIGKILL, again and again, and compares what comes out with an uninterrupted twin.

    python tests/killing.py                                 # ten kills each
    python tests/killing.py multi_asgd --kills 30

Every array of the last checkpoint and every metric but the clock must be the same, bit by bit; of a sweep or a
comparison, all results. Prints when the kills came. Half of them are inside a write, by `faults.c`, where there is a C
compiler; the others come at any time.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping

import numpy as np
import writes
from orbax.checkpoint import v1 as orbax

ROOT = pathlib.Path(__file__).parents[1]
EVERY = {"log_every": 5, "eval_every": 20, "checkpoint_every": 10}
DIGITS = {
    "num_workers": 4,
    "asynchrony": "queue(service_time=gamma(cv=0.5))",
    "momentum": 0.5,
    "schedule": "steps(at=0.5)",
    "crop_pad": 1,
    "flip": True,
    **EVERY,
}
TRAINED = {"num_updates": 60, "eval_every": 20, "log_every": 10, "model": "Mlp"}
CELLS = {**{f"train.{name}": value for name, value in TRAINED.items()}, "cells_at_once": 1}
AXES = "momentum=(0.0, 0.3, 0.6), learning_rate=(0.1,), num_workers=(1, 2), seed=(0, 1)"
# A launcher, a config and its fields, by what is tried.
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "multi_asgd": ("train", "digits.py", {"algorithm": "multi_asgd", **DIGITS}),  # a row for each worker
    "meter": ("train", "digits.py", {**DIGITS, "asynchrony": "queue", "momentum": 0.3}),
    "dana_dc": ("train", "digits.py", {"algorithm": "dana_dc", **DIGITS}),
    "closed_loop": ("train", "digits.py", {"algorithm": "closed_loop_momentum", **DIGITS}),
    "batch_norm": ("train", "resnet20.py:fast", {**EVERY, "batch_size": 4, "eval_every": 100}),
    "records": ("train", "imagenet_eight.py:fast", {**EVERY, "batch_size": 4, "eval_every": 100}),
    "sweep": ("sweep", "figure3.py:fast", {**CELLS, "axes": AXES, "figure": "grid"}),
    "compare": ("compare", "closed_loop.py:fast", {**CELLS, "seeds": "(0, 1, 2)"}),
}


def command(workdir: pathlib.Path, updates: int, kind: str = "multi_asgd") -> list[str]:
    """What a user types."""
    launcher, config, fields = KINDS[kind]
    overrides = fields if launcher != "train" else {**fields, "num_updates": updates}
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    return [sys.executable, f"launch/{launcher}.py", f"--config=configs/{config}", f"--workdir={workdir}", *flags]


def start(
    workdir: pathlib.Path, updates: int, kind: str = "multi_asgd", environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """The command as a process of its own, with one device and 32 bits whatever the tests have."""
    plain = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_ENABLE_X64": "0"}
    env = {**os.environ, **plain, **(environment or {})}
    with (workdir.parent / f"{workdir.name}.log").open("a") as output:
        return subprocess.Popen(command(workdir, updates, kind), cwd=ROOT, env=env, stdout=output, stderr=output)


def finish(workdir: pathlib.Path, updates: int, kind: str = "multi_asgd") -> None:
    """Runs the command to its end."""
    if start(workdir, updates, kind).wait(timeout=600) != 0:
        raise RuntimeError((workdir.parent / f"{workdir.name}.log").read_text()[-2000:])


def kill_at(workdir: pathlib.Path, updates: int, kind: str, call: int, library: pathlib.Path) -> str:
    """Starts the command and has it killed at one of its writes in the folder, counted from 1.

    Returns:
      'inside a checkpoint write', 'at another write', or 'after the end' if it made fewer.
    """
    faults = {"LD_PRELOAD": library, "FAULTS_UNDER": workdir, "FAULTS_MODE": "kill", "FAULTS_AT": call}
    status = start(workdir, updates, kind, {name: str(value) for name, value in faults.items()}).wait(timeout=600)
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError((workdir.parent / f"{workdir.name}.log").read_text()[-2000:])
    if status == 0:
        return "after the end"
    return "inside a checkpoint write" if partial(workdir / "checkpoints") else "at another write"


def kill(workdir: pathlib.Path, updates: int, when: str, rng: random.Random, kind: str = "multi_asgd") -> str:
    """Starts the training and kills it: 'start' before its first checkpoint, 'write' inside one, 'later' any time.

    'folder' is a 'start' as early as can be, when the folder is there and perhaps nothing in it.

    Returns:
      what the kill hit: 'before the first checkpoint', 'inside a checkpoint write', 'between' or 'after the end'.
    """
    folder, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
    process = start(workdir, updates, kind)
    if when == "folder":
        wait_for(workdir.exists, process)
    elif when == "start":
        wait_for(lambda: (workdir / "run.json").exists(), process)
        time.sleep(rng.uniform(0.0, 1.0))
    elif when == "write":
        for _ in range(rng.randint(1, 4)):
            wait_for(lambda: not partial(folder), process)
            wait_for(lambda: partial(folder), process)
        time.sleep(rng.uniform(0.0, 0.05))
    else:
        before = version(metrics)
        wait_for(lambda: version(metrics) != before, process)  # rewritten at the start
        begun = version(metrics)
        wait_for(lambda: version(metrics) != begun, process)  # the first row
        time.sleep(rng.uniform(0.0, 1.0))
    process.send_signal(signal.SIGKILL)
    status = process.wait()
    if status == 0:
        return "after the end"
    if status != -signal.SIGKILL:
        raise RuntimeError((workdir.parent / f"{workdir.name}.log").read_text()[-2000:])
    if partial(folder):
        return "inside a checkpoint write"
    has_one = folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())
    return "between" if has_one else "before the first checkpoint"


def version(path: pathlib.Path) -> tuple[int, int, int] | None:
    """What changes when a file is written."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def partial(folder: pathlib.Path) -> bool:
    """Whether a checkpoint is being written."""
    return folder.is_dir() and any(path.suffix == ".partial" for path in folder.iterdir())


def wait_for(condition, process: subprocess.Popen) -> None:
    """Returns when the condition holds or the process has ended."""
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError("the training does not get on")
        time.sleep(0.001)


def results(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, every metric but the clock, and which checkpoints were kept; or all cells."""
    import jax

    cells = workdir / "results.nc"
    if cells.exists():
        import xarray

        with xarray.open_dataset(cells, engine="scipy") as found:
            plain = lambda values: values.astype(str) if values.dtype == object else values
            return {str(name): plain(array.values) for name, array in found.variables.items()}
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    with warnings.catch_warnings(action="ignore"):  # without a description of the arrays, Orbax tells that it guesses
        state = orbax.load(workdir / "checkpoints" / str(kept[-1]) / "state")
    name = lambda path: re.sub(r"\['(\d+)'\]", r"[\1]", jax.tree_util.keystr(path))
    arrays = {name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("wall_seconds"), row.pop("updates_per_second", None)
    return {**arrays, "metrics": np.array([json.dumps(row) for row in rows]), "kept": np.array(kept)}


def differing(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    """The names of what is not bitwise the same."""
    content = lambda arrays, name: (arrays[name].dtype, arrays[name].shape, arrays[name].tobytes())
    lost = left.keys() ^ right.keys()
    return [*lost, *(n for n in left.keys() & right.keys() if content(left, n) != content(right, n))]


def try_kind(kind: str, kills: int, updates: int, folder: pathlib.Path) -> list[str]:
    """Kills one kind of command, finishes it, prints what was hit; returns what differs from the twin."""
    rng, library = random.Random(kind), None if writes.why_not() else writes.library(folder)
    twin, killed = folder / f"{kind}-twin", folder / f"{kind}-killed"
    finish(twin, updates, kind)
    trains, hits = KINDS[kind][0] == "train", collections.Counter()
    while hits.total() - hits["after the end"] < kills:
        if library is not None and (hits.total() % 2 or not trains):
            hit = kill_at(killed, updates, kind, rng.randint(1, 250 if trains else 30), library)
        else:
            hit = kill(killed, updates, ["start", "later", "write"][hits.total() // 2 % 3], rng, kind)
        hits[hit] += 1
        if hits["after the end"] > kills:
            raise RuntimeError(f"{kind}: the commands are too short to be killed")
        if hit == "after the end":
            shutil.rmtree(killed)  # once more from the start
    finish(killed, updates, kind)
    found = results(twin)
    difference = differing(found, results(killed))
    print(f"{kind}: {dict(hits)}; {len(found)} arrays, different: {difference or 'none'}", flush=True)
    return difference


def main() -> None:
    """Kills, finishes, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default all")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--updates", type=int, default=600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/xla")
        tried = [try_kind(kind, args.kills, args.updates, pathlib.Path(folder)) for kind in args.kinds or KINDS]
        sys.exit(any(tried))


if __name__ == "__main__":
    main()
