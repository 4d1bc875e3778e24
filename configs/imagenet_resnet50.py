"""ResNet-50 on ImageNet by 16 to 64 asynchronous workers, as DANA is said to be trained (arXiv:1907.11612).

    python launch/train.py --config=configs/imagenet_resnet50.py --workdir=runs/resnet50 \
        --config.num_workers=64 --config.store=host

90 epochs, batches of 256 a worker, learning rate 0.1 (times 0.1 after 30, 60 and 80 epochs), 5 epochs of warm-up,
momentum 0.9, weight decay 0.0001, computed in bfloat16; DANA-Slim, 16 workers unless you say otherwise.

Claim: the final accuracy hardly falls up to a total batch of 16K on 64 asynchronous workers (abstract). No number of
the paper is at hand, and the settings are second-hand.

The versions that 64 workers hold are 6.5 GB, and the velocities of DANA-Slim as much again: `--config.store=host` keeps
the versions in host memory. `--config.decode_processes` are the processes that decode, 8 unless you say otherwise.

Not run here: ImageNet must be downloaded by hand, and the training needs GPUs; a missing data set is reported at
the start, with the commands to get it. `configs/imagenet_eight.py:resnet50` is this network on a small sample.
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import resnet50


def get_config() -> TrainConfig:
    """The config."""
    return resnet50(algorithm="dana_slim", num_workers=16)
