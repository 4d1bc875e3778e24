"""The training step of cifar10_quick inside a scan, against the same step in a Python loop with native convolutions.

    python benchmarks/training_step.py [--torch] [--native-scan]

Batch 100, float32, plain SGD on a fixed batch; medians of alternating blocks of ten steps. `--torch` adds the same
network in PyTorch's plain loop (it must be installed), `--native-scan` native convolutions in the scan (slow).
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from asyncflax import models

BATCH, STEPS, RATE = 100, 10, 1e-3


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Noise in the range of mean-subtracted pixels."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 60, (BATCH, 32, 32, 3)).astype(np.float32), rng.integers(10, size=BATCH)


def make_step(conv: str) -> tuple[Callable, dict]:
    """One step of SGD, and the initial parameters."""
    apply, params = models.functional(models.Cifar10Quick(rngs=nnx.Rngs(0), conv=conv))
    images, labels = map(jnp.asarray, images_and_labels())

    def loss_fn(params):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, images), labels).mean()

    return lambda params: jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss_fn)(params)), params


def looped() -> Callable[[], None]:
    """Native convolutions, one compiled step, a Python loop."""
    step, params = make_step("native")
    step = jax.jit(step)

    def run():
        new = params
        for _ in range(STEPS):
            new = step(new)
        jax.block_until_ready(new)

    return run


def scanned(conv: str) -> Callable[[], None]:
    """All steps in one scan."""
    step, params = make_step(conv)
    scan = jax.jit(lambda params: jax.lax.scan(lambda p, _: (step(p), None), params, None, length=STEPS)[0])
    return lambda: jax.block_until_ready(scan(params))


def torch_loop() -> Callable[[], None]:
    """The same network and step in PyTorch."""
    torch = importlib.import_module("torch")  # not a dependency
    nn = torch.nn
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(**pool), nn.ReLU()),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(**pool, count_include_pad=False)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(**pool, count_include_pad=False)),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10)),
    )
    assert sum(p.numel() for p in net.parameters()) == 145_578
    images, labels = images_and_labels()
    images, labels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)  # a step that cannot diverge and costs the same

    def run():
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()

    return run


def main() -> None:
    """Prints milliseconds per step and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--native-scan", action="store_true")
    parser.add_argument("--alternations", type=int, default=15)
    args = parser.parse_args()
    contestants = {"scan": scanned("auto"), "Python loop, native": looped()}
    if args.native_scan:
        contestants["scan, native"] = scanned("native")
    if args.torch:
        contestants["PyTorch"] = torch_loop()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(args.alternations + 1):
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    measured = {name: np.array(t[1:]) / STEPS * 1e3 for name, t in times.items()}
    print(f"cifar10_quick, batch {BATCH}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{'':22s} {'wall ms':>8s} {'CPU ms':>8s} {'scan / it, wall':>16s} {'CPU':>6s}")
    for name, t in measured.items():
        wall, cpu = np.median(t, axis=0)
        ratio = np.median(measured["scan"] / t, axis=0)
        print(f"{name:22s} {wall:8.1f} {cpu:8.1f} {ratio[0]:16.3f} {ratio[1]:6.3f}")


if __name__ == "__main__":
    main()
