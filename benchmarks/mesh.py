"""What a second device buys: asynchronous rounds on a mesh against synchronous data parallelism, in one run.

    python benchmarks/mesh.py [--devices 2] [--workers 8] [--batch 100] [--alternations 9]
    python benchmarks/mesh.py --service gamma       # regular work: all lanes are filled

Without accelerators, P devices of the CPU, cifar10_quick on random images. (XLA is asked to give each of them one
thread; jax 0.10.2 does not, so there one device uses two cores already: the speed-ups say little.) Four contestants,
each a program of about the same number of gradients:

    asynchronous, 1 device     one event after the other
    asynchronous, P groups     rounds of width P
    synchronous, 1 device      the same batches, one worker without staleness
    synchronous, P replicas    each batch split over P devices, the gradient all-reduced

Blocks alternate; medians of the ratios. The speed-ups of the second and fourth row over the first and third are what is
compared; the expectation of the planner for the second is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_DEVICES = int(sys.argv[sys.argv.index("--devices") + 1]) if "--devices" in sys.argv else 2
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={_DEVICES} {ONE_THREAD}"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from round_speed import IMAGES, MOMENTUM, RATE, make_gradient  # noqa: E402

import asyncflax  # noqa: E402
from asyncflax import queues, rounds  # noqa: E402


def contestant(trace, batch, *, group, replica, width, server):
    """A function that runs the trace once; one device where both are 1."""
    mesh = asyncflax.make_mesh(group, replica) if group * replica > 1 else None
    plan = asyncflax.make_plan(trace, width=width, mesh=mesh, server=server if mesh is not None else "replicated")
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


def main() -> None:
    """Prints seconds and speed-ups."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--alternations", type=int, default=9)
    parser.add_argument("--service", default="exponential", choices=["exponential", "gamma", "deterministic"])
    parser.add_argument("--server", default="replicated", choices=["replicated", "sharded"])
    args = parser.parse_args()
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
    for _ in range(args.alternations + 1):  # the first one compiles
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    seconds = {name: np.array(t[1:]) for name, t in times.items()}
    expected = rounds.forecast(trace, p, num_groups=p)
    print(
        f"cifar10_quick, batch {args.batch}, {args.workers} workers, {law}, {args.server} server, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n"
    )
    print("| | ms a gradient | speed-up | expected |\n|---|---|---|---|")
    names = list(contestants)
    for one, many, hope in ((names[0], names[1], expected.speed_up), (names[2], names[3], float(p))):
        ratio = np.median(seconds[one] / seconds[many])
        print(f"| {one} | {1e3 * np.median(seconds[one]) / args.events:.1f} | | |")
        print(f"| {many} | {1e3 * np.median(seconds[many]) / args.events:.1f} | {ratio:.2f} | {hope:.2f} |")


if __name__ == "__main__":
    main()
