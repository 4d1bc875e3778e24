"""Milliseconds per gradient of cifar10_quick for each convolution and several widths of rounds.

    python benchmarks/convolutions.py [--batches 32 100] [--widths 1 2 4 8] [--seconds 0.5] [--alternations 7]
        [--convolutions native im2col] [--precision float32|tf32|bfloat16]
    python benchmarks/convolutions.py --batches 32 --widths 1 4 --seconds 0.1 --alternations 3

A round of width W computes W gradients at W versions of the parameters, each on a batch of its own, with `vmap`; rounds
follow each other in a loop inside one program, as in the engine. Medians over alternations, each of about `--seconds`
but at least one round. Run it where you train, to see whether `conv='auto'` picks the fastest convolution. On CPUs,
native convolutions take seconds per gradient.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from asyncflax import models
from asyncflax.models.layers import CONVOLUTIONS, conv_for
from asyncflax.train.precision import PRECISIONS, compute_in

IMAGES, RATE = 1000, 1e-9  # a step that cannot diverge costs the same


def make_rounds(conv: str, precision: str, batch: int, width: int) -> Callable[[int], None]:
    """`run(rounds)`, compiled once for any number of rounds."""
    apply, params = models.functional(models.Cifar10Quick(rngs=nnx.Rngs(0), conv=conv))
    apply = compute_in(precision, apply)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(0, 60, (IMAGES, 32, 32, 3)).astype(np.float32))
    labels = jnp.asarray(rng.integers(10, size=IMAGES))

    def loss_fn(params, images, labels):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, images), labels).mean()

    @jax.jit
    def loop(versions, images, labels, rounds):
        def one_round(r, versions):
            rows = (r * width * batch + jnp.arange(width * batch)) % IMAGES
            rows = rows.reshape(width, batch)
            if width == 1:  # as in the engine: no vmap
                first = jax.tree.map(lambda x: x[0], versions)
                grads = jax.grad(loss_fn)(first, images[rows[0]], labels[rows[0]])
                grads = jax.tree.map(lambda x: x[None], grads)
            else:
                grads = jax.vmap(jax.grad(loss_fn))(versions, images[rows], labels[rows])
            return jax.tree.map(lambda p, g: p - RATE * g, versions, grads)

        return jax.lax.fori_loop(0, rounds, one_round, versions)

    versions = jax.tree.map(lambda p: jnp.stack([p * (1 + v / 100) for v in range(width)]), params)
    return lambda rounds: jax.block_until_ready(loop(versions, images, labels, rounds))


def measure(args: argparse.Namespace, batch: int, width: int) -> dict[str, np.ndarray]:
    """Milliseconds per gradient, [wall, CPU], by name of the convolution."""
    contestants, rounds = {}, {}
    for name in args.convolutions:
        contestants[name] = make_rounds(name, args.precision, batch, width)
        contestants[name](1)  # compiles
        took = clock(lambda run=contestants[name]: run(1))[0]
        rounds[name] = max(1, round(args.seconds / took))
    times: dict[str, list[np.ndarray]] = {name: [] for name in contestants}
    for alternation in range(args.alternations):
        # In turn and in changing order, so that drifts of the machine's speed affect all alike.
        for name in list(contestants)[:: 1 if alternation % 2 else -1]:
            took = clock(lambda name=name: contestants[name](rounds[name]))
            times[name].append(1e3 * np.array(took) / (rounds[name] * width))
    return {name: np.median(t, axis=0) for name, t in times.items()}


def clock(run: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 100], help="images per gradient")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8], help="gradients per round")
    parser.add_argument("--seconds", type=float, default=0.5, help="approximate length of a measurement")
    parser.add_argument("--alternations", type=int, default=7)
    parser.add_argument("--convolutions", nargs="+", choices=list(CONVOLUTIONS), default=list(CONVOLUTIONS))
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    args = parser.parse_args()
    device = jax.devices()[0]
    print(f"cifar10_quick, {args.precision}, {device.device_kind} ({device.platform}), jax {jax.__version__}")
    print(f"wall ms per gradient (CPU ms); 'auto' is {conv_for()} here\n")
    print("| batch | width |", " | ".join(args.convolutions), "|")
    print("|---" * (2 + len(args.convolutions)) + "|")
    for batch in args.batches:
        for width in args.widths:
            cells = [f"{wall:.3g} ({cpu:.3g})" for wall, cpu in measure(args, batch, width).values()]
            print(f"| {batch} | {width} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
