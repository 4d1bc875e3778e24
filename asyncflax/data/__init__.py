"""Data sets of images: in memory (`arrays`) or as records that are decoded as they are needed (`imagenet`, `pipeline`).

Which examples an event trains on is in `order`. Only the data sets of scikit-learn and TensorFlow Datasets need the
extra `train`.
"""

from asyncflax.data.arrays import ImageData, augment, cifar10, cifar100, digits
from asyncflax.data.imagenet import ImageRecords, imagenet2012, imagenet_eight
from asyncflax.data.order import batch_rows

__all__ = [
    "ImageData",
    "ImageRecords",
    "augment",
    "batch_rows",
    "cifar10",
    "cifar100",
    "digits",
    "imagenet2012",
    "imagenet_eight",
]
