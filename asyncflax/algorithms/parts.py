"""Parts of methods besides `asyncflax.transforms`, also for your own: decay, step sizes, compensation, look-aheads.

Each checks its arguments like the methods, see `asyncflax.algorithms`.
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
    """Weight decay, the first link of every method; the identity if it is a concrete 0.

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
    """Chains a velocity, such as `transforms.explicit_momentum`, with the learning rate in the order of `form`.

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
    curvature: str,
    mean_square: str,
    mean_square_decay: float,
    num_workers: int | None,
    epsilon: float | jax.Array = 1e-10,
) -> optax.GradientTransformationExtraArgs:
    """Delay compensation with a constant strength, or one adapted to a mean square, shared or per worker.

    Args:
      strength, curvature, mean_square, mean_square_decay, num_workers, epsilon: see `dc_asgd`.

    Source: Zheng et al. 2017 (arXiv:1609.08326).

    Example:
      >>> from asyncflax.algorithms import parts
      >>> parts.compensation(2.0, "squared", "per_worker", mean_square_decay=0.95, num_workers=None)
      Traceback (most recent call last):
        ...
      ValueError: mean_square='per_worker' needs num_workers, got num_workers=None.
    """
    _check.choice("mean_square", mean_square, ("none", "shared", "per_worker"))
    _check.number("mean_square_decay", mean_square_decay, low=0.0, high=1.0, exclusive_high=True)
    if num_workers is not None:
        num_workers = _check.integer("num_workers", num_workers, 1)
    rho = None if mean_square == "none" else mean_square_decay
    compensate = compensate_delay(strength, curvature=curvature, mean_square_decay=rho, epsilon=epsilon)
    if mean_square != "per_worker":
        return compensate
    if num_workers is None:
        raise ValueError("mean_square='per_worker' needs num_workers, got num_workers=None.")
    return per_worker(compensate, num_workers)


def ahead(params: Any, updates: Any, steps: float | jax.Array) -> Any:
    """params + steps * updates in the dtypes of params, for look-aheads and predictions.

    Args:
      params: PyTree of arrays.
      updates: PyTree like params, with the sign of Optax: minus a velocity of the papers.
      steps: the number of steps.

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
