"""Tuned momentum against the number of workers: Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774).

    python launch/sweep.py --config=configs/figure3.py:digits --workdir=runs/figure3-digits

Claim: the explicit momentum with which a target is reached in the fewest updates falls as workers are added, and
follows Figure 2: mu* - (1 - 1/M). In the longer version of the paper (Allerton, October 2016) it is 0.7, 0.6, 0.2, 0.1
on CIFAR-10 at 1, 2, 4, 8 workers and 0.6, 0.6, 0.6, 0.6, 0.3, 0 on ImageNet at 1 to 32, the target is a loss, and the
batches are 128 and 256.

The grids are those of the first version: cifar10_quick with momentum 0, 0.1, ..., 0.9 x learning rate 0.1, 0.01, ...,
0.00001 x 1, 2, 4, 8 workers, and CaffeNet on the first eight classes of ImageNet with momentum 0, 0.2, ..., 1.0 x
learning rate 0.1, 0.01, 0.001. (The longer one has momentum 0, 0.3, 0.6, 0.9 there, and does not mention eight
classes.) The learning rate is tuned for each momentum; within each of three seeds all momenta and learning rates share
trace and data. With momentum 1.0 trainings are expected to diverge, and are counted.

| variant | what | where |
|---|---|---|
| none | CIFAR-10, the whole grid, 600 cells of 5,000 updates of batch 128 | one GPU; not run yet |
| `imagenet` | the left panel: the first 8 classes of ImageNet, 216 cells of 2,000 updates | a GPU, ImageNet; not run |
| `eight` | CaffeNet, 144 cells of 500 updates of batch 64, other 8 classes (imagenet_eight) | one GPU; not run yet |
| `eight_small` | SmallCnn, 64x64 of imagenet_eight, 1 and 8 workers, momenta 0, 0.6, 0.9 | 2 cores, 13 minutes of CPU |
| `digits` | digits, as many cells, learning rates 0.8 to 0.05, 1,000 updates | 2 cores, 18 minutes of CPU time |
| `fast` | digits, 3 momenta x 2 learning rates x 1 and 8 workers, 100 updates | 2 cores, 1 minute |

With `--stop_after_minutes=8` the sweep stops in time between two parts; the same command goes on.
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import caffenet, cifar10_quick, imagenet_eight_small

MOMENTA = tuple(m / 10 for m in range(10))


def get_config(variant: str = "") -> SweepConfig:
    """The config, or a variant."""
    if variant not in ("", "imagenet", "eight", "eight_small", "digits", "fast"):
        raise ValueError(
            f"configs/figure3.py has the variants imagenet, eight, eight_small, digits and fast, not {variant!r}."
        )
    workers, momenta, seeds = (1, 2, 4, 8), MOMENTA, (0, 1, 2)
    if variant == "":
        train = cifar10_quick(batch_size=128)
        learning_rates, target = (0.1, 0.01, 0.001, 0.0001, 0.00001), 0.6
    elif variant in ("imagenet", "eight"):
        momenta, learning_rates, target = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.1, 0.01, 0.001), 0.5
        train = caffenet(classes=tuple(range(8)), num_updates=2000, eval_every=100)
        if variant == "eight":
            seeds = (0, 1)
            train = caffenet(dataset="imagenet_eight", batch_size=64, num_updates=500, log_every=25, eval_every=50)
    elif variant == "eight_small":
        workers, momenta, learning_rates, seeds, target = (1, 8), (0.0, 0.6, 0.9), (0.02,), (0, 1), 0.4
        train = imagenet_eight_small(num_updates=300, log_every=25, eval_every=50)
    else:
        train = TrainConfig(dataset="digits", num_updates=1000, log_every=50, eval_every=50)
        learning_rates, target = (0.8, 0.4, 0.2, 0.1, 0.05), 0.9
    if variant == "fast":
        workers, momenta, seeds, learning_rates = (1, 8), (0.0, 0.4, 0.8), (0, 1), (0.4, 0.1)
        train.num_updates, target = 100, 0.5
    return SweepConfig(
        train=train,
        axes={"num_workers": workers, "learning_rate": learning_rates, "momentum": momenta, "seed": seeds},
        figure=f"tuned_momentum(target={target})",
    )
