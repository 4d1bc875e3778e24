"""Linear weight prediction: workers compute at the parameters to which the velocity will have moved the server."""

from __future__ import annotations

from typing import Unpack

import optax

from asyncflax import _check
from asyncflax.algorithms.parts import LearningRate, ahead, decayed, step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import explicit_momentum


@method
def lwp(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    lag: float | None = None,
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""One velocity at the server; workers compute at a prediction with constant velocity over a lag.

    .. math:: u \leftarrow \gamma u + \eta g, \qquad \theta \leftarrow \theta - u, \qquad \text{send } \theta - \tau u

    The prediction is tau steps ahead; Nesterov's look-ahead is gamma steps.

    Args:
      lag: tau >= 0, in updates; default N, said to be the paper's. (The mean staleness of a queue is N - 1.)

    Source: the baseline LWP of Hakimi et al. 2019 (arXiv:1907.11612), second-hand; Kosson et al. 2020
    (arXiv:2003.11666) for pipelines.
    """
    steps = _check.integer("num_workers", num_workers, 1) if lag is None else lag
    _check.number("lag", steps, low=0.0)
    tx = optax.chain(decayed(**decay), step(learning_rate), explicit_momentum(momentum))
    # The velocity holds updates, -u.
    predict = lambda params, state, *, worker=None: ahead(params, state[-1].velocity, steps)
    return from_optax(tx, view=predict, num_workers=num_workers)
