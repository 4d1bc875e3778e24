"""CaffeNet, the network of the ImageNet experiments of Mitliagkas et al. 2016, as defined in Caffe: an AlexNet.

Source: Caffe, models/bvlc_reference_caffenet/train_val.prototxt: layers, sizes, the standard deviations of the Gaussian
fillers and the initial biases. The network is that of A. Krizhevsky, I. Sutskever, G. Hinton 2012, ImageNet
Classification with Deep Convolutional Neural Networks, except that it pools before it normalises.
"""

from __future__ import annotations

import functools

import jax
from flax import nnx

from asyncflax import _check
from asyncflax.models.layers import (
    ImageShape,
    checked_classes,
    conv_by_name,
    image_sides,
    local_response_norm,
    max_pool,
    pooled_size,
)


class CaffeNet(nnx.Module):
    """Five convolutions, of 96, 256, 384, 384, 256 features; 4096; 4096; classes.

    conv 11x11x96 with stride 4 and no padding, relu, max pool, norm; conv 5x5x256 in two groups, relu, max pool, norm;
    conv 3x3x384, relu; conv 3x3x384 in two groups, relu; conv 3x3x256 in two groups, relu, max pool; 4096, relu,
    dropout; 4096, relu, dropout; classes. A norm is `layers.local_response_norm` over 5 features.

    Caffe crops images to 227x227, whose sides become 55, 27, 13 and 6; for 199 to 230 pixels the input of fc6 is
    6x6x256, and the network has 60,965,224 parameters at 1,000 classes. For 64x64 the input is 1x1x256; images must
    have at least 39 pixels on a side.

    Example:
      >>> from flax import nnx
      >>> from asyncflax import models
      >>> model = nnx.eval_shape(lambda: models.CaffeNet((227, 227, 3), rngs=nnx.Rngs(0)))  # shapes alone
      >>> models.count_parameters(model)
      60965224
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int = 1000,
        *,
        dropout: float = 0.5,
        rngs: nnx.Rngs,
        conv: str = "auto",
    ):
        image_shape = image_sides(image_shape, 39, 39)
        num_classes = checked_classes(num_classes, 4096)
        dropout = _check.scalar("dropout", dropout, low=0.0, high=1.0)
        normal, ones = nnx.initializers.normal, nnx.initializers.ones_init()
        convolution = functools.partial(
            nnx.Conv, kernel_init=normal(0.01), conv_general_dilated=conv_by_name(conv), rngs=rngs
        )
        in_two_groups = functools.partial(convolution, feature_group_count=2, bias_init=ones)
        self.conv1 = convolution(image_shape[2], 96, (11, 11), strides=4, padding="VALID")
        self.conv2 = in_two_groups(96, 256, (5, 5))
        self.conv3 = convolution(256, 384, (3, 3))
        self.conv4 = in_two_groups(384, 384, (3, 3))
        self.conv5 = in_two_groups(384, 256, (3, 3))
        rows, columns = (pooled_size(pooled_size(pooled_size((size - 7) // 4))) for size in image_shape[:2])
        self.dropout = nnx.Dropout(dropout)
        dense = functools.partial(nnx.Linear, kernel_init=normal(0.005), bias_init=ones, rngs=rngs)
        self.fc6 = dense(rows * columns * 256, 4096)
        self.fc7 = dense(4096, 4096)
        self.fc8 = nnx.Linear(4096, num_classes, kernel_init=normal(0.01), rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        rngs = None if key is None else nnx.Rngs(dropout=key)  # each layer draws its own key
        x = local_response_norm(max_pool(nnx.relu(self.conv1(images))))
        x = local_response_norm(max_pool(nnx.relu(self.conv2(x))))
        x = nnx.relu(self.conv4(nnx.relu(self.conv3(x))))
        x = max_pool(nnx.relu(self.conv5(x))).reshape(len(images), -1)
        for layer in (self.fc6, self.fc7):
            x = nnx.relu(layer(x))
            if rngs is not None:
                x = self.dropout(x, rngs=rngs, deterministic=False)
        return self.fc8(x)
