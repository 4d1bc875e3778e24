"""Negative explicit momentum with 8 and 16 workers: Mitliagkas et al. 2016 (arXiv:1605.09774), section 4.

    python launch/sweep.py --config=configs/negative_momentum.py:digits --workdir=runs/negative-digits

Claim: cifar10_quick with 8 workers, explicit momentum {-0.2, -0.09, -0.06, -0.03, 0}: -0.09 is best, with a
statistical efficiency 15 % better than that of 0, the best non-negative momentum; the paper calls this preliminary.
The longer version (Allerton, October 2016, Figure 8; momenta -0.9, -0.675, ..., 0.9, learning rates in decades) has no
gain up to 8 workers; with 16 workers momentum -0.675 needs half as many updates as the best non-negative one: the
statistical penalty at 1, 2, 4, 8, 16 workers is 1, 1, 2, 2, 3 with negative momenta and 1, 1, 2, 2, 6 without.

Learning rates in decades are coarse: the best one for a momentum may be between two of them. So whether negative
momenta help is asked twice: on all grids of one learning rate per decade, and on the grid of six per decade that
contains them. The problem is softmax regression on digits with batches of 256; the target is a training loss, the mean
of 5 updates. The first 8 seeds choose momentum and learning rate, the 48 others judge. Momenta of 8 workers are those
of the first version and some larger ones; those of 16 are the longer version's except 0.9, which needs runs of 1,120
updates.

| variant | what | where |
|---|---|---|
| none | cifar10_quick, 8 workers, 5,000 updates, 10 seeds | one GPU; not run |
| `digits` | 8 workers, 8 momenta x 15 learning rates x 56 seeds, 560 updates | 2 cores, 1 minute of CPU |
| `digits_16` | 16 workers, 8 momenta x 15 learning rates x 56 seeds, 560 updates | 2 cores, 1 minute of CPU |
| `fast` | digits, 100 updates, 4 seeds: a quick trial | 2 cores, 1 minute |

Fixed before judging: the digests of `asyncflax.lab.figures.criteria` begin with 4bbff7e55e06 for `digits`, bdc477acd755
for `digits_16`.
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick

FIRST_VERSION = (-0.2, -0.09, -0.06, -0.03, 0.0)
MOMENTA = {8: (*FIRST_VERSION, 0.2, 0.4, 0.6), 16: (-0.9, -0.675, -0.45, -0.225, 0.0, 0.225, 0.45, 0.675)}
CHOOSING, JUDGING = tuple(range(8)), tuple(range(100, 148))


def get_config(variant: str = "") -> SweepConfig:
    """The config, or a variant."""
    if variant not in ("", "digits", "digits_16", "fast"):
        raise ValueError(f"configs/negative_momentum.py has the variants digits, digits_16 and fast, not {variant!r}.")
    if variant == "":
        train = cifar10_quick(num_workers=8, num_updates=5000, log_every=100, eval_every=1000)
        axes = {"learning_rate": _even(1e-4, 2, 6), "momentum": FIRST_VERSION, "seed": tuple(range(10))}
        reason = "a run takes minutes on a GPU"
        return SweepConfig(train, axes, figure=f"negative_momentum(target=1.2, choosing=4, exception='{reason}')")
    workers, num_updates = 16 if variant == "digits_16" else 8, 560
    momenta, rates, seeds, options = MOMENTA[workers], _even(0.316, 6, 15), (*CHOOSING, *JUDGING), "target=0.1"
    if variant == "fast":
        momenta, rates, seeds, num_updates = (-0.2, 0.0), _even(0.5, 2, 4), (0, 1, 2, 3), 100
        options = "target=0.5, choosing=1"
    train = TrainConfig(model="Mlp(hidden=0)", batch_size=256, num_workers=workers, num_updates=num_updates)
    train.log_every, train.eval_every = 5, num_updates
    axes = {"learning_rate": rates, "momentum": momenta, "seed": seeds}
    return SweepConfig(train, axes, cells_at_once=100, figure=f"negative_momentum({options})")


def _even(least: float, a_decade: int, count: int) -> tuple[float, ...]:
    """Learning rates evenly spaced in the logarithm, `a_decade` per decade."""
    return tuple(float(f"{least * 10 ** (k / a_decade):.3g}") for k in range(count))
