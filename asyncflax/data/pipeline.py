"""Batches of photographs, decoded and cropped in the background while the devices compute.

The batch of event t, crops included, depends only on the seed and on t. So it is the same at every width, on every
mesh, however rows are sharded, for any number of worker processes and after a resume.

Grain's worker processes re-import the main module, so guard scripts with `if __name__ == "__main__":`. Each takes a few
seconds to start. Images stay uint8; devices normalise them. Needs grain and pillow (extra `train`).

    >>> import io, PIL.Image
    >>> from asyncflax.data import imagenet, pipeline
    >>> file = io.BytesIO()
    >>> PIL.Image.new("RGB", (50, 40)).save(file, "JPEG")
    >>> records = [imagenet.Record(file.getvalue(), label=i % 2, name=f"{i}.JPEG") for i in range(6)]
    >>> with pipeline.event_batches(records, batch_size=4, num_events=100, image_size=32) as batches:
    ...     batch = batches.take(10)
    >>> batch["image"].shape, batch["label"].shape, int(batch["corrupt"].max())
    ((10, 4, 32, 32, 3), (10, 4), -1)
    >>> with pipeline.evaluation_batches(records, batch_size=4, image_size=32) as batches:
    ...     print([batch["label"].tolist() for batch in batches])
    [[0, 1, 0, 1], [0, 1, -1, -1]]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from asyncflax import _check
from asyncflax.data.crops import central_crop, decode, random_crop
from asyncflax.data.imagenet import Record, Records
from asyncflax.data.order import batch_rows
from asyncflax.data.prefetch import Batches

__all__ = ["Batches", "central_crop", "decode", "evaluation_batches", "event_batches", "random_crop"]

_SUCCESSORS = 100  # records tried in place of a corrupted one


def event_batches(
    records: Records | Sequence[Record],
    *,
    batch_size: int,
    num_events: int | Sequence[int] | np.ndarray,
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
      records: the training records; a list of `Record` works too.
      batch_size: the number of images per batch, over all shards.
      num_events: the number of batches; or the tickets whose batches are needed, in order.
      image_size: the side of the images in pixels.
      seed: the random seed of the order and the crops.
      area, flip: see `random_crop`.
      on_corrupt: what to do if a record cannot be decoded. 'stop' raises an error that names it; 'skip' uses the next
        decodable one instead and reports the replacement in the batch.
      decode_processes: the number of decoding processes; 0 uses threads.
      shard: (k, n) builds part k of n of each batch's rows, for process k of a run.

    Returns:
      batches of 'image', uint8 [b, image_size, image_size, 3], 'label', int32 [b], and 'corrupt', int32 [b], the index
      of the record that could not be decoded, or -1; b is batch_size / n.

    Raises:
      ValueError: on iteration, if a record (under 'skip', also each of the hundred after it) cannot be decoded.
      RuntimeError: on iteration, if a worker process died.

    Example: see the module.
    """
    batch_rows(len(records), batch_size, range(0), seed=seed)  # raises for invalid arguments
    low, high = area
    if not 0 < low <= high <= 1:
        raise ValueError(f"area must be (low, high) with 0 < low <= high <= 1, got {area}.")
    make = _EventBatch(records, batch_size, image_size, on_corrupt, shard, seed=seed, area=area, flip=flip)
    if not np.ndim(num_events):
        _check.integer("num_events", num_events, 0)
    return Batches(make, num_events, decode_processes=decode_processes)


def evaluation_batches(
    records: Records | Sequence[Record],
    *,
    batch_size: int,
    image_size: int,
    on_corrupt: str = "stop",
    decode_processes: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Batches:
    """Central crops of all records, once and in order; the last batch is padded with black images.

    Args:
      records, batch_size, image_size, decode_processes, shard: as in `event_batches`.
      on_corrupt: what to do if a record cannot be decoded. 'stop' raises an error that names it; 'skip' omits it.

    Returns:
      batches like those of `event_batches`; ignore rows with label -1, which are padding or undecodable.

    Example: see the module.
    """
    make = _EvaluationBatch(records, batch_size, image_size, on_corrupt, shard)
    return Batches(make, -(-len(records) // batch_size), decode_processes=decode_processes)


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Builds a shard of a batch by number; pickled for worker processes."""

    records: Records | Sequence[Record]
    batch_size: int
    image_size: int
    on_corrupt: str
    shard: tuple[int, int]

    skipping = ""  # what 'skip' does, for messages

    def __post_init__(self):
        index, count = self.shard
        _check.integer("batch_size", self.batch_size, 1)
        _check.integer("the number of shards", count, 1)
        _check.integer("the index of the shard", index, 0, count - 1)
        if self.batch_size % count:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of the {count} shards.")
        _check.integer("image_size", self.image_size, 1)
        _check.choice("on_corrupt", self.on_corrupt, ("stop", "skip"))

    @property
    def rows(self) -> range:
        """The rows of the batch in this shard."""
        index, count = self.shard
        size = self.batch_size // count
        return range(index * size, (index + 1) * size)

    def padding(self) -> dict[str, np.ndarray]:
        """Black images with label -1."""
        count = len(self.rows)
        return {
            "image": np.zeros((count, self.image_size, self.image_size, 3), np.uint8),
            "label": np.full(count, -1, np.int32),
            "corrupt": np.full(count, -1, np.int32),
        }

    def decoded(self, index: int) -> tuple[np.ndarray, int] | None:
        """Image and label of a record, or None if it is corrupted and skipped."""
        record = self.records[index]
        try:
            return decode(record.jpeg), record.label
        except ValueError as error:
            if self.on_corrupt == "skip":
                return None
            raise ValueError(
                f"record {index}, {record.name}, {error}. Prepare the data set again with an intact JPEG file, or set "
                f"on_corrupt to 'skip', which {self.skipping}."
            ) from error


@dataclasses.dataclass(frozen=True)
class _EventBatch(_Batch):
    seed: int
    area: tuple[float, float]
    flip: bool

    skipping = "uses the next one instead"

    def __call__(self, event: int) -> dict[str, np.ndarray]:
        indices = batch_rows(len(self.records), self.batch_size, range(event, event + 1), seed=self.seed)[0]
        batch = self.padding()
        for k, row in enumerate(self.rows):
            image, batch["label"][k], batch["corrupt"][k] = self._decoded_from(int(indices[row]))
            # A spawn key, not a longer seed, which would collide with the epochs' seeds in `batch_rows`.
            generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(event, row)))
            batch["image"][k] = random_crop(image, generator, size=self.image_size, area=self.area, flip=self.flip)
        return batch

    def _decoded_from(self, index: int) -> tuple[np.ndarray, int, int]:
        """Image and label of the first decodable record from `index` on, and `index` if it was skipped (else -1)."""
        for step in range(1 + _SUCCESSORS):
            found = self.decoded((index + step) % len(self.records))
            if found is not None:
                return *found, index if step else -1
        raise ValueError(
            f"record {index} and the {_SUCCESSORS} after it cannot be decoded; prepare the data set again."
        )


class _EvaluationBatch(_Batch):
    skipping = "omits it"

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        batch = self.padding()
        for k, row in enumerate(self.rows):
            index = number * self.batch_size + row
            if index >= len(self.records):
                break
            found = self.decoded(index)
            if found is None:
                batch["corrupt"][k] = index
            else:
                batch["image"][k], batch["label"][k] = central_crop(found[0], size=self.image_size), found[1]
        return batch
