"""Kills a process, or fills the disk, at every single write of a checkpoint, and looks what is left.

    python tests/writes.py

A process saves one checkpoint and, under `faults.c`, a second one, which removes the first. Whatever happens, one of
the two must be loaded, with the bits that were saved, and the next one can be saved. Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import errno
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable

import numpy as np

TESTS = pathlib.Path(__file__).parent
FIRST, SECOND, THIRD = 10, 20, 30
FULL = 28  # the exit status of a process that has found the disk full, and said so


def why_not() -> str:
    """Why this cannot be done here, '' if it can."""
    if sys.platform != "linux":
        return "faults.c needs Linux"
    return "" if shutil.which("cc") else "there is no C compiler"


def library(folder: pathlib.Path) -> pathlib.Path:
    """Compiles faults.c into a folder."""
    path = folder / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", path, TESTS / "faults.c", "-ldl"], check=True)
    return path


def state(update: int):
    """A state with arrays, keys and a method's rows, which differ between updates."""
    import jax
    import jax.numpy as jnp

    import asyncflax

    plan = asyncflax.make_plan(asyncflax.staleness.constant(2).trace(num_updates=4))
    params = {
        "w": jnp.arange(4000, dtype=jnp.float32).reshape(40, 100) + update,
        "b": jnp.full(3, update, jnp.bfloat16),
    }
    return asyncflax.init_run(asyncflax.algorithms.momentum_asgd(0.1), params, plan, key=jax.random.key(update))


def save(folder: pathlib.Path, update: int) -> None:
    """Saves one, with everything that can be in it."""
    from asyncflax.train.checkpoint import Checkpoints

    about = {"config": {"seed": update}, "metrics": {"test_accuracy": update / 100}, "rows": [{"update": update}]}
    Checkpoints(folder, keep=1).save(update, state(update), **about, extra={"window": np.full(9, update)})


def left(folder: pathlib.Path) -> int:
    """Which checkpoint is found, after all that belongs to it has been compared, and after a next one was saved."""
    import jax

    from asyncflax.train.checkpoint import Checkpoints

    said: list[str] = []
    found = Checkpoints(folder, warn=said.append).latest(like=state(0))
    assert found is not None and not said, said
    assert found.config == {"seed": found.update} and found.rows == [{"update": found.update}]
    assert found.metrics == {"test_accuracy": found.update / 100} and found.extra["window"].tolist() == 9 * [
        found.update
    ]
    wanted = state(found.update)
    data = lambda tree: jax.tree.leaves(tree._replace(key=jax.random.key_data(tree.key)))
    for one, other in zip(data(found.state), data(wanted), strict=True):
        np.testing.assert_array_equal(one, other)
    save(folder, THIRD)
    newest = Checkpoints(folder).latest(like=state(0))
    assert newest is not None and newest.update == THIRD
    assert [path.name for path in folder.iterdir()] == [str(THIRD)], sorted(folder.iterdir())
    return found.update


def count(folder: pathlib.Path) -> int:
    """How many writes there are in the second save."""
    _processes(folder, "count", [0])
    return int((folder / "calls").read_text())


def try_all(folder: pathlib.Path, mode: str, writes: Iterable[int]) -> collections.Counter[str]:
    """Kills ('kill') or fills the disk ('full') at each of these writes, from 1; counts what was found after it.

    Raises:
      AssertionError: what is left is not one of the two checkpoints, or a full disk was not said.
    """
    writes, outcomes = list(writes), collections.Counter()
    for at, status in zip(writes, _processes(folder, mode, writes), strict=True):
        assert int(status) in ((-9,) if mode == "kill" else (0, FULL)), f"{mode} at write {at}: status {status}"
        found = left(folder / f"{mode}-{at}")
        assert status != "0" or found == SECOND, f"{mode} at write {at} lost the checkpoint in silence"
        outcomes[{FIRST: "the one before", SECOND: "the new one"}[found]] += 1
    return outcomes


def _processes(folder: pathlib.Path, mode: str, writes: list[int]) -> list[str]:
    """The exit status of each process."""
    environment = {**os.environ, "LD_PRELOAD": str(library(folder)), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, __file__, "--in", str(folder), "--mode", mode, *map(str, writes)]
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def _in_children(folder: pathlib.Path, mode: str, writes: list[int]) -> None:
    """Under faults.c: a child for each write, forked before JAX has started anything; prints how each ended."""
    from orbax.checkpoint import v1  # noqa: F401  once for all children

    import asyncflax.train.checkpoint  # noqa: F401

    for at in writes:
        if (child := os.fork()) == 0:
            os._exit(_child(folder / f"{mode}-{at}", mode, at))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _child(folder: pathlib.Path, mode: str, at: int) -> int:
    save(folder, FIRST)
    os.environ.update(FAULTS_UNDER=str(folder), FAULTS_MODE=mode, FAULTS_AT=str(at))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        save(folder, SECOND)
    except Exception as error:
        return FULL if _is_full(error) else 1
    if mode == "count":
        (folder.parent / "calls").write_text(str(ctypes.CDLL(None).faults_calls()))
    return 0


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind it; C++ has words for it, no number."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> None:
    """Every write once, in both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--in", dest="folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("writes", nargs="*", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return _in_children(args.folder, args.mode, args.writes)
    if reason := why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        total = count(folder)
        for mode in ("kill", "full"):
            print(f"{mode} at each of {total} writes: {dict(try_all(folder, mode, range(1, total + 1)))}", flush=True)


if __name__ == "__main__":
    main()
