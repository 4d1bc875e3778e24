"""Progress of the primary process on the terminal: a bar, and lines above it."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from asyncflax.train import distributed


def bar(total: int, start: int = 0, *, unit_scale: bool = False) -> Any:
    """A progress bar of updates with their rate and the time left; shown only on a terminal.

    Args:
      total: the total number of updates.
      start: the number of updates made earlier.
      unit_scale: whether to write 1.2M for 1,200,000.
    """
    shown: dict[str, Any] = {"unit": " updates", "unit_scale": unit_scale, "dynamic_ncols": True, "smoothing": 0.05}
    return tqdm(total=total, initial=start, disable=None if distributed.is_primary() else True, **shown)


def say(text: str) -> None:
    """Prints a line above the bar."""
    if distributed.is_primary():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
