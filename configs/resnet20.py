"""ResNet-20 on CIFAR-10 in the setting of SMEGA2's code, by the group of DANA (Hakimi et al. 2019, arXiv:1907.11612).

    python launch/train.py --config=configs/resnet20.py --workdir=runs/resnet20 \
        --config.num_workers=16 --config.algorithm=dana_slim

160 epochs of batches of 128 with crops and mirror images, learning rate 0.1 (times 0.1 after 80 and 120 epochs), 5
epochs of warm-up from 0.1 / num_workers, momentum 0.9, weight decay 0.0001, gamma service times of equal machines
(coefficient of variation 0.1). BatchNorm statistics are updated by the server in the order of the events
(docs/batch_norm.md).

Claim: with many workers it matters where momentum is kept: DANA outperforms existing methods, with up to 64 workers
(abstract). We do not have the paper's numbers.

`:16k` after the file name is the largest total batch of the abstract, 64 workers with batches of 256, with DANA-Slim
and a warm-up of 5 epochs: 31,250 updates. (We do not know which data set the paper uses.)

Not run at full length here: 62,500 updates need a GPU. Needs CIFAR-10 in the format of TensorFlow Datasets
(`--config.data_dir` or TFDS_DATA_DIR). `:fast` after the file name is the same network on scikit-learn's digits, 60
updates of batch 32, for a quick trial: less than a minute on two cores, most of it compilation.
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import resnet20, steps_schedule


def get_config(variant: str = "") -> TrainConfig:
    """The config, or a variant."""
    if variant not in ("", "16k", "fast"):
        raise ValueError(f"configs/resnet20.py has the variants '16k' and 'fast', not {variant!r}.")
    if variant == "16k":
        epoch = 50_000 // 256
        return resnet20(
            algorithm="dana_slim",
            num_workers=64,
            batch_size=256,
            num_updates=160 * 50_000 // 256,
            schedule=steps_schedule((0.5, 0.75), warmup=5 * epoch),
            eval_every=5 * epoch,
            checkpoint_every=5 * epoch,
        )
    if variant == "fast":
        return resnet20(
            dataset="digits",
            crop_pad=1,
            flip=False,
            batch_size=32,
            schedule=steps_schedule((0.5, 0.75), warmup=10),
            num_updates=60,
            log_every=20,
            eval_every=20,
            checkpoint_every=20,
        )
    return resnet20()
