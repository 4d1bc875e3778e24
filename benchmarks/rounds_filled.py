"""The share of lanes of a round that hold an event, by workers, service time and width.

    python benchmarks/rounds_filled.py

20,000 events, seeds 0 to 4: means over the seeds, with the minimum and the maximum. Nothing is timed. If launches and
updates took no time, G groups with rounds of width G would be faster than one device by G times this share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import asyncflax
from asyncflax import engine, queues, staleness

EVENTS, SEEDS, WORKERS, WIDTHS = 20_000, range(5), (8, 16, 32, 64), (2, 4, 8)


def kinds() -> dict[str, Callable[[int, int], asyncflax.Trace]]:
    """(workers, seed) -> trace, by name."""

    def queue(law):
        return lambda workers, seed: queues.simulate(
            num_workers=workers, num_updates=EVENTS, service_time=law, seed=seed
        )

    return {
        "deterministic": queue(queues.deterministic()),
        "gamma, cv 0.1": queue(queues.gamma(0.1)),
        "heterogeneous gamma": queue(queues.heterogeneous_gamma()),
        "exponential": queue(queues.exponential()),
        "i.i.d. geometric, mean M - 1": lambda workers, seed: staleness.geometric(workers - 1.0).trace(
            num_updates=EVENTS, seed=seed
        ),
    }


def rows() -> Iterator[tuple[str, int, np.ndarray]]:
    """(kind, workers, share [widths, seeds])."""
    for name, make in kinds().items():
        for workers in WORKERS:
            traces = [make(workers, seed) for seed in SEEDS]
            share = [[engine.forecast(trace, width).filled for trace in traces] for width in WIDTHS]
            yield name, workers, np.array(share)


def main() -> None:
    """Prints the table, in markdown."""
    print(f"{EVENTS:,} events, {len(SEEDS)} seeds: share of the lanes filled in %, mean (smallest to largest).\n")
    heads = [*(f"width {width}" for width in WIDTHS), f"events a round of {WIDTHS[-1]}"]
    print(f"| service time | M | {' | '.join(heads)} |")
    print("|---" * (2 + len(heads)) + "|")
    for name, workers, share in rows():
        cells = [_cell(100 * values, 1) for values in share] + [_cell(WIDTHS[-1] * share[-1], 2)]
        print(f"| {name} | {workers} | {' | '.join(cells)} |", flush=True)


def _cell(values: np.ndarray, digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"


if __name__ == "__main__":
    main()
