"""cifar10_quick on CIFAR-10 with Caffe's recipe: the CIFAR experiments of Mitliagkas et al. 2016 (arXiv:1605.09774).

    python launch/train.py --config=configs/cifar10_quick.py --workdir=runs/cifar10_quick \
        --config.num_workers=8 --config.momentum=0.0

The recipe is that of Caffe's examples/cifar10/cifar10_quick_solver.prototxt and its second stage: pixels 0..255 minus
the mean image, batch size 100, learning rate 0.001 and 0.0001 for the last fifth, momentum 0.9 with the step size
inside, weight decay 0.004 (in the gradient, at the parameters that were read), twice the learning rate for biases,
5,000 updates, no augmentation. Pixels and initialisation are Caffe's too, so learning rates carry over. The longer
version of the paper (Allerton, October 2016) has batches of 128; the first does not state the size.

Claim: 8 workers need less explicit momentum than one. Test accuracy after 5,000 updates, seed 0, one run each:

| workers | momentum | test accuracy |
|---|---|---|
| 1 | 0.9 | 76.3 % |
| 8 | 0.9 | 41.4 % |
| 8 | 0.0 | 64.9 % |
| 8 | -0.09 | 64.3 % |

The learning rate is that of one worker with momentum 0.9; it is not tuned for the other runs, whose steps are ten times
shorter without momentum. Figure 3 needs a sweep over both, `configs/figure3.py`.

Each run took 31 to 36 minutes on two cores, two at a time, and needs CIFAR-10 in the format of TensorFlow Datasets
(`--config.data_dir` or TFDS_DATA_DIR). `:fast` after the file name selects 500 updates.
"""

from asyncflax.train.config import TrainConfig
from asyncflax.train.recipes import cifar10_quick


def get_config(variant: str = "") -> TrainConfig:
    """The config, or its variant 'fast'."""
    if variant not in ("", "fast"):
        raise ValueError(f"configs/cifar10_quick.py has the variant 'fast', not {variant!r}.")
    fast = variant == "fast"
    return cifar10_quick(
        schedule="steps(at=0.8)",
        num_updates=500 if fast else 5000,
        log_every=50,
        eval_every=100 if fast else 500,
    )
