"""Figures of sweeps, one a file, each with the claims that it checks.

A figure is a function `(figure, results, **options) -> Findings`; a `SweepConfig` names it and its options, and each
file here that has no underscore in front is one. Needs the extra `train`.
"""

from asyncflax.lab.figures._draw import Drawn, check, criteria, draw, library
from asyncflax.lab.figures._words import Findings

__all__ = ["Drawn", "Findings", "check", "criteria", "draw", "library"]
