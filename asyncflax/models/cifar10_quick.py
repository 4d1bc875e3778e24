"""cifar10_quick, the network of the CIFAR-10 experiments of Mitliagkas et al. 2016, as defined in Caffe.

Source: Caffe, examples/cifar10/cifar10_quick_train_test.prototxt: layers, sizes and the standard deviations of the
Gaussian fillers; biases start at 0. 145,578 parameters at 10 classes.
"""

from __future__ import annotations

import functools

import jax
from flax import nnx

from asyncflax.models.layers import checked_classes, conv_by_name, max_pool, mean_pool


class Cifar10Quick(nnx.Module):
    """conv 5x5x32, max pool, relu; conv 5x5x32, relu, mean pool; conv 5x5x64, relu, mean pool; 64; classes.

    Images are 32x32x3; the `key` is ignored.

    Example:
      >>> from flax import nnx
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import models
      >>> model = models.Cifar10Quick(rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 32, 32, 3))).shape, models.count_parameters(model)
      ((2, 10), 145578)
    """

    def __init__(self, num_classes: int = 10, *, rngs: nnx.Rngs, conv: str = "auto"):
        num_classes = checked_classes(num_classes, 64)
        normal = nnx.initializers.normal
        convolution = functools.partial(
            nnx.Conv, kernel_size=(5, 5), conv_general_dilated=conv_by_name(conv), rngs=rngs
        )
        dense = functools.partial(nnx.Linear, kernel_init=normal(0.1), rngs=rngs)
        self.conv1 = convolution(3, 32, kernel_init=normal(1e-4))
        self.conv2 = convolution(32, 32, kernel_init=normal(1e-2))
        self.conv3 = convolution(32, 64, kernel_init=normal(1e-2))
        self.dense1 = dense(4 * 4 * 64, 64)
        self.dense2 = dense(64, num_classes)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        del key
        if images.shape[1:] != (32, 32, 3):
            raise ValueError(f"images must have shape [n, 32, 32, 3], got {images.shape}.")
        x = nnx.relu(max_pool(self.conv1(images)))
        x = mean_pool(nnx.relu(self.conv2(x)))
        x = mean_pool(nnx.relu(self.conv3(x)))
        return self.dense2(self.dense1(x.reshape(len(x), -1)))
