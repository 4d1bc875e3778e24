"""Trainings on records: the same for every width, mesh and stop; evaluation exact; damage is never passed over."""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest
from photographs import records
from processes import ends, started_task

import asyncflax
from asyncflax import data, imagenet, pipeline, recipes
from asyncflax.config import TrainConfig
from asyncflax.experiment import make_experiment
from asyncflax.sweep import program
from asyncflax.train import train_and_evaluate
from asyncflax.workdir import RunError

TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")
has_sample = (pathlib.Path(TFDS_DATA_DIR) / "imagenet_eight" / "1.0.0").is_dir()
needs_sample = pytest.mark.skipif(not has_sample, reason="TFDS_DATA_DIR has no imagenet_eight/1.0.0")

CONFIG = TrainConfig(
    dataset="imagenet_eight",
    model="SmallCnn",
    image_size=16,
    crop_area=(0.3, 1.0),
    flip=True,
    batch_size=4,
    num_groups=3,
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
    for places in ({"width": 3}, {"mesh": "group=2, replica=2", "log_every": 12}):
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


@pytest.mark.parametrize("places", [{}, {"mesh": "group=2, replica=2"}], ids=["one device", "mesh"])
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
    monkeypatch.setattr("asyncflax.experiment.load_data", lambda config: bad)
    with pytest.raises(RunError, match=r"record 9, n00000009\.JPEG, cannot be decoded .* the same command goes on"):
        stopping = make_experiment(CONFIG)._replace(evaluate=None)
        run(stopping)
    config = dataclasses.replace(CONFIG, on_corrupt="skip")
    train_and_evaluate(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "note: training record 9, n00000009.JPEG, is damaged; update" in out
    assert "note: test record 2, n00000002.JPEG, is damaged and does not count" in out
    with pytest.raises(RunError, match=r"record 2, n00000002\.JPEG, cannot be decoded"):
        train_and_evaluate(CONFIG, tmp_path / "stops")


def test_two_processes_decode_every_record_once_and_train_as_one(tmp_path):
    with started_task("photographs", tmp_path, 2, devices=2) as running:
        for status, error in ends(running, timeout=300):
            assert status == 0, error
    _, losses = run(made())
    parts = [np.load(tmp_path / f"photographs-{index}.npz") for index in range(2)]
    for part in parts:
        np.testing.assert_allclose(part["losses"], losses, rtol=1e-5)
        assert 0 <= part["test_accuracy"] <= part["test_top5_accuracy"] <= 1
        np.testing.assert_array_equal(part["test_loss"], parts[0]["test_loss"])
    assert [int(part["decoded"]) for part in parts] == [12 * 2 + 8, 12 * 2 + 5], (
        "13 test photographs, 4 and 4 rows a batch"
    )


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
    "recipe", [recipes.caffenet, pytest.param(recipes.resnet50, marks=pytest.mark.slow)], ids=["caffenet", "resnet50"]
)
def test_a_step_of_each_network_on_real_photographs(recipe):
    """Two updates on crops of 64x64: every parameter that a gradient reaches has moved, and nothing is broken."""
    small = {"image_size": 64, "batch_size": 4, "num_updates": 2, "log_every": 2, "data_workers": 0}
    small |= {"warmup_updates": 0, "learning_rate_drops": ()}
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
        ({"crop_area": (0.5,)}, r"config\.crop_area must be two shares .* got \(0\.5,\)"),
        ({"crop_area": (0.5, 0.1)}, r"config\.crop_area must be two shares"),
        ({"on_corrupt": "ignore"}, r"config\.on_corrupt must be one of 'stop', 'skip'"),
        ({"classes": ("range(0)",)}, r"config\.classes\[0\] must be of type int, got 'range\(0\)'"),
        ({"classes": (1, 1)}, r"config\.classes must be labels >= 0, each once, got \(1, 1\)"),
        ({"batch_size": 23}, r"config\.batch_size=23 is larger than the 22 training images"),
        ({"batch_size": 6, "mesh": "group=4"}, r"config\.batch_size=6 cannot be divided over the 4 devices"),
        ({"log_every": 10_000, "num_updates": 20_000, "image_size": 400}, r"GB, .* set config\.log_every to \d+ or"),
    ],
)
def test_bad_input_is_one_clear_error(fields, message):
    if "log_every" in fields:
        fields = {**fields, "eval_every": 20_000, "checkpoint_every": 20_000}
    with pytest.raises((TypeError, ValueError), match=message):
        made(**fields)


@pytest.mark.parametrize("classes", [range(3), ("range(3)",), ("range(0, 3, 1)",), [0, 1, 2]], ids=str)
def test_a_range_of_classes_is_a_tuple_of_them(classes):
    config = TrainConfig(dataset="imagenet_eight", classes=classes)
    config.check()
    assert config.classes == (0, 1, 2)


def test_environments_with_the_same_data_share_what_is_decoded(monkeypatch):
    """Two numbers of groups with one seed, one tile filled up: each batch is decoded once, and the end is the same."""
    decode, decoded = pipeline.decode, []
    monkeypatch.setattr(pipeline, "decode", lambda jpeg: decoded.append(1) or decode(jpeg))
    environments = [(("num_groups", groups), ("seed", 0)) for groups in (2, 3)]
    sweep, hypers = program.Program(CONFIG, environments, source()), np.array([[0.05, 0.0]])
    sweep.tile(environments, 1)
    assert not decoded, "compiling needs shapes alone"
    found = sweep.train(environments, hypers, tile=(3, 1))
    assert len(decoded) == 12 * 4 + 13, "12 batches of 4, and 13 test photographs once"
    again = sweep.train(environments[:1], hypers, tile=(3, 1))  # from the first event again
    np.testing.assert_array_equal(again["train_loss"][0], found["train_loss"][0])
    assert len(decoded) == 2 * 12 * 4 + 13


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
    monkeypatch.setattr("asyncflax.experiment.load_data", lambda config: source(damaged=[late]))
    with pytest.raises(RunError, match=r"the same command goes on from there, with --config\.on_corrupt=skip as well"):
        train_and_evaluate(config, tmp_path / "run")
    summary = train_and_evaluate(dataclasses.replace(config, on_corrupt="skip"), tmp_path / "run")
    assert "goes on at update 4" in capsys.readouterr().out
    assert [row["update"] for row in summary.rows] == [0, 4, 8, 12]
