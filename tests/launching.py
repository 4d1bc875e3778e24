"""Launchers as a user starts them, many of them for the price of one interpreter.

A process imports the packages, and forks for each command before JAX has started anything: what a command does to
flags, signals and devices is its own, as in a process that was started by itself.
"""

from __future__ import annotations

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def launch_all(commands: list[list[str]], **environment: str) -> list[Done]:
    """Runs commands like ['launch/train.py', '--workdir=x'] one after the other, in the root of the checkout."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_ENABLE_X64": "0", **environment}
    driver = [sys.executable, "-W", "error::DeprecationWarning:asyncflax", __file__]
    text = json.dumps(commands)
    done = subprocess.run(
        driver, input=text, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=True
    )
    return [Done(*one) for one in json.loads(done.stdout)]


def _run(command: list[str], folder: pathlib.Path) -> Done:
    out, err = folder / "out", folder / "err"
    child = os.fork()
    if child == 0:
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.argv = command
        sys.path[0] = str(ROOT / pathlib.Path(command[0]).parent)
        status = 70  # a traceback, which Python prints
        try:
            runpy.run_path(command[0], run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, state = os.waitpid(child, 0)
    return Done(os.waitstatus_to_exitcode(state), out.read_text(), err.read_text())


def main() -> None:
    """Reads commands from the standard input, writes how they ended to the standard output."""
    commands = json.load(sys.stdin)
    import asyncflax.lab.compare
    import asyncflax.lab.figures
    import asyncflax.train.launcher
    import asyncflax.train.loop  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([_run(command, pathlib.Path(folder)) for command in commands]))


if __name__ == "__main__":
    main()
