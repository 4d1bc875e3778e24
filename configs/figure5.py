"""No penalty from a warm start: Figure 5 of Mitliagkas et al. 2016 (arXiv:1605.09774).

    python launch/sweep.py --config=configs/figure5.py:batch_8 --workdir=runs/figure5-batch-8

Claim: with tuned momentum the number of updates to a target hardly grows with the number of workers after a warm
start: the paper starts from a checkpoint of 4,000 updates, on ImageNet, and has penalties of 1.00, 0.918,
0.995, 0.932 at 1, 2, 4, 8 workers (Figure 5 of its longer version, Allerton, October 2016).

Here softmax regression on digits starts from parameters that one worker without momentum has trained to a loss of about
0.5, the same for all seeds, and is trained to 0.2. The cost of staleness depends on the gradient noise, so there are
three batch sizes. The loss is the training loss, the mean over 640 images (320 with batches of 64), on the parameters
that workers read. The first 8 seeds choose momentum and learning rate for each number of workers, the 32 others judge.
A penalty between 1/1.1 and 1.1 counts as none.

| variant | what | where |
|---|---|---|
| `batch_1` | batches of 1, a warm start, 7,200 cells of 4,000 updates | 2 cores, 1 minute of CPU |
| `batch_8` | batches of 8, a warm start, 7,200 cells of 800 updates | 2 cores, 1 minute of CPU |
| `batch_64` | batches of 64, a warm start, 7,200 cells of 320 updates | 2 cores, 1 minute of CPU |
| `fast` | batches of 64, 4 seeds, 1 and 4 workers: a quick trial | 2 cores, 1 minute |

Fixed before judging: the digests of `asyncflax.lab.figures.criteria` begin with 9aa9eb786185, 963737867bea,
d7de7e39ac75 for batches of 1, 8 and 64.
"""

from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig

CHOOSING, JUDGING = tuple(range(8)), tuple(range(100, 132))
BATCHES = {  # batch size: updates per run, the warm start, the smallest learning rate, how many, a factor 2 apart
    1: (4000, "one_worker(num_updates=400, learning_rate=0.1)", 0.0125, 8),
    8: (800, "one_worker(num_updates=50, learning_rate=0.8)", 0.05, 8),
    64: (320, "one_worker(num_updates=22, learning_rate=1.6)", 0.2, 8),
}
VARIANTS = {"batch_1": 1, "batch_8": 8, "batch_64": 64, "fast": 64}


def get_config(variant: str = "batch_8") -> SweepConfig:
    """The config, or a variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/figure5.py has the variants {', '.join(VARIANTS)}, not {variant!r}.")
    batch_size = VARIANTS[variant]
    num_updates, start_from, least, count = BATCHES[batch_size]
    train = TrainConfig(model="Mlp(hidden=0)", batch_size=batch_size, num_updates=num_updates, start_from=start_from)
    train.log_every, train.eval_every = 5 if batch_size == 64 else 640 // batch_size, num_updates
    axes = {
        "num_workers": (1, 2, 4, 8),
        "learning_rate": tuple(least * 2**k for k in range(count)),
        "momentum": (-0.3, 0.0, 0.3, 0.6, 0.8),
        "seed": (*CHOOSING, *JUDGING),
    }
    options = "target=0.2"
    if variant == "fast":
        options += ", choosing=1"
        axes |= {"num_workers": (1, 4), "learning_rate": (1.6, 3.2), "momentum": (0.0, 0.6), "seed": (0, 1, 2, 3)}
    return SweepConfig(train, axes, cells_at_once=100, figure=f"penalty({options})")
