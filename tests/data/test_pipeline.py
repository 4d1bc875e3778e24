"""Batches of made-up photographs; of real ones where TFDS_DATA_DIR has them. Worker processes take seconds to start."""

import io
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from photographs import TFDS_DATA_DIR, jpeg, needs_sample, records
from PIL import Image

from asyncflax import data
from asyncflax.data import imagenet, pipeline
from asyncflax.data.crops import _box
from asyncflax.data.imagenet import Record

BATCH, EVENTS, SIZE = 4, 9, 16
OPTIONS = {"batch_size": BATCH, "num_events": EVENTS, "image_size": SIZE, "seed": 3}
DAMAGED = {3: b"no photograph", 7: jpeg(7)[:400]}  # the second is truncated


def some_records(damaged=()):
    return [r._replace(jpeg=DAMAGED[i]) if i in damaged else r for i, r in enumerate(records(10))]


def batches(source=None, **options):
    return pipeline.event_batches(some_records() if source is None else source, **{**OPTIONS, **options})


def assert_same(one, other):
    assert set(one) == set(other) == {"image", "label", "corrupt"}
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name], err_msg=name)


# --- Images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_photograph_becomes_rgb(mode):
    pixels = pipeline.decode(jpeg(0, 60, 45, mode))
    assert pixels.shape == (45, 60, 3) and pixels.dtype == np.uint8
    expected = np.asarray(Image.open(io.BytesIO(jpeg(0, 60, 45))).convert("L" if mode == "L" else "RGB").convert("RGB"))
    assert np.abs(pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_a_png_that_is_named_jpeg_is_read(mode):
    original, file = Image.open(io.BytesIO(jpeg(0))).convert(mode), io.BytesIO()
    original.save(file, "PNG")
    np.testing.assert_array_equal(pipeline.decode(file.getvalue()), original.convert("RGB"))


@pytest.mark.parametrize(
    "format, array", [("PNG", np.full((4, 4), 999, np.uint16)), ("BMP", np.zeros((4, 4), np.uint8))]
)
def test_other_pictures_are_refused(format, array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format)
    with pytest.raises(ValueError, match=r"cannot be decoded \((its pixels have the mode I|neither a JPEG nor a PNG)"):
        pipeline.decode(file.getvalue())


@given(st.integers(0, len(jpeg(1)) - 50), st.binary(max_size=30))
def test_a_damaged_file_is_refused_or_decoded(position, junk):
    whole = jpeg(1)
    with pytest.raises(ValueError, match="cannot be decoded"):
        pipeline.decode(whole[:position])
    try:
        assert pipeline.decode(whole[:position] + junk + whole[position + len(junk) :]).dtype == np.uint8
    except ValueError as error:
        assert "cannot be decoded" in str(error)


def torchvision_crop(image, rng, size, scale, ratio):
    """RandomResizedCrop and RandomHorizontalFlip of torchvision 0.20, with NumPy's random numbers."""
    height, width = image.shape[:2]
    for _ in range(10):
        target_area = height * width * rng.uniform(*scale)
        aspect_ratio = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = round(np.sqrt(target_area * aspect_ratio)), round(np.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            i, j = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            break
    else:
        if width / height < min(ratio):
            w, h = width, round(width / min(ratio))
        elif width / height > max(ratio):
            h, w = height, round(height * max(ratio))
        else:
            w, h = width, height
        i, j = (height - h) // 2, (width - w) // 2
    crop = Image.fromarray(image).crop((j, i, j + w, i + h)).resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(crop)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 1000))
def test_random_crops_are_those_of_torchvision(height, width, size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    crop = pipeline.random_crop(image, np.random.default_rng(seed), size=size)
    expected = torchvision_crop(image, np.random.default_rng(seed), size, (0.08, 1.0), (3 / 4, 4 / 3))
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, expected)


