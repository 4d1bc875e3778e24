"""Local SGD: workers take several local steps before they deliver.

For the server, a worker with H local steps is another gradient function, which returns a pseudo-gradient: initial minus
final parameters. Any method can be the outer optimizer; `algorithms.delayed_nesterov` was designed for it.

Source: Liu et al. 2024, Asynchronous Local-SGD Training for Language Modeling (arXiv:2401.09135).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asyncflax import _check
from asyncflax.base import as_optax, as_partial
from asyncflax.gradients import GradientResult, ModelUpdate, call_gradient_fn

__all__ = ["local_sgd", "steps_by_speed"]


def local_sgd(
    gradient_fn: Callable[..., Any], optimizer: optax.GradientTransformation, steps: int | Sequence[int]
) -> Callable[..., GradientResult]:
    r"""The gradient function of a worker that takes H local steps.

    .. math:: x_0 = \theta_{read}, \qquad x_{h+1} = x_h - \text{optimizer}(\nabla f(x_h; z_h)), \qquad
        \text{delivers } x_0 - x_H

    An outer learning rate of 1 averages the workers. The state of the local optimizer is reset at every event. Local
    step h of event t has the key fold_in(fold_in(key, t), h). The loss is the mean over the steps; auxiliary
    outputs are those of the first. Updates of the model state (batch statistics) are composed into one.

    Args:
      gradient_fn: a gradient function as described in `gradients`, for one step.
      optimizer: the local optimizer, for example `optax.sgd(0.1)`.
      steps: H >= 1, or one number per worker (`steps_by_speed`); a run with more workers raises an error, or delivers
        NaN for the others if the trace is traced by JAX. The batch of an event is a PyTree with leading axis
        [largest H]; a worker with fewer steps ignores the rest.

    Raises:
      TypeError: `gradient_fn` is not callable, or `optimizer` is not an Optax transformation.
      ValueError: `steps` is empty or below 1. When called: the batch has the wrong number of rows, `steps` has
        no entry for the worker, or the decay of a model update is not a single number.

    Source: Liu et al. 2024 (arXiv:2401.09135).

    Example: 4 workers, 5 local steps each.
      >>> import asyncflax, jax, jax.numpy as jnp, optax
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=4, num_updates=40, service_time=q.gamma(0.1))
      >>> batches = jax.random.normal(jax.random.key(0), (40, 5, 8)) + 3.0  # events, local steps, examples
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.mean((w - batch) ** 2))
      >>> worker = asyncflax.local.local_sgd(gradient_fn, optax.sgd(0.05), steps=5)
      >>> outer = asyncflax.algorithms.delayed_nesterov(0.7, 0.5, num_workers=4)
      >>> result = asyncflax.run(outer, worker, jnp.zeros(()), trace, batches)
      >>> bool(abs(result.params - 3.0) < 0.5)
      True
    """
    _check.function("gradient_fn", gradient_fn, _check.GRADIENT)
    optimizer = as_optax("optimizer", optimizer)
    by_worker = isinstance(steps, Iterable) and getattr(steps, "ndim", 1) > 0
    counts = tuple(_check.integers("steps", steps, 1)) if by_worker else (_check.integer("steps", steps, 1),)
    if not counts:
        raise ValueError(f"steps must have one number per worker, got {steps!r}.")
    return _LocalSgd(as_partial(gradient_fn), optimizer, counts, by_worker)


def steps_by_speed(speeds: Sequence[float], steps: int) -> list[int]:
    """Local steps in proportion to each worker's speed, so that deliveries take about the same time.

    H_w = floor(H v_w / max v), at least 1 (DyLU, dynamic local updates).

    Args:
      speeds: v > 0 of each worker, in steps per second.
      steps: H >= 1, for the fastest worker.

    Source: Liu et al. 2024 (arXiv:2401.09135); the rule as in jdinalt/forgather.

    Example: the service time of a delivery is H_w / v_w.
      >>> import asyncflax
      >>> speeds = [4.0, 2.0, 1.0, 1.0]
      >>> steps = asyncflax.local.steps_by_speed(speeds, 10)
      >>> steps
      [10, 5, 2, 2]
      >>> asyncflax.queues.gamma(0.1, mean=[h / v for h, v in zip(steps, speeds)])
      gamma(cv=0.1, mean=[2.5, 2.5, 2.0, 2.0])
    """
    _check.number("speeds", speeds, low=0.0, exclusive_low=True)
    steps = _check.integer("steps", steps, 1)
    values = np.asarray(speeds, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"speeds must have one number per worker, got {speeds!r}.")
    # Quotients such as 0.3 / 0.1 * 10 should be integers.
    return np.maximum(np.floor(values / values.max() * steps + 1e-9), 1).astype(int).tolist()


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["gradient_fn"], meta_fields=["optimizer", "steps", "by_worker"]
)
@dataclasses.dataclass(frozen=True)
class _LocalSgd:
    """The gradient function, a PyTree with the leaves of the inner one."""

    gradient_fn: Callable[..., Any]
    optimizer: optax.GradientTransformation
    steps: tuple[int, ...]
    by_worker: bool

    @property
    def num_workers(self) -> int | None:
        """The number of workers, checked by the engine; None allows any."""
        return len(self.steps) if self.by_worker else None

    def __call__(self, read_params, batch, *, key, event, worker, model_state) -> GradientResult:
        _check_rows(batch, max(self.steps))
        count, known = self._count(worker)
        context = {"event": event, "worker": worker, "model_state": model_state}

        def gradient(h, params) -> GradientResult:
            rows = jax.tree.map(lambda x: jnp.asarray(x)[h], batch)
            return call_gradient_fn(self.gradient_fn, params, rows, key=jax.random.fold_in(key, h), **context)

        def moved(params, state, grads):
            updates, state = self.optimizer.update(grads, state, params)
            return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates), state

        def step(h, carry):
            params, state, loss, change = carry
            result = gradient(h, params)
            return *moved(params, state, result.grads), loss + result.loss, _followed_by(change, result.model_update)

        params = jax.tree.map(jnp.asarray, read_params)
        first = gradient(0, params)  # outside of the loop, for its auxiliary outputs
        carry = (*moved(params, self.optimizer.init(params), first.grads), first.loss, _as_arrays(first.model_update))
        params, _, loss, change = jax.lax.fori_loop(1, count, step, carry)
        delivered = jax.tree.map(lambda read, end: known(read - end), read_params, params)
        return GradientResult(known((loss / count).astype(first.loss.dtype)), delivered, first.aux, change)

    def _count(self, worker) -> tuple[Any, Callable[[jax.Array], jax.Array]]:
        """H of the worker, and a function that maps numbers to NaN if the worker has none."""
        if not self.by_worker:
            return self.steps[0], lambda x: x
        if not _check.is_traced(worker) and worker >= len(self.steps):
            raise ValueError(f"steps must have one number per worker, got {list(self.steps)} and worker={worker}.")
        there = jnp.asarray(worker) < len(self.steps)
        return jnp.asarray(self.steps)[worker], lambda x: jnp.where(there, x, jnp.nan).astype(x.dtype)


def _check_rows(batch: Any, count: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if jnp.shape(leaf)[:1] != (count,):
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)} must have one row for each of the {count} local steps of an event, "
                f"got shape {jnp.shape(leaf)}."
            )


def _as_arrays(update: ModelUpdate | None) -> ModelUpdate | None:
    """The update of the first step, with the dtypes of the later ones."""
    if update is None:
        return None
    if jnp.ndim(update.decay) != 0 or not jax.tree_util.treedef_is_leaf(jax.tree.structure(update.decay)):
        raise ValueError(f"local_sgd needs model updates with a single decay, got {update.decay}.")
    return ModelUpdate(jnp.asarray(update.decay, jnp.result_type(float)), jax.tree.map(jnp.asarray, update.increment))


def _followed_by(first: ModelUpdate | None, second: ModelUpdate | None) -> ModelUpdate | None:
    """Composes two updates: d_2 (d_1 s + i_1) + i_2; counters are added."""
    if first is None or second is None:
        return None

    def both(i, j):
        counter = jnp.issubdtype(jnp.asarray(i).dtype, jnp.integer)
        return i + j if counter else (second.decay * i + j).astype(i.dtype)

    return ModelUpdate(first.decay * second.decay, jax.tree.map(both, first.increment, second.increment))
