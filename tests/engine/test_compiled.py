"""The compiled program of a chunk: nothing goes to the host, the state stays where it is, it is compiled once.

That it copies no store event by event is in test_algorithms.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asyncflax
from asyncflax import algorithms, queues
from asyncflax.base import as_partial
from asyncflax.engine.execute import _run_chunk

WORKERS, EVENTS, CHUNK = 64, 2000, 500
PARAMS = {"kernel": np.full((100, 50), 0.1), "bias": np.zeros(7)}
# S(5) is the host's memory where a device has one of its own; on CPUs JAX leaves it away.
TO_THE_HOST = r" (?:infeed|outfeed|send|recv)\(|is_host_transfer|custom_call_target=\"[^\"]*callback|S\(5\)"
METHODS = {
    "asgd": lambda: algorithms.asgd(0.1),
    "multi_asgd": lambda: algorithms.multi_asgd(0.1, 0.5, num_workers=WORKERS),
    "dc_asgd": lambda: algorithms.dc_asgd(0.1, momentum=0.5),
}


def loss(params, batch, *, key):
    noise = jax.random.normal(key, params["bias"].shape)
    return jnp.mean((params["kernel"] - batch) ** 2) + jnp.mean((params["bias"] - noise) ** 2)


def start(algorithm, width):
    """A plan with 64 slots and the state before its first event."""
    trace = queues.simulate(num_workers=WORKERS, num_updates=EVENTS, service_time=queues.exponential())
    plan = asyncflax.make_plan(trace, width=width, cuts=range(0, EVENTS, CHUNK))
    assert plan.num_slots == WORKERS
    return plan, asyncflax.init_run(algorithm, PARAMS, plan)


def batches_of(chunk):
    return chunk.pad(np.ones(int(chunk.num_events)))


def program_of(algorithm, width=1, loss=loss):
    """The state, the compiled program of a chunk, and how much memory it takes."""
    plan, state = start(algorithm, width)
    gradient_fn = as_partial(asyncflax.from_loss(loss))
    compiled = _run_chunk.lower(algorithm, gradient_fn, state, plan[0], batches_of(plan[0])).compile()
    return state, compiled.as_text(), compiled.memory_analysis()


def size(tree):
    """Bytes."""
    data = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return sum(data(leaf).nbytes for leaf in jax.tree.leaves(tree))


def read(array):
    raise AssertionError(f"the host reads an array of shape {array.shape}, and waits for it")


methods = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())
widths = pytest.mark.parametrize("width", [1, 4])


@methods
@widths
def test_the_program_stays_on_the_device_and_in_the_memory_of_its_state(make, width):
    state, text, memory = program_of(make(), width)
    assert not re.findall(f".*(?:{TO_THE_HOST}).*", text)
    assert memory.alias_size_in_bytes == size(state)  # every leaf: parameters, method, slots, key, event
    assert memory.temp_size_in_bytes < size(state.slots) / 3  # 2 or 3 versions; 4 for each gradient of a round


@pytest.mark.parametrize(
    "leak",
    [
        lambda x: jax.debug.print("{}", x),
        lambda x: jax.debug.callback(lambda x: None, x),
        lambda x: jax.pure_callback(lambda x: x, x, x),
    ],
    ids=["debug.print", "debug.callback", "pure_callback"],
)
def test_what_goes_to_the_host_would_be_seen(leak):
    def leaking(params, batch):
        leaked = leak(batch)
        return jnp.mean((params["kernel"] - (batch if leaked is None else leaked)) ** 2)

    _, text, _ = program_of(METHODS["asgd"](), loss=leaking)
    assert re.search(TO_THE_HOST, text)


@methods
@widths
def test_the_next_chunk_compiles_nothing_reads_nothing_and_keeps_its_memory(monkeypatch, make, width):
    algorithm, gradient_fn = make(), asyncflax.from_loss(loss)
    plan, state = start(algorithm, width)
    state, _ = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[0], batches_of(plan[0]))
    arrays = lambda state: [leaf for leaf in jax.tree.leaves((state.params, state.algorithm, state.slots)) if leaf.ndim]
    where, old, programs = [leaf.unsafe_buffer_pointer() for leaf in arrays(state)], arrays(state), []
    listener = lambda name, seconds, **_: programs.append(name) if "backend_compile" in name else None
    monkeypatch.setattr(type(old[0]), "_value", property(read))  # JAX's transfer guard does not guard CPUs
    with pytest.raises(AssertionError, match="the host reads"):
        state.params["bias"].tolist()
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        state, out = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[1], batches_of(plan[1]))
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
        monkeypatch.undo()
    assert programs == []
    assert [leaf.unsafe_buffer_pointer() for leaf in arrays(state)] == where
    assert all(leaf.is_deleted() for leaf in old)
    assert np.isfinite(out.losses).all() and int(state.event) == 2 * CHUNK
