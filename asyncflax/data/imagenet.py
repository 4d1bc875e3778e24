"""ImageNet and a sample of it as records: encoded images that are read on demand.

ImageNet's training images take some 700 GB decoded, so nothing is decoded or held in memory here; `data.pipeline`
builds batches of records. TensorFlow Datasets reads the format array_record without TensorFlow (extra `train`).
"""

from __future__ import annotations

import os
import pathlib
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax._files import cache_folder, cached, data_folder

__all__ = ["MEAN_PIXEL", "ImageRecords", "Record", "Records", "imagenet2012", "imagenet_eight"]

MEAN_PIXEL = (123.675, 116.28, 103.53)
"""The mean red, green and blue of ImageNet's training images, pixels 0..255, usually given as (0.485, 0.456, 0.406)."""

_SCANNED_TOGETHER = 256  # records; array_record reads them in its own threads


class Record(NamedTuple):
    """An encoded image.

    Attributes:
      jpeg: the bytes of the file.
      label: the class, counted from 0.
      name: the name of the file, for messages.
    """

    jpeg: bytes
    label: int
    name: str


class Records:
    """One split of a data set: `len(records)`, and `records[i]`, the `Record` at i; see `imagenet2012`.

    Thread-safe and small when pickled; every process opens the files itself.

    Args:
      source: a data source of TensorFlow Datasets with the features 'image' (encoded), 'label' and 'file_name'.
      classes: the labels to keep, renumbered 0, 1, ...; empty keeps all labels unchanged.
      labels: a cache file for the labels of all records, created if `classes` are given.

    Example:
      >>> from asyncflax.data.imagenet import Record, Records
      >>> source = [{"image": b"...", "label": i % 4, "file_name": b"%d.JPEG" % i} for i in range(12)]
      >>> records = Records(source)
      >>> len(records), records[5]
      (12, Record(jpeg=b'...', label=1, name='5.JPEG'))
    """

    def __init__(self, source: Sequence[Any], classes: Sequence[int] = (), labels: pathlib.Path | None = None):
        self._source, self._rows, self._labels = source, None, labels
        self._renumbered = {label: number for number, label in enumerate(classes)}
        if classes:
            self._rows = np.flatnonzero(np.isin(_all_labels(source, labels), classes)).astype(np.int32)

    def __len__(self) -> int:
        return len(self._source if self._rows is None else self._rows)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`, in 0..len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} is out of range for {len(self)} records.")
        example = self._source[index if self._rows is None else int(self._rows[index])]
        label, name = int(example["label"]), example["file_name"].decode()
        if self._renumbered:
            if label not in self._renumbered:
                raise ValueError(
                    f"record {index} ({name}) has label {label}, not one of {list(self._renumbered)}: "
                    f"{self._labels} holds the labels of other records; delete it to recreate it."
                )
            label = self._renumbered[label]
        return Record(example["image"], label, name)


class ImageRecords(NamedTuple):
    """A data set of records.

    Attributes:
      train: the training split.
      test: the test split, ImageNet's validation split.
      class_names: the names of the labels 0, 1, ...
    """

    train: Records
    test: Records
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def imagenet2012(data_dir: str | os.PathLike[str] | None = None, *, classes: Iterable[int] = ()) -> ImageRecords:
    """ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs of many sizes, 1,000 classes.

    It requires registration at image-net.org and has to be prepared once, which temporarily takes 300 GB of disk; the
    error for a missing data set has the steps. Tested with synthetic records, not with ImageNet itself.

    Args:
      data_dir: the folder of TensorFlow Datasets with imagenet2012/5.1.0; default $TFDS_DATA_DIR, then
        ~/tensorflow_datasets.
      classes: the labels to keep, renumbered 0, 1, ... in this order; default all. range(8) are the eight classes of
        Mitliagkas et al. 2016 (arXiv:1605.09774v1), Figure 3. The first call reads the labels of all records and caches
        them in $XDG_CACHE_HOME/asyncflax (~/.cache/asyncflax).

    Raises:
      FileNotFoundError: the data set does not exist; the message says how to get it.
      ValueError: the data set lacks a split or has another format, or the label cache belongs to other records.

    Source: O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115(3), 2015
      (arXiv:1409.0575).

    Example:
      >>> from asyncflax.data import imagenet
      >>> imagenet.imagenet2012("nowhere")
      Traceback (most recent call last):
        ...
      FileNotFoundError: ImageNet is not in nowhere (no nowhere/imagenet2012/5.1.0). To get it:
        1. Sign in at https://image-net.org/download-images and fetch ILSVRC2012_img_train.tar (138 GB) and
           ILSVRC2012_img_val.tar (6 GB) into nowhere/downloads/manual
        2. pip install tensorflow apache-beam mlcroissant   # to prepare it, not to read it
        3. tfds build imagenet2012 --data_dir=nowhere --file_format=array_record
      or set TFDS_DATA_DIR to its folder.
    """
    folder = data_folder(data_dir)
    return _read(
        folder / "imagenet2012" / "5.1.0",
        classes,
        f"ImageNet is not in {folder} (no {folder}/imagenet2012/5.1.0). To get it:\n"
        "  1. Sign in at https://image-net.org/download-images and fetch ILSVRC2012_img_train.tar (138 GB) and\n"
        f"     ILSVRC2012_img_val.tar (6 GB) into {folder}/downloads/manual\n"
        "  2. pip install tensorflow apache-beam mlcroissant   # to prepare it, not to read it\n"
        f"  3. tfds build imagenet2012 --data_dir={folder} --file_format=array_record\n"
        "or set TFDS_DATA_DIR to its folder.",
    )


def imagenet_eight(data_dir: str | os.PathLike[str] | None = None, *, classes: Iterable[int] = ()) -> ImageRecords:
    """A sample of ImageNet: 3,200 training and 800 validation photographs of 224x224 pixels, 8 classes.

    The classes are eight of the ten of Imagenette, not the first eight of ImageNet.

    Args:
      data_dir, classes: as in `imagenet2012`.

    Source: J. Howard, Imagenette, https://github.com/fastai/imagenette.

    Example:
      >>> from asyncflax.data import imagenet
      >>> imagenet.imagenet_eight("nowhere")
      Traceback (most recent call last):
        ...
      FileNotFoundError: imagenet_eight is not in nowhere (no nowhere/imagenet_eight/1.0.0). TensorFlow
      Datasets can read it but not build it: copy it there, or set TFDS_DATA_DIR to its folder.
    """
    folder = data_folder(data_dir)
    return _read(
        folder / "imagenet_eight" / "1.0.0",
        classes,
        f"imagenet_eight is not in {folder} (no {folder}/imagenet_eight/1.0.0). TensorFlow\n"
        "Datasets can read it but not build it: copy it there, or set TFDS_DATA_DIR to its folder.",
    )


def _read(there: pathlib.Path, classes: Iterable[int], missing: str) -> ImageRecords:
    """Reads a data set from a folder NAME/VERSION of TensorFlow Datasets."""
    if not (there / "dataset_info.json").is_file():
        raise FileNotFoundError(missing)
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(there)
    names = tuple(builder.info.features["label"].names)
    classes = [_check.integer("each of classes", label, 0, len(names) - 1) for label in classes]
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes must be distinct, got {classes}.")
    train, test = (_read_split(builder, split, classes) for split in ("train", "validation"))
    return ImageRecords(train, test, tuple(names[label] for label in classes) or names)


def _read_split(builder: Any, split: str, classes: Sequence[int]) -> Records:
    import tensorflow_datasets as tfds

    info = builder.info
    if split not in info.splits:
        raise ValueError(f"{builder.data_path} has no split {split!r}, only {sorted(info.splits)}; prepare it again.")
    source = open_split(builder, split, decoders={"image": tfds.decode.SkipDecoding()})
    return Records(source, classes, cache_folder() / f"{info.name}-{info.version}-{split}-labels.npz")


def open_split(builder: Any, split: str, **options: Any) -> Any:
    """Opens a split of a TensorFlow Datasets builder as a data source."""
    try:
        return builder.as_data_source(split=split, **options)
    except NotImplementedError as error:  # a sequential format
        folder = builder.data_path
        raise ValueError(
            f"{folder} is in a format without random access, such as TFRecord. Convert it once with\n"
            "  pip install tensorflow apache-beam mlcroissant   # to convert it, not to read it\n"
            f"  tfds convert_format --dataset_version_dir={shlex.quote(str(folder))} --out_file_format=array_record"
        ) from error


def _all_labels(source: Sequence[Any], path: pathlib.Path | None) -> np.ndarray:
    """int32 [len(source)]: the labels, read from the records once and then from the cache file."""
    if path is None:
        return _scan(source)
    kind = f"{path.name} of {len(source)} records, format 1"
    return cached(path, lambda: {"labels": _scan(source)}, kind=kind, what="these labels")["labels"]


def _scan(source: Sequence[Any]) -> np.ndarray:
    from tqdm import tqdm

    labels = np.empty(len(source), np.int32)
    read = getattr(source, "__getitems__", lambda rows: [source[row] for row in rows])
    with tqdm(total=len(source), desc="reading the labels of all records", unit="records", leave=False) as progress:
        for start in range(0, len(source), _SCANNED_TOGETHER):
            rows = list(range(start, min(start + _SCANNED_TOGETHER, len(source))))
            labels[rows] = [example["label"] for example in read(rows)]
            progress.update(len(rows))
    return labels
