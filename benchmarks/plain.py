"""The baseline of the benchmarks: two small models and a plain Optax scan. Imports nothing of asyncflax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits


def digits() -> tuple[jax.Array, jax.Array]:
    """scikit-learn's handwritten digits: float32 [1797, 8, 8, 1] in 0..1, int32 [1797]."""
    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images.reshape(-1, 8, 8, 1) / 16.0, jnp.float32), jnp.asarray(labels, jnp.int32)


def cnn_params(key: jax.Array) -> dict[str, jax.Array]:
    """3x3x32, 3x3x64, mean pooling, 10 classes: 28,970 parameters."""
    k1, k2, k3 = jax.random.split(key, 3)
    return {
        "conv1": jax.random.normal(k1, (9, 32)) / 3.0,
        "conv2": jax.random.normal(k2, (9 * 32, 64)) / np.sqrt(144.0),
        "dense": jax.random.normal(k3, (4 * 4 * 64, 10)) / 32.0,
        "bias": jnp.zeros(10),
    }


def _conv3x3(x: jax.Array, weights: jax.Array) -> jax.Array:
    # As a matrix product: the gradient of a native convolution is slow inside loops on XLA:CPU.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    patches = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(patches, axis=-1) @ weights


def cnn_loss(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of the convolutional network."""
    x = jax.nn.relu(_conv3x3(images, params["conv1"]))
    x = jax.nn.relu(_conv3x3(x, params["conv2"]))
    x = x.reshape(len(x), 4, 2, 4, 2, 64).mean(axis=(2, 4)).reshape(len(x), -1)
    logits = x @ params["dense"] + params["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mlp_params(key: jax.Array) -> dict[str, jax.Array]:
    """64-512-512-10: 301,066 parameters, many for its small batch, the worst case of the store."""
    k1, k2, k3 = jax.random.split(key, 3)
    return {
        "w1": jax.random.normal(k1, (64, 512)) / 8.0,
        "b1": jnp.zeros(512),
        "w2": jax.random.normal(k2, (512, 512)) / 16.0,
        "b2": jnp.zeros(512),
        "w3": jax.random.normal(k3, (512, 10)) / 16.0,
        "b3": jnp.zeros(10),
    }


def mlp_loss(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of the perceptron."""
    x = images.reshape(len(images), -1)
    x = jax.nn.relu(x @ params["w1"] + params["b1"])
    x = jax.nn.relu(x @ params["w2"] + params["b2"])
    logits = x @ params["w3"] + params["b3"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_scan(
    loss_fn: Callable[..., jax.Array], tx: optax.GradientTransformation, data: tuple[jax.Array, jax.Array]
) -> Any:
    """The usual loop: `(params, opt_state, indices [T, B]) -> (params, opt_state, losses [T])`."""
    images, labels = data

    def step(carry, rows):
        params, opt_state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, images[rows], labels[rows])
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def scan(params, opt_state, indices):
        (params, opt_state), losses = jax.lax.scan(step, (params, opt_state), indices)
        return params, opt_state, losses

    return jax.jit(scan, donate_argnums=(0, 1))
