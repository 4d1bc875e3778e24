r"""A model of the time of rounds: how wide to make them, and the expected speed-up.

A round has W lanes and computes W gradients, even if not all of them belong to an event. Wider rounds contain more
events, but fill a smaller share of their lanes and move more versions and gradients. In units of one gradient on one
device, for G device groups of R devices each:

    a round                   h + (1 - h) W / (G R) for its gradients, u for each update, applied in order
    one event after another   1 + u
    speed-up                  T (1 + u) / (T u + sum over rounds of h + (1 - h) W / (G R))

h is the fixed share of a gradient's time (launches, latencies), u the time of an update. Data transfer is not modelled;
see `bytes.traffic`. With h = u = 0 the speed-up is G R times the share of filled lanes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.trace import Trace


class RoundForecast(NamedTuple):
    """The forecast for one width.

    Attributes:
      width: int, W, the number of gradients computed together in a round.
      num_rounds: int, the number of rounds of the trace.
      mean_round: float, events per round.
      filled: float in (0, 1], the share of lanes that hold an event, `mean_round` / `width`.
      speed_up: float, the speed-up over sequential execution on one device.
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
    """Forecasts rounds of a given width with the model of time of this module.

    Counts the rounds of `make_plan` without cuts: 10^6 events take about 0.15 s.

    Args:
      trace: the T events.
      width: W, a multiple of `device_groups`.
      device_groups: G, the number of device groups, which share the lanes of a round.
      replicas: R, the number of devices per group, which share each gradient.
      fixed: h in [0, 1], the fixed share of a gradient's time.
      update: u >= 0, the time of an update; for a sharded server about 1/P of that of a replicated one.

    Raises:
      TypeError: `trace` is not a Trace.
      ValueError: a number is out of range, or the width is not a multiple of `device_groups`.

    Example: eight groups, and rounds of 8 or 16 if half of a gradient's time is fixed.
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
    """The width with the largest speed-up; the smallest one if tied.

    Without a fixed share this is always W = G: k rounds of G take no longer than one of k G, and contain at least as
    many events. With a fixed share, wider rounds spread it over more events. The candidates are all multiples of G up
    to the longest round of the trace, pruned by a bound. 10^6 events take 0.1 s to 0.7 s, and some seconds with
    `fixed` near 1.

    A round keeps W gradients and W versions (see `memory`): if memory is short, pass the `widths` that fit.

    Args:
      trace: the T events.
      device_groups: G, the number of device groups.
      replicas, fixed, update: as in `forecast`.
      widths: the candidates, each a multiple of `device_groups`.

    Raises:
      TypeError: `trace` is not a Trace, or `widths` is not a list.
      ValueError: as in `forecast`, or `widths` is empty.

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
    fewest = count_rounds(ends, events)  # a lower bound for every width
    best = cost.of(events, candidates[0], count_rounds(ends, candidates[0]))
    for width in candidates[1:]:
        if best.num_rounds == fewest or cost.of(events, width, fewest).speed_up <= best.speed_up:
            break  # wider rounds cannot save enough rounds to win
        this = cost.of(events, width, count_rounds(ends, width))
        best = max(best, this, key=lambda forecast: forecast.speed_up)  # the first one if tied
    return best


class Cost:
    """The model of time for given devices."""

    def __init__(self, device_groups: int, replicas: int, fixed: float = 0.0, update: float = 0.0):
        self.groups = _check.integer("device_groups", device_groups, 1)
        self.replicas = _check.integer("replicas", replicas, 1)
        self.devices = self.groups * self.replicas
        self.fixed = _check.scalar("fixed", fixed, low=0.0, high=1.0)
        self.update = _check.scalar("update", update, low=0.0)

    def width(self, width: int, name: str = "width") -> int:
        """The width, checked to be a multiple of the groups."""
        width = _check.integer(name, width, 1)
        if width % self.groups:
            raise ValueError(f"{name} must be a multiple of device_groups={self.groups}, got {name}={width}.")
        return width

    def of(self, num_events: int, width: int, num_rounds: int) -> RoundForecast:
        """The forecast for a number of events and rounds."""
        mean = num_events / num_rounds
        seconds = self.fixed + (1 - self.fixed) * width / self.devices + self.update * mean  # of an average round
        return RoundForecast(width, num_rounds, mean, mean / width, mean * (1 + self.update) / seconds)


def round_ends(trace: Trace) -> list[int]:
    """For each event, the end of a round that starts there: the next event that reads a later version.

    The ends are non-decreasing, so the greedy choice, the longest possible rounds, needs the fewest.
    """
    events = len(trace)
    first_read = np.full(events + 1, events)  # by version; T if never read
    first_read[trace.read_version[::-1]] = np.arange(events)[::-1]  # NumPy keeps the last value of repeated indices
    return np.minimum.accumulate(first_read[::-1])[::-1][1:].tolist()


def count_rounds(ends: list[int], width: int) -> int:
    """The number of rounds of at most `width` events."""
    if width == 1:
        return len(ends)
    t = count = 0
    while t < len(ends):
        end = ends[t]
        t = end if end < t + width else t + width
        count += 1
    return count


def check_trace(trace: Any) -> None:
    _check.instance("trace", trace, Trace, "an asyncflax.Trace, for example from queues.simulate")


def integers(name: str, values: Any) -> list[int]:
    """Distinct positive integers in increasing order."""
    numbers = sorted({*_check.integers(name, values, 1)})
    if not numbers:
        raise ValueError(f"{name} must have at least one integer, got none.")
    return numbers