@given(st.integers(20, 600), st.integers(20, 600), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 1000))
@example(77, 161, 0.625, 0.625, 0)
def test_crops_are_inside_with_the_area_and_aspect_that_were_asked_for(height, width, one, other, seed):
    area, aspect = (min(one, other), max(one, other)), (0.75, 4 / 3)
    top, left, h, w = _box(height, width, np.random.default_rng(seed), area, aspect)
    assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h > 0 and w > 0
    assert (w - 0.5) / (h + 0.5) <= aspect[1] and (w + 0.5) / (h - 0.5) >= aspect[0]
    whole = min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))  # when ten tries do not fit
    assert (w - 0.5) * (h - 0.5) <= area[1] * height * width or (h, w) == whole
    if area[0] < 0.4 and 0.75 <= width / height <= 4 / 3:  # some of ten tries fits
        assert (w + 0.5) * (h + 0.5) >= area[0] * height * width


def test_areas_of_crops_are_uniform_and_half_of_them_are_mirrored():
    rng = np.random.default_rng(0)
    areas = [np.prod(_box(1000, 1000, rng, (0.1, 0.5), (0.75, 4 / 3))[2:]) / 1e6 for _ in range(2000)]
    deciles = np.histogram(areas, bins=10, range=(0.1, 0.5))[0]
    assert deciles.min() > 140 and deciles.max() < 260
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None], (100, 100, 3))
    crops = [pipeline.random_crop(ramp, rng, size=8) for _ in range(400)]
    assert 160 < sum(int(crop[0, 0, 0]) > int(crop[0, -1, 0]) for crop in crops) < 240
    straight = [pipeline.random_crop(ramp, rng, size=8, flip=False) for _ in range(50)]
    assert all(crop[0, 0, 0] < crop[0, -1, 0] for crop in straight)


@pytest.mark.parametrize(
    "width, height, size, scaled", [(224, 224, 224, (256, 256)), (500, 375, 224, (341, 256)), (90, 300, 64, (73, 243))]
)
def test_central_crops_are_those_of_torchvision(width, height, size, scaled):
    image = pipeline.decode(jpeg(0, width, height))
    small = np.asarray(Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR))
    top, left = round((scaled[1] - size) / 2), round((scaled[0] - size) / 2)
    expected = small[top : top + size, left : left + size]
    np.testing.assert_array_equal(pipeline.central_crop(image, size=size), expected)


def test_an_image_of_the_right_size_is_only_cut():
    image = pipeline.decode(jpeg(0, 300, 256))
    np.testing.assert_array_equal(pipeline.central_crop(image, size=224), image[16:240, 38:262])


# --- Batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_its_rows_each_cropped_with_a_generator_of_its_own():
    source = some_records()
    with batches() as made:
        for event, batch in enumerate(made):
            rows = data.batch_rows(10, BATCH, range(event, event + 1), seed=3)[0]
            for i, row in enumerate(rows):
                rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(event, i)))
                crop = pipeline.random_crop(pipeline.decode(source[row].jpeg), rng, size=SIZE)
                np.testing.assert_array_equal(batch["image"][i], crop)
            assert batch["label"].tolist() == [source[row].label for row in rows]
            assert batch["corrupt"].tolist() == [-1] * BATCH
        assert event == EVENTS - 1


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_and_stacks_are_parts_of_the_same(shards):
    whole = batches().take(EVENTS)
    assert whole["image"].shape == (EVENTS, BATCH, SIZE, SIZE, 3) and whole["image"].dtype == np.uint8
    assert whole["label"].shape == whole["corrupt"].shape == (EVENTS, BATCH) and whole["label"].dtype == np.int32
    parts = [batches(shard=(k, shards)) for k in range(shards)]
    stacks = [[part.take(n) for n in (2, 5, EVENTS - 7)] for part in parts]
    joined = [{k: np.concatenate([s[k] for s in stack]) for k in whole} for stack in stacks]
    assert_same({k: np.concatenate([part[k] for part in joined], axis=1) for k in whole}, whole)


