r"""How wide to make the rounds of a trace, and what that buys, before anything is run: a model of time.

A round has W lanes, and computes W gradients whether or not all of them belong to an event. A wider round has more
events, a smaller share of its lanes is filled, and more versions and gradients are on the move. In units of one
gradient on one device, for G device groups of R devices each:

    a round                   h + (1 - h) W / (G R)  for its gradients, u for each update that it applies in order
    one event after another   1 + u
    speed-up                  T (1 + u) / (T u + sum over rounds of h + (1 - h) W / (G R))

h is the share of a gradient's time that does not grow with the work (launches, latencies), u the time of an update.
Moving data takes no time here: `bytes.traffic` says how much there is of it. With h = u = 0 the speed-up is G R times
the share of lanes that are filled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.trace import Trace


class RoundForecast(NamedTuple):
    """What rounds of one width come to.

    Attributes:
      width: int, W, how many gradients a round computes together.
      num_rounds: int, how many rounds the trace takes.
      mean_round: float, events a round.
      filled: float in (0, 1], the share of the lanes that hold an event, `mean_round` / `width`.
      speed_up: float, over one device that executes one event after the other.
    """

    width: int
    num_rounds: int
    mean_round: float
    filled: float
    speed_up: float


def forecast(
    trace: Trace,
    width: int,
    *,
    device_groups: int = 1,
    replicas: int = 1,
    fixed: float = 0.0,
    update: float = 0.0,
) -> RoundForecast:
    """What rounds of this width come to, in the model of time at the head of this module.

    Counts the rounds that `make_plan` makes without cuts, in one pass over them: 10^6 events take about 0.15 s.

    Args:
      trace: the T events.
      width: W, a multiple of `device_groups`.
      device_groups: G, how many device groups share the lanes of a round.
      replicas: R, how many devices share each gradient of a group.
      fixed: h in [0, 1], the share of a gradient's time that does not grow with the work.
      update: u >= 0, the time of an update; a sharded server's is about 1/P of a replicated one's.

    Raises:
      TypeError: `trace` is no Trace.
      ValueError: a number is out of its range, or the width is no multiple of `device_groups`.

    Example: eight groups, and rounds of 8 or 16 if half of a gradient's time is launches.
      >>> import asyncflax
      >>> from asyncflax import engine
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential())
      >>> eight = engine.forecast(trace, 8, device_groups=8)
      >>> eight.num_rounds, round(eight.mean_round, 2), round(eight.filled, 3), round(eight.speed_up, 2)
      (946, 6.77, 0.846, 6.77)
      >>> [round(engine.forecast(trace, width, device_groups=8, fixed=0.5).speed_up, 2) for width in (8, 16)]
      [6.77, 6.08]
    """
    check_trace(trace)
    cost = Cost(device_groups, replicas, fixed, update)
    return cost.of(len(trace), cost.width(width), count_rounds(round_ends(trace), width))


def best_width(
    trace: Trace,
    device_groups: int,
    *,
    replicas: int = 1,
    fixed: float = 0.0,
    update: float = 0.0,
    widths: Iterable[int] | None = None,
) -> RoundForecast:
    """The width with the largest speed-up; of equal ones the smallest.

    Without a fixed share that is W = G, whatever the trace: k rounds of G take no longer than one of k G, and hold as
    many events or more. With a fixed share, wider rounds spread it over more events. The candidates are then all
    multiples of G up to the longest round that the trace allows, beyond which nothing changes; what cannot win is not
    tried. 10^6 events take 0.1 s to 0.7 s, with `fixed` near 1 some seconds.

    A round keeps W gradients and W versions (see `memory`): where they do not fit, say which `widths` do.

    Args:
      trace: the T events.
      device_groups: G, how many device groups share the lanes of a round.
      replicas, fixed, update: as in `forecast`.
      widths: which to compare instead, each a multiple of `device_groups`.

    Raises:
      TypeError: `trace` is no Trace, or `widths` no list.
      ValueError: as in `forecast`; or `widths` is empty.

    Example:
      >>> import asyncflax
      >>> from asyncflax import engine
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential())
      >>> [engine.best_width(trace, 4, fixed=h).width for h in (0.0, 0.5, 0.9)]
      [4, 8, 12]
      >>> engine.best_width(trace, 4, fixed=0.9, widths=[4, 8]).width
      8
    """
    check_trace(trace)
    cost, events = Cost(device_groups, replicas, fixed, update), len(trace)
    ends = round_ends(trace)
    if widths is not None:
        candidates = [cost.width(width, "widths") for width in integers("widths", widths)]
    elif cost.fixed == 0.0:
        candidates = [cost.groups]
    else:
        longest = int(np.max(np.asarray(ends) - np.arange(events)))
        candidates = range(cost.groups, longest + cost.groups, cost.groups)
    fewest = count_rounds(ends, events)  # no width needs fewer rounds
    best = cost.of(events, candidates[0], count_rounds(ends, candidates[0]))
    for width in candidates[1:]:
        if best.num_rounds == fewest or cost.of(events, width, fewest).speed_up <= best.speed_up:
            break  # a wider round costs more, and there cannot be enough fewer of them
        this = cost.of(events, width, count_rounds(ends, width))
        best = max(best, this, key=lambda forecast: forecast.speed_up)  # the first of equal ones
    return best


class Cost:
    """The model of time, for so many devices."""

    def __init__(self, device_groups: int, replicas: int, fixed: float = 0.0, update: float = 0.0):
        self.groups = _check.integer("device_groups", device_groups, 1)
        self.replicas = _check.integer("replicas", replicas, 1)
        self.devices = self.groups * self.replicas
        self.fixed = _check.scalar("fixed", fixed, low=0.0, high=1.0)
        self.update = _check.scalar("update", update, low=0.0)

    def width(self, width: int, name: str = "width") -> int:
        """A width that the groups can share."""
        width = _check.integer(name, width, 1)
        if width % self.groups:
            raise ValueError(f"{name} must be a multiple of device_groups={self.groups}, got {name}={width}.")
        return width

    def of(self, num_events: int, width: int, num_rounds: int) -> RoundForecast:
        """So many events in so many rounds."""
        mean = num_events / num_rounds
        seconds = self.fixed + (1 - self.fixed) * width / self.devices + self.update * mean  # of a mean round
        return RoundForecast(width, num_rounds, mean, mean / width, mean * (1 + self.update) / seconds)


def round_ends(trace: Trace) -> list[int]:
    """For each event, where a round that starts there must end: the next event that reads a later version.

    It never falls from one event to the next, so taking as many events as there may be needs the fewest rounds.
    """
    events = len(trace)
    first_read = np.full(events + 1, events)  # by version, T where nobody reads it
    first_read[trace.read_version[::-1]] = np.arange(events)[::-1]  # of repeated indices NumPy keeps the last
    return np.minimum.accumulate(first_read[::-1])[::-1][1:].tolist()


def count_rounds(ends: list[int], width: int) -> int:
    """How many rounds of at most `width` events there are."""
    if width == 1:
        return len(ends)
    t = count = 0
    while t < len(ends):
        end = ends[t]
        t = end if end < t + width else t + width
        count += 1
    return count


def check_trace(trace: Any) -> None:
    _check.instance("trace", trace, Trace, "an asyncflax.Trace (a law makes one with .trace(num_updates=...))")


def integers(name: str, values: Any) -> list[int]:
    """Positive integers, each once and in order."""
    numbers = sorted({*_check.integers(name, values, 1)})
    if not numbers:
        raise ValueError(f"{name} must have at least one integer, got none.")
    return numbers
