"""Trainings of papers as configs, from which `configs/` and grids begin."""

import dataclasses
from typing import Any

from asyncflax.train.config import TrainConfig

__all__ = ["caffenet", "cifar10_quick", "imagenet_eight_small", "resnet20", "resnet50", "steps_schedule", "wrn16_4"]


def steps_schedule(at: tuple[float, ...], *, factor: float = 0.1, warmup: int = 0) -> str:
    """A schedule that drops, after a warm-up from the learning rate over the number of workers, as SMEGA2 has it.

    Args:
      at, factor, warmup: see `schedules.steps`.

    Example:
      >>> from asyncflax.train.recipes import steps_schedule
      >>> steps_schedule((0.7, 0.9), warmup=100)
      'steps(at=(0.7, 0.9), factor=0.1, warmup=100, warmup_from=None)'
    """
    rise = f", warmup={warmup}, warmup_from=None" if warmup else ""
    return f"steps(at={at!r}, factor={factor!r}{rise})"


def cifar10_quick(**fields: Any) -> TrainConfig:
    """Caffe's cifar10_quick on CIFAR-10: pixels 0..255 less the mean image, batch 100, no augmentation.

    Learning rate 0.001 and momentum 0.9 with the step size inside, weight decay 0.004 in the gradient, at the
    parameters that were read, twice the learning rate for biases. With these pixels and this initialisation learning
    rates mean what they mean in Caffe. The batch is Caffe's; in the Allerton version of the paper it is 128.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Source: Caffe, examples/cifar10/cifar10_quick_solver.prototxt, whose second stage is
      schedule='steps(at=0.8)'; the CIFAR experiments of Mitliagkas et al. 2016 (arXiv:1605.09774).

    Example:
      >>> from asyncflax.train.recipes import cifar10_quick
      >>> config = cifar10_quick(num_workers=8, momentum=-0.09)
      >>> config.model, config.momentum, config.weight_decay
      ('Cifar10Quick', -0.09, 0.004)
    """
    recipe = TrainConfig(
        # What is trained on what.
        dataset="cifar10",
        model="Cifar10Quick",
        pixel_scale=1.0,
        batch_size=100,
        # Asynchrony: one worker, which is synchronous; set num_workers.
        num_workers=1,
        asynchrony="queue(service_time=exponential)",
        # The method.
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
    """ResNet-20 on CIFAR-10 as the code of SMEGA2 trains it: 160 epochs of batches of 128, crops and mirror images.

    Learning rate 0.1, times 0.1 after 80 and 120 epochs, risen to in 5 epochs, update by update, from 0.1 /
    num_workers; momentum 0.9; weight decay 0.0001 of all parameters, in the gradient, at the parameters that were read
    (the code below has it at the server's: decay_at=server); gamma service times of equal machines. The learning rate
    does not grow with the workers. DANA, by the same group, is said to be trained so as well.

    Pixels are less the mean image and times 1/64, about one over their standard deviation. (Others subtract one mean
    and divide by one standard deviation a channel. What the first convolution is given differs by that, and BatchNorm
    takes most of it back.)

    Methods differ in where the step size stands; it is in the velocity here ('inside', which is the default of the
    library's methods), so that velocities need no correction where the learning rate drops.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Source: github.com/rafi-cohen/SMEGA2, the code of Cohen, Hakimi, Schuster 2022 (doi:10.1145/3545008.3545010);
      augmentation and weight decay of He et al. 2016 (arXiv:1512.03385), section 4.2.

    Example:
      >>> from asyncflax.train.recipes import resnet20
      >>> config = resnet20(num_workers=16, algorithm="multi_asgd")
      >>> config.model, config.num_updates * config.batch_size // 50_000, config.schedule
      ('ResNet20', 160, 'steps(at=(0.5, 0.75), factor=0.1, warmup=1953, warmup_from=None)')
    """
    recipe = TrainConfig(
        # What is trained on what.
        dataset="cifar10",
        model="ResNet20",
        pixel_scale=1 / 64,
        crop_pad=4,
        flip=True,
        batch_size=128,
        # Asynchrony: one worker, which is synchronous; set num_workers.
        num_workers=1,
        asynchrony="queue(service_time=gamma(cv=0.1))",
        # The method.
        algorithm="momentum_asgd",
        learning_rate=0.1,
        schedule=steps_schedule(at=(0.5, 0.75), factor=0.1, warmup=_updates(epochs=5, batch_size=128)),
        momentum=0.9,
        weight_decay=1e-4,
        # The run.
        num_updates=_updates(epochs=160, batch_size=128),
        log_every=100,
        eval_every=_updates(epochs=5, batch_size=128),
        checkpoint_every=_updates(epochs=5, batch_size=128),
    )
    return dataclasses.replace(recipe, **fields)


def wrn16_4(**fields: Any) -> TrainConfig:
    """WRN-16-4 on CIFAR-100 as DANA is said to train it: 200 epochs of batches of 128, crops and mirror images.

    As `resnet20`, but for the learning rate, which is 0.1 times 0.2 after 60, 120 and 160 epochs, and the weight decay,
    0.0005. CIFAR-100 itself has not been trained on; the settings are second-hand.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Source: Hakimi, Barkai, Gabel, Schuster 2019 (arXiv:1907.11612), second-hand; Zagoruyko and Komodakis 2016
      (arXiv:1605.07146), section 3.

    Example:
      >>> from asyncflax.train.recipes import wrn16_4
      >>> config = wrn16_4(num_workers=8)
      >>> config.dataset, config.model, config.num_updates, config.weight_decay
      ('cifar100', 'WideResNet16x4', 78125, 0.0005)
    """
    recipe = resnet20(
        dataset="cifar100",
        model="WideResNet16x4",
        schedule=steps_schedule(at=(0.3, 0.6, 0.8), factor=0.2, warmup=_updates(epochs=5, batch_size=128)),
        weight_decay=5e-4,
        num_updates=_updates(epochs=200, batch_size=128),
    )
    return dataclasses.replace(recipe, **fields)


def caffenet(**fields: Any) -> TrainConfig:
    """CaffeNet on ImageNet with Omnivore's solver: pixels 0..255 less their mean, batch 256, one learning rate, 0.001.

    Momentum 0.9 with the step size inside, weight decay 0.0005 in the gradient, at the parameters that were read, twice
    the learning rate for biases, dropout. Caffe crops 227x227 of images scaled to 256x256; here the crops have that
    share of the area, and aspect ratios from 3/4 to 4/3. The batch is Caffe's and that of the Allerton version of
    Mitliagkas et al. 50,000 updates, ten epochs, are a choice of ours.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Source: the solver of github.com/HazyResearch/Omnivore (Hadjis et al. 2016, arXiv:1606.04487); Caffe,
      models/bvlc_reference_caffenet, whose own solver is learning_rate=0.01 with
      schedule='steps(at=(0.222, 0.444, 0.667, 0.889))' and num_updates=450_000; the ImageNet experiments of Mitliagkas
      et al. 2016 (arXiv:1605.09774).

    Example:
      >>> from asyncflax.train.recipes import caffenet
      >>> config = caffenet(num_workers=8, classes=tuple(range(8)))
      >>> config.model, config.learning_rate, config.momentum, config.image_size
      ('CaffeNet', 0.001, 0.9, 227)
    """
    recipe = TrainConfig(
        # What is trained on what.
        dataset="imagenet2012",
        model="CaffeNet",
        image_size=227,
        crop_area=(227**2 / 256**2, 227**2 / 256**2),
        flip=True,
        pixel_scale=1.0,
        batch_size=256,
        decode_processes=8,
        # Asynchrony: one worker, which is synchronous; set num_workers.
        num_workers=1,
        asynchrony="queue(service_time=exponential)",
        # The method.
        algorithm="momentum_asgd(form=inside, decay_at=read)",
        learning_rate=0.001,
        momentum=0.9,
        weight_decay=5e-4,
        bias_multiplier=2.0,
        # The run.
        num_updates=50_000,
        log_every=20,
        eval_every=1000,
        eval_batch_size=256,
        checkpoint_every=1000,
    )
    return dataclasses.replace(recipe, **fields)


def imagenet_eight_small(**fields: Any) -> TrainConfig:
    """A small network on small crops of the sample of ImageNet, for two cores.

    SmallCnn on crops of 64x64 with 35 to 100 % of the area, and mirror images; batch 64, learning rate 0.02.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Example:
      >>> from asyncflax.train.recipes import imagenet_eight_small
      >>> imagenet_eight_small(num_workers=8).image_size
      64
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
        log_every=20,
        eval_every=100,
        eval_batch_size=200,
        checkpoint_every=100,
    )
    return dataclasses.replace(recipe, **fields)


def resnet50(**fields: Any) -> TrainConfig:
    """ResNet-50 on ImageNet as DANA is said to train it: 90 epochs, batches of 256 a worker, computed in bfloat16.

    Learning rate 0.1, times 0.1 after 30, 60 and 80 epochs, risen to in 5 epochs from 0.1 / num_workers; momentum 0.9;
    weight decay 0.0001 of all parameters, at the parameters that were read; gamma service times of equal machines.
    Random crops of 8 to 100 % of the area, and mirror images. The learning rate does not grow with the workers.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Source: Hakimi, Barkai, Gabel, Schuster 2019 (arXiv:1907.11612), whose settings on ImageNet are known second-hand;
      the crops of Szegedy et al. 2015 (arXiv:1409.4842).

    Example:
      >>> from asyncflax.train.recipes import resnet50
      >>> config = resnet50(num_workers=16, algorithm="dana_slim")
      >>> config.model, config.num_updates, config.precision
      ('ResNet50', 450360, 'bfloat16')
    """
    epoch = 1_281_167 // 256
    recipe = TrainConfig(
        # What is trained on what.
        dataset="imagenet2012",
        model="ResNet50",
        precision="bfloat16",
        flip=True,
        pixel_scale=1 / 58,
        batch_size=256,
        decode_processes=8,
        # Asynchrony: one worker, which is synchronous; set num_workers.
        num_workers=1,
        asynchrony="queue(service_time=gamma(cv=0.1))",
        # The method.
        algorithm="momentum_asgd",
        learning_rate=0.1,
        schedule=steps_schedule(at=(30 / 90, 60 / 90, 80 / 90), factor=0.1, warmup=5 * epoch),
        momentum=0.9,
        weight_decay=1e-4,
        # The run.
        num_updates=90 * epoch,
        log_every=36,  # 139 times an epoch
        eval_every=epoch,
        eval_batch_size=256,
        checkpoint_every=epoch,
    )
    return dataclasses.replace(recipe, **fields)


def _updates(*, epochs: int, batch_size: int) -> int:
    """How many updates the epochs of CIFAR's 50,000 training images are."""
    return epochs * 50_000 // batch_size
