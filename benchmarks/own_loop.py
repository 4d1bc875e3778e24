"""The cost of the transforms in your own loop: time, memory and programs, against the plain step.

    python benchmarks/own_loop.py [--versions 8] [--batch 32] [--alternations 15]

A network of 25M parameters in 160 leaves, SGD, donated parameters and state. Four contestants take one step each in
turn: the plain step, `delay_gradients`, `store_versions` on the device and in host memory. Prints the median ratios of
their times; XLA's estimate of the peak memory of a step, minus that of the plain one, over the bytes of the kept
versions (1 if nothing else is held); and the number of compiled programs. Then, in a process with four devices over
which all arrays are sharded, the share of the rows' bytes on each device. On CPUs host memory is device memory, so its
row shows the work and not the saving.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import time

DEVICES = 4
SHARDED = "ASYNCFLAX_OWN_LOOP_SHARDED"  # set in the child process
if SHARDED in os.environ:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

from asyncflax import transforms  # noqa: E402

LAYERS, WIDTH = 80, 560


def contestants(versions: int) -> dict[str, optax.GradientTransformation]:
    """Optimizers that keep `versions` gradients or parameters."""
    sgd, delay = optax.sgd(1e-3), versions - 1
    stored = functools.partial(transforms.store_versions, versions)
    return {
        "plain": sgd,
        "delay_gradients": optax.chain(transforms.delay_gradients(delay), sgd),
        "delay_gradients, pinned_host": optax.chain(transforms.delay_gradients(delay, memory="pinned_host"), sgd),
        "store_versions": optax.chain(sgd, stored()),
        "store_versions, pinned_host": optax.chain(sgd, stored(memory="pinned_host")),
    }


def make_params(place=lambda x: x):
    rng = np.random.default_rng(0)
    kernel = lambda: place(jnp.asarray(rng.normal(0, 0.002, (WIDTH, WIDTH)), jnp.float32))
    return [{"kernel": kernel(), "bias": place(jnp.zeros(WIDTH))} for _ in range(LAYERS)]


def loss_fn(params, x):
    for layer in params:
        x = x + jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    return jnp.mean(x**2)


def make_step(name: str, tx: optax.GradientTransformation):
    """The train step that a user would write."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, x):
        read = transforms.read_stale_params(state, params) if "store" in name else params
        updates, state = tx.update(jax.grad(loss_fn)(read, x), state, params)
        return optax.apply_updates(params, updates), state

    return step


def peak(step, *arguments) -> int:
    """Bytes that the compiled step holds at its peak, in all memories."""
    memory = step.lower(*arguments).compile().memory_analysis()
    assert memory is not None, "this backend does not say how much memory a program takes"
    device = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return device - memory.alias_size_in_bytes


def compare(versions: int, batch: int, alternations: int) -> None:
    """Prints a row for each contestant."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(batch, WIDTH)), jnp.float32)
    runs, peaks = {}, {}
    for name, tx in contestants(versions).items():
        params = make_params()
        state, step = tx.init(params), make_step(name, tx)
        peaks[name] = peak(step, params, state, x)
        runs[name] = [step, params, state]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(make_params()))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(alternations + 2):  # the first ones compile
        for name, (step, params, state) in runs.items():
            began = time.perf_counter()
            runs[name][1:] = jax.block_until_ready(step(params, state, x))
            times[name].append(time.perf_counter() - began)
    plain = np.array(times["plain"][2:])
    print(f"{size / 4:,.0f} parameters in {2 * LAYERS} leaves, {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print("| in the chain | ms a step | to the plain step | memory over versions x bytes | programs |")
    print("|---|---|---|---|---|")
    for name, (step, *_) in runs.items():
        taken = np.array(times[name][2:])
        held = (peaks[name] - peaks["plain"]) / (versions * size)
        print(f"| {name} | {1e3 * np.median(taken):.0f} | {np.median(taken / plain):.2f} | {held:.2f} "
              f"| {step._cache_size()} |")  # fmt: skip


def sharded(versions: int) -> None:
    """Prints the share of the rows on each device after three steps."""
    mesh = jax.make_mesh((DEVICES,), ("x",), axis_types=(AxisType.Auto,))
    params = make_params(lambda x: jax.device_put(x, NamedSharding(mesh, P(*[None] * (x.ndim - 1), "x"))))
    x = jax.device_put(jnp.ones((32, WIDTH)), NamedSharding(mesh, P()))
    print(f"\n| in the chain | largest part of the rows on one of {DEVICES} devices | programs |\n|---|---|---|")
    for name, tx in contestants(versions).items():
        if name == "plain":
            continue
        step, now = make_step(name, tx), jax.tree.map(jnp.copy, params)
        state = tx.init(now)
        for _ in range(3):
            now, state = step(now, state, x)
        rows = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 3]
        here = dict.fromkeys(mesh.devices.flat, 0)
        for leaf in rows:
            for shard in leaf.addressable_shards:
                here[shard.device] += shard.data.nbytes
        part = max(here.values()) / sum(leaf.nbytes for leaf in rows)
        print(f"| {name} | {part:.3f} | {step._cache_size()} |")  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    """Compares on one device, then on four."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--versions", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--alternations", type=int, default=15)
    args = parser.parse_args()
    if SHARDED in os.environ:
        sharded(args.versions)
        return
    compare(args.versions, args.batch, args.alternations)
    if jax.default_backend() == "cpu":
        command = [sys.executable, __file__, f"--versions={args.versions}"]
        subprocess.run(command, env={**os.environ, SHARDED: "1"}, check=True)


if __name__ == "__main__":
    main()
