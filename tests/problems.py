"""Small problems, traces and the table of methods that the suites share."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import reference
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import asyncflax
from asyncflax import algorithms, queues

WORKERS = 4
NUM_EVENTS = 24

_rng = np.random.default_rng(0)
FEATURES = _rng.normal(size=(32, 5))
LABELS = _rng.integers(3, size=32)


# --- A convex problem with a gradient written out in NumPy -----------------------------------------------------------

SOFTMAX_PARAMS = (_rng.normal(size=(5, 3)), _rng.normal(size=3))  # weights, biases
SOFTMAX = reference.Softmax(FEATURES, LABELS, 3)


def softmax_loss(params, rows):
    """Mean cross-entropy of softmax regression; rows are indices into the data."""
    weights, biases = params
    logits = jnp.asarray(FEATURES)[rows] @ weights + biases[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(LABELS)[rows]).mean()


def batch_rows(num_events: int = NUM_EVENTS, seed: int = 1) -> np.ndarray:
    """int [T, 4]: which rows of the data each event computes on."""
    return np.random.default_rng(seed).integers(32, size=(num_events, 4))


# --- A model with BatchNorm, dropout, and model state that the forward pass reads -------------------------------------

NORM_PARAMS = (_rng.normal(size=(5, 4)), _rng.normal(size=(4, 3)))
NORM_STATE = {"mean": jnp.zeros(4), "square": jnp.ones(4)}


def norm_loss(params, rows, *, key, model_state):
    """Batch-normalised two-layer network with dropout; a weak penalty reads the (stale) running mean."""
    hidden, out = params
    x = jnp.asarray(FEATURES)[rows] @ hidden
    mean, square = x.mean(axis=0), (x**2).mean(axis=0)
    penalty = 0.1 * jnp.sum((mean - model_state["mean"]) ** 2)
    x = (x - mean[None]) / jnp.sqrt(square - mean**2 + 1e-3)[None]
    x = jnp.tanh(x) * jax.random.bernoulli(key, 0.7, x.shape)
    loss = optax.softmax_cross_entropy_with_integer_labels(x @ out, jnp.asarray(LABELS)[rows]).mean()
    update = asyncflax.ModelUpdate(0.9, {"mean": 0.1 * mean, "square": 0.1 * square})
    return loss + penalty, ({"keep": x[0, 0]}, update)


norm_gradient = asyncflax.from_loss(norm_loss, has_aux=True, has_model_update=True)


# --- The methods ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Method:
    """A method, its twin in NumPy, and what the twin's `reference.Row` says of both."""

    name: str
    factory: Callable[..., asyncflax.AsyncAlgorithm]
    twin: Callable[..., reference.Server]
    options: tuple[tuple[str, Any], ...] = ()
    textbook: str | None = "heavy_ball"
    copies: int | None = None
    worker_copies: int = 0

    @property
    def parameters(self) -> frozenset[str]:
        """What the factory takes."""
        return frozenset(inspect.signature(self.factory).parameters)

    @property
    def has_momentum(self) -> bool:
        """Whether there is a coefficient to choose."""
        return "momentum" in self.parameters

    def make(self, learning_rate: Any = 0.3, momentum: Any = 0.6, num_workers: int = WORKERS):
        """The algorithm."""
        return self.factory(**self.arguments(learning_rate, momentum, num_workers))

    def make_twin(self, params, learning_rate: Any = 0.3, momentum: float = 0.6, num_workers: int = WORKERS):
        """The same method as the oracle has it."""
        arguments = self.arguments(learning_rate, momentum, num_workers)
        if "leaf_sizes" in inspect.signature(self.twin).parameters:  # the oracle has flat vectors
            arguments["leaf_sizes"] = [np.size(leaf) for leaf in jax.tree.leaves(params)]
        return self.twin(flat(params), **arguments)

    def arguments(self, learning_rate: Any, momentum: Any, num_workers: int) -> dict[str, Any]:
        """What the factory is called with: what it takes of these, and the options of the row."""
        given = {"learning_rate": learning_rate, "momentum": momentum, "num_workers": num_workers}
        return {name: value for name, value in given.items() if name in self.parameters} | dict(self.options)


# The rows of all twins whose method there is; tests/algorithms/test_identities.py says what is missing.
METHODS = {
    row.name: Method(
        row.name,
        getattr(algorithms, row.method),
        twin,
        tuple(row.options.items()),
        row.textbook,
        row.copies,
        row.worker_copies,
    )
    for row, twin in reference.ROWS
    if row.method in algorithms.__all__
}
# One row for each name in asyncflax.algorithms, for suites that take long.
MAIN_METHODS = {name: METHODS[name] for name in algorithms.__all__ if name in METHODS}


