"""What workers buy and cost: Figure 1 of Mitliagkas et al. 2016 (arXiv:1605.09774).

    python launch/train.py --config=configs/digits.py --workdir=runs/warm --config.num_workers=1 \
        --config.momentum=0.8 --config.num_updates=200
    python launch/sweep.py --config=configs/figure1.py:digits --workdir=runs/figure1-digits

Claim: the time of an update falls almost linearly with the number of workers, and with tuned momentum the number of
updates to a target hardly grows, if one does not look at the start: the paper begins at a checkpoint of 4,000 updates,
on ImageNet, and has penalties of 1.00, 0.918, 0.995, 0.932 at 1, 2, 4, 8 workers (Figure 5 of its longer version,
Allerton, October 2016). So there are two figures, from a warm start and from a cold one; on digits the cold one is
another view of the sweep of Figure 3 (`--config=configs/figure3.py:digits --config.figure='efficiency(target=0.9)'`).
The time is that of the queue: a gradient takes 1 on average (exponential); gradient_seconds=0.15 in the options of the
figure makes seconds of it.

| variant | what | where |
|---|---|---|
| none | CIFAR-10 from a cold start: 1, 2, 4, 8 workers, 5 momenta, 3 learning rates, 3 seeds | one GPU; not run yet |
| `warm` | the same in 2,000 updates from a checkpoint, to 74 % (see below) | one GPU; not run yet |
| `eight` | CaffeNet on imagenet_eight, from its checkpoint 2000, the first version's grid | one GPU; not run yet |
| `eight_small` | SmallCnn on imagenet_eight, from its checkpoint 200, 1 and 8 workers | 2 cores, 9 minutes of CPU |
| `digits` | digits from runs/warm/checkpoints/200, the training above, to 97.5 % | 2 cores, 4 minutes of CPU time |
| `fast` | digits from a cold start, 1 and 8 workers, 100 updates | 2 cores, 1 minute |

`warm` begins with runs/warm-cifar10/checkpoints/4000 of `launch/train.py --config=configs/cifar10_quick.py
--workdir=runs/warm-cifar10 --config.keep_checkpoints=10`; `eight` with `launch/train.py
--config=configs/imagenet_eight.py:caffenet --config.num_workers=1 --config.momentum=0.9 --workdir=runs/warm-eight`, and
`eight_small` with `launch/train.py --config=configs/imagenet_eight.py --config.num_workers=1 --config.momentum=0.6
--config.num_updates=200 --workdir=runs/warm-eight-small`. Their cold figures are views of the sweeps of Figure 3,
`configs/figure3.py:eight` and `:eight_small`. The classes of imagenet_eight are not those of the first version,
the first eight of ImageNet.
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import caffenet, cifar10_quick, imagenet_eight_small


def get_config(variant: str = "") -> SweepConfig:
    """The config, or a variant."""
    if variant not in ("", "warm", "eight", "eight_small", "digits", "fast"):
        raise ValueError(
            f"configs/figure1.py has the variants warm, eight, eight_small, digits and fast, not {variant!r}."
        )
    warm = variant not in ("", "fast")
    workers, momenta, seeds = (1, 2, 4, 8), (-0.1, 0.0, 0.3, 0.6, 0.8), (0, 1, 2)
    if variant in ("", "warm"):
        start_from = "runs/warm-cifar10/checkpoints/4000" if warm else ""
        num_updates = 2000 if warm else 5000
        train = cifar10_quick(start_from=start_from, num_updates=num_updates, log_every=100, eval_every=100)
        learning_rates, target = (0.01, 0.001, 0.0001), 0.74 if warm else 0.6
    elif variant == "eight":
        start_from, momenta, seeds = "runs/warm-eight/checkpoints/2000", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0, 1)
        fields = {"dataset": "imagenet_eight", "batch_size": 64, "num_updates": 500, "log_every": 25, "eval_every": 25}
        train = caffenet(**fields, start_from=start_from)
        learning_rates, target = (0.1, 0.01, 0.001), 0.6
    elif variant == "eight_small":
        start_from, momenta, seeds = "runs/warm-eight-small/checkpoints/200", (0.0, 0.6, 0.9), (0, 1)
        train = imagenet_eight_small(start_from=start_from, num_updates=200, eval_every=20)
        workers, learning_rates, target = (1, 8), (0.02,), 0.55
    else:
        start_from = "runs/warm/checkpoints/200" if warm else ""
        train = TrainConfig(dataset="digits", start_from=start_from, num_updates=500, log_every=50, eval_every=25)
        learning_rates, target = (0.4, 0.2, 0.1), 0.975
    if variant == "fast":
        workers, momenta, seeds, learning_rates, target = (1, 8), (0.0, 0.8), (0, 1), (0.2,), 0.2
        train.num_updates = 100
    return SweepConfig(
        train=train,
        axes={"num_workers": workers, "learning_rate": learning_rates, "momentum": momenta, "seed": seeds},
        figure=f"efficiency(target={target}, start={'warm' if warm else 'cold'})",
    )
