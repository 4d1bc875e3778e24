"""Canonical spelling, so that runs whose configs mean the same compare as equal."""

from __future__ import annotations

import ast
from typing import Any

from asyncflax.train.options._values import parse_items


def plain_call(text: Any) -> Any:
    """The canonical spelling of a call; omits the path of a recorded trace, which is compared by content.

    Args:
      text: the value of a field; anything but a call is returned unchanged.
    """
    try:
        return ast.unparse(_Plain().visit(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError):
        return text


class _Plain(ast.NodeTransformer):
    """Calls without options become names, quoted words bare, integers floats; options are sorted."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        of_file = isinstance(node.func, ast.Name) and node.func.id == "recorded"
        kept = [keyword for keyword in node.keywords if not (of_file and keyword.arg == "path")]
        node.keywords = sorted(kept, key=lambda keyword: keyword.arg or "")
        return node if node.keywords or node.args else node.func

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str) and node.value.isidentifier():
            return ast.Name(node.value)
        return ast.Constant(float(node.value)) if type(node.value) is int else node


def plain_items(value: Any) -> Any:
    """The canonical form of items: lists of a label and a value.

    Args:
      value: the value of a field.
    """
    plain = lambda item: [*map(plain, item)] if isinstance(item, tuple | list) else plain_call(item)
    try:
        return [[label, plain(item)] for label, item in parse_items("items", value)]
    except (TypeError, ValueError):
        return value
