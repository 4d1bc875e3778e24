r"""Trains a grid, many cells at once, and draws its figures.

    asyncflax sweep --config=figure3:digits --workdir=runs/figure3-digits
    asyncflax sweep --config=figure3:digits --workdir=runs/more \
        --config.axes='num_workers=(1, 16), momentum=(-0.2, 0, 0.2), learning_rate=(0.2, 0.1), seed=(0, 1)'
    asyncflax sweep --config=figure3:fast --workdir=runs/strengths --config.figure='' --config.train.num_workers=8 \
        --config.train.algorithm=dc_asgd --config.axes='algorithm.strength=(0, 0.04, 1), seed=(0, 1)'

Every field of asyncflax.lab.sweep.SweepConfig is a flag, and so is every field of `TrainConfig`, as
--config.train.FIELD. An axis is a field of `TrainConfig`, or an option of the method as algorithm.OPTION. The same
command resumes an interrupted sweep.
"""

from absl import flags

from asyncflax.commands._program import command, program
from asyncflax.lab import figures
from asyncflax.lab.sweep import SweepConfig, run_sweep
from asyncflax.train import launcher

CONFIG = launcher.config_flag(SweepConfig, "figure3")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the sweep", required=True)
CACHE = flags.DEFINE_string("compilation_cache", None, "folder of the persistent compilation cache")
MINUTES = flags.DEFINE_float("stop_after_minutes", float("inf"), "stop before a tile that would not finish in time")


@program(SweepConfig)
def main() -> None:
    """Trains the grid, draws its figures and prints the results."""
    config, workdir = CONFIG.value, WORKDIR.value
    launcher.use_cache(CACHE.value)
    figures.check(config)
    results = run_sweep(config, workdir, stop_after_minutes=MINUTES.value)
    for drawn in figures.draw(results, config, workdir, command=command(workdir)):
        print(f"\n{drawn.table}\n\nfigure: {drawn.path}")
    print(f"results: {workdir}/results.nc")
