"""Runs a command in a checkout; Ctrl-C while the packages load, which takes seconds, ends in one line."""

import os
import signal
import sys


def run(name: str) -> None:
    """Runs the command `name` with the arguments of the script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise it is ignored, as in background jobs
        signal.signal(signal.SIGINT, _stop)
    from asyncflax import commands

    commands.run(name, sys.argv)


def _stop(number: int, frame: object) -> None:
    os.write(2, b"error: stopped\n")
    os._exit(130)  # nothing has started; KeyboardInterrupt would surface inside some import
