"""A perceptron with one hidden layer, or none: softmax regression, a convex problem."""

from __future__ import annotations

import jax
from flax import nnx

from asyncflax import _check, _memory
from asyncflax.models.layers import ImageShape, checked_classes, image_sides


class Mlp(nnx.Module):
    """dense, relu, dropout; classes.

    Args:
      hidden: the number of hidden units; 0 omits the layer.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> from asyncflax import models
      >>> model = models.Mlp((8, 8, 1), hidden=0, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1))).shape, models.count_parameters(model)
      ((2, 10), 650)
    """

    def __init__(
        self, image_shape: ImageShape, num_classes: int = 10, *, hidden: int = 64, dropout: float = 0.0, rngs: nnx.Rngs
    ):
        hidden = _check.integer("hidden", hidden, 0)
        dropout = _check.scalar("dropout", dropout, low=0.0, high=1.0)
        height, width, channels = image_sides(image_shape)
        features = height * width * channels
        _memory.need_rows("hidden", hidden, hidden, jax.ShapeDtypeStruct((features + 2,), "float32"))
        num_classes = checked_classes(num_classes, hidden or features)
        self.hidden = nnx.Linear(features, hidden, rngs=rngs) if hidden else None
        self.dropout = nnx.Dropout(dropout)
        self.dense = nnx.Linear(hidden or features, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        x = images.reshape(len(images), -1)
        if self.hidden is not None:
            x = nnx.relu(self.hidden(x))
            if key is not None:
                x = self.dropout(x, rngs=nnx.Rngs(dropout=key), deterministic=False)
        return self.dense(x)
