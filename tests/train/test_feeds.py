"""Trainings on records: the same for every width, mesh and stop; evaluation exact; damage is never passed over."""

import contextlib
import dataclasses
import gc
import multiprocessing
import pathlib
import re
import time
import types

import jax
import numpy as np
import pytest
from photographs import TFDS_DATA_DIR, needs_sample, records
from processes import ends, environment, free_port, started, started_task

import asyncflax
from asyncflax import data
from asyncflax.data import imagenet, pipeline
from asyncflax.errors import RunError
from asyncflax.lab.sweep import program
from asyncflax.train import feeds, recipes
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.loop import train_and_evaluate

CONFIG = TrainConfig(
    dataset="imagenet_eight",
    model="SmallCnn",
    image_size=16,
    crop_area=(0.3, 1.0),
    flip=True,
    batch_size=4,
    num_workers=3,
    num_updates=12,
    log_every=4,
    eval_every=6,
    eval_batch_size=5,
    checkpoint_every=6,
)


def source(damaged=(), damaged_tests=()):
    """22 training and 13 test photographs of seven classes."""
    train, test = (
        [record._replace(label=i % 7, jpeg=b"" if i in bad else record.jpeg) for i, record in enumerate(records(count))]
        for count, bad in ((22, damaged), (13, damaged_tests))
    )
    return imagenet.ImageRecords(train, test, tuple("abcdefg"))


def made(images=None, **fields):
    return make_experiment(dataclasses.replace(CONFIG, **fields), images=images or source())


def run(experiment, state=None):
    """The model and the event after each chunk, and all losses, from a state on."""
    if state is None:
        begin = {"key": experiment.key, "model_state": experiment.model_state}
        state = asyncflax.init_run(experiment.algorithm, experiment.params, experiment.plan, **begin)
    losses, states = [], []
    for chunk in experiment.plan:
        if chunk.events.start >= int(state.event):
            batches = experiment.batches(chunk)
            state, out = asyncflax.run_chunk(experiment.algorithm, experiment.gradient_fn, state, chunk, batches)
            losses.append(np.asarray(out.losses)[: int(chunk.num_events)])
            states.append(jax.tree.map(np.asarray, ((state.params, state.model_state), state.event)))
    return states, np.concatenate(losses)


def test_batches_belong_to_events_whatever_the_width_and_the_mesh():
    """The same pixels for all of them, those of the pipeline, and so the same losses up to rounding."""
    with pipeline.event_batches(
        source().train, batch_size=4, num_events=12, image_size=16, area=(0.3, 1.0), flip=True
    ) as stream:
        whole = stream.take(12)
    _, losses = run(made(width=1))
    for places in ({"width": 3}, {"mesh": "mesh(device_groups=2, replicas=2)", "log_every": 12}):
        experiment = made(**places)
        for chunk in experiment.plan:
            batch = experiment.batches(chunk)
            assert batch["image"].dtype == np.uint8, "uint8 on the wire"
            for name in ("image", "label"):
                np.testing.assert_array_equal(
                    np.asarray(batch[name])[: chunk.num_events], whole[name][chunk.events.start : chunk.events.stop]
                )
        np.testing.assert_allclose(run(experiment)[1], losses, rtol=1e-5)


def test_a_run_that_goes_on_sees_the_batches_that_it_would_have_seen():
    states, losses = run(made())
    half = make_experiment(dataclasses.replace(CONFIG), images=source())
    chunk = half.plan[0]
    begin = {"key": half.key, "model_state": half.model_state}
    state = asyncflax.init_run(half.algorithm, half.params, half.plan, **begin)
    state, _ = asyncflax.run_chunk(half.algorithm, half.gradient_fn, state, chunk, half.batches(chunk))
    later, rest = run(made(), state)  # another process: its feed has made nothing yet
    np.testing.assert_array_equal(rest, losses[chunk.num_events :])
    jax.tree.map(np.testing.assert_array_equal, later[-1], states[-1])


