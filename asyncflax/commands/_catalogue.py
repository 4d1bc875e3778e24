"""Everything that a config can name, by kind."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from asyncflax import algorithms, data, models, queues, staleness
from asyncflax.base import AsyncAlgorithm
from asyncflax.lab import figures
from asyncflax.train import asynchrony, execution, launcher, schedules, writers
from asyncflax.train.options import makers


def catalogue() -> dict[str, dict[str, Callable[..., Any]]]:
    """Functions and classes of the library that config fields can name, by kind and name."""
    networks = {name: getattr(models, name) for name in models.__all__}
    return {
        "methods": makers(algorithms, AsyncAlgorithm),
        "networks": {name: made for name, made in networks.items() if inspect.isclass(made)},
        "datasets": {**makers(data, data.ImageData), **makers(data, data.ImageRecords)},
        "asynchrony": makers(asynchrony, asynchrony.Asynchrony),
        "executions": makers(execution, execution.Execution),
        "service_times": makers(queues, queues.ServiceTime),
        "schedules": makers(schedules, schedules.Schedule),
        "distributions": makers(staleness, staleness.StalenessLaw),
        "figures": figures.library(),
        "writers": makers(writers, writers.MetricWriter),
    }


def configs() -> dict[str, str]:
    """Docstrings of the configs that --config accepts by name."""
    docstring = lambda path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return {path.stem: docstring(path) for path in sorted(launcher.config_folder().glob("*.py"))}


def first_sentence(doc: str | None) -> str:
    """First sentence of a docstring, on one line."""
    paragraph = " ".join((doc or "").strip().partition("\n\n")[0].split())
    return paragraph if len(paragraph) <= 110 else f"{paragraph[:107]}..."
