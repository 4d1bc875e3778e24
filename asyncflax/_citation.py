"""BibTeX for what a run used: the papers that docstrings name as their source."""

from __future__ import annotations

import importlib.resources
import inspect
import re
from typing import Any

from asyncflax import algorithms


def citation(*used: Any) -> str:
    """BibTeX entries of the papers that methods and other functions of this library come from.

    Args:
      used: names of methods, functions or classes of this library, or configs of trainings. An `AsyncAlgorithm` that a
        method has made stands for that method.

    Returns:
      the entries, each once, in the order of the papers' first mention; that of Mitliagkas et al. is always there.

    Raises:
      ValueError: a name is none of a method.
      TypeError: something has no docstring to look into.

    Example:
      >>> import asyncflax
      >>> print(asyncflax.citation("dana_slim").split("\\n")[9])
      @article{hakimi2019taming,
      >>> asyncflax.citation(asyncflax.local.local_sgd).count("@")
      2
    """
    found = ["1605.09774"]
    for source in map(_documentation, used):
        found += re.findall(r"(?:arXiv|doi):\s*([^\s),;]+[0-9])", source)
    entries = _entries()
    return "\n\n".join(entries[paper] for paper in dict.fromkeys(found) if paper in entries)


def _documentation(used: Any) -> str:
    """The docstring of something, or of the method of a config."""
    if hasattr(used, "algorithm") and isinstance(used.algorithm, str):
        used = used.algorithm
    if isinstance(used, str):
        if used not in algorithms.__all__:
            raise ValueError(f"citation: {used!r} is no method; there are {', '.join(algorithms.__all__)}.")
        used = getattr(algorithms, used)
    made_by = getattr(getattr(getattr(used, "update", None), "func", None), "make", used)
    text = inspect.getdoc(made_by)
    if not text or not hasattr(made_by, "__name__"):
        raise TypeError(f"citation takes names of methods, functions, classes and configs, got {used!r}.")
    return text


def _entries() -> dict[str, str]:
    """The entries of citations.bib by arXiv number or DOI."""
    text = importlib.resources.files("asyncflax").joinpath("citations.bib").read_text(encoding="utf-8")
    entries = [f"@{entry.strip()}" for entry in re.split(r"^@", text, flags=re.MULTILINE) if entry.strip()]
    return {re.findall(r"(?:eprint|doi) = \{(.+?)\}", entry)[0]: entry for entry in entries}
