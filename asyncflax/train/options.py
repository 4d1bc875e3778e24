"""How names and options in configs are looked up and checked.

Options are checked against the signature of the function that they are for: a new one needs no entry anywhere.
"""

from __future__ import annotations

import ast
import inspect
import numbers
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any

from asyncflax import _check

__all__ = ["parse_options"]


def returning(module: Any, kind: str) -> list[str]:
    """The public functions of a module that return a `kind`, by their annotations."""
    return [n for n in module.__all__ if getattr(getattr(module, n), "__annotations__", {}).get("return") == kind]


def parse_options(name: str, text: str, function: Callable[..., Any], given: Iterable[str] = ()) -> dict[str, Any]:
    """Options like 'strength=0.04, form=outside' as keyword arguments for a function.

    Args:
      name: what to call the text in errors.
      text: values are Python literals; bare words are strings.
      function: whose signature says which options there are, and of which type.
      given: parameters that have a field of their own.

    Raises:
      ValueError, TypeError: the text is no list of options, or an option is unknown, set elsewhere or of a wrong type.

    Example:
      >>> import asyncflax
      >>> from asyncflax.train.options import parse_options
      >>> parse_options("config.algorithm_options", "strength=1, form=outside", asyncflax.algorithms.dc_asgd)
      {'strength': 1.0, 'form': 'outside'}
    """
    if not text.strip():
        return {}
    try:
        call = typing.cast(ast.Call, ast.parse(f"f({text})", mode="eval").body)
        options = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
        if not isinstance(call.func, ast.Name) or call.args or len(options) < len(call.keywords) or "None" in options:
            raise ValueError
    except (SyntaxError, ValueError, AttributeError):
        raise ValueError(f"{name} must be like 'strength=0.04, form=outside', got {text!r}.") from None
    called = getattr(function, "__name__", str(function))
    parameters, given = parameters_of(function), set(given)
    allowed = [p for p in parameters if p not in given]
    for option, value in options.items():
        if option in given:
            raise ValueError(f"{name}: {option} of {called} is set by a field of its own, got {text!r}.")
        if option not in allowed:
            there_are = ", ".join(allowed) or "none"
            hint = _check.nearest(option, allowed)
            raise ValueError(f"{name}: {called} has no option {option!r}, got {text!r}{hint} There are: {there_are}.")
        options[option] = typed(f"{name}: {option}", value, _type_of(function, parameters[option]))
    return options


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function, or those with which a class is made."""
    if inspect.isclass(function):  # the metaclass of a module hides them
        parameters = dict(inspect.signature(function.__init__).parameters)
        parameters.pop("self")
        return parameters
    return dict(inspect.signature(function).parameters)


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _type_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """float, int, bool or str, from the annotation or else the default; Any where that is something else."""
    hint = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function).get(parameter.name)
    if hint is None:
        hint = type(parameter.default)
    return hint if hint in (float, int, bool, str) else Any  # a union: the function itself looks


def _range(item: Any) -> Iterable[Any]:
    """The numbers of 'range(8)', which is how a flag has it; anything else as it is."""
    found = re.fullmatch(r"range\((\d+(?:,\s*\d+(?:,\s*[1-9]\d*)?)?)\)", item) if isinstance(item, str) else None
    return (range(*map(int, found[1].split(","))) if found else None) or [item]


def typed(name: str, value: Any, kind: Any) -> Any:
    """The value in the field's type: an int may stand for a float, a list for a tuple."""
    if kind is Any:
        return value
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple | list | range):
            raise TypeError(f"{name} must be a tuple of numbers, got {value!r} ({type(value).__name__}).")
        items = [one for item in value for one in _range(item)]
        return tuple(typed(f"{name}[{i}]", item, typing.get_args(kind)[0]) for i, item in enumerate(items))
    if not isinstance(value, bool):  # an int for a float, and NumPy's numbers
        if kind is float and isinstance(value, numbers.Real):
            return float(value)
        if kind is int and isinstance(value, numbers.Integral):
            return int(value)
    if type(value) is not kind:
        raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r} ({type(value).__name__}).")
    return value