@pytest.mark.parametrize("places", [{}, {"mesh": "mesh(device_groups=2, replicas=2)"}], ids=["one device", "mesh"])
def test_evaluation_counts_every_test_image_once(places):
    """13 images in batches of 5 (8 on four devices), one of them damaged, against NumPy on the central crops."""
    experiment = made(source(damaged_tests=[4]), on_corrupt="skip", **places)
    found = experiment.evaluate(experiment.params, experiment.model_state)
    good = [record for i, record in enumerate(source().test) if i != 4]
    pixels = np.stack([pipeline.central_crop(pipeline.decode(record.jpeg), size=16) for record in good])
    labels = np.array([record.label for record in good])
    images = (pixels - np.array(imagenet.MEAN_PIXEL)) / 255
    logits = np.asarray(_logits(experiment, images.astype(np.float32)), np.float64)
    rank = (logits > logits[np.arange(12), labels][:, None]).sum(axis=1)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(12), labels]
    assert float(found["test_loss"]) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(found["test_accuracy"]) == pytest.approx((rank == 0).mean(), rel=1e-6)
    assert float(found["test_top5_accuracy"]) == pytest.approx((rank < 5).mean(), rel=1e-6)


def _logits(experiment, images):
    """By the network itself, with the parameters of the experiment."""
    from flax import nnx

    from asyncflax import models

    model = models.SmallCnn((16, 16, 3), 7, rngs=nnx.Rngs(0))
    apply, _ = models.functional(model)
    return apply(jax.tree.map(np.asarray, experiment.params), images)


def test_a_damaged_photograph_is_named_and_replaced_or_stops_the_run(tmp_path, monkeypatch, capsys):
    bad = source(damaged=[9], damaged_tests=[2])
    monkeypatch.setattr("asyncflax.train.experiment.load_data", lambda config: bad)
    with pytest.raises(RunError, match=r"record 9, n00000009\.JPEG, cannot be .* set on_corrupt to 'skip', which"):
        stopping = make_experiment(CONFIG)._replace(evaluate=None)
        run(stopping)
    config = dataclasses.replace(CONFIG, on_corrupt="skip")
    train_and_evaluate(config, tmp_path / "run")
    _, err = capsys.readouterr()
    assert "note: training record 9, n00000009.JPEG, is corrupted; update" in err
    assert "note: test record 2, n00000002.JPEG, is corrupted and ignored" in err
    with pytest.raises(RunError, match=r"record 2, n00000002\.JPEG, cannot be decoded"):
        train_and_evaluate(CONFIG, tmp_path / "stops")


def evaluated(experiment):
    """The losses of a run, and how good it is in the end."""
    states, losses = run(experiment)
    return losses, {name: float(x) for name, x in experiment.evaluate(*states[-1][0]).items()}


def assert_as_alone(parts, experiment):
    """What two processes computed, each for itself, is what one computes."""
    losses, found = evaluated(experiment)
    assert set(found) == {"test_loss", "test_accuracy", "test_top5_accuracy"}
    for part in parts:
        np.testing.assert_allclose(part["losses"], losses, rtol=1e-5)
        for name, value in found.items():
            np.testing.assert_allclose(part[name], value, rtol=1e-5)
            np.testing.assert_array_equal(part[name], parts[0][name])


@pytest.mark.slow
def test_two_processes_decode_every_record_once_and_train_as_one(tmp_path):
    with started_task("photographs", tmp_path, 2, devices=2) as running:
        for status, error in ends(running, timeout=300):
            assert status == 0, error
    parts = [np.load(tmp_path / f"photographs-{index}.npz") for index in range(2)]
    assert_as_alone(parts, made())
    assert [int(part["decoded"]) for part in parts] == [12 * 2 + 8, 12 * 2 + 5], (
        "13 test photographs, 4 and 4 rows a batch"
    )


LAUNCHER = """
import sys
import jax
import numpy as np
from asyncflax.train import launcher
sys.path[:0] = ["tests", "tests/train"]
launcher.process_flags()

def main():
    import test_feeds
    experiment = test_feeds.made(test_feeds.source(damaged=[9], damaged_tests=[1, 7]), on_corrupt="skip")
    losses, found = test_feeds.evaluated(experiment)
    np.savez(f"{sys.argv[0]}-{jax.process_index()}.npz", losses=losses, **found)
    print("done")

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    launcher.launch(main)
"""


