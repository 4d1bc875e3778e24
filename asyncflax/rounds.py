r"""How wide to make the rounds of a trace, and what that buys and costs, before anything is run.

A round has W lanes, and computes W gradients whether or not all of them belong to an event. A wider round has more
events, a smaller share of its lanes is filled, and more versions and gradients are on the move.

*Time*, in units of one gradient on one device, for G compute groups of R devices each:

    a round                   h + (1 - h) W / (G R)  for its gradients, u for each update that it applies in order
    one event after another   1 + u
    speed-up                  T (1 + u) / (T u + sum over rounds of h + (1 - h) W / (G R))

h is the share of a gradient's time that does not grow with the work (launches, latencies), u the time of an update.
Moving data takes no time here: `traffic` says how much there is of it. With h = u = 0 the speed-up is G R times the
share of lanes that are filled.

*Memory and traffic* are counted from the shapes of the parameters, d bytes in all. A server is 'replicated': every
device has all that it keeps; or 'sharded': each of the P = G R devices keeps 1/P of every array with an axis that P
divides, and the other arrays are on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from asyncflax import _check
from asyncflax.placement import SERVERS, STORES
from asyncflax.trace import Trace

__all__ = ["Memory", "RoundForecast", "Traffic", "best_width", "draw", "forecast", "memory", "summary", "traffic"]

# Okabe and Ito's colours, which those who do not tell red from green tell apart, and markers for print without colour.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"


class RoundForecast(NamedTuple):
    """What rounds of one width come to.

    Attributes:
      width: int, W, how many gradients a round computes together.
      num_rounds: int, how many rounds the trace takes.
      mean_round: float, events a round.
      filled: float in (0, 1], the share of the lanes that hold an event, `mean_round` / `width`.
      speed_up: float, over one device that executes one event after the other.

    Example: see `forecast`.
    """

    width: int
    num_rounds: int
    mean_round: float
    filled: float
    speed_up: float


class Traffic(NamedTuple):
    """The bytes that one device receives in a round.

    Attributes:
      versions: int, of the versions that its group computes on.
      reduction: int, from the devices of its own group, to add up the gradients of their parts of the batch.
      gradients: int, of the gradients of the other groups.
      between: int, those of all these that come from other groups: what crosses the slower links if a group is a host.

    Example: see `traffic`.
    """

    versions: int
    reduction: int
    gradients: int
    between: int

    @property
    def total(self) -> int:
        """All bytes that one device receives in a round."""
        return self.versions + self.reduction + self.gradients


class Memory(NamedTuple):
    """The bytes that a run keeps on one device and, for that device, on its host; an estimate without activations.

    Attributes:
      params: int, the server's parameters.
      state: int, the method's state.
      versions: int, the stored versions; with store='host' those of the rounds under way.
      gradients: int, of a round, as the server takes them.
      reads: int, the versions that these were computed on, as the server takes them.
      work: int, the versions and gradients of the lanes of its own group, in full; 0 on one device, which has them.
      host: int, the versions in host memory, for this device.

    Example: see `memory`.
    """

    params: int
    state: int
    versions: int
    gradients: int
    reads: int
    work: int
    host: int

    @property
    def device(self) -> int:
        """All bytes on one device."""
        return self.params + self.state + self.versions + self.gradients + self.reads + self.work


def forecast(
    trace: Trace,
    width: int,
    *,
    num_groups: int = 1,
    num_replicas: int = 1,
    fixed: float = 0.0,
    update: float = 0.0,
) -> RoundForecast:
    """What rounds of this width come to, in the model of time at the head of this module.

    Counts the rounds that `make_plan` makes without cuts, in one pass over them: 10^6 events take about 0.15 s.

    Args:
      trace: the T events.
      width: W, a multiple of `num_groups`.
      num_groups: G, how many compute groups share the lanes of a round.
      num_replicas: R, how many devices share each gradient of a group.
      fixed: h in [0, 1], the share of a gradient's time that does not grow with the work.
      update: u >= 0, the time of an update; a sharded server's is about 1/P of a replicated one's.

    Raises:
      TypeError: `trace` is no Trace.
      ValueError: a number is out of its range, or the width is no multiple of `num_groups`.

    Example: eight groups, and rounds of 8 or 16 if half of a gradient's time is launches.
      >>> import asyncflax
      >>> from asyncflax import rounds
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential())
      >>> eight = rounds.forecast(trace, 8, num_groups=8)
      >>> eight.num_rounds, round(eight.mean_round, 2), round(eight.filled, 3), round(eight.speed_up, 2)
      (946, 6.77, 0.846, 6.77)
      >>> [round(rounds.forecast(trace, width, num_groups=8, fixed=0.5).speed_up, 2) for width in (8, 16)]
      [6.77, 6.08]
    """
    _check_trace(trace)
    cost = _Cost(num_groups, num_replicas, fixed, update)
    return cost.of(len(trace), cost.width(width), _count(round_ends(trace), width))


def best_width(
    trace: Trace,
    num_groups: int,
    *,
    num_replicas: int = 1,
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
      num_groups: G, how many compute groups share the lanes of a round.
      num_replicas, fixed, update: as in `forecast`.
      widths: which to compare instead, each a multiple of `num_groups`.

    Raises:
      TypeError: `trace` is no Trace, or `widths` no list.
      ValueError: as in `forecast`; or `widths` is empty.

    Example:
      >>> import asyncflax
      >>> from asyncflax import rounds
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential())
      >>> [rounds.best_width(trace, 4, fixed=h).width for h in (0.0, 0.5, 0.9)]
      [4, 8, 12]
      >>> rounds.best_width(trace, 4, fixed=0.9, widths=[4, 8]).width
      8
    """
    _check_trace(trace)
    cost, events = _Cost(num_groups, num_replicas, fixed, update), len(trace)
    ends = round_ends(trace)
    if widths is not None:
        candidates = [cost.width(width, "widths") for width in _integers("widths", widths)]
    elif cost.fixed == 0.0:
        candidates = [cost.groups]
    else:
        longest = int(np.max(np.asarray(ends) - np.arange(events)))
        candidates = range(cost.groups, longest + cost.groups, cost.groups)
    fewest = _count(ends, events)  # no width needs fewer rounds
    best = cost.of(events, candidates[0], _count(ends, candidates[0]))
    for width in candidates[1:]:
        if best.num_rounds == fewest or cost.of(events, width, fewest).speed_up <= best.speed_up:
            break  # a wider round costs more, and there cannot be enough fewer of them
        this = cost.of(events, width, _count(ends, width))
        best = max(best, this, key=lambda forecast: forecast.speed_up)  # the first of equal ones
    return best


