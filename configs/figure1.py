"""What workers buy and cost: Figure 1 of Mitliagkas et al. 2016 (arXiv:1605.09774).

    python launch/sweep.py --config=configs/figure1.py:digits --workdir=runs/figure1-digits

The time of an update decreases almost linearly with the number of workers, and with tuned momentum the number of
updates to a target hardly grows after a warm start: the paper starts from a checkpoint of 4,000 updates, on ImageNet.
This draws the figure, from a warm and from a cold start; `configs/figure5.py` decides whether there is a penalty. Time
is that of the queue, in which a gradient takes 1 on average (exponential); the figure's option gradient_seconds=0.15
converts it to seconds.

| variant | what | where |
|---|---|---|
| none | CIFAR-10 from a cold start: 1, 2, 4, 8 workers, 5 momenta, 3 learning rates, 3 seeds | one GPU; not run yet |
| `warm` | the same in 2,000 updates after 4,000 of one worker, to 74 % | one GPU; not run yet |
| `eight` | CaffeNet on imagenet_eight, from its checkpoint 2000, the first version's grid | one GPU; not run yet |
| `digits` | digits after 200 updates of one worker, to 97.5 % | 2 cores, 4 minutes of CPU time |
| `fast` | digits from a cold start, 1 and 8 workers, 100 updates | 2 cores, 1 minute |

`eight` starts from the checkpoint of
`launch/train.py --config=configs/imagenet_eight.py:caffenet --config.num_workers=1 --config.momentum=0.9
--workdir=runs/warm-eight`. The classes of imagenet_eight are not those of the paper's first version, the first eight of
ImageNet.
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import caffenet, cifar10_quick


def get_config(variant: str = "") -> SweepConfig:
    """The config, or a variant."""
    if variant not in ("", "warm", "eight", "digits", "fast"):
        raise ValueError(f"configs/figure1.py has the variants warm, eight, digits and fast, not {variant!r}.")
    warm = variant not in ("", "fast")
    workers, momenta, seeds = (1, 2, 4, 8), (-0.1, 0.0, 0.3, 0.6, 0.8), (0, 1, 2)
    if variant in ("", "warm"):
        start_from = "one_worker(num_updates=4000, learning_rate=0.001, momentum=0.9)" if warm else ""
        num_updates = 2000 if warm else 5000
        train = cifar10_quick(start_from=start_from, num_updates=num_updates, log_every=100, eval_every=100)
        learning_rates, target = (0.01, 0.001, 0.0001), 0.74 if warm else 0.6
    elif variant == "eight":
        start_from, momenta, seeds = "runs/warm-eight/checkpoints/2000", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0, 1)
        fields = {"dataset": "imagenet_eight", "batch_size": 64, "num_updates": 500, "log_every": 25, "eval_every": 25}
        train = caffenet(**fields, start_from=start_from)
        learning_rates, target = (0.1, 0.01, 0.001), 0.6
    else:
        start_from = "one_worker(num_updates=200, learning_rate=0.2, momentum=0.8)" if warm else ""
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
