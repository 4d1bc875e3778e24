"""What figures must look like: nothing empty or cut off, no label again and again, colours that all can tell apart."""

import contextlib

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.text import Text

from asyncflax import _style


@contextlib.contextmanager
def kept():
    """The figures that are saved meanwhile, by the names of their files."""
    figures, save = {}, _style.save

    def keep(figure, path):
        figures[path.name] = figure
        save(figure, path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_style, "save", keep)
        yield figures


def check(figure):
    """Draws a figure and looks at it."""
    figure.set_dpi(50)  # quicker
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert figure.axes
    for axes in figure.axes:
        in_data = lambda line, axes=axes: line.get_transform().contains_branch(axes.transData)
        level = lambda line, axes=axes: line.get_transform() == axes.get_yaxis_transform()
        lines = [line for line in axes.lines if not level(line)]
        there = lambda line: bool(np.isfinite(line.get_xydata().astype(float)).all(1).any())
        measured = [line for line in lines if in_data(line) and to_hex(line.get_color()) != "#000000"]  # black: theory
        seen = [line for line in measured if there(line)]
        failed = [line for line in lines if line.get_marker() == "x" and len(line.get_xdata())]  # in the strip FAIL
        bars = [bar for bar in axes.containers if isinstance(bar, BarContainer)]
        assert seen or failed or bars or axes.images or axes.collections, f"{axes.get_ylabel()} is empty"
        named = [line for line in axes.lines if line.get_label()[0] != "_"]
        named += [bars.lines[0] for bars in axes.containers if isinstance(bars, ErrorbarContainer)]
        crosses = {line.get_color() for line in failed}
        for line in named:
            if to_hex(line.get_color()).upper() in _style.COLORS and line.get_color() not in crosses:
                assert there(line), f"the legend of {axes.get_ylabel()} names a line without points"
        for line in seen:
            if line.get_marker() in ("_", "|"):  # the ends of intervals may lie outside
                continue
            (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
            x, y = line.get_xydata().astype(float).T
            inside = (left <= x) & (x <= right) & (low <= y) & (y <= high)
            assert inside.any(), f"{line.get_label()} of {axes.get_ylabel()} is outside of the panel"
            if line.get_label()[0] != "_" and len(x) < 10:
                assert line.get_marker() != "None" or line.get_linestyle() != "-", f"{line.get_label()} has no markers"
        for line in axes.lines:
            color = to_hex(line.get_color()).upper()
            assert color in _style.COLORS or len({color[1:3], color[3:5], color[5:7]}) == 1, color
    unseen = beyond(figure)
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            box = text.get_window_extent(canvas.get_renderer())
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
            assert inside, f"{text.get_text()!r} is cut off"
    labels = [text.get_text() for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label)]
    repeated = {label for label in labels if label and labels.count(label) > 3}
    assert not repeated, repeated
    assert not [label for label in labels if "group" in label.replace("device group", "")]


def beyond(figure):
    """Tick labels beyond the limits of their axis, which matplotlib keeps but does not draw."""
    unseen = set()
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not min(limits) <= tick.get_loc() <= max(limits):
                    unseen |= {tick.label1, tick.label2}
    return unseen
