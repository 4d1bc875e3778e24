"""What methods share: weight decay, the learning rate and where it stands, compensation, looking ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from asyncflax import _check
from asyncflax.transforms import compensate_delay, decay_weights, per_worker

LearningRate = float | jax.Array | Callable[[Any], Any]


def decayed(weight_decay: float, decay_at: str) -> optax.GradientTransformation:
    """Weight decay as every method has it; nothing at all where it is a concrete 0."""
    decay = decay_weights(weight_decay, at=decay_at)
    is_zero = not _check.is_traced(weight_decay) and weight_decay == 0.0
    return optax.identity() if is_zero else decay


def step(learning_rate: LearningRate) -> optax.GradientTransformation:
    """Minus the learning rate, a number or a schedule of the number of server updates."""
    _check.learning_rate(learning_rate)
    return optax.scale_by_learning_rate(learning_rate)


def with_step(
    learning_rate: LearningRate, velocity: optax.GradientTransformation, form: str
) -> optax.GradientTransformation:
    """The learning rate and a velocity: 'inside' has the step size in the velocity, 'outside' behind it."""
    _check.choice("form", form, ("inside", "outside"))
    blocks = [step(learning_rate), velocity]
    return optax.chain(*(blocks if form == "inside" else reversed(blocks)))


def compensation(
    strength: float | jax.Array,
    *,
    curvature: str,
    mean_square: str,
    mean_square_decay: float,
    num_workers: int | None,
) -> optax.GradientTransformationExtraArgs:
    """Delay compensation with a strength that is constant, or adapted to one mean square or to one a worker."""
    _check.choice("mean_square", mean_square, ("none", "shared", "per_worker"))
    adapted = compensate_delay(strength, curvature=curvature, mean_square_decay=mean_square_decay)  # checks its numbers
    if mean_square == "none":
        return compensate_delay(strength, curvature=curvature)
    if mean_square == "shared":
        return adapted
    if num_workers is None:
        raise ValueError("mean_square='per_worker' needs num_workers, got num_workers=None.")
    return per_worker(adapted, num_workers)


def ahead(params: Any, updates: Any, steps: float | jax.Array) -> Any:
    """The parameters after so many times the updates, in their own dtypes."""
    return jax.tree.map(lambda w, u: (w + steps * u).astype(w.dtype), params, updates)
