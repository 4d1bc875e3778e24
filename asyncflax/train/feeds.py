"""Batches for training and evaluation: from arrays in memory, or from records that are read on demand.

A feed yields the batch of each event, and maps it to images inside a compiled program:

    ArrayFeed     the data set is on the device; a batch is row numbers
    RecordFeed    a batch is uint8 images, read, decoded and cropped on the host ahead of the device

The batch of event t depends only on the seed and on t, so a feed has no state to save: a resumed run asks for the batch
of its next event.

Example:
  >>> import asyncflax
  >>> from asyncflax.train import TrainConfig, feeds
  >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=100))
  >>> feed = feeds.make_feed(TrainConfig(batch_size=16), asyncflax.data.digits(), plan)
  >>> isinstance(feed, feeds.ArrayFeed), isinstance(feed, feeds.RecordFeed)
  (True, False)
  >>> feed.image_shape, feed.num_classes, feed.example.shape
  ((8, 8, 1), 10, (16,))
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from asyncflax import data
from asyncflax.data import imagenet
from asyncflax.engine.plan import Chunk, Plan
from asyncflax.errors import RunError
from asyncflax.train.config import TrainConfig

__all__ = ["ArrayFeed", "Feed", "RecordFeed", "make_feed"]

CHUNK_BYTES = 4e9  # limit on the images of a chunk; two chunks are in flight
_KEPT_BYTES = 1e9  # limit on decoded test images that are cached


class Feed(Protocol):
    """Interface of feeds.

    Attributes:
      image_shape: the (height, width, channels) of the network's input.
      num_classes: the number of classes.
      mean: float32 [height, width, channels] or [1, 1, channels], the mean of the training images, pixels 0..255.
      example: a PyTree of `jax.ShapeDtypeStruct`, the batch of one event, including the rows of all processes.
      test_example: the same for the batches of `test_batches`.
      look_up: a function from a batch to images, uint8 [B, height, width, channels], and labels, int32 [B]; a PyTree
        that holds the data set if it is in memory.
      look_up_test: the same for a batch of `test_batches`; label -1 marks padding.
      identity: a tuple; feeds of the same data set with equal tuples yield equal batches.
      of_process: whether `batches` and `test_batches` yield only the rows of this process.
      augments: whether the output of `look_up` still needs random crops and flips.
      ranks: whether evaluations include top-5 accuracy.

    Example: see the module.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: np.ndarray
    example: Any
    test_example: Any
    look_up: Callable[[Any], tuple[jax.Array, jax.Array]]
    look_up_test: Callable[[Any], tuple[jax.Array, jax.Array]]
    identity: tuple[Any, ...]
    of_process: bool
    augments: bool
    ranks: bool = False

    def batches(self, chunk: Chunk) -> Any:
        """PyTree [E, ...] of NumPy arrays: the batches of the events of a chunk."""
        ...

    def batch(self, ticket: int) -> Any:
        """PyTree of NumPy arrays: the batch of a ticket; thread-safe."""
        ...

    def test_batches(self) -> Iterator[Any]:
        """PyTrees [k, ...] of NumPy arrays: the test data, k batches at a time."""
        ...

    def share(self, count: int) -> None:
        """Divides the decoder processes among `count` concurrent feeds, from the next start on."""

    def close(self) -> None:
        """Stops the decoder processes; the next batch restarts them."""


def make_feed(config: TrainConfig, source: data.ImageData | imagenet.ImageRecords, plan: Plan) -> Feed:
    """Creates the feed of a training run.

    Args:
      config: the config, of which batch_size, eval_batch_size and seed are used, and for records image_size,
        crop_area, flip, on_corrupt and decode_processes.
      source: the data set.
      plan: the plan of the run, for the size of chunks and the placement of batches.

    Raises:
      ValueError: a batch is larger than the data set or cannot be divided over the devices, or the images of a chunk
        do not fit into memory.
      RunError: a record cannot be read (raised by the feed).
    """
    if isinstance(source, imagenet.ImageRecords):
        return RecordFeed(config, source, plan)
    return ArrayFeed(config, source, plan)


