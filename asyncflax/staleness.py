"""Staleness distributions: the age, in updates, of the version on which a gradient was computed.

A distribution is its probability mass function q_l = P(tau = l), stored as a table that is cut off where the tail is
below double precision (2^24 entries at most). It generates traces for the engine (`StalenessLaw.trace`, eq. 5 of the
paper) and samples inside a jitted loop (`StalenessLaw.sample`, for rings and `delay_gradients`).

Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 5 and Theorem 3.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check, _memory
from asyncflax.trace import Trace

__all__ = [
    "StalenessLaw",
    "constant",
    "empirical",
    "geometric",
    "measured",
    "negative_binomial",
    "pipeline",
    "poisson",
    "uniform",
]

_LARGEST_TABLE = 2**24
_MEAN_TOLERANCE = 1e-6  # relative, for the truncated tail and rounding
NEGLIGIBLE_MASS = 1e-6  # tail mass that a store of past versions may truncate by default


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StalenessLaw:
    """The distribution of the staleness tau, in server updates.

    Attributes:
      name: the name that `repr` shows.
      table: float64 [K + 1], table[l] = q_l = P(tau = l); the probability beyond K is 0.
      mean: E tau, in closed form.

    Raises:
      ValueError: the entries are not probabilities that sum to 1 within 1e-9, or the mean does not match the table.

    Example:
      >>> import asyncflax
      >>> law = asyncflax.staleness.geometric(mean=7.0)
      >>> float(law.pmf(0)), law.mean, round(law.variance, 6)
      (0.125, 7.0, 56.0)
    """

    name: str
    table: np.ndarray
    mean: float

    def __post_init__(self):
        _check.instance("name", self.name, str, "a str")
        table = _table("table", self.table)
        object.__setattr__(self, "table", table)
        bad = ~np.isfinite(self.table) | (self.table < 0)
        if bad.any():
            worst = int(np.argmax(bad))
            raise ValueError(f"{self.name}: pmf[{worst}]={self.table[worst]} is not a probability.")
        if abs(self.table.sum() - 1.0) > 1e-9:
            raise ValueError(f"{self.name}: pmf sums to {self.table.sum():.12g}, not 1; divide it by its sum.")
        object.__setattr__(self, "mean", _check.scalar("mean", self.mean, low=0.0))
        of_table = float(np.sum(np.arange(len(table)) * table))
        if abs(self.mean - of_table) > _MEAN_TOLERANCE * (1.0 + of_table):
            raise ValueError(f"mean must match the table's mean, {of_table:.9g}, got mean={self.mean!r}.")

    def __repr__(self) -> str:
        return self.name

    @property
    def maximum(self) -> int:
        """The largest staleness in the table."""
        return len(self.table) - 1

    @property
    def variance(self) -> float:
        """Var tau, from the table."""
        k = np.arange(len(self.table))
        return float(np.sum(self.table * (k - self.mean) ** 2))

    @property
    def implicit_momentum(self) -> float | None:
        """mu_S = 1 - q_0 of a geometric distribution, 1 - 1/M if its mean is M - 1; None for any other.

        Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorems 3 and 5.

        >>> import asyncflax
        >>> asyncflax.staleness.geometric(mean=7.0).implicit_momentum
        0.875
        >>> asyncflax.staleness.constant(7).implicit_momentum is None
        True
        """
        mu = 1.0 - self.table[0]
        powers = self.table[0] * mu ** np.arange(len(self.table))
        return float(mu) if np.allclose(self.table, powers, rtol=1e-9, atol=0.0) else None

    def pmf(self, staleness: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """P(tau = staleness) for integers of any shape; float64, 0 outside of the table.

        >>> import asyncflax
        >>> asyncflax.staleness.uniform(0, 3).pmf([0, 3, 4])
        array([0.25, 0.25, 0.  ])
        """
        k = _check.numbers("staleness", staleness, "integers")
        if not np.all(k == np.floor(k)):
            raise TypeError(f"staleness must be integers, got {_check.shown(staleness)}.")
        inside = (k >= 0) & (k <= self.maximum)
        return np.where(inside, self.table[np.where(inside, k, 0).astype(np.int64)], 0.0)

    def tail(self, staleness: int) -> float:
        """P(tau > staleness): the probability that a store of the newest staleness + 1 versions misses.

        >>> import asyncflax
        >>> asyncflax.staleness.uniform(0, 3).tail(1)
        0.5
        """
        return float(np.sum(self.table[_check.integer("staleness", staleness, -1) + 1 :][::-1]))

    def bound(self, mass: float = NEGLIGIBLE_MASS) -> int:
        """The smallest k with P(tau > k) <= mass: the largest staleness that a store must cover.

        >>> import asyncflax
        >>> asyncflax.staleness.uniform(0, 14).bound(), asyncflax.staleness.geometric(7.0).bound()
        (14, 103)
        """
        mass = _check.scalar("mass", mass, low=0.0, high=1.0)
        tails = np.append(np.cumsum(self.table[::-1])[::-1], 0.0)  # tails[k] = P(tau >= k)
        return int(np.argmax(tails[1:] <= mass))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent samples, int32 of `shape`; jittable.

        Probabilities are resolved to the precision of JAX's default float, 2^-23 in float32.

        >>> import asyncflax, jax
        >>> asyncflax.staleness.constant(3).sample(jax.random.key(0), (2,))
        Array([3, 3], dtype=int32)
        """
        _check.key("key", key)
        shape = tuple(_check.integers("shape", shape, 0))
        uniforms = jax.random.uniform(key, shape)
        # P(tau >= k) for k = K..1 increases; tau is the number that exceed u. Small tails keep full precision.
        tails = jnp.asarray(np.cumsum(self.table[::-1])[:-1], uniforms.dtype)
        return self.maximum - jnp.searchsorted(tails, uniforms, side="right").astype(jnp.int32)

    def trace(
        self,
        num_updates: int,
        *,
        seed: int = 0,
        num_workers: int = 1,
        assign: str = "uniform",
        before_start: str = "clamp",
    ) -> Trace:
        """A trace of `num_updates` events with independent staleness.

        A version may be read never, once or several times. Worker ids are assigned independently of the staleness, for
        methods that need them. A longer trace with the same seed extends the shorter one.

        Args:
          num_updates: the number of events.
          seed: determines all random draws.
          num_workers: the number of worker ids.
          assign: 'uniform' (independent draws) or 'round_robin'.
          before_start: what to do if tau > t, before enough versions exist. 'clamp' reads version 0 (the history is
            constant at the initial parameters). 'drop' skips the update: the trace contains only the updates made, and
            `time` the tick of each.

        Example:
          >>> import asyncflax
          >>> asyncflax.staleness.constant(2).trace(num_updates=5).staleness
          array([0, 1, 2, 2, 2], dtype=int32)
          >>> asyncflax.staleness.constant(2).trace(num_updates=3, before_start="drop").time
          array([2., 3., 4.])
        """
        num_updates = _check.integer("num_updates", num_updates, 1)
        seed = _check.integer("seed", seed, 0, None)
        num_workers = _check.integer("num_workers", num_workers, 1)
        _check.choice("assign", assign, ("uniform", "round_robin"))
        _check.choice("before_start", before_start, ("clamp", "drop"))
        _memory.need("num_updates", num_updates, 80 * num_updates + 40 * self.maximum, "the trace")
        ticks = np.arange(num_updates)
        if before_start == "clamp":
            read_version, time = np.maximum(ticks - self._draw(num_updates, seed), 0), None
        else:
            read_version, time = self._drop_before_start(num_updates, seed)
        if assign == "uniform":
            worker = np.random.default_rng([seed, 1]).integers(num_workers, size=num_updates)
        else:
            worker = ticks % num_workers
        return Trace(worker, read_version, time, num_workers)

    def _draw(self, size: int, seed: int) -> np.ndarray:
        uniforms = np.random.default_rng([seed, 0]).random(size)
        # Rounding of the cumulative sum must not lead beyond the table.
        return np.minimum(np.searchsorted(np.cumsum(self.table), uniforms, side="right"), self.maximum)

    def _drop_before_start(self, num_updates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        # From tick `maximum` on every version exists, so this many extra draws always suffice.
        draws = self._draw(num_updates + self.maximum, seed)
        ticks = np.arange(len(draws))
        made = draws <= ticks
        versions = np.cumsum(made) - made  # the version that the server hands out at each tick
        time = ticks[made][:num_updates]
        return versions[time - draws[time]], time.astype(np.float64)


def constant(staleness: int) -> StalenessLaw:
    """tau = staleness (after the first updates): round robin among staleness + 1 equal workers.

    >>> import asyncflax
    >>> asyncflax.staleness.constant(7).pmf([6, 7])
    array([0., 1.])
    """
    staleness = _check.integer("staleness", staleness, 0)
    return _equal(f"constant({staleness})", staleness, staleness, "staleness")


def pipeline(num_stages: int) -> tuple[int, ...]:
    """The staleness of each stage of a pipeline without flushes: tau = num_stages - 1 - stage, for stages from 0.

    The gradient reaches the first stage after passing through all others, and the last stage immediately. Pass the
    tuple to `transforms.delay_gradients` or `transforms.store_versions` with `labels=`, a tree of stage numbers.

    Source: asynchronous pipelines, AsyncPP (arXiv:2505.01099); the staleness of a stage is second-hand.

    >>> import asyncflax
    >>> asyncflax.staleness.pipeline(num_stages=4)
    (3, 2, 1, 0)
    """
    num_stages = _check.integer("num_stages", num_stages, 1)
    _memory.need("num_stages", num_stages, 40 * num_stages, "the tuple")
    return tuple(reversed(range(num_stages)))


def uniform(low: int, high: int) -> StalenessLaw:
    """Uniform on the integers low..high, inclusive.

    >>> import asyncflax
    >>> asyncflax.staleness.uniform(0, 14).mean
    7.0
    """
    low = _check.integer("low", low, 0)
    high = _check.integer("high", high, low)
    return _equal(f"uniform({low}, {high})", low, high, "high")


def geometric(mean: float) -> StalenessLaw:
    """q_l = (1 - mu) mu^l, which acts as an implicit momentum of mu = mean / (1 + mean).

    With M workers and exponential service times, mean = M - 1 and mu = 1 - 1/M.

    Source: Mitliagkas et al. 2016, Theorems 3 and 5.

    >>> import asyncflax
    >>> asyncflax.staleness.geometric(mean=1.0).pmf([0, 1, 2])
    array([0.5  , 0.25 , 0.125])
    """
    mean = _check.scalar("mean", mean, low=0.0)
    mu = mean / (1.0 + mean)
    return _from_ratio(f"geometric({mean:g})", 1.0 / (1.0 + mean), lambda k: np.full(len(k), mu), float(mean))


def poisson(mean: float) -> StalenessLaw:
    """q_l = e^-mean mean^l / l!, for a mean of at most 700.

    >>> import asyncflax
    >>> asyncflax.staleness.poisson(7.0).pmf(7).round(6)
    np.float64(0.149003)
    """
    mean = _check.scalar("mean", mean, low=0.0, high=700.0)  # e^-mean must not underflow
    return _from_ratio(f"poisson({mean:g})", np.exp(-mean), lambda k: mean / k, float(mean))


def negative_binomial(mean: float, shape: float) -> StalenessLaw:
    """A Poisson distribution with gamma-distributed rate: geometric for `shape` 1, Poisson for infinite shape.

    Var tau = mean + mean^2 / shape. P(0) must not underflow.

    >>> import asyncflax
    >>> law = asyncflax.staleness.negative_binomial(mean=7.0, shape=2.0)
    >>> round(law.variance, 6)
    31.5
    """
    mean = _check.scalar("mean", mean, low=0.0)
    shape = _check.scalar("shape", shape, low=0.0, exclusive_low=True)
    mu = mean / (shape + mean)
    first = np.exp(shape * np.log1p(-mu))
    if first == 0.0:
        raise ValueError(f"negative_binomial({mean=}, {shape=}): P(0) underflows; use poisson(mean).")
    name = f"negative_binomial({mean:g}, {shape:g})"
    return _from_ratio(name, first, lambda k: mu * (k - 1 + shape) / k, float(mean))


def empirical(pmf: Sequence[float] | np.ndarray) -> StalenessLaw:
    """The distribution with P(tau = l) = pmf[l], for example a histogram of measured staleness.

    >>> import asyncflax
    >>> asyncflax.staleness.empirical([0.25, 0.5, 0.25]).mean
    1.0
    """
    table = _table("pmf", pmf).copy()
    return StalenessLaw(f"empirical({len(table)} values)", table, float(np.sum(np.arange(len(table)) * table)))


def measured(trace: Trace | str | os.PathLike[str], *, burn_in: int = 0) -> StalenessLaw:
    """The histogram of the staleness of a trace, for example for `theory.momentum_kernel`.

    Args:
      trace: a trace, or the path of one.
      burn_in: the number of initial events to skip, in which a queue fills.

    Raises:
      FileNotFoundError, ValueError: the trace cannot be loaded, or burn_in is negative or leaves no event.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 2 holds for any distribution.

    >>> import asyncflax
    >>> q = asyncflax.queues
    >>> trace = q.simulate(num_workers=4, num_updates=1000, service_time=q.deterministic())
    >>> asyncflax.staleness.measured(trace, burn_in=4).pmf([2, 3])
    array([0., 1.])
    """
    if not isinstance(trace, Trace):
        trace = Trace.load(_check.path("trace", trace))
    burn_in = _check.integer("burn_in", burn_in, 0)
    if burn_in >= len(trace):
        raise ValueError(f"burn_in={burn_in} must be less than the number of events, {len(trace)}.")
    staleness = trace.staleness[burn_in:]
    return empirical(np.bincount(staleness) / len(staleness))


def _table(name: str, values: Any) -> np.ndarray:
    """float64 [K + 1]."""
    table = _check.numbers(name, values, "a list of probabilities")
    if table.ndim != 1 or len(table) == 0:
        raise ValueError(f"{name} must be a list of probabilities, got an array of shape {table.shape}.")
    return table


def _equal(name: str, low: int, high: int, argument: str) -> StalenessLaw:
    """Equal probabilities for low..high; errors name `argument`."""
    _memory.need(argument, high, 40 * high, "the table of the distribution")
    table = np.where(np.arange(high + 1) >= low, 1.0 / (high - low + 1), 0.0)
    return StalenessLaw(name, table, (low + high) / 2)


def _from_ratio(name: str, first: float, ratio: Callable[[np.ndarray], np.ndarray], mean: float) -> StalenessLaw:
    """The table with q_0 = first and q_k = ratio(k) q_{k-1}, cut off where the tail is below rounding."""
    if mean == 0.0:
        return StalenessLaw(name, np.ones(1), 0.0)
    size = 64
    while size <= _LARGEST_TABLE:
        k = np.arange(1, size)
        table = first * np.cumprod(np.concatenate([[1.0], ratio(k)]))
        tails = np.cumsum(table[::-1])[::-1]
        # Once the ratio is below 1, the remaining terms decrease at least geometrically.
        last_ratio = ratio(np.array([size]))[0]
        if last_ratio < 1 and table[-1] / (1 - last_ratio) < 2.0**-56:
            return StalenessLaw(name, table[: int(np.argmax(tails < 2.0**-54)) or size], mean)
        size *= 2
    raise ValueError(f"{name} reaches beyond a staleness of {_LARGEST_TABLE:,}; use a smaller mean than {mean:g}.")
