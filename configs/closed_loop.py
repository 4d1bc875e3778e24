"""Closed-loop momentum (Zhang and Mitliagkas 2017, arXiv:1706.03471, Appendix G) against fixed explicit momentum.

    python launch/compare.py --config=configs/closed_loop.py --workdir=runs/closed-loop

Claim: the best explicit momentum of 8 and 16 workers with exponential service times is far below the 0.9 of one worker;
a grid needs one run per cell to find it. `closed_loop_momentum` measures the implicit momentum during a single run and
sets the explicit one to the difference from a total of 0.9: 0.025 and -0.0375, if it measures 7/8 and 15/16. It should
match the best fixed momentum. The loop starts after 160 and 240 updates; until then the momentum is 0. The network is
cifar10_quick with the learning rate 0.001 of its recipe; for a given seed and number of workers all methods share
trace, data and initial weights.

| variant | what | where |
|---|---|---|
| none | cifar10_quick, 500 updates, 8 and 16 workers, fixed -0.09, 0, 0.3, 3 seeds | 2 cores, 40 minutes of CPU |
| `long` | 5,000 updates, fixed momenta -0.3 to 0.9 and learning rates 0.001, 0.0003, 5 seeds | one GPU; not run yet |
| `fast` | digits, 3 methods, 40 updates: a quick trial | 2 cores, 1 minute |

Seen (benchmarks/RESULTS.md): 37.6 and 34.7 % with 8 and 16 workers, against 37.5 and 34.5 % for the best fixed
momentum, which is 0; all differences are within their intervals. The paper instead compares closed-loop with open-loop
YellowFin, on CIFAR-100 with a ResNet-164 and 16 workers in turn (a delay of 15), where it is 20.1 times as fast.

With `--stop_after_minutes=7` it stops early between two tiles; rerun the same command to resume. On two cores, run two
processes, one for each `--config.num_workers`, with `--config.train.model='Cifar10Quick(conv=forward_gradients)'`;
one process makes less use of them.
"""

from asyncflax.lab.compare import CompareConfig
from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick


def get_config(variant: str = "") -> CompareConfig:
    """The config, or a variant."""
    if variant not in ("", "long", "fast"):
        raise ValueError(f"configs/closed_loop.py has the variants long and fast, not {variant!r}.")
    config = CompareConfig(
        train=cifar10_quick(num_updates=500, log_every=50, eval_every=250),
        methods=_methods(-0.09, 0.0, 0.3),
        service_times="exponential",
        num_workers=(8, 16),
        seeds=(0, 1, 2),
        failed_below=0.2,
        target=0.3,
        orders={"closed-loop": ("closed_loop_momentum", "fixed *")},
        source="Zhang and Mitliagkas 2017 (arXiv:1706.03471), Appendix G",
        paper="20.1 times as fast as open-loop YellowFin (CIFAR-100, 16 workers in turn); nothing on fixed momenta",
        cells_at_once=1,
    )
    if variant == "long":
        config.train.num_updates, config.train.eval_every, config.target = 5000, 250, 0.6
        config.methods = _methods(-0.3, -0.2, -0.09, 0.0, 0.15, 0.3, 0.6, 0.9)
        config.learning_rate_scales, config.seeds, config.cells_at_once = (1.0, 0.3), (0, 1, 2, 3, 4), 0
    if variant == "fast":
        config.train = TrainConfig(dataset="digits", model="Mlp", num_updates=40, log_every=20, eval_every=20)
        config.methods, config.num_workers, config.seeds = _methods(0.0, 0.6), (2, 4), (0, 1)
        config.cells_at_once = 0
    return config


def _methods(*momenta: float) -> dict[str, str]:
    """The closed loop to a total of 0.9, and naive momentum with each of the explicit momenta."""
    fixed = {f"fixed {momentum}": f"momentum_asgd(momentum={momentum})" for momentum in momenta}
    return {"closed_loop_momentum": "closed_loop_momentum(momentum=0.9)", **fixed}
