"""Figures of sweeps, one a file, each with the claims that it checks.

A figure is a function `(figure, results, **options) -> Findings`; a `SweepConfig` names it and its options. Needs the
extra `train`.
"""

from asyncflax.figures._draw import Drawn, Findings, check, draw
from asyncflax.figures.best_momentum import best_momentum
from asyncflax.figures.efficiency import efficiency
from asyncflax.figures.grid import grid
from asyncflax.figures.negative_momentum import negative_momentum
from asyncflax.figures.tuned_momentum import tuned_momentum

__all__ = [
    "Drawn",
    "Findings",
    "best_momentum",
    "check",
    "draw",
    "efficiency",
    "grid",
    "negative_momentum",
    "tuned_momentum",
]