def test_batches_follow_the_seed():
    one, other = (batches(seed=seed).take(2) for seed in (0, 1))
    assert np.any(one["image"] != other["image"])


def test_any_state_goes_on_with_the_same_batches():
    whole = batches().take(EVENTS)
    with batches() as first:
        for done in range(EVENTS + 1):
            state = json.loads(json.dumps(first.get_state()))
            other = batches()
            other.set_state(state)
            if done < EVENTS:
                assert_same(other.take(EVENTS - done), {k: x[done:] for k, x in whole.items()})
                next(first)
            with pytest.raises(StopIteration):
                next(other)
        first.set_state({"next_batch": 2})
        assert_same(next(first), {k: x[2] for k, x in whole.items()})


def test_worker_processes_make_the_same_and_end():
    """One that is set back, and two that begin in the middle; a skipped record is told through them as well."""
    options = {"source": some_records(damaged=DAMAGED), "on_corrupt": "skip"}
    whole = batches(**options).take(EVENTS)
    with batches(**options, decode_processes=1) as one:
        assert_same(one.take(4), {k: x[:4] for k, x in whole.items()})
        one.set_state({"next_batch": 1})
        assert_same(one.take(EVENTS - 1), {k: x[1:] for k, x in whole.items()})
    with batches(**options, decode_processes=2) as two:
        two.set_state({"next_batch": 3})
        assert_same(two.take(5), {k: x[3:8] for k, x in whole.items()})
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


def test_a_worker_that_fails_or_dies_is_told():
    made = batches(some_records(damaged=[3]), decode_processes=1, num_events=100)
    with pytest.raises(ValueError, match=r"record 3, n00000003\.JPEG, cannot be decoded"):
        made.take(3)
    assert made.get_state() == {"next_batch": 0} and not multiprocessing.active_children()
    made = batches(decode_processes=1, num_events=1000)
    next(made)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(RuntimeError, match=r"terminated unexpectedly with exit code -9\. .* usually out of memory"):
        for _ in made:
            pass
    assert not multiprocessing.active_children()


LAUNCHER = """
import multiprocessing, time
from absl import flags
from asyncflax.train import launcher
from asyncflax.data import pipeline
flags.DEFINE_string("name", None, "", required=True)

def main():
    from photographs import records
    batches = pipeline.event_batches(records(10), batch_size=4, num_events=1000, image_size=8, decode_processes=1)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(100)

if __name__ == "__main__":
    launcher.launch(main)
"""


def test_workers_start_from_a_launcher_and_end_with_it(tmp_path):
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-W", "error::UserWarning", str(script), "--name=x"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        worker = int(process.stdout.readline())
        os.kill(worker, 0)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and alive(worker):
        time.sleep(0.1)
    assert not alive(worker)


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


# --- Damaged records --------------------------------------------------------------------------------------------------


def test_a_damaged_record_is_replaced_by_the_next_good_one():
    good = batches().take(EVENTS)
    skipped = batches(some_records(damaged=DAMAGED), on_corrupt="skip").take(EVENTS)
    rows = data.batch_rows(10, BATCH, range(EVENTS), seed=3)
    damaged = np.isin(rows, list(DAMAGED))
    np.testing.assert_array_equal(skipped["corrupt"], np.where(damaged, rows, -1))
    np.testing.assert_array_equal(skipped["image"][~damaged], good["image"][~damaged])
    source = records(10)
    for event, i in np.argwhere(damaged):
        following = source[rows[event, i] + 1]
        rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(int(event), int(i))))
        crop = pipeline.random_crop(pipeline.decode(following.jpeg), rng, size=SIZE)
        np.testing.assert_array_equal(skipped["image"][event, i], crop)
        assert skipped["label"][event, i] == following.label


