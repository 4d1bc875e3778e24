"""The methods, one file a family of papers.

Each is a function of its hyper-parameters that makes an `AsyncAlgorithm`; `__all__` is the list of their names.
"""

from asyncflax.algorithms.asgd import asgd, delay_adaptive_asgd, ssgd
from asyncflax.algorithms.dc_asgd import dc_asgd
from asyncflax.algorithms.momentum import momentum_asgd, multi_asgd, nag_asgd

__all__ = [
    "asgd",
    "dc_asgd",
    "delay_adaptive_asgd",
    "momentum_asgd",
    "multi_asgd",
    "nag_asgd",
    "ssgd",
]
