"""Figures of sweeps, one per file, with the claims that they check.

A figure is a function `(figure, results, **options) -> Findings` of an empty `matplotlib.figure.Figure` and the results
of `run_sweep`, named by `SweepConfig.figure`. It has the name of its file; files with a leading underscore are shared
helpers. Needs the extra `train`.
"""

from asyncflax.lab.figures._draw import Drawn, check, criteria, draw, library
from asyncflax.lab.figures._words import Findings

__all__ = ["Drawn", "Findings", "check", "criteria", "draw", "library"]
