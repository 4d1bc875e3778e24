"""One round: the gradients of its events, computed together, then the updates, event by event."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asyncflax import _check, metrics
from asyncflax._rows import put_row, take_row
from asyncflax.base import AsyncAlgorithm
from asyncflax.engine.plan import Chunk
from asyncflax.gradients import GradientResult, call_gradient_fn


class RunOutput(NamedTuple):
    """The reports of the E events of a chunk, in event order; zero beyond its `num_events`.

    Attributes:
      losses: [E], the loss at the parameters read.
      staleness: int32 [E], in updates.
      gap: float [E], ||theta_now - theta_read|| / sqrt(d) when the gradient arrived; see `metrics.gap`.
      gradient_rms: float [E], ||g|| / sqrt(d) of the gradient on arrival; see `metrics.normalised_gap`.
      aux: the auxiliary outputs of the gradient function, with a leading axis [E].
    """

    losses: jax.Array
    staleness: jax.Array
    gap: jax.Array
    gradient_rms: jax.Array
    aux: Any


class ServerState(NamedTuple):
    """The carry of a loop over rounds.

    Attributes:
      params, algorithm, model_state: as in `RunState`.
      store: the versions handed out, (parameters, model state) with a leading axis of rows.
      out: the `RunOutput` of the chunk.
    """

    params: Any
    algorithm: Any
    model_state: Any
    store: Any
    out: RunOutput


def compute(gradient_fn: Any, key: jax.Array, read: Any, batch: Any, ticket: Any, worker: Any) -> GradientResult:
    """The gradient of a ticket at `read`, the pair (parameters, model state) that a worker has read."""
    read_params, model_state = read
    context = {"key": jax.random.fold_in(key, ticket), "event": ticket, "worker": worker, "model_state": model_state}
    return call_gradient_fn(gradient_fn, read_params, batch, **context)


def apply(
    algorithm: AsyncAlgorithm, params: Any, state: Any, model_state: Any, result: GradientResult, **event: Any
) -> tuple[Any, Any, Any]:
    """The server's parameters, method state and model state after a gradient.

    Args:
      algorithm: the method.
      params, state, model_state: their values before the event.
      result: the worker's gradient.
      event: worker, staleness and read_params, as in `AsyncAlgorithm.update`.
    """
    updates, state = algorithm.update(result.grads, state, params, value=result.loss, **event)
    _check.like("the updates", updates, "the parameters", params)
    params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
    if result.model_update is not None:
        model_state = result.model_update.apply(model_state)
    return params, state, model_state


@dataclasses.dataclass(frozen=True)
class Rounds:
    """The rounds of a chunk, inside a compiled program.

    A version is a pair (parameters, model state). If several events are computed together, their values have a leading
    axis [W] of lanes; lanes beyond the size of a round are computed but not used.
    """

    algorithm: AsyncAlgorithm
    gradient_fn: Callable[..., Any]
    key: jax.Array
    chunk: Chunk
    batches: Any

    @property
    def together(self) -> bool:
        """Whether values of events have an axis of lanes."""
        return self.chunk.width > 1 or self.chunk.placement.mesh is not None

    def events(self, r: Any) -> jax.Array:
        """int32 [W] or [], the positions of the events of round r in the chunk."""
        start = self.chunk.round_start[r]
        if not self.together:
            return start
        return jnp.minimum(start + jnp.arange(self.chunk.width), self.chunk.worker.shape[-1] - 1)

    def read(self, store: Any, rows: Any) -> Any:
        """The versions in rows [W] or [] of a store."""
        if not self.together:
            return take_row(store, rows)
        return self.chunk.placement.keep(jax.vmap(take_row, in_axes=(None, 0))(store, rows), rows=1)

    def __call__(self, r: Any, server: ServerState, read: Any, rows: Any) -> ServerState:
        """Executes round r.

        Args:
          r: int32 [].
          server: the carry before the round.
          read: the versions that its events read.
          rows: int32 [W] or [], the rows of the store for the versions that its events create.
        """
        start = self.chunk.round_start[r]
        results = self._gradients(self.events(r), read)
        if not self.together:
            return self._serve(server, start, rows, read, results)
        one = lambda lane, server: self._serve(server, start + lane, rows[lane], *take_row((read, results), lane))
        return self.kept(jax.lax.fori_loop(0, self.chunk.round_size[r], one, server))

    def check(self, params: Any, state: Any, model_state: Any, read: Any) -> None:
        """Raises unless structures and shapes match; runs once, while the program is traced.

        Args:
          params, state, model_state: their values before the first round; `state` is the method's.
          read: a version.
        """
        if self.together:
            _check.batchable("state.key", self.key)
        fresh = jax.eval_shape(self.algorithm.init, params)
        _check.like("state.algorithm", state, "the initial state of this method", fresh)
        _check.like("the content of state.slots", read, "(state.params, state.model_state)", (params, model_state))

    def no_output(self, read: Any) -> RunOutput:
        """Zeros in place of the reports of the chunk's events.

        Args:
          read: a version; only shapes matter.
        """
        row = lambda x: jax.eval_shape(lambda x: jnp.asarray(x)[0], x)
        batch = jax.tree.map(row, self.batches)
        one = jax.ShapeDtypeStruct((), jnp.int32)
        result = jax.eval_shape(compute, self.gradient_fn, self.key, read, batch, one, one)
        gap = jax.eval_shape(metrics.gap, read[0], read[0])
        room = lambda x: jnp.zeros((self.chunk.worker.shape[-1], *x.shape), x.dtype)
        out = RunOutput(*jax.tree.map(room, (result.loss, one, gap, gap, result.aux)))
        return self.chunk.placement.everywhere(out)

    def _gradients(self, events: Any, read: Any) -> GradientResult:
        """The gradients of these events."""
        batch = jax.tree.map(lambda x: jnp.asarray(x)[events], self.batches)
        lane = (batch, jnp.asarray(self.chunk.ticket)[events], jnp.asarray(self.chunk.worker)[events])
        if not self.together:
            return compute(self.gradient_fn, self.key, read, *lane)
        placement = self.chunk.placement

        def of_lane(shared, read, lane):
            batch, ticket, worker = lane
            gradient_fn, key = shared
            result = compute(gradient_fn, key, read, placement.split(batch), ticket, worker)
            return result.grads, result._replace(grads=None)

        of_lanes = placement.over_groups(jax.vmap(of_lane, in_axes=(None, 0, 0)))
        grads, small = of_lanes((self.gradient_fn, self.key), read, lane)
        return placement.everywhere(small)._replace(grads=grads)

    def _serve(self, server: ServerState, i: Any, row: Any, read: Any, result: GradientResult) -> ServerState:
        """Applies the gradient of the event at position i of the chunk."""
        chunk, read_params = self.chunk, read[0]
        moved, size = metrics.gap(server.params, read_params), metrics.rms(result.grads)
        own = (server.params, server.algorithm, server.model_state)
        event = {"worker": chunk.worker[i], "staleness": chunk.staleness[i], "read_params": read_params}
        params, algorithm_state, model_state = apply(self.algorithm, *own, result, **event)
        reader = chunk.reader[i] if chunk.exclusive else None
        handed_out = (self.algorithm.view(params, algorithm_state, worker=reader), model_state)
        store = put_row(server.store, row, handed_out)
        out = put_row(server.out, i, RunOutput(result.loss, chunk.staleness[i], moved, size, result.aux))
        return ServerState(params, algorithm_state, model_state, store, out)

    def kept(self, server: ServerState) -> ServerState:
        """The carry with the sharding of the placement."""
        keep = self.chunk.placement.keep
        params, algorithm, model_state = keep((server.params, server.algorithm, server.model_state))
        store, out = keep(server.store, rows=1), self.chunk.placement.everywhere(server.out)
        return ServerState(params, algorithm, model_state, store, out)
