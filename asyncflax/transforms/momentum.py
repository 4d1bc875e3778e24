"""Explicit momentum, negative included: one velocity, or one per worker and their running sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check
from asyncflax._rows import fill_rows, put_row, take_row
from asyncflax.transforms._dtypes import with_promotion
from asyncflax.transforms._trees import worker_of


class MomentumState(NamedTuple):
    """State of `explicit_momentum`.

    Attributes:
      velocity: PyTree like params, u_t; initially zeros.
    """

    velocity: Any


class ScheduledMomentumState(NamedTuple):
    """State of `explicit_momentum` with a schedule.

    Attributes:
      velocity: PyTree like params, u_t.
      updates: int32 [], t.
    """

    velocity: Any
    updates: jax.Array


def explicit_momentum(
    momentum: float | jax.Array | Callable[[jax.Array], Any], *, nesterov: bool = False, accumulator_dtype: Any = None
) -> optax.GradientTransformation:
    r"""Heavy ball: u_{t+1} = mu_L u_t + update; the output is u_{t+1}.

    After a learning rate in the chain, the step size is inside the velocity, which is eq. 3 of Mitliagkas et al. 2016:

    .. math:: w_{t+1} - w_t = \mu_L (w_t - w_{t-1}) - \alpha_t \nabla f(w_t)

    Before it (as in `optax.sgd`), the step size is outside. The two differ when the learning rate changes.

    Args:
      momentum: mu_L in [-1, 1], a number, an array, or a schedule of the number of updates. With M asynchronous workers
        the implicit momentum is 1 - 1/M already, so the best explicit momentum falls with M, below zero.
      nesterov: whether to return mu_L u_{t+1} + update instead (the shifted-variable form of Nesterov's momentum).
      accumulator_dtype: the dtype of the velocity, by default that of the parameters; updates keep theirs.

    Raises:
      TypeError: parameters are complex and `accumulator_dtype` is real (in init).

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 3, and for negative momentum section 4 and Figure 8 of
    the Allerton version.

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
    nesterov = _check.boolean("nesterov", nesterov)
    _check_dtype(accumulator_dtype)
    is_scheduled = callable(momentum)
    if not is_scheduled:
        _check.momentum(momentum)

    def init_fn(params):
        velocity = _zeros(params, accumulator_dtype)
        return ScheduledMomentumState(velocity, jnp.zeros((), jnp.int32)) if is_scheduled else MomentumState(velocity)

    @with_promotion
    def update_fn(updates, state, params=None):
        mu = momentum(state.updates) if callable(momentum) else momentum
        velocity = _followed(mu, state.velocity, updates)
        out = _followed(mu, velocity, updates) if nesterov else velocity
        new = ScheduledMomentumState(velocity, state.updates + 1) if is_scheduled else MomentumState(velocity)
        return _put_out(out, updates, accumulator_dtype), new

    return optax.GradientTransformation(init_fn, update_fn)


def _check_dtype(dtype: Any) -> None:
    """Raises unless the value is None or a floating or complex dtype."""
    try:
        found = None if dtype is None else jnp.dtype(dtype)
    except TypeError:
        raise TypeError(f"accumulator_dtype must be a dtype such as jnp.float32, got {_check.shown(dtype)}.") from None
    if found is not None and not jnp.issubdtype(found, jnp.inexact):
        raise TypeError(f"accumulator_dtype must be floating or complex, got {found.name}.")


def _zeros(params: Any, dtype: Any) -> Any:
    if dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating):
        _check.real(f"accumulator_dtype={jnp.dtype(dtype).name}", params)
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params)


def _followed(momentum: Any, velocity: Any, updates: Any) -> Any:
    """mu u + update, in the dtype of u."""
    return jax.tree.map(lambda u, v: (momentum * v + u).astype(v.dtype), updates, velocity)


def _put_out(velocity: Any, updates: Any, accumulator_dtype: Any) -> Any:
    if accumulator_dtype is None:
        return velocity
    return jax.tree.map(lambda v, u: v.astype(u.dtype), velocity, updates)


class SummedMomentumState(NamedTuple):
    """State of `summed_momentum`.

    Attributes:
      workers: PyTree like params with a leading axis [num_workers], the velocity u^i of each worker.
      total: PyTree like params, the sum of all u^i.
    """

    workers: Any
    total: Any


def summed_momentum(
    momentum: float | jax.Array, num_workers: int, *, accumulator_dtype: Any = None
) -> optax.GradientTransformationExtraArgs:
    r"""Heavy ball with one velocity per worker and their sum, which look-aheads need.

    .. math:: u^i \leftarrow \mu u^i + update, \qquad u^0 \leftarrow u^0 + (u^i_{new} - u^i_{old})

    The output is u^i. An event reads and writes the row of one worker and the sum, whatever the number of workers. The
    sum accumulates rounding errors: less than 2e-4 of its size after 60,000 updates of 4 workers in float32 (a test).

    Args:
      momentum: mu in [-1, 1].
      num_workers: N >= 1.
      accumulator_dtype: see `explicit_momentum`.

    The update requires the extra argument `worker`.

    Source: DANA-Zero in Hakimi et al. 2019 (arXiv:1907.11612), whose v^0 this is.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> tx = asyncflax.transforms.summed_momentum(0.5, num_workers=2)
      >>> state = tx.init(jnp.zeros(()))
      >>> for worker in [0, 1, 0]:
      ...     update, state = tx.update(jnp.ones(()), state, worker=worker)
      ...     print(update, state.total)
      1.0 1.0
      1.0 2.0
      1.5 2.5
    """
    _check.momentum(momentum)
    num_workers = _check.integer("num_workers", num_workers, 1)
    _check_dtype(accumulator_dtype)

    def init_fn(params):
        zeros = _zeros(params, accumulator_dtype)
        return SummedMomentumState(fill_rows(zeros, num_workers, "num_workers"), zeros)

    @with_promotion
    def update_fn(updates, state, params=None, *, worker=None, **extra):
        worker = worker_of("summed_momentum", worker, num_workers)
        old = take_row(state.workers, worker)
        new = _followed(momentum, old, updates)
        total = jax.tree.map(lambda s, a, b: s + (a - b), state.total, new, old)
        state = SummedMomentumState(put_row(state.workers, worker, new), total)
        return _put_out(new, updates, accumulator_dtype), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
