"""Published training settings as configs, the bases of `configs/` and of grids.

Each takes `fields` of `TrainConfig` that override its own; by default there is one worker, which is synchronous.
Momentum has the step size inside the velocity (the library's default), so that velocities need no correction where the
learning rate drops, and weight decay is in the gradient, at the parameters that were read.

Example:
  >>> from asyncflax.train import recipes
  >>> config = recipes.cifar10_quick(num_workers=8, momentum=-0.09)
  >>> config.model, config.momentum, config.weight_decay
  ('Cifar10Quick', -0.09, 0.004)
  >>> named = recipes.resnet20, recipes.wrn16_4, recipes.caffenet, recipes.imagenet_eight_small, recipes.resnet50
  >>> [recipe().num_updates for recipe in named]
  [62500, 78125, 50000, 600, 450360]
  >>> recipes.resnet20(schedule=recipes.steps_schedule((0.7, 0.9), warmup=100)).schedule
  'steps(at=(0.7, 0.9), factor=0.1, warmup=100, warmup_from=None)'
"""

import dataclasses
from typing import Any

from asyncflax.train.config import TrainConfig

__all__ = ["caffenet", "cifar10_quick", "imagenet_eight_small", "resnet20", "resnet50", "steps_schedule", "wrn16_4"]


def steps_schedule(at: tuple[float, ...], *, factor: float = 0.1, warmup: int = 0) -> str:
    """`schedules.steps`, with a warm-up from the learning rate over the number of workers, as in SMEGA2.

    Args:
      at, factor, warmup: see `schedules.steps`.
    """
    rise = f", warmup={warmup}, warmup_from=None" if warmup else ""
    return f"steps(at={at!r}, factor={factor!r}{rise})"


def cifar10_quick(**fields: Any) -> TrainConfig:
    """Caffe's cifar10_quick on CIFAR-10: pixels 0..255 minus the mean image, batch 100, no augmentation.

    Learning rate 0.001, doubled for biases, momentum 0.9, weight decay 0.004. Pixels and initialisation are Caffe's, so
    learning rates carry over. The batch is Caffe's too; in the Allerton version of the paper it is 128.

    Source: Caffe, examples/cifar10/cifar10_quick_solver.prototxt, whose second stage is
      schedule='steps(at=0.8)'; the CIFAR experiments of Mitliagkas et al. 2016 (arXiv:1605.09774).
    """
    recipe = TrainConfig(
        # Data and network.
        dataset="cifar10",
        model="Cifar10Quick",
        pixel_scale=1.0,
        batch_size=100,
        # Asynchrony and method.
        asynchrony="queue(service_time=exponential)",
        algorithm="momentum_asgd(form=inside, decay_at=read)",
        learning_rate=0.001,
        momentum=0.9,
        weight_decay=0.004,
        bias_multiplier=2.0,
        # The run.
        num_updates=5000,
        log_every=250,
        eval_every=250,
        checkpoint_every=500,
    )
    return dataclasses.replace(recipe, **fields)


def resnet20(**fields: Any) -> TrainConfig:
    """ResNet-20 on CIFAR-10 as in the code of SMEGA2: 160 epochs of batches of 128, random crops and flips.

    Learning rate 0.1 for any number of workers, times 0.1 after 80 and 120 epochs, with 5 epochs of warm-up from 0.1 /
    num_workers; momentum 0.9; weight decay 0.0001 of all parameters (SMEGA2's code has decay_at=server); gamma service
    times of equal machines. DANA, by the same group, is reportedly trained in the same way.

    The mean image is subtracted from the pixels, which are scaled by 1/64, about one over their standard deviation;
    other code normalises per channel, a difference that BatchNorm largely undoes.

    Source: github.com/rafi-cohen/SMEGA2, the code of Cohen, Hakimi, Schuster 2022 (doi:10.1145/3545008.3545010);
      augmentation and weight decay of He et al. 2016 (arXiv:1512.03385), section 4.2.
    """
    five_epochs = 5 * 50_000 // 128
    recipe = TrainConfig(
        # Data and network.
        dataset="cifar10",
        model="ResNet20",
        pixel_scale=1 / 64,
        crop_pad=4,
        flip=True,
        batch_size=128,
        # Asynchrony and method.
        asynchrony="queue(service_time=gamma(cv=0.1))",
        learning_rate=0.1,
        schedule=steps_schedule(at=(0.5, 0.75), warmup=five_epochs),
        momentum=0.9,
        weight_decay=1e-4,
        # The run.
        num_updates=160 * 50_000 // 128,
        log_every=100,
        eval_every=five_epochs,
        checkpoint_every=five_epochs,
    )
    return dataclasses.replace(recipe, **fields)


