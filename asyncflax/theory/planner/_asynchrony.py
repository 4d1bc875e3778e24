"""What the workers do to the server: their staleness and their clock, of a queue or of a trace."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asyncflax import queues, theory
from asyncflax.queues import ServiceTime
from asyncflax.staleness import StalenessLaw, empirical
from asyncflax.trace import Trace

_EVENTS = 20_000  # of a simulated queue
_ROUNDS = 4_000  # of simulated barriers


class Asynchrony(NamedTuple):
    """Of one number of workers: a trace, its staleness as the theory knows it, and the clock, nan where unknown."""

    trace: Trace
    staleness: theory.ExponentialQueue | StalenessLaw
    seconds: float  # per update
    barrier: float  # per gradient, if the workers wait for each other

    @property
    def mean(self) -> float:
        """The mean staleness."""
        if isinstance(self.staleness, theory.ExponentialQueue):
            return self.staleness.num_workers - 1.0
        return self.staleness.mean


def of_queue(law: ServiceTime, num_workers: int) -> Asynchrony:
    """That of so many workers with this service time."""
    means = queues.mean_seconds(law, num_workers)
    seconds = float(1 / np.sum(1 / means))  # exact in the long run, for any law
    rounds = queues.barrier(num_workers=num_workers, num_updates=_ROUNDS * num_workers, service_time=law)
    barrier = _seconds(rounds) if num_workers > 1 else seconds
    trace = queues.simulate(num_workers=num_workers, num_updates=_EVENTS, service_time=law)
    exact = num_workers == 1 or law.staleness(num_workers) is not None
    return Asynchrony(trace, theory.ExponentialQueue(num_workers) if exact else _histogram(trace), seconds, barrier)


def of_trace(trace: Trace) -> Asynchrony:
    """That of a trace; what it would be with barriers is unknown."""
    return Asynchrony(trace, _histogram(trace), _seconds(trace), math.nan)


def seconds_of_one(trace: Trace) -> float:
    """The mean seconds between two deliveries of one worker, averaged over the workers."""
    time = trace.time
    if time is None:
        return math.nan
    between = [np.diff(time[trace.worker == i], prepend=0.0) for i in np.unique(trace.worker)]
    return float(np.mean([np.mean(seconds) for seconds in between]))


def _seconds(trace: Trace) -> float:
    """Per update; nan without a clock."""
    return math.nan if trace.time is None or len(trace) == 1 else float(trace.time[-1]) / len(trace)


def _histogram(trace: Trace) -> StalenessLaw:
    """Of the staleness, without the first tenth of the events, in which the queue fills."""
    staleness = trace.staleness[len(trace) // 10 :]
    return empirical(np.bincount(staleness) / len(staleness))
