"""A small convolutional network with dropout, for small data sets and tests."""

from __future__ import annotations

import jax
from flax import nnx

from asyncflax import _check
from asyncflax.models.layers import ImageShape, checked_classes, conv_by_name, image_sides, mean_pool, pooled_size


class SmallCnn(nnx.Module):
    """conv 3x3x16, relu, mean pool; conv 3x3x32, relu, mean pool; dropout; classes.

    Example:
      >>> from flax import nnx
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import models
      >>> model = models.SmallCnn((8, 8, 1), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1)), key=jax.random.key(0)).shape, models.count_parameters(model)
      ((2, 10), 6090)
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int = 10,
        *,
        dropout: float = 0.1,
        rngs: nnx.Rngs,
        conv: str = "auto",
    ):
        height, width, channels = image_sides(image_shape, 4, 4)
        dropout = _check.scalar("dropout", dropout, low=0.0, high=1.0)
        convolve = conv_by_name(conv)
        self.conv1 = nnx.Conv(channels, 16, (3, 3), conv_general_dilated=convolve, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), conv_general_dilated=convolve, rngs=rngs)
        rows, columns = (pooled_size(pooled_size(size)) for size in (height, width))
        num_classes = checked_classes(num_classes, rows * columns * 32)
        self.dropout = nnx.Dropout(dropout)
        self.dense = nnx.Linear(rows * columns * 32, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        x = mean_pool(nnx.relu(self.conv1(images)))
        x = mean_pool(nnx.relu(self.conv2(x))).reshape(len(images), -1)
        if key is not None:
            x = self.dropout(x, rngs=nnx.Rngs(dropout=key), deterministic=False)
        return self.dense(x)
