"""Staleness for other people's loops: gradients that arrive late."""

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
    """State of `delay_gradients`: arrays only, so that any checkpoint format takes it.

    Attributes:
      ring: the newest gradients; `ring.pushed` is the number of steps.
      clipped: int32 [], how many steps wanted a gradient that the ring had held, but holds no more.
      staleness: int32 [], how old the gradient of the last step was; -1 after the end of a trace.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> state = asyncflax.transforms.delay_gradients(asyncflax.staleness.uniform(0, 7)).init(jnp.ones(3))
      >>> state.ring.rows.shape, int(state.clipped), int(state.staleness)
      ((8, 3), 0, 0)
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
      staleness: an integer, a law of `asyncflax.staleness`, or a `Trace` (its staleness, step by step). Or one for each
        part of the parameters: a tree prefix of them, or with `labels` a mapping or a tuple from labels to staleness.
        The parts draw independently: the k-th follows from seed + k.
      labels: a tree prefix of labels, or a function of the parameters that makes one, as in `optax.partition`.
      max_staleness: how old a gradient can be kept: the memory is max_staleness + 1 gradients. By default what the
        integer or the trace needs, and for a law the smallest number beyond which it has at most 1e-6 of probability.
      beyond: what happens to a staleness beyond max_staleness. 'error' refuses such a law or trace now; 'clip' takes
        the oldest gradient instead, warns now of the mass that is cut off, and counts the steps in the state.
      before_start: what happens while tau_t > t. 'clamp' uses the first gradient; 'drop' makes a zero update.
      seed: what the draws of a law follow from.
      memory: of the gradients, 'device' or 'pinned_host', see `history.Ring`.

    Gradients are kept in the dtype and the sharding of the parameters. A traced integer (under `jax.vmap` or
    `optax.inject_hyperparams`) needs max_staleness. Steps after the end of a trace have no staleness: their updates are
    NaN, so that a longer loop cannot pass unnoticed.

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
        del params
        held = ring.push(state.ring, updates)
        turn = draws.turn(state.ring.pushed)
        updates = read_ring(held, turn.staleness)
        if before_start == "drop":
            updates = jax.tree.map(lambda u: jnp.where(turn.is_early, jnp.zeros_like(u), u), updates)
        return poison(updates, turn.is_over), DelayState(held, state.clipped + turn.is_lost, turn.recorded)

    return optax.GradientTransformation(init_fn, update_fn)


class WithDelayState(NamedTuple):
    """State of `with_delay`: arrays only beside the inner state.

    Attributes:
      ring: the newest pairs of gradients and of the parameters at which each was computed; `ring.pushed` is the number
        of steps.
      clipped: int32 [], how many steps wanted a pair that the ring had held, but holds no more.
      staleness: int32 [], how old the gradient of the last step was; -1 after the end of a trace.
      inner_state: of the inner transformation.

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> state = asyncflax.transforms.with_delay(3, optax.sgd(0.1)).init(jnp.ones(2))
      >>> gradients, params = state.ring.rows
      >>> gradients.shape, params.shape
      ((4, 2), (4, 2))
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
    r"""An optimizer whose gradients are stale and which is told so, for loops that know nothing of events.

    Loops such as Flax's `TrainState`, Keras or NumPyro call `update(gradients, state, params)` and no more. Step t
    gives the inner transformation the gradient of step t - tau_t, as `delay_gradients` does, and the event as extra
    arguments, so that a method for asynchronous training, such as `compensate_delay`, works in such a loop:

    - `staleness`, int32 [], the one in effect;
    - `read_params`, the parameters at which that gradient was computed;
    - `worker`, int32 [], where something says who delivers: a `Trace`, or a constant delay, whose tau + 1 workers take
      turns (t mod (tau + 1)). A random law names no workers.

    The loop still computes at its present parameters: these are delayed gradients (eq. 4). Eq. 6, fresh samples at old
    parameters, needs a loop that reads them with `read_stale_params`.

    Args:
      staleness: an integer, a law of `asyncflax.staleness`, or a `Trace` (its staleness, step by step).
      inner: the optimizer, any Optax transformation.
      max_staleness, beyond, seed, memory: as in `delay_gradients`; kept are max_staleness + 1 gradients and as many
        versions of the parameters.
      before_start: what happens while tau_t > t. 'clamp' uses the first gradient; with 'drop' the step does nothing: a
        zero update, and the inner state stays.

    The update needs `params`. After the end of a trace its updates are NaN.

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
        return poison(updates, turn.is_over), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
