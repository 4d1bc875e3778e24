"""Delay compensation: a first-order estimate of the gradient at the server's parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.transforms._dtypes import wide, with_promotion
from asyncflax.transforms._trees import matching


class MeanSquareState(NamedTuple):
    """State of `compensate_delay` with an adaptive strength.

    Attributes:
      mean_square: PyTree like params, the running average of g * g.
    """

    mean_square: Any


def compensate_delay(
    strength: float | jax.Array,
    *,
    curvature: str = "squared",
    mean_square_decay: float | None = None,
    epsilon: float | jax.Array = 1e-10,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the estimated change of the gradient from the parameters read to those of the server.

    .. math:: \hat g = g + \lambda \, c(g) \odot (\theta_t - \theta_{read})

    c(g) estimates the diagonal of the Hessian. The update requires `params` and the extra argument `read_params`; the
    optional `origin` replaces the server's parameters.

    Args:
      strength: lambda >= 0; 0.04 is said to be that of DC-ASGD-c (not checked against the paper).
      curvature: 'squared', c(g) = g * g (the paper's form), or 'absolute', c(g) = |g| (in public copies of
        the authors' code, not in the code itself).
      mean_square_decay: rho in [0, 1) makes the strength adaptive (DC-ASGD-a), lambda / sqrt(m + epsilon) with
        m <- rho m + (1 - rho) g * g, the current gradient included; None keeps it constant (DC-ASGD-c).
      epsilon: > 0. The authors' code has 1e-7, which exceeds the squares of gradients below 3e-4, common in networks,
        and so disables the adaptation for them; 1e-10 only guards against division by zero.

    Raises:
      TypeError: parameters are complex (in init).

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
    _check.number("epsilon", epsilon, low=0.0, exclusive_low=True)

    def init_fn(params):
        _check.real("compensate_delay", params)
        return MeanSquareState(jax.tree.map(jnp.zeros_like, params)) if is_adaptive else optax.EmptyState()

    @with_promotion
    def update_fn(updates, state, params=None, *, read_params=None, origin=None, **extra):
        name, now = ("params", params) if origin is None else ("origin", origin)
        now = matching("compensate_delay", name, now, updates)
        read = matching("compensate_delay", "read_params", read_params, updates)

        def compensate(g, now, read, scale=1.0):
            long = wide(g)
            c = abs(long) if curvature == "absolute" else long * long
            return (long + strength * scale * c * (wide(now) - read)).astype(g.dtype)

        if not is_adaptive:
            return jax.tree.map(compensate, updates, now, read), state
        average = lambda m, g: rho * wide(m) + (1.0 - rho) * wide(g) * wide(g)
        mean_square = jax.tree.map(average, state.mean_square, updates)
        scale = jax.tree.map(lambda m: jax.lax.rsqrt(m + epsilon), mean_square)
        kept = jax.tree.map(lambda m, old: m.astype(old.dtype), mean_square, state.mean_square)
        return jax.tree.map(compensate, updates, now, read, scale), MeanSquareState(kept)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