@pytest.mark.slow
def test_each_of_two_processes_says_what_it_has_skipped(tmp_path):
    """The launcher gives stdout to the primary alone; notes are on the stderr of the process that has decoded."""
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    run = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    each = [environment(2, **run, JAX_PROCESS_ID=str(index)) for index in range(2)]
    with started([[str(script)]] * 2, each) as running:
        said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert said[0][0].endswith("done\n") and said[1][0] == ""
    rows = data.batch_rows(22, 4, range(12))
    for index, (_, err) in enumerate(said):
        updates = [event + 1 for event, row in np.argwhere(rows == 9) if row // 2 == index]
        assert (
            updates and [int(update) for update in re.findall(r"9, n00000009\.JPEG, .* update (\d+)", err)] == updates
        )
        assert re.findall(r"test record (\d+)", err) == [["1"], ["7"]][index], "4 and 4 rows of a batch of 8"
    parts = [np.load(f"{script}-{index}.npz") for index in range(2)]
    assert_as_alone(parts, made(source(damaged=[9], damaged_tests=[1, 7]), on_corrupt="skip"))


def test_a_sweep_trains_on_records_as_a_training_does():
    images, momenta = source(), (0.0, 0.5)
    sweep = program.Program(CONFIG, [(("seed", 1),)], images)
    found = sweep.train([(("seed", 1),)], np.array([[0.05, mu] for mu in momenta]))
    for k, momentum in enumerate(momenta):
        alone = make_experiment(
            dataclasses.replace(CONFIG, seed=1, momentum=momentum, checkpoint_every=12), images=images
        )
        _, losses = run(alone)
        rows = np.split(losses, sweep.updates[:-1])
        np.testing.assert_allclose(found["train_loss"][0, k], [row.mean() for row in rows], rtol=1e-4)
    assert found["test_top5_accuracy"].shape == (1, 2, 3)


@needs_sample
@pytest.mark.parametrize(
    "recipe, image_size",
    [(recipes.caffenet, 64), pytest.param(recipes.resnet50, 32, marks=pytest.mark.slow)],
    ids=["caffenet", "resnet50"],
)
def test_a_step_of_each_network_on_real_photographs(recipe, image_size):
    """Two updates on small crops, without weight decay: gradients have moved every parameter, and nothing is broken."""
    small = {"image_size": image_size, "batch_size": 4, "num_updates": 2, "log_every": 2, "decode_processes": 0}
    small |= {"schedule": "constant", "weight_decay": 0.0}
    config = recipe(dataset="imagenet_eight", classes=(0, 3, 5), data_dir=TFDS_DATA_DIR, **small)
    experiment = make_experiment(config)
    assert experiment.data.class_names == ("n01440764", "n03000684", "n03394916")
    before = jax.tree.map(np.asarray, experiment.params)
    states, losses = run(experiment)
    assert np.isfinite(losses).all()
    params, statistics = states[-1][0]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), params, before)
    assert all(jax.tree.leaves(moved)), moved
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((params, statistics)))


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"crop_pad": 2},
            r"config\.crop_pad=2 is for data sets in memory, which 'imagenet_eight' is not; leave it at 0",
        ),
        (
            {"dataset": "digits"},
            r"config\.image_size=16 is for data sets of JPEGs such as ImageNet, which 'digits' is not",
        ),
        ({"image_size": 4}, r"config\.image_size must be an integer >= 8"),
        ({"crop_area": (0.5,)}, r"config\.crop_area must be \(low, high\) .* got \(0\.5,\)"),
        ({"crop_area": (0.5, 0.1)}, r"config\.crop_area must be \(low, high\)"),
        ({"on_corrupt": "ignore"}, r"config\.on_corrupt must be one of 'stop', 'skip'"),
        ({"classes": ("range(0)",)}, r"config\.classes\[0\] must be of type int, got 'range\(0\)'"),
        ({"classes": (1, 1)}, r"config\.classes must be distinct labels >= 0, got \(1, 1\)"),
        ({"batch_size": 23}, r"config\.batch_size=23 is larger than the 22 training images"),
        ({"batch_size": 6, "mesh": "mesh(replicas=4)"}, r"config\.batch_size=6 cannot be divided over the 4 devices"),
        ({"log_every": 10_000, "num_updates": 20_000, "image_size": 400}, r"GB, .* set config\.log_every to \d+ or"),
    ],
)
def test_bad_input_is_one_clear_error(fields, message):
    if "log_every" in fields:
        fields = {**fields, "eval_every": 20_000, "checkpoint_every": 20_000}
    with pytest.raises((TypeError, ValueError), match=message):
        made(**fields)


