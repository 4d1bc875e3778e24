"""Best momentum of a deep network with 1, 2, 4, 8 workers: Figure 2 of Liu et al. 2018 (arXiv:1806.01660).

    python launch/sweep.py --config=configs/liu_deep_network.py --workdir=runs/liu-cifar10

Claim: the momentum with the best accuracy falls with the number of workers. Both the claim and the paper's network, a
ResNet-32 on CIFAR-10, are second-hand, and we do not have the paper's numbers. Here the network is cifar10_quick. On
digits the same figure is another view of the sweep of Figure 3 of Mitliagkas et al.
(`--config=configs/figure3.py:digits --config.figure=best_momentum`).

| variant | what | where |
|---|---|---|
| none | CIFAR-10, 5 momenta x 3 learning rates x 4 numbers of workers x 3 seeds, 5,000 updates | one GPU; not run yet |
| `fast` | digits, 1 and 8 workers, 100 updates | 2 cores, 1 minute |
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick


def get_config(variant: str = "") -> SweepConfig:
    """The config, or its variant 'fast'."""
    if variant not in ("", "fast"):
        raise ValueError(f"configs/liu_deep_network.py has the variant 'fast', not {variant!r}.")
    if variant == "fast":
        train = TrainConfig(dataset="digits", num_updates=100, log_every=50, eval_every=50)
        axes = {"num_workers": (1, 8), "momentum": (0.5, 0.9), "learning_rate": (0.2, 0.1), "seed": (0, 1)}
    else:
        train = cifar10_quick(eval_every=500)
        momenta, rates = (0.0, 0.3, 0.5, 0.7, 0.9), (0.01, 0.003, 0.001)
        axes = {"num_workers": (1, 2, 4, 8), "momentum": momenta, "learning_rate": rates, "seed": (0, 1, 2)}
    return SweepConfig(train=train, axes=axes, figure="best_momentum")
