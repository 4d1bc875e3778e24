"""Kills a real training with SIGKILL, again and again, and compares what comes out with an uninterrupted twin.

    python tests/killing.py --kills 30

A per-worker method on a queue trace, with augmentation and dropout. Every array of the last checkpoint and every metric
but the clock must be the same, bit by bit. Prints when the kills came.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
from orbax.checkpoint import v1 as orbax

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "algorithm": "multi_asgd",
    "num_workers": 4,
    "asynchrony": "queue(service_time=gamma(cv=0.5))",
    "momentum": 0.5,
    "learning_rate_drops": "(0.5,)",
    "crop_pad": 1,
    "flip": True,
    "log_every": 5,
    "eval_every": 20,
    "checkpoint_every": 10,
}


def command(workdir: pathlib.Path, updates: int) -> list[str]:
    """The training, as a user starts it."""
    overrides = {**SETTINGS, "num_updates": updates}
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    return [sys.executable, "launch/train.py", "--config=configs/digits.py", f"--workdir={workdir}", *flags]


def start(workdir: pathlib.Path, updates: int) -> subprocess.Popen:
    """The training as a process of its own, with one device and 32 bits whatever the tests have."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_ENABLE_X64": "0"}
    with (workdir.parent / f"{workdir.name}.log").open("a") as output:
        return subprocess.Popen(command(workdir, updates), cwd=ROOT, env=environment, stdout=output, stderr=output)


def finish(workdir: pathlib.Path, updates: int) -> None:
    """Runs the training to its end."""
    if start(workdir, updates).wait(timeout=600) != 0:
        raise RuntimeError((workdir.parent / f"{workdir.name}.log").read_text()[-2000:])


def kill(workdir: pathlib.Path, updates: int, when: str, rng: random.Random) -> str:
    """Starts the training and kills it: 'start' before its first checkpoint, 'write' inside one, 'later' any time.

    'folder' is a 'start' as early as can be, when the folder is there and perhaps nothing in it.

    Returns:
      what the kill hit: 'before the first checkpoint', 'inside a checkpoint write', 'between' or 'after the end'.
    """
    folder, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
    process = start(workdir, updates)
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
    """Every array of the last checkpoint, every metric but the clock, and which checkpoints were kept."""
    import jax

    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    with warnings.catch_warnings(action="ignore"):  # without a description of the arrays, Orbax tells that it guesses
        state = orbax.load(workdir / "checkpoints" / str(kept[-1]) / "state")
    arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("wall_seconds"), row.pop("updates_per_second", None)
    return {**arrays, "metrics": np.array([json.dumps(row) for row in rows]), "kept": np.array(kept)}


def differing(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    """The names of what is not bitwise the same."""
    content = lambda arrays, name: (arrays[name].dtype, arrays[name].shape, arrays[name].tobytes())
    lost = left.keys() ^ right.keys()
    return [*lost, *(n for n in left.keys() & right.keys() if content(left, n) != content(right, n))]


def main() -> None:
    """Kills, finishes, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--updates", type=int, default=900)
    args = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        twin, killed = pathlib.Path(folder, "twin"), pathlib.Path(folder, "killed")
        finish(twin, args.updates)
        plan = ["folder", "start", *("later" if i % 2 else "write" for i in range(args.kills - 2))]
        hits: dict[str, int] = {}
        for when in plan:
            hit = kill(killed, args.updates, when, rng)
            hits[hit] = hits.get(hit, 0) + 1
            print(f"kill {sum(hits.values()):2d}: {hit}", flush=True)
        finish(killed, args.updates)
        found = results(twin)
        difference = differing(found, results(killed))
        print(f"{hits}; {len(found)} arrays, different: {difference or 'none'}")
        sys.exit(bool(difference))


if __name__ == "__main__":
    main()
