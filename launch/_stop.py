"""Imported first by each launcher: Ctrl-C while the packages load, which takes seconds, ends it in one line."""

import os
import signal


def _stop(number: int, frame: object) -> None:
    os.write(2, b"error: stopped\n")
    os._exit(130)  # nothing has begun, and a KeyboardInterrupt would end in the middle of some module


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
    signal.signal(signal.SIGINT, _stop)