@pytest.mark.parametrize("owners", [(1, 1, 0, 0), (0, 1, 0, 1), (0, 0, 0, 1)], ids=str)
def test_a_mesh_whose_processes_do_not_own_equal_parts_in_turn_is_refused(owners):
    devices = np.array([types.SimpleNamespace(process_index=owner) for owner in owners])
    placement = types.SimpleNamespace(devices=4, mesh=types.SimpleNamespace(devices=devices.reshape(2, 2)))
    plan = types.SimpleNamespace(placement=placement)
    message = r"config\.mesh='mesh\(device_groups=2, replicas=2\)' has devices of .*; data sets of JPEGs need"
    with pytest.raises(ValueError, match=message):
        feeds.RecordFeed(dataclasses.replace(CONFIG, mesh="mesh(device_groups=2, replicas=2)"), source(), plan)


@pytest.mark.parametrize("classes", [range(3), ("range(3)",), ("range(0, 3, 1)",), [0, 1, 2]], ids=str)
def test_a_range_of_classes_is_a_tuple_of_them(classes):
    config = TrainConfig(dataset="imagenet_eight", classes=classes)
    assert config.check().classes == (0, 1, 2)


def test_environments_with_the_same_data_share_what_is_decoded(monkeypatch):
    """Two numbers of workers with one seed, one tile filled up: each batch is decoded once, and the end is the same."""
    decode, decoded = pipeline.decode, []
    monkeypatch.setattr(pipeline, "decode", lambda jpeg: decoded.append(1) or decode(jpeg))
    start, started = pipeline.Batches._start, []

    def in_threads(batches):  # what would be so many processes
        started.append(batches.decode_processes)
        batches.decode_processes = 0
        return start(batches)

    monkeypatch.setattr(pipeline.Batches, "_start", in_threads)
    environments = [(("num_workers", workers), ("seed", seed)) for workers, seed in ((2, 0), (3, 0), (3, 1))]
    config, hypers = dataclasses.replace(CONFIG, decode_processes=5), np.array([[0.05, 0.0]])
    sweep = program.Program(config, environments, source())
    assert sweep.tile(environments, 1) == (3, 1)
    assert not decoded, "compiling needs shapes alone"
    found = sweep.train(environments[:2], hypers, tile=(3, 1))
    assert len(decoded) == 12 * 4 + 13, "12 batches of 4, and 13 test photographs once"
    again = sweep.train(environments[:1], hypers, tile=(3, 1))  # from the first event again
    np.testing.assert_array_equal(again["train_loss"][0], found["train_loss"][0])
    assert len(decoded) == 2 * 12 * 4 + 13
    assert started == [5, 5, 5], "the test photographs, and twice the batches"
    sweep.train(environments, hypers, tile=(3, 1))
    assert started[3:] == [2, 2], "two seeds share the processes"
    monkeypatch.setattr(program, "CHUNK_BYTES", 2.5 * 4 * 4 * (16 * 16 * 3 + 4))  # 4 updates of 4 images and labels
    assert sweep.tile(environments, 1) == (2, 1), "images of two seeds fit into memory"


def test_equal_logits_are_ranked_as_argmax_ranks_them():
    """A network that has learned nothing says the same of all classes: the first is right, the first five are in."""
    experiment = made()
    zero = jax.tree.map(np.zeros_like, experiment.params)
    found = experiment.evaluate(zero)
    labels = np.array([record.label for record in source().test])
    assert float(found["test_accuracy"]) == pytest.approx((labels == 0).mean())
    assert float(found["test_top5_accuracy"]) == pytest.approx((labels < 5).mean())


