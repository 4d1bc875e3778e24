"""Eight classes of ImageNet's photographs in minutes: a small network on two cores, CaffeNet or ResNet-50 on a GPU.

    python launch/train.py --config=configs/imagenet_eight.py --workdir=runs/eight

The sample `imagenet_eight` has 3,200 training and 800 validation images of eight classes, which are not ImageNet's
first eight (those of Figure 3 in the paper's first version). There are eight workers and no explicit momentum; with
exponential service times the implicit momentum is 0.875. `resnet50` has the equal machines of its recipe, for which
theory gives no such number.

| variant | what | where |
|---|---|---|
| none | SmallCnn, crops of 64x64, 600 updates of batch 64 | one core, 3.5 minutes |
| `caffenet` | CaffeNet, Omnivore's solver, crops of 227x227, 2,000 updates of batch 64 | a GPU; not run yet |
| `resnet50` | ResNet-50 in bfloat16, crops of 224x224, 2,000 updates of batch 64 | a GPU; not run yet |
| `fast` | SmallCnn, 32x32, 6 updates: a quick trial | 2 cores, 1 minute |

Claim: validation accuracy of at least 25 % for each of three seeds (`--config.seed=1`), where guessing gives 12.5 %.
Seen: 48.9, 47.9 and 42.1 % with seeds 0, 1 and 2 (benchmarks/RESULTS.md).
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import caffenet, imagenet_eight_small, resnet50, steps_schedule


def get_config(variant: str = "") -> TrainConfig:
    """The config, or a variant."""
    if variant not in ("", "caffenet", "resnet50", "fast"):
        raise ValueError(f"configs/imagenet_eight.py has the variants caffenet, resnet50 and fast, not {variant!r}.")
    large = {
        "dataset": "imagenet_eight",
        "batch_size": 64,
        "num_workers": 8,
        "momentum": 0.0,
        "num_updates": 2000,
        "eval_every": 200,
        "checkpoint_every": 200,
    }
    if variant == "caffenet":
        return caffenet(**large)
    if variant == "resnet50":
        schedule = steps_schedule((30 / 90, 60 / 90, 80 / 90), warmup=100)
        return resnet50(**large, learning_rate=0.02, schedule=schedule, log_every=20)
    config = imagenet_eight_small(num_workers=8)
    if variant == "fast":
        config.image_size, config.batch_size, config.num_updates = 32, 16, 6
        config.log_every = config.eval_every = config.checkpoint_every = 3
    return config