def traffic(params: Any, *, width: int, num_groups: int, num_replicas: int = 1, server: str = "replicated") -> Traffic:
    """The bytes that one device receives in a round.

    Every lane is moved, filled or not. A group of R devices computes W/G gradients, each device on its part of the
    batch. With d the bytes of the parameters and of a gradient:

                         replicated server                      sharded server
        versions         0, every device has them               (W/G) d (P-1)/P, all but the own part
        reduction        2 (R-1)/R (W/G) d: reduce-scatter      (R-1)/R (W/G) d: reduce-scatter, each device
                         and all-gather                         keeps 1/R of every sum
        gradients        W d (G-1)/G, all but the own group's   (W/P) d (G-1)/G, of these the own part
        between groups   W d (G-1)/G                            2 (W/P) d (G-1)/G

    With W = G groups of one device, a sharded server receives 2 d (P-1)/P, as the all-reduce of synchronous data
    parallelism does, and a replicated one d (P-1). The last row: every device of a replicated server gathers from the
    other groups for itself; each byte of a version enters a group of a sharded one once and is passed on inside
    (`all_to_all` over the groups, then `all_gather` over the replicas). Arrays that a sharded server has on every
    device count as those of a replicated one. A compiler may move more than this, and a model that gathers its
    parameters again for the backward pass does.

    Args:
      params: PyTree of arrays or `jax.ShapeDtypeStruct`.
      width: W, a multiple of `num_groups`.
      num_groups: G.
      num_replicas: R.
      server: 'replicated' or 'sharded'.

    Raises:
      TypeError: a leaf of `params` has no shape and type.
      ValueError: a number is out of its range, the width is no multiple of `num_groups`, or the server is unknown.

    Source: Patarasuk and Yuan 2009 (doi:10.1016/j.jpdc.2008.09.002) for the least that an all-reduce receives;
    Rajbhandari et al. 2020 (arXiv:1910.02054) for the shards of synchronous training; the rest is derived.

    Example: a million float32 parameters, 8 groups of one device.
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import rounds
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> rounds.traffic(params, width=8, num_groups=8)
      Traffic(versions=0, reduction=0, gradients=28000000, between=28000000)
      >>> rounds.traffic(params, width=8, num_groups=8, server="sharded").total
      7000000
    """
    _check.choice("server", server, SERVERS)
    cost = _Cost(num_groups, num_replicas)
    w, g, r, p = cost.width(width), cost.groups, cost.replicas, cost.groups * cost.replicas
    divided, whole = _divided("params", params, p if server == "sharded" else 0)
    lanes = w // g
    others = w * whole * (g - 1) // g
    part = w * divided * (g - 1) // (g * p)
    return Traffic(
        versions=lanes * divided * (p - 1) // p,
        reduction=-(-2 * (r - 1) * lanes * whole // r) + (r - 1) * lanes * divided // r,
        gradients=others + part,
        between=others + 2 * part,
    )


def memory(
    params: Any,
    *,
    width: int,
    num_slots: int,
    state: Any = None,
    num_groups: int = 1,
    num_replicas: int = 1,
    server: str = "replicated",
    store: str = "device",
) -> Memory:
    """The bytes that a run keeps on one device, and for it on its host.

    An estimate: activations, batches and what the compiler keeps besides are not in it. With c the bytes of the
    parameters on one device (d, or about d / P with a sharded server):

        parameters c, state alike; versions num_slots c; W c of gradients and W c of versions read;
        in a group, (W/G) d of versions and (W/G) d of gradients in full

    With store='host', num_slots c are in host memory, and the device has 5 W c of versions however many there are:
    those read by this round and those on their way in for the next one, those that this round hands out, one by one
    and together, and a copy that the compiler makes. Each device has its own part in
    the memory of its host: with a replicated server, that is a copy for every device.

    Args:
      params: PyTree of arrays or `jax.ShapeDtypeStruct`.
      width: W, a multiple of `num_groups`.
      num_slots: how many versions are stored at once (`Plan.num_slots`; the length of the ring with store='ring').
      state: the method's state, PyTree like `params`: `jax.eval_shape(algorithm.init, params)`.
      num_groups: G.
      num_replicas: R.
      server: 'replicated' or 'sharded'.
      store: where versions are: 'device' and 'ring' on the device, 'host' in host memory.

    Raises:
      TypeError: a leaf of `params` or `state` has no shape and type.
      ValueError: a number is out of its range, the width is no multiple of `num_groups`, or a name is unknown.

    Example: 64 versions of a million float32 parameters.
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import rounds
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> one = rounds.memory(params, width=8, num_slots=64, num_groups=8)
      >>> one.versions, one.device
      (256000000, 332000000)
      >>> rounds.memory(params, width=8, num_slots=64, num_groups=8, server="sharded", store="host")
      Memory(params=500000, state=0, versions=20000000, gradients=4000000, reads=4000000, work=8000000, host=32000000)
    """
    _check.choice("server", server, SERVERS)
    _check.choice("store", store, STORES)
    cost = _Cost(num_groups, num_replicas)
    w, p = cost.width(width), cost.groups * cost.replicas
    slots = _check.integer("num_slots", num_slots, 1)
    parts = p if server == "sharded" else 0
    divided, whole = _divided("params", params, parts)
    own = whole + (divided // p)
    state_divided, state_whole = _divided("state", state, parts)
    return Memory(
        params=own,
        state=state_whole + state_divided // p,
        versions=5 * w * own if store == "host" else slots * own,
        gradients=w * own,
        reads=w * own,
        work=2 * (w // cost.groups) * (divided + whole) if p > 1 else 0,
        host=slots * own if store == "host" else 0,
    )


def summary(
    *,
    num_events: int,
    num_workers: int,
    width: int,
    mean_round: float,
    num_slots: int,
    mean_staleness: float | None = None,
    num_groups: int = 1,
    num_replicas: int = 1,
    server: str = "replicated",
    store: str = "device",
    params: Any = None,
    state: Any = None,
    fixed: float = 0.0,
    update: float = 0.0,
) -> str:
    """A report for the terminal: the trace, its rounds, their devices, and with `params` what moves and what is kept.

    Args:
      num_events: T.
      num_workers: how many workers the trace has.
      width: W, a multiple of `num_groups`.
      mean_round: events a round.
      num_slots: how many versions are stored at once.
      mean_staleness: in updates; None leaves it out.
      num_groups, num_replicas: G compute groups of R devices each.
      server: where the server is: 'replicated' or 'sharded'.
      store: where versions are: 'device', 'ring' or 'host'.
      params: PyTree of arrays or `jax.ShapeDtypeStruct`; None leaves out bytes.
      state: the method's state, as in `memory`.
      fixed, update: h and u, as in `forecast`.

    Raises:
      TypeError, ValueError: as in `forecast`, `traffic` and `memory`; mean_round is not in 1..width.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import rounds
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> print(rounds.summary(num_events=6400, num_workers=64, width=8, mean_round=6.765, num_slots=64, num_groups=8,
      ...                      server="sharded", params=params, state=params))
      trace     6,400 events of 64 workers
      rounds    946 of width 8, 6.77 events each, 84.6 % of the lanes filled
      devices   8 devices: 8 groups of 1, sharded server
      speed-up  6.77 expected over one device, one event after the other
      versions  64 at once, in slots on the device
      <BLANKLINE>
      on one device                        replicated      [sharded]
      receives in a round                       28 MB          7 MB
        versions to compute on                    0 B        3.5 MB
        to add up its group's gradients           0 B           0 B
        gradients of other groups               28 MB        3.5 MB
        of all these, between groups            28 MB          7 MB
      keeps, without activations               336 MB         49 MB
        server's parameters                      4 MB        500 kB
        method's state                           4 MB        500 kB
        versions                               256 MB         32 MB
        gradients of a round                    32 MB          4 MB
        versions they were computed on          32 MB          4 MB
        both for its group, in full              8 MB          8 MB
      keeps in host memory                        0 B           0 B
    """
    cost = _Cost(num_groups, num_replicas, fixed, update)
    events = _check.integer("num_events", num_events, 1)
    workers = _check.integer("num_workers", num_workers, 1)
    width, slots = cost.width(width), _check.integer("num_slots", num_slots, 1)
    mean_round = _check.scalar("mean_round", mean_round, low=1.0, high=float(width))
    _check.choice("server", server, SERVERS)
    _check.choice("store", store, STORES)
    found = cost.of(events, width, round(events / mean_round))
    filled = f"{100 * found.filled:.1f} % of the lanes filled"
    stale = ""
    if mean_staleness is not None:
        stale = f", mean staleness {_check.scalar('mean_staleness', mean_staleness, low=0.0):.1f} updates"
    devices, groups = _counted(cost.devices, "device"), _counted(cost.groups, "group")
    place = f"{devices}: {groups} of {cost.replicas}, {server} server" if cost.devices > 1 else devices
    where = {"device": "in slots on the device", "ring": "in a ring on the device", "host": "in host memory"}[store]
    lines = [
        f"trace     {_counted(events, 'event')} of {_counted(workers, 'worker')}{stale}",
        f"rounds    {found.num_rounds:,} of width {width}, {found.mean_round:.2f} events each, {filled}",
        f"devices   {place}",
        f"speed-up  {found.speed_up:.2f} expected over one device, one event after the other",
        f"versions  {slots:,} at once, {where}",
    ]
    if params is None:
        return "\n".join(lines)
    servers = SERVERS if cost.devices > 1 else (server,)
    options = {"width": width, "num_groups": cost.groups, "num_replicas": cost.replicas}
    columns = [
        (
            traffic(params, server=name, **options),
            memory(params, server=name, num_slots=slots, state=state, store=store, **options),
        )
        for name in servers
    ]
    names = [f"[{name}]" if name == server else f"{name} " for name in servers]
    lines += ["", f"{'on one device':34s}" + "".join(f"{name:>14s}" for name in names)]

    def row(label: str, values: Iterable[int]) -> None:
        lines.append(f"{label:34s}" + "".join(f"{_size(value):>13s} " for value in values).rstrip())

    if cost.devices > 1:
        row("receives in a round", (moved.total for moved, _ in columns))
        for label, name in _MOVED.items():
            row(f"  {label}", (getattr(moved, name) for moved, _ in columns))
    row("keeps, without activations", (kept.device for _, kept in columns))
    for label, name in _KEPT.items():
        row(f"  {label}", (getattr(kept, name) for _, kept in columns))
    row("keeps in host memory", (kept.host for _, kept in columns))
    return "\n".join(lines)


def draw(
    figure: Any,
    trace: Trace,
    *,
    num_groups: Sequence[int] = (1, 2, 4, 8),
    widths: Sequence[int] = (1, 2, 4, 8, 16),
    num_replicas: int = 1,
    fixed: float = 0.0,
    update: float = 0.0,
) -> None:
    """Two panels against the width: the share of lanes that are filled, and the expected speed-up by compute groups.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      trace: the events.
      num_groups: each G is a line, at those widths that are its multiples.
      widths: the abscissae.
      num_replicas, fixed, update: as in `forecast`.

    Raises:
      TypeError: `trace` is no Trace, `num_groups` or `widths` no list.
      ValueError: a number is out of its range, or no width is a multiple of one of `num_groups`.

    Example:
      >>> import asyncflax
      >>> from asyncflax import rounds
      >>> from matplotlib.figure import Figure
      >>> q = asyncflax.queues
      >>> figure = Figure(figsize=(10, 4.5), layout="constrained")
      >>> rounds.draw(figure, q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential()))
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['lanes that hold an event (%)', 'expected speed-up over one device']
    """
    _check_trace(trace)
    widths = _integers("widths", widths)
    costs = [_Cost(groups, num_replicas, fixed, update) for groups in _integers("num_groups", num_groups)]
    for cost in costs:
        if not any(width % cost.groups == 0 for width in widths):
            raise ValueError(f"widths={widths} have no multiple of num_groups={cost.groups}; add one.")
    ends = round_ends(trace)
    counts = {width: _count(ends, width) for width in widths}
    filled, speed = figure.subplots(1, 2)
    share = [100 * len(trace) / (width * counts[width]) for width in widths]
    filled.plot(widths, share, color="0.2", marker="o", markersize=5)
    for width, value in zip(widths, share, strict=True):
        filled.annotate(f"{value:.0f}", (width, value), (4, 3), textcoords="offset points", fontsize="small")
    filled.set_ylim(0, 108)
    filled.set_ylabel("lanes that hold an event (%)")
    filled.set_title(f"{_counted(len(trace), 'event')} of {_counted(trace.num_workers, 'worker')}", fontsize="medium")
    for i, cost in enumerate(costs):
        own = [width for width in widths if width % cost.groups == 0]
        color, each = _COLORS[i % len(_COLORS)], cost.devices // cost.groups
        label = _counted(cost.groups, "group") + (f" of {each} devices" if each > 1 else "")
        speed.plot(
            own,
            [cost.of(len(trace), width, counts[width]).speed_up for width in own],
            color=color,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            label=label,
        )
        full = [cost.of(width, width, 1).speed_up for width in own]
        speed.plot(own, full, ":", color=color, linewidth=1)
    speed.plot([], [], ":", color="0.4", linewidth=1, label="all lanes filled")
    speed.set_ylim(bottom=0)
    speed.set_ylabel("expected speed-up over one device")
    speed.set_title(f"fixed share {fixed:g}, update {update:g} of a gradient's time", fontsize="medium")
    speed.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axes in (filled, speed):
        axes.set_xscale("log", base=2)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.set_xlabel("width of a round (gradients)")
        axes.grid(alpha=0.25)


_MOVED = {
    "versions to compute on": "versions",
    "to add up its group's gradients": "reduction",
    "gradients of other groups": "gradients",
    "of all these, between groups": "between",
}
_KEPT = {
    "server's parameters": "params",
    "method's state": "state",
    "versions": "versions",
    "gradients of a round": "gradients",
    "versions they were computed on": "reads",
    "both for its group, in full": "work",
}


class _Cost:
    """The model of time, for so many devices."""

    def __init__(self, num_groups: int, num_replicas: int, fixed: float = 0.0, update: float = 0.0):
        self.groups = _check.integer("num_groups", num_groups, 1)
        self.replicas = _check.integer("num_replicas", num_replicas, 1)
        self.devices = self.groups * self.replicas
        self.fixed = _check.scalar("fixed", fixed, low=0.0, high=1.0)
        self.update = _check.scalar("update", update, low=0.0)

    def width(self, width: int, name: str = "width") -> int:
        """A width that the groups can share."""
        width = _check.integer(name, width, 1)
        if width % self.groups:
            raise ValueError(f"{name} must be a multiple of num_groups={self.groups}, got {name}={width}.")
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


def _count(ends: list[int], width: int) -> int:
    """How many rounds of at most `width` events there are."""
    if width == 1:
        return len(ends)
    t = count = 0
    while t < len(ends):
        end = ends[t]
        t = end if end < t + width else t + width
        count += 1
    return count


def _check_trace(trace: Any) -> None:
    _check.instance("trace", trace, Trace, "an asyncflax.Trace (a law makes one with .trace(num_updates=...))")


def _integers(name: str, values: Any) -> list[int]:
    """Positive integers, each once and in order."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of integers, got {values!r}.")
    numbers = sorted({_check.integer(name, value, 1) for value in values})
    if not numbers:
        raise ValueError(f"{name} must have at least one integer, got none.")
    return numbers


def _divided(name: str, tree: Any, parts: int) -> tuple[int, int]:
    """The bytes of the arrays that so many devices divide among them, and of those that stay whole; 0 divides none."""
    divided = whole = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            leaf = jax.eval_shape(lambda x: x, leaf)
        except TypeError:
            path = name + jax.tree_util.keystr(path)
            raise TypeError(f"{path} must be an array or a jax.ShapeDtypeStruct, got {leaf!r}.") from None
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        if parts and any(length and length % parts == 0 for length in leaf.shape):
            divided += size
        else:
            whole += size
    return divided, whole


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(size: int) -> str:
    """Bytes for people, in powers of 1,000 and three digits."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
