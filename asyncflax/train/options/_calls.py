"""Parses calls, looks up their functions and checks options against signatures."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from asyncflax import _check
from asyncflax.train.options._imports import digests, named
from asyncflax.train.options._values import dotted, parse, plain, typed

_PLAIN = (float, int, bool, str)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A function and some of its arguments as named in a config, validated but not called yet.

    Attributes:
      field: the field's name in error messages.
      name: the function's name in the config, dotted if imported.
      function: the function itself.
      options: the values by name; a nested call is a `Spec`.
      kinds: the types that the function may return; () allows any.
    """

    field: str
    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    kinds: tuple[type, ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={v if isinstance(v, Spec) else repr(v)}" for k, v in self.options.items())
        return f"{self.name}({inside})"

    @property
    def imported(self) -> bool:
        """Whether the function is imported rather than the library's."""
        return "." in self.name

    def accepts(self, parameter: str) -> bool:
        """Whether the function has this parameter."""
        return parameter in _parameters_of(self.function)

    def makes(self, kind: type) -> bool:
        """Whether the return annotation of the function is this type."""
        return _makes(self.function, kind)

    def option(self, parameter: str, default: Any = None) -> Any:
        """The value of an option: the given one, else the signature's default, else `default`."""
        parameters = _parameters_of(self.function)
        if parameter in self.options or parameter not in parameters:
            return self.options.get(parameter, default)
        found = parameters[parameter].default
        return default if found is inspect.Parameter.empty else found

    def without(self, *parameters: str) -> Spec:
        """A copy without some of the options."""
        return dataclasses.replace(self, options={k: v for k, v in self.options.items() if k not in parameters})

    def arguments(self, **given: Any) -> dict[str, Any]:
        """All keyword arguments: the options, and those of `given` that the function accepts.

        Raises:
          ValueError: a required argument is missing.
        """
        parameters = _parameters_of(self.function)
        made = {k: v.make() if isinstance(v, Spec) else v for k, v in self.options.items()}
        arguments = {k: v for k, v in given.items() if k in parameters} | made
        for k, p in parameters.items():
            if p.default is p.empty and k not in arguments:
                raise ValueError(f"{self.field}: {self.name} needs {k}, as in '{self.name}({k}=...)', got '{self}'.")
        return arguments

    def make(self, **given: Any) -> Any:
        """Calls the function with `arguments(**given)`.

        Raises:
          TypeError, ValueError: an argument is missing or invalid, or the function returns another type.
        """
        arguments = self.arguments(**given)
        with self.reporting():
            made = self.function(**arguments)
        if self.kinds and not isinstance(made, self.kinds):
            names = " or ".join(kind.__name__ for kind in self.kinds)
            raise TypeError(f"{self.field}: {self.name} must return {names}, got {type(made).__name__}.")
        return made

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Re-raises the function's errors as one line that names the field; other library errors pass through."""
        try:
            yield
        except Exception as error:
            expected = isinstance(error, TypeError | ValueError)
            if not (expected or self.imported):
                raise
            what = "" if expected else f"{type(error).__name__}: "
            text = " ".join(str(error).split()) if self.imported else error
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self.field}='{self}': {what}{text}") from error

    def sources(self) -> dict[str, str]:
        """The digests of imported source at import, by top-level module or package (all its files)."""
        top = self.name.partition(".")[0]
        found = {top: digests[top]} if self.imported and top in digests else {}  # the library has a version instead
        for value in self.options.values():
            found |= value.sources() if isinstance(value, Spec) else {}
        return found


class _Scope(NamedTuple):
    """The names that a call may use.

    `library` maps undotted names to functions, `kinds` are the types that they may return; see `read`.
    """

    library: Mapping[str, Callable[..., Any]]
    kinds: tuple[type, ...] = ()
    given: Collection[str] = ()
    given_imported: Collection[str] = ()


def read(
    field: str,
    text: str,
    library: Mapping[str, Callable[..., Any]],
    given: Collection[str] = (),
    kinds: tuple[type, ...] = (),
    *,
    given_imported: Collection[str] | None = None,
) -> Spec:
    """Parses a call, looks up its function and validates its options.

    Args:
      field: the field's name in error messages.
      text: the call.
      library: the functions by undotted name.
      given: the parameters with fields of their own, which cannot be options.
      kinds: the types that `Spec.make` may return.
      given_imported: replaces `given` for imported functions.

    Raises:
      TypeError, ValueError: the text is not a call, or a name or an option is unknown or has the wrong type.
    """
    _check.instance(field, text, str, "text such as 'NAME(option=value)'")
    text = text.strip()
    if re.fullmatch(r"[\w-]+", text):
        _check.choice(field, text, sorted(library))
    node = parse(field, text)
    if not isinstance(node, ast.Name | ast.Attribute | ast.Call):
        raise ValueError(f"{field} must name something, as in 'NAME(option=value)', got {text!r}.")
    return _spec(field, node, text, _Scope(library, kinds, given, given if given_imported is None else given_imported))


