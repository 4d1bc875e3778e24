"""The engine: runs a trace exactly, many gradients at a time.

`plan` turns a trace into rounds of gradients and slots for the versions that they read; `placement` assigns them to
devices; `step` is one round; `execute` runs chunks of rounds, with versions on the device or (`host_store`) in host
memory. Before a run, `forecasts` predicts its time, `bytes` its traffic and memory, and `report` prints both.
"""

from asyncflax.engine.bytes import Memory, Traffic, memory, traffic
from asyncflax.engine.execute import RunResult, RunState, init_run, run, run_chunk
from asyncflax.engine.forecasts import RoundForecast, best_width, forecast
from asyncflax.engine.placement import make_mesh
from asyncflax.engine.plan import Chunk, Plan, make_plan
from asyncflax.engine.report import draw
from asyncflax.engine.step import RunOutput

__all__ = [
    # Running a trace
    "make_mesh",
    "make_plan",
    "Plan",
    "Chunk",
    "init_run",
    "run_chunk",
    "run",
    "RunState",
    "RunOutput",
    "RunResult",
    # Forecasts
    "best_width",
    "forecast",
    "RoundForecast",
    "memory",
    "Memory",
    "traffic",
    "Traffic",
    "draw",
]