# What an engine can get wrong about a method: one of each kind, for suites that compile a whole run.
KINDS = {
    "asgd": "stateless",
    "multi_asgd": "a state for each worker",
    "nag_asgd": "a view",
    "dana_dc": "a view and a compensation",
    "ormo": "an ordered state",
    "gap_aware_asgd": "norms",
}


# --- Traces ---------------------------------------------------------------------------------------------------------


def some_traces(num_events: int = NUM_EVENTS) -> dict[str, asyncflax.Trace]:
    """A trace of each kind, for WORKERS workers."""
    queue = {"num_workers": WORKERS, "num_updates": num_events, "seed": 3}
    return {
        "exponential": queues.simulate(service_time=queues.exponential(), **queue),
        "round_robin": queues.simulate(service_time=queues.deterministic(), **queue),
        "restart": queues.simulate(service_time=queues.gamma(0.7), max_staleness=3, **queue),
        "barrier": queues.barrier(service_time=queues.exponential(), **queue),
        "geometric": asyncflax.staleness.geometric(3.0).trace(num_updates=num_events, seed=3),
        "assigned": asyncflax.staleness.uniform(0, 6).trace(num_updates=num_events, seed=3, num_workers=WORKERS),
    }


@st.composite
def traces(draw, num_events: int = NUM_EVENTS) -> asyncflax.Trace:
    """Arbitrary traces: any worker may read any version (a queue's own version in half of the cases)."""
    worker = draw(st.lists(st.integers(0, WORKERS - 1), min_size=num_events, max_size=num_events))
    if draw(st.booleans()):
        last = [0] * WORKERS
        read_version = []
        for t, i in enumerate(worker):
            read_version.append(last[i])
            last[i] = t + 1
    else:
        delays = draw(st.lists(st.integers(0, 9), min_size=num_events, max_size=num_events))
        read_version = [max(t - delay, 0) for t, delay in enumerate(delays)]
    return asyncflax.Trace(worker=worker, read_version=read_version, num_workers=WORKERS)


def of_one_shape(plan: asyncflax.Plan, length: int = NUM_EVENTS) -> asyncflax.Plan:
    """The plan with room for `length` events, rounds and slots, so that many traces share a compiled program."""
    chunks = plan.chunks

    def pad(x):
        return np.pad(x, ((0, 0), (0, length - x.shape[1]))) if x.ndim == 2 else x

    chunks = dataclasses.replace(
        jax.tree.map(pad, chunks), num_slots=length, padded=True, exclusive=chunks.exclusive and plan.num_workers > 1
    )
    return dataclasses.replace(plan, chunks=chunks)


# --- Both sides -----------------------------------------------------------------------------------------------------


def run_with_plan(algorithm, gradient_fn, params, plan, batches, **start):
    """`asyncflax.run` for a plan of one chunk: the final state and the outputs."""
    state = asyncflax.init_run(algorithm, params, plan, **start)
    return asyncflax.run_chunk(algorithm, gradient_fn, state, plan[0], batches)


def softmax_twin(row: Method, trace: asyncflax.Trace, batches: np.ndarray, **hyper) -> reference.Result:
    """The oracle on the convex problem."""
    server = row.make_twin(SOFTMAX_PARAMS, **hyper)

    def gradient(t, worker, theta_read, model_state):
        del worker, model_state
        return *SOFTMAX.loss_and_gradient(theta_read, batches[t]), None

    return reference.simulate(server, gradient, trace.worker.tolist(), trace.read_version.tolist())


@jax.jit
def _norm_event(theta, rows, event, key, statistics):
    _, unravel = ravel_pytree(NORM_PARAMS)
    _, unravel_state = ravel_pytree(NORM_STATE)
    result = norm_gradient(
        unravel(theta), rows, key=jax.random.fold_in(key, event), model_state=unravel_state(statistics)
    )
    return result.loss, ravel_pytree(result.grads)[0], ravel_pytree(result.model_update.increment)[0]


def norm_twin(row: Method, trace: asyncflax.Trace, batches: np.ndarray, key: jax.Array) -> reference.Result:
    """The oracle on the model with BatchNorm and dropout: the gradient is JAX's, server and history are its own."""
    statistics, _ = ravel_pytree(NORM_STATE)

    def gradient(t, worker, theta_read, model_state):
        del worker
        loss, g, increment = _norm_event(theta_read, batches[t], t, key, model_state)
        return float(loss), np.asarray(g), (0.9, np.asarray(increment))

    return reference.simulate(
        row.make_twin(NORM_PARAMS),
        gradient,
        trace.worker.tolist(),
        trace.read_version.tolist(),
        model_state=np.asarray(statistics),
    )


def flat(tree) -> np.ndarray:
    """All numbers of a PyTree, in one row."""
    return np.asarray(ravel_pytree(tree)[0])


def assert_close(got, want, tolerance: float = 1e-12):
    """Equal within a relative and absolute tolerance, and finite."""
    got, want = flat(got), flat(want)
    assert np.all(np.isfinite(want))
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
