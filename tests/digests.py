"""Trains small runs through the launchers and writes a digest of every metric and of every final array.

    python tests/digests.py write digests.json      # of this tree
    python tests/digests.py compare HEAD~1          # this tree against that commit, in one go on one machine

A change that only moves or renames things keeps every bit. Bits hold for one CPU and one JAX, so both trees train here,
side by side; the other one is a git worktree and runs its own copy of this script, in its own spelling. The clock is
left out. A leaf is known by its position and a metric by its name, so that a class may be renamed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import killing
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
CLOCK = ("wall_seconds", "updates_per_second")
TWO_DEVICES = "--xla_force_host_platform_device_count=2"
UPDATES = 200  # of the run that is killed

RUNS = {
    "digits": ["launch/train.py", "--config=configs/digits.py:fast"],
    "dc_asgd_on_two_devices": [
        "launch/train.py",
        "--config=configs/digits.py:fast",
        "--config.algorithm=dc_asgd(strength=0.04)",
        "--config.mesh=mesh(device_groups=2)",
    ],
    "resnet20": ["launch/train.py", "--config=configs/resnet20.py:fast"],
    "figure3": ["launch/sweep.py", "--config=configs/figure3.py:fast"],
    "dana_table": ["launch/compare.py", "--config=configs/dana_table.py:fast"],
    "closed_loop": ["launch/compare.py", "--config=configs/closed_loop.py:fast"],
}


def run(name: str, folder: pathlib.Path) -> dict[str, str]:
    """Trains one of the runs in the folder and returns its digests."""
    workdir = folder / name
    if name == "killed":
        hits = [killing.kill(workdir, UPDATES, when, random.Random(1)) for when in ("write", "later")]
        if "after the end" in hits:
            raise RuntimeError("the run was over before it could be killed")
        killing.finish(workdir, UPDATES)
    else:
        flags = TWO_DEVICES if "devices" in name else ""
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        command = [sys.executable, *RUNS[name], f"--workdir={workdir}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return of_training(workdir) if (workdir / "metrics.jsonl").exists() else of_cells(workdir)


def of_training(workdir: pathlib.Path) -> dict[str, str]:
    """The digests of a training: metrics by name, arrays of the last checkpoint by position."""
    arrays = killing.results(workdir)
    arrays.pop("metrics"), arrays.pop("kept")
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = sorted({name for row in rows for name in row} - {*CLOCK})
    metrics = {f"metric {name}": digest(json.dumps([row.get(name) for row in rows]).encode()) for name in names}
    return metrics | {f"array {i}": digest(x.tobytes()) for i, x in enumerate(arrays.values())}


def of_cells(workdir: pathlib.Path) -> dict[str, str]:
    """The digests of a sweep or a comparison: the numbers of all its variables by name."""
    import xarray

    with xarray.open_dataset(workdir / "results.nc", engine="scipy") as results:
        numbers = {str(name): x.values for name, x in results.data_vars.items()}
    return {f"metric {name}": digest(np.ascontiguousarray(values).tobytes()) for name, values in numbers.items()}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def write(path: pathlib.Path) -> None:
    """Trains all runs of this tree, whichever one is installed."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["XLA_FLAGS"] = TWO_DEVICES  # to load what two devices have saved
    with tempfile.TemporaryDirectory() as folder:
        found = {name: run(name, pathlib.Path(folder)) for name in (*RUNS, "killed")}
    path.write_text(json.dumps(found, indent=1) + "\n")


def compare(commit: str) -> list[str]:
    """What differs between this tree and a commit; both train at the same time."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        other = folder / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", other, commit], cwd=ROOT, check=True)
        try:
            paths = [folder / "before.json", folder / "after.json"]
            scripts = [other / "tests" / "digests.py", pathlib.Path(__file__)]
            both = [
                subprocess.Popen([sys.executable, script, "write", path])
                for script, path in zip(scripts, paths, strict=True)
            ]
            statuses = [process.wait() for process in both]
            if any(statuses):
                raise SystemExit("a tree has not trained; see above")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
        before, after = (json.loads(path.read_text()) for path in paths)
    print(*(f"{name}: {len(digests)} digests" for name, digests in after.items()), sep="\n")
    flat = lambda found: {(name, key): value for name, one in found.items() for key, value in one.items()}
    before, after = flat(before), flat(after)
    return [" ".join(key) for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]


def main() -> None:
    """Writes or compares, prints what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("what", help="the file to write, or the commit to compare with")
    args = parser.parse_args()
    if args.action == "write":
        write(pathlib.Path(args.what))
        return
    different = compare(args.what)
    print("different:", *different, sep="\n  ") if different else print("all digests are equal")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
