"""Orders of methods with momentum 0.9: DANA (arXiv:1907.11612) and OrMo (arXiv:2407.19234) against what came before.

    python launch/compare.py --config=configs/orders.py:mlp --workdir=runs/orders-mlp

Questions, each with a verdict of its own:

- dana: is DANA-Slim better than Multi-ASGD, which has its velocities but not its look-ahead?
- multi: is Multi-ASGD better than NAG-ASGD, which has one velocity and looks ahead?
- dana-dc: is DANA-DC equal to DANA-Slim, so that delay compensation adds nothing?
- ormo: is OrMo better than each of Multi-ASGD, NAG-ASGD and naive momentum?
- naive: is naive momentum worse than both Multi-ASGD and NAG-ASGD?

According to its abstract, DANA outperforms earlier methods, with up to 64 workers; the order of these is our own
question. The claims about OrMo and naive momentum are second-hand.

An order may depend on the learning rate, so there are two, fixed in advance and the same for all methods: 0.06 for
the perceptron and 0.02 for the convolutional network, and a sixth of these. The logarithm of the final training loss
decides, with ratios up to 1.1 equivalent; for the equality of methods the test accuracy, within half a point. All 16
seeds judge, since nothing is chosen. A run is seven times as long as the memory of momentum: 7 x 32 / (1 - 0.9) = 2,240
gradients for 32 workers, 1,120 for 16.

| variant | what | where |
|---|---|---|
| `mlp` | a perceptron on digits, 32 workers, learning rate 0.06 | 2 cores, 1 minute |
| `mlp_short_steps` | the same with 0.01 | 2 cores, 1 minute |
| `mlp_16` | a perceptron on digits, 16 workers, 0.06 | 2 cores, 1 minute |
| `stragglers` | 32 workers of which 2 are ten times slower, 0.06, only the questions about OrMo | 2 cores, 1 minute |
| `cnn` | SmallCnn on digits, 16 workers, 0.02 | 2 cores, 1 minute |
| `cnn_short_steps` | the same with 0.0033 | 2 cores, 1 minute |
| `cifar10` | cifar10_quick, 16 workers, 0.0001, 5 methods, 6 seeds | 2 cores, 49 minutes of CPU |
| `fast` | a perceptron, 20 gradients: a quick trial | 2 cores, 1 minute |

Fixed before judging: the digests of `asyncflax.lab.compare.criteria` begin, in the order of the questions, with
d62fc9d0f2b6, b4d7e8743d52, ec07beb2b430, 3df425d1ee14, 2589608f2b83 for `mlp`; 774df825e00b, caf6b439a120,
ef797a742470, b87512a5847e, 8d663e392fdc for `mlp_short_steps`; dfb527ae0c0e, 95c8f52ed725, 1993bf98f5a0, d05c646dd356,
8cd6dd2e3f68 for `mlp_16`; d3c8de42c680, 8f78b525d556 for `stragglers` (ormo, naive); fd9a9ad99f05, ad1298aa0350,
c94a4818163d, 8504bc0611e4, e269a3830c85 for `cnn`; 4c15e72fc2ed, cb053ec18739, 3b6bb0f0c4f8, 42a522fee33a, 41fd0e8c90cb
for `cnn_short_steps`; 1bce52000523, 8d531f04c8b9 for `cifar10` (dana, ormo).

With `--stop_after_minutes=7` it stops early between two tiles; rerun the same command to resume.
"""

from asyncflax.lab.compare import CompareConfig
from asyncflax.lab.statistics import least_updates
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick

EQUAL = "homogeneous=gamma(cv=0.1)"
STRAGGLERS = "stragglers=stragglers(share=0.0625, slowdown=10.0)"  # 2 of 32
METHODS = ("dana_dc(strength=2.0, mean_square=per_worker)", "dana_slim", "ormo", "multi_asgd", "nag_asgd")
HAKIMI, SHI = "Hakimi et al. 2019 (arXiv:1907.11612), abstract", "Shi et al. 2024 (arXiv:2407.19234)"
DANA = "DANA outperforms existing methods, with up to 64 workers; this order is a question of ours"
OF_DANA = {
    "dana": ("dana_slim", "multi_asgd"),
    "multi": ("multi_asgd", "nag_asgd"),
}
OF_ORMO = {
    "ormo": ("ormo", ("multi_asgd", "nag_asgd", "momentum_asgd")),
    "naive": (("multi_asgd", "nag_asgd"), "momentum_asgd"),
}
SOURCE = {"dana": HAKIMI, "multi": HAKIMI, "dana-dc": HAKIMI, "ormo": SHI, "naive": SHI}
PAPER = {
    "dana": DANA,
    "multi": DANA,
    "dana-dc": "no number; a question of ours",
    "ormo": "OrMo is better than the other asynchronous methods with momentum (unverified)",
    "naive": "naive momentum is the worst (unverified)",
}
VARIANTS = ("mlp", "mlp_short_steps", "mlp_16", "stragglers", "cnn", "cnn_short_steps", "cifar10", "fast")


def get_config(variant: str = "mlp") -> CompareConfig:
    """The config, or a variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/orders.py has the variants {', '.join(VARIANTS)}, not {variant!r}.")
    workers = 16 if variant.startswith(("mlp_16", "cnn", "cifar10")) else 32
    updates, rate = least_updates(workers, 0.9), 0.02 if variant.startswith("cnn") else 0.06
    train = TrainConfig(
        dataset="digits",
        model="SmallCnn" if variant.startswith("cnn") else "Mlp",
        batch_size=16,
        learning_rate=rate / 6 if variant.endswith("short_steps") else rate,
        momentum=0.9,
        num_updates=updates,
        log_every=updates // 40,
        eval_every=updates // 10,
    )
    config = CompareConfig(
        train=train,
        methods=(*METHODS, "momentum_asgd"),
        service_times=EQUAL,
        num_workers=(workers,),
        seeds=tuple(range(100, 116)),
        failed_below=0.2,
        orders={**OF_DANA, **OF_ORMO},
        equals={"dana-dc": ("dana_dc", "dana_slim")},
        source=SOURCE,
        paper=PAPER,
        cells_at_once=16,
    )
    if variant == "stragglers":
        config.service_times, config.methods = STRAGGLERS, (*METHODS[2:], "momentum_asgd")
        config.orders, config.equals = OF_ORMO, ()
    if variant == "cifar10":
        config.train = cifar10_quick(num_updates=updates, log_every=updates // 20, eval_every=updates // 4)
        # With the recipe's 0.001, which is for one worker, all but asgd end at chance or diverge with 16 workers.
        config.train.learning_rate = 1e-4
        config.train.model = "Cifar10Quick(conv=forward_gradients)"
        config.methods = ("asgd(learning_rate=0.001)", "momentum_asgd", "multi_asgd", "dana_slim", "ormo")
        rest = ("asgd", "multi_asgd", "momentum_asgd")
        config.orders, config.equals = {"dana": ("dana_slim", rest), "ormo": ("ormo", rest)}, ()
        config.seeds, config.cells_at_once = tuple(range(100, 106)), 1
        config.exception = "six seeds, as a training takes three minutes of CPU"
    if variant == "fast":
        config.train.num_updates, config.train.log_every, config.train.eval_every = 20, 10, 10
        config.num_workers, config.seeds = (2, 4), (0, 1)
    return config
