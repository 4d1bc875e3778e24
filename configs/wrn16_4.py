"""WRN-16-4 on CIFAR-100 as reportedly used for DANA, Hakimi et al. 2019 (arXiv:1907.11612).

    python launch/train.py --config=configs/wrn16_4.py --workdir=runs/wrn16_4 \
        --config.num_workers=8 --config.algorithm=multi_asgd

200 epochs of batches of 128 with crops and mirror images, learning rate 0.1 (times 0.2 after 60, 120 and 160 epochs), 5
epochs of warm-up from 0.1 / num_workers, momentum 0.9, weight decay 0.0005, gamma service times of equal machines
(coefficient of variation 0.1). The settings are second-hand. BatchNorm statistics are updated by the server in the
order of the events (docs/batch_norm.md).

Claim: as in configs/resnet20.py, with a wider network and more classes; we do not have the paper's numbers.

Not run on the real data: CIFAR-100 was not available (its reader, `asyncflax.data.cifar100`, has been tested with
synthetic records), and 78,125 updates need a GPU. `:fast` after the file name is the same network on scikit-learn's
digits, 20 updates of batch 32, for a quick trial: a few minutes on two cores.
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import steps_schedule, wrn16_4


def get_config(variant: str = "") -> TrainConfig:
    """The config, or its variant 'fast'."""
    if variant not in ("", "fast"):
        raise ValueError(f"configs/wrn16_4.py has the variant 'fast', not {variant!r}.")
    if variant == "fast":
        return wrn16_4(
            dataset="digits",
            crop_pad=1,
            flip=False,
            batch_size=32,
            schedule=steps_schedule((0.3, 0.6, 0.8), factor=0.2, warmup=5),
            num_updates=20,
            log_every=10,
            eval_every=20,
            checkpoint_every=20,
        )
    return wrn16_4()
