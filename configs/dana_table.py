"""DANA and other methods on the same traces, after Hakimi et al. 2019 (arXiv:1907.11612), Taming Momentum.

    python launch/compare.py --config=configs/dana_table.py:digits --workdir=runs/dana-digits

Claim: with one learning rate and momentum 0.9 for all numbers of workers, a method keeps its accuracy as workers are
added to the extent that its momentum does not add to the gap between server and worker. The abstract says that DANA
outperforms existing methods with up to 64 workers and hardly loses accuracy up to a total batch of 16K. We have read
only the abstract, so the settings are second-hand, none of the paper's numbers are here, and the order that is tested,
DANA-DC > DANA-Slim > Multi-ASGD > NAG-ASGD, is our own question.

For a given seed, service time and number of workers all methods share trace, data and initial weights; ssgd has the
rounds of the same workers. The learning rate does not grow with the workers, except for the methods that step with the
mean of N gradients (ssgd and delayed_nesterov, linear scaling); on digits, methods without explicit momentum (or, like
closed_loop_momentum, with hardly any) have a learning rate ten times as large, so that in the long run their steps are
as long as those with momentum 0.9. Strength 2 is reported for the adaptive DC-ASGD-a, so dana_dc uses it with a mean
square of each worker's gradients as well; a constant strength of 2 is another method. The number of gradients is the
same for all N. A final test accuracy below 20 %, twice that of chance, counts as a failure, and so does divergence.

| variant | what | where |
|---|---|---|
| none | ResNet-20, CIFAR-10, 160 epochs, 4 to 32 workers, equal and unequal machines, 5 seeds | GPUs; not run yet |
| `short` | the same in 10 epochs, 8, 16 and 32 workers, 3 seeds | one GPU; not run yet |
| `cifar10` | cifar10_quick, 1,500 updates, 5 methods, 16 and 64 workers, 3 seeds | 2 cores, 2 hours of CPU |
| `digits` | 20 methods, 8 to 64 workers, three service times, 3 seeds, 2,500 updates | 2 cores, 35 minutes of CPU |
| `fast` | digits, 3 methods, 20 updates: a quick trial | 2 cores, 1 minute |

With `--stop_after_minutes=7` it stops early between two tiles; rerun the same command to resume.
`--compilation_cache=FOLDER` caches compiled programs. On a GPU set --config.cells_at_once=0 for `cifar10`, which
otherwise trains one network at a time; on two cores run two processes, one for each number of workers, each bound to
a core and with --config.train.model='Cifar10Quick(conv=forward_gradients)'.

Seen (benchmarks/RESULTS.md): on CIFAR-10 with 16 workers dana_slim 44.9 %, ormo 44.3, asgd 31.9, multi_asgd 31.3,
nag_asgd 23.4 (one seed of three fails); with 64 workers no method learns in 1,500 updates. On digits the DANA methods
are the best or among the best up to 32 workers, and Multi-ASGD is below NAG-ASGD with equal machines.
"""

from asyncflax.lab.compare import CompareConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick, resnet20, steps_schedule

HOMOGENEOUS = {"homogeneous": "gamma(cv=0.1)"}
MACHINES = {**HOMOGENEOUS, "heterogeneous": "heterogeneous_gamma(machine_cv=0.6)"}
STRAGGLERS = {"stragglers": "stragglers(share=0.0625, slowdown=10.0)"}  # 1 of 16, 4 of 64
ADAPTIVE = "strength=2.0, mean_square=per_worker"
TABLE = ("ssgd", "nag_asgd", "multi_asgd", f"dc_asgd({ADAPTIVE})", "dana_slim", f"dana_dc({ADAPTIVE})")
EVERY = (
    "ssgd",
    *(f"{name}(learning_rate=0.05)" for name in ("asgd", "staleness_aware_asgd", "delay_adaptive_asgd")),
    *("gap_aware_asgd", "momentum_asgd", "nag_asgd", "lwp", "shifted_momentum", "smega2"),
    *("multi_asgd", "dana_zero", "dana_slim", f"dana_dc({ADAPTIVE})", "dc_asgd"),
    *("ormo", "ormo_da", "delayed_nesterov", "yellowfin(learning_rate=1.0)"),
    "closed_loop_momentum(learning_rate=0.05)",
)
SOURCE = "Hakimi et al. 2019 (arXiv:1907.11612), abstract"
PAPER = "DANA outperforms existing methods, up to 64 workers; this order is a question of ours"


def get_config(variant: str = "") -> CompareConfig:
    """The config, or a variant."""
    if variant not in ("", "short", "cifar10", "digits", "fast"):
        raise ValueError(f"configs/dana_table.py has the variants short, cifar10, digits and fast, not {variant!r}.")
    config = CompareConfig(
        train=resnet20(),
        methods=TABLE,
        service_times=MACHINES,
        num_workers=(4, 8, 12, 16, 20, 32),
        seeds=(0, 1, 2, 3, 4),
        linear_scaling=("ssgd",),
        failed_below=0.2,
        target=0.9,
        orders={"dana": ("dana_dc", "dana_slim", "multi_asgd", "nag_asgd")},
        source=SOURCE,
        paper=PAPER,
    )
    if variant == "short":
        config.target = 0.7
        epoch = 50_000 // 128
        config.train = resnet20(num_updates=10 * epoch, log_every=epoch // 2, eval_every=epoch)
        config.train.schedule = steps_schedule((0.5, 0.75), warmup=epoch)
        config.num_workers, config.seeds = (8, 16, 32), (0, 1, 2)
    if variant == "cifar10":
        config.target = 0.3
        config.train = cifar10_quick(num_updates=1500, log_every=50, eval_every=300)
        # With the recipe's 0.001, which is for one worker, all but asgd end at chance or diverge with 16 workers.
        config.train.learning_rate, config.linear_scaling = 1e-4, ()
        config.methods = ("asgd(learning_rate=0.001)", "nag_asgd", "multi_asgd", "dana_slim", "ormo")
        config.orders = {"dana": ("dana_slim", "multi_asgd", "nag_asgd")}
        config.service_times = HOMOGENEOUS
        config.num_workers, config.seeds, config.cells_at_once = (16, 64), (0, 1, 2), 1
    if variant in ("digits", "fast"):
        config.train = TrainConfig(
            dataset="digits",
            model="SmallCnn",
            batch_size=16,
            learning_rate=0.005,
            schedule=steps_schedule((0.7, 0.9), warmup=100),
            momentum=0.9,
            num_updates=2500,
            log_every=50,
            eval_every=100,
        )
        config.methods, config.linear_scaling = EVERY, ("ssgd", "delayed_nesterov")
        config.service_times, config.num_workers, config.seeds = {**MACHINES, **STRAGGLERS}, (8, 16, 32, 64), (0, 1, 2)
    if variant == "fast":
        config.target = 0.5
        config.train.model, config.train.num_updates = "Mlp", 20
        config.train.schedule = steps_schedule((0.7, 0.9), warmup=2)
        config.train.log_every = config.train.eval_every = 10
        config.methods, config.linear_scaling = ("ssgd", "nag_asgd", "multi_asgd"), ("ssgd",)
        config.num_workers, config.seeds = (2, 4), (0, 1)
    return config
