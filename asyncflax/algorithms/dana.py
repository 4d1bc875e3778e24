"""DANA: workers compute where the server will be when they deliver.

Source: Hakimi, Barkai, Gabel and Schuster 2019, Taming Momentum in a Distributed Asynchronous Environment
(arXiv:1907.11612). We have read its abstract, no code of the authors is known, and the rules are second-hand: those of
DANA-Zero and DANA-Slim have all the properties that they should have, what is uncertain of DANA-DC is an option.
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
    r"""DANA-Zero: one velocity a worker, and everybody computes at a look-ahead along all of them.

    .. math:: u^i \leftarrow \gamma u^i + \eta g^i, \qquad \theta \leftarrow \theta - u^i, \qquad
        \text{send } \hat\theta = \theta - \gamma \sum_j u^j

    If each of the N workers delivers once, the server moves by the momentum of all of them: the look-ahead goes there
    in advance, and what is left of the gap is what the gradients do, as in asynchronous SGD without momentum. With one
    worker this is Nesterov's method.

    The step size is inside the velocity, so a change of the learning rate needs no correction of the momentum. The
    server keeps N velocities and their sum, (N + 1) d numbers; an event costs O(d), whatever N.

    Args:
      learning_rate: eta >= 0 or a schedule.
      momentum: gamma in [-1, 1].
      num_workers: N >= 1.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), DANA-Zero.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.dana_zero(0.1, 0.9, num_workers=8)
    """
    velocities = summed_momentum(momentum, num_workers)
    tx = optax.chain(decayed(**decay), step(learning_rate), velocities)
    return from_optax(tx, view=_look_ahead(momentum), num_workers=num_workers)


def _look_ahead(momentum: float):
    """The view of DANA-Zero, from the state of a chain that ends with `summed_momentum`; the same for all workers."""
    # The velocities hold updates, -u.
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
    r"""DANA-Slim: DANA-Zero without work for the server, whose parameters are the look-ahead itself.

    .. math:: \text{worker: } u^i \leftarrow \gamma u^i + \eta g^i, \quad \text{sends } \gamma u^i + \eta g^i; \qquad
        \text{server: } \Theta \leftarrow \Theta - (\gamma u^i + \eta g^i)

    The parameters are those that DANA-Zero's workers compute at, for every order of events: Theta = theta - gamma
    sum_j u^j; so its gap is counted from one look-ahead to another, and is larger than DANA-Zero's while the gradients
    are the same. As an update rule it is Multi-ASGD with Nesterov's step. In a real cluster each worker keeps its own
    velocity and the server nothing; here the run holds the N velocities, N d numbers.

    Args:
      learning_rate: eta >= 0 or a schedule.
      momentum: gamma in [-1, 1].
      num_workers: N >= 1.
      form: 'inside' has the step size in the velocity, which is the paper's correction of the momentum at changes of
        the learning rate; 'outside' has v = gamma v + g and eta in front, without correction.

    Source: Hakimi et al. 2019 (arXiv:1907.11612), DANA-Slim.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.dana_slim(0.1, 0.9, num_workers=8)
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
    r"""DANA-DC: DANA-Zero whose gradients are compensated for the rest of the gap, as in DC-ASGD.

    .. math:: \hat g = g^i + \lambda \, g^i \odot g^i \odot (\theta - \theta^i)

    With that gradient it goes on as DANA-Zero. theta^i is what worker i had received, a look-ahead. The engine knows
    it; in a real cluster the server keeps N of them, so that it has (2 N + 1) d numbers in all. With a mean square of
    the gradients the strength is adaptive, as in DC-ASGD-a, which takes d or N d numbers more.

    Args:
      learning_rate: eta >= 0 or a schedule.
      momentum: gamma in [-1, 1].
      num_workers: N >= 1.
      strength: lambda >= 0, see `dc_asgd`.
      curvature: 'squared' or 'absolute', see `transforms.compensate_delay`.
      mean_square: 'none', 'shared' or 'per_worker', see `dc_asgd`. Which one the paper has is not known to us; a
        constant strength has the fewest assumptions.
      mean_square_decay: of that mean, in [0, 1).
      epsilon: > 0, beside that mean below the root, see `transforms.compensate_delay`.
      origin: from where the way back to theta^i is counted, 'params' (the server's theta, which is what the formula
        says when read literally) or 'lookahead' (what it would send now, so that a fresh gradient stays as it is).

    Source: Hakimi et al. 2019 (arXiv:1907.11612), DANA-DC; Zheng et al. 2017 (arXiv:1609.08326) for the compensation.

    Example:
      >>> import asyncflax
      >>> algorithm = asyncflax.algorithms.dana_dc(0.1, 0.9, num_workers=8, strength=2.0)
    """
    _check.choice("origin", origin, ("params", "lookahead"))
    compensate = compensation(
        strength,
        curvature=curvature,
        mean_square=mean_square,
        mean_square_decay=mean_square_decay,
        epsilon=epsilon,
        num_workers=num_workers,
    )
    velocities = summed_momentum(momentum, num_workers)
    tx = optax.chain(decayed(**decay), compensate, step(learning_rate), velocities)
    look_ahead = _look_ahead(momentum)
    zero = from_optax(tx, view=look_ahead, num_workers=num_workers)
    if origin == "params":
        return zero

    def update(grads, state, params, **event):
        return zero.update(grads, state, params, origin=look_ahead(params, state), **event)

    return AsyncAlgorithm(zero.init, update, look_ahead, num_workers)
