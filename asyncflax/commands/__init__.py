"""The commands of `asyncflax`, one file each; `launch/` has them as scripts of a checkout.

Exit statuses: 0 done; 1 an error, in one line on standard error; 75 the time that was given is over, and the same
command resumes; 130 Ctrl-C, 143 SIGTERM (128 + the signal), after which the same command resumes; 141 nobody reads the
output any more.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "train": "train a network under asynchrony",
    "sweep": "train a grid, many cells at once, and draw its figure",
    "compare": "compare methods on the same traces, data and initial weights",
    "plan": "what asynchrony will cost and buy, before anything is trained",
    "rounds": "how wide to make rounds on several devices",
    "theory": "check the theorems",
    "study": "ask one question about one method",
    "streaming-pca": "how much delay momentum leaves in streaming PCA",
    "claims": "keep the claims in results/ and their tables, run them again",
    "list": "what there is: methods, networks, data sets, ...",
    "describe": "one of them: options, equation, source",
}


def main() -> None:
    """The program `asyncflax`: runs a command, or says what there is."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("help", "-h", "-help", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        from asyncflax import __version__

        print(__version__)
        return
    if arguments[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it must be one of {', '.join(COMMANDS)}."
        _end(f"unknown command {arguments[0]!r}; {hint}", 1)
    run(arguments[0], [f"asyncflax {arguments[0]}", *arguments[1:]])


def run(name: str, argv: Sequence[str]) -> None:
    """Runs a command.

    Args:
      name: of it.
      argv: how it was called, and its arguments.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
        signal.signal(signal.SIGINT, _interrupted)  # while the packages load
    sys.argv = [*argv]
    try:
        command = importlib.import_module(f"asyncflax.commands.{name.replace('-', '_')}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "asyncflax":
            raise
        _end(f'{name} needs {error.name}, which is not installed; pip install "asyncflax[train]"', 1)
    command.run()


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  asyncflax {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "Asynchronous SGD, emulated, studied and tamed.",
            "",
            *lines,
            "",
            "asyncflax COMMAND --help lists the flags and the fields of its config. Try",
            "  asyncflax train --config=digits --workdir=runs/digits",
        ]
    )


def _interrupted(number: int, frame: object) -> None:
    os.write(2, b"error: stopped\n")
    os._exit(130)  # nothing has begun, and a KeyboardInterrupt would end in the middle of some module


def _end(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
