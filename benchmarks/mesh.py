"""Speed-up from a second device: asynchronous rounds on a mesh against synchronous data parallelism, in one run.

    python benchmarks/mesh.py [--devices 2] [--workers 8] [--batch 100] [--alternations 9]
    python benchmarks/mesh.py --service gamma       # regular work: all lanes are filled

Without accelerators a device is a process bound to one core (a CPU device uses all cores of its process, so a second
one would add none), and collectives go through the loopback. cifar10_quick on random images. Four contestants, each a
program of about the same number of gradients:

    asynchronous, 1 device     one event after the other
    asynchronous, P groups     rounds of width P
    synchronous, 1 device      the same batches, one worker without staleness
    synchronous, P replicas    each batch split over P devices, the gradient all-reduced

Blocks alternate; medians of the ratios. The results are the speed-ups of the second row over the first and of the
fourth over the third, with the planner's expectation for the second. While one device computes alone, the others are
idle.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

PROCESS = "ASYNCFLAX_MESH_PROCESS"  # set in the processes that this one starts
if PROCESS in os.environ:
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(os.environ[PROCESS]) % len(_cores)]})

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from round_speed import IMAGES, MOMENTUM, RATE, make_gradient  # noqa: E402

import asyncflax  # noqa: E402
from asyncflax import engine, queues  # noqa: E402
from asyncflax.train import distributed  # noqa: E402


def contestant(trace, batch, *, group, replica, width, server):
    """A function that runs the trace once; where both are 1, the first process alone."""
    alone = group * replica == 1
    if alone and not distributed.is_primary():
        return lambda: None
    mesh = None if alone else asyncflax.make_mesh(group, replica)
    plan = asyncflax.make_plan(trace, width=width, mesh=mesh, server="replicated" if alone else server)
    gradient_fn, params = make_gradient()
    gradient_fn = plan.place(gradient_fn)
    algorithm = asyncflax.algorithms.momentum_asgd(RATE, MOMENTUM)
    rows = np.random.default_rng(1).integers(IMAGES, size=(len(trace), batch))
    batches = plan.placement.put_batches(jnp.asarray(rows))

    def run():
        state = asyncflax.init_run(algorithm, params, plan)
        state, out = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[0], batches)
        jax.block_until_ready((state.params, out))

    return run


def measure(args: argparse.Namespace) -> None:
    """All contestants, in each process; the first one prints seconds and speed-ups."""
    law, p = getattr(queues, args.service)(), args.devices
    trace = queues.simulate(num_workers=args.workers, num_updates=args.events, service_time=law)
    alone = asyncflax.staleness.constant(0).trace(num_updates=args.events)
    common = {"batch": args.batch, "server": args.server}
    contestants = {
        "asynchronous, 1 device": contestant(trace, group=1, replica=1, width=1, **common),
        f"asynchronous, {p} groups": contestant(trace, group=p, replica=1, width=p, **common),
        "synchronous, 1 device": contestant(alone, group=1, replica=1, width=1, **common),
        f"synchronous, {p} replicas": contestant(alone, group=1, replica=p, width=1, **common),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.alternations + 1):  # the first one compiles
        for name, run in contestants.items():
            distributed.sync("begin")
            began, worked = time.perf_counter(), time.process_time()
            run()
            times[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - worked)
    if not distributed.is_primary():
        return
    seconds = {name: np.array(t[1:]) for name, t in times.items()}
    expected = engine.forecast(trace, p, device_groups=p)
    print(
        f"cifar10_quick, batch {args.batch}, {args.workers} workers, {law}, {args.server} server, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n"
    )
    print("| | ms a gradient | CPU ms of the first device | speed-up | expected |\n|---|---|---|---|---|")
    names = list(contestants)
    a_gradient = lambda values: f"{1e3 * np.median(values) / args.events:.1f}"
    for one, many, hope in ((names[0], names[1], expected.speed_up), (names[2], names[3], float(p))):
        ratio = np.median(seconds[one] / seconds[many])
        print(f"| {one} | {a_gradient(seconds[one])} | {a_gradient(cpu[one][1:])} | | |")
        print(f"| {many} | {a_gradient(seconds[many])} | {a_gradient(cpu[many][1:])} | {ratio:.2f} | {hope:.2f} |")


def main() -> None:
    """Starts a process for each device, or is one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--alternations", type=int, default=9)
    parser.add_argument("--service", default="exponential", choices=["exponential", "gamma", "deterministic"])
    parser.add_argument("--server", default="replicated", choices=["replicated", "sharded"])
    parser.add_argument("--port", type=int, default=9931, help="on which the processes find each other")
    args = parser.parse_args()
    if PROCESS in os.environ:
        distributed.start(f"127.0.0.1:{args.port}", args.devices, int(os.environ[PROCESS]))
        measure(args)
        return
    each = [{**os.environ, PROCESS: str(index)} for index in range(args.devices)]
    command = [sys.executable, *sys.argv]
    processes = [subprocess.Popen(command, env=environment) for environment in each]
    sys.exit(max(process.wait() for process in processes))


if __name__ == "__main__":
    main()
