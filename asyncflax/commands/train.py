r"""Trains a network under asynchrony.

    asyncflax train --config=digits --workdir=runs/digits
    asyncflax train --config=digits --workdir=runs/dc \
        --config.algorithm='dc_asgd(strength=0.04)' --config.momentum=-0.09

Every field of asyncflax.train.config.TrainConfig is a flag. The same command resumes an interrupted run. For several
processes, start each with --coordinator=HOST:PORT --num_processes=2 --process_id=0 (or 1).
"""

from absl import flags

import asyncflax
from asyncflax.commands._program import program
from asyncflax.train import launcher, train_and_evaluate
from asyncflax.train.config import TrainConfig

CONFIG = launcher.config_flag(TrainConfig)
launcher.process_flags()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
CACHE = flags.DEFINE_string("compilation_cache", None, "folder of the persistent compilation cache")
CITATION = flags.DEFINE_bool("citation", False, "print BibTeX entries of the papers behind the run")


@program(TrainConfig)
def main() -> None:
    """Trains, and prints the results and a command to try next."""
    config, workdir = CONFIG.value, WORKDIR.value
    launcher.use_cache(CACHE.value)
    summary = train_and_evaluate(config, workdir)
    print(f"\n{summary.table}\n\nfigures: {summary.figure}")
    if CITATION.value:
        print(f"\n{asyncflax.citation(config)}\n")
    if config.named.asynchrony.name != "recorded":
        workers = 2 * config.num_workers
        command = launcher.command(num_workers=workers, extend=None, workdir=f"{workdir.rstrip('/')}-{workers}-workers")
        print(f"next, twice the workers: {command}")
