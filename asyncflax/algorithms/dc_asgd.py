"""DC-ASGD: asynchronous SGD with delay compensation."""

from __future__ import annotations

from typing import Unpack

import optax

from asyncflax.algorithms.parts import LearningRate, compensation, decayed, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import explicit_momentum


@method
def dc_asgd(
    learning_rate: LearningRate,
    momentum: float = 0.0,
    *,
    strength: float = 0.04,
    curvature: str = "squared",
    mean_square: str = "none",
    mean_square_decay: float = 0.95,
    epsilon: float = 1e-10,
    num_workers: int | None = None,
    form: str = "inside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Asynchronous SGD that corrects stale gradients to first order, with a diagonal estimate of the Hessian.

    .. math:: \hat g = g + \lambda \, g \odot g \odot (w_t - w_{read}), \qquad w_{t+1} = w_t - \alpha \hat g

    The engine provides the parameters read, so the state has no backups (a real server keeps M of them). With an
    adaptive strength, DC-ASGD-a, lambda is divided by the root of a running mean of g * g (d or M d numbers).

    Args:
      strength: lambda >= 0; 0.04 is said to be that of DC-ASGD-c (not checked against the paper).
      curvature: 'squared' or 'absolute', see `transforms.compensate_delay`.
      mean_square: 'none' keeps lambda constant; 'shared' adapts it with one running mean of g * g at the server,
        'per_worker' with one per worker, like the authors' code. A good strength is then said to be 2.
      mean_square_decay: the decay of that mean, in [0, 1); 0.95 is not checked against the paper.
      epsilon: > 0, added to that mean, see `transforms.compensate_delay`; the authors' code has 1e-7.
      num_workers: the number of workers, required by 'per_worker'.

    Source: Zheng et al. 2017 (arXiv:1609.08326).
    """
    compensate = compensation(strength, curvature, mean_square, mean_square_decay, num_workers, epsilon)
    steps = with_step(learning_rate, explicit_momentum(momentum), form)
    return from_optax(optax.chain(decayed(**decay), compensate, steps), num_workers=num_workers)
