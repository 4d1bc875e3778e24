"""Small training runs of a perceptron: seeds x hyperparameters in one program, compiled once per method.

A seed fixes a trace, a data order and initial weights, which all arms of an experiment share.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import data
from asyncflax.engine.plan import Chunk, make_plan
from asyncflax.gradients import from_loss
from asyncflax.lab.sweep import cells
from asyncflax.trace import Trace

_MOST = 5_000  # images, for a cheap look at the loss over all of them


class Trainings:
    """Trains a perceptron.

    Args:
      traces: one trace per seed, of equal length.
      seeds: the seeds of data order and initial weights.
      hidden: the number of hidden units; 0 is softmax regression, which starts at 0.
      batch_size: the number of images per batch.
      every: the number of updates between two evaluations of the training loss.
      worker: the function from the gradient function of a batch to that of an event, such as `local.local_sgd`.
      local_steps: the number of batches per event if a worker makes several steps; 0 for one gradient.
      images: 'digits', those of scikit-learn, or 'cifar10', the first 5,000 of CIFAR-10 at 8x8 pixels.
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        seeds: Sequence[int],
        *,
        hidden: int,
        batch_size: int,
        every: int,
        worker: Callable[[Any], Any] = lambda gradient_fn: gradient_fn,
        local_steps: int = 0,
        images: str = "digits",
    ):
        pixels, labels = training_images(images)
        self.seeds = tuple(seeds)
        self._data = jnp.asarray(pixels), jnp.asarray(labels)
        self._gradient_fn = worker(from_loss(jax.tree_util.Partial(loss_of_rows, self._data)))
        self._start = jax.tree.map(
            lambda *x: jnp.stack(x), *(initial_weights(seed, pixels.shape[1], hidden) for seed in seeds)
        )
        slots = max(trace.num_workers for trace in traces)
        cuts = range(0, len(traces[0]), every)
        self._plans = [make_plan(trace, num_slots=slots, cuts=cuts) for trace in traces]
        rows = [
            data.batch_rows(len(labels), batch_size * max(local_steps, 1), range(len(traces[0])), seed=seed)
            for seed in seeds
        ]
        self._rows = np.stack(rows)
        if local_steps:
            self._rows = self._rows.reshape(*self._rows.shape[:2], local_steps, batch_size)

    def losses(self, make: cells.Make, hypers: np.ndarray) -> np.ndarray:
        """The loss over all training images at each evaluation, float [hypers, seeds, evaluations]; inf for NaN.

        Args:
          make: the function from a hyperparameter to a method; each function compiles its own program.
          hypers: float [hypers, seeds, ...].
        """
        return np.stack(list(self.looks(make, hypers)), axis=-1)

    def looks(self, make: cells.Make, hypers: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the columns of `losses`, float [hypers, seeds], as they are evaluated: the caller may stop."""
        rates = jnp.asarray(hypers, jnp.float32).swapaxes(0, 1)
        keys = jnp.broadcast_to(jax.random.key(0), len(self.seeds))
        states = _begin(make, self._plans[0], rates, keys, self._start)
        yield _seen(_look(self._data, states.params))
        for k in range(len(self._plans[0])):
            chunks = [plan[k] for plan in self._plans]
            rows = np.stack([chunk.pad(r[chunk.events]) for chunk, r in zip(chunks, self._rows, strict=True)])
            states, _ = _advance(make, self._gradient_fn, rates, keys, states, Chunk.stack(chunks), rows)
            yield _seen(_look(self._data, states.params))


_begin = jax.jit(cells.begin, static_argnums=(0, 1))
_advance = jax.jit(cells.advance, static_argnums=0, donate_argnums=4)


@jax.jit
def _look(images: Any, params: Any) -> jax.Array:
    return jax.vmap(jax.vmap(lambda params: mean_loss(params, *images)))(params)


def _seen(look: jax.Array) -> np.ndarray:
    losses = np.asarray(look, float).T
    return np.where(np.isfinite(losses), losses, np.inf)


@functools.cache
def training_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean-subtracted training images, float32 [n, pixels], and labels."""
    images = data.digits() if name == "digits" else data.cifar10(pool=4)
    pixels = ((images.train_images.astype(np.float32) - images.mean_image) / 255.0)[:_MOST]
    return pixels.reshape(len(pixels), -1), images.train_labels[:_MOST]


def initial_weights(seed: int, pixels: int, hidden: int) -> Any:
    """One dict a layer: Gaussian of variance 2 / fan-in, the last layer 0."""
    sizes = [pixels, hidden, 10] if hidden else [pixels, 10]
    rng = np.random.default_rng([seed, 1])
    layers = []
    for n, m in itertools.pairwise(sizes):
        w = rng.normal(scale=np.sqrt(2 / n), size=(n, m))
        layers.append({"w": w.astype(np.float32), "b": np.zeros(m, np.float32)})
    layers[-1]["w"][:] = 0.0
    return layers


def loss_of_rows(images: Any, params: Any, rows: jax.Array) -> jax.Array:
    """The loss of some of the images."""
    return mean_loss(params, images[0][rows], images[1][rows])


def mean_loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    *inner, last = params
    for layer in inner:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    logits = x @ last["w"] + last["b"][None]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0])
