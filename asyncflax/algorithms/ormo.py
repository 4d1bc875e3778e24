r"""OrMo: gradients enter the momentum in the order in which they were requested, not in which they arrive.

Gradients are sorted into buckets of K by the version on which they were computed. For every order of arrivals, u is the
momentum of synchronous training over the buckets: a gradient that is D buckets late enters it with beta^D, and the
parameters catch up on the momentum steps that it missed.

Source: Shi, Yang and Li 2024, Ordered Momentum for Asynchronous SGD (arXiv:2407.19234). We know the abstract only; the
rules are second-hand, and have the expected properties.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, decayed, step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import scale_by_staleness
from asyncflax.transforms._dtypes import with_promotion
from asyncflax.transforms._trees import given


class OrderedMomentumState(NamedTuple):
    """State of OrMo.

    Attributes:
      updates: int32 [], t.
      velocity: PyTree like params, -u_t.
    """

    updates: jax.Array
    velocity: Any


def _ordered_momentum(momentum: float | jax.Array, num_workers: int, late_step: str, bucket: str):
    """The rule of `ormo`, for updates -eta g."""
    _check.momentum(momentum)
    _check.choice("late_step", late_step, ("catch_up", "vanilla"))
    _check.choice("bucket", bucket, ("ceil", "floor"))
    k = _check.integer("num_workers", num_workers, 1)
    bucket_of = (lambda version: -(-version // k)) if bucket == "ceil" else (lambda version: version // k)

    def init_fn(params):
        return OrderedMomentumState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    @with_promotion
    def update_fn(updates, state, params=None, *, staleness=None, **extra):
        given("ormo", "staleness", staleness)
        t = state.updates
        opens = (t > 0) & (bucket_of(t) > bucket_of(t - 1))
        late = bucket_of(t) - bucket_of(t - staleness)  # D
        beta = jnp.asarray(momentum, jnp.result_type(float))
        weight = beta**late
        # 1 + beta + ... + beta^D, by its closed form unless beta is 1
        is_one = beta == 1.0
        series = (1.0 - beta ** (late + 1)) / jnp.where(is_one, 1.0, 1.0 - beta)
        factor = jnp.where(is_one, late + 1.0, series) if late_step == "catch_up" else 1.0

        def event(update, u):
            moved = jnp.where(opens, beta * u, jnp.zeros_like(u))
            velocity = jnp.where(opens, moved, u) + weight * update
            return (moved + factor * update).astype(u.dtype), velocity.astype(u.dtype)

        both = jax.tree.map(event, updates, state.velocity)
        changes, velocity = jax.tree.transpose(jax.tree.structure(updates), jax.tree.structure((0, 0)), both)
        return changes, OrderedMomentumState(t + 1, velocity)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


@method
def ormo(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    late_step: str = "catch_up",
    bucket: str = "ceil",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Ordered momentum. A worker that received version s belongs to bucket ceil(s / K); at update t:

    .. math::
        \text{if } \lceil t/K \rceil > \lceil (t-1)/K \rceil: \; w \leftarrow w - \beta u, \; u \leftarrow \beta u \\
        D = \lceil t/K \rceil - \lceil s/K \rceil, \qquad u \leftarrow u + \beta^D \eta g, \qquad
        w \leftarrow w - \frac{1 - \beta^{D+1}}{1 - \beta} \eta g

    With one worker it is heavy-ball momentum, with beta = 0 asynchronous SGD.

    Args:
      late_step: the step of a gradient that is D > 0 buckets late: 'catch_up' includes the D momentum steps that it
        missed, without which the result would depend on the order of arrivals; 'vanilla' is the plain step eta g.
      bucket: 'ceil' or 'floor', for t and s alike. In a synchronous order 'floor' is SSGD with heavy-ball momentum and
        'ceil' is SSGD at Nesterov's look-ahead, both with K times the step. (A floor for t alone, which fits some
        second-hand descriptions, would give D = -1 under asynchrony.)

    Source: Shi et al. 2024 (arXiv:2407.19234), OrMo.
    """
    ordered = _ordered_momentum(momentum, num_workers, late_step, bucket)
    tx = optax.chain(decayed(**decay), step(learning_rate), ordered)
    return from_optax(tx, num_workers=num_workers)


@method
def ormo_da(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    rule: str = "ratio",
    scale: float = 1.0,
    smoothness: float = 1.0,
    late_step: str = "catch_up",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""OrMo with delay-adaptive steps.

    .. math:: \eta_t = \eta \min(1, c K / \tau_t) \quad \text{('ratio')}, \qquad
        \eta_t = \eta \text{ if } \tau_t \le 2 K \text{ else } \min(\eta, 1 / (4 L \tau_t)) \quad \text{('bound')}

    Args:
      rule: 'ratio', for practice (we do not know its constant), or 'bound', from the theory; both second-hand.
      scale: c > 0 in 'ratio'.
      smoothness: L > 0 in 'bound', the Lipschitz constant of the gradient.
      late_step: see `ormo`.

    Source: Shi et al. 2024 (arXiv:2407.19234), OrMo-DA.
    """
    _check.choice("rule", rule, ("ratio", "bound"))
    _check.number("scale", scale, low=0.0, exclusive_low=True)
    _check.number("smoothness", smoothness, low=0.0, exclusive_low=True)
    k = _check.integer("num_workers", num_workers, 1)
    ordered = _ordered_momentum(momentum, k, late_step, "ceil")
    if rule == "ratio":
        shrink = lambda tau: jnp.where(tau > 0, jnp.minimum(1.0, scale * k / jnp.maximum(tau, 1.0)), 1.0)
        steps = optax.chain(scale_by_staleness(shrink), step(learning_rate))
    else:
        steps = _bounded_step(learning_rate, lambda tau: jnp.where(tau <= 2 * k, jnp.inf, 1 / (4 * smoothness * tau)))
    tx = optax.chain(decayed(**decay), steps, ordered)
    return from_optax(tx, num_workers=k)


def _bounded_step(learning_rate: LearningRate, bound: Any) -> optax.GradientTransformationExtraArgs:
    """Scales updates by minus the learning rate, or minus a bound that depends on staleness if that is smaller."""
    _check.learning_rate(learning_rate)

    def init_fn(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    @with_promotion
    def update_fn(updates, state, params=None, *, staleness=None, **extra):
        given("ormo_da", "staleness", staleness)
        eta = learning_rate(state.count) if callable(learning_rate) else learning_rate
        eta = jnp.minimum(eta, bound(jnp.asarray(staleness, jnp.result_type(float))))
        return jax.tree.map(lambda u: (-eta * u).astype(u.dtype), updates), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
