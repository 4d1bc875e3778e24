"""Events per second of cifar10_quick by width of the rounds, by memory of the versions, and in PyTorch.

    python benchmarks/round_speed.py [--workers 64] [--batch 32 100] [--widths 1 2 4 8 16] [--torch]
    python benchmarks/round_speed.py --workers 16 --batch 32 --widths 1 4 --seconds 1 --alternations 3    # small

One device, exponential work, momentum SGD with a velocity at the server, random images in float32. Blocks of all
contestants alternate in one process; medians. `gradients` is the share of the time that the gradients of a round take
alone, in a program without server and store. `--torch` adds a typical emulator: an event queue, a copy of
the parameters for each worker, and for each event load, gradient, update, store (PyTorch must be installed).
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import asyncflax
from asyncflax import models, queues

IMAGES, RATE, MOMENTUM = 2000, 1e-9, 0.5  # a step that cannot diverge costs the same
Contestant = Callable[[int], None]  # runs a number of events


def data() -> tuple[np.ndarray, np.ndarray]:
    """Noise in the range of mean-subtracted pixels."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 60, (IMAGES, 32, 32, 3)).astype(np.float32), rng.integers(10, size=IMAGES)


def make_gradient() -> tuple[Callable, dict]:
    """The gradient function of a batch of row numbers, and the initial parameters."""
    apply, params = models.functional(models.Cifar10Quick(rngs=nnx.Rngs(0)))

    def loss_fn(images, labels, params, rows):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, images[rows]), labels[rows]).mean()

    return asyncflax.from_loss(jax.tree_util.Partial(loss_fn, *map(jnp.asarray, data()))), params


def engine(trace: asyncflax.Trace, batch: int, width: int, store: str, events: int) -> Contestant:
    """Chunks of about `events` events, the first ones of the trace again and again."""
    gradient_fn, params = make_gradient()
    plan = asyncflax.make_plan(trace.prefix(events), width=width, store=store)
    algorithm = asyncflax.algorithms.momentum_asgd(RATE, MOMENTUM)
    rows = np.random.default_rng(1).integers(IMAGES, size=(events, batch))
    batches = jnp.asarray(rows)

    def run(_: int) -> None:
        state = asyncflax.init_run(algorithm, params, plan)
        state, out = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[0], batches)
        jax.block_until_ready((state.params, out))

    return run


def gradients_alone(trace: asyncflax.Trace, batch: int, width: int, events: int) -> Contestant:
    """The gradients of the same rounds, and nothing else."""
    gradient_fn, params = make_gradient()
    plan = asyncflax.make_plan(trace.prefix(events), width=width)
    rounds = int(plan[0].num_rounds)

    @jax.jit
    def loop(gradient_fn, versions, rows):
        def one_round(r, versions):
            if width == 1:
                grads = gradient_fn(jax.tree.map(lambda x: x[0], versions), rows[r, 0]).grads
                grads = jax.tree.map(lambda x: x[None], grads)
            else:
                grads = jax.vmap(gradient_fn)(versions, rows[r]).grads
            return jax.tree.map(lambda p, g: p - RATE * g, versions, grads)

        return jax.lax.fori_loop(0, rounds, one_round, versions)

    rows = jnp.asarray(np.random.default_rng(1).integers(IMAGES, size=(rounds, width, batch)))
    versions = jax.tree.map(lambda p: jnp.stack([p] * width), params)
    return lambda _: jax.block_until_ready(loop(gradient_fn, versions, rows))


def torch_emulator(num_workers: int, batch: int) -> Contestant:
    """The loop of typical emulators: parameters are copied into the network and out of it again for each event."""
    torch = importlib.import_module("torch")  # not a dependency
    nn = torch.nn
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(**pool), nn.ReLU()),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(**pool, count_include_pad=False)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(**pool, count_include_pad=False)),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10)),
    ).to(device)
    images, labels = data()
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    labels = torch.from_numpy(labels).to(device)
    server = [p.detach().clone() for p in net.parameters()]
    velocity = [torch.zeros_like(p) for p in server]
    copies = [[p.clone() for p in server] for _ in range(num_workers)]
    rng = np.random.default_rng(0)
    queue = [(rng.exponential(), worker) for worker in range(num_workers)]
    heapq.heapify(queue)

    def run(events: int) -> None:
        for _ in range(events):
            now, worker = heapq.heappop(queue)
            rows = torch.from_numpy(rng.integers(IMAGES, size=batch)).to(device)
            with torch.no_grad():
                for parameter, copy in zip(net.parameters(), copies[worker], strict=True):
                    parameter.copy_(copy)
            net.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            with torch.no_grad():
                for parameter, v, p, copy in zip(net.parameters(), velocity, server, copies[worker], strict=True):
                    v.mul_(MOMENTUM).add_(parameter.grad, alpha=RATE)
                    p.sub_(v)
                    copy.copy_(p)
            heapq.heappush(queue, (now + rng.exponential(), worker))
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    """Prints a table for each batch size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 100])
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--stores", nargs="+", default=["device", "host"])
    parser.add_argument("--seconds", type=float, default=2.0, help="approximate seconds per block")
    parser.add_argument("--alternations", type=int, default=7)
    parser.add_argument("--torch", action="store_true")
    args = parser.parse_args()
    law = queues.exponential()
    trace = queues.simulate(num_workers=args.workers, num_updates=100_000, service_time=law)
    print(f"cifar10_quick, {args.workers} workers, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    for batch in args.batch:
        probe = engine(trace, batch, 1, "device", 8)
        probe(8)
        began = time.perf_counter()
        probe(8)
        events = max(32, int(8 * args.seconds / (time.perf_counter() - began)))
        contestants: dict[tuple[str, str], Contestant] = {}
        for width in args.widths:
            for store in args.stores:
                contestants[f"width {width}", store] = engine(trace, batch, width, store, events)
            contestants[f"width {width}", "gradients"] = gradients_alone(trace, batch, width, events)
        if args.torch:
            contestants["PyTorch", "device"] = torch_emulator(args.workers, batch)
        times: dict[tuple[str, str], list[float]] = {name: [] for name in contestants}
        for _ in range(args.alternations + 1):  # the first one compiles
            for name, run in contestants.items():
                began = time.perf_counter()
                run(events)
                times[name].append(time.perf_counter() - began)
        median = {name: float(np.median(t[1:])) for name, t in times.items()}
        rate = {name: events / t for name, t in median.items()}
        first = rate[f"width {args.widths[0]}", args.stores[0]]
        print(f"\nbatch {batch}, {events} events a block\n")
        print(f"| | events a round | {' | '.join(f'events/s, {s}' for s in args.stores)} | to the first | gradients |")
        print("|---|---|" + "---|" * (len(args.stores) + 2))
        for width in args.widths:
            name, mean = f"width {width}", asyncflax.make_plan(trace.prefix(events), width=width).mean_round
            rates = " | ".join(f"{rate[name, store]:.1f}" for store in args.stores)
            share = median[name, "gradients"] / median[name, args.stores[0]]
            print(f"| {name} | {mean:.2f} | {rates} | {rate[name, args.stores[0]] / first:.2f} | {100 * share:.0f} % |")
        if args.torch:
            slower = rate["PyTorch", "device"]
            print(f"| PyTorch | 1 | {slower:.1f} |{' |' * (len(args.stores) - 1)} {slower / first:.2f} | |")


if __name__ == "__main__":
    main()
