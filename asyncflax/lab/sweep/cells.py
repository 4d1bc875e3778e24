"""Many training runs as one program: two nested vmaps, over environments and over hyperparameters.

An environment is a trace, a data order and initial weights. Within an environment all cells see the same
batches, so comparisons are paired, and what does not depend on the weights (loading, augmentation, the windows of the
first convolution) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from asyncflax.base import AsyncAlgorithm
from asyncflax.engine.execute import RunOutput, RunState, init_run, run_chunk
from asyncflax.engine.plan import Chunk, Plan

Make = Callable[[Any], AsyncAlgorithm]


def begin(make: Make, plan: Plan, hypers: Any, keys: jax.Array, params: Any, model_state: Any = None) -> RunState:
    """The states [e, h, ...] before the first event; key and event, which cells share, are None.

    Args:
      make: the function from hyperparameters to a method.
      plan: the plan of any environment; all have the same number of slots.
      hypers: the hyperparameters, a PyTree [e, h, ...].
      keys, params, model_state: PyTrees [e, ...], one row per environment.
    """

    def cell(hyper, key, params, model_state):
        state = init_run(make(hyper), params, plan, key=key, model_state=model_state)
        return state._replace(key=None, event=None)

    over_hypers = jax.vmap(cell, in_axes=(0, None, None, None))
    return jax.vmap(over_hypers)(hypers, keys, params, model_state)


def advance(
    make: Make, gradient_fn: Any, hypers: Any, keys: jax.Array, states: RunState, chunk: Chunk, batches: Any
) -> tuple[RunState, RunOutput]:
    """Runs one chunk of all cells; returns their states and outputs [e, h, ...].

    Args:
      make, hypers, keys: see `begin`.
      gradient_fn: see `run_chunk`.
      states: the states [e, h, ...].
      chunk: the chunks of all environments, from `Chunk.stack`.
      batches: the batches [e, E, ...].
    """

    def cell(hyper, key, state, chunk, batches):
        state = state._replace(key=key, event=chunk.first_event)
        state, out = run_chunk(make(hyper), gradient_fn, state, chunk, batches)
        return state._replace(key=None, event=None), out

    over_hypers = jax.vmap(cell, in_axes=(0, None, 0, None, None))
    return jax.vmap(over_hypers, in_axes=(0, 0, 0, chunk.in_axes, 0))(hypers, keys, states, chunk, batches)
