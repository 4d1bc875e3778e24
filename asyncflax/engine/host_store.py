"""Rounds with versions in host memory: the device holds the versions of a few rounds, whatever the number of workers.

The host dispatches one program per round. While a round is computed, the versions that the next one reads are copied to
the device, and those that the previous one created to the host. A version that is read in the round after its creation
stays on the device. The host waits only for the second-to-last round and its copies, so that the device always has
work (`bytes.memory` counts these versions). A transfer costs the host about 0.1 ms per array of a version.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax._rows import fill_rows
from asyncflax.engine.step import Rounds, RunOutput, ServerState

_ROUNDS_AHEAD = 2  # rounds in flight


def to_host(tree: Any) -> Any:
    """Starts copying arrays to host memory, pinned if the platform has it."""
    return jax.device_put(tree, jax.tree.map(lambda x: x.sharding.with_memory_kind(_host_kind(x)), tree))


def to_device(tree: Any) -> Any:
    """Starts copying arrays to the memory of their devices."""
    kind = lambda x: next(iter(x.sharding.device_set)).default_memory().kind
    return jax.device_put(tree, jax.tree.map(lambda x: x.sharding.with_memory_kind(kind(x)), tree))


def _host_kind(x: jax.Array) -> str:
    device = next(iter(x.sharding.addressable_devices))
    kinds = [memory.kind for memory in device.addressable_memories()]
    for kind in ("pinned_host", "unpinned_host"):
        if kind in kinds:
            return kind
    raise ValueError(f"store='host' needs a device with access to host memory, but {device} has {kinds}; use 'device'.")


def execute(algorithm, gradient_fn, state, chunk, batches) -> tuple[Any, RunOutput]:
    """Executes the rounds of a chunk with versions on the host; see `execute.run_chunk`."""
    width, count = chunk.width, int(chunk.num_rounds)
    start, size = np.asarray(chunk.round_start), np.asarray(chunk.round_size)
    events = [np.arange(start[r], start[r] + size[r]) for r in range(count)]
    reads = [np.asarray(chunk.read_slot)[e].tolist() for e in events] + [[]]
    writes = [np.asarray(chunk.write_slot)[e].tolist() for e in events]

    versions = _Versions(state.slots)
    chunk = chunk.placement.put(chunk)
    common = (algorithm, gradient_fn, state.key, chunk, batches)
    own = (state.params, state.algorithm, state.model_state)
    if chunk.placement.mesh is None:  # committed to one device, like arrays from the host, so that there is one program
        device = next(iter(jax.tree.leaves(state.slots)[0].sharding.device_set))
        common, own = jax.device_put((common, own), device)
    versions.fetch(reads[0])
    server = ServerState(*own, store=None, out=_no_output(*common, own, versions.rows(reads[0])[0]))
    under_way: collections.deque[Any] = collections.deque()
    for r in range(count):
        rows = versions.rows(reads[r])
        rows += rows[:1] * (width - len(rows))  # unused lanes
        server, made, done = _round(*common, server, np.int32(r), rows)
        versions.fetch(set(reads[r + 1]) - set(writes[r]))  # before the copies to the host, which wait for the round
        gone = versions.hand_out(writes[r], made, wanted=reads[r + 1])
        under_way.append((done, gone))
        if len(under_way) > _ROUNDS_AHEAD:
            jax.block_until_ready(under_way.popleft())
    event = state.event + chunk.num_events
    state = state._replace(
        params=server.params,
        algorithm=server.algorithm,
        model_state=server.model_state,
        slots=versions.slots,
        event=event,
    )
    return state, server.out


class _Versions:
    """Slots on the host, with copies on the device for the last and the next round."""

    def __init__(self, slots: Sequence[Any]):
        self.slots = list(slots)
        self._near: dict[int, Any] = {}

    def fetch(self, wanted: Collection[int]) -> None:
        """Starts copying slots to the device and drops the copies of all others."""
        missing = sorted(set(wanted) - self._near.keys())
        brought = to_device([self.slots[slot] for slot in missing])
        self._near = {slot: self._near[slot] for slot in wanted if slot in self._near}
        self._near |= dict(zip(missing, brought, strict=True))

    def rows(self, slots: Sequence[int]) -> list[Any]:
        """The contents of fetched slots."""
        return [self._near[slot] for slot in slots]

    def hand_out(self, slots: Sequence[int], made: Sequence[Any], wanted: Collection[int]) -> list[Any]:
        """Writes versions to slots, the last one if several share a slot; slots in `wanted` also stay on the device.

        Returns:
          The arrays in transfer.
        """
        new = dict(zip(slots, made, strict=False))
        gone = to_host(list(new.values()))
        for slot, row in zip(new, gone, strict=True):
            self.slots[slot] = row
        self._near |= {slot: row for slot, row in new.items() if slot in wanted}
        return gone


@functools.partial(jax.jit, donate_argnums=5)
def _round(algorithm, gradient_fn, key, chunk, batches, server: ServerState, r, read: list[Any]):
    """Executes round r; returns the carry, a list of W versions, and a number to wait for."""
    rounds = Rounds(algorithm, gradient_fn, key, chunk, batches)
    width, placement = chunk.width, chunk.placement
    if rounds.together:
        rows, stacked = jnp.arange(width), jax.tree.map(lambda *leaves: jnp.stack(leaves), *read)
        stacked = placement.keep(stacked, rows=1)
    else:
        rows, stacked = jnp.zeros((), jnp.int32), read[0]
    server = server._replace(store=placement.keep(fill_rows(read[0], width), rows=1))
    server = rounds(r, server, stacked, rows)
    made = [placement.keep(jax.tree.map(lambda x: x[lane], server.store)) for lane in range(width)]  # noqa: B023
    return server._replace(store=None), made, r + 1


@jax.jit
def _no_output(algorithm, gradient_fn, key, chunk, batches, own: tuple[Any, Any, Any], row) -> RunOutput:
    rounds = Rounds(algorithm, gradient_fn, key, chunk, batches)
    rounds.check(*own, row)
    return rounds.no_output(row)
