"""Momentum in asynchronous training: one velocity for all workers, with or without a look-ahead, or one per worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, ahead, decayed, step, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import explicit_momentum, per_worker


@method
def momentum_asgd(
    learning_rate: LearningRate,
    momentum: float | Callable[[Any], Any] = 0.9,
    *,
    form: str = "inside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Naive momentum: one velocity at the server, updated with stale gradients. Momentum may be negative.

    .. math:: u_{t+1} = \mu_L u_t + \alpha_t \nabla f(w_{t - \tau_t}), \qquad w_{t+1} = w_t - u_{t+1}

    Args:
      momentum: mu_L, a number or a schedule of the number of server updates; M asynchronous workers add about 1 - 1/M
        of implicit momentum.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 3 with the stale gradient of eq. 6; section 4 and, in the
    Allerton version, Figure 8 for mu_L < 0.
    """
    return from_optax(optax.chain(decayed(**decay), with_step(learning_rate, explicit_momentum(momentum), form)))


@method
def nag_asgd(
    learning_rate: LearningRate, momentum: float = 0.9, *, variant: str = "lookahead", **decay: Unpack[WeightDecay]
) -> AsyncAlgorithm:
    r"""Nesterov's momentum with one velocity at the server; workers compute at the look-ahead.

    .. math:: u \leftarrow \mu u + \alpha g, \qquad w \leftarrow w - u, \qquad \text{send } w - \mu u

    Args:
      variant: 'lookahead' keeps w, which is evaluated, and sends w - mu u, as the other methods with a look-ahead do.
        'shifted' keeps and sends the look-ahead itself, w <- w - (mu u_new + alpha g), as PyTorch and
        `optax.sgd(nesterov=True)` do. With constant mu and decay at 'read', gradients are the same; the parameters that
        you evaluate are not.

    Source: the baseline NAG-ASGD of Hakimi et al. 2019 (arXiv:1907.11612), second-hand; its variant is not known.
    """
    _check.choice("variant", variant, ("lookahead", "shifted"))
    _check.momentum(momentum)
    velocity = explicit_momentum(momentum, nesterov=variant == "shifted")
    tx = optax.chain(decayed(**decay), step(learning_rate), velocity)
    if variant == "shifted":
        return from_optax(tx)
    # The velocity holds updates, -u.
    return from_optax(tx, view=lambda params, state, *, worker=None: ahead(params, state[-1].velocity, momentum))


@method
def multi_asgd(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    form: str = "inside",
    nesterov: bool = False,
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""One velocity per worker, updated with the gradients of that worker only.

    .. math:: u^i \leftarrow \mu u^i + \alpha g^i, \qquad w \leftarrow w - u^i

    Args:
      num_workers: M, the number of velocities in the state.
      nesterov: whether to apply mu u^i + alpha g^i instead of u^i.

    Source: the baseline Multi-ASGD of Hakimi et al. 2019 (arXiv:1907.11612), second-hand.
    """
    velocities = per_worker(explicit_momentum(momentum, nesterov=nesterov), num_workers)
    tx = optax.chain(decayed(**decay), with_step(learning_rate, velocities, form))
    return from_optax(tx, num_workers=num_workers)
