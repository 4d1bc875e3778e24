"""ResNet-50 for large images, the network of Goyal et al. 2017 on ImageNet.

Source: K. He, X. Zhang, S. Ren, J. Sun 2016 (arXiv:1512.03385), Table 1; the stride of a block is in its 3x3
convolution, as in torchvision ("v1.5") and P. Goyal et al. 2017, Accurate, Large Minibatch SGD: Training ImageNet in 1
Hour (arXiv:1706.02677), section 5.1.
"""

from __future__ import annotations

import jax
from flax import nnx

from asyncflax import _check
from asyncflax.models.layers import ImageShape, max_pool
from asyncflax.models.resnet import Layers, add_blocks, running_statistics


class ResNet50(nnx.Module):
    """conv 7x7x64 with stride 2, norm, relu, max pool; 3, 4, 6, 3 blocks; mean over the pixels; classes.

    A block is relu(x + norm(conv(relu(norm(conv(relu(norm(conv(x)))))))) with 1x1, 3x3 and 1x1 convolutions without
    bias, the first two with 64, 128, 256 or 512 features, the third with four times as many. The shortcut of a stage's
    first block is a 1x1 convolution and a norm; from the second stage on, it and the 3x3 convolution have stride 2. The
    max pool is PyTorch's, with padding. 25,557,032 parameters at 1,000 classes for every image size; 224 pixels become
    112, 56, 28, 14 and 7, and 64 pixels 2.

    The initial weights of convolutions are those of He et al. 2015 (arXiv:1502.01852) with the fan-out, as in
    torchvision; those of the classes are Gaussian with standard deviation 0.01, as in Goyal et al.

    BatchNorm, statistics_decay and statistics are those of `ResNet20`.

    Args:
      zero_init: whether the scale of the last norm of each block is initially 0, so that a block is its shortcut (Goyal
        et al. 2017, section 5.1), instead of 1.

    Attributes:
      blocks: the number of blocks per stage; a subclass with (3, 4, 23, 3) is a ResNet-101.

    Example:
      >>> from flax import nnx
      >>> from asyncflax import models
      >>> model = nnx.eval_shape(lambda: models.ResNet50((224, 224, 3), rngs=nnx.Rngs(0)))  # shapes alone
      >>> models.count_parameters(model)
      25557032
    """

    blocks = (3, 4, 6, 3)

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int = 1000,
        *,
        zero_init: bool = False,
        statistics_decay: float = 0.9,
        statistics: str = "batch",
        rngs: nnx.Rngs,
        conv: str = "auto",
    ):
        zero_init = _check.boolean("zero_init", zero_init)
        layers = Layers(image_shape, num_classes, statistics_decay, statistics, rngs, conv, fan="fan_out")
        last_scale = nnx.initializers.constant(0.0 if zero_init else 1.0)
        self.conv = layers.conv(image_shape[2], 64, size=7, stride=2)
        self.norm = layers.norm(64)
        block = lambda features, out, stride: _Bottleneck(features, out, stride, last_scale, layers)
        self._blocks = add_blocks(self, block, 64, (256, 512, 1024, 2048), self.blocks)
        self.dense = layers.dense(2048, kernel_init=nnx.initializers.normal(0.01))

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        running = running_statistics(key)
        x = max_pool(nnx.relu(self.norm(self.conv(images), running)), before=1)
        for name in self._blocks:
            x = getattr(self, name)(x, running)
        return self.dense(x.mean(axis=(1, 2)))


class _Bottleneck(nnx.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(relu(norm(conv(x))))))))."""

    def __init__(self, features: int, out: int, stride: int, last_scale: nnx.Initializer, layers: Layers):
        inner = out // 4
        self.conv1 = layers.conv(features, inner, size=1)
        self.norm1 = layers.norm(inner)
        self.conv2 = layers.conv(inner, inner, stride=stride)
        self.norm2 = layers.norm(inner)
        self.conv3 = layers.conv(inner, out, size=1)
        self.norm3 = layers.norm(out, scale_init=last_scale)
        self._projects = stride > 1 or out != features
        if self._projects:
            self.shortcut_conv = layers.conv(features, out, size=1, stride=stride)
            self.shortcut_norm = layers.norm(out)

    def __call__(self, x: jax.Array, running: bool | None) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x), running))
        y = nnx.relu(self.norm2(self.conv2(y), running))
        y = self.norm3(self.conv3(y), running)
        if self._projects:
            x = self.shortcut_norm(self.shortcut_conv(x), running)
        return nnx.relu(x + y)
