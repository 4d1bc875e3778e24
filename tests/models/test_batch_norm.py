"""Networks with BatchNorm, end to end: the server's rule for the statistics, evaluation, resume, sweeps, ResNet-20."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import assert_close

import asyncflax
from asyncflax import models
from asyncflax.engine.execute import init_run
from asyncflax.lab.sweep import SweepConfig, run_sweep
from asyncflax.train import _runs, loop, recipes
from asyncflax.train._invariants import broken_leaf
from asyncflax.train.checkpoint import load_model
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment

TINY = TrainConfig(
    model="TinyNorm", num_workers=4, num_updates=24, batch_size=16, log_every=6, eval_every=12, checkpoint_every=6
)


class TinyNorm(nnx.Module):
    """dense, norm, relu, classes; what `functional_with_state` takes, as a user would write it."""

    def __init__(self, image_shape, num_classes: int = 10, *, decay: float = 0.8, frozen: bool = False, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(int(np.prod(image_shape)), 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=decay, use_running_average=frozen, rngs=rngs)
        self.dense = nnx.Linear(6, num_classes, rngs=rngs)

    def __call__(self, images, *, key=None):
        x = self.hidden(images.reshape(len(images), -1))
        return self.dense(nnx.relu(self.norm(x, use_running_average=True if key is None else None)))


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setattr(models, "TinyNorm", TinyNorm, raising=False)
    monkeypatch.setattr(models, "__all__", [*models.__all__, "TinyNorm"])


def in_float64(config):
    made = make_experiment(config)
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)
    return made._replace(params=wide(made.params), model_state=wide(made.model_state))


def run(made):
    """The last state, and losses, of an experiment."""
    begin = {"key": made.key, "model_state": made.model_state}
    state, losses = asyncflax.init_run(made.algorithm, made.params, made.plan, **begin), []
    for chunk in made.plan:
        state, out = asyncflax.run_chunk(made.algorithm, made.gradient_fn, state, chunk, made.batches(chunk))
        losses.append(out.losses[: int(chunk.num_events)])
    return state, np.concatenate(losses)


def scaled(made, rows):
    images = made.data.train_images[rows].astype(np.float32) - made.data.mean_image
    return (images * np.float32(made.config.pixel_scale)).reshape(len(rows), -1).astype(np.float64)


def test_the_servers_rule_event_by_event():
    """statistics = m statistics + (1 - m) b_t, with the statistics of the batch at the parameters that were read."""
    config = dataclasses.replace(TINY, algorithm="asgd", learning_rate=0.1)
    made = in_float64(config)
    state, _ = run(made)
    history, mean, var = [made.params], np.zeros(6), np.ones(6)
    assert_close(jnp.stack([*made.model_state["norm"].values()]), np.stack([mean, var]))
    gradient = jax.jit(lambda params, rows: made.gradient_fn(params, rows, key=made.key, model_state=made.model_state))
    for event, read in enumerate(made.trace.read_version):
        rows = asyncflax.data.batch_rows(1437, 16, range(event, event + 1), seed=0)[0]
        hidden = history[read]["hidden"]
        x = scaled(made, rows) @ np.asarray(hidden["kernel"]) + np.asarray(hidden["bias"])[None]
        mean, var = 0.8 * mean + 0.2 * x.mean(axis=0), 0.8 * var + 0.2 * x.var(axis=0)
        grads = gradient(history[read], rows).grads
        history.append(jax.tree.map(lambda p, g: p - 0.1 * g, history[-1], grads))
    assert max(made.trace.staleness) > 0
    assert_close(state.model_state["norm"], {"mean": mean, "var": var}, 1e-12)
    assert_close(state.params, history[-1], 1e-12)


def test_every_width_and_mesh_gives_the_same_iterates_and_statistics():
    config = dataclasses.replace(TINY, algorithm="multi_asgd", momentum=0.5)
    state, losses = run(in_float64(dataclasses.replace(config, width=1)))
    assert np.any(np.asarray(state.model_state["norm"]["mean"]) != 0)
    for place in ({"width": 4}, {"mesh": "mesh(device_groups=2, replicas=2)", "server": "sharded"}):
        same, same_losses = run(in_float64(dataclasses.replace(config, **place)))
        np.testing.assert_allclose(same_losses, losses, rtol=1e-12)
        assert_close(same.params, state.params, 1e-12)
        assert_close(same.model_state, state.model_state, 1e-12)


def test_training_does_not_read_the_running_statistics_and_evaluation_does():
    made = in_float64(TINY)
    rows = made.batches(made.plan[0])[0]
    other = jax.tree.map(lambda x: x + 3.0, made.model_state)
    one, two = (made.gradient_fn(made.params, rows, key=made.key, model_state=s) for s in (made.model_state, other))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert one.model_update.decay == 0.8

    def by_hand(mean, var):
        params, test = made.params, made.data.test_images.astype(np.float32) - made.data.mean_image
        x = (test * np.float32(made.config.pixel_scale)).reshape(360, -1) @ params["hidden"]["kernel"]
        x = (x + params["hidden"]["bias"][None] - mean) / np.sqrt(var + 1e-5)
        x = np.maximum(x, 0) @ params["dense"]["kernel"] + params["dense"]["bias"][None]
        logits = x - jax.nn.logsumexp(x, axis=1, keepdims=True)
        return -float(logits[np.arange(360), made.data.test_labels].mean())

    assert float(made.evaluate(made.params, made.model_state)["test_loss"]) == pytest.approx(by_hand(0, 1), rel=1e-6)
    assert float(made.evaluate(made.params, other)["test_loss"]) == pytest.approx(by_hand(3, 4), rel=1e-6)


def test_frozen_statistics_are_read_and_stay():
    made = in_float64(dataclasses.replace(TINY, model="TinyNorm(frozen=True)"))
    rows = made.batches(made.plan[0])[0]
    other = jax.tree.map(lambda x: x + 3.0, made.model_state)
    one, two = (made.gradient_fn(made.params, rows, key=made.key, model_state=s) for s in (made.model_state, other))
    assert one.model_update is None and float(one.loss) != float(two.loss)
    state, _ = run(made)
    jax.tree.map(np.testing.assert_array_equal, state.model_state, made.model_state)


def test_layers_may_differ_in_momentum_and_in_being_frozen():
    class Two(nnx.Module):
        def __init__(self):
            self.norms = nnx.List(
                [
                    nnx.BatchNorm(3, momentum=0.5, rngs=nnx.Rngs(0)),
                    nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0)),
                    nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0)),
                ]
            )

        def __call__(self, x, *, key=None):
            for norm in self.norms:
                x = 2 * norm(x, use_running_average=True if key is None else None) + 1
            return x

    apply, params, model_state = models.functional_with_state(Two())
    x = jax.random.normal(jax.random.key(0), (8, 3), jnp.float32) + 5.0
    _, update = apply(params, model_state, x, key=jax.random.key(0))
    new = update.apply(model_state)["norms"]
    assert_close(new[0]["mean"], 0.5 * x.mean(axis=0), 1e-6)
    assert_close(new[1]["mean"], 0.1 * jnp.ones(3), 1e-6)
    assert_close(new[1]["var"], 0.9 + 0.1 * 4 * jnp.ones(3), 1e-4)
    assert_close(new[2], model_state["norms"][2])


class KilledError(Exception):
    """What stands for a kill."""


def test_a_resumed_run_has_the_statistics_of_an_uninterrupted_one_bit_by_bit(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, momentum=0.3, meter_window=12, schedule="constant(warmup=8, warmup_from=None)")
    whole = loop.train_and_evaluate(config, tmp_path / "whole")
    chunks, run_chunk = [], _runs.run_chunk

    def stop_after_two(*arguments):
        if len(chunks) == 2:
            raise KilledError
        chunks.append(arguments)
        return run_chunk(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_runs, "run_chunk", stop_after_two)
        with pytest.raises(KilledError):
            loop.train_and_evaluate(config, tmp_path / "run")
    resumed = loop.train_and_evaluate(config, tmp_path / "run")
    plain = lambda state: (state.params, state.algorithm, state.slots, state.model_state)
    jax.tree.map(np.testing.assert_array_equal, plain(resumed.state), plain(whole.state))
    clock = ("wall_seconds", "updates_per_second")
    rows = lambda summary: [{n: v for n, v in row.items() if n not in clock} for row in summary.rows]
    assert rows(resumed) == rows(whole) and "test_loss" in whole.rows[-1]


def test_a_warm_start_has_the_statistics_of_the_checkpoint(tmp_path):
    state = loop.train_and_evaluate(TINY, tmp_path / "first").state
    path = str(tmp_path / "first" / "checkpoints" / "24")
    warm = make_experiment(dataclasses.replace(TINY, start_from=path, seed=1))
    jax.tree.map(np.testing.assert_array_equal, (warm.params, warm.model_state), (state.params, state.model_state))
    params = jax.tree.map(jnp.zeros_like, state.params)
    assert load_model(path, params=params)[1] is None
    with pytest.raises(ValueError, match=r"another model: model_state/norm/mean is float32\[6\] in the checkpoint"):
        load_model(path, params=params, model_state={"norm": {"mean": jnp.zeros(5), "var": jnp.zeros(6)}})
    with pytest.raises(ValueError, match="belongs to another model: params"):
        make_experiment(dataclasses.replace(TINY, model="Mlp", start_from=path))


def test_the_cells_of_a_sweep_have_statistics_of_their_own(tmp_path):
    axes = "num_workers=(3,), learning_rate=(0.2, 0.02), seed=(0, 1)"
    changes = {"schedule": "steps(at=0.5, warmup=6)"}
    results = run_sweep(SweepConfig(dataclasses.replace(TINY, **changes), axes=axes), tmp_path / "sweep")
    for learning_rate, seed in ((0.2, 0), (0.02, 1)):
        cell = {"num_workers": 3, "learning_rate": learning_rate, "seed": seed}
        made = make_experiment(dataclasses.replace(TINY, **changes, **cell))
        state, losses = run(made)
        found = results.sel(cell)
        np.testing.assert_allclose(found.train_loss, losses.reshape(4, 6).mean(axis=1), rtol=1e-4)
        last = made.evaluate(state.params, state.model_state)
        assert float(found.test_loss[-1]) == pytest.approx(float(last["test_loss"]), rel=1e-4)


def test_statistics_stay_float32_in_bfloat16():
    """Also where the mean is large and bfloat16 would lose the variance."""
    state, _ = run(make_experiment(TINY))
    half, _ = run(make_experiment(dataclasses.replace(TINY, precision="bfloat16", width=4)))
    assert {x.dtype for x in jax.tree.leaves(half.model_state)} == {jnp.dtype("float32")}
    for name in ("mean", "var"):
        np.testing.assert_allclose(half.model_state["norm"][name], state.model_state["norm"][name], rtol=0.1, atol=0.02)


def test_a_broken_statistic_is_seen():
    made = make_experiment(TINY)
    state = init_run(made.algorithm, made.params, made.plan, model_state={"norm": {"mean": jnp.array([np.inf, 0.0])}})
    assert broken_leaf(state) == "['model_state']['norm']['mean']"
    with pytest.raises(ValueError, match="model_state must have the structure of the statistics of the model"):
        made.evaluate(made.params)


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_a_block_that_adds_nothing_is_its_shortcut(shortcut):
    """With the second norm of each block at scale 0: relu of the shortcut, and the mean over the pixels."""
    model = models.ResNet20((8, 6, 1), shortcut=shortcut, rngs=nnx.Rngs(0))
    apply, params, model_state = models.functional_with_state(model)
    for block in (part for name, part in params.items() if name.startswith("stage")):
        block["norm2"]["scale"] *= 0
    images = jax.random.normal(jax.random.key(0), (2, 8, 6, 1), jnp.float32)
    logits, _ = jax.jit(apply)(params, model_state, images)
    x = np.maximum(model.conv(images) / np.sqrt(1 + 1e-5), 0)
    for stage, features in ((2, 32), (3, 64)):
        x = x[:, ::2, ::2]
        if shortcut == "projection":
            kernel = np.asarray(params[f"stage{stage}_block1"]["shortcut_conv"]["kernel"])[0, 0]
            x = np.maximum(x @ kernel / np.sqrt(1 + 1e-5), 0)
        else:
            x = np.concatenate([x, np.zeros((*x.shape[:3], features - x.shape[3]), x.dtype)], axis=-1)
    expected = x.mean(axis=(1, 2)) @ params["dense"]["kernel"] + params["dense"]["bias"][None]
    assert_close(logits, expected, 1e-5)


def test_he_initialisation():
    params = models.functional_with_state(models.ResNet20((8, 8, 3), rngs=nnx.Rngs(0)))[1]
    for name, fan_in in (("conv1", 9 * 32), ("conv2", 9 * 64)):
        kernel = params["stage3_block1"][name]["kernel"]
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_in), rel=0.05)
        assert "bias" not in params["stage3_block1"][name]


@pytest.mark.slow
def test_gradients_of_a_wide_network_are_finite_and_reach_everything():
    config = recipes.wrn16_4(
        dataset="digits", model="WideResNet16x4(dropout=0.3)", batch_size=4, num_updates=10, crop_pad=1
    )
    made = make_experiment(config)
    rows = made.batches(made.plan[0])[0]
    result = jax.jit(made.gradient_fn)(made.params, rows, key=made.key, model_state=made.model_state)
    for leaf in jax.tree.leaves(result.grads):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)
    new = result.model_update.apply(made.model_state)
    assert jax.tree.structure(new) == jax.tree.structure(made.model_state)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(new))


CIFAR10 = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "cifar10" / "3.0.2"


needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason="TFDS_DATA_DIR has no cifar10/3.0.2")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["digits", pytest.param("cifar10", marks=[needs_cifar10, pytest.mark.slow])])
def test_resnet20_trains_on_real_images(dataset):
    """Some updates of the recipe with two groups; the loss falls where there are enough of them."""
    updates = {"digits": 20, "cifar10": 2}[dataset]
    config = recipes.resnet20(
        dataset=dataset,
        num_workers=2,
        batch_size=16,
        num_updates=updates,
        schedule="constant(warmup=4)",
        momentum=0.0,
        eval_every=updates,
        log_every=updates,
        flip=False,
        crop_pad=0,
    )
    made = make_experiment(config)
    state, losses = run(made)
    assert np.all(np.isfinite(losses))
    moved = lambda new, old: [bool(np.any(a != b)) for a, b in zip(*map(jax.tree.leaves, (new, old)), strict=True)]
    assert all(moved(state.params, made.params)) and all(moved(state.model_state, made.model_state))
    if dataset == "digits":
        assert losses[-5:].mean() < 0.8 * losses[:5].mean()
