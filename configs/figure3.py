"""Tuned momentum against the number of workers: Figures 3 and 4 of Mitliagkas et al. 2016 (arXiv:1605.09774).

    python launch/sweep.py --config=configs/figure3.py:digits --workdir=runs/figure3-digits

Claims: the explicit momentum with which a target is reached in the fewest updates falls as workers are added, and
follows Figure 2: mu* - (1 - 1/M). In the longer version of the paper (Allerton, October 2016) it is 0.7, 0.6, 0.2, 0.1
on CIFAR-10 at 1, 2, 4, 8 workers and 0.6, 0.6, 0.6, 0.6, 0.3, 0 on ImageNet at 1 to 32; the target is a loss, and the
batches are 128 and 256. With tuned non-negative momentum the updates grow by factors of 1, 1, 2, 2, 6 at 1, 2, 4, 8, 16
workers; with a fixed 0.9, by 2, 2, 2, 3, 16 (its Figure 4, CIFAR-10).

The variants that are judged train networks to a target loss within minutes: softmax regression and a perceptron on
digits, softmax regression on CIFAR-10 in 8x8 pixels, batches of 256. The loss is the training loss, the mean of 5
updates, 1,280 images, on the parameters that workers read. The first three seeds choose the learning rate of each
momentum, the 16 others judge. Within a seed all momenta and learning rates share trace, data and weights. The longest
memory, of 16 workers with momentum 0.9, takes 7 x 16 / (1 - 0.9) = 1,120 updates.

| variant | what | where |
|---|---|---|
| none | cifar10_quick, the first version's grid, 5,000 updates of batch 128, 10 seeds | a GPU; not run |
| `imagenet` | CaffeNet, the first 8 classes of ImageNet, 2,000 updates, 3 seeds | a GPU, ImageNet; not run |
| `eight` | CaffeNet, 500 updates of batch 64, other 8 classes (imagenet_eight), 3 seeds | a GPU; not run |
| `digits` | softmax regression on digits, 12,920 cells of 1,120 updates | 2 cores, 5 minutes of CPU |
| `mlp` | a perceptron with 16 hidden units on digits, 8,645 cells of 560 updates | 2 cores, 3 minutes of CPU |
| `small_cifar10` | the same on CIFAR-10 in 8x8 pixels, 9,120 cells of 1,120 updates | 2 cores, 5 minutes of CPU |
| `fast` | digits, 3 momenta x 2 learning rates x 1, 2 and 8 workers, 100 updates | 2 cores, 1 minute |

Fixed before judging: the digests of `asyncflax.lab.figures.criteria` begin with a570f69ed627 (tuned) and 1bd35a7a573c
(fixed 0.9) for `digits`, 4d5db118fed1 for `mlp`, c4b023081f37 and 1c78edc88147 for `small_cifar10`.

With `--stop_after_minutes=8` the sweep stops early between two tiles; rerun the same command to resume.
"""

from asyncflax.lab.statistics import least_updates
from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import caffenet, cifar10_quick

WORKERS = (1, 2, 4, 8, 16)
MOMENTA = (-0.6, -0.3, 0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
CHOOSING, JUDGING = (0, 1, 2), tuple(range(100, 116))
FEW = "a run takes minutes on a GPU"
SMALL = {  # the network, the data, the target, the smallest learning rate and how many, sqrt(2) apart, the momenta
    "digits": ("Mlp(hidden=0)", "digits", 0.1, 0.2, 17, MOMENTA),
    "mlp": ("Mlp(hidden=16)", "digits", 0.1, 0.1, 13, MOMENTA[:-1]),
    "small_cifar10": ("Mlp(hidden=0)", "cifar10(pool=4)", 1.9, 0.05, 12, MOMENTA),
}


def get_config(variant: str = "") -> SweepConfig:
    """The config, or a variant."""
    variants = ("", "imagenet", "eight", *SMALL, "fast")
    if variant not in variants:
        raise ValueError(f"configs/figure3.py has the variants {', '.join(variants[1:])}, not {variant!r}.")
    if variant in SMALL:
        return _small(*SMALL[variant])
    if variant == "fast":
        train = TrainConfig(model="Mlp(hidden=0)", batch_size=256, num_updates=100, log_every=5, eval_every=50)
        axes = {"num_workers": (1, 2, 8), "learning_rate": (0.4, 1.6), "momentum": (0.0, 0.4, 0.8), "seed": (0, 1, 2)}
        return SweepConfig(train, axes, figure="tuned_momentum(target=1.0, choosing=1)")
    workers, momenta, seeds = (1, 2, 4, 8), tuple(m / 10 for m in range(10)), tuple(range(10))
    learning_rates, target = (0.1, 0.01, 0.001, 0.0001, 0.00001), 1.0
    if variant == "":
        train = cifar10_quick(batch_size=128)
    else:
        momenta, learning_rates, seeds = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.1, 0.01, 0.001), (0, 1, 2)
        train = caffenet(classes=tuple(range(8)), num_updates=2000, eval_every=100)
        if variant == "eight":
            train = caffenet(dataset="imagenet_eight", batch_size=64, num_updates=500, log_every=25, eval_every=50)
    axes = {"num_workers": workers, "learning_rate": learning_rates, "momentum": momenta, "seed": seeds}
    options = f"target={target}, choosing={4 if variant == '' else 1}, exception='{FEW}'"
    return SweepConfig(train, axes, figure=f"tuned_momentum({options})")


def _small(
    model: str, dataset: str, target: float, least: float, rates: int, momenta: tuple[float, ...]
) -> SweepConfig:
    """A small network, to a training loss."""
    num_updates = least_updates(max(WORKERS), max(momenta))
    train = TrainConfig(
        dataset=dataset, model=model, batch_size=256, num_updates=num_updates, log_every=5, eval_every=num_updates
    )
    learning_rates = tuple(float(f"{least * 2 ** (k / 2):.3g}") for k in range(rates))
    options = f"target={target}, choosing={len(CHOOSING)}"
    figure = f"tuned_momentum({options})" + f", fixed_momentum({options})" * (0.9 in momenta)
    return SweepConfig(
        train=train,
        axes={
            "num_workers": WORKERS,
            "learning_rate": learning_rates,
            "momentum": momenta,
            "seed": (*CHOOSING, *JUDGING),
        },
        cells_at_once=100,
        figure=figure,
    )
