"""DANA: workers compute where the server will be when they deliver.

Source: Hakimi, Barkai, Gabel and Schuster 2019, Taming Momentum in a Distributed Asynchronous Environment
(arXiv:1907.11612). We know the abstract only, and no code of the authors; the rules are second-hand. DANA-Zero and
DANA-Slim have all the expected properties; what is uncertain about DANA-DC is an option.
"""

from __future__ import annotations

from typing import Unpack

import optax

from asyncflax import _check
from asyncflax.algorithms.momentum import multi_asgd
from asyncflax.algorithms.parts import LearningRate, ahead, compensation, decayed, step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import summed_momentum


@method
def dana_zero(
    learning_rate: LearningRate, momentum: float = 0.9, *, num_workers: int, **decay: Unpack[WeightDecay]
) -> AsyncAlgorithm:
    r"""DANA-Zero: one velocity per worker; all workers compute at a look-ahead along the sum of velocities.

    .. math:: u^i \leftarrow \gamma u^i + \eta g^i, \qquad \theta \leftarrow \theta - u^i, \qquad
        \text{send } \hat\theta = \theta - \gamma \sum_j u^j

    While each of the N workers delivers once, momentum moves the server to the look-ahead. The remaining gap is due
    to gradients, as in asynchronous SGD without momentum. With one worker this is Nesterov's method.

    The server keeps N velocities and their sum, (N + 1) d numbers; an event costs O(d), whatever N.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), DANA-Zero.
    """
    velocities = summed_momentum(momentum, num_workers)
    tx = optax.chain(decayed(**decay), step(learning_rate), velocities)
    return from_optax(tx, view=_look_ahead(momentum), num_workers=num_workers)


def _look_ahead(momentum: float):
    """The view of DANA-Zero, from the state of a chain that ends with `summed_momentum`, whose total is -sum_j u^j."""
    return lambda params, state, *, worker=None: ahead(params, state[-1].total, momentum)


@method
def dana_slim(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    form: str = "inside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""DANA-Slim: DANA-Zero without overhead at the server, which keeps the look-ahead itself.

    .. math:: \text{worker: } u^i \leftarrow \gamma u^i + \eta g^i, \quad \text{sends } \gamma u^i + \eta g^i; \qquad
        \text{server: } \Theta \leftarrow \Theta - (\gamma u^i + \eta g^i)

    For every order of events, the parameters Theta = theta - gamma sum_j u^j are those at which DANA-Zero's workers
    compute. The gap, from one look-ahead to another, is larger than DANA-Zero's although the gradients are the same.
    The rule is that of Multi-ASGD with Nesterov's step; form='inside' is the paper's momentum correction. In a real
    cluster each worker keeps its own velocity and the server none; here the state holds all of them, N d numbers.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), DANA-Slim.
    """
    return multi_asgd(learning_rate, momentum, num_workers=num_workers, form=form, nesterov=True, **decay)


@method
def dana_dc(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    strength: float = 0.04,
    curvature: str = "squared",
    mean_square: str = "none",
    mean_square_decay: float = 0.95,
    epsilon: float = 1e-10,
    origin: str = "params",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""DANA-DC: DANA-Zero with gradients compensated for the remaining gap, as in DC-ASGD.

    .. math:: \hat g = g^i + \lambda \, g^i \odot g^i \odot (\theta - \theta^i)

    theta^i is the look-ahead that worker i received. The engine provides it; a real server keeps N of them,
    (2 N + 1) d numbers in all. An adaptive strength, as in DC-ASGD-a, needs d or N d more.

    Args:
      strength, curvature, mean_square, mean_square_decay, epsilon: see `dc_asgd`. We do not know which mean square the
        paper uses; a constant strength makes the fewest assumptions.
      origin: the point to which gradients are compensated: 'params', the server's theta, as in the formula, or
        'lookahead', the look-ahead that it would send now, so that a fresh gradient stays unchanged.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), DANA-DC; Zheng et al. 2017 (arXiv:1609.08326) for the compensation.
    """
    _check.choice("origin", origin, ("params", "lookahead"))
    compensate = compensation(strength, curvature, mean_square, mean_square_decay, num_workers, epsilon)
    velocities = summed_momentum(momentum, num_workers)
    tx = optax.chain(decayed(**decay), compensate, step(learning_rate), velocities)
    look_ahead = _look_ahead(momentum)
    zero = from_optax(tx, view=look_ahead, num_workers=num_workers)
    if origin == "params":
        return zero

    def update(grads, state, params, **event):
        return zero.update(grads, state, params, origin=look_ahead(params, state), **event)

    return AsyncAlgorithm(zero.init, update, look_ahead, num_workers)