def wrn16_4(**fields: Any) -> TrainConfig:
    """WRN-16-4 on CIFAR-100, reportedly DANA's setting: 200 epochs of batches of 128, random crops and flips.

    As `resnet20`, but with learning rate 0.1 times 0.2 after 60, 120 and 160 epochs, and weight decay 0.0005. The
    settings are second-hand, and it has not been run on CIFAR-100 itself.

    Source: Hakimi, Barkai, Gabel, Schuster 2019 (arXiv:1907.11612), second-hand; Zagoruyko and Komodakis 2016
      (arXiv:1605.07146), section 3.
    """
    recipe = resnet20(
        dataset="cifar100",
        model="WideResNet16x4",
        schedule=steps_schedule(at=(0.3, 0.6, 0.8), factor=0.2, warmup=5 * 50_000 // 128),
        weight_decay=5e-4,
        num_updates=200 * 50_000 // 128,
    )
    return dataclasses.replace(recipe, **fields)


def caffenet(**fields: Any) -> TrainConfig:
    """CaffeNet on ImageNet with Omnivore's solver: pixels 0..255 minus the mean, batch 256, one learning rate of 0.001.

    As `cifar10_quick`, but with weight decay 0.0005, dropout and random flips. Caffe crops 227x227 of images scaled to
    256x256; here the crops have that share of the area, and aspect ratios from 3/4 to 4/3. The batch is Caffe's and
    that of the Allerton version of Mitliagkas et al.; 50,000 updates (ten epochs) are our choice.

    Source: the solver of github.com/HazyResearch/Omnivore (Hadjis et al. 2016, arXiv:1606.04487); Caffe,
      models/bvlc_reference_caffenet, whose own solver is learning_rate=0.01 with
      schedule='steps(at=(0.222, 0.444, 0.667, 0.889))' and num_updates=450_000; the ImageNet experiments of Mitliagkas
      et al. 2016 (arXiv:1605.09774).
    """
    recipe = cifar10_quick(
        dataset="imagenet2012",
        model="CaffeNet",
        image_size=227,
        crop_area=(227**2 / 256**2, 227**2 / 256**2),
        flip=True,
        batch_size=256,
        decode_processes=8,
        weight_decay=5e-4,
        num_updates=50_000,
        log_every=20,
        eval_every=1000,
        eval_batch_size=256,
        checkpoint_every=1000,
    )
    return dataclasses.replace(recipe, **fields)


def imagenet_eight_small(**fields: Any) -> TrainConfig:
    """SmallCnn on 64x64 crops of the sample imagenet_eight, small enough for two cores.

    Random crops of 35 to 100 % of the area, and flips; batch 64, learning rate 0.02.
    """
    recipe = TrainConfig(
        dataset="imagenet_eight",
        model="SmallCnn",
        image_size=64,
        crop_area=(0.35, 1.0),
        flip=True,
        pixel_scale=1 / 58,
        batch_size=64,
        learning_rate=0.02,
        num_updates=600,
        eval_every=100,
        eval_batch_size=200,
        checkpoint_every=100,
    )
    return dataclasses.replace(recipe, **fields)


def resnet50(**fields: Any) -> TrainConfig:
    """ResNet-50 on ImageNet, reportedly DANA's setting: 90 epochs, batches of 256 per worker, in bfloat16.

    As `resnet20`, but with drops of the learning rate after 30, 60 and 80 epochs, and random crops of 8 to 100 % of
    the area.

    Source: Hakimi, Barkai, Gabel, Schuster 2019 (arXiv:1907.11612), whose settings on ImageNet are known second-hand;
      the crops of Szegedy et al. 2015 (arXiv:1409.4842).
    """
    epoch = 1_281_167 // 256
    recipe = resnet20(
        dataset="imagenet2012",
        model="ResNet50",
        precision="bfloat16",
        pixel_scale=1 / 58,
        crop_pad=0,
        batch_size=256,
        decode_processes=8,
        schedule=steps_schedule(at=(30 / 90, 60 / 90, 80 / 90), warmup=5 * epoch),
        num_updates=90 * epoch,
        log_every=36,  # 139 times an epoch
        eval_every=epoch,
        eval_batch_size=256,
        checkpoint_every=epoch,
    )
    return dataclasses.replace(recipe, **fields)
