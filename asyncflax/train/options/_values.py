"""Values of fields: converted to the type of the field."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable
from typing import Any

import numpy as np

from asyncflax import _check, _memory

_BYTES_OF_VALUE = 200  # per number of a field, which is copied and compared


def typed(name: str, value: Any, kind: Any) -> Any:
    """Converts a value to a type: ints to float, lists to tuple.

    Args:
      name: the value's name in error messages.
      value: any value.
      kind: a type, or Any.

    Raises:
      TypeError: the value has another type.

    >>> from asyncflax.train import options
    >>> options.typed("config.seed", 3, float), options.typed("config.classes", ["range(3)"], tuple[int, ...])
    (3.0, (0, 1, 2))
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
    """The numbers of 'range(8)', as in a flag; anything else unchanged.

    Args:
      name: the value's name in error messages.
      item: of a field.

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
