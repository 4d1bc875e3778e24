"""What all methods share: weight decay, learning rate, and where the step size stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from asyncflax import _check
from asyncflax.transforms import decay_weights, explicit_momentum

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


def heavy_ball(
    learning_rate: LearningRate,
    momentum: float,
    form: str,
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda tx: tx,
) -> optax.GradientTransformation:
    """Learning rate and explicit momentum (wrapped), in the order that `form` names."""
    _check.choice("form", form, ("inside", "outside"))
    blocks = [step(learning_rate), wrap(explicit_momentum(momentum))]
    return optax.chain(*(blocks if form == "inside" else reversed(blocks)))
