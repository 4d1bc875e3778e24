"""Images per second and memory of ResNet-50 and CaffeNet: one worker (synchronous), many, plain Flax, and PyTorch.

    python benchmarks/imagenet_speed.py [--model ResNet50] [--batch 256] [--workers 1 8 64] [--torch] [--peak]
    python benchmarks/imagenet_speed.py --image_size 64 --batch 8 --events 4 --alternations 3 --stores device    # small

One device, momentum SGD, bfloat16 with float32 parameters. A few uint8 images are on the device, so that input is not
measured (`benchmarks/input_pipeline.py` and `benchmarks/input_wait.py` do that). `plain` is what people write: a
compiled training step with donated arguments, called in a Python loop; the engine also computes the gap and the norm of
each gradient. PyTorch uses channels last and autocast, and compiles on a GPU. There is no weight decay; CaffeNet has
dropout. Blocks of all contestants alternate in one process; medians are printed with the bytes of each run's state:
parameters, velocity, statistics and versions, on the device and on the host.

`--peak` measures memory instead. Each contestant has its own processes: one that compiles, which takes memory as well,
and one that finds its programs compiled and is measured. On a GPU the peak is the largest number of bytes in use, as
reported by JAX or PyTorch, the latter for a block after the first; on a CPU it is the largest resident memory. JAX's
and the CPU's include the start of the run. The peak of a process with the images alone is subtracted.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory of the GPU as well

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch_networks
from flax import nnx

import asyncflax
from asyncflax import models, queues
from asyncflax.train import launcher
from asyncflax.train.precision import compute_in

IMAGES, CLASSES, RATE, MOMENTUM = 1024, 1000, 1e-6, 0.9
MEAN, SCALE = 117.0, 1 / 58
NOBODY = "images alone"


class Contestant(NamedTuple):
    """A training loop to measure."""

    run: Callable[[], None]  # on a block of batches
    held: Callable[[], tuple[int, int]] | None = None  # the bytes of its state, on the device and on the host


def network(name: str, size: int, precision: str) -> tuple[Callable, Any, Any]:
    """apply, parameters, statistics."""
    model = models.initialized(getattr(models, name), jax.random.key(0), image_shape=(size, size, 3))
    apply, params, statistics = models.functional_with_state(model)
    return compute_in(precision, apply), params, statistics


def data(size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 noise and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8), rng.integers(CLASSES, size=IMAGES)


def make_loss(apply: Callable) -> Callable:
    """The loss of a batch of row numbers, dropout keys and statistics included."""

    def loss_fn(images, labels, params, rows, *, key, model_state):
        x = (images[rows].astype(jnp.float32) - MEAN) * SCALE
        logits, update = apply(params, model_state, x, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean(), ((), update)

    return loss_fn


def plain(args: argparse.Namespace, rows: np.ndarray) -> Contestant:
    """A synchronous training step and a loop around it."""
    apply, params, statistics = network(args.model, args.image_size, args.precision)
    images, labels = map(jnp.asarray, data(args.image_size))
    loss_fn, tx = make_loss(apply), optax.sgd(RATE, MOMENTUM)

    def step(params, opt_state, statistics, rows, key, images, labels):
        loss = lambda params: loss_fn(images, labels, params, rows, key=key, model_state=statistics)
        (value, (_, update)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        statistics = statistics if update is None else update.apply(statistics)
        return optax.apply_updates(params, updates), opt_state, statistics, value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    kept = [params, tx.init(params), statistics]
    batches = [jnp.asarray(row) for row in rows]
    keys = list(jax.random.split(jax.random.key(1), len(rows)))

    def run() -> None:
        value = None
        for batch, key in zip(batches, keys, strict=True):
            *kept[:], value = compiled(*kept, batch, key, images, labels)
        jax.block_until_ready(value)

    return Contestant(run)


def engine(args: argparse.Namespace, rows: np.ndarray, workers: int, store: str) -> Contestant:
    """A chunk of the engine, again and again."""
    apply, params, statistics = network(args.model, args.image_size, args.precision)
    arrays = map(jnp.asarray, data(args.image_size))
    loss_fn = jax.tree_util.Partial(make_loss(apply), *arrays)
    gradient_fn = asyncflax.from_loss(loss_fn, has_aux=True, has_model_update=True)
    chunks = 20 * workers // len(rows) + 1
    trace = queues.simulate(num_workers=workers, num_updates=chunks * len(rows), service_time=queues.gamma())
    plan = asyncflax.make_plan(trace, width=1, store=store, cuts=range(0, len(trace), len(rows)))
    assert plan.num_slots == workers
    chunk = plan[-1]  # by then all workers have versions of their own
    algorithm = asyncflax.algorithms.momentum_asgd(RATE, MOMENTUM)
    batches = jnp.asarray(rows)
    kept = [asyncflax.init_run(algorithm, params, plan, key=jax.random.key(0), model_state=statistics)]

    def run() -> None:
        state = kept[0]._replace(event=np.int32(chunk.first_event))  # the same chunk again, from where it ended
        kept[0], out = asyncflax.run_chunk(algorithm, gradient_fn, state, chunk, batches)
        jax.block_until_ready((kept[0].params, out))

    def held() -> tuple[int, int]:
        leaves = [x for x in jax.tree.leaves(kept[0]) if isinstance(x, jax.Array)]
        on_host = [x for x in leaves if x.sharding.memory_kind not in (None, "device")]
        return sum(x.nbytes for x in leaves) - sum(x.nbytes for x in on_host), sum(x.nbytes for x in on_host)

    return Contestant(run, held)


def torch_loop(args: argparse.Namespace, rows: np.ndarray) -> Contestant:
    """The same network in PyTorch."""
    torch = importlib.import_module("torch")  # not a dependency
    net = torch_networks.network(torch, args.model, args.image_size, CLASSES)
    ours = lambda: getattr(models, args.model)((args.image_size, args.image_size, 3), rngs=nnx.Rngs(0))
    assert sum(p.numel() for p in net.parameters()) == models.count_parameters(nnx.eval_shape(ours))
    logits = lambda pixels: net((pixels.float() - MEAN) * SCALE)
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)
    return Contestant(torch_networks.loop(torch, logits, optimizer, data(args.image_size), rows, args.precision))


def contestants(args: argparse.Namespace) -> dict[str, Callable[[], Contestant]]:
    """Factories of the contestants, by name."""
    rows = np.random.default_rng(1).integers(IMAGES, size=(args.events, args.batch)).astype(np.int32)
    makers: dict[str, Callable[[], Contestant]] = {"plain": functools.partial(plain, args, rows)}
    for workers in args.workers:
        for store in args.stores:
            name = f"{workers} worker{'s' if workers > 1 else ''}, versions on the {store}"
            makers[name] = functools.partial(engine, args, rows, workers, store)
    if args.torch:
        makers["PyTorch"] = functools.partial(torch_loop, args, rows)
    return makers


def print_speeds(args: argparse.Namespace) -> None:
    """Prints images per second, and the bytes of the states."""
    made = {name: make() for name, make in contestants(args).items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(args.alternations + 1):  # the first one compiles
        for name, contestant in made.items():
            began = time.perf_counter()
            contestant.run()
            times[name].append(time.perf_counter() - began)
    rate = {name: args.events * args.batch / np.median(t[1:]) for name, t in times.items()}
    print_title(args, jax.devices()[0].device_kind)
    print("| | images/s | to plain | state on the device, GB | on the host, GB |")
    print("|---|---|---|---|---|")
    for name, contestant in made.items():
        held = contestant.held and contestant.held()
        print(f"| {name} | {rate[name]:.1f} | {rate[name] / rate['plain']:.3f} | {gigabytes(held)} |")


def print_peaks(args: argparse.Namespace) -> None:
    """Prints the peak memory of each contestant, and the bytes of the states."""
    found = {}
    for name in (NOBODY, *contestants(args)):
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, *sys.argv[1:], "--alone", name, "--cache", cache]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # compiles
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    images = found.pop(NOBODY)
    print_title(args, images["device"])
    print(f"images alone: {images['peak'] / 1e9:.2f} GB, which is subtracted\n")
    print("| | peak, GB | beyond plain, GB | state on the device, GB | on the host, GB |")
    print("|---|---|---|---|---|")
    for name, of in found.items():
        peak, beyond = (of["peak"] - less for less in (images["peak"], found["plain"]["peak"]))
        print(f"| {name} | {peak / 1e9:.2f} | {beyond / 1e9:.2f} | {gigabytes(of['held'])} |")


def print_alone(args: argparse.Namespace) -> None:
    """Runs one contestant, and prints the numbers that `print_peaks` reads.

    The parent process must be small: on Linux its resident memory at the start of this process counts here.
    """
    launcher.use_cache(args.cache)
    torch = importlib.import_module("torch") if args.torch else None  # imported by all contestants, so it is subtracted
    contestant = None
    if args.alone == NOBODY:
        kept = [jnp.asarray(array) for array in data(args.image_size)]
        jax.block_until_ready(kept)
    else:
        contestant = contestants(args)[args.alone]()
        contestant.run()
        if args.alone == "PyTorch" and torch is not None and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # it has searched for the fastest convolution
        contestant.run()
    device = jax.devices()[0]
    if device.platform == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    elif args.alone == "PyTorch" and torch is not None:
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = device.memory_stats()["peak_bytes_in_use"]
    held = contestant.held() if contestant is not None and contestant.held is not None else None
    print(json.dumps({"peak": peak, "held": held, "device": device.device_kind}))


def print_title(args: argparse.Namespace, device: str) -> None:
    """Prints the model, the device and the versions."""
    versions = f"jax {jax.__version__}"
    if args.torch:
        versions += f", torch {importlib.import_module('torch').__version__}"
    title = f"{args.model}, {args.image_size} pixels, batch {args.batch}, {args.precision}"
    print(f"{title}, {device}, {versions}\n")


def gigabytes(held: tuple[int, int] | None) -> str:
    """Two cells, for the device and the host."""
    return "|" if held is None else " | ".join(f"{size / 1e9:.2f}" for size in held)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="ResNet50", choices=["ResNet50", "CaffeNet"])
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--stores", nargs="+", default=["device", "host"], choices=["device", "host"])
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "tf32"])
    parser.add_argument("--events", type=int, default=20, help="number of events per block")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="measure PyTorch as well")
    parser.add_argument("--peak", action="store_true", help="measure memory instead of speed")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print_alone(args)
    elif args.peak:
        print_peaks(args)
    else:
        print_speeds(args)


if __name__ == "__main__":
    main()
