"""Records of ImageNet, made up in the layout of TensorFlow Datasets; a real sample where TFDS_DATA_DIR has it."""

import concurrent.futures
import io
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from photographs import TFDS_DATA_DIR, jpeg, needs_sample

from asyncflax._files import read_arrays, write_arrays
from asyncflax.data import imagenet
from asyncflax.data.imagenet import Record

NUM_LABELS = 7
NUM_RECORDS = {"train": 31, "validation": 11}


def made(split):
    """Name -> record, as it was written."""
    labels = [i % NUM_LABELS for i in range(NUM_RECORDS[split])]
    records = [Record(jpeg(i), label, f"{split}_{i}.JPEG") for i, label in enumerate(labels)]
    return {record.name: record for record in records}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with imagenet2012/5.1.0 as its builder would write it, in two files a split, with made-up pictures."""
    folder = tmp_path_factory.mktemp("tfds")
    original = tfds.builder("imagenet2012", data_dir=str(folder))
    with tfds.core.registered.skip_registration():

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = original.version

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=original.info.features)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in NUM_RECORDS}

            def _generate_examples(self, split):
                for name, record in made(split).items():
                    yield name, {"image": io.BytesIO(record.jpeg), "label": record.label, "file_name": name}

    config = tfds.download.DownloadConfig(num_shards=2)
    Imagenet2012(data_dir=str(folder), file_format="array_record").download_and_prepare(download_config=config)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "asyncflax"


def test_all_records_are_read_as_they_were_written(prepared, cache):
    found = imagenet.imagenet2012(prepared)
    assert found.num_classes == 1000 and found.class_names[:2] == ("n01440764", "n01443537")
    assert (prepared / "imagenet2012" / "5.1.0" / "imagenet2012-train.array_record-00001-of-00002").is_file()
    for split, records in {"train": found.train, "validation": found.test}.items():
        assert len(records) == NUM_RECORDS[split]
        assert {records[i].name: records[i] for i in range(len(records))} == made(split)
        with pytest.raises(IndexError, match="is out of range for"):
            records[len(records)]
    assert not cache.exists()  # nobody had to know all labels


def test_records_are_read_by_other_processes_and_by_threads(prepared):
    records = imagenet.imagenet2012(prepared, classes=[3, 1]).train
    expected = [records[i] for i in range(len(records))]
    content = pickle.dumps(records)
    assert len(content) < 50_000
    again = pickle.loads(content)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(again.__getitem__, range(len(records)))) == expected


def test_a_subset_of_the_classes_is_renumbered(prepared, cache, monkeypatch):
    classes = [5, 0, 6]
    found = imagenet.imagenet2012(prepared, classes=classes)
    everything = imagenet.imagenet2012(prepared)
    assert found.num_classes == 3 and found.class_names == tuple(everything.class_names[c] for c in classes)
    for part, whole in ((found.train, everything.train), (found.test, everything.test)):
        wanted = [whole[i] for i in range(len(whole)) if whole[i].label in classes]
        assert [part[i] for i in range(len(part))] == [r._replace(label=classes.index(r.label)) for r in wanted]
    assert sorted(path.name for path in cache.iterdir()) == [
        "imagenet2012-5.1.0-train-labels.npz",
        "imagenet2012-5.1.0-validation-labels.npz",
    ]
    monkeypatch.setattr(imagenet, "_scan", None)  # calling it would fail
    assert len(imagenet.imagenet2012(prepared, classes=classes).train) == len(found.train)
    assert len(imagenet.imagenet2012(prepared, classes=range(2)).train) == 10


def test_kept_labels_that_are_wrong_are_read_again(prepared, cache, capsys):
    wanted = list(imagenet.imagenet2012(prepared, classes=[4]).train)
    path = cache / "imagenet2012-5.1.0-train-labels.npz"
    labels = read_arrays(path, kind=(kind := f"{path.name} of 31 records, format 1"))["labels"]
    other = lambda kind, labels: write_arrays(path, {"labels": labels}, kind=kind)
    for spoil in (
        lambda: path.write_bytes(path.read_bytes()[:-3]),
        lambda: path.write_bytes(b"no array"),
        lambda: path.write_bytes(b""),
        lambda: np.savez(path, labels=labels),
        lambda: other(f"{path.name} of 30 records, format 1", labels[1:]),
    ):
        spoil()
        assert list(imagenet.imagenet2012(prepared, classes=[4]).train) == wanted
        assert "train-labels.npz is corrupted or not a cache of these labels" in capsys.readouterr().out
    other(kind, (labels + 1) % NUM_LABELS)  # of other records, as many
    records = imagenet.imagenet2012(prepared, classes=[4]).train
    with pytest.raises(ValueError, match=r"has label 3, not one of \[4\]: .*train-labels\.npz .*delete it"):
        records[0]


@pytest.mark.parametrize(
    "classes, message",
    [
        ([1, 2, 1], r"classes must be distinct, got \[1, 2, 1\]"),
        ([1000], "each of classes must be at most 999"),
        ([-1], "each of classes must be an integer >= 0"),
    ],
)
def test_bad_classes_are_one_clear_error(prepared, classes, message):
    with pytest.raises(ValueError, match=message):
        imagenet.imagenet2012(prepared, classes=classes)


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet_eight"])
def test_a_missing_data_set_is_explained(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        getattr(imagenet, name)()
    assert f"(no {tmp_path}/{name}/" in str(error.value) and "set TFDS_DATA_DIR" in str(error.value)


def test_a_data_set_that_is_not_all_there_is_explained(prepared, tmp_path):
    there = tmp_path / "imagenet2012" / "5.1.0"
    shutil.copytree(prepared / "imagenet2012" / "5.1.0", there)
    info = there / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match=f"(?s)such as TFRecord. Convert .*\n  tfds convert_format .*{there} "):
        imagenet.imagenet2012(tmp_path)
    info.write_text(text.replace('"name": "validation"', '"name": "test"'))
    with pytest.raises(ValueError, match=r"has no split 'validation', only \['test', 'train'\]"):
        imagenet.imagenet2012(tmp_path)


@needs_sample
def test_the_sample_of_imagenet():
    found = imagenet.imagenet_eight(TFDS_DATA_DIR)
    assert (len(found.train), len(found.test), found.num_classes) == (3200, 800, 8)
    record = found.train[0]
    assert record.jpeg[:3] == b"\xff\xd8\xff" and record.name.endswith(".JPEG")
    pair = imagenet.imagenet_eight(TFDS_DATA_DIR, classes=[7, 2])
    labels = [pair.train[i].label for i in range(len(pair.train))]
    np.testing.assert_array_equal(np.bincount(labels), [400, 400])
    assert pair.class_names == ("n03425413", "n02979186") and len(pair.test) == 200
