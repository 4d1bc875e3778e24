"""The reference parameter server: asynchronous SGD in plain Python, the oracle of the tests.

One worker at a time, one gradient at a time, one list of everything that was ever handed out. Nothing here
is fast and nothing here knows JAX or asyncflax; every line is an equation of the papers in float64.

Time t counts server updates. Version v is what the server hands out after v updates. At event t the worker
``worker[t]`` delivers the gradient computed on version ``read_version[t]``; its staleness is
``tau_t = t - read_version[t] >= 0``. Parameters theta are flat float64 vectors.
"""

from reference.asgd import (
    Asgd,
    DcAsgd,
    DelayAdaptiveAsgd,
    GapAwareAsgd,
    MomentumAsgd,
    MultiAsgd,
    NagAsgd,
    Ssgd,
    StalenessAwareAsgd,
)
from reference.closed_forms import (
    delay_limit,
    fixed_point,
    mean_under_law,
    momentum_recursion,
    queue_mean,
    queue_mean_square_matrix,
    stationary_variance_eq6,
    stationary_variance_replay,
)
from reference.dana import DanaDc, DanaSlim, DanaZero, Lwp, Smega2
from reference.losses import Quadratic, Softmax
from reference.ordered import DelayedNesterov, Ormo, OrmoDa, ShiftedMomentum
from reference.queue import queue_events
from reference.server import Result, Server, simulate
from reference.tuned import ClosedLoop, YellowFin, clip, cubic_root

__all__ = [
    "Asgd",
    "ClosedLoop",
    "DanaDc",
    "DanaSlim",
    "DanaZero",
    "DcAsgd",
    "DelayAdaptiveAsgd",
    "DelayedNesterov",
    "GapAwareAsgd",
    "Lwp",
    "MomentumAsgd",
    "MultiAsgd",
    "NagAsgd",
    "Ormo",
    "OrmoDa",
    "Quadratic",
    "Result",
    "Server",
    "ShiftedMomentum",
    "Smega2",
    "Softmax",
    "Ssgd",
    "StalenessAwareAsgd",
    "YellowFin",
    "clip",
    "cubic_root",
    "delay_limit",
    "fixed_point",
    "mean_under_law",
    "momentum_recursion",
    "queue_events",
    "queue_mean",
    "queue_mean_square_matrix",
    "simulate",
    "stationary_variance_eq6",
    "stationary_variance_replay",
]
