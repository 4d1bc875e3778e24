r"""Closed-loop momentum: implicit momentum is measured, and explicit momentum supplies the rest.

In a queue of M workers with exponential work the next gradient is one of the M in flight, each with the same
probability. So the mean of those in flight moves 1/M of the way to the gradient at the newest version. For the
gradients G_v and G_{v-1} that arrived at updates v and v - 1, and the gradient g_v at version v, this means

    E (g_v - G_v) = mu_S E (g_v - G_{v-1}),        mu_S = 1 - 1/M

whatever explicit momentum and learning rate were in between. When g_v arrives, tau updates after version v was made,
both others are known. All are noisy, so mu_S is estimated as a ratio of products with an *instrument*, which predicts
g_v - G_{v-1} and has independent noise: the running average of the gradients up to update v - 2. A few dozen
coordinates suffice.

Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5, for mu_S; the estimator is derived.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check, _memory
from asyncflax.algorithms.parts import LearningRate, decayed, with_step
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms import _coordinates
from asyncflax.transforms._dtypes import wide_dtype, with_promotion
from asyncflax.transforms._trees import given

_MEMORY = 8  # updates over which the instrument averages
_WARM_UP = 10  # the loop closes after _WARM_UP (memory + workers) updates


class ClosedLoopState(NamedTuple):
    """State of closed-loop momentum.

    Attributes:
      updates: int32 [], t.
      explicit_momentum: float [], mu_L of the next update.
      implicit_momentum: float [], the estimate of mu_S; 0 until there is one.
      arrived: float [rows, coordinates], the newest gradients; that of update k is in row k mod rows.
      averages: float [rows, coordinates], their running averages.
      with_later: float [], the decaying sum of instrument times (g_v - G_v).
      with_earlier: float [], the decaying sum of instrument times (g_v - G_{v-1}).
      velocity: PyTree like params, u.
    """

    updates: jax.Array
    explicit_momentum: jax.Array
    implicit_momentum: jax.Array
    arrived: jax.Array
    averages: jax.Array
    with_later: jax.Array
    with_earlier: jax.Array
    velocity: Any


@method
def closed_loop_momentum(
    learning_rate: LearningRate,
    momentum: float = 0.9,
    *,
    num_workers: int,
    gain: float = 0.01,
    limit: float = 0.99,
    window: int = 1000,
    coordinates: int = 64,
    reads: str = "once",
    form: str = "inside",
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Heavy ball whose explicit momentum is controlled so that explicit plus implicit momentum is the target.

    .. math:: \mu_L \leftarrow \mu_L + \kappa (\mu^* - (\mu_L + \hat\mu_S)), \qquad
        u \leftarrow \mu_L u + \alpha g, \qquad w \leftarrow w - u

    mu_L is 0 for the first 10 (M + 8) updates, until there are enough gradients for an estimate; shorter runs are
    asynchronous SGD. It becomes negative where implicit momentum alone exceeds the target. The sum is total momentum to
    first order (see `theory.total_momentum_operator`).

    The server keeps one velocity and a few thousand numbers. `optax.tree.get(state, 'explicit_momentum')` is the
    current mu_L; training runs log it.

    The estimate needs gradients that change slowly over `window` updates: in short runs, with few workers or near
    the largest stable step size it can be far off (2 workers on digits, 800 updates: mu_L anywhere from 0 to 0.7 for a
    target of 0.9). mu_S is exact for queues with exponential work and for geometric staleness; under other
    distributions the estimate is a best fit.

    Args:
      momentum: mu^*, the target of the total momentum.
      num_workers: M; gradients with a staleness of 10 M + 8 or more do not enter the estimate (in a queue with
        exponential work, fewer than one in 20,000).
      gain: kappa in (0, 1], the share of the error that one update removes.
      limit: the largest |mu_L|, in [0, 1].
      window: the number of updates over which the estimate averages, at least 20.
      coordinates: the number of gradient coordinates used, at least 1.
      reads: 'once' if every version is read by one worker, as in a queue, or 'independent' if staleness is drawn from a
        distribution. Fresh gradients are then omitted: they are both g_v and G_v and carry no information.

    Source: Zhang and Mitliagkas 2017 (arXiv:1706.03471), closed-loop YellowFin (Appendix G, Algorithm 5), for the rule
    and its gain of 0.01. Their estimator of the total, eq. 35, is a median over all coordinates of ratios of past
    parameters and the gradient there, for a delay of exactly tau; this one needs neither.

    Example: 8 workers on a noisy quadratic; implicit momentum is 7/8, the target 0.6.
      >>> import asyncflax, jax, jax.numpy as jnp, optax
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=8, num_updates=4000, service_time=q.exponential())
      >>> noise = jax.random.normal(jax.random.key(0), (4000, 64))
      >>> loss_fn = lambda x, noise: 0.5 * jnp.sum((x - noise) ** 2)
      >>> algorithm = asyncflax.algorithms.closed_loop_momentum(0.1, 0.6, num_workers=8)
      >>> result = asyncflax.run(algorithm, jax.value_and_grad(loss_fn), jnp.zeros(64), trace, noise)
      >>> bool(abs(optax.tree.get(result.state, "explicit_momentum") - (0.6 - 7 / 8)) < 0.05)
      True
    """
    _check.momentum(momentum)
    _check.number("gain", gain, low=0.0, high=1.0, exclusive_low=True)
    _check.number("limit", limit, low=0.0, high=1.0)
    _check.choice("reads", reads, ("once", "independent"))
    coordinates = _check.integer("coordinates", coordinates, 1)
    window = _check.integer("window", window, 20)
    num_workers = _check.integer("num_workers", num_workers, 1)
    rows = 10 * (num_workers + 1)
    warm_up = _WARM_UP * (_MEMORY + num_workers)

    def init_fn(params):
        _check.real("closed_loop_momentum", params)
        count = sum(map(len, _coordinates.draw(params, coordinates, seed=0)))
        dtype = wide_dtype(*jax.tree.leaves(params))
        _memory.need_rows("num_workers", num_workers, 2 * rows * count, jax.ShapeDtypeStruct((), dtype))
        zero, store = lambda: jnp.zeros((), dtype), lambda: jnp.zeros((rows, count), dtype)
        velocity = jax.tree.map(jnp.zeros_like, params)
        return ClosedLoopState(jnp.zeros((), jnp.int32), zero(), zero(), store(), store(), zero(), zero(), velocity)

    @with_promotion
    def update_fn(updates, state, params=None, *, grads, staleness=None, **extra):
        staleness = given("closed_loop_momentum", "staleness", staleness)
        state = jax.tree.map(jnp.asarray, state)  # a restored state may consist of NumPy arrays
        mu, t, dtype = state.explicit_momentum, state.updates, state.arrived.dtype
        velocity = jax.tree.map(lambda u, v: (mu * v + u).astype(v.dtype), updates, state.velocity)

        g = _coordinates.flat(_coordinates.take(grads, _coordinates.draw(grads, coordinates, seed=0))).astype(dtype)
        last = state.averages[(t - 1) % rows]
        arrived = state.arrived.at[t % rows].set(g)
        averages = state.averages.at[t % rows].set(last + (g - last) / _MEMORY)
        v = t - staleness
        is_known = (v >= 2) & (staleness + 2 < rows)
        if reads == "independent":
            is_known &= staleness > 0
        row = lambda store, update: store[jnp.maximum(update, 0) % rows]
        instrument = row(averages, v - 2)
        products = [jnp.sum(instrument * (g - row(arrived, update))) for update in (v, v - 1)]
        add = lambda total, product: (1.0 - 1.0 / window) * total + jnp.where(is_known, product, 0.0)
        with_later, with_earlier = add(state.with_later, products[0]), add(state.with_earlier, products[1])

        is_warm = (t >= warm_up) & (with_earlier != 0.0)
        ratio = with_later / jnp.where(with_earlier == 0.0, 1.0, with_earlier)
        implicit = jnp.where(is_warm, jnp.clip(ratio, -1.0, 1.0), 0.0)
        error = momentum - (mu + implicit)
        explicit = jnp.clip(mu + jnp.where(is_warm, gain * error, 0.0), -limit, limit)
        new = ClosedLoopState(t + 1, explicit, implicit, arrived, averages, with_later, with_earlier, velocity)
        return velocity, jax.tree.map(lambda new, old: new.astype(old.dtype), new, state)

    first = optax.with_extra_args_support(decayed(**decay))
    steered = optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
    steps = optax.with_extra_args_support(with_step(learning_rate, steered, form))

    def update(grads, state, params=None, **event):
        grads, _ = first.update(grads, first.init(grads), params, **event)
        return steps.update(grads, state, params, grads=grads, **event)

    tx = optax.GradientTransformationExtraArgs(steps.init, update)  # pyright: ignore[reportArgumentType]
    return from_optax(tx, num_workers=num_workers)
