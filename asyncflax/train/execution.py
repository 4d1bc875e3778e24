"""How a training is executed: emulated over a trace, or live, by workers that run at the same time.

The functions that return an `Execution` are the names of `config.execution`.

Example:
  >>> from asyncflax.train import TrainConfig
  >>> config = TrainConfig(num_workers=2, execution="threads(service_time=exponential(mean=0.01))").check()
  >>> config.live, config.named.execution.make(seed=config.seed).workers is None
  (True, False)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from asyncflax import _check, live
from asyncflax.queues import ServiceTime

__all__ = ["Execution", "emulated", "threads"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """What `config.execution` names.

    Attributes:
      workers: `workers(server, gradient_fn, batch, key=key, cuts=cuts)`, an iterable of `live.Segment`, such as
        `live.Threads`; None for an emulated run.
    """

    workers: Callable[..., Any] | None = None


def emulated() -> Execution:
    """The events of `config.asynchrony`, by the engine."""
    return Execution()


def threads(*, seed: int, service_time: ServiceTime | None = None, devices: int = 0) -> Execution:
    """A thread of this process for each worker.

    Args:
      seed: of the service times, that of the run.
      service_time: how long a gradient takes at least; by default as long as it takes.
      devices: how many local devices the workers share; 0 for all.

    Raises:
      ValueError: there are fewer devices.
    """
    found = jax.local_devices()
    count = _check.integer("devices", devices, 0, len(found)) or len(found)
    options = {"devices": found[:count], "service_time": service_time, "seed": seed}
    return Execution(functools.partial(live.Threads, **options))
