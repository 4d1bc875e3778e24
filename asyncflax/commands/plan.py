r"""Predicts what asynchrony costs and gains before training, and recommends momentum and step size.

    asyncflax plan --target_momentum=0.8 --num_workers=1,2,4,5,8,16
    asyncflax plan --curvature_min=0.01 --curvature_max=3 --service_time='gamma(cv=0.5)' \
        --workdir=runs/plan
    asyncflax plan --trace=runs/digits/trace.npz --condition_number=100

Prints a table and recommendations; --workdir saves both as CSV and JSON, with a figure.
"""

from absl import flags
from tqdm import tqdm

from asyncflax.commands._program import program
from asyncflax.theory import planner
from asyncflax.trace import Trace
from asyncflax.train import launcher

WORKERS = flags.DEFINE_list("num_workers", None, "numbers of workers (default 1,2,4,8,16)")
TRACE = flags.DEFINE_string("trace", None, "file of a trace, instead of num_workers and service_time")
SERVICE = flags.DEFINE_string(
    "service_time",
    None,
    "distribution of the time of a gradient, such as 'heterogeneous_gamma(machine_cv=0.6)' (default exponential)",
)
TARGET = flags.DEFINE_float("target_momentum", None, "mu*, the best momentum of one worker (default 0.8)")
KAPPA = flags.DEFINE_float("condition_number", None, "ratio of the largest to the smallest curvature, instead of mu*")
LOW = flags.DEFINE_float("curvature_min", None, "the smallest curvature, instead of mu*")
HIGH = flags.DEFINE_float("curvature_max", None, "the largest curvature; sets the scale of the step size")
SECONDS = flags.DEFINE_list("update_seconds", None, "measured seconds per update, one value per entry of num_workers")
WORKDIR = flags.DEFINE_string("workdir", None, "a folder for plan.csv, plan.json and plan.png")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace the files of an earlier plan")


@program(needs_device=False, fixable=(OSError, TypeError, ValueError))
def main() -> None:
    """Computes, prints and saves the plan."""
    if WORKDIR.value:
        launcher.refuse_folder("workdir", WORKDIR.value)
        planner.files(WORKDIR.value, overwrite=OVERWRITE.value)  # fails before anything is computed
    plan = planner.make(
        launcher.numbers("num_workers", WORKERS.value, int),
        service_time=launcher.service_time(SERVICE.value),
        trace=Trace.load(TRACE.value) if TRACE.value else None,
        target_momentum=TARGET.value,
        condition_number=KAPPA.value,
        curvature_min=LOW.value,
        curvature_max=HIGH.value,
        update_seconds=launcher.numbers("update_seconds", SECONDS.value, float),
        progress=lambda workers: tqdm(workers, desc="workers", leave=False, disable=None),
    )
    print(f"{planner.table(plan)}\n\n{planner.advice(plan)}")
    if WORKDIR.value:
        print("\nsaved:", *planner.save(plan, WORKDIR.value, overwrite=OVERWRITE.value))
