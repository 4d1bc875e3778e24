"""What a config stands for, against what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asyncflax
from asyncflax import data
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.loop import train_and_evaluate

SMALL = TrainConfig(num_workers=4, num_updates=60, batch_size=16, log_every=20, eval_every=30, checkpoint_every=20)


def run(config):
    experiment = make_experiment(config)
    state = asyncflax.init_run(experiment.algorithm, experiment.params, experiment.plan, key=experiment.key)
    losses = []
    for chunk in experiment.plan:
        batches = experiment.batches(chunk)
        state, out = asyncflax.run_chunk(experiment.algorithm, experiment.gradient_fn, state, chunk, batches)
        losses.append(out.losses[: int(chunk.num_events)])
    return experiment, state, np.concatenate(losses)


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, id="plain", marks=pytest.mark.slow), pytest.param({"flip": True, "crop_pad": 2}, id="augmented")],
)
def test_batches_keys_and_augmentation_depend_on_the_event_alone(changes):
    """Other widths, other chunks: the same losses."""
    config = dataclasses.replace(SMALL, **changes)
    _, state, losses = run(config)
    for other in ({"width": 4}, {"log_every": 7}, {"eval_every": 60, "checkpoint_every": 60, "log_every": 60}):
        _, same, same_losses = run(dataclasses.replace(config, **other))
        np.testing.assert_allclose(same_losses, losses, rtol=2e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), same.params, state.params)
    _, _, other_seed = run(dataclasses.replace(config, seed=1))
    assert abs(other_seed - losses).max() > 1e-3


def test_the_recipe_of_caffe_by_hand():
    """u = mu u + m alpha (g + wd w), w = w - u, m = 2 for biases; the learning rate drops for the last fifth."""
    config = dataclasses.replace(
        SMALL,
        num_workers=1,
        num_updates=20,
        momentum=0.9,
        weight_decay=0.1,
        bias_multiplier=2.0,
        schedule="steps(at=0.8)",
    )
    experiment, state, _ = run(config)
    params, gradient_fn = experiment.params, jax.jit(experiment.gradient_fn)
    velocity = jax.tree.map(jnp.zeros_like, params)
    for event in range(20):
        alpha = config.learning_rate * (0.1 if event >= 16 else 1.0)
        rows = data.batch_rows(1437, 16, range(event, event + 1), seed=0)[0]
        key = jax.random.fold_in(experiment.key, event)
        grads = gradient_fn(params, rows, key=key).grads
        for layer in params:
            for name, factor in (("kernel", 1.0), ("bias", 2.0)):
                step = factor * alpha * (grads[layer][name] + 0.1 * params[layer][name])
                velocity[layer][name] = 0.9 * velocity[layer][name] + step
        params = jax.tree.map(lambda w, u: w - u, params, velocity)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), state.params, params)


def test_evaluation_counts_every_test_image_once():
    experiment = make_experiment(dataclasses.replace(SMALL, eval_batch_size=77))  # 360 = 4 * 77 + 52
    found = experiment.evaluate(experiment.params)
    whole = make_experiment(dataclasses.replace(SMALL, eval_batch_size=360)).evaluate(experiment.params)
    assert float(found["test_accuracy"]) == float(whole["test_accuracy"])
    assert float(found["test_loss"]) == pytest.approx(float(whole["test_loss"]), rel=1e-5)
    assert round(float(found["test_accuracy"]) * 360, 3) % 1 == 0


@pytest.mark.parametrize(
    "changes, staleness",
    [
        ({"asynchrony": "queue(service_time=deterministic)"}, "round robin"),
        ({"asynchrony": "law(distribution=constant(staleness=2))"}, "constant"),
        ({"asynchrony": "barrier", "algorithm": "ssgd"}, "barrier"),
        ({"asynchrony": "queue(max_staleness=1, policy=discard)"}, "bounded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_kinds_of_asynchrony(changes, staleness):
    trace = make_experiment(dataclasses.replace(SMALL, **changes)).trace
    late = trace.staleness[8:]
    assert len(trace) == 60
    if staleness == "round robin":
        assert set(late) == {3}
    elif staleness == "constant":
        assert set(late) == {2}
    elif staleness == "barrier":
        assert trace.staleness.reshape(-1, 4).tolist() == [[0, 1, 2, 3]] * 15
    else:
        assert max(late) == 1


def test_only_memoryless_queues_have_a_law():
    assert str(make_experiment(SMALL).law) == "geometric(3)"
    for slower in ("queue(service_time=exponential(mean=2))", "queue(max_staleness=None)"):
        assert str(make_experiment(dataclasses.replace(SMALL, asynchrony=slower)).law) == "geometric(3)"
    for other in ("service_time=gamma", "service_time=exponential(mean=(1, 1, 1, 2))", "max_staleness=3"):
        assert make_experiment(dataclasses.replace(SMALL, asynchrony=f"queue({other})")).law is None


def test_a_drop_of_the_learning_rate_in_rounds_of_synchronous_sgd():
    """Update 30 is in the round of updates 28 to 31, so the next one has the new rate."""
    changes = {"asynchrony": "barrier", "algorithm": "ssgd"}
    experiment, state, _ = run(dataclasses.replace(SMALL, **changes, schedule="steps(at=0.5, factor=0)"))
    assert [float(experiment.schedule(event)) > 0 for event in (0, 31, 32, 59)] == [True, True, False, False]
    _, half, _ = run(dataclasses.replace(SMALL, **changes, num_updates=32))
    jax.tree.map(np.testing.assert_array_equal, state.params, half.params)


def test_the_learning_rate_rises_update_by_update_and_then_drops():
    config = dataclasses.replace(
        SMALL, num_updates=40, learning_rate=0.4, schedule="steps(at=0.5, warmup=8, warmup_from=None)", algorithm="asgd"
    )
    rates = np.array([0.4 * (0.25 + 0.75 * min(t / 8, 1)) * (1.0 if t < 20 else 0.1) for t in range(40)])
    experiment, state, _ = run(config)
    np.testing.assert_allclose(experiment.schedule(np.arange(40)), rates, rtol=1e-6)
    assert len(set(np.asarray(experiment.schedule(np.arange(8, 20))))) == 1, "for the momentum meter"
    half = make_experiment(dataclasses.replace(config, schedule="constant(warmup=8, warmup_from=0.5)"))
    np.testing.assert_allclose([half.schedule(0), half.schedule(4), half.schedule(8)], [0.2, 0.3, 0.4], rtol=1e-6)
    # The server's own steps, by hand.
    params, gradient_fn = [experiment.params], jax.jit(experiment.gradient_fn)
    for event, read in enumerate(experiment.trace.read_version):
        rows = data.batch_rows(1437, 16, range(event, event + 1), seed=0)[0]
        grads = gradient_fn(params[read], rows, key=jax.random.fold_in(experiment.key, event)).grads
        params.append(jax.tree.map(lambda p, g, a=rates[event]: p - a * g, params[-1], grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), state.params, params[-1])


def test_a_warm_up_in_rounds_of_synchronous_sgd():
    changes = {"asynchrony": "barrier", "algorithm": "ssgd", "schedule": "constant(warmup=8, warmup_from=None)"}
    schedule = make_experiment(dataclasses.replace(SMALL, learning_rate=0.4, **changes)).schedule
    expected = [0.1] * 4 + [0.25] * 4 + [0.4] * 4
    np.testing.assert_allclose([schedule(event) for event in range(12)], expected, rtol=1e-6)


def test_the_meter_shows_nothing_before_the_warm_up_is_over(tmp_path):
    """A window needs one learning rate."""
    config = dataclasses.replace(
        SMALL, num_updates=90, schedule="cosine(end=1, warmup=30)", meter_window=24, eval_every=15
    )
    rows = train_and_evaluate(dataclasses.replace(config, checkpoint_every=90), tmp_path / "run").rows
    shown = [row["update"] for row in rows if "implicit_momentum" in row]
    assert shown and min(shown) >= 30 + 24 and rows[1]["learning_rate"] < rows[-1]["learning_rate"]


def test_clipped_gradients():
    """A method behind a transformation is the chain of both, and keeps its hyper-parameters as leaves."""
    params, event = jnp.array([3.0, 4.0]), {"worker": 0, "staleness": 0}
    method = asyncflax.algorithms.nag_asgd(0.1, 0.9)
    algorithm = asyncflax.transform_gradients(optax.clip_by_global_norm(1.0), method)
    assert set(jax.tree.leaves(algorithm)) == set(jax.tree.leaves(method)) == {0.1, 0.9}
    state, plain = algorithm.init(params), method.init(params)
    for grads in (jnp.array([30.0, 40.0]), jnp.array([0.1, 0.2])):
        clipped = grads / jnp.maximum(1.0, jnp.linalg.norm(grads))
        updates, state = algorithm.update(grads, state, params, read_params=params, **event)
        expected, plain = method.update(clipped, plain, params, read_params=params, **event)
        np.testing.assert_allclose(updates, expected, rtol=1e-12)
        np.testing.assert_allclose(algorithm.view(params, state), method.view(params, plain), rtol=1e-12)
    with pytest.raises(TypeError, match="tx must be an optax"):
        asyncflax.transform_gradients(method, method)


def test_a_warm_start_has_the_parameters_of_the_checkpoint_and_all_else_of_the_config(tmp_path):
    config = dataclasses.replace(SMALL, model="Mlp(hidden=4)", num_updates=20, eval_every=20)
    state = train_and_evaluate(config, tmp_path / "first").state
    warm = make_experiment(dataclasses.replace(config, start_from=str(tmp_path / "first" / "checkpoints" / "20")))
    jax.tree.map(np.testing.assert_array_equal, warm.params, state.params)
    begun = dataclasses.replace(config, seed=1, start_from=str(tmp_path / "first" / "checkpoints" / "20"))
    done = train_and_evaluate(begun, tmp_path / "second").rows
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    assert train_and_evaluate(begun, tmp_path / "second").rows == done  # it has what it needs
    (tmp_path / "elsewhere").rename(tmp_path / "first")
    other = dataclasses.replace(
        config, model="Mlp(hidden=5)", start_from=str(tmp_path / "first" / "checkpoints" / "20")
    )
    with pytest.raises(ValueError, match=r"belongs to another model: params/dense/kernel"):
        make_experiment(other)


def test_a_warm_start_by_one_worker_is_a_training_of_its_own(tmp_path):
    """It depends on neither the workers nor the seed nor the method of the run that it begins."""
    first = dataclasses.replace(SMALL, model="Mlp(hidden=4)", num_updates=20, eval_every=20)
    first = dataclasses.replace(
        first, num_workers=1, algorithm="momentum_asgd", learning_rate=0.2, momentum=0.5, seed=3
    )
    expected = train_and_evaluate(first, tmp_path / "first").state.params
    start = "one_worker(num_updates=20, learning_rate=0.2, momentum=0.5, seed=3)"
    for fields in ({"num_workers": 4, "seed": 1}, {"algorithm": "asgd", "momentum": 0.0, "num_updates": 7}):
        made = make_experiment(dataclasses.replace(first, start_from=start, **fields))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), made.params, expected)
    with pytest.raises(ValueError, match=r"config\.start_from: one_worker has no option 'updates'"):
        dataclasses.replace(first, start_from="one_worker(updates=20)").check()
    with pytest.raises(ValueError, match=r"config\.start_from: one_worker needs num_updates"):
        dataclasses.replace(first, start_from="one_worker(learning_rate=0.2)").check()
