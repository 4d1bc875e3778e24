"""Images a second of ResNet-50 and CaffeNet: by one worker (synchronous) and many, in plain Flax, and in PyTorch.

    python benchmarks/imagenet_speed.py [--model ResNet50] [--batch 256] [--workers 1 8 64] [--torch]
    python benchmarks/imagenet_speed.py --image_size 64 --batch 8 --events 4 --alternations 3 --stores device    # small

One device, momentum SGD, bfloat16 where parameters stay float32. A few uint8 images lie on the device, so that input is
not measured (`benchmarks/input_pipeline.py` does that). `plain` is what people write: a compiled training step with
donated arguments, called in a Python loop; beyond it the engine computes the gap and the size of each gradient. Nobody
has weight decay. Blocks of all contestants alternate in one process; medians. Beside them
the bytes of each run's state: parameters, velocity, statistics and versions, on the device and on the host.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants memory of the GPU as well

import jax
import jax.numpy as jnp
import numpy as np
import optax

import asyncflax
from asyncflax import models, queues
from asyncflax.precision import compute_in

IMAGES, CLASSES, RATE, MOMENTUM = 1024, 1000, 1e-6, 0.9
MEAN, SCALE = 117.0, 1 / 58
Contestant = Callable[[], None]  # trains on a block of batches


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

    return run


def engine(args: argparse.Namespace, rows: np.ndarray, workers: int, store: str) -> tuple[Contestant, Callable]:
    """A chunk of the engine; and the bytes of its state, on the device and on the host."""
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

    return run, held


def torch_step(args: argparse.Namespace, rows: np.ndarray) -> Contestant:
    """ResNet-50 as torchvision has it, channels last, bfloat16 by autocast, compiled."""
    torch = importlib.import_module("torch")  # not a dependency
    torch.backends.cudnn.benchmark = True  # XLA tries what is fastest as well
    nn, device = torch.nn, torch.device("cuda" if torch.cuda.is_available() else "cpu")

    class Block(nn.Module):
        def __init__(self, features: int, width: int, stride: int):
            super().__init__()
            conv = lambda a, b, size, stride=1: nn.Conv2d(a, b, size, stride, size // 2, bias=False)
            self.body = nn.Sequential(
                *(conv(features, width, 1), nn.BatchNorm2d(width), nn.ReLU()),
                *(conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
                *(conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)),
            )
            same = stride == 1 and features == 4 * width
            projection = [] if same else [conv(features, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)]
            self.shortcut = nn.Sequential(*projection)

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    layers: list[Any] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    features = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for i in range(count):
            layers.append(Block(features, width, 2 if stage and not i else 1))
            features = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, CLASSES)]
    net = nn.Sequential(*layers).to(device, memory_format=torch.channels_last)
    logits = lambda pixels: net((pixels.float() - MEAN) * SCALE)
    compiled = torch.compile(logits) if device.type == "cuda" else logits
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)
    images, labels = data(args.image_size)
    images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)  # channels last
    labels = torch.from_numpy(labels).to(device)
    batches = [torch.from_numpy(row.astype(np.int64)).to(device) for row in rows]
    dtype = {"bfloat16": torch.bfloat16}.get(args.precision)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    def run() -> None:
        for batch in batches:
            pixels = images[batch].contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = nn.functional.cross_entropy(compiled(pixels), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    """Prints a table of speeds and one of memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="ResNet50", choices=["ResNet50", "CaffeNet"])
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--stores", nargs="+", default=["device", "host"], choices=["device", "host"])
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "tf32"])
    parser.add_argument("--events", type=int, default=20, help="of a block")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="ResNet-50 in PyTorch as well")
    args = parser.parse_args()
    if args.torch and args.model != "ResNet50":
        parser.error("--torch is for ResNet50")
    rows = np.random.default_rng(1).integers(IMAGES, size=(args.events, args.batch)).astype(np.int32)
    contestants: dict[str, Contestant] = {"plain": plain(args, rows)}
    held = {}
    for workers in args.workers:
        for store in args.stores:
            name = f"{workers} worker{'s' if workers > 1 else ''}, versions on the {store}"
            contestants[name], held[name] = engine(args, rows, workers, store)
    if args.torch:
        contestants["PyTorch"] = torch_step(args, rows)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.alternations + 1):  # the first one compiles
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    rate = {name: args.events * args.batch / np.median(t[1:]) for name, t in times.items()}
    print(f"{args.model}, {args.image_size} pixels, batch {args.batch}, {args.precision}, ", end="")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print("| | images/s | to plain | state on the device, GB | on the host, GB |")
    print("|---|---|---|---|---|")
    for name in contestants:
        device, host = held[name]() if name in held else (0, 0)
        sizes = f"{device / 1e9:.2f} | {host / 1e9:.2f}" if name in held else "|"
        print(f"| {name} | {rate[name]:.1f} | {rate[name] / rate['plain']:.3f} | {sizes} |")


if __name__ == "__main__":
    main()
