"""DC-ASGD: asynchronous SGD with delay compensation.

Source: Zheng et al. 2017 (arXiv:1609.08326).
"""

from __future__ import annotations

import optax

from asyncflax.algorithms._common import LearningRate, decayed, with_step
from asyncflax.base import AsyncAlgorithm, from_optax, method
from asyncflax.transforms import compensate_delay, explicit_momentum


@method
def dc_asgd(
    learning_rate: LearningRate,
    momentum: float = 0.0,
    *,
    strength: float = 0.04,
    curvature: str = "squared",
    form: str = "inside",
    weight_decay: float = 0.0,
    decay_at: str = "read",
) -> AsyncAlgorithm:
    r"""Adds what a diagonal Hessian says about the way from the parameters read to the server's.

    .. math:: \hat g = g + \lambda \, g \odot g \odot (w_t - w_{read}), \qquad w_{t+1} = w_t - \alpha \hat g

    The engine knows what each worker read, so the method keeps no backup of its own.

    Args:
      learning_rate: alpha >= 0, a number or a schedule of the number of server updates.
      momentum: mu in [-1, 1], one velocity at the server.
      strength: lambda >= 0; 0.04 is what DC-ASGD-c is said to use (not checked against the paper).
      curvature: 'squared' or 'absolute', see `transforms.compensate_delay`.
      form: 'inside' or 'outside', see `momentum_asgd`.
      weight_decay: a number >= 0; the decayed gradient is compensated.
      decay_at: 'read' or 'server', see `transforms.decay_weights`.

    Raises:
      ValueError: a number is not finite or out of its range, or an option is unknown; the message names it.

    Source: Zheng et al. 2017 (arXiv:1609.08326).

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.dc_asgd(0.1, strength=0.04)
    """
    return from_optax(
        optax.chain(
            decayed(weight_decay, decay_at),
            compensate_delay(strength, curvature=curvature),
            with_step(learning_rate, explicit_momentum(momentum), form),
        )
    )
