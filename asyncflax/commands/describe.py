"""Shows the documentation of anything that a config can name: options with defaults, equation, source.

asyncflax describe dc_asgd
asyncflax describe 'gamma(cv=0.5)' figure3
"""

from __future__ import annotations

import inspect
import sys

from asyncflax import _check, algorithms, models
from asyncflax.commands._catalogue import catalogue, configs
from asyncflax.train import launcher


def show(names: list[str]) -> None:
    """Prints the documentation of each name."""
    documented = configs()
    found = {name: (kind, made) for kind, of_kind in catalogue().items() for name, made in of_kind.items()}
    if not names:
        raise ValueError("name something to describe; 'asyncflax list' shows all names.")
    asked = [name.partition("(")[0].partition(":")[0].strip() for name in names]
    for name in asked:
        _check.choice("the name", name, [*found, *documented])
    for name in asked:
        if name in found:
            kind, made = found[name]
            print(f"{name}{_options(made)}    [{kind}]\n\n{inspect.getdoc(made)}\n")
        if name in documented:
            print(f"--config={name}    [configs]\n\n{documented[name]}\n")
    for package in (algorithms, models):  # documentation that their names share
        if not set(asked).isdisjoint(package.__all__):
            print(f"{inspect.getdoc(package)}\n")


def _options(made: object) -> str:
    """Options of a function or class, formatted as a call."""
    hidden = ("self", "parent", "name", "figure", "results", "rngs", "folder", "rows", "config")
    function = made.__init__ if inspect.isclass(made) else made
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in hidden]  # pyright: ignore
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    return f"({', '.join(shown)})"


def main() -> None:
    """Parses the names and shows them."""
    launcher.plain(show, sys.argv[1:], __doc__)
