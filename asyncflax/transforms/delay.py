"""Staleness for your own loop: delayed gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax.history import Ring, RingState, read_ring
from asyncflax.transforms._draws import Staleness, draws_from, for_each_part, is_one, poison
from asyncflax.transforms._trees import given


class DelayState(NamedTuple):
    """State of `delay_gradients`.

    Attributes:
      ring: the newest gradients; `ring.pushed` is the number of steps.
      clipped: int32 [], the number of steps whose gradient was no longer in the ring.
      staleness: int32 [], the staleness of the last step; -1 after the end of a trace.
    """

    ring: RingState
    clipped: jax.Array
    staleness: jax.Array


def delay_gradients(
    staleness: Staleness | Any,
    *,
    labels: Any = None,
    max_staleness: int | None = None,
    beyond: str = "error",
    before_start: str = "clamp",
    seed: int = 0,
    memory: str = "device",
) -> optax.GradientTransformation:
    r"""Replaces the gradient of step t by that of step t - tau_t: asynchrony in one line of any Optax chain.

    Place it first and change nothing else:

    .. math:: w_{t+1} = w_t - \alpha \, g_{t - \tau_t}, \qquad g_s = \nabla f(w_s; z_s)

    *How often a gradient is used.* A constant delay uses each gradient once. A distribution draws tau_t independently,
    so that a gradient may be used never, once or several times, like versions in eq. 5. The trace of a queue uses each
    at most once, except those of version 0, at which all workers start: the exactly-once form.

    *The difference from eq. 6.* Eq. 6 evaluates a fresh sample at old parameters; this replays an old gradient with its
    old sample. The mean dynamics on quadratics agree. The noise does not: reused samples are correlated, and the
    stationary variance is larger. For eq. 6 itself, use `store_versions`, `history.Ring` or `asyncflax.run`.

    Args:
      before_start: while tau_t > t, 'clamp' uses the first gradient, 'drop' returns a zero update.
      staleness, labels, max_staleness, beyond, seed, memory: see `asyncflax.transforms`.

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
      >>> stages = {"embed": 0, "blocks": 1, "head": 2}  # a pipeline of three
      >>> tx = asyncflax.transforms.delay_gradients(asyncflax.staleness.pipeline(3), labels=stages)
    """
    _check.choice("before_start", before_start, ("clamp", "drop"))
    options: dict[str, Any] = {"max_staleness": max_staleness, "beyond": beyond, "memory": memory}
    if labels is not None or not is_one(staleness):
        part = functools.partial(delay_gradients, before_start=before_start, **options)
        return for_each_part(part, staleness, labels, seed)
    draws = draws_from(staleness, max_staleness, beyond, seed)
    ring = Ring(draws.maximum + 1, memory)

    def init_fn(params):
        return DelayState(ring.empty(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update_fn(updates, state, params=None):
        held = ring.push(state.ring, updates)
        turn = draws.turn(state.ring.pushed)
        updates = read_ring(held, turn.staleness)
        if before_start == "drop":
            updates = jax.tree.map(lambda u: jnp.where(turn.is_early, jnp.zeros_like(u), u), updates)
        return poison(updates, turn.recorded < 0), DelayState(held, state.clipped + turn.is_lost, turn.recorded)

    return optax.GradientTransformation(init_fn, update_fn)


class WithDelayState(NamedTuple):
    """State of `with_delay`.

    Attributes:
      ring: the newest pairs of gradients and the parameters at which they were computed.
      clipped, staleness: as in `DelayState`.
      inner_state: the state of the inner transformation.
    """

    ring: RingState
    clipped: jax.Array
    staleness: jax.Array
    inner_state: Any


def with_delay(
    staleness: Staleness,
    inner: optax.GradientTransformation,
    *,
    max_staleness: int | None = None,
    beyond: str = "error",
    before_start: str = "clamp",
    seed: int = 0,
    memory: str = "device",
) -> optax.GradientTransformationExtraArgs:
    r"""Gives an optimizer stale gradients and the extra arguments of an event, for loops without events.

    Loops such as Flax's `TrainState`, Keras or NumPyro call `update(gradients, state, params)` only. At step t the
    inner transformation receives the gradient of step t - tau_t, as with `delay_gradients`, and the extra arguments on
    which methods of asynchronous training such as `compensate_delay` depend:

    - `staleness`, int32 [], as used;
    - `read_params`, the parameters at which that gradient was computed;
    - `worker`, int32 [], under a `Trace`, or a constant delay, whose tau + 1 workers take turns (t mod (tau + 1)). A
      random distribution has no workers.

    The loop still computes at its current parameters: these are delayed gradients (eq. 4). Eq. 6, fresh samples at old
    parameters, needs a loop that reads them with `read_stale_params`.

    Args:
      inner: the optimizer, any Optax transformation.
      before_start: while tau_t > t, 'clamp' uses the first gradient; 'drop' returns a zero update and keeps the inner
        state.
      staleness, max_staleness, beyond, seed, memory: see `asyncflax.transforms`; the memory has as many versions of the
        parameters as gradients.

    The update requires `params`.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 4.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp, optax
      >>> compensated = optax.chain(asyncflax.transforms.compensate_delay(0.1), optax.sgd(0.25))
      >>> tx = asyncflax.transforms.with_delay(1, compensated)
      >>> params = jnp.ones(())
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     updates, state = tx.update(jax.grad(lambda w: w**2)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{params:.2f}")
      0.50
      0.05
      -0.19
    """
    _check.choice("before_start", before_start, ("clamp", "drop"))
    _check.instance("inner", inner, optax.GradientTransformation, "an optax.GradientTransformation")
    draws = draws_from(staleness, max_staleness, beyond, seed)
    ring = Ring(draws.maximum + 1, memory)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        zero: Callable[[], jax.Array] = lambda: jnp.zeros((), jnp.int32)
        return WithDelayState(ring.empty((params, params)), zero(), zero(), inner.init(params))

    def update_fn(updates, state, params=None, **extra):
        given("with_delay", "params", params)
        step = state.ring.pushed
        held = ring.push(state.ring, (updates, params))
        turn = draws.turn(step)
        updates, read_params = read_ring(held, turn.staleness)
        event = {"staleness": turn.staleness, "read_params": read_params}
        if draws.worker is not None:
            event["worker"] = draws.worker(step)
        updates, inner_state = inner.update(updates, state.inner_state, params, **{**extra, **event})
        if before_start == "drop":
            keep = lambda old, new: jnp.where(turn.is_early, old, new)
            updates = jax.tree.map(lambda u: keep(jnp.zeros_like(u), u), updates)
            inner_state = jax.tree.map(keep, state.inner_state, inner_state)
        state = WithDelayState(held, state.clipped + turn.is_lost, turn.recorded, inner_state)
        return poison(updates, turn.recorded < 0), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
