"""Explicit momentum, negative included."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check


class MomentumState(NamedTuple):
    """State of `explicit_momentum`.

    Attributes:
      velocity: PyTree like params, u_t: the last update (zeros at first).

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> asyncflax.transforms.explicit_momentum(0.9).init(jnp.ones(2))
      MomentumState(velocity=Array([0., 0.], dtype=float32))
    """

    velocity: Any


def explicit_momentum(momentum: float | jax.Array, *, nesterov: bool = False) -> optax.GradientTransformation:
    r"""Heavy ball: u_{t+1} = mu_L u_t + update; the output is u_{t+1}.

    Behind a learning rate, the step size is inside the velocity, which is eq. 3 of Mitliagkas et al. 2016:

    .. math:: w_{t+1} - w_t = \mu_L (w_t - w_{t-1}) - \alpha_t \nabla f(w_t)

    In front of it (as in `optax.sgd`) the step size is outside. The two differ when the learning rate changes.

    Args:
      momentum: mu_L in [-1, 1], a number or an array. With M asynchronous workers the implicit momentum is 1 - 1/M
        already, so the best explicit momentum falls with M, below zero.
      nesterov: put out mu_L u_{t+1} + update instead (the shifted-variable form of Nesterov's momentum).

    Raises:
      ValueError: a concrete momentum is outside [-1, 1] or not finite.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 3 and section 4 (negative momentum).

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> tx = optax.chain(optax.scale_by_learning_rate(0.5), asyncflax.transforms.explicit_momentum(-0.5))
      >>> state = tx.init(jnp.zeros(()))
      >>> for _ in range(3):
      ...     update, state = tx.update(jnp.ones(()), state)
      ...     print(update)
      -0.5
      -0.25
      -0.375
    """
    _check.momentum(momentum)

    def init_fn(params):
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def update_fn(updates, state, params=None):
        del params
        velocity = jax.tree.map(lambda u, v: (momentum * v + u).astype(v.dtype), updates, state.velocity)
        if nesterov:
            updates = jax.tree.map(lambda u, v: (momentum * v + u).astype(v.dtype), updates, velocity)
        else:
            updates = velocity
        return updates, MomentumState(velocity)

    return optax.GradientTransformation(init_fn, update_fn)
