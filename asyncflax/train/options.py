"""The language of configs: a field names something by a Python call with keyword arguments.

    dc_asgd(strength=0.04)        queue(service_time=gamma(cv=0.1), policy=discard)        my_nets.Tiny(width=8)

Undotted names are the library's, dotted ones are imported (the working folder is last on the path). Values are Python
literals, bare words (which are strings) and calls; `NAME` is short for `NAME()`. Text is parsed, never evaluated, and
options are checked against the signature of the function, so that new functions need no registration. docs/configs.md
has an example of each field.

Fields with several entries hold *items*: a mapping, a sequence, or text, `label=value, value`.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import inspect
import math
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from asyncflax import _check, _memory

__all__ = ["Items", "Spec", "makers", "named", "parse_items", "plain_call", "plain_items", "read", "typed"]

Items = Annotated[Any, "items: a mapping, a sequence, or the text of a flag"]

_BYTES_OF_VALUE = 200  # per number of a field, which is copied and compared
_PLAIN = (float, int, bool, str)
_NONE = (frozenset[str](), frozenset[str]())
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_digests: dict[str, str] = {}  # of imported source files, at the time of import


@dataclasses.dataclass(frozen=True)
class Spec:
    """A function and some of its arguments as named in a config, validated but not called yet.

    Attributes:
      field: the field's name in error messages.
      name: as in the config, dotted if it was imported.
      function: the function itself.
      options: values by name; a nested call is a `Spec`.
      kinds: the types that the function may return; () allows any.

    Example:
      >>> import asyncflax
      >>> from asyncflax.train import options
      >>> methods = options.makers(asyncflax.algorithms, asyncflax.AsyncAlgorithm)
      >>> spec = options.read("config.algorithm", "asgd(weight_decay=1e-4)", methods)
      >>> spec.name, spec.options, str(spec)
      ('asgd', {'weight_decay': 0.0001}, 'asgd(weight_decay=0.0001)')
      >>> spec.make(learning_rate=0.5)
      asgd(decay_at='read', learning_rate=0.5, weight_decay=0.0001)
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
        """Whether the function is imported, not the library's."""
        return "." in self.name

    def accepts(self, parameter: str) -> bool:
        """Whether the function has this parameter."""
        return parameter in _parameters_of(self.function)

    def makes(self, kind: type) -> bool:
        """Whether the return annotation of the function is this type."""
        return _makes(self.function, kind)

    def option(self, parameter: str, default: Any = None) -> Any:
        """The value of an option: as given, else the default of the signature, else `default`."""
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
          TypeError, ValueError: an argument is missing or invalid, or the function returns another type; the message
            names the field.
        """
        arguments = self.arguments(**given)
        try:
            made = self.function(**arguments)
        except Exception as error:
            if not (self.imported or isinstance(error, TypeError | ValueError)):
                raise
            raise self.error(error) from error
        if self.kinds and not isinstance(made, self.kinds):
            names = " or ".join(kind.__name__ for kind in self.kinds)
            raise TypeError(f"{self.field}: {self.name} must return {names}, it returned {type(made).__name__}.")
        return made

    def error(self, error: Exception) -> Exception:
        """An error of the function as one line that names the field."""
        kind = TypeError if isinstance(error, TypeError) else ValueError
        what = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        text = " ".join(str(error).split()) if self.imported else error
        return kind(f"{self.field}='{self}': {what}{text}")

    def sources(self) -> dict[str, str]:
        """Digests of imported source files at the time of import, by top-level module or package.

        A package's digest covers all its files; modules imported from there are not included.
        """
        nested = [value.sources() for value in self.options.values() if isinstance(value, Spec)]
        found = {name: digest for one in nested for name, digest in one.items()}
        top = self.name.partition(".")[0]
        if self.imported and top in _digests:  # the library has a version instead
            found[top] = _digests[top]
        return found


def read(
    field: str,
    text: str,
    library: Mapping[str, Callable[..., Any]],
    given: Iterable[str] = (),
    kinds: tuple[type, ...] = (),
    *,
    given_imported: Iterable[str] | None = None,
) -> Spec:
    """Parses a call, looks up its function and validates its options.

    Args:
      field: the field's name in error messages.
      text: the call.
      library: functions by undotted name.
      given: parameters with fields of their own, which cannot be options.
      kinds: the types that `Spec.make` may return.
      given_imported: replaces `given` for imported functions.

    Raises:
      ValueError, TypeError: the text is not a call, or a name or an option is unknown or has the wrong type.

    Example:
      >>> from asyncflax import queues
      >>> from asyncflax.train import options
      >>> laws = options.makers(queues, queues.ServiceTime)
      >>> str(options.read("service_time", "stragglers(slowdown=2, service_time=exponential)", laws))
      'stragglers(slowdown=2.0, service_time=exponential())'
      >>> options.read("service_time", "gamma(vc=0.1)", laws)
      Traceback (most recent call last):
        ...
      ValueError: service_time: gamma has no option 'vc', got 'gamma(vc=0.1)'. Options: cv, mean.
    """
    _check.instance(field, text, str, "text such as 'NAME(option=value)'")
    text = text.strip()
    if re.fullmatch(r"[\w-]+", text):
        _check.choice(field, text, sorted(library))
    node = _parse(field, text)
    if not isinstance(node, ast.Name | ast.Attribute | ast.Call):
        raise ValueError(f"{field} must name something, as in 'NAME(option=value)', got {text!r}.")
    given_imported = given if given_imported is None else given_imported
    return _spec(field, node, text, library, (frozenset(given), frozenset(given_imported)), kinds)


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
        entries.append((found[1] if found else "", _plain(field, _parse(field, item), item)))
    return entries


def makers(module: Any, kind: type) -> dict[str, Callable[..., Any]]:
    """The public functions of a module whose return annotation is `kind`.

    >>> from asyncflax import staleness
    >>> from asyncflax.train import options
    >>> list(options.makers(staleness, staleness.StalenessLaw))[:3]
    ['constant', 'empirical', 'geometric']
    """
    public = {name: getattr(module, name) for name in module.__all__}
    return {name: f for name, f in public.items() if inspect.isfunction(f) and _makes(f, kind)}


def named(field: str, name: str) -> Any:
    """Imports a dotted name; the working folder is last on the path.

    Args:
      field: the field's name in error messages.
      name: with at least one dot.

    Raises:
      ValueError: the module does not exist, cannot be imported, or has no such name.

    >>> from asyncflax.train import options
    >>> options.named("config.algorithm", "optax.adamw").__name__
    'adamw'
    """
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())
    parts = name.split(".")
    found: Any = None
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ValueError(f"{field}: {module} cannot be imported: it requires {error.name}.") from error
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            raise ValueError(f"{field}: {module} cannot be imported ({type(error).__name__}: {text}).") from error
    else:
        raise ValueError(
            f"{field}: no module {parts[0]!r} for {name!r}, neither installed nor as {parts[0]}.py in the working "
            f"folder {os.getcwd()}."
        )
    _know(field, parts[0])
    for part in parts[count:]:
        if not hasattr(found, part):
            hint = _check.nearest(part, [n for n in dir(found) if not n.startswith("_")])
            raise ValueError(f"{field}: {getattr(found, '__name__', found)} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def _know(field: str, top: str) -> None:
    """Records the digest of a module; raises if one of the same name in the working folder is shadowed."""
    if top == __name__.partition(".")[0]:  # which may be a checkout in the working folder
        return
    module = sys.modules[top]
    file, working = getattr(module, "__file__", None), pathlib.Path.cwd()
    for here in (working / f"{top}.py", working / top / "__init__.py"):
        if here.exists() and not (file and here.samefile(file)):
            where = file or "a part of Python"
            raise ValueError(f"{field}: {top} is {where}, not the {here.name} of the working folder; rename yours.")
    if top not in _digests:  # packages have many files, and configs are read often
        folders = [pathlib.Path(folder) for folder in getattr(module, "__path__", ())]
        files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
        files = files or [pathlib.Path(name) for name in [file] if name]
        _digests[top] = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def plain_call(text: Any) -> Any:
    """The canonical spelling of a call; omits the path of a recorded trace, which is compared by content.

    Args:
      text: of a field; anything but a call is returned unchanged.

    >>> from asyncflax.train import options
    >>> options.plain_call("dc_asgd( form='outside', strength = 1 )") == options.plain_call(
    ...     "dc_asgd(strength=1.0, form=outside)"
    ... )
    True
    >>> options.plain_call("queue(service_time=gamma())"), options.plain_call("recorded(path='a.npz')")
    ('queue(service_time=gamma)', 'recorded')
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
      value: of a field.

    >>> from asyncflax.train import options
    >>> options.plain_items("momentum=(0, 1), asgd") == options.plain_items({"momentum": [0, 1]})
    False
    >>> options.plain_items("momentum=(0, 1)") == options.plain_items({"momentum": [0, 1]})
    True
    """
    plain = lambda item: [*map(plain, item)] if isinstance(item, tuple | list) else plain_call(item)
    try:
        return [[label, plain(item)] for label, item in parse_items("items", value)]
    except (TypeError, ValueError):
        return value


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


def _parse(field: str, text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{field} must be like 'NAME(option=value)', got {text!r}.") from None


def _spec(
    field: str,
    node: ast.expr,
    text: str,
    library: Mapping[str, Callable[..., Any]],
    given_of: tuple[frozenset[str], frozenset[str]],
    kinds: tuple[type, ...],
) -> Spec:
    """The `Spec` of a call, or of a name, which is short for a call without options."""
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    name = _dotted(call.func)
    if name is None:
        raise ValueError(f"{field} must be like 'NAME(option=value)', got {text!r}.")
    if "." in name:
        function = named(field, name)
        if not callable(function):
            raise TypeError(f"{field}: {name} must be a function or a class, got {function!r}.")
        name = next((known for known, own in library.items() if own is function), name)
    else:
        _check.choice(field, name, sorted(library))
        function = library[name]
    given = given_of["." in name]
    allowed = [p for p in _parameters_of(function) if p not in given]
    if call.args:
        first = next(iter(allowed), "option")
        raise ValueError(f"{field}: {name} takes keyword arguments, as in '{name}({first}=...)', got {text!r}.")
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        option = keyword.arg
        if option is None or option in options:
            raise ValueError(f"{field} must be like 'NAME(option=value)', each option once, got {text!r}.")
        if option in given:
            raise ValueError(f"{field}: {option} of {name} is set by a field of its own, got {text!r}.")
        if option not in allowed and not _takes_any(function):
            hint, there_are = _check.nearest(option, allowed), ", ".join(allowed) or "none"
            raise ValueError(f"{field}: {name} has no option {option!r}, got {text!r}{hint} Options: {there_are}.")
        options[option] = _value(f"{field}: {option}", keyword.value, text, _annotation(function, option))
    return Spec(field, name, function, options, kinds)


def _value(field: str, node: ast.expr, text: str, annotation: Any) -> Any:
    """A literal, a bare word as a string, or the `Spec` of a call."""
    kinds = [annotation, *typing.get_args(annotation)]
    made = tuple(kind for kind in kinds if isinstance(kind, type) and _makers_of(kind))
    library = {name: function for kind in made for name, function in _makers_of(kind).items()}
    word = isinstance(node, ast.Name | ast.Attribute)
    if isinstance(node, ast.Call) or (word and library):
        return _spec(field, node, text, library or _everything(), _NONE, made)
    if isinstance(node, ast.Attribute) and isinstance(annotation, type) and annotation not in _PLAIN:
        return _spec(field, node, text, {}, _NONE, (annotation,))
    value = _plain(field, node, text)
    if library and not (value is None and type(None) in kinds):
        raise TypeError(f"{field} must be a call, one of {', '.join(sorted(library))}, got {value!r} in {text!r}.")
    simple = [kind for kind in kinds if kind in _PLAIN]
    others = [kind for kind in kinds if kind not in (*simple, type(None)) and kind is not annotation]
    is_plain = len(simple) == 1 and not others and not (value is None and type(None) in kinds)
    return typed(field, value, simple[0] if is_plain else Any)


def _plain(field: str, node: ast.expr, text: str) -> Any:
    """The value of a literal; bare words and calls become their text."""
    if _dotted(node.func if isinstance(node, ast.Call) else node) is not None:
        return ast.get_source_segment(text, node)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_plain(field, item, text) for item in node.elts)
    try:
        value = ast.literal_eval(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (ValueError, TypeError):
        raise ValueError(
            f"{field} must be a number, a word, a call, or quoted text such as a path, got {text!r}."
        ) from None


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


def _dotted(node: ast.expr) -> str | None:
    """'a.b' for a dotted name, else None."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


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
    own = kind.__module__.startswith("asyncflax.") and isinstance(home, types.ModuleType) and hasattr(home, "__all__")
    return makers(home, kind) if own else {}


def _everything() -> dict[str, Callable[..., Any]]:
    """All functions by undotted name, for calls whose type is unknown."""
    from asyncflax import algorithms, base, queues, staleness

    return {
        **makers(algorithms, base.AsyncAlgorithm),
        **makers(queues, queues.ServiceTime),
        **makers(staleness, staleness.StalenessLaw),
    }


def _makes(function: Any, kind: type) -> bool:
    says = getattr(function, "__annotations__", {}).get("return")
    return says is kind or (isinstance(says, str) and says.rpartition(".")[2] == kind.__name__)


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
