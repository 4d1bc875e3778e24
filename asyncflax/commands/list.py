"""Lists everything that a config can name.

    asyncflax list
    asyncflax list methods

Kinds are methods, networks, datasets, asynchrony, service_times, distributions, figures, writers and configs.
"""

from __future__ import annotations

import inspect
import sys

from asyncflax import _check
from asyncflax.commands._catalogue import catalogue, configs, first_sentence
from asyncflax.train import launcher


def show(kinds: list[str]) -> None:
    """Prints the names, each with the first sentence of its docstring."""
    found = {
        kind: {name: first_sentence(inspect.getdoc(made)) for name, made in of_kind.items()}
        for kind, of_kind in catalogue().items()
    }
    found["configs"] = {name: first_sentence(doc) for name, doc in configs().items()}
    for kind in kinds:
        _check.choice("the kind", kind, list(found))
    for kind in kinds or found:
        width = max(map(len, found[kind]))
        print(f"{kind}:")
        print("\n".join(f"  {name:{width}}  {sentence}" for name, sentence in found[kind].items()))


def main() -> None:
    """Parses the kinds and shows them."""
    launcher.plain(show, sys.argv[1:], __doc__)
