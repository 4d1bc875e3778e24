"""Data sets of images: in memory (`arrays`) or as records that are decoded as they are needed (`imagenet`, `pipeline`).

Which examples an event trains on is in `order`. A data set is a function that returns `ImageData` or `ImageRecords`, by
its annotation. What is downloaded or decoded needs the extra `train`.
"""

from asyncflax.data import arrays, imagenet
from asyncflax.data.arrays import *  # noqa: F403
from asyncflax.data.imagenet import *  # noqa: F403
from asyncflax.data.order import batch_rows

__all__ = ["batch_rows"]
__all__ += arrays.__all__
__all__ += imagenet.__all__
