"""The time and memory needed to simulate a queue and to plan a run.

    python benchmarks/traces.py

Medians of seven repetitions; memory is what Python and NumPy allocate at their peak (tracemalloc), in a run of its own.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

import asyncflax
from asyncflax import queues, staleness


def cases() -> dict[str, Callable[[], object]]:
    """The calls to measure, by name."""
    million = 1_000_000

    def simulate(workers, events, law, **policy):
        return lambda: queues.simulate(num_workers=workers, num_updates=events, service_time=law, **policy)

    trace = simulate(64, million, queues.exponential())()
    return {
        "64 workers, exponential, 10^6 events": simulate(64, million, queues.exponential()),
        "64 workers, heterogeneous gamma, 10^6 events": simulate(64, million, queues.heterogeneous_gamma()),
        "64 workers, 4 stragglers, 10^6 events": simulate(64, million, queues.stragglers(4)),
        "10,000 workers, exponential, 10^6 events": simulate(10_000, million, queues.exponential()),
        "64 workers, restart beyond 128, 10^6 events": simulate(64, million, queues.exponential(), max_staleness=128),
        "i.i.d. geometric, mean 63, 10^6 events": lambda: staleness.geometric(63.0).trace(num_updates=million),
        "plan of the first, width 1": lambda: asyncflax.make_plan(trace),
        "plan of the first, width 8": lambda: asyncflax.make_plan(trace, width=8),
    }


def main() -> None:
    """Prints the table."""
    print(f"{'':46s} {'wall s':>7s} {'CPU s':>7s} {'MiB':>6s}")
    for name, make in cases().items():
        wall, cpu = [], []
        for _ in range(7):
            start = time.perf_counter(), time.process_time()
            make()
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        tracemalloc.start()
        make()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(
            f"{name:46s} {statistics.median(wall):7.2f} {statistics.median(cpu):7.2f} {peak / 2**20:6.0f}", flush=True
        )


if __name__ == "__main__":
    main()
