"""Executions of a run: emulated over a trace, or live, by concurrent workers.

The functions here that return an `Execution` are the names that `config.execution` accepts.

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
    """An execution that `config.execution` can name.

    Attributes:
      workers: a function `workers(server, gradient_fn, batch, key=key, cuts=cuts)` that returns an iterable of
        `live.Segment`, such as `live.Threads`; None for an emulated run.

    Example:
      >>> from asyncflax import live
      >>> from asyncflax.train.execution import Execution
      >>> threads = Execution(live.Threads)
    """

    workers: Callable[..., Any] | None = None


def emulated() -> Execution:
    """Emulates the workers: the engine executes the events of `config.asynchrony`.

    >>> from asyncflax.train import execution
    >>> execution.emulated()
    Execution(workers=None)
    """
    return Execution()


def threads(*, seed: int, service_time: ServiceTime | None = None, devices: int = 0) -> Execution:
    """Each worker is a thread of this process.

    Args:
      seed: the random seed of the service times, that of the run.
      service_time: the distribution of the minimum time of a gradient; None adds no delay.
      devices: the number of local devices that the workers share; 0 for all.

    Raises:
      ValueError: there are fewer devices.
    """
    found = jax.local_devices()
    count = _check.integer("devices", devices, 0, len(found)) or len(found)
    options = {"devices": found[:count], "service_time": service_time, "seed": seed}
    return Execution(functools.partial(live.Threads, **options))
