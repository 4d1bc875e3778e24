"""Shifted momentum: the velocity is as old as the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax._rows import fill_rows, put_row, take_row
from asyncflax.algorithms.parts import LearningRate, decayed, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import explicit_momentum, per_worker
from asyncflax.transforms._dtypes import with_promotion
from asyncflax.transforms._trees import given


class PastVelocitiesState(NamedTuple):
    """State of shifted momentum with one velocity per version.

    Attributes:
      version: int32 [], t, the newest version.
      velocities: PyTree like params with a leading axis [max_staleness + 1]; v_s is in row s mod (max_staleness + 1).
    """

    version: jax.Array
    velocities: Any


def _velocity_of_version(momentum: float | jax.Array, max_staleness: int):
    """Heavy ball on the velocity that the server had at the version read."""
    _check.momentum(momentum)
    rows = _check.integer("max_staleness", max_staleness, 0) + 1

    def init_fn(params):
        velocities = fill_rows(jax.tree.map(jnp.zeros_like, params), rows, "max_staleness")
        return PastVelocitiesState(jnp.zeros((), jnp.int32), velocities)

    @with_promotion
    def update_fn(updates, state, params=None, *, staleness=None, **extra):
        staleness = given("shifted_momentum", "staleness", staleness)
        old = take_row(state.velocities, jnp.maximum(state.version - staleness, 0) % rows)
        held = staleness < rows
        velocity = jax.tree.map(lambda u, v: jnp.where(held, momentum * v + u, jnp.nan).astype(v.dtype), updates, old)
        version = state.version + 1
        return velocity, PastVelocitiesState(version, put_row(state.velocities, version % rows, velocity))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


@method
def shifted_momentum(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    velocity: str = "worker",
    max_staleness: int | None = None,
    dampening: float = 0.0,
    form: str = "inside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Delayed momentum SGD: not only the gradient is stale, but also the velocity to which it is added.

    .. math:: v_{t+1} = \mu v_{t-\tau_t} - \eta (1 - d) \nabla f(w_{t-\tau_t}), \qquad w_{t+1} = w_t + v_{t+1}

    Args:
      velocity: 'worker' keeps one velocity per worker, as the authors' code does: `multi_asgd` with dampening. In a
        queue this is the equation, since a worker reads the version that its own update made. 'version' keeps those of
        the newest versions, which is the equation for every trace.
      max_staleness: the largest staleness, required for 'version' only; the state has (max_staleness + 1) d numbers. A
        staler gradient returns NaN, which ends the run.
      dampening: d in [0, 1]; the regime 'async2' of the authors' code has d = mu = 0.9.

    Source: Giladi, Nacson, Hoffer and Soudry 2020, At Stability's Edge (arXiv:1909.12340), whose equation is
    second-hand; the authors' code is paper-submissions/delay_stability, which has workers take turns.
    """
    _check.choice("velocity", velocity, ("worker", "version"))
    _check.number("dampening", dampening, low=0.0, high=1.0)
    if (velocity == "version") != (max_staleness is not None):
        needs = "needs" if velocity == "version" else "does not accept"
        raise ValueError(f"velocity={velocity!r} {needs} max_staleness, got max_staleness={max_staleness}.")
    if max_staleness is None:
        velocities = per_worker(explicit_momentum(momentum), num_workers)
    else:
        velocities = _velocity_of_version(momentum, max_staleness)
    dampen = optax.scale(1.0 - dampening)
    tx = optax.chain(decayed(**decay), dampen, with_step(learning_rate, velocities, form))
    return from_optax(tx, num_workers=num_workers)
