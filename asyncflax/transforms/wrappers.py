"""One optimizer state per worker."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from asyncflax import _check
from asyncflax._rows import fill_rows, put_row, take_row
from asyncflax.base import as_optax
from asyncflax.transforms._trees import worker_of


class PerWorkerState(NamedTuple):
    """State of `per_worker`.

    Attributes:
      workers: the inner state with a leading axis [num_workers].
    """

    workers: Any


def per_worker(tx: optax.GradientTransformation, num_workers: int) -> optax.GradientTransformationExtraArgs:
    """Keeps one state of `tx` per worker; an event reads and writes that of the worker that delivers.

    A schedule inside `tx` counts the updates of its worker; a learning rate belongs outside. An event costs one row,
    whatever the number of workers. A traced worker id beyond `num_workers` is not detected here (`asyncflax.run`
    rejects such a trace).

    Args:
      tx: any transformation.
      num_workers: the number of workers, at least 1.

    The update needs the extra argument `worker`.

    Source: the per-worker momenta of Multi-ASGD in Hakimi et al. 2019 (arXiv:1907.11612).

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> tx = asyncflax.transforms.per_worker(optax.trace(0.5), num_workers=2)
      >>> state = tx.init(jnp.zeros(()))
      >>> for worker in [0, 1, 0]:
      ...     update, state = tx.update(jnp.ones(()), state, worker=worker)
      ...     print(update)
      1.0
      1.0
      1.5
    """
    num_workers = _check.integer("num_workers", num_workers, 1)
    inner = optax.with_extra_args_support(as_optax("tx", tx))

    def init_fn(params):
        return PerWorkerState(fill_rows(inner.init(params), num_workers, "num_workers"))

    def update_fn(updates, state, params=None, *, worker=None, **extra):
        worker = worker_of("per_worker", worker, num_workers)
        own = take_row(state.workers, worker)
        updates, own = inner.update(updates, own, params, worker=worker, **extra)
        return updates, PerWorkerState(put_row(state.workers, worker, own))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
