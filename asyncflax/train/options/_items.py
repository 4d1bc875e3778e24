"""Fields with several entries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from asyncflax.train.options._syntax import parse, plain

Items = Annotated[Any, "items: a mapping, a sequence, or the text of a flag"]


def parse_items(field: str, value: Any) -> list[tuple[str, Any]]:
    """The items of a field in order, as (label, value) pairs; '' if an item has no label.

    Args:
      field: the field's name in error messages.
      value: a mapping, a sequence, or text, which is split at commas outside of brackets. Literals in text are
        evaluated, bare words and calls stay text.

    Raises:
      ValueError, TypeError: the text cannot be parsed, or the value has an unsupported type.

    Example:
      >>> from asyncflax.train import options
      >>> options.parse_items("config.axes", "momentum=(0, 0.3), algorithm=(asgd, dc_asgd(strength=1))")
      [('momentum', (0, 0.3)), ('algorithm', ('asgd', 'dc_asgd(strength=1)'))]
      >>> options.parse_items("config.methods", "mild=ormo(momentum=0.5), asgd")
      [('mild', 'ormo(momentum=0.5)'), ('', 'asgd')]
    """
    if isinstance(value, Mapping):
        return [(str(label), item) for label, item in value.items()]
    if not isinstance(value, str):
        if not isinstance(value, Sequence):
            raise TypeError(f"{field} must be a mapping, a tuple or text, got {value!r} ({type(value).__name__}).")
        return [("", item) for item in value]
    entries = []
    for part in _split(value):
        found = re.match(r"\s*([\w.]+)\s*=(?!=)", part)
        item = part[found.end() if found else 0 :].strip()
        entries.append((found[1] if found else "", plain(field, parse(field, item), item)))
    return entries


def _split(text: str) -> list[str]:
    """Splits text at commas outside of brackets and quotes."""
    parts, depth, quote, escaped = [""], 0, "", False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
            if letter == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += letter
    return [part for part in parts if part.strip()]
