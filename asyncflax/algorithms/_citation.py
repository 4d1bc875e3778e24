"""BibTeX for what a run used: the papers that docstrings name as their source."""

from __future__ import annotations

import importlib.resources
import inspect
import re
from typing import Any

from asyncflax import algorithms
from asyncflax.base import AsyncAlgorithm


def citation(*used: Any) -> str:
    """BibTeX entries of the papers that methods and other functions of this library come from.

    Args:
      used: names of methods, functions or classes of this library, configs of trainings, or configs of comparisons,
        which stand for all their methods. An `AsyncAlgorithm` that a method has made stands for that method, behind
        `transform_gradients` as well.

    Returns:
      the entries, each once, in the order of the papers' first mention; that of Mitliagkas et al. is always there.

    Raises:
      ValueError: a name is none of a method, or the methods of a comparison cannot be read.
      TypeError: something has no docstring to look into.

    Example:
      >>> import asyncflax
      >>> print(asyncflax.citation("dana_slim").split("\\n")[9])
      @article{hakimi2019taming,
      >>> asyncflax.citation(asyncflax.local.local_sgd).count("@")
      2
    """
    found = ["1605.09774"]
    for one in used:
        for source in map(_documentation, _methods(one)):
            found += re.findall(r"(?:arXiv|doi):\s*([^\s),;]+[0-9])", source)
    entries = _entries()
    return "\n\n".join(entries[paper] for paper in dict.fromkeys(found) if paper in entries)


def _methods(used: Any) -> list[Any]:
    """The names of the methods that a config cites; anything else as it is."""
    return list(getattr(used, "cited", [used]))


def _documentation(used: Any) -> str:
    """The docstring of something, or of a method by its name."""
    if isinstance(used, str):
        if used not in algorithms.__all__:
            raise ValueError(f"citation: {used!r} is no method; there are {', '.join(algorithms.__all__)}.")
        used = getattr(algorithms, used)
    while behind := [x for x in getattr(_update(used), "args", ()) if isinstance(x, AsyncAlgorithm)]:
        used = behind[0]  # of `transform_gradients`
    made_by = getattr(getattr(_update(used), "func", None), "make", used)
    text = inspect.getdoc(made_by)
    if not text or not hasattr(made_by, "__name__"):
        raise TypeError(f"citation takes names of methods, functions, classes and configs, got {used!r}.")
    return text


def _update(used: Any) -> Any:
    return getattr(used, "update", None)


def _entries() -> dict[str, str]:
    """The entries of citations.bib by arXiv number or DOI."""
    text = importlib.resources.files("asyncflax.algorithms").joinpath("citations.bib").read_text(encoding="utf-8")
    entries = [f"@{entry.strip()}" for entry in re.split(r"^@", text, flags=re.MULTILINE) if entry.strip()]
    return {re.findall(r"(?:eprint|doi) = \{(.+?)\}", entry)[0]: entry for entry in entries}
