"""Batches of photographs, decoded and cropped in the background while the devices compute.

The batch of event t, crops included, depends only on the seed and on t. So it is the same at every width, on every
mesh, however rows are sharded, for any number of worker processes and after a resume.

Grain's worker processes import the main module again, so guard scripts by `if __name__ == "__main__":`. Each takes some
seconds to start. Images stay uint8; devices normalise them. Needs grain and pillow (extra `train`).
"""

from __future__ import annotations

import functools
import io
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from asyncflax import _check
from asyncflax.data.imagenet import Record, Records
from asyncflax.data.order import batch_rows

__all__ = ["Batches", "central_crop", "decode", "evaluation_batches", "event_batches", "random_crop"]

_TRIES = 10  # crops drawn before falling back to the central one
_SUCCESSORS = 100  # records tried in place of a corrupted one
_THREADS = 4  # that decode without worker processes; each holds a batch


def decode(jpeg: bytes) -> np.ndarray:
    """Decodes an image.

    Args:
      jpeg: a JPEG file, or an 8-bit PNG file (ImageNet has one with the suffix JPEG). Greyscale and CMYK are converted
        to RGB; transparency and EXIF orientation are ignored.

    Returns:
      uint8 [height, width, 3].

    Raises:
      ValueError: it is corrupted, truncated or in another format. Flipped bits within the image data usually go
        undetected.

    Example:
      >>> from asyncflax.data import pipeline
      >>> pipeline.decode(b"not an image")
      Traceback (most recent call last):
        ...
      ValueError: cannot be decoded (neither a JPEG nor a PNG file)
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG", "PNG"]) as image:
            if image.mode[0] in "IF":  # more than 8 bits, which a conversion would truncate
                raise ValueError(f"its pixels have the mode {image.mode}, not 8 bits")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError("cannot be decoded (neither a JPEG nor a PNG file)") from None
    except Exception as error:  # parsers may raise anything on invalid bytes
        raise ValueError(f"cannot be decoded ({error})") from error


def random_crop(
    image: np.ndarray,
    generator: np.random.Generator,
    *,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> np.ndarray:
    """A random crop, scaled to a square and mirrored half of the time.

    Args:
      image: uint8 [height, width, 3].
      generator: the source of randomness.
      size: side of the result in pixels.
      area: range of the crop's share of the image's area, uniform.
      aspect: range of its ratio of width to height, log-uniform. Crops that do not fit are redrawn; after ten tries the
        largest central one is taken.
      flip: whether to mirror.

    Returns:
      uint8 [size, size, 3]; bilinear, with antialiasing.

    Source: C. Szegedy et al., Going Deeper with Convolutions, 2015 (arXiv:1409.4842), as in torchvision's
      RandomResizedCrop.

    Example:
      >>> import numpy as np
      >>> from asyncflax.data import pipeline
      >>> image = np.zeros((375, 500, 3), np.uint8)
      >>> pipeline.random_crop(image, np.random.default_rng(0), size=224).shape
      (224, 224, 3)
    """
    top, left, height, width = _box(image.shape[0], image.shape[1], generator, area, aspect)
    crop = _resize(image[top : top + height, left : left + width], size, size)
    return crop[:, ::-1] if flip and generator.random() < 0.5 else crop


def central_crop(image: np.ndarray, *, size: int) -> np.ndarray:
    """The central crop of an image whose shorter side is scaled to 256 / 224 of `size`, as usual for ImageNet.

    Args:
      image: uint8 [height, width, 3]; not scaled if its shorter side already has that length.
      size: side of the result in pixels.

    Returns:
      uint8 [size, size, 3].

    Source: A. Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012 (256 and 224).

    Example:
      >>> import numpy as np
      >>> from asyncflax.data import pipeline
      >>> pipeline.central_crop(np.zeros((375, 500, 3), np.uint8), size=224).shape
      (224, 224, 3)
    """
    height, width = image.shape[:2]
    shorter, target = min(height, width), round(size * 256 / 224)
    if shorter != target:
        height, width = height * target // shorter, width * target // shorter
        image = _resize(image, height, width)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


class Batches:
    """An iterator over batches, prefetched by threads or worker processes, that can be repositioned.

    Returned by `event_batches` and `evaluation_batches`. Close it, or use it in a `with` statement, to stop workers.

    Args:
      make: batch number -> the batch, a dict of arrays; pickled for the workers.
      num_batches: the number of batches.
      decode_processes: the number of worker processes; 0 uses threads.

    Attributes:
      decode_processes: as given; a change takes effect at the next start.

    Example:
      >>> import numpy as np
      >>> from asyncflax.data import pipeline
      >>> with pipeline.Batches(lambda t: {"squares": np.array([t, t * t])}, 10) as batches:
      ...     _ = batches.take(6)
      ...     state = batches.get_state()
      ...     print(next(batches))
      ...     batches.set_state(state)
      ...     print(batches.take(2))
      {'squares': array([ 6, 36])}
      {'squares': array([[ 6, 36],
             [ 7, 49]])}
    """

    def __init__(self, make: Callable[[int], dict[str, np.ndarray]], num_batches: int, *, decode_processes: int = 0):
        self._make, self._next, self._iterator = make, 0, None
        self._num_batches = _check.integer("num_batches", num_batches, 0)
        self.decode_processes = _check.integer("decode_processes", decode_processes, 0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch. If building it fails, the next call retries it."""
        if self._next == self._num_batches:
            self.close()
            raise StopIteration
        if self._iterator is None:
            self._iterator = self._start()
        try:
            batch = next(self._iterator)
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError) and "Worker process was terminated" in str(error):
                raise RuntimeError(
                    f"{str(error).split('. ')[0]}. Exit code -15 means SIGTERM, -9 usually out of memory, -7 a full "
                    "/dev/shm, and 1 an error at startup, printed above. Try fewer workers; batches do not depend "
                    "on their number."
                ) from error
            raise
        self._next += 1
        return {name: np.asarray(array) for name, array in batch.items()}

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The next batches, stacked.

        Args:
          count: the number of batches, at most as many as remain.

        Returns:
          a batch with a leading axis of length `count`.

        Raises:
          ValueError: fewer batches remain.
        """
        count = _check.integer("count", count, 1, self._num_batches - self._next)
        before, stacked = self.get_state(), {}
        try:
            for k in range(count):
                for name, array in next(self).items():
                    if k == 0:
                        stacked[name] = np.empty((count, *array.shape), array.dtype)
                    stacked[name][k] = array
        except BaseException:
            self.set_state(before)  # all or none
            raise
        if self._next == self._num_batches:
            self.close()  # exhausted
        return stacked

    def get_state(self) -> dict[str, int]:
        """The position as JSON; unlike Grain's own state it does not depend on the number of workers."""
        return {"next_batch": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Resumes from a state without building the batches before it."""
        following = _check.integer("next_batch", state["next_batch"], 0, self._num_batches)
        if following != self._next:
            self.close()
            self._next = following

    def close(self) -> None:
        """Stops the workers; asking for another batch restarts them."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> Any:
        """Grain's iterator, starting at the next batch."""
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads its own flags when it starts workers
            flags.FLAGS.mark_as_parsed()
        threads = 0 if self.decode_processes else min(_THREADS, os.cpu_count() or 1)
        dataset = grain.MapDataset.range(self._next, self._num_batches).map(self._make)
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        workers = min(self.decode_processes, self._num_batches - self._next)
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        return iter(dataset.mp_prefetch(options, worker_init_fn=_begin_worker))


def event_batches(
    records: Records | Sequence[Record],
    *,
    batch_size: int,
    num_events: int,
    image_size: int,
    seed: int = 0,
    area: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    on_corrupt: str = "stop",
    decode_processes: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Batches:
    """The batches of events 0, 1, ...: random crops of the records given by `data.batch_rows`.

    Args:
      records: the training records, also a list of `Record`.
      batch_size: images per batch, over all shards.
      num_events: the number of batches.
      image_size: side of the images in pixels.
      seed: determines the order of the records and the crops.
      area: range of a crop's share of the image's area; see `random_crop`.
      flip: whether to mirror half of them.
      on_corrupt: what to do if a record cannot be decoded. 'stop' raises an error that names it; 'skip' uses the next
        decodable one instead and reports it in the batch.
      decode_processes: the number of decoding processes; 0 uses threads.
      shard: (k, n) builds part k of n of each batch's rows, for process k of a run.

    Returns:
      batches of 'image', uint8 [b, image_size, image_size, 3], 'label', int32 [b], and 'corrupt', int32 [b], the index
      of the record that could not be decoded, or -1; b is batch_size / n.

    Raises:
      ValueError, TypeError: an argument is invalid. On iteration: a record cannot be decoded and is not skipped, or
        neither can the hundred after it.
      RuntimeError: on iteration: a worker process has died.

    Example:
      >>> import io, numpy as np, PIL.Image
      >>> from asyncflax.data import imagenet, pipeline
      >>> file = io.BytesIO()
      >>> PIL.Image.new("RGB", (50, 40)).save(file, "JPEG")
      >>> records = [imagenet.Record(file.getvalue(), label=i % 2, name=f"{i}.JPEG") for i in range(6)]
      >>> with pipeline.event_batches(records, batch_size=4, num_events=100, image_size=32) as batches:
      ...     batch = batches.take(10)
      >>> batch["image"].shape, batch["label"].shape, int(batch["corrupt"].max())
      ((10, 4, 32, 32, 3), (10, 4), -1)
    """
    rows = _shard_rows(batch_size, shard)
    batch_rows(len(records), batch_size, range(0), seed=seed)  # raises for invalid arguments
    _check.integer("image_size", image_size, 1)
    _check.choice("on_corrupt", on_corrupt, ("stop", "skip"))
    low, high = area
    if not 0 < low <= high <= 1:
        raise ValueError(f"area must be two fractions in (0, 1], the smaller first, got {area}.")
    make = functools.partial(
        _event_batch,
        records=records,
        batch_size=batch_size,
        rows=rows,
        image_size=image_size,
        seed=seed,
        area=area,
        flip=flip,
        on_corrupt=on_corrupt,
    )
    return Batches(make, _check.integer("num_events", num_events, 0), decode_processes=decode_processes)


def evaluation_batches(
    records: Records | Sequence[Record],
    *,
    batch_size: int,
    image_size: int,
    on_corrupt: str = "stop",
    decode_processes: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Batches:
    """Central crops of all records, once and in order.

    Args:
      records: the records to evaluate on.
      batch_size: images per batch, over all shards; the last batch is padded with black images.
      image_size: side of the images in pixels; see `central_crop`.
      on_corrupt: what to do if a record cannot be decoded. 'stop' raises an error that names it, 'skip' omits it.
      decode_processes: the number of decoding processes; 0 uses threads.
      shard: (k, n) builds part k of n of each batch's rows.

    Returns:
      batches like those of `event_batches`; ignore rows with label -1, which are padding or could not be decoded.

    Raises:
      ValueError, TypeError, RuntimeError: as in `event_batches`.

    Example:
      >>> import io, PIL.Image
      >>> from asyncflax.data import imagenet, pipeline
      >>> file = io.BytesIO()
      >>> PIL.Image.new("RGB", (50, 40)).save(file, "JPEG")
      >>> records = [imagenet.Record(file.getvalue(), label=i % 2, name=f"{i}.JPEG") for i in range(6)]
      >>> with pipeline.evaluation_batches(records, batch_size=4, image_size=32) as batches:
      ...     print([batch["label"].tolist() for batch in batches])
      [[0, 1, 0, 1], [0, 1, -1, -1]]
    """
    rows = _shard_rows(batch_size, shard)
    _check.integer("image_size", image_size, 1)
    _check.choice("on_corrupt", on_corrupt, ("stop", "skip"))
    make = functools.partial(
        _evaluation_batch,
        records=records,
        batch_size=batch_size,
        rows=rows,
        image_size=image_size,
        on_corrupt=on_corrupt,
    )
    return Batches(make, -(-len(records) // batch_size), decode_processes=decode_processes)


def _event_batch(
    event: int,
    *,
    records: Records | Sequence[Record],
    batch_size: int,
    rows: range,
    image_size: int,
    seed: int,
    area: tuple[float, float],
    flip: bool,
    on_corrupt: str,
) -> dict[str, np.ndarray]:
    indices = batch_rows(len(records), batch_size, range(event, event + 1), seed=seed)[0]
    batch = _empty_batch(len(rows), image_size)
    for k, row in enumerate(rows):
        image, batch["label"][k], batch["corrupt"][k] = _decode_or_next(records, int(indices[row]), on_corrupt)
        # A spawn key, not a longer seed, which would collide with the epochs' seeds in `batch_rows`.
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(event, row)))
        batch["image"][k] = random_crop(image, generator, size=image_size, area=area, flip=flip)
    return batch


def _evaluation_batch(
    number: int,
    *,
    records: Records | Sequence[Record],
    batch_size: int,
    rows: range,
    image_size: int,
    on_corrupt: str,
) -> dict[str, np.ndarray]:
    batch = _empty_batch(len(rows), image_size)
    for k, row in enumerate(rows):
        index = number * batch_size + row
        if index < len(records):
            record = records[index]
            try:
                batch["image"][k] = central_crop(decode(record.jpeg), size=image_size)
                batch["label"][k] = record.label
            except ValueError as error:
                if on_corrupt == "stop":
                    raise _corrupted(index, record, error, "omits it") from error
                batch["corrupt"][k] = index
    return batch


def _empty_batch(rows: int, image_size: int) -> dict[str, np.ndarray]:
    """Padding: black images with label -1."""
    return {
        "image": np.zeros((rows, image_size, image_size, 3), np.uint8),
        "label": np.full(rows, -1, np.int32),
        "corrupt": np.full(rows, -1, np.int32),
    }


def _decode_or_next(records: Records | Sequence[Record], index: int, on_corrupt: str) -> tuple[np.ndarray, int, int]:
    """Image and label of the first decodable record from `index` on, and `index` if it was skipped (else -1)."""
    for step in range(1 + _SUCCESSORS):
        record = records[(index + step) % len(records)]
        try:
            return decode(record.jpeg), record.label, index if step else -1
        except ValueError as error:
            if on_corrupt == "stop":
                raise _corrupted(index, record, error, "uses the next one instead") from error
    raise ValueError(f"record {index} and the {_SUCCESSORS} after it cannot be decoded; prepare the data set again.")


def _corrupted(index: int, record: Record, error: ValueError, skipping: str) -> ValueError:
    return ValueError(
        f"record {index}, {record.name}, {error}. Prepare the data set again with an intact JPEG file, or set "
        f"on_corrupt to 'skip', which {skipping}."
    )


def _box(
    height: int,
    width: int,
    generator: np.random.Generator,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop."""
    for _ in range(_TRIES):
        target = height * width * generator.uniform(*area)
        ratio = math.exp(generator.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(target / ratio)), round(math.sqrt(target * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    h = min(height, max(1, round(width / aspect[0])))
    w = min(width, max(1, round(height * aspect[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _shard_rows(batch_size: int, shard: tuple[int, int]) -> range:
    """The rows of a batch that a shard builds."""
    batch_size, (index, count) = _check.integer("batch_size", batch_size, 1), shard
    count = _check.integer("the number of shards", count, 1)
    index = _check.integer("the index of the shard", index, 0, count - 1)
    if batch_size % count:
        raise ValueError(f"batch_size={batch_size} must be a multiple of the {count} shards.")
    part = batch_size // count
    return range(index * part, (index + 1) * part)


def _begin_worker(index: int, count: int) -> None:
    """Keeps a worker off accelerators, ignores signals, and exits when the parent does."""
    del index, count
    jax.config.update("jax_platforms", "cpu")
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent saves first
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