def test_a_run_that_a_photograph_stopped_goes_on_without_it(tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(CONFIG, eval_every=4, checkpoint_every=4)
    late = 5
    assert late not in data.batch_rows(22, 4, range(4)) and late in data.batch_rows(22, 4, range(4, 8))
    monkeypatch.setattr("asyncflax.train.experiment.load_data", lambda config: source(damaged=[late]))
    with pytest.raises(RunError, match=r"Checkpoints are kept; rerun the same command to resume\."):
        train_and_evaluate(config, tmp_path / "run")
    skipping = dataclasses.replace(config, on_corrupt="skip")
    rows = train_and_evaluate(skipping, tmp_path / "run").rows
    assert "resumes at update 4" in capsys.readouterr().out
    assert [row["update"] for row in rows] == [0, 4, 8, 12]
    whole = train_and_evaluate(skipping, tmp_path / "whole").rows
    assert [row["train_loss"] for row in rows[1:]] == [row["train_loss"] for row in whole[1:]]


@pytest.mark.parametrize("error", [ValueError("record 5 has another label."), RuntimeError("A worker has died.")])
def test_what_is_no_damage_gets_no_advice_about_damage(error, monkeypatch):
    experiment = made()
    monkeypatch.setattr(experiment.feed._stream, "take", lambda count: (_ for _ in ()).throw(error))
    with pytest.raises(RunError, match=f"^{error} Checkpoints are kept; rerun the same command to resume\\.$"):
        experiment.batches(experiment.plan[0])


def test_a_test_set_of_which_nothing_can_be_decoded_is_refused(tmp_path, monkeypatch):
    """In a training and in a sweep, which would both say that the training has diverged."""
    bad = source(damaged_tests=range(13))
    monkeypatch.setattr("asyncflax.train.experiment.load_data", lambda config: bad)
    message = r"none of the 13 test images can be decoded; prepare the data set again"
    with pytest.raises(RunError, match=message):
        train_and_evaluate(dataclasses.replace(CONFIG, on_corrupt="skip"), tmp_path / "run")
    experiment = made(bad, on_corrupt="skip")
    for _ in range(2):  # nothing is kept of it
        with pytest.raises(RunError, match=message):
            experiment.evaluate(experiment.params)


def test_processes_that_decode_make_the_same_and_leave_no_shared_memory():
    """Batches and evaluation; what stays in memory is a copy."""
    alone, helped = made(), made(decode_processes=2)
    for chunk in map(alone.plan.__getitem__, range(2)):
        jax.tree.map(np.testing.assert_array_equal, alone.batches(chunk), helped.batches(chunk))
    helped.feed.close()
    for _ in range(2):  # decoded, and from memory
        found = [experiment.evaluate(experiment.params) for experiment in (alone, helped)]
        assert jax.tree.map(float, found[0]) == jax.tree.map(float, found[1])
    assert not multiprocessing.active_children()
    maps, deadline = pathlib.Path("/proc/self/maps"), time.monotonic() + 10
    while (held := "/dev/shm/psm_" in maps.read_text()) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.1)  # Grain frees it in a thread
    assert not held


def test_batches_belong_to_tickets():
    """Of a recorded trace; of a live run one by one."""
    config, digits = TrainConfig(batch_size=4, num_updates=6), data.digits()
    trace = asyncflax.Trace(worker=[0] * 6, read_version=range(6), ticket=[0, 2, 1, 5, 3, 7])
    plan, plain = asyncflax.make_plan(trace, cuts=[2]), asyncflax.make_plan(trace.prefix(1))
    feed, other = feeds.make_feed(config, digits, plan), feeds.make_feed(config, digits, plain)
    rows = data.batch_rows(len(digits.train_labels), 4, trace.ticket)
    np.testing.assert_array_equal(np.concatenate([feed.batches(c)[: int(c.num_events)] for c in plan]), rows)
    np.testing.assert_array_equal(other.batch(7), rows[5])
    assert feed.identity != other.identity


@needs_sample
def test_photographs_belong_to_tickets_too():
    config = dataclasses.replace(CONFIG, num_updates=4)
    trace = asyncflax.Trace(worker=[0] * 4, read_version=range(4), ticket=[1, 0, 3, 5])
    in_order = contextlib.closing(feeds.RecordFeed(config, source(), asyncflax.make_plan(trace.prefix(1))))
    with contextlib.closing(feeds.RecordFeed(config, source(), asyncflax.make_plan(trace))) as feed, in_order as other:
        batches = feed.batches(asyncflax.make_plan(trace)[0])
        for event, ticket in enumerate(trace.ticket.tolist()):
            for name, array in other.batch(ticket).items():
                np.testing.assert_array_equal(batches[name][event], array)
