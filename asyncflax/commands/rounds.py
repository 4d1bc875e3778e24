r"""Chooses the width of a trace's rounds on several devices and forecasts speed-up, traffic and memory.

    asyncflax rounds --num_workers=64 --device_groups=4 --replicas=2 --fixed=0.5 --parameters=145578 \
        --server=sharded
    asyncflax rounds --trace=runs/digits/trace.npz --device_groups=2 --workdir=runs/rounds

`--fixed` is the fixed share of a gradient's time (launches, latencies).
"""

import pathlib

import jax
from absl import flags

from asyncflax import _check, _style, engine, queues
from asyncflax._files import write_atomically
from asyncflax.commands._program import program
from asyncflax.engine.plan import make_plan
from asyncflax.trace import Trace
from asyncflax.train import launcher

WORKERS = flags.DEFINE_integer("num_workers", 8, "number of emulated workers")
SERVICE = flags.DEFINE_string(
    "service_time", None, "distribution of gradient times, such as 'gamma(cv=0.5)' (default exponential)"
)
TRACE = flags.DEFINE_string("trace", None, "file of a trace, instead of a queue")
GROUPS = flags.DEFINE_integer("device_groups", 1, "number of device groups, which compute different gradients")
REPLICAS = flags.DEFINE_integer("replicas", 1, "devices per group, which split the batch")
FIXED = flags.DEFINE_float("fixed", 0.0, "fixed share of a gradient's time")
PARAMETERS = flags.DEFINE_integer("parameters", None, "number of float32 parameters: adds traffic and memory")
SERVER = flags.DEFINE_string("server", "replicated", "placement of the server: replicated or sharded")
STORE = flags.DEFINE_string("store", "device", "where versions are stored: device, ring or host")
WORKDIR = flags.DEFINE_string("workdir", None, "folder for rounds.txt and rounds.png")


@program(needs_device=False, fixable=(OSError, TypeError, ValueError))
def main() -> None:
    """Chooses the width, then prints and draws the forecast."""
    folder = pathlib.Path(WORKDIR.value) if WORKDIR.value else None
    if folder:
        launcher.refuse_folder("workdir", folder)
        if any((folder / name).exists() for name in ("rounds.txt", "rounds.png")):
            raise ValueError(f"--workdir={WORKDIR.value!r} contains rounds.txt or rounds.png; take another folder.")
    law = launcher.service_time(SERVICE.value) or queues.exponential()
    simulated = lambda: queues.simulate(num_workers=WORKERS.value, num_updates=20_000, service_time=law)
    trace = Trace.load(TRACE.value) if TRACE.value else simulated()
    costs = {"replicas": REPLICAS.value, "fixed": FIXED.value}
    best = engine.best_width(trace, GROUPS.value, **costs)
    size = PARAMETERS.value if PARAMETERS.value is None else _check.integer("parameters", PARAMETERS.value, 1)
    params = None if size is None else jax.ShapeDtypeStruct((size,), "float32")
    plan = make_plan(trace, width=best.width, store=STORE.value)
    text = plan.summary(params, params, device_groups=GROUPS.value, server=SERVER.value, **costs)
    print(text)
    if folder:
        figure, widths = _style.new_figure(11, 4.5), [GROUPS.value * 2**k for k in range(5)]
        engine.draw(figure, trace, device_groups=sorted({1, GROUPS.value}), widths=widths, **costs)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "rounds.txt", lambda file: file.write(f"{text}\n".encode()))
        _style.save(figure, folder / "rounds.png")
