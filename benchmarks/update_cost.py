"""The cost of an update of each method, against a copy of the bytes that it must move.

    python benchmarks/update_cost.py [--size 4000000] [--workers 8 64] [--methods dana_zero ormo] [--alternations 7]

One array of parameters in float32, events of random workers in one loop, without gradients and slots: the method's
update, the addition to the parameters, and the view unless it is the parameters. The arrays that must be moved are
counted by hand below: arrays of d numbers, read or written once each. The compiled program moves XLA's "bytes accessed"
of one event: more, if it computes one array after the other and reads shared inputs again for each, as XLA does on
CPUs. The copy reads and writes the arrays that must be moved for all events at once, through memory; both alternate in
one process. CPU time on a CPU, where each has one thread; medians of the ratios. Below 1, a method's numbers stay in a
cache. The last columns are the time with many workers over that with few, and the same for the program's bytes: 1 if an
event costs O(d) for any number of workers. `multi_asgd` and `shifted_momentum` do the same work, so their difference is
noise.
"""

from __future__ import annotations

import argparse
import inspect
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import algorithms

# Arrays of d numbers that an event reads and writes: the gradient (1 read), the parameters (1 and 1), the state, what
# the worker had read (where the rule needs it), and what is handed out if that is not the parameters (1 write).
MOVED = {
    "asgd": 3,
    "staleness_aware_asgd": 3,
    "delay_adaptive_asgd": 3,
    "ssgd": 7,
    "momentum_asgd": 5,
    "closed_loop_momentum": 5,
    "nag_asgd": 6,
    "lwp": 6,
    "multi_asgd": 5,
    "dana_slim": 5,
    "dana_zero": 8,
    "dana_dc": 9,
    "dc_asgd": 6,
    "shifted_momentum": 5,
    "smega2": 8,
    "ormo": 5,
    "ormo_da": 5,
    "delayed_nesterov": 7,
    "gap_aware_asgd": 8,
    "yellowfin": 8,
}


def updates_of(name: str, num_workers: int, size: int, events: int):
    """A function that makes a number of updates, and the number of arrays that its program moves per update."""
    factory = getattr(algorithms, name)
    options = {"num_workers": num_workers} if "num_workers" in inspect.signature(factory).parameters else {}
    algorithm = factory(1e-6, **options)
    workers = jnp.asarray(np.random.default_rng(0).integers(num_workers, size=events))
    has_view = name in ("nag_asgd", "lwp", "smega2", "dana_zero", "dana_dc")

    def loop(params, state, handed_out, grads, workers):
        def event(t, carry):
            params, state, handed_out = carry
            # A value that changes with the event, so that nothing is hoisted out of the loop.
            g = grads * (1.0 + 1e-9 * t)
            read = handed_out if has_view or name in ("dc_asgd", "gap_aware_asgd") else params
            updates, state = algorithm.update(g, state, params, worker=workers[t], staleness=t % 7, read_params=read)
            params = params + updates
            return params, state, algorithm.view(params, state) if has_view else handed_out

        return jax.lax.fori_loop(0, events, event, (params, state, handed_out))

    params = jnp.ones(size)
    kept = [(params, jax.tree.map(jnp.copy, algorithm.init(params)), jnp.ones(size))]
    grads = jnp.full(size, 1e-3)
    run = jax.jit(loop, donate_argnums=(0, 1, 2)).lower(*kept[0], grads, workers).compile()
    cost: Any = run.cost_analysis()  # of one event: XLA counts the body of a loop once

    def call():
        kept[0] = jax.block_until_ready(run(*kept[0], grads, workers))

    return call, cost["bytes accessed"] / (4 * size)


def copies(moved: int, size: int, events: int):
    """A function that reads and writes the bytes of a number of events, once each, from memory rather than caches."""
    total = moved * size * events // 2
    if jax.default_backend() == "cpu":  # one thread, like the updates in a loop
        source, target = np.ones(total, np.float32), np.ones(total, np.float32)
        return lambda: np.copyto(target, source)
    add = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    kept = [jnp.ones(total)]

    def call():
        kept[0] = jax.block_until_ready(add(kept[0]))

    return call


def main() -> None:
    """Prints a row for each method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--methods", nargs="+", default=list(MOVED), choices=list(MOVED))
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--alternations", type=int, default=7)
    args = parser.parse_args()
    few, *_, many = args.workers
    print(f"{args.size:,} numbers, {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    workers = " | ".join(f"ms, N = {n} | to a copy" for n in args.workers)
    print(f"| method | must move | program moves | {workers} | N = {many} to N = {few} | in bytes |")
    print("|---|---|---|" + "---|---|" * len(args.workers) + "---|---|")
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    for name in args.methods:
        made = [updates_of(name, n, args.size, args.events) for n in args.workers]
        contestants, moved = map(list, zip(*made, strict=True))
        contestants.append(copies(MOVED[name], args.size, args.events))
        times = []
        for _ in range(args.alternations + 1):  # the first one compiles
            row = []
            for call in contestants:
                began = clock()
                call()
                row.append(clock() - began)
            times.append(row)
        seconds = np.array(times[1:])
        cells = []
        for i in range(len(args.workers)):
            ratio = np.median(seconds[:, i] / seconds[:, -1])
            cells += [f"{1e3 * np.median(seconds[:, i]) / args.events:.2f}", f"{ratio:.2f}"]
        scaling = np.median(seconds[:, len(args.workers) - 1] / seconds[:, 0])
        counted = f"{MOVED[name]} | {moved[0]:.1f}"
        print(f"| {name} | {counted} | {' | '.join(cells)} | {scaling:.2f} | {moved[-1] / moved[0]:.2f} |", flush=True)
        del contestants


if __name__ == "__main__":
    main()
