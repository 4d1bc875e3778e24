"""Staleness for other people's loops: gradients that arrive late."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.history import Ring, RingState, read_ring
from asyncflax.transforms._draws import Staleness, draws_from, poison


class DelayState(NamedTuple):
    """State of `delay_gradients`: arrays only, so that any checkpoint format takes it.

    Attributes:
      ring: the newest gradients; `ring.pushed` is the number of steps.
      clipped: int32 [], how many steps wanted a gradient that the ring had held, but holds no more.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> state = asyncflax.transforms.delay_gradients(asyncflax.staleness.uniform(0, 7)).init(jnp.ones(3))
      >>> state.ring.rows.shape, int(state.clipped)
      ((8, 3), 0)
    """

    ring: RingState
    clipped: jax.Array


def delay_gradients(
    staleness: Staleness,
    *,
    max_staleness: int | None = None,
    beyond: str = "error",
    before_start: str = "clamp",
    seed: int = 0,
) -> optax.GradientTransformation:
    r"""Replaces the gradient of step t by that of step t - tau_t: asynchrony as one line in any Optax chain.

    Put it first and change nothing else:

    .. math:: w_{t+1} = w_t - \alpha \, g_{t - \tau_t}, \qquad g_s = \nabla f(w_s; z_s)

    *Which gradients are used.* A constant delay uses each gradient once. A law draws tau_t independently, so that a
    gradient may be used never, once or often, as eq. 5 does with versions. A queue's trace uses each at most once,
    except those of version 0, on which all workers start: that is the exactly-once form.

    *What a random law shares with eq. 6 and what not.* Eq. 6 evaluates a fresh sample at old parameters; this replays
    an old gradient with its old sample. The mean dynamics on quadratics agree. The noise does not: reused samples are
    correlated, and the stationary variance is larger. For eq. 6 itself read old parameters: `store_versions`,
    `history.Ring`, or `asyncflax.run`.

    Args:
      staleness: an integer, a law of `asyncflax.staleness`, or a `Trace` (its staleness, step by step).
      max_staleness: how old a gradient can be kept: the memory is max_staleness + 1 gradients. By default what the
        integer or the trace needs, and for a law the smallest number beyond which it has at most 1e-6 of probability.
      beyond: what happens to a staleness beyond max_staleness. 'error' refuses such a law or trace now; 'clip' takes
        the oldest gradient instead, warns now of the mass that is cut off, and counts the steps in the state.
      before_start: what happens while tau_t > t. 'clamp' uses the first gradient; 'drop' makes a zero update.
      seed: what the draws of a law follow from.

    Gradients are kept in the dtype of the parameters. A traced integer (under `jax.vmap` or `optax.inject_hyperparams`)
    needs max_staleness. Steps after the end of a trace have no staleness: their updates are NaN, so that a longer loop
    cannot pass unnoticed.

    Raises:
      ValueError: see above, and for a negative staleness.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 4 to 6.

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> tx = optax.chain(asyncflax.transforms.delay_gradients(2), optax.sgd(1.0))
      >>> state = tx.init(jnp.zeros(()))
      >>> for gradient in [1.0, 2.0, 3.0, 4.0]:
      ...     update, state = tx.update(jnp.array(gradient), state)
      ...     print(update)
      -1.0
      -1.0
      -1.0
      -2.0
    """
    _check.choice("before_start", before_start, ("clamp", "drop"))
    draws = draws_from(staleness, max_staleness, beyond, seed)
    ring = Ring(draws.maximum + 1)

    def init_fn(params):
        return DelayState(ring.empty(params), jnp.zeros((), jnp.int32))

    def update_fn(updates, state, params=None):
        del params
        step = state.ring.pushed
        held = ring.push(state.ring, updates)
        wanted = draws.at(step)
        updates = read_ring(held, jnp.minimum(wanted, draws.maximum))
        if before_start == "drop":
            updates = jax.tree.map(lambda u: jnp.where(wanted > step, jnp.zeros_like(u), u), updates)
        lost = jnp.minimum(wanted, step) > draws.maximum
        clipped = state.clipped + lost.astype(jnp.int32)
        return poison(updates, draws.is_over(step)), DelayState(held, clipped)

    return optax.GradientTransformation(init_fn, update_fn)
