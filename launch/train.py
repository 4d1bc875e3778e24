"""Trains a network under asynchrony.

    python launch/train.py --config=configs/digits.py --workdir=runs/digits
    python launch/train.py --config=configs/digits.py --workdir=runs/dc --config.algorithm=dc_asgd \
        --config.algorithm_options='strength=0.04' --config.momentum=-0.09

Every field of asyncflax.config.TrainConfig is a flag. The same command goes on with a run that was stopped.
"""

from absl import flags

from asyncflax import launcher
from asyncflax.config import TrainConfig
from asyncflax.train import train_and_evaluate

CONFIG = launcher.config_flag(TrainConfig)
WORKDIR = flags.DEFINE_string("workdir", None, "the folder of the run", required=True)
flags.declare_key_flag("config")


def main() -> None:
    """Trains, prints the results and a command to try next."""
    config, workdir = CONFIG.value, WORKDIR.value
    summary = train_and_evaluate(config, workdir)
    print(f"\n{summary.table}\n\nfigures: {summary.figure}")
    if not config.trace:
        groups = 2 * config.num_groups
        command = launcher.command(num_groups=groups, workdir=f"{workdir.rstrip('/')}-{groups}-groups")
        print(f"next, twice the compute groups: {command}")


if __name__ == "__main__":
    launcher.launch(main, TrainConfig)
