"""Methods without the engine: `update` and `view`, compiled once, in a Python loop over the events of a trace.

The gradients are those of the NumPy oracle, and versions are kept for ever. So a rule is compared with its twin at the
cost of one small program, whatever the traces and the hyperparameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import problems
from jax.flatten_util import ravel_pytree
from problems import SOFTMAX, SOFTMAX_PARAMS

import asyncflax

_, _unravel = ravel_pytree(SOFTMAX_PARAMS)


class Replay(NamedTuple):
    """What a loop leaves, flat and in float64.

    Attributes:
      theta: [d], the server's parameters at the end.
      losses: [T], at what the workers had read.
      state: of the method, at the end.
    """

    theta: np.ndarray
    losses: np.ndarray
    state: Any


@jax.jit
def _serve(algorithm: asyncflax.AsyncAlgorithm, grads: Any, state: Any, theta: jax.Array, event: Any) -> Any:
    event = {**event, "read_params": _unravel(event["read_params"])}
    updates, state = algorithm.update(_unravel(grads), state, _unravel(theta), **event)
    return theta + ravel_pytree(updates)[0], state


@jax.jit
def _view(algorithm: asyncflax.AsyncAlgorithm, theta: jax.Array, state: Any, worker: Any) -> jax.Array:
    return ravel_pytree(algorithm.view(_unravel(theta), state, worker=worker))[0]


def replay(algorithm: asyncflax.AsyncAlgorithm, trace: asyncflax.Trace, batches: np.ndarray) -> Replay:
    """Runs the events in order on the convex problem of `problems`."""
    workers, versions = trace.worker.tolist(), trace.read_version.tolist()
    readers: list[set[int]] = [set() for _ in range(len(workers) + 1)]
    for worker, version in zip(workers, versions, strict=True):
        readers[version].add(worker)
    theta, state = jnp.asarray(problems.flat(SOFTMAX_PARAMS)), jax.jit(algorithm.init)(SOFTMAX_PARAMS)
    views, losses = [np.asarray(_view(algorithm, theta, state, None))], []
    for t, (worker, version) in enumerate(zip(workers, versions, strict=True)):
        read = views[version]
        loss, g = SOFTMAX.loss_and_gradient(read, batches[t])
        losses.append(loss)
        event = {"worker": worker, "staleness": t - version, "read_params": read, "value": loss}
        theta, state = _serve(algorithm, g, state, theta, jax.tree.map(jnp.asarray, event))
        downloads = readers[t + 1] or {worker}
        reader = jnp.asarray(min(downloads)) if len(downloads) == 1 else None
        views.append(np.asarray(_view(algorithm, theta, state, reader)))
    return Replay(np.asarray(theta), np.array(losses), state)
