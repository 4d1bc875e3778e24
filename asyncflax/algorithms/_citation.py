"""BibTeX entries of the papers that docstrings cite as their source."""

from __future__ import annotations

import importlib.resources
import inspect
import re
from typing import Any

from asyncflax import algorithms
from asyncflax.base import AsyncAlgorithm


def citation(*used: Any) -> str:
    """BibTeX entries of the papers behind methods and other functions of this library.

    Args:
      used: names of methods, functions or classes of this library, the result of a method (also inside
        `transform_gradients`), or configs of runs and comparisons.

    Returns:
      The entries in the order of first mention, beginning with Mitliagkas et al.

    Raises:
      ValueError: the method is unknown, or the methods of a comparison cannot be parsed.
      TypeError: an argument has no docstring.

    Example:
      >>> import asyncflax
      >>> print(asyncflax.citation("dana_slim").split("\\n")[9])
      @article{hakimi2019taming,
      >>> asyncflax.citation(asyncflax.local.local_sgd).count("@")
      2
    """
    found = ["1605.09774"]
    for one in used:
        for source in map(_documentation, getattr(one, "cited", [one])):  # a config has `cited`
            found += re.findall(r"(?:arXiv|doi):\s*([^\s),;]+[0-9])", source)
    entries = _entries()
    return "\n\n".join(entries[paper] for paper in dict.fromkeys(found) if paper in entries)


def _documentation(used: Any) -> str:
    """The docstring of a function, a class, a method by its name, or the factory of an algorithm."""
    if isinstance(used, str):
        if used not in algorithms.__all__:
            raise ValueError(f"citation: {used!r} is not a method; available: {', '.join(algorithms.__all__)}.")
        used = getattr(algorithms, used)
    while behind := [x for x in getattr(_update(used), "args", ()) if isinstance(x, AsyncAlgorithm)]:
        used = behind[0]  # of `transform_gradients`
    made_by = getattr(getattr(_update(used), "func", None), "make", used)
    text = inspect.getdoc(made_by)
    if not text or not hasattr(made_by, "__name__"):
        raise TypeError(f"citation accepts names of methods, functions, classes and configs, got {used!r}.")
    return text


def _update(used: Any) -> Any:
    return getattr(used, "update", None)


def _entries() -> dict[str, str]:
    """The entries of citations.bib by arXiv number or DOI."""
    text = importlib.resources.files("asyncflax.algorithms").joinpath("citations.bib").read_text(encoding="utf-8")
    entries = [f"@{entry.strip()}" for entry in re.split(r"^@", text, flags=re.MULTILINE) if entry.strip()]
    return {re.findall(r"(?:eprint|doi) = \{(.+?)\}", entry)[0]: entry for entry in entries}
