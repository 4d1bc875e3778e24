"""Sources of asynchrony for `config.asynchrony`.

Each function here returns an `Asynchrony`: the trace of `num_workers` workers over `num_updates` updates, drawn with
`seed`. A dotted name is a function of your own with the same interface.

Example:
  >>> import asyncflax, tempfile
  >>> from asyncflax.train import asynchrony
  >>> asynchrony.queue(num_workers=4, num_updates=100, seed=0).law
  geometric(3)
  >>> asynchrony.barrier(num_workers=2, num_updates=6, seed=0).trace.staleness
  array([0, 1, 0, 1, 0, 1], dtype=int32)
  >>> distribution = asyncflax.staleness.constant(2)
  >>> asynchrony.law(num_workers=1, num_updates=4, seed=0, distribution=distribution).trace.staleness
  array([0, 1, 2, 2], dtype=int32)
  >>> path = f"{tempfile.mkdtemp()}/trace.npz"
  >>> asyncflax.staleness.constant(1).trace(num_updates=9).save(path)
  >>> asynchrony.recorded(num_workers=1, num_updates=3, path=path).trace.staleness
  array([0, 1, 1], dtype=int32)
  >>> asynchrony.inputs(asyncflax.train.TrainConfig().named.asynchrony)
  {}
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import NamedTuple

from asyncflax import _check, queues
from asyncflax.queues import ServiceTime
from asyncflax.staleness import StalenessLaw
from asyncflax.trace import Trace
from asyncflax.train.options import Spec

__all__ = ["Asynchrony", "barrier", "inputs", "law", "queue", "recorded"]

_EXPONENTIAL = queues.exponential()


class Asynchrony(NamedTuple):
    """A trace and the theoretical distribution of its staleness.

    Attributes:
      trace: the `Trace`, which worker delivers when and which version it had read.
      law: the theoretical distribution of its staleness, or None if unknown.
    """

    trace: Trace
    law: StalenessLaw | None = None


def queue(
    *,
    num_workers: int,
    num_updates: int,
    seed: int,
    service_time: ServiceTime = _EXPONENTIAL,
    max_staleness: int | None = None,
    policy: str | None = None,
    server_time: ServiceTime | None = None,
    link_time: ServiceTime | None = None,
) -> Asynchrony:
    """Asynchronous workers: `queues.simulate`.

    Args:
      service_time: the distribution of gradient times, exponential() by default.
      max_staleness, policy, server_time, link_time: see `queues.simulate`.
    """
    trace = queues.simulate(
        num_workers=num_workers,
        num_updates=num_updates,
        service_time=service_time,
        seed=seed,
        max_staleness=max_staleness,
        policy=policy,
        server_time=server_time,
        link_time=link_time,
    )
    is_plain = max_staleness is None and server_time is None and link_time is None
    return Asynchrony(trace, service_time.staleness(num_workers) if is_plain else None)


def barrier(*, num_workers: int, num_updates: int, seed: int, service_time: ServiceTime = _EXPONENTIAL) -> Asynchrony:
    """Synchronous workers, as `ssgd` requires: `queues.barrier`.

    Args:
      service_time: the distribution of gradient times, exponential() by default.
    """
    common = {"num_workers": num_workers, "num_updates": num_updates, "seed": seed}
    return Asynchrony(queues.barrier(service_time=service_time, **common))


def law(
    *,
    num_workers: int,
    num_updates: int,
    seed: int,
    distribution: StalenessLaw,
    assign: str = "uniform",
    before_start: str = "clamp",
) -> Asynchrony:
    """Staleness drawn from a distribution: `StalenessLaw.trace`.

    Args:
      distribution: the distribution of the staleness.
      assign, before_start: see `StalenessLaw.trace`.
    """
    _check.instance("distribution", distribution, StalenessLaw, "a distribution of asyncflax.staleness")
    common = {"num_workers": num_workers, "num_updates": num_updates, "seed": seed}
    return Asynchrony(distribution.trace(assign=assign, before_start=before_start, **common), distribution)


def recorded(*, num_workers: int, num_updates: int, path: str) -> Asynchrony:
    """The first events of a saved trace, which is identified by its content, not its path.

    Args:
      path: the file of the trace.

    Raises:
      ValueError: the trace has another number of workers, or fewer events.
    """
    trace = Trace.load(path)
    if trace.num_workers != num_workers or len(trace) < num_updates:
        raise ValueError(
            f"config.num_workers={num_workers} and config.num_updates={num_updates} do not fit the trace, which has "
            f"{trace.num_workers} workers and {len(trace)} events; change them."
        )
    return Asynchrony(trace.prefix(num_updates))


def inputs(spec: Spec) -> dict[str, str]:
    """The digest of the file that a trace is read from, as an input of the run; {} for other sources.

    Args:
      spec: the spec of `config.asynchrony`.

    Raises:
      FileNotFoundError: the file does not exist.
    """
    if spec.name != "recorded":
        return {}
    return {"trace": hashlib.sha256(pathlib.Path(spec.option("path", "")).read_bytes()).hexdigest()}
