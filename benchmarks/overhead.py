"""Overhead of the engine over a plain Optax scan: the same model, batches and gather, measured in turn.

    python benchmarks/overhead.py [--model cnn|mlp|cifar10_quick] [--alternations 80] [--events 32]

Prints, for asgd, multi_asgd and dc_asgd with 8 and 64 workers, the median ratio of CPU time with a 95 % bootstrap
interval, the ratio of wall time, and the compiled program's FLOPs and bytes accessed over those of the scan. asgd and
dc_asgd are measured against `optax.sgd(lr)`, multi_asgd against `optax.sgd(lr, momentum)`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
from flax import nnx

import asyncflax
from asyncflax import models
from asyncflax.base import as_partial
from asyncflax.engine.execute import _execute

BATCH, MOMENTUM = 128, 0.9
BLOCKS = 4  # measured from one start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["cnn", "mlp", "cifar10_quick"], default="cnn")
    parser.add_argument("--alternations", type=int, default=80)
    parser.add_argument("--events", type=int, default=32, help="events in a block")
    args = parser.parse_args()
    data, loss_fn, params, rate = make_model(args.model)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{args.model}: {size:,} parameters, batch {BATCH}, blocks of {args.events} events, jax {jax.__version__}")
    print(f"{'':24s} {'CPU ratio':>9s} {'95 % interval':>16s} {'wall ratio':>10s} {'FLOPs':>7s} {'bytes':>7s}")
    for workers in (8, 64):
        algorithms = {
            "asgd": (asyncflax.algorithms.asgd(rate), optax.sgd(rate)),
            "multi_asgd": (
                asyncflax.algorithms.multi_asgd(rate, MOMENTUM, num_workers=workers),
                optax.sgd(rate, MOMENTUM),
            ),
            "dc_asgd": (asyncflax.algorithms.dc_asgd(rate), optax.sgd(rate)),
        }
        for name, (algorithm, tx) in algorithms.items():
            compare(f"{name}, M = {workers}", algorithm, tx, loss_fn, params, data, workers, args)


def make_model(name: str) -> tuple:
    """Data, loss, parameters and a learning rate at which nothing diverges."""
    if name == "cifar10_quick":
        rng = np.random.default_rng(0)
        images = jnp.asarray(rng.normal(0, 60, (1000, 32, 32, 3)).astype(np.float32))
        apply, params = models.functional(models.Cifar10Quick(rngs=nnx.Rngs(0)))

        def loss_fn(params, images, labels):
            return optax.softmax_cross_entropy_with_integer_labels(apply(params, images), labels).mean()

        return (images, jnp.asarray(rng.integers(10, size=1000))), loss_fn, params, 1e-6
    loss_fn = {"cnn": plain.cnn_loss, "mlp": plain.mlp_loss}[name]
    return plain.digits(), loss_fn, {"cnn": plain.cnn_params, "mlp": plain.mlp_params}[name](jax.random.key(0)), 0.05


def compare(label, algorithm, tx, loss_fn, params, data, workers, args) -> None:
    """Measures one method against its plain scan and prints a line."""
    trace = asyncflax.queues.simulate(
        num_workers=workers, num_updates=(BLOCKS + 1) * args.events, service_time=asyncflax.queues.exponential()
    )
    plan = asyncflax.make_plan(trace, rounds_per_chunk=args.events)
    indices = jax.random.randint(jax.random.key(1), (args.events, BATCH), 0, len(data[1]))
    images, labels = data

    def batch_loss(params, rows):
        return loss_fn(params, images[rows], labels[rows])

    gradient_fn = asyncflax.from_loss(batch_loss)
    scan = plain.make_scan(loss_fn, tx, data)
    state = asyncflax.init_run(algorithm, params, plan)
    carry = (params, tx.init(params))
    chunk = jax.jit(_execute, donate_argnums=2)
    ours = cost(chunk.lower(algorithm, as_partial(gradient_fn), state, plan[0], indices))
    theirs = cost(scan.lower(*carry, indices))

    times = []
    for _ in range(-(-args.alternations // BLOCKS)):
        # Fresh arrays now and then: their placement in memory changes the speed of both by a few per cent.
        state = asyncflax.init_run(algorithm, params, plan)
        carry = (jax.tree.map(jnp.copy, params), tx.init(params))
        for block in range(BLOCKS + 1):

            def run_ours(block=block):
                nonlocal state
                state, _ = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[block], indices)
                jax.block_until_ready(state)

            def run_theirs():
                nonlocal carry
                *carry, _ = jax.block_until_ready(scan(*carry, indices))

            pair = {}
            # In turn and in changing order, so that drifts of the machine's speed affect both alike.
            for run in (run_ours, run_theirs) if block % 2 else (run_theirs, run_ours):
                pair[run.__name__] = clock(run)
            if block > 0:  # the first block warms up
                times.append((pair["run_ours"], pair["run_theirs"]))
    times = np.array(times)
    ratios = times[:, 0] / times[:, 1]  # [alternations, (CPU, wall)]
    cpu, wall = np.median(ratios, axis=0)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios[:, 0], (2000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    flops, size = ours[0] / theirs[0], ours[1] / theirs[1]
    print(f"{label:24s} {cpu:9.3f} [{low:6.3f}, {high:6.3f}] {wall:10.3f} {flops:7.4f} {size:7.4f}", flush=True)


def clock(run: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds (of all threads) and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def cost(lowered) -> tuple[float, float]:
    """FLOPs and bytes accessed of the compiled program, by XLA's own analysis."""
    analysis = lowered.compile().cost_analysis()
    return analysis["flops"], analysis["bytes accessed"]


if __name__ == "__main__":
    main()
