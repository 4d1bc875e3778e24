"""Field values: syntax, fields with several entries, and conversion to the field's type."""

from __future__ import annotations

import ast
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from asyncflax import _check, _memory

Items = Annotated[Any, "items: a mapping, a sequence, or the text of a flag"]
_BYTES_OF_VALUE = 200  # per number of a field, copies included


def parse(field: str, text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{field} must be like 'NAME(option=value)', got {text!r}.") from None


def plain(field: str, node: ast.expr, text: str) -> Any:
    """The value of a literal; bare words and calls become their text."""
    if dotted(node.func if isinstance(node, ast.Call) else node) is not None:
        return ast.get_source_segment(text, node)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(plain(field, item, text) for item in node.elts)
    try:
        value = ast.literal_eval(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (ValueError, TypeError):
        raise ValueError(
            f"{field} must be a number, a word, a call, or quoted text such as a path, got {text!r}."
        ) from None


def dotted(node: ast.expr) -> str | None:
    """'a.b' for a dotted name, else None."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def parse_items(field: str, value: Any) -> list[tuple[str, Any]]:
    """The items of a field in order, as (label, value) pairs; '' if an item has no label.

    Args:
      field: see the package.
      value: a mapping, a sequence, or text, which is split at commas outside of brackets. Literals in text are
        evaluated; bare words and calls stay text.

    Raises:
      TypeError, ValueError: the text cannot be parsed, or the value has an unsupported type.
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


def typed(name: str, value: Any, kind: Any) -> Any:
    """Converts a value to a type: ints to float, lists to tuple.

    Args:
      name: the value's name in error messages.
      value: any value.
      kind: a type, or Any.

    Raises:
      TypeError: the value has another type.
    """
    if kind is Any:
        return value
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple | list | range):
            raise TypeError(f"{name} must be a tuple of numbers, got {_check.shown(value)} ({type(value).__name__}).")
        items = [one for item in value for one in in_range(name, item)]
        return tuple(typed(f"{name}[{i}]", item, typing.get_args(kind)[0]) for i, item in enumerate(items))
    number = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
    if kind is float and number:  # accepts ints and NumPy's numbers
        return _check.numbers(name, value).item()
    if kind is int and number and not isinstance(value, float | np.floating):
        return int(value)
    if kind is bool and isinstance(value, np.bool_):
        return bool(value)
    if type(value) is not kind:
        raise TypeError(f"{name} must be of type {kind.__name__}, got {_check.shown(value)} ({type(value).__name__}).")
    return value


def in_range(name: str, item: Any) -> Iterable[Any]:
    """Expands the text 'range(8)' of a flag to its numbers; returns anything else as the only item.

    Raises:
      ValueError: the numbers do not fit into memory.
    """
    number = r"\d{1,18}"
    pattern = rf"range\(({number}(?:,\s*{number}(?:,\s*(?!0){number})?)?)\)"
    found = re.fullmatch(pattern, item) if isinstance(item, str) else None
    if found is None:
        return [item]
    numbers = range(*map(int, found[1].split(",")))
    _memory.need(name, item, _BYTES_OF_VALUE * len(numbers), "its numbers")
    return numbers or [item]
