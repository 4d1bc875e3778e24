"""asyncflax: emulate, study and tame asynchronous SGD in JAX."""

from asyncflax import (
    algorithms,
    data,
    history,
    local,
    meter,
    metrics,
    plots,
    problems,
    queues,
    rounds,
    staleness,
    theory,
    transforms,
)
from asyncflax._citation import citation
from asyncflax.base import AsyncAlgorithm, from_optax, method, server_params, transform_gradients
from asyncflax.gradients import GradientResult, ModelUpdate, from_loss
from asyncflax.placement import make_mesh
from asyncflax.plan import Chunk, Plan, make_plan
from asyncflax.run import RunOutput, RunResult, RunState, init_run, run, run_chunk
from asyncflax.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "AsyncAlgorithm",
    "Chunk",
    "GradientResult",
    "ModelUpdate",
    "Plan",
    "RunOutput",
    "RunResult",
    "RunState",
    "Trace",
    "algorithms",
    "citation",
    "data",
    "from_loss",
    "from_optax",
    "history",
    "init_run",
    "local",
    "make_mesh",
    "make_plan",
    "meter",
    "method",
    "metrics",
    "plots",
    "problems",
    "queues",
    "rounds",
    "run",
    "run_chunk",
    "server_params",
    "staleness",
    "theory",
    "transform_gradients",
    "transforms",
]
