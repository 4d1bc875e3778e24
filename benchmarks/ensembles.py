"""Updates per second of the ensembles relative to a plain NumPy loop, one trajectory after the other.

    python benchmarks/ensembles.py

Both sides get the same problem, staleness, step size and distribution of samples. The loop is what one writes for a
single trajectory: samples and trace are drawn ahead, and the update is a line of NumPy on arrays. The ensemble draws
everything itself. Blocks of the two alternate; medians are printed. `--threads` ensembles run at a time, each its own
program. Under longer delays an ensemble has fewer trajectories, so that past versions stay in the cache.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflax import queues, theory
from asyncflax.theory.problems import NoisyQuadratic, StreamingPca

LOOP_UPDATES = 20_000
ENSEMBLE_UPDATES = 1024


def read_versions(staleness: Any, num_updates: int, seed: int) -> np.ndarray:
    """int [T], which version each update reads."""
    if isinstance(staleness, theory.ExponentialQueue):
        workers, law = staleness.num_workers, queues.exponential()
        trace = queues.simulate(num_workers=workers, num_updates=num_updates, service_time=law, seed=seed)
        return trace.read_version
    return np.maximum(np.arange(num_updates) - staleness, 0)


def loop_pca(samples: np.ndarray, read: np.ndarray, eta: float, mu: float) -> np.ndarray:
    """Async-MSGD from the saddle, v [T + 1, 4]."""
    v = np.zeros((len(samples) + 1, 4))
    v[0, 1] = 1.0
    velocity = np.zeros(4)
    for k, x in enumerate(samples):
        u = v[read[k]]
        y = x @ u
        velocity = mu * velocity + eta * y * (x - y * u)
        v[k + 1] = v[k] + velocity
    return v


def loop_quadratic(noise: np.ndarray, read: np.ndarray, h: float, mu: float) -> np.ndarray:
    """Momentum SGD on the noisy quadratic, w [T + 1]."""
    w = np.ones(len(noise) + 1)
    velocity = 0.0
    for t in range(len(noise)):
        velocity = mu * velocity - h * (w[read[t]] + noise[t])
        w[t + 1] = w[t] + velocity
    return w


def cases() -> dict[str, tuple[Callable[[int], Any], Callable[[int], Any], int]]:
    """By name, the loop and the ensemble, each a function of a seed, and the ensemble's trajectories."""
    pca, quadratic = StreamingPca(), NoisyQuadratic(noise=0.5)

    def signs(seed: int, *shape: int) -> np.ndarray:
        return np.random.default_rng(seed).choice([-1.0, 1.0], size=shape)

    def case(problem: Any, staleness: Any, rate: float, mu: float, trajectories: int = 16_384):
        def loop(seed: int) -> np.ndarray:
            read = read_versions(staleness, LOOP_UPDATES, seed)
            if problem is pca:
                return loop_pca(signs(seed, LOOP_UPDATES, 4) * np.sqrt(pca.eigenvalues), read, rate, mu)
            return loop_quadratic(0.5 * signs(seed, LOOP_UPDATES), read, rate, mu)

        def ensemble(seed: int) -> np.ndarray:
            options = {"learning_rate": rate, "momentum": mu, "seed": seed}
            return problem.ensemble(
                staleness, num_updates=ENSEMBLE_UPDATES, num_trajectories=trajectories, **options
            ).paths

        return loop, ensemble, trajectories

    return {
        "streaming PCA, no delay": case(pca, 0, 5e-4, 0.9),
        "streaming PCA, constant delay 15": case(pca, 15, 5e-4, 0.9),
        "streaming PCA, constant delay 100": case(pca, 100, 5e-4, 0.7, 2048),
        "streaming PCA, exponential queue of 16": case(pca, theory.ExponentialQueue(16), 5e-4, 0.9, 4096),
        "noisy quadratic, no delay": case(quadratic, 0, 0.01, 0.5),
        "noisy quadratic, constant delay 15": case(quadratic, 15, 0.01, 0.5),
        "noisy quadratic, constant delay 100": case(quadratic, 100, 0.001, 0.5, 8192),
        "noisy quadratic, exponential queue of 16": case(quadratic, theory.ExponentialQueue(16), 0.01, 0.5, 4096),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="updates per second of ensembles over a plain NumPy loop")
    parser.add_argument("--alternations", type=int, default=7, help="number of blocks of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="ensembles at a time")
    arguments = parser.parse_args()
    print(f"{'':42s} {'loop 10^3/s':>11s} {'ensembles 10^6/s':>16s} {'ratio':>7s}")
    with concurrent.futures.ThreadPoolExecutor(arguments.threads) as executor:
        for name, (loop, ensemble, trajectories) in cases().items():
            list(executor.map(ensemble, range(arguments.threads)))  # compiles
            slow, fast = [], []
            for block in range(arguments.alternations):
                start = time.perf_counter()
                loop(block)
                slow.append(LOOP_UPDATES / (time.perf_counter() - start))
                seeds = range(block * arguments.threads, (block + 1) * arguments.threads)
                start = time.perf_counter()
                list(executor.map(ensemble, seeds))
                fast.append(arguments.threads * ENSEMBLE_UPDATES * trajectories / (time.perf_counter() - start))
            ratio = statistics.median(f / s for f, s in zip(fast, slow, strict=True))
            each = statistics.median(slow) / 1e3, statistics.median(fast) / 1e6
            print(f"{name:42s} {each[0]:11.0f} {each[1]:16.1f} {ratio:7.0f}", flush=True)


if __name__ == "__main__":
    main()
