"""ResNet-20 of He et al. 2016 for small images, the network of SMEGA2's code and, reportedly, of DANA on CIFAR-10.

Source: K. He, X. Zhang, S. Ren, J. Sun 2016 (arXiv:1512.03385), section 4.2; initial weights of He et al. 2015
(arXiv:1502.01852), eq. 10.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from asyncflax import _check
from asyncflax.models.layers import ImageShape, checked_classes, conv_by_name, image_sides


class ResNet20(nnx.Module):
    r"""conv 3x3x16; 3 stages of 3 blocks with 16, 32, 64 features; mean over the pixels; classes.

    A block is relu(x + norm(conv(relu(norm(conv(x)))))) with 3x3 convolutions without bias; the first one of stages 2
    and 3 has stride 2. 269,722 parameters at 10 classes, 272,474 with projections.

    *BatchNorm.* Training normalises by the mean and variance of the gradient's own batch, even if it is split over
    devices; the server updates the running statistics as in `ModelUpdate`, with m = statistics_decay and the biased
    variance; evaluation reads them. `models.functional_with_state` turns the network into functions.

    Args:
      shortcut: for blocks that change the shape, 'identity' takes every second pixel and appends zero features, without
        parameters (option A of the paper, its network for CIFAR-10); 'projection' is a 1x1 convolution with stride 2
        and a norm (option B).
      statistics_decay: the decay of the running statistics, in [0, 1]; 0.9 is PyTorch's default (momentum=0.1 there).
      statistics: 'batch' as above, or 'frozen': training also normalises by the running statistics and does not update
        them (for a warm start from a checkpoint).

    Example:
      >>> from flax import nnx
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import models
      >>> model = models.ResNet20((32, 32, 3), rngs=nnx.Rngs(0))
      >>> jax.eval_shape(model, jnp.zeros((2, 32, 32, 3))).shape, models.count_parameters(model)
      ((2, 10), 269722)
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int = 10,
        *,
        shortcut: str = "identity",
        statistics_decay: float = 0.9,
        statistics: str = "batch",
        rngs: nnx.Rngs,
        conv: str = "auto",
    ):
        _check.choice("shortcut", shortcut, ("identity", "projection"))
        layers = Layers(image_shape, num_classes, statistics_decay, statistics, rngs, conv)
        self.conv = layers.conv(image_shape[2], 16)
        self.norm = layers.norm(16)
        block = lambda features, out, stride: _Block(features, out, stride, shortcut, layers)
        self._blocks = add_blocks(self, block, 16, (16, 32, 64), (3, 3, 3))
        self.dense = layers.dense(64)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        running = running_statistics(key)
        x = nnx.relu(self.norm(self.conv(images), running))
        for name in self._blocks:
            x = getattr(self, name)(x, running)
        return self.dense(x.mean(axis=(1, 2)))


def add_blocks(
    model: nnx.Module,
    block: Callable[[int, int, int], nnx.Module],
    features: int,
    outs: Sequence[int],
    counts: Sequence[int],
) -> tuple[str, ...]:
    """Adds the stages of a residual network as stage1_block1, ..., so that the parameters are a nested dict.

    Args:
      model: receives the blocks as attributes.
      block: the constructor of a block, `block(features, out, stride)`.
      features: the number of features of the first block's input.
      outs: the number of features of each stage; stages after the first begin with stride 2.
      counts: the number of blocks in each stage.

    Returns:
      the names of the blocks.
    """
    names = []
    for stage, (out, count) in enumerate(zip(outs, counts, strict=True), 1):
        for i in range(1, count + 1):
            names.append(f"stage{stage}_block{i}")
            setattr(model, names[-1], block(features, out, 2 if stage > 1 and i == 1 else 1))
            features = out
    return tuple(names)


class _Block(nnx.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, features: int, out: int, stride: int, shortcut: str, layers: Layers):
        self.conv1 = layers.conv(features, out, stride=stride)
        self.norm1 = layers.norm(out)
        self.conv2 = layers.conv(out, out)
        self.norm2 = layers.norm(out)
        self._stride, self._more = stride, out - features
        self._projects = shortcut == "projection" and (stride > 1 or out != features)
        if self._projects:
            self.shortcut_conv = layers.conv(features, out, size=1, stride=stride)
            self.shortcut_norm = layers.norm(out)

    def __call__(self, x: jax.Array, running: bool | None) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x), running))
        y = self.norm2(self.conv2(y), running)
        if self._projects:
            x = self.shortcut_norm(self.shortcut_conv(x), running)
        elif self._stride > 1 or self._more:
            x = jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, self._stride, self._stride, 1))
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self._more)))
        return nnx.relu(x + y)


class Layers:
    """Validates the options shared by the layers of a residual network and creates the layers."""

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int,
        statistics_decay: float,
        statistics: str,
        rngs: nnx.Rngs,
        conv: str,
        fan: Literal["fan_in", "fan_out"] = "fan_in",
    ):
        image_sides(image_shape, 4, 4)
        _check.choice("statistics", statistics, ("batch", "frozen"))
        classes = checked_classes(num_classes, 2048 if fan == "fan_out" else 256)
        self._conv = functools.partial(
            nnx.Conv,
            use_bias=False,
            kernel_init=nnx.initializers.variance_scaling(2.0, fan, "normal"),  # He's, over the inputs or the outputs
            conv_general_dilated=conv_by_name(conv),
            rngs=rngs,
        )
        self.norm = functools.partial(  # over images and pixels; called with `running_statistics(key)`
            nnx.BatchNorm,
            use_running_average=statistics == "frozen",
            momentum=_check.scalar("statistics_decay", statistics_decay, low=0.0, high=1.0),
            epsilon=1e-5,
            use_fast_variance=False,  # E x² - (E x)² loses the variance where the mean is large
            rngs=rngs,
        )
        self.dense = functools.partial(nnx.Linear, out_features=classes, rngs=rngs)  # the output layer

    def conv(self, features: int, out: int, *, size: int = 3, stride: int = 1) -> nnx.Conv:
        """A convolution without bias; the output size is that of the input divided by the stride, rounded up."""
        return self._conv(features, out, (size, size), strides=stride, padding=size // 2)  # symmetric for every stride


def running_statistics(key: jax.Array | None) -> bool | None:
    """`use_running_average` of BatchNorm: True in evaluation, the layer's own setting in training."""
    return True if key is None else None
