r"""Predicts what asynchrony costs and gains before training, and recommends momentum and step size.

    asyncflax plan --target_momentum=0.8 --num_workers=1,2,4,5,8,16
    asyncflax plan --curvature_min=0.01 --curvature_max=3 --service_time='gamma(cv=0.5)' \
        --workdir=runs/plan
    asyncflax plan --noise=4 --target=0.02 --num_workers=1,4,16,64
    asyncflax plan --trace=runs/digits/trace.npz --condition_number=100 --num_workers=4,8,16,32
    asyncflax plan --trace=trainer.jsonl --columns=worker=actor,version=weights,made=step

Prints a recommendation in three lines and the reasoning below it; --workdir saves both as CSV and JSON, with a figure.
Given a trace with times or a log, it also measures workers and server, and predicts the effect of other numbers of
workers, a faster server and no stragglers.
"""

import pathlib

from absl import flags
from tqdm import tqdm

from asyncflax.commands._program import program
from asyncflax.theory import cluster, planner
from asyncflax.trace import Trace
from asyncflax.train import launcher

WORKERS = flags.DEFINE_list("num_workers", None, "numbers of workers (default 1,2,4,8,16)")
TRACE = flags.DEFINE_string(
    "trace", None, "file of a trace (.npz) or a log (.csv, .jsonl), instead of service_time; see Trace.from_log"
)
COLUMNS = flags.DEFINE_list("columns", None, "column names of the log, such as worker=actor,version=weights")
SERVER = flags.DEFINE_float("server_seconds", None, "the server's seconds per update; by default from the trace")
SERVICE = flags.DEFINE_string(
    "service_time",
    None,
    "distribution of gradient times, such as 'heterogeneous_gamma(machine_cv=0.6)' (default exponential)",
)
TARGET = flags.DEFINE_float("target_momentum", None, "mu*, the best momentum of one worker (default 0.8)")
KAPPA = flags.DEFINE_float("condition_number", None, "ratio of the largest to the smallest curvature, instead of mu*")
LOW = flags.DEFINE_float("curvature_min", None, "the smallest curvature, instead of mu*")
HIGH = flags.DEFINE_float("curvature_max", None, "the largest curvature; sets the scale of the step size")
NOISE = flags.DEFINE_float("noise", None, "variance of a gradient over its square before training (default 0)")
LOSS = flags.DEFINE_float("target", 0.1, "the excess loss to be reached, as a share of that before training")
SECONDS = flags.DEFINE_list("update_seconds", None, "measured seconds per update, one value per entry of num_workers")
WORKDIR = flags.DEFINE_string("workdir", None, "a folder for plan.csv, plan.json and plan.png")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace the files of an earlier plan")


@program(needs_device=False, fixable=(OSError, TypeError, ValueError))
def main() -> None:
    """Computes, prints and saves the plan."""
    if WORKDIR.value:
        launcher.refuse_folder("workdir", WORKDIR.value)
        planner.files(WORKDIR.value, overwrite=OVERWRITE.value)  # fails before anything is computed
        cluster.files(WORKDIR.value, overwrite=OVERWRITE.value)
    workers, trace = launcher.numbers("num_workers", WORKERS.value, int), _trace()
    progress = lambda workers: tqdm(workers, desc="workers", leave=False, disable=None)
    measured, scenarios = None, []
    if trace is not None:
        try:
            measured = cluster.measure(trace, server_seconds=SERVER.value)
        except ValueError as error:
            print(f"no measurement: {error}\n")
        else:
            scenarios = cluster.what_if(measured, workers, progress=progress)
    plan = planner.make(
        workers if trace is None else None,
        service_time=launcher.service_time(SERVICE.value),
        trace=trace,
        target_momentum=TARGET.value,
        condition_number=KAPPA.value,
        curvature_min=LOW.value,
        curvature_max=HIGH.value,
        noise=NOISE.value,
        target=LOSS.value,
        update_seconds=launcher.numbers("update_seconds", SECONDS.value, float),
        progress=progress,
    )
    if measured is not None:
        print(f"{cluster.table(measured, scenarios, plan.target_momentum)}\n")
    print(f"{planner.recommendation(plan)}\n\n{planner.table(plan)}\n\n{planner.advice(plan)}")
    if WORKDIR.value:
        saved = planner.save(plan, WORKDIR.value, overwrite=OVERWRITE.value)
        if measured is not None:
            saved += cluster.save(measured, scenarios, WORKDIR.value, overwrite=OVERWRITE.value)
        print("\nsaved:", *saved)


def _trace() -> Trace | None:
    """Loads the trace or log given by --trace."""
    if not TRACE.value:
        for flag in (COLUMNS, SERVER):
            if flag.value is not None:
                raise ValueError(f"--{flag.name} applies to a trace or log; pass its file as --trace.")
        return None
    if COLUMNS.value is None and pathlib.Path(TRACE.value).suffix == ".npz":
        return Trace.load(TRACE.value)
    pairs = [text.partition("=")[::2] for text in COLUMNS.value or ()]
    return Trace.from_log(TRACE.value, columns={name: key or None for name, key in pairs})
