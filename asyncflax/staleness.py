"""Staleness laws: how many updates old is the version on which a gradient was computed?

A law is its probability mass function q_l = P(tau = l), kept as a table that ends where the rest weighs less than one
rounding error of a double. From it follow traces for the engine (`StalenessLaw.trace`: eq. 5 of the paper, drawn before
the run) and draws inside a jitted loop (`StalenessLaw.sample`: for rings and for `delay_gradients`).

Source: Mitliagkas et al. 2016 (arXiv:1605.09774), eq. 5 and Theorem 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

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
    "negative_binomial",
    "pipeline",
    "poisson",
    "uniform",
]

_LARGEST_TABLE = 2**24
_MEAN_TOLERANCE = 1e-6  # relative, of what a table leaves out and rounding
NEGLIGIBLE_MASS = 1e-6  # what a store of past versions may cut off a law without being told


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StalenessLaw:
    """The distribution of the staleness tau, in server updates.

    Attributes:
      name: how it was made, for people to read.
      table: float64 [K + 1], table[l] = q_l = P(tau = l); beyond K the probability is 0.
      mean: E tau, in closed form.

    Raises:
      TypeError: name is no text, or a number is none.
      ValueError: an entry of the table is negative or not finite, the entries do not sum to 1 within 1e-9, or the mean
        is not that of the table.

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
        _check.instance("name", self.name, str, "a text")
        table = _check.numbers("table", self.table, "a list of probabilities")
        if table.ndim != 1 or len(table) == 0:
            raise ValueError(f"table must be a list of probabilities, got an array of shape {table.shape}.")
        object.__setattr__(self, "table", table)
        bad = ~np.isfinite(self.table) | (self.table < 0)
        if bad.any():
            worst = int(np.argmax(bad))
            raise ValueError(f"{self.name}: pmf[{worst}]={self.table[worst]} is not a probability.")
        if abs(self.table.sum() - 1.0) > 1e-9:
            raise ValueError(f"{self.name}: pmf sums to {self.table.sum():.12g}, not to 1; divide it by its sum.")
        object.__setattr__(self, "mean", _check.scalar("mean", self.mean, low=0.0))
        of_table = float(np.sum(np.arange(len(table)) * table))
        if abs(self.mean - of_table) > _MEAN_TOLERANCE * (1.0 + of_table):
            raise ValueError(f"mean must be that of the table, {of_table:.9g}, got mean={self.mean!r}.")

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
        """P(tau = staleness) for integers of any shape; float64.

        Args:
          staleness: int [...]; of what is negative or beyond the table the probability is 0.

        Raises:
          TypeError: it is no integer.

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
        """P(tau > staleness): the mass that a store of versions 0..staleness old does not hold.

        Args:
          staleness: k >= -1; P(tau > -1) is everything.

        Raises:
          TypeError, ValueError: it is no integer, or below -1.

        >>> import asyncflax
        >>> asyncflax.staleness.uniform(0, 3).tail(1)
        0.5
        """
        return float(np.sum(self.table[_check.integer("staleness", staleness, -1) + 1 :][::-1]))

    def bound(self, mass: float = NEGLIGIBLE_MASS) -> int:
        """The smallest k with P(tau > k) <= mass: the staleness up to which a store has to reach.

        Args:
          mass: in [0, 1].

        Raises:
          TypeError, ValueError: it is no number, or out of its range.

        >>> import asyncflax
        >>> asyncflax.staleness.uniform(0, 14).bound(), asyncflax.staleness.geometric(7.0).bound()
        (14, 103)
        """
        mass = _check.scalar("mass", mass, low=0.0, high=1.0)
        tails = np.append(np.cumsum(self.table[::-1])[::-1], 0.0)  # tails[k] = P(tau >= k)
        return int(np.argmax(tails[1:] <= mass))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent draws as int32 of `shape`, inside or outside of jit.

        The uniform numbers behind them have the resolution of JAX's default float: 2^-23 of probability in float32.

        >>> import asyncflax, jax
        >>> asyncflax.staleness.constant(3).sample(jax.random.key(0), (2,))
        Array([3, 3], dtype=int32)
        """
        _check.key("key", key)
        shape = tuple(_check.integers("shape", shape, 0))
        uniforms = jax.random.uniform(key, shape)
        # P(tau >= k) for k = K..1, which rises: tau is how many exceed u. So small masses keep their digits.
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

        A version may be read never, once or often. Nothing says who reads it: worker ids, where a method wants them,
        are assigned afterwards and are independent of the staleness. A longer trace of the same seed begins with the
        shorter.

        Args:
          num_updates: the number of events T.
          seed: everything random follows from it.
          num_workers: how many ids to assign.
          assign: 'uniform' (independent draws) or 'round_robin'.
          before_start: what happens when tau > t, before enough versions exist. 'clamp' reads version 0 (the history is
            constant at the initial parameters). 'drop' makes no update: the trace then holds the updates that were
            made, and `time` holds the tick of each.

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
        # The right end of the table is open: rounding must not lead beyond it.
        return np.minimum(np.searchsorted(np.cumsum(self.table), uniforms, side="right"), self.maximum)

    def _drop_before_start(self, num_updates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        # After `maximum` ticks every draw finds its version, so that many more draws are always enough.
        draws = self._draw(num_updates + self.maximum, seed)
        ticks = np.arange(len(draws))
        made = draws <= ticks
        versions = np.cumsum(made) - made  # the version that the server hands out at each tick
        time = ticks[made][:num_updates]
        return versions[time - draws[time]], time.astype(np.float64)


def constant(staleness: int) -> StalenessLaw:
    """tau = staleness, always (after the first updates): round robin among staleness + 1 equal workers.

    Raises:
      ValueError: staleness is negative.

    >>> import asyncflax
    >>> asyncflax.staleness.constant(7).pmf([6, 7])
    array([0., 1.])
    """
    staleness = _check.integer("staleness", staleness, 0)
    _need_table("staleness", staleness)
    table = np.zeros(staleness + 1)
    table[-1] = 1.0
    return StalenessLaw(f"constant({staleness})", table, float(staleness))


def pipeline(num_stages: int) -> tuple[int, ...]:
    """The staleness of each stage of a pipeline without flushes: tau = P - 1 - stage, for stages 0 to P - 1.

    The first stage waits for the gradient to come back through all the others, the last one has it at once. The tuple
    is what `transforms.delay_gradients` and `transforms.store_versions` take with `labels=`, a tree of stage numbers.

    Args:
      num_stages: P >= 1.

    Raises:
      ValueError: num_stages is below 1.

    Source: asynchronous pipelines, AsyncPP (arXiv:2505.01099); the staleness of a stage is second-hand.

    >>> import asyncflax
    >>> asyncflax.staleness.pipeline(num_stages=4)
    (3, 2, 1, 0)
    """
    num_stages = _check.integer("num_stages", num_stages, 1)
    _memory.need("num_stages", num_stages, 40 * num_stages, "the tuple")
    return tuple(reversed(range(num_stages)))


def uniform(low: int, high: int) -> StalenessLaw:
    """Every integer in low..high, both included, with equal probability.

    Raises:
      ValueError: low is negative, or high is below low.

    >>> import asyncflax
    >>> asyncflax.staleness.uniform(0, 14).mean
    7.0
    """
    low = _check.integer("low", low, 0)
    high = _check.integer("high", high, low)
    _need_table("high", high)
    table = np.where(np.arange(high + 1) >= low, 1.0 / (high - low + 1), 0.0)
    return StalenessLaw(f"uniform({low}, {high})", table, (low + high) / 2)


def geometric(mean: float) -> StalenessLaw:
    """q_l = (1 - mu) mu^l with implicit momentum mu = mean / (1 + mean): asynchrony that acts as momentum.

    With M workers and exponential work, mean = M - 1 and mu = 1 - 1/M.

    Source: Mitliagkas et al. 2016, Theorems 3 and 5.

    Raises:
      ValueError: mean is negative, or so large that the table would exceed 2^24 entries.

    >>> import asyncflax
    >>> asyncflax.staleness.geometric(mean=1.0).pmf([0, 1, 2])
    array([0.5  , 0.25 , 0.125])
    """
    mean = _check.scalar("mean", mean, low=0.0)
    mu = mean / (1.0 + mean)
    return _from_ratio(f"geometric({mean:g})", 1.0 / (1.0 + mean), lambda k: np.full(len(k), mu), float(mean))


def poisson(mean: float) -> StalenessLaw:
    """q_l = e^-mean mean^l / l!.

    Raises:
      ValueError: mean is not in [0, 700].

    >>> import asyncflax
    >>> asyncflax.staleness.poisson(7.0).pmf(7).round(6)
    np.float64(0.149003)
    """
    mean = _check.scalar("mean", mean, low=0.0, high=700.0)  # e^-mean must not underflow
    return _from_ratio(f"poisson({mean:g})", np.exp(-mean), lambda k: mean / k, float(mean))


def negative_binomial(mean: float, shape: float) -> StalenessLaw:
    """A Poisson whose rate is gamma distributed with `shape`: shape 1 is geometric, shape to infinity is Poisson.

    Var tau = mean + mean^2 / shape.

    Raises:
      ValueError: mean is negative, shape is not positive, or both are so large that P(0) underflows.

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
    """The law with P(tau = l) = pmf[l], for example a histogram of measured staleness.

    Raises:
      ValueError: an entry is negative or not finite, or the entries do not sum to 1 within 1e-9.

    >>> import asyncflax
    >>> asyncflax.staleness.empirical([0.25, 0.5, 0.25]).mean
    1.0
    """
    table = np.array(_check.numbers("pmf", pmf, "a list of probabilities"))
    if table.ndim != 1 or len(table) == 0:
        raise ValueError(f"pmf must be a list of probabilities, got an array of shape {table.shape}.")
    return StalenessLaw(f"empirical({len(table)} values)", table, float(np.sum(np.arange(len(table)) * table)))


def _need_table(name: str, largest: int) -> None:
    """A table up to the largest staleness, and what a law computes from it."""
    _memory.need(name, largest, 40 * largest, "the table of the law")


def _from_ratio(name: str, first: float, ratio: Callable[[np.ndarray], np.ndarray], mean: float) -> StalenessLaw:
    """The table with q_0 = first and q_k = ratio(k) q_{k-1}, up to where the rest is below rounding."""
    if mean == 0.0:
        return StalenessLaw(name, np.ones(1), 0.0)
    size = 64
    while size <= _LARGEST_TABLE:
        k = np.arange(1, size)
        table = first * np.cumprod(np.concatenate([[1.0], ratio(k)]))
        tails = np.cumsum(table[::-1])[::-1]
        # The terms that are left out fall at least geometrically once the ratio is below 1.
        last_ratio = ratio(np.array([size]))[0]
        if last_ratio < 1 and table[-1] / (1 - last_ratio) < 2.0**-56:
            return StalenessLaw(name, table[: int(np.argmax(tails < 2.0**-54)) or size], mean)
        size *= 2
    raise ValueError(f"{name} reaches beyond a staleness of {_LARGEST_TABLE:,}; take a smaller mean={mean:g}.")
