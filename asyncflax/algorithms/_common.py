"""What all methods share: weight decay, learning rate, and where the step size stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from asyncflax import _check
from asyncflax.transforms import decay_weights

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
