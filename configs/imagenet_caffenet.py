"""CaffeNet on ImageNet, the left half of Figure 3 of Mitliagkas et al. 2016 (arXiv:1605.09774) as a single run.

    python launch/train.py --config=configs/imagenet_caffenet.py --workdir=runs/caffenet \
        --config.num_workers=8 --config.momentum=0.3 --config.classes='range(8)'

Omnivore's solver: learning rate 0.001, momentum 0.9, weight decay 0.0005; batch 256, as in the longer version of the
paper (Allerton, October 2016). `--config.classes='range(8)'` are the first eight classes of ImageNet, on which the
first version has this half of Figure 3; the longer one does not mention them. The figure itself is a sweep,
`launch/sweep.py --config=configs/figure3.py:imagenet`.

`:steps` after the file name is Caffe's own solver: 450,000 updates, learning rate 0.01, times 0.1 every 100,000.

Not run here: ImageNet must be downloaded by hand, and training needs a GPU; a missing data set is reported at startup,
with the commands to get it. `configs/imagenet_eight.py:caffenet` is this network on a small sample.
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import caffenet, steps_schedule


def get_config(variant: str = "") -> TrainConfig:
    """The config, or a variant."""
    if variant not in ("", "steps"):
        raise ValueError(f"configs/imagenet_caffenet.py has the variant 'steps', not {variant!r}.")
    if variant == "steps":
        return caffenet(learning_rate=0.01, schedule=steps_schedule((2 / 9, 4 / 9, 6 / 9, 8 / 9)), num_updates=450_000)
    return caffenet()
