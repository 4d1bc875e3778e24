"""Asynchrony begets momentum, on real handwritten digits: a grid of hyperparameters for each number of workers.

    python examples/digits.py [--out demo]

Trains softmax regression with 1, 4, 8 and 16 asynchronous workers on a grid of learning rates and explicit momenta;
the whole grid of a worker count is one vmapped `asyncflax.run`. More workers mean more implicit momentum, 1 - 1/M, and
a smaller best explicit momentum: a small version of Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774). Prints a
table and saves a figure; takes about twenty seconds on two cores.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import asyncflax
from asyncflax import data, plots, queues

WORKERS = (1, 4, 8, 16)
MOMENTA = np.array([-0.5, -0.3, -0.1, 0.0, 0.2, 0.4, 0.6, 0.8, 0.9])
LEARNING_RATES = 2.0 ** np.arange(-4, 4)
UPDATES, BATCH, SEEDS = 150, 32, 6


class Data(NamedTuple):
    """float32 images [n, 64] with the training mean subtracted, int32 labels [n]."""

    images: jax.Array
    labels: jax.Array


class Grid(NamedTuple):
    """Results of one worker count, averaged over seeds; the first axes are momentum and learning rate."""

    loss: np.ndarray  # [9, 8], on all training data after the last update
    accuracy: np.ndarray  # [9, 8], on the test data
    path: np.ndarray  # [9, 8, UPDATES], loss at what the workers read
    time: np.ndarray  # [UPDATES], simulated seconds; one gradient takes 1 on average


def load_data() -> tuple[Data, Data]:
    """scikit-learn's digits, training and test data."""
    digits = data.digits()
    scale = lambda images: jnp.asarray((images - digits.mean_image) / 255).reshape(len(images), -1)
    train = Data(scale(digits.train_images), jnp.asarray(digits.train_labels))
    return train, Data(scale(digits.test_images), jnp.asarray(digits.test_labels))


def logits(params, images):
    """Softmax regression."""
    return images @ params["weights"] + params["biases"]


def train_grid(num_workers: int, train: Data, test: Data) -> Grid:
    """Trains on the grid of momenta and learning rates under the asynchrony of a queue."""

    def loss_fn(params, batch: Data):
        scores = logits(params, batch.images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, batch.labels).mean()

    def gradient_fn(params, rows):
        return jax.value_and_grad(loss_fn)(params, Data(train.images[rows], train.labels[rows]))

    params = {"weights": jnp.zeros((64, 10)), "biases": jnp.zeros(10)}
    cells = []
    for seed in range(SEEDS):
        trace = queues.simulate(
            num_workers=num_workers, num_updates=UPDATES, service_time=queues.exponential(), seed=seed
        )
        rows = np.random.default_rng(seed).integers(len(train.labels), size=(UPDATES, BATCH))

        def cell(momentum, learning_rate, trace=trace, rows=rows):
            algorithm = asyncflax.algorithms.momentum_asgd(learning_rate, momentum)
            result = asyncflax.run(algorithm, gradient_fn, params, trace, rows)
            correct = jnp.argmax(logits(result.params, test.images), axis=-1) == test.labels
            return loss_fn(result.params, train), correct.mean(), result.losses

        by_rate = jax.vmap(cell, in_axes=(None, 0))
        by_momentum = jax.vmap(by_rate, in_axes=(0, None))
        cells.append((*jax.jit(by_momentum)(MOMENTA, LEARNING_RATES), trace.time))
    return Grid(*(np.mean(np.stack(values), axis=0) for values in zip(*cells, strict=True)))


def best_cells(grid: Grid) -> tuple[np.ndarray, int, int]:
    """The best loss of each momentum, and the indices of the best cell. Diverged cells count as infinite."""
    loss = np.where(np.isfinite(grid.loss), grid.loss, np.inf)
    row, column = np.unravel_index(np.argmin(loss), loss.shape)
    return loss.min(axis=1), int(row), int(column)


def draw(grids: dict[int, Grid], path: pathlib.Path) -> None:
    """The figure: best momentum, time to a loss, staleness."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    figure.suptitle(f"digits, softmax regression, 1 to 16 workers, {UPDATES} updates, {SEEDS} seeds")
    momenta, tuned, best, time, loss = {}, {}, [], {}, {}
    for workers, grid in grids.items():
        name = f"{workers} worker{'s' * (workers > 1)}"
        momenta[name] = MOMENTA
        tuned[name], row, column = best_cells(grid)
        best.append((MOMENTA[row], tuned[name][row]))
        time[name] = grid.time.reshape(-1, 10)[:, -1]
        loss[name] = grid.path[row, column].reshape(-1, 10).mean(axis=1)
    ylabel = f"training loss after {UPDATES} updates, best learning rate"
    plots.curves(left, momenta, tuned, xlabel="explicit momentum (large: the best)", ylabel=ylabel)
    for line, place in zip(list(left.lines), best, strict=True):
        left.plot(*place, color=line.get_color(), marker=line.get_marker(), markersize=10)
    left.set_title("the more workers, the less explicit momentum")
    plots.curves(middle, time, loss, xlabel="simulated time (one gradient takes 1 on average)", ylabel="training loss")
    middle.set_xscale("log")
    middle.set_yscale("log")
    middle.set_title("what asynchrony buys, each with its best momentum")
    trace = queues.simulate(num_workers=8, num_updates=20_000, service_time=queues.exponential())
    plots.staleness_histogram(right, trace, asyncflax.staleness.geometric(mean=7.0), burn_in=100)
    right.set_title("exponential work: geometric staleness")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Trains the grids, prints the table, saves the figure."""
    parser = argparse.ArgumentParser(description="asynchrony begets momentum, on real handwritten digits")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"), help="folder for the figure")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    names = ("digits.png", *(f"digits-{n}.png" for n in range(2, 1000)))
    figure = next(out / name for name in names if not (out / name).exists())  # never overwrites an older one

    train, test = load_data()
    print(f"{len(MOMENTA)} momenta x {len(LEARNING_RATES)} learning rates x {SEEDS} seeds, {UPDATES} updates each")
    print(f"{'':>7} {'momentum':^19} {'learning':>9} {'training':>9} {'test':>9} {'simulated':>9}")
    print(f"{'workers':>7} {'implicit':>9} {'best':>9} {'rate':>9} {'loss':>9} {'accuracy':>9} {'time':>9}")
    grids = {}
    for workers in WORKERS:
        grid = grids[workers] = train_grid(workers, train, test)
        loss, row, column = best_cells(grid)
        print(
            f"{workers:7d} {1 - 1 / workers:9.3f} {MOMENTA[row]:9.1f} {LEARNING_RATES[column]:9.3g} "
            f"{loss[row]:9.4f} {grid.accuracy[row, column]:9.2%} {grid.time[-1]:9.0f}",
            flush=True,
        )
    draw(grids, figure)
    print(f"\nsaved {figure}")
    print("next: try other service times in train_grid, for example queues.heterogeneous_gamma()")


if __name__ == "__main__":
    main()
