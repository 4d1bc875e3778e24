"""ResNet-50 on ImageNet with 16 to 64 asynchronous workers, reportedly DANA's setting (arXiv:1907.11612).

    python launch/train.py --config=configs/imagenet_resnet50.py --workdir=runs/resnet50 \
        --config.num_workers=64 --config.store=host

90 epochs, batches of 256 per worker, learning rate 0.1 (times 0.1 after 30, 60 and 80 epochs), 5 epochs of warm-up,
momentum 0.9, weight decay 0.0001, computed in bfloat16; DANA-Slim with 16 workers by default.

Claim: the final accuracy hardly falls up to a total batch of 16K on 64 asynchronous workers (abstract). We do not have
the paper's numbers, and the settings are second-hand.

The versions that 64 workers hold take 6.5 GB, and the velocities of DANA-Slim as much again: `--config.store=host`
keeps the versions in host memory. `--config.decode_processes` sets the number of decoding processes (default 8).

Not run here: ImageNet must be downloaded by hand, and training needs GPUs; a missing data set is reported at startup,
with the commands to get it. `configs/imagenet_eight.py:resnet50` is this network on a small sample.
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import resnet50


def get_config() -> TrainConfig:
    """The config."""
    return resnet50(algorithm="dana_slim", num_workers=16)
