"""Runs of stale gradients in NumPy: over all possible sequences, or over simulated queues."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflax import Trace, queues


def random_gradient(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """The gradient of a random function that is not convex."""
    a, b, c = rng.uniform(0.2, 1.0), rng.uniform(1.0, 3.0), rng.uniform(0.1, 1.0)
    return lambda x: a * np.sin(b * x) + c * x


def exponential_queue(num_workers: int, num_updates: int, seed: int) -> Trace:
    """A queue with exponential service times."""
    law = queues.exponential()
    return queues.simulate(num_workers=num_workers, num_updates=num_updates, service_time=law, seed=seed)


def all_orders(num_workers: int) -> np.ndarray:
    """int [N, T], the versions read in each of the N equally likely orders of T deliveries."""
    length = min(int(math.log(8192) / math.log(max(num_workers, 2))), 10)
    workers = np.array(list(itertools.product(range(num_workers), repeat=length)))
    last, read = np.zeros((len(workers), num_workers), int), np.empty_like(workers)
    rows = np.arange(len(workers))
    for t, worker in enumerate(workers.T):
        read[:, t] = last[rows, worker]
        last[rows, worker] = t + 1
    return read


def paths(
    read: np.ndarray,
    step: Callable[[np.ndarray], np.ndarray],
    start: Any,
    momentum: float = 0.0,
    noise: Any = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """x_0..x_T, [N, T + 1, ...], of N runs that read the versions [N, T]."""
    runs, length = read.shape
    x = np.empty((length + 1, runs, *np.shape(start)))
    x[0], velocity, rows = start, np.zeros((runs, *np.shape(start))), np.arange(runs)
    for t in range(length):
        velocity = momentum * velocity - step(x[read[:, t], rows])
        if rng is not None:
            velocity = velocity - noise * rng.standard_normal(velocity.shape)
        x[t + 1] = x[t] + velocity
    return x.swapaxes(0, 1)
