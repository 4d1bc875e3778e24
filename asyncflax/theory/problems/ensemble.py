"""Thousands of independent trajectories of a small problem in one program.

A trajectory is momentum SGD on its own stream of samples under its own asynchrony,

    w_{t+1} = w_t + mu (w_t - w_{t-1}) - alpha grad f(w_{t - tau_t}; z_t)

as with `algorithms.momentum_asgd`: `Ensemble.replay` returns the trace and the samples with which `asyncflax.run`
reproduces it. The update is written for one trajectory and vmapped.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check, _memory
from asyncflax.staleness import StalenessLaw
from asyncflax.theory import ExponentialQueue
from asyncflax.theory._model import Staleness
from asyncflax.theory.problems import _streams, _versions
from asyncflax.trace import Trace


class Problem:
    """A problem that can be simulated: a PyTree whose leaves are its numbers, with a `stream` of `_streams`."""

    stream: str

    @property
    def start(self) -> np.ndarray:
        """The default w_0, float64 in the shape of the parameters and of the samples."""
        raise NotImplementedError

    def sample(self, numbers: Any) -> Any:
        """The sample z of one event, from independent numbers of mean 0 and variance 1; by default these."""
        return numbers

    def gradient(self, params: Any, sample: Any) -> tuple[jax.Array, jax.Array]:
        """The loss and its gradient, for one trajectory and one sample."""
        raise NotImplementedError

    def ensemble(
        self,
        staleness: Staleness,
        *,
        learning_rate: float,
        num_updates: int,
        num_trajectories: int,
        momentum: float = 0.0,
        start: Any = None,
        every: int | None = None,
        seed: int = 0,
    ) -> Ensemble:
        """Independent trajectories in one program, each with its own trace and its own stream.

        Args:
          staleness: see `asyncflax.theory`.
          learning_rate: alpha >= 0.
          num_updates: T, the number of updates.
          num_trajectories: R, the number of trajectories.
          momentum: mu in [-1, 1], the explicit momentum.
          start: w_0; by default 1 for the quadratic and the saddle e_2 for streaming PCA.
          every: the number of updates between two records, a divisor of T; by default only the end is recorded.
          seed: determines all random draws.

        Raises:
          TypeError, ValueError: an argument is invalid; the message names it.
        """
        if not isinstance(staleness, StalenessLaw | ExponentialQueue):
            staleness = _check.integer("staleness", staleness, 0, 2**30 - 1)
        _check.number("learning_rate", learning_rate, low=0.0)
        _check.momentum(momentum)
        num_updates = _check.integer("num_updates", num_updates, 1)
        trajectories = _check.integer("num_trajectories", num_trajectories, 1)
        every = _check.integer("every", num_updates if every is None else every, 1)
        seed = _check.integer("seed", seed, 0, 2**32 - 1)  # JAX keeps 32 bits
        if num_updates % every:
            raise ValueError(f"every must divide num_updates, got {every=} and {num_updates=}.")
        start = self.start if start is None else start
        _check.number("start", start)
        start = jnp.asarray(start, jnp.zeros(()).dtype)
        if start.shape != self.start.shape:
            raise ValueError(f"start must have the shape {self.start.shape}, got {start.shape}.")
        sizes = {"slots": _versions.num_slots(staleness), "records": num_updates // every, "trajectories": trajectories}
        kept, one = 2 * (sizes["records"] + 1), start.size * start.dtype.itemsize
        for name, value, count in (
            ("staleness", staleness, sizes["slots"]),
            ("num_updates", num_updates, kept),
            ("num_trajectories", trajectories, trajectories * (sizes["slots"] + kept + 4)),
        ):
            _memory.need(name, value, count * one, "the ensemble", there_are=_memory.on_devices())
        delay, law = _number_or_law(staleness)
        paths = _simulate(self, start, learning_rate, momentum, seed, every, delay, law=law, **sizes)
        return Ensemble(np.arange(0, num_updates + 1, every), np.asarray(paths), self, staleness, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
    """R independent trajectories.

    Attributes:
      updates: int [K + 1], the updates after which parameters were recorded: 0, every, 2 every, ...
      paths: float [K + 1, R, ...], the server's parameters of each trajectory then.
      problem, staleness, seed: the arguments of the simulation.

    Example:
      >>> from asyncflax.theory import problems
      >>> ensemble = problems.NoisyQuadratic(noise=1.0).ensemble(3, learning_rate=0.1, num_updates=100,
      ...     num_trajectories=1000, every=50)
      >>> ensemble.updates, ensemble.paths.shape
      (array([  0,  50, 100]), (3, 1000))
      >>> trace, samples = ensemble.replay(trajectory=7)
      >>> trace.staleness.max(), samples.shape
      (np.int32(3), (100,))
    """

    updates: np.ndarray
    paths: np.ndarray
    problem: Problem
    staleness: Staleness
    seed: int

    def replay(self, trajectory: int) -> tuple[Trace, np.ndarray]:
        """The trace and the samples [T, ...] of one trajectory, 0 to R - 1, for `asyncflax.run`."""
        count, total = self.paths.shape[1], int(self.updates[-1])
        trajectory = _check.integer("trajectory", trajectory, 0, count - 1)
        delay, law = _number_or_law(self.staleness)
        draws = _replayed(self.problem, self.seed, delay, trajectory, law=law, total=total, trajectories=count)
        drawn, samples = (np.asarray(values) for values in draws)
        worker, read_version = _versions.events(self.staleness, drawn)
        workers = self.staleness.num_workers if isinstance(self.staleness, ExponentialQueue) else 1
        return Trace(worker, read_version, num_workers=workers), samples


def _number_or_law(staleness: Staleness) -> tuple[int | None, StalenessLaw | ExponentialQueue | None]:
    """A constant delay is an argument of the program, so that delays with the same number of slots share it."""
    return (None, staleness) if isinstance(staleness, StalenessLaw | ExponentialQueue) else (staleness, None)


@functools.partial(jax.jit, static_argnames=("law", "slots", "records", "trajectories"))
def _simulate(problem, start, learning_rate, momentum, seed, every, delay, *, law, slots, records, trajectories):
    staleness = delay if law is None else law
    samples, asynchrony = jax.random.split(jax.random.key(seed))

    def update(params, velocity, read, numbers):
        """One event of one trajectory."""
        _, gradient = problem.gradient(read, problem.sample(numbers))
        velocity = momentum * velocity - learning_rate * gradient
        return params + velocity, velocity

    update_all = jax.vmap(update, in_axes=-1, out_axes=-1)
    draw_block, numbers_of, per_block = _stream(problem, samples, trajectories)

    def step(event, carry):
        params, velocity, store, block = carry
        place = event % per_block
        block = jax.lax.cond(place == 0, lambda: draw_block(event // per_block), lambda: block)
        drawn = _versions.draw(staleness, asynchrony, event, trajectories)
        read = _versions.read(staleness, store, event, drawn)
        params, velocity = update_all(params, velocity, read, numbers_of(block, place))
        return params, velocity, _versions.write(staleness, store, event, drawn, params), block

    def record(carry, k):
        carry = jax.lax.fori_loop(k * every, (k + 1) * every, step, carry)
        return carry, carry[0]

    params = jnp.broadcast_to(start[..., None], (*start.shape, trajectories))
    carry = (params, jnp.zeros_like(params), jnp.broadcast_to(params, (slots, *params.shape)), draw_block(0))
    _, paths = jax.lax.scan(record, carry, jnp.arange(records))
    return jnp.moveaxis(jnp.concatenate([params[None], paths]), -1, 1)


def _stream(problem: Problem, key: jax.Array, trajectories: int):
    """`draw_block(b)`, `numbers_of(block, place)` with the trajectories last, and the number of updates per block."""
    shape, size = problem.start.shape, problem.start.size
    draw_block = lambda b: _streams.draw(problem.stream, key, b, size, trajectories)
    numbers_of = lambda block, place: _streams.numbers(problem.stream, block, place, size).reshape(*shape, trajectories)
    return draw_block, numbers_of, _streams.updates_per_block(problem.stream, size)


@functools.partial(jax.jit, static_argnames=("law", "total", "trajectories"))
def _replayed(problem, seed, delay, trajectory, *, law, total, trajectories):
    """The draws of one trajectory: staleness or worker [T], samples [T, ...]."""
    staleness = delay if law is None else law
    samples, asynchrony = jax.random.split(jax.random.key(seed))
    draw_block, numbers_of, per_block = _stream(problem, samples, trajectories)

    def event(t):
        drawn = _versions.draw(staleness, asynchrony, t, trajectories)
        numbers = numbers_of(draw_block(t // per_block), t % per_block)[..., trajectory]
        return drawn[trajectory] if drawn.ndim else drawn, problem.sample(numbers)

    return jax.lax.map(event, jnp.arange(total))
