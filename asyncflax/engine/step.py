"""One round: the gradients of its events, computed together, then the server, event by event."""

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
    """What the E events of a chunk report, in event order; beyond the chunk's `num_events` it is zero.

    Attributes:
      losses: [E], the loss at what the worker read.
      staleness: int32 [E], in updates.
      gap: float [E], ||theta_now - theta_read|| / sqrt(d) when the gradient arrived; see `metrics.gap`.
      gradient_rms: float [E], ||g|| / sqrt(d) of the gradient as it arrives; see `metrics.normalised_gap`.
      aux: what the gradient function reports, with a leading axis [E].
    """

    losses: jax.Array
    staleness: jax.Array
    gap: jax.Array
    gradient_rms: jax.Array
    aux: Any


class Server(NamedTuple):
    """What a round changes.

    Attributes:
      params, algorithm, model_state: as in `RunState`.
      store: where it puts what it hands out, (parameters, model state) with a leading axis of rows.
      out: `RunOutput` of the chunk.
    """

    params: Any
    algorithm: Any
    model_state: Any
    store: Any
    out: RunOutput


@dataclasses.dataclass(frozen=True)
class Rounds:
    """The rounds of a chunk, inside a compiled program.

    What an event reads and hands out is a pair (parameters, model state). Where several events are computed together,
    everything about them has a leading axis [W] of lanes; lanes beyond the size of a round are computed and not used.
    """

    algorithm: AsyncAlgorithm
    gradient_fn: Callable[..., Any]
    key: jax.Array
    first_event: Any
    chunk: Chunk
    batches: Any

    @property
    def together(self) -> bool:
        """Whether there are lanes."""
        return self.chunk.width > 1 or self.chunk.placement.mesh is not None

    def events(self, r: Any) -> jax.Array:
        """int32 [W] or [], the events of round r, counted in the chunk."""
        start = self.chunk.round_start[r]
        if not self.together:
            return start
        return jnp.minimum(start + jnp.arange(self.chunk.width), self.chunk.worker.shape[-1] - 1)

    def read(self, store: Any, rows: Any) -> Any:
        """What the events of a round read, from rows [W] or [] of a store."""
        if not self.together:
            return take_row(store, rows)
        return self.chunk.placement.keep(jax.vmap(take_row, in_axes=(None, 0))(store, rows), rows=1)

    def __call__(self, r: Any, server: Server, read: Any, rows: Any) -> Server:
        """Round r.

        Args:
          r: int32 [].
          server: before it.
          read: what its events read.
          rows: int32 [W] or [], the row of the store into which each event's version goes.
        """
        start = self.chunk.round_start[r]
        results = self._gradients(self.events(r), read)
        if not self.together:
            return self._serve(server, start, rows, read, results)
        one = lambda lane, server: self._serve(server, start + lane, rows[lane], *take_row((read, results), lane))
        return self.kept(jax.lax.fori_loop(0, self.chunk.round_size[r], one, server))

    def check(self, params: Any, state: Any, model_state: Any, read: Any) -> None:
        """Refuses what a run cannot go on from, by structure and shapes: once, while the program is traced.

        Args:
          params, state, model_state: of the server before the first round; `state` is the method's.
          read: what one event reads.
        """
        if self.together:
            _check.batchable("state.key", self.key)
        fresh = jax.eval_shape(self.algorithm.init, params)
        _check.like("state.algorithm", state, "the state that this method begins with", fresh)
        _check.like("what state.slots hold", read, "(state.params, state.model_state)", (params, model_state))

    def no_output(self, read: Any) -> RunOutput:
        """Room for what the events of the chunk will report.

        Args:
          read: what one event reads; only shapes matter.
        """
        row = lambda x: jax.eval_shape(lambda x: jnp.asarray(x)[0], x)
        batch = jax.tree.map(row, self.batches)
        one = jax.ShapeDtypeStruct((), jnp.int32)
        result = jax.eval_shape(self._gradient, self.gradient_fn, self.key, read, batch, one, one)
        gap = jax.eval_shape(metrics.gap, read[0], read[0])
        room = lambda x: jnp.zeros((self.chunk.worker.shape[-1], *x.shape), x.dtype)
        out = RunOutput(*jax.tree.map(room, (result.loss, one, gap, gap, result.aux)))
        return self.chunk.placement.everywhere(out)

    def _gradients(self, events: Any, read: Any) -> GradientResult:
        """What the workers of these events compute."""
        batch = jax.tree.map(lambda x: jnp.asarray(x)[events], self.batches)
        lane = (batch, self.first_event + events, jnp.asarray(self.chunk.worker)[events])
        if not self.together:
            return self._gradient(self.gradient_fn, self.key, read, *lane)
        placement = self.chunk.placement

        def of_lane(shared, read, lane):
            batch, event, worker = lane
            gradient_fn, key = shared
            result = self._gradient(gradient_fn, key, read, placement.split(batch), event, worker)
            return result.grads, result._replace(grads=None)

        of_lanes = placement.over_groups(jax.vmap(of_lane, in_axes=(None, 0, 0)))
        grads, small = of_lanes((self.gradient_fn, self.key), read, lane)
        return placement.everywhere(small)._replace(grads=grads)

    @staticmethod
    def _gradient(gradient_fn, key, read, batch, event, worker) -> GradientResult:
        read_params, model_state = read
        key = jax.random.fold_in(key, event)
        context = {"key": key, "event": event, "worker": worker, "model_state": model_state}
        return call_gradient_fn(gradient_fn, read_params, batch, **context)

    def _serve(self, server: Server, i: Any, row: Any, read: Any, result: GradientResult) -> Server:
        """What the server does with the gradient of event i, counted in the chunk."""
        algorithm, chunk, params, read_params = self.algorithm, self.chunk, server.params, read[0]
        moved, size = metrics.gap(params, read_params), metrics.rms(result.grads)
        updates, algorithm_state = algorithm.update(
            result.grads,
            server.algorithm,
            params,
            worker=chunk.worker[i],
            staleness=chunk.staleness[i],
            read_params=read_params,
            value=result.loss,
        )
        _check.like("the updates", updates, "the parameters", params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        model_state = server.model_state
        if result.model_update is not None:
            model_state = result.model_update.apply(model_state)
        reader = chunk.reader[i] if chunk.exclusive else None
        handed_out = (algorithm.view(params, algorithm_state, worker=reader), model_state)
        store = put_row(server.store, row, handed_out)
        out = put_row(server.out, i, RunOutput(result.loss, chunk.staleness[i], moved, size, result.aux))
        return Server(params, algorithm_state, model_state, store, out)

    def kept(self, server: Server) -> Server:
        """The server, where the placement keeps it."""
        keep = self.chunk.placement.keep
        params, algorithm, model_state = keep((server.params, server.algorithm, server.model_state))
        store, out = keep(server.store, rows=1), self.chunk.placement.everywhere(server.out)
        return Server(params, algorithm, model_state, store, out)
