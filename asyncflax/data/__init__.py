"""Image data sets: in memory (`arrays`), or as records decoded on demand (`imagenet`, `pipeline`).

`order` decides which examples an event trains on. A data set is a function annotated to return `ImageData` or
`ImageRecords`. Downloading and decoding need the extra `train`.
"""

from asyncflax.data import arrays, imagenet
from asyncflax.data.arrays import *  # noqa: F403
from asyncflax.data.imagenet import *  # noqa: F403
from asyncflax.data.order import batch_rows

__all__ = ["batch_rows"]
__all__ += arrays.__all__
__all__ += imagenet.__all__
