"""The config of a study of streaming PCA, and the settings that follow from it."""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
from typing import Any, NamedTuple

from asyncflax import _check, _memory, theory
from asyncflax.theory.problems import StreamingPca


@dataclasses.dataclass
class StreamingPcaConfig:
    """The config of a study.

    Example:
      >>> from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig
      >>> StreamingPcaConfig(momenta=(0.8, 1.0)).check()
      Traceback (most recent call last):
        ...
      ValueError: config.momenta must be below 1, got (0.8, 1.0).
    """

    # The problem.
    eigenvalues: tuple[float, ...] = (4.0, 3.0, 2.0, 1.0)  # of the covariance, in decreasing order
    stream: str = "signs"  # the distribution of the samples: 'signs' or 'gaussian', see StreamingPca

    # The grid.
    momenta: tuple[float, ...] = (0.70, 0.80, 0.85, 0.90, 0.95)  # mu
    learning_rates: tuple[float, ...] = (5e-4, 2.5e-4, 1.25e-4)  # eta; the claims are about the first
    margins: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5)  # delays over delay_margin

    # Length and number of runs, and tolerance.
    slow_time: float = 18.0  # S: updates times eta / (1 - mu)
    records: int = 48  # how often the error is recorded, a multiple of 12
    tolerance: float = 0.5  # r: the largest relative increase of the error under the tolerable delay
    replicates: int = 16  # independent ensembles, for the intervals
    trajectories: int = 512  # in each ensemble
    seed: int = 0

    # Asynchrony against momentum.
    workers: int = 16  # M
    asynchronous_learning_rate: float = 0.014  # eta; momentum SGD has eta / M, by Theorem 5 of Mitliagkas et al.

    threads: int = dataclasses.field(default=0, metadata={"free": True})  # settings at a time; 0 for one per core

    def check(self) -> None:
        """Raises TypeError or ValueError for the first field with a wrong type or value."""
        for name in ("eigenvalues", "momenta", "learning_rates", "margins"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values:
                raise TypeError(f"config.{name} must be a tuple of numbers such as (0.8, 0.9), got {values!r}.")
            _check.number(f"config.{name}", values, low=0.0, exclusive_low=name != "momenta")
        StreamingPca(self.eigenvalues, self.stream)
        if len(self.momenta) < 2 or list(self.momenta) != sorted(set(self.momenta)):
            raise ValueError(f"config.momenta must be at least two increasing values, got {self.momenta}.")
        if self.momenta[-1] >= 1:
            raise ValueError(f"config.momenta must be below 1, got {self.momenta}.")
        if list(self.margins) != sorted(set(self.margins)):
            raise ValueError(f"config.margins must be increasing, got {self.margins}.")
        for name in ("slow_time", "tolerance", "asynchronous_learning_rate"):
            _check.scalar(f"config.{name}", getattr(self, name), low=0.0, exclusive_low=True)
        for name, least in {"records": 12, "replicates": 2, "trajectories": 1, "workers": 2, "threads": 0}.items():
            _check.integer(f"config.{name}", getattr(self, name), least)
        if self.records % 12:
            raise ValueError(f"config.records must be a multiple of 12, got {self.records}.")
        _check.integer("config.seed", self.seed, 0, 2**32 - 1)  # JAX keeps 32 bits
        rows = 4 * len(self.eigenvalues) * self.replicates * self.trajectories  # bytes of one version
        _memory.need("config.trajectories", self.trajectories, 3 * (self.records + 2) * rows, "an ensemble")
        _memory.need("config.workers", self.workers, (self.workers + 3 * (self.records + 2)) * rows, "an ensemble")
        for eta in self.learning_rates:
            if margin_of(self, eta, self.momenta[-1]) < 2:
                raise ValueError(
                    f"config.learning_rates: at {eta} a momentum of {self.momenta[-1]} tolerates only a delay below 2; "
                    "use smaller learning rates."
                )


class Cell(NamedTuple):
    """The setting of an ensemble.

    Attributes:
      name: the name of its file.
      staleness: an integer or an `ExponentialQueue`.
      learning_rate: eta.
      momentum: mu.
      every: updates between two records.
    """

    name: str
    staleness: Any
    learning_rate: float
    momentum: float
    every: int


def margin_of(config: StreamingPcaConfig, eta: float, momentum: float) -> float:
    """The delay that the linearized recursion tolerates at the largest curvature of the optimum, that of |v|."""
    return theory.streaming_pca.delay_margin(momentum, 2 * eta * config.eigenvalues[0])


def delays_of(config: StreamingPcaConfig, eta: float, momentum: float) -> list[int]:
    """0 and a grid of delays around the margin."""
    margin = margin_of(config, eta, momentum)
    return sorted({0, *(round(fraction * margin) for fraction in config.margins)})


def cells_of(config: StreamingPcaConfig) -> list[Cell]:
    """All settings, the longest first."""
    cells = [
        Cell(f"eta{eta:g}-mu{momentum:g}-tau{delay}", delay, eta, momentum, _every(config, eta, momentum))
        for eta in config.learning_rates
        for momentum in config.momenta
        for delay in delays_of(config, eta, momentum)
    ]
    return sorted([*cells, *kinds_of(config)], key=lambda cell: -cell.every)


def kinds_of(config: StreamingPcaConfig) -> list[Cell]:
    """Settings of asynchrony with mean staleness M - 1, of its implicit momentum as explicit one, and of neither."""
    workers, eta = config.workers, config.asynchronous_learning_rate
    every = _every(config, eta, 0.0)
    return [
        Cell("plain", 0, eta, 0.0, every),
        Cell("momentum", 0, eta / workers, theory.implicit_momentum(workers), every),
        Cell("queue", theory.ExponentialQueue(workers), eta, 0.0, every),
        Cell("constant", workers - 1, eta, 0.0, every),
    ]


def _every(config: StreamingPcaConfig, eta: float, momentum: float) -> int:
    return max(round(config.slow_time * (1 - momentum) / eta / config.records), 1)
