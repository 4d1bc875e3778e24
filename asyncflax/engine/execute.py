"""The engine: runs a method over a trace, exactly.

A run is a loop over the rounds of a plan. A round reads past versions from their slots, computes the gradients at them,
and then, event by event, updates the server and stores the new version (`step`). The plan also determines the devices
and the store of versions (`placement`, `host_store`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from asyncflax import _check, _memory
from asyncflax._rows import fill_rows, take_row
from asyncflax.base import AsyncAlgorithm, as_partial
from asyncflax.engine import host_store
from asyncflax.engine.bytes import memory
from asyncflax.engine.host_store import to_host
from asyncflax.engine.placement import Placement
from asyncflax.engine.plan import Chunk, Plan, make_plan
from asyncflax.engine.step import Rounds, RunOutput, ServerState
from asyncflax.trace import Trace


class RunState(NamedTuple):
    """The state of a run between chunks; its checkpoint.

    Attributes:
      params: PyTree, the server's parameters theta_t.
      algorithm: the method's state.
      slots: the versions handed out, pairs (parameters, model state), each leaf with a leading axis [num_slots]; with
        store='host' a list of num_slots pairs in host memory.
      model_state: PyTree of arrays that gradients do not train (BatchNorm statistics, ...), or None.
      key: a typed JAX key; an event uses fold_in(key, ticket), where by default ticket t is event t.
      event: int32 [], the index t of the next event (a NumPy number between chunks).

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=10))
      >>> state = asyncflax.init_run(asyncflax.algorithms.momentum_asgd(0.1), jnp.ones(2), plan)
      >>> jax.tree.map(jnp.shape, state.slots)
      ((4, 2), None)
    """

    params: Any
    algorithm: Any
    slots: Any
    model_state: Any
    key: jax.Array
    event: jax.Array


class RunResult(NamedTuple):
    """What `run` returns.

    Attributes:
      params: the server's parameters after the last event.
      state: the method's state after the last event.
      losses: [T], the loss at the parameters that the worker read, in event order.
      staleness: int32 [T], in updates.
      gap: float [T], see `metrics.gap`.
      gradient_rms: float [T], the root mean square of the gradients; see `metrics.normalised_gap`.
      aux: the auxiliary outputs of the gradient function, with a leading axis [T].
      model_state: the server's model state after the last event, or None.
    """

    params: Any
    state: Any
    losses: jax.Array
    staleness: jax.Array
    gap: jax.Array
    gradient_rms: jax.Array
    aux: Any
    model_state: Any


def run(
    algorithm: AsyncAlgorithm,
    gradient_fn: Callable[..., Any],
    params: Any,
    trace: Trace,
    batches: Any,
    *,
    width: int | None = 1,
    mesh: Mesh | None = None,
    server: str = "replicated",
    store: str = "device",
    key: jax.Array | None = None,
    model_state: Any = None,
) -> RunResult:
    """Trains with a method under the asynchrony of a trace.

    May be called inside `jax.jit` and `jax.vmap`: the trace is concrete, while arrays of the algorithm, the parameters
    and the batches may be traced. `vmap` over a function that creates the algorithm from its learning rate is a grid
    search.

    Args:
      algorithm: the method.
      gradient_fn: `jax.value_and_grad(loss_fn)`, `from_loss(loss_fn)`, or any function described in `gradients`. Bind
        a data set with `jax.tree_util.Partial` (see `from_loss`); a closed-over data set is compiled in.
      params: PyTree of arrays, the initial parameters.
      trace: the T events.
      batches: PyTree with leading axis T; row t is the batch of event t (data, or indices into data). For a trace
        recorded by a live run, row k belongs to ticket k, and there may be more rows.
      width: the maximum number of gradients computed together. Up to rounding, the result depends neither on it nor on
        the next three arguments.
      mesh: several devices (see `make_mesh`), whose groups share the gradients of a round; None for one device.
      server: 'replicated', or 'sharded' over the mesh; see `placement`.
      store: the store of past versions, 'device', 'ring' or 'host'; see `make_plan`. 'host' cannot be traced.
      key: a typed JAX key for randomness in the gradient function; default `jax.random.key(0)`.
      model_state: PyTree of arrays that gradients do not train, or None.

    Raises:
      TypeError: an argument has an unsupported type.
      ValueError: the trace has more workers than the algorithm was built for; batches do not have T rows; gradients do
        not match the parameters.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 4 to 6 and section 2.1.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> trace = asyncflax.queues.simulate(
      ...     num_workers=8, num_updates=200, service_time=asyncflax.queues.exponential())
      >>> batches = jax.random.normal(jax.random.key(1), (200, 4)) + 3.0
      >>> loss_fn = lambda w, batch: jnp.mean((w - batch) ** 2)
      >>> result = asyncflax.run(
      ...     asyncflax.algorithms.asgd(0.05), jax.value_and_grad(loss_fn), jnp.zeros(()), trace, batches, width=4)
      >>> result.losses.shape, bool(abs(result.params - 3.0) < 0.5)
      ((200,), True)
    """
    plan = make_plan(trace, width=width, mesh=mesh, server=server, store=store)
    key = _check_start(algorithm, params, plan, key, model_state)
    if trace.recorded:
        batches = plan[0].take(batches)
    gradient_fn = _check_call(algorithm, gradient_fn, plan[0], batches)
    if store == "host":
        state = init_run(algorithm, params, plan, key=key, model_state=model_state)
        return _result(*run_chunk(algorithm, gradient_fn, state, plan[0], batches))
    put = plan.placement.put
    start = (algorithm, gradient_fn, params, key, model_state)
    algorithm, gradient_fn, params, key, model_state = put(start)
    batches = plan.placement.put_batches(batches)
    return _run_whole(algorithm, gradient_fn, params, key, model_state, plan[0], batches)


def init_run(
    algorithm: AsyncAlgorithm,
    params: Any,
    plan: Plan,
    *,
    key: jax.Array | None = None,
    model_state: Any = None,
    algorithm_state: Any = None,
) -> RunState:
    """The state before the first event: every worker has read version 0.

    Args:
      algorithm, params, key, model_state: as in `run`. The state shares no memory with them.
      plan: from `make_plan`.
      algorithm_state: the method's initial state, for a run that continues with another trace (its plan has
        `first_event`); by default `algorithm.init(params)`.

    Raises:
      TypeError: `algorithm` is not an `AsyncAlgorithm`, or `key` is not a typed key.
      ValueError: the plan has more workers than the algorithm was built for.

    Example: see `run_chunk`.
    """
    key = _check_start(algorithm, params, plan, key, model_state)
    placement = plan.placement
    if placement.store == "host":
        _refuse_traced(algorithm, params, model_state)
    start = (algorithm, params, key, model_state, algorithm_state)
    algorithm, params, key, model_state, algorithm_state = placement.put(start)
    make = _first_state if placement.mesh is None else jax.jit(_first_state, static_argnums=(2, 5))
    state = make(algorithm, params, plan.num_slots, key, model_state, placement, algorithm_state)
    # Copies: a method's state may hold the parameters themselves, and `run_chunk` reuses all of this memory.
    own = jax.tree.map(jnp.copy, state._replace(slots=None))._replace(event=np.int32(plan.events.start))
    if placement.store == "host":
        return own._replace(slots=[to_host(state.slots)] * plan.num_slots)
    return own._replace(slots=state.slots)


def _check_start(algorithm: AsyncAlgorithm, params: Any, plan: Plan, key: Any, model_state: Any) -> jax.Array:
    """Checks the arguments of a run; returns the key."""
    _check.instance("algorithm", algorithm, AsyncAlgorithm, _check.METHOD)
    _check.instance("plan", plan, Plan, "an asyncflax.Plan (see asyncflax.make_plan)")
    _check.parameters("params", params)
    _check.arrays("model_state", model_state, "pass JAX or NumPy arrays.")
    if algorithm.num_workers is not None and plan.num_workers > algorithm.num_workers:
        raise ValueError(
            f"the trace has num_workers={plan.num_workers}, "
            f"but the algorithm was built for num_workers={algorithm.num_workers}."
        )
    key = jax.random.key(0) if key is None else key
    _check.key("key", key)
    need_memory(algorithm, params, plan, model_state)
    if plan.width > 1 or plan.placement.mesh is not None:
        threefry = "use jax.random.key(seed, impl='threefry2x32')"
        _check.batchable("key", key, f"{threefry}, or width=1 without a mesh instead of width={plan.width}")
    return key


def need_memory(algorithm: AsyncAlgorithm, params: Any, plan: Plan, model_state: Any) -> None:
    """Raises if a run does not fit in memory; not checked inside a transformation of JAX."""
    if any(map(_check.is_traced, jax.tree.leaves((algorithm, params, model_state)))):
        return
    place, handed_out = plan.placement, (params, model_state)
    state = jax.eval_shape(algorithm.init, params)
    kept = memory(
        handed_out,
        width=plan.width,
        num_slots=plan.num_slots,
        state=state,
        device_groups=place.groups,
        replicas=place.replicas,
        server=place.server,
        store=place.store,
    )
    parts = (
        (kept.versions + kept.host, "num_slots", plan.num_slots),
        (kept.round, "width", plan.width),
        (kept.state, "algorithm", algorithm),
        (kept.params, "params", params),
    )
    _, name, value = max(parts, key=lambda part: part[0])
    _memory.need(name, value, kept.device * place.devices, "the run", there_are=_memory.on_devices())
    _memory.need(name, value, kept.host * place.devices / jax.process_count(), "the run's versions on the host")


def _check_call(algorithm: AsyncAlgorithm, gradient_fn: Any, chunk: Chunk, batches: Any) -> Callable[..., Any]:
    """Checks the arguments of a chunk without waiting for a device; returns the gradient function as a PyTree."""
    _check.instance("algorithm", algorithm, AsyncAlgorithm, _check.METHOD)
    _check.rows("batches", batches, chunk.worker.shape[-1])
    _check.arrays("batches", batches, "pass JAX or NumPy arrays.")
    chunk.placement.check_batches(batches)
    _check.function("gradient_fn", gradient_fn, _check.GRADIENT)
    for name, made in (("the algorithm", algorithm), ("gradient_fn", gradient_fn)):
        num_workers = getattr(made, "num_workers", None)  # as of `local.local_sgd`
        if num_workers is not None and not _check.is_traced(chunk.worker) and np.max(chunk.worker) >= num_workers:
            raise ValueError(
                f"{name} was built for num_workers={num_workers}, but the trace has worker {np.max(chunk.worker)}."
            )
    return as_partial(gradient_fn)


def begin(algorithm: AsyncAlgorithm, params: Any, model_state: Any, state: Any = None) -> tuple[Any, Any, Any]:
    """Parameters, method state and model state before the first event, with strong types as after an update."""
    array = lambda x: jnp.asarray(x, jnp.result_type(x))
    params, model_state = jax.tree.map(array, (params, model_state))
    return params, jax.tree.map(array, algorithm.init(params) if state is None else state), model_state


def _first_state(
    algorithm: AsyncAlgorithm, params, num_slots: int, key, model_state, placement: Placement, algorithm_state=None
) -> RunState:
    """The state before the first event; with a single version if the slots are on the host."""
    params, state, model_state = begin(algorithm, params, model_state, algorithm_state)
    handed_out = (algorithm.view(params, state, worker=None), model_state)
    slots = handed_out if placement.store == "host" else fill_rows(handed_out, num_slots)
    params, state, model_state = placement.keep((params, state, model_state))
    slots = placement.keep(slots, rows=int(placement.store != "host"))
    return RunState(params, state, slots, model_state, key, jnp.zeros((), jnp.int32))


def run_chunk(
    algorithm: AsyncAlgorithm,
    gradient_fn: Callable[..., Any],
    state: RunState,
    chunk: Chunk,
    batches: Any,
) -> tuple[RunState, RunOutput]:
    """Runs the events of one chunk. All chunks of a plan share one compiled program.

    The memory of `state` is reused (donated): do not use it again.

    Args:
      algorithm: the method. Other hyperparameters do not recompile (see `method`).
      gradient_fn: as in `run`; pass the same object each time, since a new function recompiles.
      state: from `init_run` or from the previous chunk.
      chunk: `plan[k]`.
      batches: PyTree with leading axis E: `plan[k].take(all_batches)`.

    Returns:
      the state after the chunk, and a `RunOutput`.

    Raises:
      TypeError: an argument has an unsupported type.
      ValueError: the batches do not have E rows; the chunk has more workers than the algorithm was built for; the state
        is of another method, at another event, or has other slots or devices. (The state of another trace with
        equally many slots is not detected.)

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> trace = asyncflax.staleness.geometric(mean=3.0).trace(num_updates=100)
      >>> plan = asyncflax.make_plan(trace, cuts=[40, 80])
      >>> algorithm, batches = asyncflax.algorithms.asgd(0.1), jnp.ones((100, 2))
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.sum((w - batch) ** 2))
      >>> state = asyncflax.init_run(algorithm, jnp.zeros(2), plan)
      >>> for chunk in plan:
      ...     state, out = asyncflax.run_chunk(algorithm, gradient_fn, state, chunk, chunk.take(batches))
      >>> int(state.event), out.losses.shape
      (100, (40,))
    """
    _check.instance("chunk", chunk, Chunk, "a Chunk such as plan[k]")
    _check.instance("state", state, RunState, "a RunState (see asyncflax.init_run)")
    gradient_fn = _check_call(algorithm, gradient_fn, chunk, batches)
    _check_slots(state, chunk)
    placement = chunk.placement
    traced = _check.is_traced(state.event) or _check.is_traced(chunk.first_event)
    if not traced and int(state.event) != chunk.first_event:
        raise ValueError(f"state is at event {int(state.event)}, but the chunk begins at event {chunk.first_event}.")
    execute = _run_chunk
    if placement.store == "host":
        _refuse_traced(algorithm, gradient_fn, state, batches)
        execute = host_store.execute
    algorithm, gradient_fn = placement.put((algorithm, gradient_fn))
    batches = placement.put_batches(batches)
    state, out = execute(algorithm, gradient_fn, state, chunk, batches)
    if not traced:  # known without waiting for the device, so that the next call does not wait for it either
        state = state._replace(event=np.int32(chunk.first_event + chunk.num_events))
    return state, out


def _execute(
    algorithm: AsyncAlgorithm, gradient_fn: Callable[..., Any], state: RunState, chunk: Chunk, batches: Any
) -> tuple[RunState, RunOutput]:
    """Executes the rounds of a chunk in one loop, with versions on the device."""
    chunk = jax.tree.map(jnp.asarray, chunk)
    rounds = Rounds(algorithm, gradient_fn, _check.unbatched("key", state.key), chunk, batches)
    read = jax.eval_shape(take_row, state.slots, 0)
    rounds.check(state.params, state.algorithm, state.model_state, read)
    server = ServerState(state.params, state.algorithm, state.model_state, state.slots, rounds.no_output(read))

    def do_round(r, server):
        events = rounds.events(r)
        return rounds(r, server, rounds.read(server.store, chunk.read_slot[events]), chunk.write_slot[events])

    # With a constant bound the loop has a known length, like a scan.
    num_rounds = chunk.num_rounds if chunk.padded else chunk.round_start.shape[-1]
    server = rounds.kept(jax.lax.fori_loop(0, num_rounds, do_round, server))
    params, algorithm_state, model_state, slots, out = server
    event = state.event + chunk.num_events
    return RunState(params, algorithm_state, slots, model_state, state.key, event), out


_run_chunk = jax.jit(_execute, donate_argnums=2)


def _check_slots(state: RunState, chunk: Chunk) -> None:
    """Raises if the state stores its versions differently from the plan; `Rounds.check` checks the rest, once."""
    on_host, store = isinstance(state.slots, list), chunk.placement.store
    if on_host != (store == "host"):
        raise ValueError(
            f"the state's versions are {'in host memory' if on_host else 'on the device'}, but the plan has {store=}; "
            "make the plan with the store of the state."
        )
    _check.key("state.key", state.key)
    devices = lambda mesh: None if mesh is None else set(mesh.devices.flat)
    if not _check.is_traced(state.key):
        lies = state.key.sharding.device_set
        if lies != (devices(chunk.placement.mesh) or lies) or (chunk.placement.mesh is None and len(lies) > 1):
            raise ValueError(
                f"the state is on {len(lies)} devices that are not those of the plan; move it with jax.device_put to "
                "the shardings of a state from init_run, or load it with Checkpoints.latest(like=...)."
            )
    found = {len(state.slots)} if on_host else {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(state.slots)}
    if found - {chunk.num_slots}:
        raise ValueError(f"state has {found.pop()} slots, but the plan has {chunk.num_slots}.")


def _refuse_traced(*trees: Any) -> None:
    if any(map(_check.is_traced, jax.tree.leaves((trees, jnp.zeros(()))))):  # zeros are traced too inside jax.jit
        raise ValueError(
            "store='host' moves versions between compiled programs and cannot be traced; call it outside of jax.jit "
            "and jax.vmap, or use store='device'."
        )


@jax.jit
def _run_whole(algorithm, gradient_fn, params, key, model_state, chunk: Chunk, batches) -> RunResult:
    state = _first_state(algorithm, params, chunk.num_slots, key, model_state, chunk.placement)
    return _result(*_execute(algorithm, gradient_fn, state, chunk, batches))


def _result(state: RunState, out: RunOutput) -> RunResult:
    return RunResult(state.params, state.algorithm, *out, state.model_state)
