"""What stands around a method: clipping, masks of weight decay, a moving average; what an optimizer of Optax gets."""

from __future__ import annotations

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyncflax import algorithms, init_run, make_plan, run, run_chunk, staleness, transforms
from asyncflax.base import AsyncAlgorithm
from asyncflax.train import options
from asyncflax.train.config import GIVEN, TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.loop import train_and_evaluate
from asyncflax.train.method import averaged, can_trace, make_algorithm, of_gradients

PARAMS = {"layer": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}, "norm": {"scale": jnp.full(2, 2.0)}}
GRADS = jax.tree.map(lambda x: x / 2, PARAMS)  # of ones: 8 numbers
SGD = TrainConfig(algorithm="asgd", learning_rate=1.0)


def step(config, numbers=None):
    algorithm = make_algorithm(config, numbers)
    event = {"worker": jnp.int32(0), "staleness": jnp.int32(0), "read_params": PARAMS, "value": jnp.float32(0)}
    updates, _ = algorithm.update(GRADS, algorithm.init(PARAMS), PARAMS, **event)
    return {path[-1].key: float(x.ravel()[0]) for path, x in jax.tree_util.tree_leaves_with_path(updates)}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, (-1, -1, -1)),
        ({"weight_decay": 0.5}, (-2, -2, -2)),
        ({"weight_decay": 0.5, "decay_mask": "weights"}, (-2, -1, -1)),
        ({"weight_decay": 0.5, "decay_mask": "weights", "algorithm": "asgd(decay_at=server)"}, (-2, -1, -1)),
        ({"weight_decay": 0.5, "bias_multiplier": 3.0}, (-2, -6, -2)),
        ({"weight_decay": 0.5, "bias_multiplier": 3.0, "decay_mask": "weights"}, (-2, -3, -1)),
        ({"clip_norm": 2**0.5}, (-0.5, -0.5, -0.5)),
        ({"clip_norm": 100.0}, (-1, -1, -1)),
        ({"clip_norm": 2**0.5, "weight_decay": 0.5}, (-1.5, -1.5, -1.5)),
        ({"clip_norm": 2**0.5, "weight_decay": 0.5, "bias_multiplier": 2.0, "decay_mask": "weights"}, (-1.5, -1, -0.5)),
    ],
)
def test_a_step_by_hand(changes, expected):
    config = dataclasses.replace(SGD, **changes)
    found = step(config)
    np.testing.assert_allclose([found[name] for name in ("kernel", "bias", "scale")], expected, rtol=1e-6)


def test_numbers_instead_of_those_of_the_config():
    """As a sweep gives them, traced: also where the config has what does nothing."""
    numbers = {"clip_norm": 2**0.5, "weight_decay": 0.5, "bias_multiplier": 2.0, "learning_rate": 2.0}
    traced = jax.jit(lambda numbers: make_step(SGD, numbers))(numbers)
    np.testing.assert_allclose([traced["kernel"], traced["bias"], traced["scale"]], [-3, -6, -3], rtol=1e-6)
    without = jax.jit(lambda numbers: make_step(SGD, numbers))({"clip_norm": 0.0})
    np.testing.assert_allclose([*without.values()], -1)


def make_step(config, numbers):
    algorithm = make_algorithm(config, numbers)
    event = {"worker": jnp.int32(0), "staleness": jnp.int32(0), "read_params": PARAMS, "value": jnp.float32(0)}
    updates, _ = algorithm.update(GRADS, algorithm.init(PARAMS), PARAMS, **event)
    return {path[-1].key: x.ravel()[0] for path, x in jax.tree_util.tree_leaves_with_path(updates)}


def test_an_option_of_the_method_is_a_number_too():
    config = TrainConfig(algorithm="optax.adamw(b1=0.9)", momentum=0.0)
    assert step(config, {"algorithm.weight_decay": 1.0}) != step(config)
    assert step(config, {"algorithm.weight_decay": 1e-4}) == step(config)


@pytest.mark.parametrize("name", options.makers(algorithms, AsyncAlgorithm))
def test_all_numbers_of_the_methods_can_be_traced(name):
    own = inspect.signature(getattr(algorithms, name)).parameters
    numbers = [p.name for p in own.values() if "float" in str(p.annotation) and p.name not in GIVEN]
    config = TrainConfig(algorithm=name, num_workers=2)
    assert [number for number in numbers if not can_trace(config, f"algorithm.{number}")] == []
    assert not any(can_trace(config, f"algorithm.{p.name}") for p in own.values() if p.annotation in ("bool", "str"))


