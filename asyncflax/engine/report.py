"""The forecast for people: a report for the terminal and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from asyncflax import _check, _style
from asyncflax.engine.bytes import memory, traffic
from asyncflax.engine.forecasts import Cost, check_trace, count_rounds, integers, round_ends
from asyncflax.engine.placement import SERVERS, STORES
from asyncflax.trace import Trace


def summary(
    *,
    num_events: int,
    num_workers: int,
    width: int,
    mean_round: float,
    num_slots: int,
    mean_staleness: float | None = None,
    device_groups: int = 1,
    replicas: int = 1,
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
      width: W, a multiple of `device_groups`.
      mean_round: events a round.
      num_slots: how many versions are stored at once.
      mean_staleness: in updates; None leaves it out.
      device_groups, replicas: G device groups of R devices each.
      server: where the server is: 'replicated' or 'sharded'.
      store: where versions are: 'device', 'ring' or 'host'.
      params: PyTree of arrays or `jax.ShapeDtypeStruct`; None leaves out bytes.
      state: the method's state, as in `memory`.
      fixed, update: h and u, as in `forecast`.

    Raises:
      TypeError, ValueError: as in `forecast`, `traffic` and `memory`; mean_round is not in 1..width.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import engine
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> of_trace = {"num_events": 6400, "num_workers": 64, "mean_round": 6.765, "num_slots": 64}
      >>> print(engine.summary(**of_trace, width=8, device_groups=8, server="sharded", params=params, state=params))
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
    cost = Cost(device_groups, replicas, fixed, update)
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
    options = {"width": width, "device_groups": cost.groups, "replicas": cost.replicas}
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
    device_groups: Sequence[int] = (1, 2, 4, 8),
    widths: Sequence[int] = (1, 2, 4, 8, 16),
    replicas: int = 1,
    fixed: float = 0.0,
    update: float = 0.0,
) -> None:
    """Two panels against the width: the share of lanes that are filled, and the expected speed-up by device groups.

    Args:
      figure: `matplotlib.figure.Figure`, without axes.
      trace: the events.
      device_groups: each G is a line, at those widths that are its multiples.
      widths: the abscissae.
      replicas, fixed, update: as in `forecast`.

    Raises:
      TypeError: `trace` is no Trace, `device_groups` or `widths` no list.
      ValueError: a number is out of its range, or no width is a multiple of one of `device_groups`.

    Example:
      >>> import asyncflax
      >>> from asyncflax import engine
      >>> from matplotlib.figure import Figure
      >>> q = asyncflax.queues
      >>> figure = Figure(figsize=(10, 4.5), layout="constrained")
      >>> engine.draw(figure, q.simulate(num_workers=64, num_updates=6400, service_time=q.exponential()))
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['lanes that hold an event (%)', 'expected speed-up over one device']
    """
    check_trace(trace)
    widths = integers("widths", widths)
    costs = [Cost(groups, replicas, fixed, update) for groups in integers("device_groups", device_groups)]
    for cost in costs:
        if not any(width % cost.groups == 0 for width in widths):
            raise ValueError(f"widths={widths} have no multiple of device_groups={cost.groups}; add one.")
    ends = round_ends(trace)
    counts = {width: count_rounds(ends, width) for width in widths}
    filled, speed = figure.subplots(1, 2)
    share = [100 * len(trace) / (width * counts[width]) for width in widths]
    filled.plot(widths, share, **_style.look(0) | {"color": "0.2"})
    for width, value in zip(widths, share, strict=True):
        filled.annotate(f"{value:.0f}", (width, value), (6, 4), textcoords="offset points")
    filled.set_ylim(0, 112)
    filled.margins(x=0.12)
    filled.set_ylabel("lanes that hold an event (%)")
    filled.set_title(f"{_counted(len(trace), 'event')} of {_counted(trace.num_workers, 'worker')}", fontsize="medium")
    for i, cost in enumerate(costs):
        own = [width for width in widths if width % cost.groups == 0]
        look, each = _style.look(i), cost.devices // cost.groups
        label = _counted(cost.groups, "device group") + (f" of {each} devices" if each > 1 else "")
        speed.plot(
            own,
            [cost.of(len(trace), width, counts[width]).speed_up for width in own],
            **look,
            label=label,
        )
        full = [cost.of(width, width, 1).speed_up for width in own]
        speed.plot(own, full, ":", color=look["color"], linewidth=1)
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


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(size: int) -> str:
    """Bytes for people, in powers of 1,000 and three digits."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
