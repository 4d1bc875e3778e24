"""Invariants of a finished run, checked on its trace, metrics and state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax.engine.execute import RunState
from asyncflax.errors import RunError
from asyncflax.trace import Trace


def check_run(trace: Trace, state: RunState, rows: Sequence[Mapping[str, Any]], bound: int | None = None) -> str:
    """Checks the invariants and returns a one-line summary.

    Args:
      trace: the run's trace.
      state: the state after the last event.
      rows: the rows of metrics.
      bound: the bound on the staleness, or None.

    Raises:
      RunError: an invariant is violated.

    >>> import asyncflax, jax.numpy as jnp
    >>> from asyncflax.train._invariants import check_run
    >>> trace = asyncflax.staleness.constant(1).trace(10)
    >>> algorithm, plan = asyncflax.algorithms.asgd(0.1), asyncflax.make_plan(trace)
    >>> state = asyncflax.init_run(algorithm, jnp.zeros(2), plan)._replace(event=10)
    >>> check_run(trace, state, [{"update": 0}, {"update": 10, "staleness": 0.9}], bound=1)
    '10 events, as many updates, versions within the past, staleness as in the trace and at most 1, state finite'
    """
    checked = [*_events(trace, state, rows), *_staleness(trace, rows, bound)]
    broken = broken_leaf(state)
    _hold(not broken, f"the state {broken} is not finite")
    return ", ".join([*checked, "state finite"])


def broken_leaf(state: RunState) -> str:
    """The path of the first leaf of the state that is not finite, or ''."""
    kept = {name: getattr(state, name) for name in ("params", "algorithm", "model_state")}
    finite = jax.tree_util.tree_leaves_with_path(_all_finite(kept))
    return next((jax.tree_util.keystr(path) for path, is_finite in finite if not is_finite), "")


@jax.jit
def _all_finite(state: Any) -> Any:
    return jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), state)


def _events(trace: Trace, state: RunState, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    count, updates = len(trace), [row["update"] for row in rows]
    _hold(int(state.event) == count, f"the engine executed {int(state.event):,} of {count:,} updates")
    _hold(updates[-1] == count, f"the last row of metrics belongs to update {updates[-1]:,}, not to {count:,}")
    _hold(all(np.diff(updates) > 0), "the rows of metrics are not ordered by update")
    yield f"{count:,} events, as many updates"
    if trace.time is not None:
        for event in 1 + np.flatnonzero(~(np.diff(trace.time) >= 0))[:1]:
            raise _broken(f"event {event:,} is earlier than the event before it")
        times = [row["simulated_time"] for row in rows[1:]]
        _hold(np.array_equal(times, trace.time[np.array(updates[1:]) - 1]), "logged times differ from the trace")
        yield "times in order"


def _staleness(trace: Trace, rows: Sequence[Mapping[str, Any]], bound: int | None) -> Iterator[str]:
    staleness = np.arange(len(trace)) - trace.read_version
    for event in np.flatnonzero((staleness < 0) | (trace.read_version < 0))[:1]:
        raise _broken(f"event {event:,} has read version {trace.read_version[event]:,}")
    yield "versions within the past"
    starts = np.array([row["update"] for row in rows])
    means = np.add.reduceat(staleness, starts[:-1]) / np.diff(starts)
    _hold(np.allclose([row["staleness"] for row in rows[1:]], means), "logged staleness differs from the trace")
    largest = int(staleness.max())
    _hold(bound is None or largest <= bound, f"the largest staleness is {largest}, but the bound is {bound}")
    yield f"staleness as in the trace and at most {largest if bound is None else bound}"


def _hold(holds: Any, otherwise: str) -> None:
    if not holds:
        raise _broken(otherwise)


def _broken(what: str) -> RunError:
    return RunError(f"invariant violated: {what}")