@pytest.mark.parametrize("index, why", [(3, "neither a JPEG nor a PNG file"), (7, "[Tt]runcated")])
def test_a_damaged_record_stops(index, why):
    message = rf"record {index}, n0000000{index}\.JPEG, cannot be decoded .*{why}.*set on_corrupt to 'skip', which"
    source = some_records(damaged=[index])
    made = batches(source)
    for _ in range(2):  # it stays at the batch that cannot be made
        with pytest.raises(ValueError, match=message):
            made.take(EVENTS)
    assert made.get_state() == {"next_batch": 0}
    with pytest.raises(ValueError, match=message):
        list(pipeline.evaluation_batches(source, batch_size=4, image_size=8))


def test_not_everything_is_skipped():
    with pytest.raises(ValueError, match="and the 100 after it cannot be decoded; prepare the data set again"):
        next(batches([Record(b"", 0, "empty.JPEG")] * 10, on_corrupt="skip"))


# --- Evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_evaluation_shows_every_record_once(shards):
    source = some_records()
    options = {"batch_size": 4, "image_size": 32}
    parts = [
        pipeline.evaluation_batches(source, **options, shard=(k, shards)).take(3) for k in range(shards)
    ]  # 10 of 12 rows count
    images, labels = (np.concatenate([p[k] for p in parts], axis=1).reshape(12, -1) for k in ("image", "label"))
    assert labels.ravel().tolist() == [*(r.label for r in source), -1, -1]
    for i, record in enumerate(source):
        expected = pipeline.central_crop(pipeline.decode(record.jpeg), size=32)
        np.testing.assert_array_equal(images[i], expected.ravel())
    assert not images[10:].any()


def test_evaluation_leaves_damaged_records_out():
    made = pipeline.evaluation_batches(some_records(DAMAGED), batch_size=5, image_size=8, on_corrupt="skip").take(2)
    labels = [-1 if i in DAMAGED else r.label for i, r in enumerate(records(10))]
    assert made["label"].ravel().tolist() == labels
    assert made["corrupt"].ravel().tolist() == [i if i in DAMAGED else -1 for i in range(10)]


# --- Errors and real photographs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: batches(batch_size=11), "batch_size=11 is larger than the 10 examples"),
        (lambda: batches(batch_size=0), "batch_size must be an integer >= 1"),
        (lambda: batches(shard=(0, 3)), "batch_size=4 must be a multiple of the 3 shards"),
        (lambda: batches(shard=(2, 2)), "the index of the shard must be at most 1"),
        (lambda: batches(on_corrupt="ignore"), "on_corrupt must be one of 'stop', 'skip', got 'ignore'"),
        (lambda: batches(area=(0.5, 0.1)), r"area must be \(low, high\) with 0 < low <= high <= 1"),
        (lambda: batches(image_size=0), "image_size must be an integer >= 1"),
        (lambda: batches(seed=-1), "seed must be an integer >= 0"),
        (lambda: batches(decode_processes=-1), "decode_processes must be an integer >= 0"),
        (lambda: batches().take(EVENTS + 1), "count must be at most 9"),
        (lambda: batches().set_state({"next_batch": EVENTS + 1}), "next_batch must be at most 9"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@needs_sample
def test_real_photographs():
    """Whole validation records are decoded the same in a worker process; random crops are not all alike."""
    sample = imagenet.imagenet_eight(TFDS_DATA_DIR)
    options = {"batch_size": 200, "image_size": 64}
    with pipeline.evaluation_batches(sample.test, **options, decode_processes=1) as made:
        test = made.take(4)
    np.testing.assert_array_equal(np.bincount(test["label"].ravel()), np.full(8, 100))
    assert_same(next(pipeline.evaluation_batches(sample.test, **options)), {k: x[0] for k, x in test.items()})
    batch = next(pipeline.event_batches(sample.train, batch_size=64, num_events=1, image_size=64))
    assert len({image.tobytes() for image in batch["image"]}) == 64 and 90 < batch["image"].mean() < 140
