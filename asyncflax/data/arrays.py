"""Image data sets as arrays.

CIFAR-10 and CIFAR-100 are read through TensorFlow Datasets (`tfds.data_source`, without TensorFlow) and decoded once
into a cache file of uint8 arrays, which also works on machines without TensorFlow Datasets. The handwritten digits are
bundled with scikit-learn (extra `train`).
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check, _memory
from asyncflax._files import cache_folder, cached, data_folder
from asyncflax.data.imagenet import open_split

__all__ = ["ImageData", "augment", "cifar10", "cifar100", "digits"]

_CIFAR_VERSION = "3.0.2"  # of TensorFlow Datasets


class ImageData(NamedTuple):
    """A data set in memory.

    Attributes:
      train_images: uint8 [n, height, width, channels].
      train_labels: int32 [n].
      test_images: uint8 [m, height, width, channels].
      test_labels: int32 [m].

    Example:
      >>> import asyncflax
      >>> data = asyncflax.data.digits()
      >>> data.train_images.shape, data.test_images.shape, data.num_classes
      ((1437, 8, 8, 1), (360, 8, 8, 1), 10)
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return int(self.train_labels.max()) + 1

    @property
    def mean_image(self) -> np.ndarray:
        """float32 [height, width, channels]: the mean of the training images, pixels 0..255."""
        return self.train_images.mean(axis=0, dtype=np.float64).astype(np.float32)

    def pooled(self, size: int) -> ImageData:
        """Downsamples the images by averaging blocks of `size` x `size` pixels."""
        return self._replace(train_images=_pooled(self.train_images, size), test_images=_pooled(self.test_images, size))


def digits(num_test: int = 360) -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels scaled to 0..255; no download.

    Args:
      num_test: the size of the test split, a fixed random sample.

    Source: the test set of E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.

    Example: see `ImageData`.
    """
    from sklearn.datasets import load_digits

    num_test = _check.integer("num_test", num_test, 1, 1796)
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:num_test], order[num_test:]
    labels = labels.astype(np.int32)
    return ImageData(images[train], labels[train], images[test], labels[test])


def cifar10(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    download: bool = False,
    pool: int = 1,
) -> ImageData:
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32x3, 10 classes.

    The first call decodes the records, which takes a while; later ones read the cache.

    Args:
      data_dir: the folder of TensorFlow Datasets with cifar10/3.0.2; default $TFDS_DATA_DIR, then
        ~/tensorflow_datasets.
      cache: the file of decoded arrays; default cifar10-3.0.2.npz in $XDG_CACHE_HOME/asyncflax (~/.cache/asyncflax).
        If it exists, nothing else is needed.
      download: let TensorFlow Datasets download and prepare a missing data set (170 MB).
      pool: the side of the averaged blocks of pixels: 4 gives images of 8x8.

    Raises:
      FileNotFoundError: neither the cache nor the data set exists; the message says how to download it.
      ValueError: `cache` is corrupted or not a cache of this data set.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009.

    Example:
      >>> import asyncflax
      >>> asyncflax.data.cifar10("nowhere", cache="nothing.npz")
      Traceback (most recent call last):
        ...
      FileNotFoundError: CIFAR-10 is not in nowhere (no nowhere/cifar10/3.0.2). Download it there with
        python -c "from asyncflax import data; data.cifar10('nowhere', download=True)"
      or set TFDS_DATA_DIR to its folder, or use the bundled data set 'digits'.
    """
    return _cifar("cifar10", 10, data_dir, cache, download, pool)


def cifar100(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    download: bool = False,
    pool: int = 1,
) -> ImageData:
    """CIFAR-100: 50,000 training and 10,000 test images, 32x32x3, 100 classes (the fine labels).

    Tested with synthetic records, not with the data set itself.

    Args:
      data_dir, cache, download, pool: as in `cifar10`.

    Source: as in `cifar10`.

    Example: see `cifar10`.
    """
    return _cifar("cifar100", 100, data_dir, cache, download, pool)


