"""SIGINT and SIGTERM: a run saves and stops after the current chunk, in all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax

from asyncflax.train import distributed


class Signals:
    """The signal received, if any."""

    arrived: signal.Signals | None = None

    def stopped_by(self) -> signal.Signals | None:
        """The signal that stops the run after this chunk, the same one in all processes."""
        return signal.SIGTERM if distributed.preempted() else self.arrived


@contextlib.contextmanager
def noted() -> Iterator[Signals]:
    """Notes the first SIGINT or SIGTERM; the second one acts at once.

    With several processes, JAX notes SIGTERM, and SIGINT is passed on as one.
    """
    found, before = Signals(), {}

    def note(number: int, _: Any) -> None:
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            found.arrived = signal.Signals(number)  # read by the loop; nothing else is safe in a handler
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    several = jax.process_count() > 1
    with contextlib.suppress(ValueError):  # not in the main thread, whose owner handles signals
        for number in (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield found
    finally:
        restore()
