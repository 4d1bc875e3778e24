"""Orders of methods with momentum 0.9: DANA (arXiv:1907.11612) and OrMo (arXiv:2407.19234) against what came before.

    python launch/compare.py --config=configs/orders.py:mlp --workdir=runs/orders-mlp

Questions, each at 16 and 32 workers:

- dana: is DANA-Slim better than Multi-ASGD, which has its velocities but not its look-ahead, and that better than
  NAG-ASGD, which has one velocity? The abstract of DANA says that it outperforms the methods before it, with up to 64
  workers; the order of these three stands in no source, it is a question of ours.
- dana-dc: does delay compensation add anything to DANA-Slim? It is equal to it, as a question of ours.
- ormo: is OrMo better than the other asynchronous methods with momentum that are not DANA, and naive momentum the
  worst of them? The abstract of OrMo says that it converges better than asynchronous SGD with momentum; that naive
  momentum is the worst is second-hand.

An order is not a fact of one learning rate, so there are two, fixed beforehand and the same for all methods: steps that
are about as long as the worst of the methods can take, and six times shorter ones. Test accuracy after all gradients
decides; half a point is the bound of equivalence. All 16 seeds judge: nothing is chosen. The longest memory, of 32
workers with momentum 0.9, takes 7 x 32 / (1 - 0.9) = 2,240 gradients.

| variant | what | where |
|---|---|---|
| `mlp` | a perceptron on digits, equal machines and stragglers, learning rate 0.06 | 2 cores, 3 minutes of CPU |
| `mlp_short_steps` | the same with 0.01 | 2 cores, 3 minutes of CPU |
| `cnn` | SmallCnn on digits, 16 workers, equal machines, 0.06 | 2 cores, 5 minutes of CPU |
| `cnn_short_steps` | the same with 0.01 | 2 cores, 5 minutes of CPU |
| `cifar10` | cifar10_quick, 1,500 updates, 16 workers, 6 seeds | 2 cores, 2 hours of CPU |
| `fast` | a perceptron, 20 gradients: for trying things | 2 cores, 1 minute |

With `--stop_after_minutes=7` it stops in time between two parts, and the same command goes on.
"""

from asyncflax.lab.compare import CompareConfig
from asyncflax.lab.statistics import least_updates
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick

EQUAL = {"homogeneous": "gamma(cv=0.1)"}
STRAGGLERS = {"stragglers": "stragglers(share=0.0625, slowdown=10.0)"}  # 1 of 16, 2 of 32
METHODS = ("dana_dc(strength=2.0, mean_square=per_worker)", "dana_slim", "ormo", "multi_asgd", "nag_asgd")
HAKIMI, SHI = "Hakimi et al. 2019 (arXiv:1907.11612), abstract", "Shi et al. 2024 (arXiv:2407.19234), abstract"
OURS = "DANA outperforms existing methods, with up to 64 workers; this order is a question of ours"
SOURCE = {"dana": HAKIMI, "dana-dc": HAKIMI, "ormo": SHI}
PAPER = {
    "dana": OURS,
    "dana-dc": "no number; a question of ours",
    "ormo": "OrMo converges better than asynchronous SGD with momentum; naive momentum the worst (unverified)",
}
VARIANTS = ("mlp", "mlp_short_steps", "cnn", "cnn_short_steps", "cifar10", "fast")


def get_config(variant: str = "mlp") -> CompareConfig:
    """The config, or a variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/orders.py has the variants {', '.join(VARIANTS)}, not {variant!r}.")
    workers = (16,) if variant.startswith(("cnn", "cifar10")) else (16, 32)
    updates = least_updates(max(workers), 0.9)
    train = TrainConfig(
        dataset="digits",
        model="SmallCnn" if variant.startswith("cnn") else "Mlp",
        batch_size=16,
        learning_rate=0.01 if variant.endswith("short_steps") else 0.06,
        momentum=0.9,
        num_updates=updates,
        log_every=updates // 20,
        eval_every=updates // 10,
    )
    config = CompareConfig(
        train=train,
        methods=(*METHODS, "momentum_asgd"),
        service_times=EQUAL if variant.startswith("cnn") else {**EQUAL, **STRAGGLERS},
        num_workers=workers,
        seeds=tuple(range(100, 116)),
        failed_below=0.2,
        orders={
            "dana": ("dana_slim", "multi_asgd", "nag_asgd"),
            "ormo": ("ormo", ("multi_asgd", "nag_asgd"), "momentum_asgd"),
        },
        equals={"dana-dc": ("dana_dc", "dana_slim")},
        source=SOURCE,
        paper=PAPER,
        cells_at_once=16,
    )
    if variant == "cifar10":
        config.train = cifar10_quick(num_updates=1500, log_every=50, eval_every=300)
        # With the recipe's 0.001, which is for one worker, all but asgd end at chance or diverge with 16 workers.
        config.train.learning_rate = 1e-4
        config.train.model = "Cifar10Quick(conv=forward_gradients)"
        config.methods = ("asgd(learning_rate=0.001)", "momentum_asgd", "multi_asgd", "dana_slim", "ormo")
        config.orders = {
            "dana": ("dana_slim", ("asgd", "multi_asgd", "momentum_asgd")),
            "ormo": ("ormo", ("asgd", "multi_asgd", "momentum_asgd")),
        }
        config.equals, config.service_times = (), EQUAL
        config.seeds, config.cells_at_once = tuple(range(100, 106)), 1
        config.exception = "six seeds, as a training takes four minutes of CPU"
    if variant == "fast":
        config.train.num_updates, config.train.log_every, config.train.eval_every = 20, 10, 10
        config.num_workers, config.seeds = (2, 4), (0, 1)
    return config
