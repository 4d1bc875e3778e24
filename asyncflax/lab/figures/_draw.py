"""From the name of a figure in a config to a file, and claims beside it."""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import xarray

from asyncflax import _check, _style
from asyncflax.errors import RunError
from asyncflax.lab.claims import Claim, portable
from asyncflax.lab.figures._words import title
from asyncflax.lab.sweep import Grid, SweepConfig
from asyncflax.train.options import Spec, read

_GIVEN = ("figure", "results")


class Findings(NamedTuple):
    """What a figure shows.

    Attributes:
      table: in words and numbers, for the terminal.
      claims: the fields of each `Claim` as a dict, without command and figure.

    Example: see `draw`.
    """

    table: str
    claims: Sequence[dict[str, Any]] = ()


class Drawn(NamedTuple):
    """A figure on the disk.

    Attributes:
      path: of the PNG.
      table: what it shows, in words and numbers.
      claims: what it checks.

    Example: see `draw`.
    """

    path: pathlib.Path
    table: str
    claims: list[Claim]


def check(config: SweepConfig) -> None:
    """Refuses a figure that there is not, options that it does not have, and a grid without the axes that it needs.

    Args:
      config: of a sweep.

    Raises:
      RunError: one clear sentence.

    Example:
      >>> from asyncflax.lab import figures
      >>> from asyncflax.lab.sweep import SweepConfig
      >>> figures.check(SweepConfig(figure="tuned_momenta"))
      Traceback (most recent call last):
        ...
      asyncflax.errors.RunError: config.figure must be one of 'best_momentum', 'efficiency', 'grid', \
'negative_momentum', 'tuned_momentum', got 'tuned_momenta'; did you mean 'tuned_momentum'?
    """
    try:
        spec = _spec(config)
        axes = Grid.of(config).axes
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    needed = _needed_axes(spec.function)
    missing = [name for name in needed if name not in axes]
    if missing:
        what = f"the ax{'e' if len(missing) > 1 else 'i'}s {', '.join(missing)}"
        raise RunError(f"config.figure={config.figure!r} needs {what}; config.axes has {', '.join(axes)}.")
    for name in axes:
        if needed and name not in needed:
            raise RunError(f"config.figure={config.figure!r} has no place for the axis {name}; set config.figure=''.")
    if "seed" in needed and len(axes["seed"]) < 2:
        raise RunError(f"config.figure={config.figure!r} needs two seeds at least, for intervals; got {axes['seed']}.")
    if spec.name == "negative_momentum" and 0.0 not in axes["momentum"]:
        raise RunError(f"config.figure={config.figure!r} compares with momentum 0, config.axes has {axes['momentum']}.")


def draw(results: xarray.Dataset, config: SweepConfig, workdir: str | os.PathLike[str], *, command: str = "") -> Drawn:
    """Draws the figure that a config names, and saves it and its claims in WORKDIR/claims.

    Args:
      results: of `run_sweep`.
      config: of the sweep.
      workdir: its folder.
      command: that makes the results, for the claims; without it there are none.

    Raises:
      RunError: see `check`.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab import figures
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import SweepConfig, run_sweep
      >>> config = SweepConfig(TrainConfig(model="Mlp", num_updates=20, eval_every=10), {"momentum": (0, 0.5)})
      >>> workdir = tempfile.mkdtemp()
      >>> results = run_sweep(config, workdir)  # doctest: +ELLIPSIS
      Grid(momentum: 2; 2 cells): 2 to train...
      >>> figures.draw(results, config, workdir).path.name
      'grid.png'
    """
    check(config)
    spec = _spec(config)
    figure = _style.new_figure(15, 4.8)
    try:
        findings = spec.function(**spec.arguments(figure=figure, results=results))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the figure cannot be drawn ({error}); the results are in {workdir}/results.nc") from error
    if not figure.get_suptitle():
        _style.title(figure, title(results))
    name = findings.claims[0]["name"] if findings.claims else spec.name.rpartition(".")[2].replace("_", "-")
    path = pathlib.Path(workdir) / "claims" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    _style.save(figure, path)
    claims = []
    for fields in findings.claims if command else ():
        claim = Claim(**fields, command=portable(command), figure=path.name)
        claim.save(path.parent, overwrite=True)  # follows from the results, which are kept
        claims.append(claim)
    return Drawn(path, findings.table, claims)


def library() -> dict[str, Callable[..., Findings]]:
    """The figures of this package by name, one a file.

    Example:
      >>> from asyncflax.lab import figures
      >>> list(figures.library())
      ['best_momentum', 'efficiency', 'grid', 'negative_momentum', 'tuned_momentum']
    """
    folder = pathlib.Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return {name: getattr(importlib.import_module(f"asyncflax.lab.figures.{name}"), name) for name in names}


def _spec(config: SweepConfig) -> Spec:
    """The figure that a config names."""
    _check.instance("config.figure", config.figure, str, "a text")
    spec = read("config.figure", config.figure or "grid", library(), _GIVEN)
    if "metric" in spec.options:  # on the test data, as the clock is
        falls = [] if spec.name == "negative_momentum" else ["test_loss"]
        _check.choice("config.figure: metric", spec.options["metric"], ["test_accuracy", *falls])
    spec.arguments(figure=None, results=None)
    return spec


def _needed_axes(function: Any) -> tuple[str, ...]:
    return getattr(importlib.import_module(function.__module__), "AXES", ())
