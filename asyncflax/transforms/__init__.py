"""Building blocks in the style of Optax: each is an `optax.GradientTransformation` for chains.

A block that depends on the event takes `worker` (int32 []), `staleness` or `read_params` as keyword-only extra
arguments. The engine passes them to every transformation that accepts them, `with_delay` does so in a loop without
events, and a missing one raises an error. Invalid arguments raise a `TypeError` or a `ValueError` that names them.

Arguments of `delay_gradients`, `with_delay` and `store_versions`:

- `staleness`: an integer, a distribution of `asyncflax.staleness`, or a `Trace` (its staleness, step by step). For
  `delay_gradients` and `store_versions` also one per part of the parameters: a tree prefix of them or, with `labels`, a
  mapping or a tuple from labels to staleness. Parts draw independently: the k-th uses seed + k.
- `labels`: a tree prefix of labels, or a function of the parameters that returns one, as in `optax.partition`.
- `max_staleness`: the memory holds max_staleness + 1 gradients or versions. By default it is the maximum of the integer
  or the trace; for a distribution, the smallest number that is exceeded with probability at most 1e-6. It is required
  for a traced integer (under `jax.vmap` or `optax.inject_hyperparams`).
- `beyond`: 'error' rejects a distribution or trace that exceeds max_staleness; 'clip' uses the oldest entry instead,
  warns with the truncated probability, and counts these steps in the state.
- `seed`: the random seed of the draws from a distribution.
- `memory`: 'device' or 'pinned_host', see `history.Ring`. Gradients and versions keep the dtype and the sharding of the
  parameters.

After the end of a trace they return NaN, so that a longer loop does not go unnoticed. All states consist of arrays and
suit any checkpoint format.
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
