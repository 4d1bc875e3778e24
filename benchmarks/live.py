"""Live workers as threads of one host, against a plain Python loop; and the cost of an update at the server.

    python benchmarks/live.py [--alternations 5] [--events 400]

Updates per second of 1, 2 and 4 workers over those of a Python loop around a compiled Optax step (the same network,
batch and rule), in turn, medians; the server's share is the time of updates over the time of the run. Then the CPU
milliseconds of one `Server.deliver` by number of parameters and of leaves, in turn as well.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import optax
import plain

import asyncflax
from asyncflax.gradients import GradientResult
from asyncflax.live import Server, Threads

BATCH, RATE, MOMENTUM = 32, 0.01, 0.5
SIZES, LEAVES = (150_000, 1_000_000, 25_000_000), (1, 10, 160)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--events", type=int, default=400)
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name in ("cnn", "mlp"):
        of_workers(name, args.events, args.alternations)
    of_server(args.alternations)


def of_workers(name: str, events: int, alternations: int) -> None:
    """Updates a second, and the server's share."""
    images, labels = plain.digits()
    params = getattr(plain, f"{name}_params")(jax.random.key(0))
    loss_fn = getattr(plain, f"{name}_loss")
    rows = asyncflax.data.batch_rows(len(labels), BATCH, range(events + 8))
    gradient_fn = asyncflax.from_loss(
        jax.tree_util.Partial(
            lambda images, labels, params, rows: loss_fn(params, images[rows], labels[rows]), images, labels
        )
    )
    tx = optax.sgd(RATE, MOMENTUM)

    @jax.jit
    def step(params, state, rows):
        grads = jax.grad(loss_fn)(params, images[rows], labels[rows])
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def loop() -> float:
        now, state = params, tx.init(params)
        begin = time.perf_counter()
        for t in range(events):
            now, state = step(now, state, rows[t])
        jax.block_until_ready(now)
        return events / (time.perf_counter() - begin)

    def live(workers: int) -> tuple[float, float]:
        algorithm = asyncflax.algorithms.momentum_asgd(RATE, MOMENTUM)
        server = Server(algorithm, params, num_workers=workers, num_updates=events)
        threads = Threads(server, gradient_fn, lambda ticket: rows[ticket], key=jax.random.key(0))
        begin = time.perf_counter()
        list(threads)
        seconds = time.perf_counter() - begin
        return events / seconds, server.busy / seconds

    counts = (1, 2, 4)
    loop()
    live(1)  # compiled
    measured = [(loop(), [live(workers) for workers in counts]) for _ in range(alternations)]
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    median = statistics.median(row[0] for row in measured)
    print(f"\n{name}, {size:,} parameters, batch {BATCH}: a loop makes {median:.0f} updates/s")
    for k, workers in enumerate(counts):
        ratio = statistics.median(rates[k][0] / plain_rate for plain_rate, rates in measured)
        share = statistics.median(rates[k][1] for _, rates in measured)
        print(f"  {workers} workers: {ratio:.2f} of it, server busy for {share:.0%}")


def of_server(alternations: int) -> None:
    """Milliseconds an update."""
    print("\nCPU ms an update" + "".join(f"{leaves:>5d} leaves" for leaves in LEAVES) + "   most over one leaf")
    for size in SIZES:
        updates = 6 if size > 10**7 else 40
        servers = {leaves: _server(size, leaves, (alternations + 1) * updates) for leaves in LEAVES}
        times: dict[int, list[float]] = {leaves: [] for leaves in LEAVES}
        for turn in range(alternations + 1):
            for leaves, (server, result) in servers.items():
                begin = time.process_time()
                for _ in range(updates):
                    job = server.read(0)
                    assert job is not None
                    server.deliver(0, job.lease, result)
                if turn:  # the first one compiles
                    times[leaves].append(1e3 * (time.process_time() - begin) / updates)
        medians = [statistics.median(times[leaves]) for leaves in LEAVES]
        print(f"{size:>12,}   " + "".join(f"{ms:12.3f}" for ms in medians) + f"   {max(medians) / medians[0]:.2f}")


def _server(size: int, leaves: int, updates: int) -> tuple[Server, GradientResult]:
    params = [jnp.zeros(size // leaves) for _ in range(leaves)]
    server = Server(asyncflax.algorithms.momentum_asgd(RATE, MOMENTUM), params, num_workers=1, num_updates=updates)
    return server, GradientResult(jnp.zeros(()), jax.tree.map(jnp.ones_like, params))


if __name__ == "__main__":
    main()
