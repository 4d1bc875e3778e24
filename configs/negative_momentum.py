"""Negative explicit momentum with 8 workers: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4.

    python launch/sweep.py --config=configs/negative_momentum.py:digits --workdir=runs/negative-digits

Claim: cifar10_quick with 8 workers, explicit momentum {-0.2, -0.09, -0.06, -0.03, 0}: -0.09 is best, with a
statistical efficiency 15 % better than that of 0, the best momentum that is not negative; they call it preliminary.
The longer version (Allerton, October 2016, Figure 8; momenta -0.9, -0.675, ..., 0.9, learning rates in decades) has no
gain up to 8 workers, and with 16 momentum -0.675 needs half as many updates as the best one that is not negative: the
statistical penalty at 1, 2, 4, 8, 16 workers is 1, 1, 2, 2, 3 with negative momenta and 1, 1, 2, 2, 6 without.

Here is the grid of the first version. Improvement over 0: 1 - updates(mu) / updates(0), paired over seeds, with
Student's 95 % interval. The target is fixed beforehand: what one worker with tuned momentum reaches at 60 % of its
updates, which are 1,000 on CIFAR-10 and 400 on digits. A seed in which it is not reached makes the improvement unknown
and is counted.

| variant | what | where |
|---|---|---|
| none | CIFAR-10, 5,000 updates, all momenta, learning rates 0.01, 0.003, 0.001, 5 seeds | one GPU; not run yet |
| `small` | CIFAR-10, 1,000 updates, momenta -0.09 and 0, 5 seeds | 2 cores, about 70 minutes of CPU time |
| `digits` | digits, 2,000 updates, all momenta, three learning rates, 10 seeds | 2 cores, 10 minutes of CPU time |
| `fast` | digits, 100 updates, 2 seeds: for trying things | 2 cores, 1 minute |
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick

ALL = (-0.2, -0.09, -0.06, -0.03, 0.0)


def get_config(variant: str = "") -> SweepConfig:
    """The config, or a variant."""
    if variant not in ("", "small", "digits", "fast"):
        raise ValueError(f"configs/negative_momentum.py has the variants small, digits and fast, not {variant!r}.")
    if variant in ("digits", "fast"):
        train = TrainConfig(
            dataset="digits",
            model="SmallCnn",
            batch_size=32,
            num_workers=8,
            num_updates=2000 if variant == "digits" else 100,
            log_every=50,
            eval_every=50,
        )
        seeds, learning_rates, momenta = (range(10) if variant == "digits" else range(2)), (0.4, 0.2, 0.1), ALL
        target = 0.95  # one worker, learning rate 0.2, momentum 0.8: after 240 of 400 updates
    else:
        train = cifar10_quick(
            num_workers=8, num_updates=1000 if variant == "small" else 5000, log_every=100, eval_every=200
        )
        seeds, momenta = range(5), (-0.09, 0.0) if variant == "small" else ALL
        learning_rates = (0.001,) if variant == "small" else (0.01, 0.003, 0.001)
        target = 0.57  # one worker, learning rate 0.001, momentum 0.9: after 600 of 1,000 updates
    return SweepConfig(
        train=train,
        axes={"learning_rate": learning_rates, "momentum": momenta, "seed": tuple(seeds)},
        figure=f"negative_momentum(target={target})",
    )
