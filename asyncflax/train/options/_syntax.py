"""The syntax of values: literals, bare words, and calls as text."""

from __future__ import annotations

import ast
import math
from typing import Any


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
