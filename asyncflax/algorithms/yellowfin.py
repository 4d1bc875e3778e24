"""YellowFin: learning rate and momentum are tuned from statistics of the gradients; the open loop."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check, _memory
from asyncflax.algorithms.parts import LearningRate, decayed
from asyncflax.base import AsyncAlgorithm, WeightDecay, from_optax, method
from asyncflax.transforms._dtypes import wide, wide_dtype, with_promotion

_EPSILON = 1e-6


class YellowFinState(NamedTuple):
    """State of YellowFin; averages are running averages from 0, without bias correction.

    Attributes:
      updates: int32 [], t.
      learning_rate: float [], the smoothed learning rate, without the factor.
      explicit_momentum: float [], the smoothed momentum, without delta_momentum.
      window: float [window], log ||g||^2 of the newest gradients.
      log_extremes: float [2], the averages of the smallest and the largest value in the window.
      grads: PyTree like params, in float32 at least, the average of g.
      square, norm, distance: float [], the averages of ||g||^2, ||g|| and the estimated distance to the optimum.
      velocity: PyTree like params, v.
    """

    updates: jax.Array
    learning_rate: jax.Array
    explicit_momentum: jax.Array
    window: jax.Array
    log_extremes: jax.Array
    grads: Any
    square: jax.Array
    norm: jax.Array
    distance: jax.Array
    velocity: Any


def _cubic_root(p: jax.Array) -> jax.Array:
    """x in [0, 1] with x p = (1 - x)^3, which minimises x^2 D^2 + (1 - x)^4 C / h_min^2 for p = D^2 h_min^2 / (2 C).

    With y = x - 1 that is y^3 + p y + p = 0. Vieta's substitution y = w - p / (3 w) makes it quadratic in w^3, of which
    the larger root has no cancellation; three Newton steps remove the rounding errors of large p.
    """
    cube = -(p + p * jnp.sqrt(1.0 + 4.0 / 27.0 * p)) / 2.0  # w^3 < 0
    w = jnp.cbrt(cube)
    y = w - p / (3.0 * jnp.where(w == 0.0, 1.0, w))
    x = jnp.clip(1.0 + y, 0.0, 1.0)
    for _ in range(3):
        x = x - (x * p - (1.0 - x) ** 3) / (p + 3.0 * (1.0 - x) ** 2 + jnp.finfo(x.dtype).tiny)
    return x


@method
def yellowfin(
    learning_rate: LearningRate = 1.0,
    *,
    initial_learning_rate: float = 1e-4,
    initial_momentum: float = 0.0,
    delta_momentum: float = 0.0,
    window: int = 20,
    average_decay: float = 0.999,
    **decay: Unpack[WeightDecay],
) -> AsyncAlgorithm:
    r"""Heavy-ball momentum whose learning rate and momentum are tuned at each update.

    From bias-corrected running averages (decay 0.999) of the gradients:

    .. math::
        h_{min}, h_{max} &= \text{the extremes of } \|g\|^2 \text{ in a window, averaged as logarithms} \\
        C &= \max(E \|g\|^2 - \|E g\|^2, 10^{-6}), \qquad D = E \frac{E \|g\|}{E \|g\|^2} \\
        x &: \; x p = (1 - x)^3, \quad p = D^2 h_{min}^2 / (2 C), \quad r = \sqrt{h_{max} / h_{min}}, \quad
        \mu_t = \max\left(x^2, \left(\frac{r - 1}{r + 1}\right)^2\right) \\
        \eta_t &= \frac{(1 - \sqrt{\mu_t})^2}{h_{min}} \min\left(1, \frac{t + 1}{10 \cdot window}\right)

    From the second gradient on, learning rate and momentum are averages of eta_t and mu_t with the same decay, starting
    at their initial values. A gradient is clipped to the norm sqrt(100 h_max) before it enters the statistics (from the
    third on) and to sqrt(h_max) afterwards (from the second on), with the h_max of the gradients before it. Then
    v <- mu v + g and w <- w - eta v, with the step size outside. The server keeps v and the average gradient, 2 d
    numbers. (Later versions of the authors' code omit the second averaging, and cap eta ||g||.)

    It ignores staleness; `delta_momentum` is the authors' hook for implicit momentum, for example -(1 - 1/M), and
    `closed_loop_momentum` closes the loop.

    Args:
      learning_rate: a factor of the tuned learning rate.
      initial_learning_rate: > 0; 1e-4 is the value of the code and of the paper's Algorithm 5.
      initial_momentum: the initial value in [-1, 1].
      delta_momentum: an offset of the tuned momentum; the sum is clipped to [-1, 1].
      window: the number of gradients whose extremes are used.
      average_decay: the decay of the running averages, in [0, 1).

    Source: Zhang and Mitliagkas 2017, YellowFin and the Art of Momentum Tuning (arXiv:1706.03471), Algorithms 1 to 4;
    details from the authors' code, JianGoForIt/YellowFin_Pytorch.
    """
    _check.learning_rate(learning_rate)
    _check.number("initial_learning_rate", initial_learning_rate, low=0.0, exclusive_low=True)
    _check.momentum(initial_momentum, "initial_momentum")
    _check.number("delta_momentum", delta_momentum, low=-2.0, high=2.0)
    _check.number("average_decay", average_decay, low=0.0, high=1.0, exclusive_high=True)
    window = _check.integer("window", window, 1)
    rho = average_decay

    def init_fn(params):
        _check.real("yellowfin", params)
        dtype = wide_dtype(*jax.tree.leaves(params))
        number = lambda value: jnp.array(value, dtype)
        _memory.need_rows("window", window, window, jax.ShapeDtypeStruct((), dtype))
        return YellowFinState(
            updates=jnp.zeros((), jnp.int32),
            learning_rate=number(initial_learning_rate),
            explicit_momentum=number(initial_momentum),
            window=jnp.zeros(window, dtype),
            log_extremes=jnp.zeros(2, dtype),
            grads=jax.tree.map(lambda p: jnp.zeros_like(p, dtype=wide_dtype(p)), params),
            square=number(0.0),
            norm=number(0.0),
            distance=number(0.0),
            velocity=jax.tree.map(jnp.zeros_like, params),
        )

    @with_promotion
    def update_fn(updates, state, params=None):
        t, dtype = state.updates, state.square.dtype
        steps = t.astype(dtype)
        debias = 1.0 - rho ** (steps + 1.0)
        average = lambda old, new: rho * old + (1.0 - rho) * new

        h_before = jnp.exp(state.log_extremes[1] / jnp.where(t > 0, 1.0 - rho**steps, 1.0))  # h_max, without this one
        updates = _clip(updates, jnp.sqrt(100.0 * h_before), where=t > 1)
        square = _square(updates)

        # Statistics.
        logs = jnp.asarray(state.window).at[t % window].set(jnp.log(square + _EPSILON))
        seen = jnp.arange(window) <= t
        extremes = jnp.stack([jnp.min(jnp.where(seen, logs, jnp.inf)), jnp.max(jnp.where(seen, logs, -jnp.inf))])
        log_extremes = average(state.log_extremes, extremes)
        h_min, h_max = jnp.exp(log_extremes / debias)
        grads = jax.tree.map(lambda a, g: average(a, g.astype(a.dtype)), state.grads, updates)
        mean_square, norm = average(state.square, square), average(state.norm, jnp.sqrt(square))
        variance = jnp.maximum(mean_square / debias - _square(grads) / debias**2, _EPSILON)
        distance = average(state.distance, norm / (mean_square + _EPSILON * debias))

        # Tuning.
        x = _cubic_root((distance / debias) ** 2 * h_min**2 / (2.0 * variance))
        ratio = jnp.sqrt(h_max / h_min)
        mu = jnp.maximum(x**2, ((ratio - 1.0) / (ratio + 1.0)) ** 2)
        eta = (1.0 - jnp.sqrt(mu)) ** 2 / h_min * jnp.minimum(1.0, (steps + 1.0) / (10.0 * window))
        tuned = lambda old, new: jnp.where(t > 0, average(old, new), old)
        mu, eta = tuned(state.explicit_momentum, mu), tuned(state.learning_rate, eta)

        # The step.
        factor = learning_rate(t) if callable(learning_rate) else learning_rate
        applied = jnp.clip(mu + delta_momentum, -1.0, 1.0)
        clipped = _clip(updates, jnp.sqrt(h_before), where=t > 0)
        velocity = jax.tree.map(lambda v, g: (applied * v + g).astype(v.dtype), state.velocity, clipped)
        changes = jax.tree.map(lambda v: (-factor * eta * v).astype(v.dtype), velocity)
        new = YellowFinState(t + 1, eta, mu, logs, log_extremes, grads, mean_square, norm, distance, velocity)
        return changes, jax.tree.map(lambda new, old: new.astype(old.dtype), new, state)

    tuner = optax.GradientTransformation(init_fn, update_fn)
    return from_optax(optax.chain(decayed(**decay), tuner))


def _square(tree: Any) -> jax.Array:
    """||x||^2, in float32 at least."""
    return jnp.asarray(sum(jnp.sum(jnp.square(wide(x))) for x in jax.tree.leaves(tree)))


def _clip(tree: Any, bound: jax.Array, where: jax.Array) -> Any:
    """The tree, scaled down to a norm where the condition holds."""
    scale = jnp.minimum(1.0, (bound + _EPSILON) / (jnp.sqrt(_square(tree)) + _EPSILON))
    scale = jnp.where(where, scale, 1.0)
    return jax.tree.map(lambda x: (scale * x).astype(x.dtype), tree)
