"""Delay compensation: a first-order guess of the gradient at the server's parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check


class MeanSquareState(NamedTuple):
    """State of `compensate_delay` with an adaptive strength.

    Attributes:
      mean_square: PyTree like params, the running average of g * g.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> asyncflax.transforms.compensate_delay(2.0, mean_square_decay=0.95).init(jnp.ones(2))
      MeanSquareState(mean_square=Array([0., 0.], dtype=float32))
    """

    mean_square: Any


_EPSILON = 1e-10  # below the root of the mean square, as in Multiverso's updater


def compensate_delay(
    strength: float | jax.Array, *, curvature: str = "squared", mean_square_decay: float | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the change of the gradient between the parameters read and the server's parameters.

    .. math:: \hat g = g + \lambda \, c(g) \odot (\theta_t - \theta_{read})

    c(g) stands for the diagonal of the Hessian.

    Args:
      strength: lambda >= 0; 0.04 is what DC-ASGD-c is said to use (not checked against the paper).
      curvature: 'squared', c(g) = g * g (the paper's form), or 'absolute', c(g) = |g| (found in public copies of
        Multiverso's updater).
      mean_square_decay: rho in [0, 1) makes the strength adaptive (DC-ASGD-a), lambda / sqrt(m + 1e-10) with
        m <- rho m + (1 - rho) g * g, the present gradient included; None keeps it constant (DC-ASGD-c).

    The update needs `params` and the extra argument `read_params`; with a further one, `origin`, the way back begins
    there instead of at the server's parameters.

    Raises:
      ValueError: strength is negative or curvature unknown; later, params are missing.

    Source: Zheng et al. 2017 (arXiv:1609.08326), DC-ASGD.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> tx = asyncflax.transforms.compensate_delay(0.5)
      >>> g, _ = tx.update(jnp.array(2.0), tx.init(None), jnp.array(1.0), read_params=jnp.array(0.0))
      >>> g
      Array(4., dtype=float32)
    """
    _check.number("strength", strength, low=0.0)
    _check.choice("curvature", curvature, ("squared", "absolute"))
    is_adaptive = mean_square_decay is not None
    rho = mean_square_decay if is_adaptive else 0.0
    _check.number("mean_square_decay", rho, low=0.0, high=1.0, exclusive_high=True)

    def init_fn(params):
        return MeanSquareState(jax.tree.map(jnp.zeros_like, params)) if is_adaptive else optax.EmptyState()

    def update_fn(updates, state, params=None, *, read_params, origin=None, **extra):
        del extra
        now = params if origin is None else origin
        if now is None:
            raise ValueError("compensate_delay needs the server's parameters: update(..., params).")

        def compensate(g, now, read, scale=1.0):
            c = abs(g) if curvature == "absolute" else g * g
            return (g + strength * scale * c * (now - read)).astype(g.dtype)

        if not is_adaptive:
            return jax.tree.map(compensate, updates, now, read_params), state
        mean_square = jax.tree.map(lambda m, g: (rho * m + (1.0 - rho) * g * g).astype(m.dtype), state[0], updates)
        scale = jax.tree.map(lambda m: jax.lax.rsqrt(m + _EPSILON), mean_square)
        return jax.tree.map(compensate, updates, now, read_params, scale), MeanSquareState(mean_square)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
