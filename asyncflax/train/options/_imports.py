"""Dotted names: imported functions, and digests of their source."""

from __future__ import annotations

import hashlib
import importlib
import os
import pathlib
import sys
from typing import Any

from asyncflax import _check

digests: dict[str, str] = {}  # by imported module, taken at import


def named(field: str, name: str) -> Any:
    """Imports a dotted name; the working folder is last on the path.

    Args:
      field: see the package.
      name: a name with at least one dot.

    Raises:
      ValueError: the module does not exist, cannot be imported, or has no such name.
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
    """Records the digest of a module; raises if it shadows one of the same name in the working folder."""
    if top == __name__.partition(".")[0]:  # which may be a checkout in the working folder
        return
    module = sys.modules[top]
    file, working = getattr(module, "__file__", None), pathlib.Path.cwd()
    for here in (working / f"{top}.py", working / top / "__init__.py"):
        if here.exists() and not (file and here.samefile(file)):
            where = file or "a part of Python"
            raise ValueError(f"{field}: {top} is {where}, not {here.name} in the working folder; rename yours.")
    if top not in digests:  # packages have many files, and configs are read often
        folders = [pathlib.Path(folder) for folder in getattr(module, "__path__", ())]
        files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
        files = files or [pathlib.Path(name) for name in [file] if name]
        digests[top] = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