def makers(module: Any, kind: type) -> dict[str, Callable[..., Any]]:
    """The public functions of a module whose return annotation is `kind`.

    They are the undotted names of a field.
    """
    public = {name: getattr(module, name) for name in module.__all__}
    return {name: f for name, f in public.items() if inspect.isfunction(f) and _makes(f, kind)}


def _spec(field: str, node: ast.expr, text: str, scope: _Scope) -> Spec:
    """The `Spec` of a call, or of a name, which is short for a call without options."""
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    name = dotted(call.func)
    if name is None:
        raise ValueError(f"{field} must be like 'NAME(option=value)', got {text!r}.")
    if "." in name:
        function = named(field, name)
        if not callable(function):
            raise TypeError(f"{field}: {name} must be a function or a class, got {function!r}.")
        name = next((known for known, own in scope.library.items() if own is function), name)
    else:
        _check.choice(field, name, sorted(scope.library))
        function = scope.library[name]
    given = scope.given_imported if "." in name else scope.given
    allowed = [p for p in _parameters_of(function) if p not in given]
    if call.args:
        first = next(iter(allowed), "option")
        raise ValueError(f"{field}: {name} takes keyword arguments, as in '{name}({first}=...)', got {text!r}.")
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        option = keyword.arg
        if option is None or option in options:
            raise ValueError(f"{field} must be like 'NAME(option=value)' with distinct options, got {text!r}.")
        if option in given:
            raise ValueError(f"{field}: {option} of {name} is set by a field of its own, got {text!r}.")
        if option not in allowed and not _takes_any(function):
            hint, there_are = _check.nearest(option, allowed), ", ".join(allowed) or "none"
            raise ValueError(f"{field}: {name} has no option {option!r}, got {text!r}{hint} Options: {there_are}.")
        options[option] = _value(f"{field}: {option}", keyword.value, text, _annotation(function, option))
    return Spec(field, name, function, options, scope.kinds)


def _value(field: str, node: ast.expr, text: str, annotation: Any) -> Any:
    """A literal, a bare word as a string, or the `Spec` of a call."""
    kinds = [kind for kind in typing.get_args(annotation) or (annotation,) if kind is not type(None)]
    made = tuple(kind for kind in kinds if isinstance(kind, type) and _makers_of(kind))
    library = {name: function for kind in made for name, function in _makers_of(kind).items()}
    word = isinstance(node, ast.Name | ast.Attribute)
    if isinstance(node, ast.Call) or (word and library):
        return _spec(field, node, text, _Scope(library or _everything(), made))
    if isinstance(node, ast.Attribute) and isinstance(annotation, type) and annotation not in _PLAIN:
        return _spec(field, node, text, _Scope({}, (annotation,)))
    value = plain(field, node, text)
    if value is None and type(None) in typing.get_args(annotation):
        return None
    if library:
        raise TypeError(f"{field} must be a call of one of {', '.join(sorted(library))}, got {value!r} in {text!r}.")
    return typed(field, value, kinds[0] if len(kinds) == 1 and kinds[0] in _PLAIN else Any)


def _signature(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function, or of a class's constructor."""
    try:
        parameters = dict(inspect.signature(_called(function)).parameters)
    except ValueError:  # a builtin without a signature
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}
    if inspect.isclass(function):
        parameters.pop("self", None)
    return parameters


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.__init__ if inspect.isclass(function) else function  # nnx.Module's metaclass hides it


def _parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """All but *args and **kwargs."""
    return {name: p for name, p in _signature(function).items() if p.kind not in _VARIADIC}


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in _signature(function).values())


def _annotation(function: Callable[..., Any], parameter: str) -> Any:
    """The type of a parameter by its annotation or default, else Any."""
    try:
        hint = typing.get_type_hints(_called(function)).get(parameter)
    except Exception:  # annotations that cannot be resolved
        hint = None
    if hint is None and parameter in _parameters_of(function):
        default = _parameters_of(function)[parameter].default
        hint = None if default is inspect.Parameter.empty or default is None else type(default)
    return Any if hint is None else hint


def _makers_of(kind: type) -> dict[str, Callable[..., Any]]:
    """The library's functions that return a type, from the module of the type."""
    home = sys.modules.get(kind.__module__)
    return makers(home, kind) if kind.__module__.startswith("asyncflax.") and hasattr(home, "__all__") else {}


def _everything() -> dict[str, Callable[..., Any]]:
    """All functions by undotted name, for calls whose type is unknown."""
    from asyncflax import algorithms, base, queues, staleness

    return {
        **makers(algorithms, base.AsyncAlgorithm),
        **makers(queues, queues.ServiceTime),
        **makers(staleness, staleness.StalenessLaw),
    }


def _makes(function: Any, kind: type) -> bool:
    found = getattr(function, "__annotations__", {}).get("return")
    return found is kind or (isinstance(found, str) and found.rpartition(".")[2] == kind.__name__)
