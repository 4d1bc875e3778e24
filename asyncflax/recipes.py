"""Trainings of papers as configs, from which `configs/` and grids begin."""

import dataclasses
from typing import Any

from asyncflax.config import TrainConfig

__all__ = ["cifar10_quick"]


def cifar10_quick(**fields: Any) -> TrainConfig:
    """Caffe's cifar10_quick on CIFAR-10: pixels 0..255 less the mean image, batch 100, no augmentation.

    Learning rate 0.001 and momentum 0.9 with the step size inside, weight decay 0.004 in the gradient, at the
    parameters that were read, twice the learning rate for biases. With these pixels and this initialisation learning
    rates mean what they mean in the paper.

    Args:
      fields: of `TrainConfig`, instead of the recipe's.

    Source: Caffe, examples/cifar10/cifar10_quick_solver.prototxt, whose second stage is
      learning_rate_drops=(0.8,); the CIFAR experiments of Mitliagkas et al. 2016 (arXiv:1605.09774).

    Example:
      >>> from asyncflax.recipes import cifar10_quick
      >>> config = cifar10_quick(num_groups=8, momentum=-0.09)
      >>> config.model, config.momentum, config.weight_decay
      ('Cifar10Quick', -0.09, 0.004)
    """
    recipe = TrainConfig(
        # What is trained on what.
        dataset="cifar10",
        model="Cifar10Quick",
        pixel_scale=1.0,
        batch_size=100,
        # Asynchrony: one group, which is synchronous; set num_groups.
        num_groups=1,
        service_time="exponential",
        # The method.
        algorithm="momentum_asgd",
        algorithm_options="form=inside, decay_at=read",
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
