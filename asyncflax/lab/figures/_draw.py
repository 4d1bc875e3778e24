"""Draws the figures that a config names, and saves them with their claims."""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray

from asyncflax import _check, _style
from asyncflax.errors import RunError
from asyncflax.lab.claims import Claim, portable
from asyncflax.lab.figures._judging import judging_seeds
from asyncflax.lab.figures._words import Findings, title
from asyncflax.lab.statistics import criterion_digest
from asyncflax.lab.sweep import Grid, SweepConfig
from asyncflax.train.options import Spec, parse_items, read

_GIVEN = ("figure", "results")
_ON_TEST_DATA = ["test_accuracy", "test_loss"]
_METRICS = {False: _ON_TEST_DATA, True: [*_ON_TEST_DATA, "train_accuracy", "train_loss"]}  # by whether a figure judges


class Drawn(NamedTuple):
    """A saved figure.

    Attributes:
      path: the path of the PNG.
      table: the text table, see `Findings`.
      claims: the claims saved in WORKDIR/claims.
    """

    path: pathlib.Path
    table: str
    claims: list[Claim]


def check(config: SweepConfig) -> None:
    """Validates the figures of a config: their names, their options, and the axes that they require.

    Raises:
      RunError: a figure of `config` cannot be drawn.

    Example:
      >>> from asyncflax.lab import figures
      >>> from asyncflax.lab.sweep import SweepConfig
      >>> figures.check(SweepConfig(figure="tuned_momenta"))
      Traceback (most recent call last):
        ...
      asyncflax.errors.RunError: config.figure must be one of 'best_momentum', 'efficiency', 'fixed_momentum', 'grid', \
'negative_momentum', 'penalty', 'tuned_momentum', got 'tuned_momenta'; did you mean 'tuned_momentum'?
    """
    try:
        specs = _specs(config)
        axes = Grid.of(config).axes
        for spec in specs:
            _check_axes(spec, axes)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error


def _check_axes(spec: Spec, axes: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises unless a sweep has the axes of a figure's AXES, each with its least number of values."""
    needed = getattr(importlib.import_module(spec.function.__module__), "AXES", {})
    missing = [name for name in needed if name not in axes]
    if missing:
        what = f"the ax{'e' if len(missing) > 1 else 'i'}s {', '.join(missing)}"
        raise ValueError(f"config.figure='{spec}' needs {what}, but config.axes has only {', '.join(axes)}.")
    for name in axes:
        if needed and name not in needed:
            raise ValueError(f"config.figure='{spec}' does not support the axis {name}; set config.figure=''.")
    for name, least in needed.items():
        if len(axes[name]) < least:
            raise ValueError(f"config.figure='{spec}' needs at least {least} values of {name}, got {axes[name]}.")
    if spec.accepts("choosing"):
        try:
            judging_seeds(axes["seed"], spec.option("choosing"))
        except ValueError as error:
            raise ValueError(f"config.figure='{spec}': {error}") from None


def criteria(config: SweepConfig) -> dict[str, str]:
    """The `statistics.criterion_digest` of each figure that judges, by its call.

    It covers the config, the judging seeds and the call, all known before training.

    Raises:
      TypeError, ValueError: a figure of `config` is invalid.

    Example:
      >>> from asyncflax.lab import figures
      >>> from asyncflax.lab.sweep import SweepConfig
      >>> axes = {"momentum": (-0.1, 0.1), "learning_rate": (0.1, 0.3, 1.0, 3.0), "seed": tuple(range(24))}
      >>> list(figures.criteria(SweepConfig(axes=axes, figure="negative_momentum(target=0.1)")))
      ['negative_momentum(target=0.1)']
    """
    seeds = np.atleast_1d(dict(parse_items("axes", config.axes)).get("seed", ())).tolist()
    return {
        str(spec): criterion_digest(config, judging_seeds(seeds, spec.option("choosing")), figure=str(spec))
        for spec in _specs(config)
        if spec.accepts("choosing")
    }


def draw(
    results: xarray.Dataset, config: SweepConfig, workdir: str | os.PathLike[str], *, command: str = ""
) -> list[Drawn]:
    """Draws the figures of a sweep, and saves them and their claims in WORKDIR/claims.

    Args:
      results: the results of `run_sweep`.
      config: the config of the sweep.
      workdir: the folder of the sweep.
      command: the command that reproduces the results, stored in the claims; '' writes no claims.

    Raises:
      RunError: a figure cannot be drawn.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab import figures
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import SweepConfig, run_sweep
      >>> config = SweepConfig(TrainConfig(model="Mlp", num_updates=20, eval_every=10), {"momentum": (0, 0.5)})
      >>> workdir = tempfile.mkdtemp()
      >>> results = run_sweep(config, workdir)  # doctest: +ELLIPSIS
      Grid(momentum: 2; 2 cells): 2 to train...
      >>> [drawn.path.name for drawn in figures.draw(results, config, workdir)]
      ['grid.png']
    """
    check(config)
    judged = criteria(config)
    about = {"command": portable(command), "cpu_minutes": results.attrs.get("cpu_minutes", 0.0)} if command else {}
    return [_draw(spec, results, workdir, about | {"criterion": judged.get(str(spec), "")}) for spec in _specs(config)]


def _draw(spec: Spec, results: xarray.Dataset, workdir: str | os.PathLike[str], about: dict[str, Any]) -> Drawn:
    """Draws one figure and saves its claims with the fields `about`, if these have a command."""
    figure = _style.new_figure(15, 4.8)
    try:
        findings = spec.function(**spec.arguments(figure=figure, results=results))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"cannot draw the figure ({error}); the results are in {workdir}/results.nc") from error
    if not figure.get_suptitle():
        _style.title(figure, title(results))
    name = findings.claims[0]["name"] if findings.claims else spec.name.rpartition(".")[2].replace("_", "-")
    path = pathlib.Path(workdir) / "claims" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    _style.save(figure, path)
    claims = []
    for fields in findings.claims if "command" in about else ():
        claim = Claim(**fields, **about, figure=path.name)
        claim.save(path.parent, overwrite=True)  # follows from the results, which are kept
        claims.append(claim)
    return Drawn(path, findings.table, claims)


def library() -> dict[str, Callable[..., Findings]]:
    """The figures of this package by name.

    Example:
      >>> from asyncflax.lab import figures
      >>> list(figures.library())
      ['best_momentum', 'efficiency', 'fixed_momentum', 'grid', 'negative_momentum', 'penalty', 'tuned_momentum']
    """
    folder = pathlib.Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return {name: getattr(importlib.import_module(f"asyncflax.lab.figures.{name}"), name) for name in names}


def _specs(config: SweepConfig) -> list[Spec]:
    _check.instance("config.figure", config.figure, str, "a string")
    specs = []
    for label, text in parse_items("config.figure", config.figure or "grid"):
        if label:
            raise ValueError(f"config.figure: figures take no label, got {label!r} in {config.figure!r}.")
        spec = read("config.figure", text, library(), _GIVEN)
        if "metric" in spec.options:
            _check.choice("config.figure: metric", spec.options["metric"], _METRICS[spec.accepts("choosing")])
        spec.arguments(figure=None, results=None)
        specs.append(spec)
    return specs
