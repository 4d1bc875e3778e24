"""WRN-16-4 of Zagoruyko and Komodakis 2016, reportedly the network of DANA on CIFAR-100.

Source: S. Zagoruyko, N. Komodakis 2016, Wide Residual Networks (arXiv:1605.07146), Table 1; the order of norm, relu
and convolution is that of He et al. 2016b (arXiv:1603.05027).
"""

from __future__ import annotations

import jax
from flax import nnx

from asyncflax import _check
from asyncflax.models.layers import ImageShape
from asyncflax.models.resnet import Layers, add_blocks, running_statistics


class WideResNet16x4(nnx.Module):
    """conv 3x3x16; 3 stages of 2 blocks with 64, 128, 256 features; norm, relu, mean over the pixels; classes.

    A block is x + conv(dropout(relu(norm(conv(relu(norm(x))))))) with 3x3 convolutions without bias; the first one of
    stages 2 and 3 has stride 2. In the first block of a stage the shortcut is a 1x1 convolution of relu(norm(x)).
    2,748,890 parameters at 10 classes, 2,772,020 at 100.

    BatchNorm, statistics_decay and statistics are those of `ResNet20`.

    Example:
      >>> from flax import nnx
      >>> from asyncflax import models
      >>> model = nnx.eval_shape(lambda: models.WideResNet16x4((32, 32, 3), 100, rngs=nnx.Rngs(0)))  # shapes alone
      >>> models.count_parameters(model)
      2772020
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int = 10,
        *,
        dropout: float = 0.0,
        statistics_decay: float = 0.9,
        statistics: str = "batch",
        rngs: nnx.Rngs,
        conv: str = "auto",
    ):
        dropout = _check.scalar("dropout", dropout, low=0.0, high=1.0)
        layers = Layers(image_shape, num_classes, statistics_decay, statistics, rngs, conv)
        self.conv = layers.conv(image_shape[2], 16)
        block = lambda features, out, stride: _Block(features, out, stride, dropout, layers)
        self._blocks = add_blocks(self, block, 16, (64, 128, 256), (2, 2, 2))
        self.norm = layers.norm(256)
        self.dense = layers.dense(256)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        running = running_statistics(key)
        rngs = None if key is None else nnx.Rngs(dropout=key)  # each layer draws its own key
        x = self.conv(images)
        for name in self._blocks:
            x = getattr(self, name)(x, running, rngs)
        return self.dense(nnx.relu(self.norm(x, running)).mean(axis=(1, 2)))


class _Block(nnx.Module):
    """x + conv(dropout(relu(norm(conv(relu(norm(x)))))))."""

    def __init__(self, features: int, out: int, stride: int, dropout: float, layers: Layers):
        self.norm1 = layers.norm(features)
        self.conv1 = layers.conv(features, out, stride=stride)
        self.norm2 = layers.norm(out)
        self.dropout = nnx.Dropout(dropout)
        self.conv2 = layers.conv(out, out)
        self._projects = stride > 1 or out != features
        if self._projects:
            self.shortcut_conv = layers.conv(features, out, size=1, stride=stride)

    def __call__(self, x: jax.Array, running: bool | None, rngs: nnx.Rngs | None) -> jax.Array:
        y = nnx.relu(self.norm1(x, running))
        if self._projects:
            x = self.shortcut_conv(y)
        y = nnx.relu(self.norm2(self.conv1(y), running))
        if rngs is not None:
            y = self.dropout(y, rngs=rngs, deterministic=False)
        return x + self.conv2(y)
