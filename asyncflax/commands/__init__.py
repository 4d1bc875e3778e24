"""The `asyncflax` commands, one file each; in a checkout `launch/` has them as scripts.

Exit status: 0 for success; 1 for an error, reported in one line on standard error; 75 when the time limit is reached;
130 after Ctrl-C and 143 after SIGTERM (128 + the signal); 141 when standard output is closed. After 75, 130 and 143
rerun the same command to resume.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import asyncflax
from asyncflax import _check

COMMANDS = {
    "train": "train a network under asynchrony",
    "sweep": "train a grid, many cells at once, and draw its figure",
    "compare": "compare methods on the same traces, data and initial weights",
    "plan": "predict what asynchrony costs and gains, before training",
    "rounds": "choose the width of rounds on several devices",
    "theory": "verify the theorems",
    "study": "run a study of a single method",
    "streaming-pca": "measure how much delay momentum tolerates in streaming PCA",
    "claims": "collect claims in results/, update their tables, reproduce them",
    "list": "list methods, networks, data sets, ...",
    "describe": "show the options, equation and source of any of them",
}


def main() -> None:
    """Entry point of the program `asyncflax`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("help", "-h", "-help", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        print(asyncflax.__version__)
        return
    if arguments[0] not in COMMANDS:
        near = _check.nearest(arguments[0], [*COMMANDS])
        _end(f"unknown command {arguments[0]!r}{near} 'asyncflax help' lists all", 1)
    run(arguments[0], [f"asyncflax {arguments[0]}", *arguments[1:]])


def run(name: str, argv: Sequence[str]) -> None:
    """Runs a command; `argv` is the program's name and the arguments."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs ignore the signal
        signal.signal(signal.SIGINT, _interrupted)  # while packages are imported
    sys.argv = [*argv]
    try:
        command = importlib.import_module(f"asyncflax.commands.{name.replace('-', '_')}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "asyncflax":
            raise
        _end(f'{name} needs {error.name}, which is not installed; pip install "asyncflax[train]"', 1)
    command.main()


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  asyncflax {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "Emulate, study and tame asynchronous SGD.",
            "",
            *lines,
            "",
            "asyncflax COMMAND --help lists the flags and the fields of its config. Try",
            "  asyncflax train --config=digits --workdir=runs/digits",
        ]
    )


def _interrupted(number: int, frame: object) -> None:
    os.write(2, b"error: stopped\n")
    os._exit(130)  # nothing has started; KeyboardInterrupt would surface inside some import


def _end(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
