"""Output of --help: the command, its flags, and all fields of its config by group."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import types
from typing import Any, NamedTuple

from absl import flags

_WIDTH = 118


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      group: the comment above its group.
      name: the name of the field.
      kind: the type, as in the source.
      default: the default, as in the source.
      comment: the description.
    """

    group: str
    name: str
    kind: str
    default: Any
    comment: str


def describe(command: types.ModuleType, kind: type | None) -> str:
    """Formats the help of a command.

    Args:
      command: the command's module, with docstring and flags.
      kind: the class of its config, or None.
    """
    lines = [inspect.cleandoc(command.__doc__ or ""), "", "Flags:"]
    values = flags.FLAGS.flags_by_module_dict()
    mine = [flag for name in (command.__name__, "asyncflax.train.launcher") for flag in values.get(name, [])]
    lines += [line for flag in mine for line in _entry(f"--{flag.name}", flag.default, flag.help or "")]
    if kind is not None:
        lines += _of_config(kind, "config")
    return "\n".join(lines)


def fields(kind: type) -> list[Field]:
    """Fields of a dataclass, described by the docstring (Attributes) or by comments in the source.

    A group's comment is above it, after an empty line; a field's comment is behind it or directly above.
    """
    source = textwrap.dedent(inspect.getsource(kind))
    lines, alone, behind = source.splitlines(), {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            place = behind if token.line[: token.start[1]].strip() else alone
            place[token.start[0]] = token.string[1:].strip()
    said, group, found = _attributes(inspect.getdoc(kind) or ""), "", []
    declared = {field.name: field for field in dataclasses.fields(kind)}
    for node in ast.parse(source).body[0].body:  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above, line = [], node.lineno - 1
        while line in alone:
            above.insert(0, alone[line])
            line -= 1
        if above and not lines[line - 1].strip():
            group, *above = above
        own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        name, words = node.target.id, [*above, *(behind[number] for number in own if number in behind)]
        text = said.get(name) or " ".join(words) or group
        found.append(Field(group, name, ast.unparse(node.annotation), _default(declared[name]), text))
    return found


def _attributes(doc: str) -> dict[str, str]:
    """Descriptions of attributes in a docstring, by name."""
    section = doc.partition("\nAttributes:\n")[2].partition("\n\n")[0]
    entries = re.split(r"\n(?=  \w+:)", f"\n{section}")
    return {entry.strip().partition(":")[0]: " ".join(entry.partition(":")[2].split()) for entry in entries}


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _of_config(kind: type, prefix: str) -> list[str]:
    lines, group = [], None
    for field in fields(kind):
        if field.group != group:
            lines += ["", field.group or f"Fields of {kind.__name__}:"]
            group = field.group
        if dataclasses.is_dataclass(field.default):
            inner = type(field.default).__name__
            lines += _entry(f"--{prefix}.{field.name}.FIELD", None, f"every field of {inner}: asyncflax train --help")
        else:
            lines += _entry(f"--{prefix}.{field.name}", field.default, f"{field.comment} [{field.kind}]".strip())
    return lines


def _entry(flag: str, default: Any, text: str) -> list[str]:
    shown = flag if default is None or default is dataclasses.MISSING else f"{flag}={default!r}"
    return [f"  {shown}", *textwrap.wrap(text, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)]
