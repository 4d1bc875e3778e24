"""Asynchronous SGD, plain and with steps that depend on the delay, and its synchronous counterpart."""

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
    r"""Asynchronous SGD, eq. 6:

    .. math:: w_{t+1} = w_t - \alpha_t \nabla f(w_{t - \tau_t})

    Args:
      learning_rate: alpha >= 0 or a schedule.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 6.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.asgd(0.1, weight_decay=1e-4)
    """
    return from_optax(optax.chain(decayed(**decay), step(learning_rate)))


@method
def delay_adaptive_asgd(
    learning_rate: LearningRate, *, num_workers: int, delay: str = "staleness", **decay: Unpack[WeightDecay]
) -> AsyncAlgorithm:
    r"""Smaller steps for staler gradients, so that the convergence does not depend on the maximum delay:

    .. math:: w_{t+1} = w_t - \alpha \frac{M}{\max(M, \tau_t)} \nabla f(w_{t - \tau_t})

    Args:
      learning_rate: alpha >= 0 or a schedule.
      num_workers: M >= 1.
      delay: 'staleness' takes tau_t (0 is fresh), 'staleness_plus_one' takes tau_t + 1, as some codes count.

    Source: Mishchenko et al. 2022 (arXiv:2206.07638); the rule is that of their code, konstmish/asynchronous_sgd.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.delay_adaptive_asgd(0.1, num_workers=8)
    """
    _check.choice("delay", delay, ("staleness", "staleness_plus_one"))
    workers = _check.integer("num_workers", num_workers, 1)
    offset = 1 if delay == "staleness_plus_one" else 0
    adapt = scale_by_staleness(lambda tau: workers / jnp.maximum(workers, tau + offset))
    return from_optax(optax.chain(decayed(**decay), adapt, step(learning_rate)), num_workers=workers)


@method
def staleness_aware_asgd(
    learning_rate: LearningRate, *, delay: str = "staleness", **decay: Unpack[WeightDecay]
) -> AsyncAlgorithm:
    r"""Steps divided by the staleness:

    .. math:: w_{t+1} = w_t - \frac{\alpha}{\max(\tau_t, 1)} \nabla f(w_{t - \tau_t})

    Args:
      learning_rate: alpha >= 0 or a schedule.
      delay: 'staleness' divides by tau_t (by 1 if it is 0), 'staleness_plus_one' by tau_t + 1.

    Source: Zhang et al. 2015, Staleness-aware Async-SGD for Distributed Deep Learning (arXiv:1511.05950),
      second-hand.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.staleness_aware_asgd(0.1)
    """
    _check.choice("delay", delay, ("staleness", "staleness_plus_one"))
    plus_one = delay == "staleness_plus_one"
    adapt = scale_by_staleness(lambda tau: 1 / (tau + 1 if plus_one else jnp.maximum(tau, 1)))
    return from_optax(optax.chain(decayed(**decay), adapt, step(learning_rate)))


class RoundMeanState(NamedTuple):
    """State of one synchronous round.

    Attributes:
      arrived: int32 [], how many gradients of the round have arrived.
      mean: PyTree like params, their sum divided by the number of workers.
      inner: the state of the optimizer that makes one step a round.
    """

    arrived: jax.Array
    mean: Any
    inner: Any


def _once_a_round(tx: optax.GradientTransformation, num_workers: int):
    """Applies `tx` to the mean of every `num_workers` gradients; the events between change nothing."""
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
    r"""Synchronous SGD, for comparison: one step a round, with the mean of the round's M gradients.

    .. math:: u \leftarrow \mu u + \alpha \, \mathrm{mean}_i \, g^i, \qquad w \leftarrow w - u

    Run it on a trace of `queues.barrier`, whose rounds of M events read the same version. On another trace it averages
    every M gradients, whoever sent them; gradients of an incomplete last round are not applied. A schedule counts
    rounds. 'read' and 'server' are the same for `decay_at`, since the parameters rest during a round.

    (`optax.MultiSteps` accumulates as well, but in float32 unless told otherwise, which would not be exact here.)

    Args:
      learning_rate: alpha >= 0, a number or a schedule of the number of rounds.
      momentum: mu in [-1, 1].
      num_workers: M >= 1, the gradients in a round.
      form: 'inside' or 'outside', see `momentum_asgd`.

    Source: the baseline SSGD of Hakimi et al. 2019 (arXiv:1907.11612).

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.ssgd(0.1, 0.9, num_workers=8)
    """
    workers = _check.integer("num_workers", num_workers, 1)
    step_of_round = with_step(learning_rate, explicit_momentum(momentum), form)
    tx = optax.chain(decayed(**decay), _once_a_round(step_of_round, workers))
    return from_optax(tx, num_workers=workers)
