"""Forecasts as text for the terminal and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncflax import _check, _style
from asyncflax.engine.bytes import memory, traffic
from asyncflax.engine.forecasts import Cost, check_trace, count_rounds, integers, round_ends
from asyncflax.engine.placement import SERVERS
from asyncflax.trace import Trace

if TYPE_CHECKING:
    from asyncflax.engine.plan import Plan


def summary(plan: Plan, cost: Cost, server: str, params: Any, state: Any) -> str:
    """The text of `Plan.summary`."""
    _check.choice("server", server, SERVERS)
    found = cost.of(plan.num_events, cost.width(plan.width), round(plan.num_events / plan.mean_round))
    devices, groups = _counted(cost.devices, "device"), _counted(cost.groups, "group")
    devices = f"{devices}: {groups} of {cost.replicas}, {server} server" if cost.devices > 1 else devices
    where = {"device": "in slots on the device", "ring": "in a ring on the device", "host": "in host memory"}
    lines = [
        f"trace     {_counted(plan.num_events, 'event')} of {_counted(plan.num_workers, 'worker')}",
        f"rounds    {found.num_rounds:,} of width {plan.width}, {found.mean_round:.2f} events each, "
        f"{100 * found.filled:.1f} % of the lanes filled",
        f"devices   {devices}",
        f"speed-up  {found.speed_up:.2f} expected over one device, one event after the other",
        f"versions  {plan.num_slots:,} at once, {where[plan.placement.store]}",
    ]
    if params is None:
        return "\n".join(lines)
    servers = SERVERS if cost.devices > 1 else (server,)
    names = [f"[{name}]" if name == server else f"{name} " for name in servers]
    lines += ["", f"{'on one device':34s}" + "".join(f"{name:>14s}" for name in names)]
    options = {"width": plan.width, "device_groups": cost.groups, "replicas": cost.replicas}
    moved = [traffic(params, server=name, **options) for name in servers]
    kept = [
        memory(params, server=name, num_slots=plan.num_slots, state=state, store=plan.placement.store, **options)
        for name in servers
    ]
    for label, values, name in _ROWS:
        row = [getattr(value, name) for value in (moved if values == "moved" else kept)]
        if values == "kept" or cost.devices > 1:
            lines.append(f"{label:34s}" + "".join(f"{_size(value):>13s} " for value in row).rstrip())
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
    """Plots the share of filled lanes and the expected speed-up against the width, in two panels.

    Args:
      figure: an empty `matplotlib.figure.Figure`.
      trace: the events.
      device_groups: the values of G, one line each, over the widths that are multiples of it.
      widths: values on the horizontal axes.
      replicas, fixed, update: as in `forecast`.

    Raises:
      TypeError: `trace` is not a Trace, or `device_groups` or `widths` is not a list.
      ValueError: a number is out of range, or no width is a multiple of one of `device_groups`.

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
            raise ValueError(f"widths={widths} contain no multiple of device_groups={cost.groups}; add one.")
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
        _style.log_ticks(axes, widths)
        axes.set_xlabel("width of a round (gradients)")
        axes.grid(alpha=0.25)


_ROWS = (
    ("receives in a round", "moved", "total"),
    ("  from other groups", "moved", "between"),
    ("keeps, without activations", "kept", "device"),
    ("  server's parameters", "kept", "params"),
    ("  method's state", "kept", "state"),
    ("  versions", "kept", "versions"),
    ("  the round in progress", "kept", "round"),
    ("keeps in host memory", "kept", "host"),
)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(size: int) -> str:
    """Formats bytes with three digits and units of powers of 1,000."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
