"""The reference parameter server: asynchronous SGD in plain Python, the oracle of the tests.

One worker at a time, one gradient at a time, one list of everything that was ever handed out. Nothing here
is fast and nothing here knows JAX or asyncflax; every line is an equation of the papers in float64.

Time t counts server updates. Version v is what the server hands out after v updates. At event t the worker
``worker[t]`` delivers the gradient computed on version ``read_version[t]``; its staleness is
``tau_t = t - read_version[t] >= 0``. Parameters theta are flat float64 vectors.

Every method has its twin here, a `Server` whose `rows` say with which options the suites run both. All files of the
package are imported and their servers exported, so a new file is enough.
"""

import importlib
import pkgutil

from reference.closed_forms import (
    delay_limit,
    fixed_point,
    mean_under_law,
    momentum_recursion,
    queue_mean,
    queue_mean_square_matrix,
    repairman,
    stationary_variance_eq6,
    stationary_variance_replay,
    throughput,
)
from reference.losses import Quadratic, Softmax
from reference.queue import queue_events
from reference.server import Result, Row, Server, simulate
from reference.tuned import clip, cubic_root

_MODULES = [importlib.import_module(f"reference.{file.name}") for file in pkgutil.iter_modules(__path__)]
_TWINS = [
    value
    for module in _MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Server) and value.__module__ == module.__name__
]
globals().update({twin.__name__: twin for twin in _TWINS})  # reference.Asgd, ...

ROWS = [(row, twin) for twin in _TWINS for row in vars(twin).get("rows", ())]
