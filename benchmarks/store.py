"""The version store: the number of live versions, and the memory that a run needs for them.

    python benchmarks/store.py

For 64 workers and 20,000 events: the slots of the plan against the rows of a ring that never clips; XLA's estimate of
the peak memory of a compiled chunk, minus that of the same chunk with one slot, over the other slots times the
parameters' bytes; and the same for the peak resident memory of a process that runs 200 events.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import asyncflax
from asyncflax import queues, staleness
from asyncflax.base import as_partial
from asyncflax.engine.execute import _execute

WORKERS, EVENTS, PARAMETERS = 64, 20_000, 1_000_000


def traces() -> dict[str, asyncflax.Trace]:
    """Traces of the two models of asynchrony, and one without."""
    return {
        "no staleness": staleness.constant(0).trace(num_updates=EVENTS),
        "i.i.d. geometric": staleness.geometric(mean=WORKERS - 1.0).trace(num_updates=EVENTS),
        "exponential queue": queues.simulate(
            num_workers=WORKERS, num_updates=EVENTS, service_time=queues.exponential()
        ),
    }


def gradient_fn(params, batch):
    """A gradient as cheap as possible, so that the store dominates the memory."""
    return jnp.zeros(()), params * batch


def compiled_peak(plan: asyncflax.Plan) -> int:
    """Peak bytes of the compiled chunk: arguments, results and temporaries, minus aliases."""
    algorithm, params = asyncflax.algorithms.asgd(1e-3), jnp.ones(PARAMETERS)
    state = asyncflax.init_run(algorithm, params, plan)
    batches = jnp.ones(plan.chunks.worker.shape[-1])
    compiled = (
        jax.jit(_execute, donate_argnums=2).lower(algorithm, as_partial(gradient_fn), state, plan[0], batches).compile()
    )
    memory = compiled.memory_analysis()
    assert memory is not None, "this backend does not say how much memory a program takes"
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def resident_peak(name: str) -> int:
    """Peak resident bytes of a fresh process that runs 200 events of the trace."""
    code = f"import store; store.run_some({name!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=sys.path[0])
    return int(done.stdout)


def run_some(name: str) -> None:
    """Runs a few chunks and prints the peak resident memory in bytes."""
    trace = traces()[name]
    plan = asyncflax.make_plan(trace, rounds_per_chunk=100)
    algorithm = asyncflax.algorithms.asgd(1e-3)
    state = asyncflax.init_run(algorithm, jnp.ones(PARAMETERS), plan)
    for k in range(2):
        state, _ = asyncflax.run_chunk(algorithm, gradient_fn, state, plan[k], jnp.ones(100))
    jax.block_until_ready(state)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Prints the tables."""
    size = PARAMETERS * 4
    print(f"{WORKERS} workers, {EVENTS:,} events, {PARAMETERS:,} float32 parameters, jax {jax.__version__}")
    print(
        f"{'':18s} {'slots':>5s} {'ring':>5s} {'compiled MiB':>12s} {'ratio':>6s} {'resident MiB':>12s} {'ratio':>6s}"
    )
    base = None
    for name, trace in traces().items():
        plan = asyncflax.make_plan(trace, rounds_per_chunk=100)
        ring = int(trace.staleness.max()) + 1
        compiled, resident = compiled_peak(plan), resident_peak(name)
        if base is None:
            base = compiled, resident
            ratios = (np.nan, np.nan)
        else:  # the run without staleness has one slot too
            store = (plan.num_slots - 1) * size
            ratios = (compiled - base[0]) / store, (resident - base[1]) / store
        print(
            f"{name:18s} {plan.num_slots:5d} {ring:5d} {compiled / 2**20:12.1f} {ratios[0]:6.3f} "
            f"{resident / 2**20:12.1f} {ratios[1]:6.3f}"
        )


if __name__ == "__main__":
    main()
