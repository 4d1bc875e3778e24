"""What methods are made of, beside `asyncflax.transforms`: decay, step sizes, compensation, look-aheads.

They serve your own methods as well (CONTRIBUTING.md). Each checks its arguments: a number that is not finite or out of
its range, or an unknown option, raises a `ValueError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from asyncflax import _check
from asyncflax.transforms import compensate_delay, decay_weights, per_worker

__all__ = ["LearningRate", "ahead", "compensation", "decayed", "step", "with_step"]

LearningRate = float | jax.Array | Callable[[Any], Any]


def decayed(weight_decay: float, decay_at: str) -> optax.GradientTransformation:
    """Weight decay, the first link of every method; the identity where it is a concrete 0.

    Args:
      weight_decay: a number >= 0.
      decay_at: 'read' or 'server', see `transforms.decay_weights`.

    Example:
      >>> from asyncflax.algorithms import parts
      >>> parts.decayed(-1.0, "read")
      Traceback (most recent call last):
        ...
      ValueError: weight_decay must be finite and in [0, inf], got weight_decay=-1.0.
    """
    _check.choice("decay_at", decay_at, ("read", "server"))
    decay = decay_weights(weight_decay, at=decay_at)
    is_zero = not _check.is_traced(weight_decay) and weight_decay == 0.0
    return optax.identity() if is_zero else decay


def step(learning_rate: LearningRate) -> optax.GradientTransformation:
    """Scales updates by the negative learning rate.

    Args:
      learning_rate: a number >= 0, or a schedule of the number of server updates.

    Example:
      >>> from asyncflax.algorithms import parts
      >>> tx = parts.step(0.5)
      >>> float(tx.update(3.0, tx.init(0.0))[0])
      -1.5
    """
    _check.learning_rate(learning_rate)
    return optax.scale_by_learning_rate(learning_rate)


def with_step(
    learning_rate: LearningRate, velocity: optax.GradientTransformation, form: str
) -> optax.GradientTransformation:
    """A velocity and the learning rate, in one of two orders.

    Args:
      learning_rate: see `step`.
      velocity: what gathers updates, such as `transforms.explicit_momentum`.
      form: 'inside' has the step size in the velocity (u = mu u + alpha g), 'outside' behind it (w -= alpha v).

    Example:
      >>> from asyncflax import transforms
      >>> from asyncflax.algorithms import parts
      >>> tx = parts.with_step(0.5, transforms.explicit_momentum(0.9), "inside")
    """
    _check.choice("form", form, ("inside", "outside"))
    _check.instance("velocity", velocity, optax.GradientTransformation, "an optax.GradientTransformation")
    blocks = [step(learning_rate), velocity]
    return optax.chain(*(blocks if form == "inside" else reversed(blocks)))


def compensation(
    strength: float | jax.Array,
    *,
    curvature: str,
    mean_square: str,
    mean_square_decay: float,
    num_workers: int | None,
    epsilon: float | jax.Array = 1e-10,
) -> optax.GradientTransformationExtraArgs:
    """Delay compensation with a strength that is constant, or adapted to one mean square or to one a worker.

    Args:
      strength: lambda >= 0.
      curvature: see `transforms.compensate_delay`.
      mean_square: 'none', 'shared' or 'per_worker', see `dc_asgd`.
      mean_square_decay: of that mean, in [0, 1).
      num_workers: M >= 1; 'per_worker' needs it.
      epsilon: see `transforms.compensate_delay`.

    Source: Zheng et al. 2017 (arXiv:1609.08326).

    Example:
      >>> from asyncflax.algorithms import parts
      >>> options = {"curvature": "squared", "mean_square_decay": 0.95, "num_workers": None}
      >>> parts.compensation(2.0, mean_square="per_worker", **options)
      Traceback (most recent call last):
        ...
      ValueError: mean_square='per_worker' needs num_workers, got num_workers=None.
    """
    _check.choice("mean_square", mean_square, ("none", "shared", "per_worker"))
    _check.number("mean_square_decay", mean_square_decay, low=0.0, high=1.0, exclusive_high=True)
    # It checks its numbers, also where it is not used.
    adapted = compensate_delay(strength, curvature=curvature, mean_square_decay=mean_square_decay, epsilon=epsilon)
    if num_workers is not None:
        num_workers = _check.integer("num_workers", num_workers, 1)
    if mean_square == "none":
        return compensate_delay(strength, curvature=curvature)
    if mean_square == "shared":
        return adapted
    if num_workers is None:
        raise ValueError("mean_square='per_worker' needs num_workers, got num_workers=None.")
    return per_worker(adapted, num_workers)


def ahead(params: Any, updates: Any, steps: float | jax.Array) -> Any:
    """The parameters after so many times the updates, in their own dtypes: what look-aheads and predictions send.

    Args:
      params: PyTree of arrays.
      updates: the same structure; what is added, so minus a velocity of the papers.
      steps: how many times.

    Example:
      >>> import jax.numpy as jnp
      >>> from asyncflax.algorithms import parts
      >>> parts.ahead(jnp.ones(2), jnp.full(2, -0.25), steps=2.0)
      Array([0.5, 0.5], dtype=float32)
    """
    _check.arrays("params", params)
    _check.arrays("updates", updates)
    _check.like("updates", updates, "params", params)
    _check.number("steps", steps)
    return jax.tree.map(lambda w, u: (w + steps * u).astype(w.dtype), params, updates)