def test_the_mask_of_an_optimizer_of_optax():
    config = TrainConfig(algorithm="optax.adamw(weight_decay=0.5)", learning_rate=1.0)
    everywhere, masked = step(config), step(dataclasses.replace(config, decay_mask="weights"))
    assert everywhere["kernel"] == masked["kernel"]
    assert masked["bias"] == masked["scale"] == pytest.approx(everywhere["bias"] + 0.5 * 2.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"momentum": 0.9}, "config.momentum=0.9, but optax.adamw is an Optax transformation; set it to 0"),
        ({"weight_decay": 0.1}, "config.weight_decay=0.1, but optax.adamw .* set it to 0"),
        ({"bias_multiplier": 2.0}, "config.bias_multiplier=2.0, but optax.adamw .* set it to 1"),
        ({"algorithm": "optax.sgd", "decay_mask": "weights"}, "config.decay_mask='weights', but optax.sgd has no mask"),
    ],
)
def test_what_an_optimizer_of_optax_cannot_be_given(changes, message):
    with pytest.raises(ValueError, match=message):
        make_algorithm(dataclasses.replace(TrainConfig(algorithm="optax.adamw"), **changes))


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_a_moving_average_by_hand(decay):
    """The mean of all parameters after an update, until there are 1 / (1 - decay) of them."""
    trace, target = staleness.constant(2).trace(num_updates=40), jnp.arange(3.0)
    config = TrainConfig(algorithm="momentum_asgd", learning_rate=0.1, momentum=0.5, ema_decay=decay)
    value_and_grad = jax.value_and_grad(lambda w, b: jnp.sum((w - target * b) ** 2))
    noise = jax.random.normal(jax.random.key(0), (40,))
    plan, algorithm, visited = make_plan(trace, cuts=range(40)), make_algorithm(config), []
    state = init_run(algorithm, jnp.zeros(3), plan)
    for chunk in plan:
        state, _ = run_chunk(algorithm, value_and_grad, state, chunk, chunk.take(noise))
        visited.append(np.asarray(state.params))
    expected = visited[0]
    for t, params in enumerate(visited[1:], start=2):
        expected = expected + max(1 - decay, 1 / t) * (params - expected)
    np.testing.assert_allclose(averaged(state.algorithm, state.params), expected, rtol=1e-5)
    if decay == 1.0:
        np.testing.assert_allclose(expected, np.mean(visited, axis=0), rtol=1e-5)
    without = make_algorithm(dataclasses.replace(config, ema_decay=0.0))
    plain = run(without, value_and_grad, jnp.zeros(3), trace, noise)
    np.testing.assert_array_equal(plain.params, state.params)


def test_an_average_needs_the_parameters():
    tx = transforms.average_params(0.9)
    with pytest.raises(ValueError, match="average_params needs params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    half = tx.init(jnp.ones(2, jnp.bfloat16))
    assert half.params_average.dtype == jnp.float32


def test_evaluations_have_the_average_beside_the_parameters(tmp_path):
    config = TrainConfig(model="Mlp", num_workers=4, num_updates=60, eval_every=30, ema_decay=0.9, learning_rate=0.2)
    summary = train_and_evaluate(config, tmp_path / "run")
    row, state = summary.rows[-1], summary.state
    expected = make_experiment(config).evaluate(averaged(state.algorithm, state.params))
    assert row["ema_test_loss"] == pytest.approx(float(expected["test_loss"]), rel=1e-6)
    assert row["ema_test_loss"] != row["test_loss"] and "moving average" in summary.table
    assert summary.rows[0]["ema_test_loss"] == summary.rows[0]["test_loss"]


@pytest.mark.parametrize("decay_mask", ["all", "weights"])
@pytest.mark.parametrize("multiplier", [1.0, 2.0])
def test_the_meter_knows_what_a_step_is_made_of(decay_mask, multiplier):
    """A step of SGD with learning rate 1, whether weight decay is the method's own or not."""
    options = {"clip_norm": 0.5, "weight_decay": 0.1, "decay_mask": decay_mask, "bias_multiplier": multiplier}
    config = dataclasses.replace(SGD, **options)
    change = of_gradients(config, decay_of_method=True)
    grads, _ = change.update(GRADS, change.init(PARAMS), PARAMS, read_params=PARAMS)
    found = {path[-1].key: float(x.ravel()[0]) for path, x in jax.tree_util.tree_leaves_with_path(grads)}
    assert found == pytest.approx({name: -x for name, x in step(config).items()}, rel=1e-6)
