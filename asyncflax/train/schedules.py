"""Learning-rate schedules for `config.schedule`.

Each function here takes a `learning_rate`, a number that sweeps may trace, and returns an `optax.Schedule` of the
server's updates, which are gradients even under `ssgd`, whose steps take a round of workers. All have a linear warm-up:
`warmup` is its number of updates (default 0), which must be less than `num_updates`, and `warmup_from` the share of the
learning rate where it begins (default 0; None for 1 / `num_workers`). They raise a ValueError if a value is out of
range. Dotted names are schedules of Optax or your own; one without a parameter learning_rate returns multipliers of it,
so its peak is 1:

    --config.schedule='optax.warmup_cosine_decay_schedule(init_value=0, peak_value=1, warmup_steps=9, decay_steps=90)'

Example:
  >>> from asyncflax.train import TrainConfig, schedules
  >>> run = {"num_updates": 1000, "num_workers": 4}
  >>> rates = lambda schedule: [round(float(schedule(t)), 3) for t in (50, 500, 750, 1000)]
  >>> rates(schedules.constant(0.5, num_workers=4, warmup=100))
  [0.25, 0.5, 0.5, 0.5]
  >>> rates(schedules.cosine(0.5, **run))
  [0.497, 0.25, 0.073, 0.0]
  >>> rates(schedules.linear(0.5, begin=0.5, **run))
  [0.5, 0.5, 0.25, 0.0]
  >>> rates(schedules.steps(0.5, at=(0.5, 0.75), factor=0.1, **run))
  [0.5, 0.05, 0.005, 0.005]
  >>> text = "optax.linear_schedule(init_value=1, end_value=0, transition_steps=1000)"
  >>> rates(schedules.make_schedule(TrainConfig(schedule=text).named.schedule, 0.5, **run))
  [0.475, 0.25, 0.125, 0.0]
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asyncflax import _check
from asyncflax.train.options import Spec

__all__ = ["Schedule", "constant", "cosine", "linear", "make_schedule", "steps"]


class Schedule(Protocol):
    """A function of the server's updates, as `optax.Schedule`.

    Example: see the module.
    """

    def __call__(self, update: Any, /) -> Any:
        """The learning rate of an update, int32 []."""
        ...


def _with_warmup(make: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Adds the warm-up to a schedule, with its keywords."""

    def warmed(
        learning_rate: Any, *, num_workers: int, warmup: int = 0, warmup_from: float | None = 0.0, **options: Any
    ) -> Schedule:
        _check.integer("warmup", warmup, 0)
        share = 1 / num_workers if warmup_from is None else warmup_from
        _check.number("warmup_from", share, low=0.0, high=1.0)
        schedule = make(learning_rate, **options, **({"warmup": warmup} if takes_warmup else {}))
        if warmup == 0:
            if warmup_from != 0.0:
                raise ValueError(f"warmup_from={warmup_from} needs warmup, which is 0.")
            return schedule
        rising = optax.linear_schedule(share, 1.0, warmup)
        return lambda t: rising(t) * schedule(t)

    own, added = inspect.signature(make), inspect.signature(warmed)
    takes_warmup = "warmup" in own.parameters
    parameters = {name: p for name, p in {**own.parameters, **added.parameters}.items() if name != "options"}
    functools.update_wrapper(warmed, make)
    warmed.__signature__ = own.replace(parameters=[*parameters.values()])  # pyright: ignore[reportFunctionMemberAccess]
    warmed.__annotations__ = {**{name: p.annotation for name, p in parameters.items()}, "return": "Schedule"}
    return warmed


@_with_warmup
def constant(learning_rate: Any) -> Schedule:
    """The learning rate, after the warm-up.

    With the default warm-up of 0 updates it never changes.
    """
    return optax.constant_schedule(learning_rate)


@_with_warmup
def cosine(learning_rate: Any, *, num_updates: int, end: float = 0.0, warmup: int = 0) -> Schedule:
    r"""Half a cosine from the end of the warm-up, :math:`t_0`, to the last of T updates:

    .. math:: \alpha_t = \alpha \left( e + (1 - e) \tfrac12 (1 + \cos \pi \tfrac{t - t_0}{T - t_0}) \right)

    Args:
      end: e, the share of the learning rate at the end, in [0, 1].

    Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), eq. 5, without restarts.
    """
    _check.number("end", end, low=0.0, high=1.0)
    falling = optax.cosine_decay_schedule(learning_rate, _after(warmup, num_updates), alpha=end)
    return lambda t: falling(jnp.maximum(t - warmup, 0))


@_with_warmup
def linear(learning_rate: Any, *, num_updates: int, begin: float = 0.0, end: float = 0.0, warmup: int = 0) -> Schedule:
    """Linear decay to the last update; with `begin`, constant before it (warm-up, stable, decay).

    Args:
      begin: the share of the updates after which the decay begins, in [0, 1); not before the end of the warm-up.
      end: the share of the learning rate at the end, in [0, 1].
    """
    _check.number("begin", begin, low=0.0, high=1.0, exclusive_high=True)
    _check.number("end", end, low=0.0, high=1.0)
    _after(warmup, num_updates)
    first = max(round(begin * num_updates), warmup)
    share = optax.linear_schedule(1.0, end, num_updates - first, first)
    return lambda t: share(t) * learning_rate


@_with_warmup
def steps(
    learning_rate: Any, *, num_updates: int, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1
) -> Schedule:
    """Multiplies the learning rate by a factor after given shares of the run.

    Args:
      at: the shares of the updates, increasing; (0.5, 0.75) is after 80 and 120 of 160 epochs.
      factor: the multiplier, >= 0.
    """
    at = at if isinstance(at, tuple | list) else (at,)
    _check.number("at", at, low=0.0, high=1.0)
    _check.number("factor", factor, low=0.0)
    updates = [round(share * num_updates) for share in at]
    if updates != sorted(set(updates)):
        raise ValueError(f"at must increase by at least one update, got {at}.")
    return optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(updates, factor))


def make_schedule(spec: Spec, learning_rate: Any, *, num_updates: int, num_workers: int) -> Schedule:
    """Returns the schedule that a config names.

    Args:
      spec: `config.schedule`.

    Raises:
      TypeError, ValueError: an option is out of range, or the function returns no schedule or a negative rate.
    """
    made = spec.make(learning_rate=learning_rate, num_updates=num_updates, num_workers=num_workers)
    if not callable(made):
        raise TypeError(f"{spec.field}: {spec.name} must return a function of the update, got {_check.shown(made)}.")
    schedule = made if spec.accepts("learning_rate") else lambda t: learning_rate * made(t)
    if spec.imported and not _check.is_traced(learning_rate):
        _try(spec, schedule, num_updates)
    return schedule


def _try(spec: Spec, schedule: Schedule, num_updates: int) -> None:
    """Evaluates an imported schedule at all updates, to fail before training starts."""
    with spec.reporting():
        rates = np.asarray(jax.vmap(schedule)(jnp.arange(num_updates)), float)
    bad = np.flatnonzero(~np.isfinite(rates) | (rates < 0)) if rates.shape == (num_updates,) else [0]
    if len(bad):
        raise ValueError(
            f"{spec.field}: {spec.name} must return one finite learning rate >= 0 per update, got {rates[bad[0]]} at "
            f"update {bad[0]}."
        )


def _after(warmup: int, num_updates: int) -> int:
    """The number of updates after the warm-up."""
    if warmup >= num_updates:
        raise ValueError(f"warmup must be less than num_updates={num_updates}, got {warmup}.")
    return num_updates - warmup
