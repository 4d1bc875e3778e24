"""asyncflax: emulate, study and tame asynchronous SGD in JAX.

The core is flat, needs only jax, optax and numpy, and is imported here. The subpackages are imported on first use:
`transforms`, `algorithms`, `engine`, `live`, `theory`, `data`, `models`, `train`, `lab`.

Invalid arguments raise a TypeError or a ValueError that names the argument, shows its value and says what to do.
Docstrings list only other errors.
"""

from typing import TYPE_CHECKING

from asyncflax import _lazy, history, local, metrics, plots, queues, staleness
from asyncflax.base import AsyncAlgorithm, from_optax, method, server_params, transform_gradients, transform_updates
from asyncflax.gradients import GradientResult, ModelUpdate, from_loss
from asyncflax.trace import Trace

if TYPE_CHECKING:
    from asyncflax import algorithms, data, engine, lab, live, models, theory, train, transforms
    from asyncflax.algorithms import citation
    from asyncflax.engine import (
        Chunk,
        Plan,
        RunOutput,
        RunResult,
        RunState,
        init_run,
        make_mesh,
        make_plan,
        run,
        run_chunk,
    )
    from asyncflax.theory import meter, problems

__version__ = "0.1.0"

_WINGS = ("algorithms", "data", "engine", "lab", "live", "models", "theory", "train", "transforms")
_TYPES = ("Chunk", "Plan", "RunOutput", "RunResult", "RunState")
_HOMES = {
    **dict.fromkeys(_WINGS, ""),
    **dict.fromkeys((*_TYPES, "init_run", "make_mesh", "make_plan", "run", "run_chunk"), "engine"),
    "citation": "algorithms",
    "meter": "theory",
    "problems": "theory",
}
__getattr__, __dir__ = _lazy.exports(__name__, _HOMES)

__all__ = ["AsyncAlgorithm", "GradientResult", "ModelUpdate", "Trace", "from_loss", "from_optax", "method"]
__all__ += ["server_params", "transform_gradients", "transform_updates"]
__all__ += ["Chunk", "Plan", "RunOutput", "RunResult", "RunState"]
__all__ += ["init_run", "make_mesh", "make_plan", "run", "run_chunk"]
__all__ += ["history", "local", "meter", "metrics", "plots", "problems", "queues", "staleness"]
__all__ += ["algorithms", "citation", "data", "engine", "live", "theory", "transforms"]
