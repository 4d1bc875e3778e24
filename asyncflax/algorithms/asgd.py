"""Asynchronous SGD, plain and with delay-dependent steps, and its synchronous counterpart."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, decayed, step, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import explicit_momentum, scale_by_staleness


@method
def asgd(learning_rate: LearningRate, **decay: Unpack[WeightDecay]) -> AsyncAlgorithm:
    r"""Asynchronous SGD.

    .. math:: w_{t+1} = w_t - \alpha_t \nabla f(w_{t - \tau_t})

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 6.
    """
    return from_optax(optax.chain(decayed(**decay), step(learning_rate)))


def _damped(fresh: int, delay: str) -> optax.GradientTransformationExtraArgs:
    """Scales updates by fresh / max(fresh, tau)."""
    _check.choice("delay", delay, ("staleness", "staleness_plus_one"))
    offset = 1 if delay == "staleness_plus_one" else 0
    return scale_by_staleness(lambda tau: fresh / jnp.maximum(fresh, tau + offset))


@method
def delay_adaptive_asgd(
    learning_rate: LearningRate, *, num_workers: int, delay: str = "staleness", **decay: Unpack[WeightDecay]
) -> AsyncAlgorithm:
    r"""Smaller steps for staler gradients, so that convergence does not depend on the maximum delay.

    .. math:: w_{t+1} = w_t - \alpha \frac{M}{\max(M, \tau_t)} \nabla f(w_{t - \tau_t})

    Args:
      delay: 'staleness' uses tau_t (0 is fresh), 'staleness_plus_one' uses tau_t + 1, as some implementations count.

    Source: Mishchenko et al. 2022 (arXiv:2206.07638); the rule is that of their code, konstmish/asynchronous_sgd.
    """
    workers = _check.integer("num_workers", num_workers, 1)
    tx = optax.chain(decayed(**decay), _damped(workers, delay), step(learning_rate))
    return from_optax(tx, num_workers=workers)


@method
def staleness_aware_asgd(
    learning_rate: LearningRate, *, delay: str = "staleness", **decay: Unpack[WeightDecay]
) -> AsyncAlgorithm:
    r"""Steps divided by the staleness.

    .. math:: w_{t+1} = w_t - \frac{\alpha}{\max(\tau_t, 1)} \nabla f(w_{t - \tau_t})

    Args:
      delay: see `delay_adaptive_asgd`.

    Source: Zhang et al. 2015, Staleness-aware Async-SGD for Distributed Deep Learning (arXiv:1511.05950), second-hand.
    """
    return from_optax(optax.chain(decayed(**decay), _damped(1, delay), step(learning_rate)))


class RoundMeanState(NamedTuple):
    """State of one synchronous round.

    Attributes:
      arrived: int32 [], the number of gradients of this round so far.
      mean: PyTree like params, their sum divided by the number of workers.
      inner: the state of the optimizer that takes one step per round.
    """

    arrived: jax.Array
    mean: Any
    inner: Any


def _once_a_round(tx: optax.GradientTransformation, num_workers: int):
    """Applies `tx` to the mean of every `num_workers` gradients: exact, where `optax.MultiSteps` sums in float32."""
    inner = optax.with_extra_args_support(tx)

    def init_fn(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return RoundMeanState(jnp.zeros((), jnp.int32), zeros, inner.init(params))

    def update_fn(updates, state, params=None, **extra):
        mean = jax.tree.map(lambda m, u: (m + u / num_workers).astype(m.dtype), state.mean, updates)
        complete = state.arrived == num_workers - 1
        updates, stepped = inner.update(mean, state.inner, params, **extra)
        keep = lambda new, old: jnp.where(complete, new, old)
        updates = jax.tree.map(lambda u: keep(u, jnp.zeros_like(u)), updates)
        mean = jax.tree.map(lambda m: keep(jnp.zeros_like(m), m), mean)
        arrived = keep(jnp.zeros_like(state.arrived), state.arrived + 1)
        return updates, RoundMeanState(arrived, mean, jax.tree.map(keep, stepped, state.inner))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@method
def ssgd(
    learning_rate: LearningRate,
    momentum: float = 0.0,
    *,
    num_workers: int,
    form: str = "inside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Synchronous SGD, for comparison: one step per round, with the mean of its M gradients.

    .. math:: u \leftarrow \mu u + \alpha \, \mathrm{mean}_i \, g^i, \qquad w \leftarrow w - u

    Intended for traces of `queues.barrier`, in which the M events of a round read the same version; on other traces
    every M consecutive gradients are averaged. An incomplete last round is not applied. Schedules count rounds, and
    `decay_at` makes no difference.

    Source: the baseline SSGD of Hakimi et al. 2019 (arXiv:1907.11612).
    """
    workers = _check.integer("num_workers", num_workers, 1)
    step_of_round = with_step(learning_rate, explicit_momentum(momentum), form)
    tx = optax.chain(decayed(**decay), _once_a_round(step_of_round, workers))
    return from_optax(tx, num_workers=workers)