class ArrayFeed(Feed):
    """Feed of a data set on the device; a batch contains row indices, int32 [B].

    Args:
      config, source, plan: as in `make_feed`.
    """

    of_process, augments = False, True

    def __init__(self, config: TrainConfig, source: data.ImageData, plan: Plan):
        self._config, self._count = config, len(source.train_labels)
        _refuse_larger(config, self._count)
        self.image_shape, self.num_classes = source.train_images.shape[1:], source.num_classes
        self.mean = source.mean_image
        self.identity = (config.seed, config.batch_size, *_own_order(plan))
        self._num_test = len(source.test_labels)
        self._test_size = _test_size(config, self._num_test, plan)
        self.example = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
        self.test_example = jax.ShapeDtypeStruct((-(-self._num_test // self._test_size), self._test_size), jnp.int32)
        on_device = lambda *arrays: map(jnp.asarray, arrays)
        self.look_up = jax.tree_util.Partial(_take, *on_device(source.train_images, source.train_labels))
        self.look_up_test = jax.tree_util.Partial(_take, *on_device(source.test_images, source.test_labels))

    def batches(self, chunk: Chunk) -> np.ndarray:
        """int32 [E, B]: the rows of the data set in the batches of a chunk's events."""
        config = self._config
        return chunk.pad(data.batch_rows(self._count, config.batch_size, chunk.tickets, seed=config.seed))

    def batch(self, ticket: int) -> np.ndarray:
        """int32 [B]: the rows of a ticket."""
        config = self._config
        return data.batch_rows(self._count, config.batch_size, range(ticket, ticket + 1), seed=config.seed)[0]

    def test_batches(self) -> Iterator[np.ndarray]:
        """int32 [k, eval_batch_size], once: indices of all test images; -1 is padding."""
        rows = np.arange(np.prod(self.test_example.shape), dtype=np.int32).reshape(self.test_example.shape)
        yield np.where(rows < self._num_test, rows, -1)


class RecordFeed(Feed):
    """Feed of records decoded and cropped on the host; a batch is {'image': uint8 [B, s, s, 3], 'label': [B]}.

    With several processes, each reads its share of the rows of every batch.

    Args:
      config, source, plan: as in `make_feed`.
    """

    of_process, augments = True, False

    def __init__(self, config: TrainConfig, source: imagenet.ImageRecords, plan: Plan):
        from asyncflax.data.pipeline import event_batches

        size, rows = config.image_size, config.batch_size
        _refuse_larger(config, len(source.train))
        _refuse_unequal(config, plan)
        _refuse_too_large(config, plan)
        self._config, self._source, self._kept = config, source, None
        self.image_shape, self.num_classes = (size, size, 3), source.num_classes
        self.ranks = source.num_classes > 5
        self.mean = np.array(imagenet.MEAN_PIXEL, np.float32).reshape(1, 1, 3)
        self.identity = (config.seed, rows, size, config.crop_area, config.flip, config.on_corrupt, *_own_order(plan))
        self._test_size = _test_size(config, len(source.test), plan)
        self.example, self.test_example = (
            {
                "image": jax.ShapeDtypeStruct((*shape, size, size, 3), jnp.uint8),
                "label": jax.ShapeDtypeStruct(shape, jnp.int32),
            }
            for shape in ((rows,), (1, self._test_size))
        )
        self.look_up = self.look_up_test = jax.tree_util.Partial(_as_they_are)
        self._stream = event_batches(
            source.train,
            batch_size=rows,
            num_events=np.append(plan.tickets, np.arange(sum(config.extend)) + config.num_updates),
            image_size=size,
            seed=config.seed,
            area=(config.crop_area[0], config.crop_area[1]),
            flip=config.flip,
            on_corrupt=config.on_corrupt,
            decode_processes=config.decode_processes,
            shard=_shard(),
        )

    def batches(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """uint8 [E, b, size, size, 3], int32 [E, b]: images and labels of a chunk's events, rows of this process."""
        events = chunk.events
        self._stream.set_state({"next_batch": events.start})
        with _in_one_sentence():
            batch = self._stream.take(events.stop - events.start)
        for event, row in np.argwhere(batch["corrupt"] >= 0):
            number = int(batch["corrupt"][event, row])
            name = self._source.train[number].name
            _note(
                f"training record {number}, {name}, is corrupted; update {events.start + event + 1:,} uses another one"
            )
        del batch["corrupt"]
        return chunk.pad(batch)

    def batch(self, ticket: int) -> dict[str, np.ndarray]:
        """uint8 [B, size, size, 3] and int32 [B]: images and labels of a ticket, decoded in the calling thread."""
        with _in_one_sentence():
            batch = self._stream.make(ticket)
        for number in batch.pop("corrupt").tolist():
            if number >= 0:
                _note(f"training record {number}, {self._source.train[number].name}, is corrupted; another one is used")
        return batch

    def test_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Images and labels [1, b, ...], central crops; label -1 is padding. Small test sets are cached."""
        if self._kept is not None:
            yield from self._kept
            return
        kept = [] if len(self._source.test) * np.prod(self.image_shape) < _KEPT_BYTES else None
        count = 0
        for batch in self._decoded():
            count += int((batch["label"] >= 0).sum())
            if kept is not None:  # copies, since decoder processes use shared memory
                kept.append({name: np.array(array) for name, array in batch.items()})
            yield batch
        if self._config.on_corrupt == "skip" and not multihost_utils.process_allgather(np.array(count)).any():
            raise RunError(
                f"none of the {len(self._source.test)} test images can be decoded; prepare the data set again from "
                "intact files."
            )
        self._kept = kept

    def _decoded(self) -> Iterator[dict[str, np.ndarray]]:
        from asyncflax.data.pipeline import evaluation_batches

        config, records = self._config, self._source.test
        made = evaluation_batches(
            records,
            batch_size=self._test_size,
            image_size=config.image_size,
            on_corrupt=config.on_corrupt,
            decode_processes=config.decode_processes,
            shard=_shard(),
        )
        with made, _in_one_sentence():
            for batch in made:
                for number in batch["corrupt"][batch["corrupt"] >= 0].tolist():
                    _note(f"test record {number}, {records[number].name}, is corrupted and ignored")
                yield {name: batch[name][None] for name in ("image", "label")}

    def share(self, count: int) -> None:
        """Divides `decode_processes` among `count` concurrent feeds, from the next start on."""
        workers = self._config.decode_processes
        self._stream.decode_processes = min(workers, max(1, workers // count))

    def close(self) -> None:
        """Stops the decoder processes; the next batch restarts them."""
        self._stream.close()


@contextlib.contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Converts errors of corrupted records and dead decoder processes to a `RunError`."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{error} Checkpoints are kept; rerun the same command to resume.") from error


def _note(text: str) -> None:
    """Prints a line above the progress bar, on stderr since every process reports its own records."""
    tqdm.write(f"note: {text}", file=sys.stderr)


def _take(images: jax.Array, labels: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images and labels of the given rows; negative indices are padding."""
    return images[jnp.maximum(rows, 0)], jnp.where(rows < 0, -1, labels[jnp.maximum(rows, 0)])


def _as_they_are(batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return batch["image"], batch["label"]


def _own_order(plan: Plan) -> tuple[bytes, ...]:
    """The tickets of a plan if they differ from the event indices."""
    tickets = plan.tickets
    return () if np.array_equal(tickets, plan.events) else (tickets.tobytes(),)


def _refuse_larger(config: TrainConfig, count: int) -> None:
    if config.batch_size > count:
        raise ValueError(f"config.batch_size={config.batch_size} is larger than the {count} training images.")


def _refuse_unequal(config: TrainConfig, plan: Plan) -> None:
    """Raises unless all processes decode equally many rows, for contiguous groups of devices."""
    placement = plan.placement
    if config.batch_size % placement.devices:
        raise ValueError(
            f"config.batch_size={config.batch_size} must be a multiple of the {placement.devices} devices that share "
            "the images."
        )
    if placement.mesh is not None:
        owners = [device.process_index for device in placement.mesh.devices.flat]
        if owners != sorted(owners) or len({owners.count(owner) for owner in owners}) > 1:
            raise ValueError(
                f"config.mesh={config.mesh!r} has devices of the processes {owners}; data sets of JPEGs need equally "
                "many devices of each process, in the order of the processes."
            )


def _refuse_too_large(config: TrainConfig, plan: Plan) -> None:
    """Raises unless the images of two chunks fit into memory."""
    size, events = config.image_size, plan.chunks.worker.shape[-1]
    each = config.batch_size * size * size * 3 // jax.process_count()
    if events * each > CHUNK_BYTES:
        fitting = int(CHUNK_BYTES // each)
        advice = f"config.log_every to {fitting} or less" if fitting else "a smaller config.batch_size"
        raise ValueError(
            f"a chunk of {events} updates of {config.batch_size} images of {size}x{size} takes "
            f"{events * each / 1e9:.1f} GB, and two chunks are in memory at once; set {advice}."
        )


def _test_size(config: TrainConfig, count: int, plan: Plan) -> int:
    """Size of evaluation batches, divisible by the number of devices."""
    devices = plan.placement.devices
    return -(-min(config.eval_batch_size, count) // devices) * devices


def _shard() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()
