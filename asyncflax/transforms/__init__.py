"""Building blocks in the style of Optax: each is an `optax.GradientTransformation`, and the chain is the language.

A block that needs to know the event takes `worker`, `staleness` or `read_params` as keyword-only extra arguments, which
the engine gives to every transformation that accepts them; leaving one out is an error that says so. In a loop without
events `with_delay` gives them. A bad argument raises a `TypeError` or a `ValueError` that names it.
"""

from asyncflax.transforms.averaging import ParamsAverageState, average_params
from asyncflax.transforms.compensation import MeanSquareState, compensate_delay
from asyncflax.transforms.delay import DelayState, WithDelayState, delay_gradients, with_delay
from asyncflax.transforms.momentum import (
    MomentumState,
    ScheduledMomentumState,
    SummedMomentumState,
    explicit_momentum,
    summed_momentum,
)
from asyncflax.transforms.scaling import scale_by_staleness
from asyncflax.transforms.sharding import partition_spec
from asyncflax.transforms.versions import StoredVersions, read_stale_params, store_versions
from asyncflax.transforms.weight_decay import decay_weights
from asyncflax.transforms.wrappers import PerWorkerState, per_worker

__all__ = [
    "DelayState",
    "MeanSquareState",
    "MomentumState",
    "ParamsAverageState",
    "PerWorkerState",
    "ScheduledMomentumState",
    "StoredVersions",
    "SummedMomentumState",
    "WithDelayState",
    "average_params",
    "compensate_delay",
    "decay_weights",
    "delay_gradients",
    "explicit_momentum",
    "partition_spec",
    "per_worker",
    "read_stale_params",
    "scale_by_staleness",
    "store_versions",
    "summed_momentum",
    "with_delay",
]
