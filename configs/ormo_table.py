"""Ordered momentum and other methods on the same traces: Shi, Yang, Li 2024 (arXiv:2407.19234).

    python launch/compare.py --config=configs/ormo_table.py:digits --workdir=runs/ormo-digits

Claim: with 16 and 64 workers OrMo and OrMo-DA are the best asynchronous methods, and naive momentum is the worst at 64,
with equal machines and with stragglers (1 of 16 and 4 of 64 ten times slower); in wall-clock time OrMo is faster than
synchronous momentum SGD, most of all with stragglers. We have read only the abstract; the order and the settings are
second-hand, and we do not have the paper's numbers.

ResNet-20 on CIFAR-10, batch 64 per worker, momentum 0.9, weight decay 0.0001, 160 epochs, learning rate times 0.1 after
80 and 120. We do not know the paper's learning rates and warm-up: there is no warm-up, and each cell has the best of
three learning rates by training loss (ssgd's are multiplied by the number of workers, which makes its steps as long as
OrMo's where workers take turns). For a given seed, service time and number of workers all methods share trace, data and
initial weights; ssgd has the rounds of the same workers. A final test accuracy below 20 %, twice that of chance, counts
as a failure, and so does divergence.

| variant | what | where |
|---|---|---|
| none | ResNet-20, CIFAR-10, 160 epochs, 16 and 64 workers, with and without stragglers, 3 seeds | GPUs; not run yet |
| `short` | the same in 5 epochs | one GPU; not run yet |
| `cifar10` | cifar10_quick, 1,500 updates, 5 methods, 3 seeds, two kinds of service times | 2 cores; see below |
| `digits` | digits, 8 to 64 workers, three service times, 3 seeds, 1,500 updates | 2 cores, 16 minutes of CPU time |
| `fast` | digits, 3 methods, 20 updates: a quick trial | 2 cores, 1 minute |

The equal machines of `cifar10` are those of `configs/dana_table.py:cifar10`, whose results are in
benchmarks/RESULTS.md; its stragglers have not been run.

With `--stop_after_minutes=7` it stops early between two tiles; rerun the same command to resume.
`--compilation_cache=FOLDER` caches compiled programs. On a GPU set --config.cells_at_once=0 for `cifar10`, which
otherwise trains one network at a time.
"""

from asyncflax.lab.compare import CompareConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick, resnet20, steps_schedule

EQUAL = {"homogeneous": "gamma(cv=0.1)"}
UNEQUAL = {"heterogeneous": "heterogeneous_gamma(machine_cv=0.6)"}
STRAGGLERS = {"stragglers": "stragglers(share=0.0625, slowdown=10.0)"}  # 1 of 16, 4 of 64
METHODS = ("ssgd", "asgd", "momentum_asgd", "shifted_momentum", "smega2", "ormo", "ormo_da")


def get_config(variant: str = "") -> CompareConfig:
    """The config, or a variant."""
    if variant not in ("", "short", "cifar10", "digits", "fast"):
        raise ValueError(f"configs/ormo_table.py has the variants short, cifar10, digits and fast, not {variant!r}.")
    epoch = 50_000 // 64
    config = CompareConfig(
        train=resnet20(
            batch_size=64, num_updates=160 * epoch, eval_every=5 * epoch, schedule=steps_schedule((0.5, 0.75))
        ),
        methods=METHODS,
        service_times={**EQUAL, **STRAGGLERS},
        num_workers=(16, 64),
        seeds=(0, 1, 2),
        learning_rate_scales=(1.0, 0.3, 0.1),
        linear_scaling=("ssgd",),
        failed_below=0.2,
        target=0.9,
        orders={"ormo": ("ormo", ("asgd", "shifted_momentum", "smega2"), "momentum_asgd")},
        source="Shi et al. 2024 (arXiv:2407.19234)",
        paper="OrMo is the best of the asynchronous methods, naive momentum the worst with 64 workers (unverified)",
    )
    if variant == "short":
        config.target = 0.7
        config.train.num_updates, config.train.eval_every = 5 * epoch, epoch
    if variant == "cifar10":
        config.target = 0.3
        config.train = cifar10_quick(num_updates=1500, log_every=50, eval_every=300)
        # With the recipe's 0.001, which is for one worker, all but asgd end at chance or diverge with 16 workers.
        config.train.learning_rate, config.linear_scaling = 1e-4, ()
        config.methods = ("asgd(learning_rate=0.001)", "nag_asgd", "multi_asgd", "dana_slim", "ormo")
        config.orders = {"ormo": ("ormo", ("asgd", "multi_asgd", "nag_asgd"))}
        config.learning_rate_scales, config.cells_at_once = (), 1
    if variant in ("digits", "fast"):
        config.train = TrainConfig(
            dataset="digits",
            model="SmallCnn",
            batch_size=16,
            learning_rate=0.05,
            schedule=steps_schedule((0.7, 0.9)),
            momentum=0.9,
            num_updates=1500,
            log_every=50,
            eval_every=100,
        )
        slow = {"asgd": "asgd(learning_rate=0.5)"}  # steps of the same length in the long run
        config.methods = tuple(slow.get(name, name) for name in METHODS)
        config.service_times, config.num_workers = {**EQUAL, **UNEQUAL, **STRAGGLERS}, (8, 16, 32, 64)
    if variant == "fast":
        config.target = 0.5
        config.train.model, config.train.num_updates = "Mlp", 20
        config.train.log_every = config.train.eval_every = 10
        config.methods, config.learning_rate_scales = ("ssgd", "momentum_asgd", "multi_asgd"), (1.0, 0.3)
        config.num_workers, config.seeds = (2, 4), (0, 1)
    return config
