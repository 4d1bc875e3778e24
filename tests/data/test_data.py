"""Data sets, their cache, batches and augmentation; CIFAR-10 from real records where TFDS_DATA_DIR has them."""

import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflax import data
from asyncflax._files import write_arrays
from asyncflax.data import arrays

TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR")
has_cifar10 = TFDS_DATA_DIR is not None and (pathlib.Path(TFDS_DATA_DIR) / "cifar10" / "3.0.2").is_dir()
needs_cifar10 = pytest.mark.skipif(not has_cifar10, reason="TFDS_DATA_DIR has no cifar10/3.0.2")


def test_digits_are_all_there():
    digits = data.digits()
    assert len(digits.train_images) + len(digits.test_images) == 1797
    assert digits.train_images.dtype == np.uint8 and digits.train_images.max() == 255
    assert digits.num_classes == 10 and digits.train_labels.dtype == np.int32
    np.testing.assert_allclose(digits.mean_image, digits.train_images.mean(axis=0), rtol=1e-6)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 30), st.integers(0, 30), st.integers(0, 3))
def test_batches_belong_to_their_events(num_examples, batch_size, start, length, seed):
    batch_size = min(batch_size, num_examples)
    whole = data.batch_rows(num_examples, batch_size, range(start + length), seed=seed)
    part = data.batch_rows(num_examples, batch_size, range(start, start + length), seed=seed)
    assert part.shape == (length, batch_size) and part.dtype == np.int32
    np.testing.assert_array_equal(part, whole[start:])
    epochs = whole.ravel()[: whole.size // num_examples * num_examples].reshape(-1, num_examples)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(num_examples), (len(epochs), 1)))


def test_every_epoch_of_every_seed_has_an_order_of_its_own():
    epochs = [data.batch_rows(100, 10, range(30), seed=seed).reshape(3, 100) for seed in (0, 1)]
    orders = {tuple(order.tolist()) for order in np.concatenate(epochs)}
    assert len(orders) == 6


def test_augmentation_crops_and_mirrors():
    """Each image is a shifted, perhaps mirrored copy with zeros where it was moved out."""
    image = jnp.arange(1.0, 37.0).reshape(6, 6, 1)
    images = jnp.broadcast_to(image, (200, 6, 6, 1))
    out = np.asarray(data.augment(jax.random.key(0), images, pad=1))
    padded = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)))
    crops = [padded[i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    candidates = crops + [crop[:, ::-1] for crop in crops]
    seen = set()
    for result in out:
        matches = [k for k, candidate in enumerate(candidates) if np.array_equal(candidate, result)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 18
    same = data.augment(jax.random.key(0), images, pad=0, flip=False)
    np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: data.batch_rows(10, 11, range(3)), "batch_size=11 is larger than the 10 examples"),
        (lambda: data.batch_rows(10, 0, range(3)), "batch_size must be an integer >= 1"),
        (lambda: data.batch_rows(10, 4, slice(3, None)), "events must have an end"),
        (lambda: data.batch_rows(10, 4, range(-1, 3)), "events.start must be an integer >= 0"),
        (lambda: data.batch_rows(10, 4, [3, -1]), "events must be an integer >= 0"),
        (lambda: data.batch_rows(10, 4, range(3), seed=-1), "seed must be an integer >= 0"),
        (lambda: data.digits(1797), "num_test must be at most 1796"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_data_set_is_explained(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        getattr(data, name)(cache=tmp_path / "cache.npz")
    for part in (str(tmp_path), f"{name}/3.0.2", f"data.{name}(", "download=True", "TFDS_DATA_DIR", "digits"):
        assert part in str(error.value)
    assert not (tmp_path / "cache.npz").exists()


def tiny_data():
    rng = np.random.default_rng(0)
    image = lambda n: rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return data.ImageData(image(5), np.arange(5, dtype=np.int32), image(2), np.arange(2, dtype=np.int32))


def test_a_cache_is_enough_and_a_corrupted_one_is_refused(tmp_path, monkeypatch):
    path, whole = tmp_path / "cache.npz", tmp_path / "whole.npz"
    write_arrays(whole, tiny_data()._asdict(), kind="cifar10 3.0.2, decoded, format 1")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # importing it would fail
    for name, array in data.cifar10(tmp_path / "nowhere", cache=whole)._asdict().items():
        np.testing.assert_array_equal(array, getattr(tiny_data(), name))
    with pytest.raises(ValueError, match=r"not a cache of CIFAR-100 \(it holds 'cifar10 .*\); delete it or pass"):
        data.cifar100(cache=whole)
    content = whole.read_bytes()
    for spoil in (
        lambda: path.write_bytes(content[:1000]),
        lambda: np.savez(path, **tiny_data()._asdict()),  # somebody's own
        lambda: path.write_bytes(b"\x93NUMPY"),
        lambda: path.write_bytes(b""),
        *(
            lambda at=at: path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            for at in (5, 9000)
        ),
    ):
        spoil()
        before = path.read_bytes()
        with pytest.raises(
            ValueError, match=r"cache\.npz is corrupted or not a cache of CIFAR-10 .*; delete it or pass"
        ):
            data.cifar10(cache=path)
        assert path.read_bytes() == before


def test_pooled_images_are_means_of_blocks(tmp_path):
    write_arrays(tmp_path / "cache.npz", tiny_data()._asdict(), kind="cifar10 3.0.2, decoded, format 1")
    small, whole = data.cifar10(cache=tmp_path / "cache.npz", pool=4), tiny_data()
    assert small.test_images.shape == (2, 8, 8, 3) and small.test_images.dtype == np.uint8
    block = whole.train_images[3, 4:8, 28:32, 1]
    assert abs(float(small.train_images[3, 1, 7, 1]) - block.mean()) <= 0.5
    np.testing.assert_array_equal(small.train_labels, whole.train_labels)
    with pytest.raises(ValueError, match="pool must divide the image side of 32 pixels, got 5"):
        data.cifar10(cache=tmp_path / "cache.npz", pool=5)


def test_a_corrupted_cache_of_ours_is_set_aside_and_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tfds" / "cifar10" / "3.0.2").mkdir(parents=True)
    splits = iter(2 * [tiny_data()[:2], tiny_data()[2:]])
    monkeypatch.setattr(arrays, "_decode", lambda *_: next(splits))
    first = data.cifar10(tmp_path / "tfds")
    path = tmp_path / "asyncflax" / "cifar10-3.0.2.npz"
    path.write_bytes(path.read_bytes()[:-1])
    again = data.cifar10(tmp_path / "tfds")
    assert "is corrupted" in capsys.readouterr().out and path.with_name(f"{path.name}.corrupted").exists()
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    data.cifar10(tmp_path / "nowhere")  # the new one is enough


def test_cifar100_from_made_up_records(tmp_path, monkeypatch):
    """The builder is that of TensorFlow Datasets, the records are not; then the cache is enough."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    made = lambda n: [
        {
            "image": rng.integers(0, 256, (32, 32, 3), dtype=np.uint8),
            "label": 99 - i,
            "coarse_label": i % 20,
            "id": b"made up",
        }
        for i in range(n)
    ]
    records = {"train": made(7), "test": made(3)}
    asked = []

    def as_data_source(builder, split):
        features = builder.info.features
        assert set(records[split][0]) == set(features) and features["label"].num_classes == 100
        asked.append((builder.info.full_name, builder.data_path.parts[-3:], split))
        return records[split]

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", as_data_source)
    folder, cache = tmp_path / "tfds", tmp_path / "cache.npz"
    (folder / "cifar100" / "3.0.2").mkdir(parents=True)
    first = data.cifar100(folder, cache=cache)
    assert asked == [("cifar100/3.0.2", ("tfds", "cifar100", "3.0.2"), split) for split in ("train", "test")]
    assert first.train_images.dtype == np.uint8 and first.train_images.shape == (7, 32, 32, 3)
    np.testing.assert_array_equal(first.train_images[2], records["train"][2]["image"])
    np.testing.assert_array_equal(first.test_labels, [99, 98, 97])
    assert first.num_classes == 100
    with pytest.raises(ValueError, match=r"not a cache of CIFAR-10 \(it holds 'cifar100 "):
        data.cifar10(cache=cache)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # importing it would fail
    for one, same in zip(data.cifar100("nowhere", cache=cache), first, strict=True):
        np.testing.assert_array_equal(one, same)


@needs_cifar10
def test_a_data_set_of_tfrecords_is_told_how_to_be_converted(tmp_path):
    there = tmp_path / "cifar10" / "3.0.2"
    there.mkdir(parents=True)
    for path in pathlib.Path(TFDS_DATA_DIR, "cifar10", "3.0.2").glob("*.json"):
        (there / path.name).write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match=f"(?s)such as TFRecord. .*\n  tfds convert_format .*={there} --out"):
        data.cifar10(tmp_path, cache=tmp_path / "cache.npz")
    assert not (tmp_path / "cache.npz").exists()


@pytest.mark.slow
@needs_cifar10
def test_cifar10_from_records(tmp_path):
    """Decoded once, then read from the cache; the published mean and the balance of the classes."""
    cache = tmp_path / "cifar10.npz"
    first = data.cifar10(TFDS_DATA_DIR, cache=cache)
    start = time.perf_counter()
    again = data.cifar10(cache=cache)
    print(f"read from the cache in {time.perf_counter() - start:.2f} s")
    for name in first._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.train_images.shape == (50_000, 32, 32, 3) and first.test_images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(first.train_labels), np.full(10, 5000))
    np.testing.assert_array_equal(np.bincount(first.test_labels), np.full(10, 1000))
    np.testing.assert_allclose(first.mean_image.mean(axis=(0, 1)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)


@needs_cifar10
def test_what_is_there_is_not_downloaded_again(tmp_path):
    """The downloading path finds the prepared data set and reads it."""
    images, labels = arrays._decode("cifar10:3.0.2", "test[:20]", pathlib.Path(TFDS_DATA_DIR), download=True)
    assert images.shape == (20, 32, 32, 3) and labels.shape == (20,)