def augment(key: jax.Array, images: jax.Array, *, pad: int = 4, flip: bool = True) -> jax.Array:
    """Randomly crops zero-padded images and mirrors half of them; jittable.

    Args:
      key: a typed JAX key.
      images: float [n, height, width, channels], with the mean subtracted (the padding is 0).
      pad: padding in pixels on each side; 0 disables cropping.
      flip: whether to mirror.

    Source: the usual augmentation of CIFAR-10 since He et al. 2016 (arXiv:1512.03385).

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> asyncflax.data.augment(jax.random.key(0), jnp.ones((2, 32, 32, 3))).shape
      (2, 32, 32, 3)
    """
    _check.key("key", key)
    if not isinstance(images, jax.Array | np.ndarray) or images.ndim != 4 or not jnp.isrealobj(images):
        raise TypeError(f"images must be an array [n, height, width, channels], got {_check.shown(images)}.")
    pad, flip = _check.integer("pad", pad, 0), _check.boolean("flip", flip)
    count, height, width, channels = images.shape
    size = count * (height + 2 * pad) * (width + 2 * pad) * channels * images.dtype.itemsize
    _memory.need("pad", pad, size, "the padded images", there_are=_memory.on_devices())
    crop_key, flip_key = jax.random.split(key)
    if pad > 0:
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        corners = jax.random.randint(crop_key, (len(images), 2), 0, 2 * pad + 1)
        crop = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])
        images = jax.vmap(crop)(padded, corners)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images


def _cifar(
    name: str,
    num_classes: int,
    data_dir: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str] | None,
    download: bool,
    pool: int,
) -> ImageData:
    """Loads a data set from its cache, or decodes it into the cache."""
    if 32 % _check.integer("pool", pool, 1, 32):
        raise ValueError(f"pool must divide the image side of 32 pixels, got {pool}.")
    title, folder = f"CIFAR-{num_classes}", data_folder(data_dir)

    def decoded():
        there = folder / name / _CIFAR_VERSION
        if not download and not there.is_dir():
            raise FileNotFoundError(
                f"{title} is not in {folder} (no {there}). Download it there with\n"
                f"  python -c \"from asyncflax import data; data.{name}('{folder}', download=True)\"\n"
                "or set TFDS_DATA_DIR to its folder, or use the bundled data set 'digits'."
            )
        full_name = f"{name}:{_CIFAR_VERSION}"
        return ImageData(*_decode(full_name, "train", folder, download), *_decode(full_name, "test", folder))._asdict()

    file = cache_folder() / f"{name}-{_CIFAR_VERSION}.npz" if cache is None else pathlib.Path(cache)
    replace = cache is None  # a file that the user named may be anything and is never renamed
    kind = f"{name} {_CIFAR_VERSION}, decoded, format 1"
    return ImageData(**cached(file, decoded, kind=kind, what=title, replace=replace)).pooled(pool)


def _pooled(images: np.ndarray, size: int) -> np.ndarray:
    if size == 1:
        return images
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // size, size, width // size, size, channels)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)


def _decode(name: str, split: str, folder: pathlib.Path, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    # A prepared data set already has one or more formats.
    is_prepared = (folder / name.replace(":", "/") / "dataset_info.json").is_file()
    new: dict[str, Any] = {} if is_prepared else {"file_format": "array_record"}
    builder: Any = tfds.builder(name, data_dir=os.fspath(folder), **new)
    if download:
        builder.download_and_prepare()
    source = open_split(builder, split)
    shape = builder.info.features["image"].shape
    images, labels = np.empty((len(source), *shape), np.uint8), np.empty(len(source), np.int32)
    for i in tqdm(range(len(source)), desc=f"decoding {name} {split}", unit="images", leave=False):
        example = source[i]
        images[i], labels[i] = example["image"], example["label"]
    return images, labels
