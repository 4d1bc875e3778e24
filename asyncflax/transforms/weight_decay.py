"""Weight decay, in the stale gradient or at the server."""

from __future__ import annotations

import jax
import optax

from asyncflax import _check
from asyncflax.transforms._dtypes import with_promotion
from asyncflax.transforms._trees import matching


def decay_weights(weight_decay: float | jax.Array, *, at: str = "read") -> optax.GradientTransformationExtraArgs:
    """Adds weight_decay times the parameters to the gradient.

    Args:
      weight_decay: a number >= 0.
      at: 'read', the parameters at which the gradient was computed: the gradient of a loss with an L2 term, for which
        the theorems about asynchrony hold; or 'server', the parameters before the update, as in the code of SMEGA2,
        shifted momentum and MXNet's DCASGD.

    The update requires the extra argument `read_params` ('read') or `params` ('server').

    Source: derived: the theorems of Mitliagkas et al. 2016 (arXiv:1605.09774) hold with an L2 term in the stale
    gradient; decay at the server's parameters breaks eq. 8.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> tx = asyncflax.transforms.decay_weights(0.5)
      >>> tx.update(jnp.array(1.0), tx.init(None), jnp.array(9.0), read_params=jnp.array(4.0))[0]
      Array(3., dtype=float32)
    """
    _check.number("weight_decay", weight_decay, low=0.0)
    _check.choice("at", at, ("read", "server"))

    @with_promotion
    def update_fn(updates, state, params=None, *, read_params=None, **extra):
        name, weights = ("read_params", read_params) if at == "read" else ("params", params)
        weights = matching(f"decay_weights(at={at!r})", name, weights, updates)
        return jax.tree.map(lambda g, w: (g + weight_decay * w).astype(g.dtype), updates, weights), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)
