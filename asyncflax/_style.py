"""Common style of all figures: colours, markers, titles, resolution, file format. Requires matplotlib."""

from __future__ import annotations

import io
import pathlib
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from asyncflax._files import write_atomically

# Okabe and Ito's colours, which colour-blind people can tell apart; markers for print without colour.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "0.6"
_LINES = ("-", "--", ":")
_SHORT = 25  # lines of at most this many points have a marker at each
_DPI = 100


def look(k: int, points: int | None = None) -> dict[str, Any]:
    """Colour, marker and line of the k-th series; long lines have about ten markers, short ones one per point."""
    many = points is not None and points > _SHORT
    return {
        "color": COLORS[k % len(COLORS)],
        "marker": MARKERS[k % len(MARKERS)],
        "markersize": 4,
        "markevery": points // 10 if points and many else None,
        "linestyle": _LINES[k // len(COLORS) % len(_LINES)],
    }


def listed(numbers: Iterable[float], form: str = "g") -> str:
    """'1, 2 and 4'."""
    *others, last = (format(number, form) for number in numbers)
    return f"{', '.join(others)} and {last}" if others else last


def workers(*counts: int) -> str:
    """'1 worker', '8 workers', '4, 8 and 16 workers'."""
    return f"{listed(counts, 'd')} worker{'s' * (counts != (1,))}"


def integer_ticks(axis: Any) -> None:
    """Restricts the ticks of a linear axis to integers."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def plain_log(axes: Any, which: str) -> None:
    """Sets a logarithmic 'x' or 'y' axis with plain ticks such as 10, 20, 50 instead of 2 x 10^1."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = getattr(axes.dataLim, f"interval{which}")
    if low == high > 0:  # matplotlib finds no range for a single value
        axes.set(**{f"{which}lim": (low / 2, 2 * high)})
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    each = (1.0, 2.0, 5.0) if high < 1e4 * low else (1.0,)
    axis.set_major_locator(MaxNLocator(6) if high < 12 * low else LogLocator(subs=each))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}")


def log_ticks(axes: Any, values: Iterable[int]) -> None:
    """Makes the x axis logarithmic, with a tick at each of these numbers and no others, as for 1, 2, 4, 8 workers."""
    axes.set_xscale("log", base=2)
    axes.set_xticks([*values], [str(value) for value in values])
    axes.minorticks_off()


def intervals(axes: Any, x: Any, found: Iterable[tuple[float, float, float]], k: int = 0, **options: Any) -> None:
    """Draws the k-th series with its intervals, each point as (value, low, high)."""
    value, low, high = np.array([*found]).T
    axes.errorbar(x, value, yerr=[value - low, high - value], **look(k), capsize=4, **options)


def title(figure: Any, text: str) -> None:
    """Sets the title of a figure, wrapped to its width."""
    lines = textwrap.wrap(text, int(11 * figure.get_figwidth()), break_long_words=True)
    figure.suptitle("\n".join(lines).replace("$", r"\$"), fontsize=11)


def new_figure(width: float, height: float) -> Any:
    """Creates an empty figure with constrained layout; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes a PNG with a palette of 256 colours, atomically."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png")
    image = Image.open(drawn).convert("RGB").quantize(256)
    write_atomically(path, lambda file: image.save(file, "png", optimize=True))
