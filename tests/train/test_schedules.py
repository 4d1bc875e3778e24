"""Learning-rate schedules by name, against Optax and by hand."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asyncflax.train import schedules
from asyncflax.train.config import TrainConfig
from asyncflax.train.method import learning_rates, make_algorithm

RUN = {"num_updates": 100, "num_workers": 4}


def rates(text, learning_rate=0.5, **changes):
    config = dataclasses.replace(TrainConfig(**RUN, learning_rate=learning_rate, schedule=text), **changes)
    return np.asarray(jax.vmap(learning_rates(config))(jnp.arange(config.num_updates)))


BY_HAND = {
    "constant": lambda t: 1.0,
    "constant(warmup=20)": lambda t: min(t / 20, 1),
    "constant(warmup=20, warmup_from=None)": lambda t: 0.25 + 0.75 * min(t / 20, 1),
    "cosine": lambda t: (1 + math.cos(math.pi * t / 100)) / 2,
    "cosine(end=0.1)": lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t / 100)) / 2,
    "linear": lambda t: 1 - t / 100,
    "linear(begin=0.8, end=0.2)": lambda t: 1 - 0.8 * max(t - 80, 0) / 20,
    "linear(begin=0.1, warmup=20)": lambda t: min(t / 20, 1 - max(t - 20, 0) / 80),
    "steps": lambda t: 1.0 if t < 50 else 0.1 if t < 75 else 0.01,
    "steps(at=0.3, factor=0.5, warmup=10)": lambda t: min(t / 10, 1) * (1.0 if t < 30 else 0.5),
}


@pytest.mark.parametrize("text", BY_HAND)
def test_a_schedule_by_hand(text):
    np.testing.assert_allclose(rates(text), [0.5 * BY_HAND[text](t) for t in range(100)], rtol=1e-5, atol=1e-7)


def test_a_cosine_after_a_warm_up_is_that_of_optax():
    expected = jax.vmap(optax.warmup_cosine_decay_schedule(0.0, 0.5, 20, 100))(jnp.arange(100))
    np.testing.assert_allclose(rates("cosine(warmup=20)"), expected, rtol=1e-5, atol=1e-7)


def test_a_schedule_of_optax_multiplies_the_learning_rate():
    text = "optax.exponential_decay(init_value=1, transition_steps=10, decay_rate=0.5)"
    np.testing.assert_allclose(rates(text), 0.5 * 0.5 ** (np.arange(100) / 10), rtol=1e-5)


def test_a_schedule_of_ones_own_is_given_what_it_asks_for(tmp_path, monkeypatch):
    (tmp_path / "my_rates.py").write_text(
        "def slow(learning_rate, num_workers):\n    return lambda t: learning_rate / (num_workers + t)\n"
        "def wrong():\n    return lambda t: 0.5 - t\n"
        "def none():\n    return 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    np.testing.assert_allclose(rates("my_rates.slow"), 0.5 / (4 + np.arange(100)), rtol=1e-6)
    for name, message in (
        ("wrong", r"wrong must return one .* got -0\.25 at update 1"),
        ("none", "must return a function"),
    ):
        with pytest.raises(
            (ValueError, TypeError), match=f"config.schedule: my_rates.{message}|my_rates.none {message}"
        ):
            rates(f"my_rates.{name}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("cosine(warmup=100)", "warmup must be less than num_updates=100, got 100"),
        ("cosine(warmup=-1)", "warmup must be an integer >= 0"),
        ("cosine(end=1.5)", r"end must be finite and in \[0, 1\]"),
        ("constant(warmup_from=0.5)", "warmup_from=0.5 needs warmup, which is 0"),
        ("constant(warmup=5, warmup_from=1.5)", r"warmup_from must be finite and in \[0, 1\]"),
        ("steps(at=(0.5, 0.2))", "at must increase by at least one update"),
        ("steps(at=1.5)", r"at must be finite and in \[0, 1\]"),
        ("linear(begin=1)", r"begin must be finite and in \[0, 1\)"),
        ("optax.exponential_decay", "exponential_decay needs init_value"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        rates(text)
    assert str(raised.value).startswith("config.schedule") and "\n" not in str(raised.value)


def test_a_schedule_takes_a_traced_learning_rate():
    """As a sweep has it: one program for all learning rates."""
    config = TrainConfig(**RUN, schedule="cosine(warmup=10)")
    params, event = jnp.ones(3), {"worker": jnp.int32(0), "staleness": jnp.int32(0), "read_params": jnp.ones(3)}

    def first_two_steps(learning_rate):
        algorithm = make_algorithm(config, {"learning_rate": learning_rate})
        updates, state = algorithm.update(params, algorithm.init(params), params, **event)
        return updates, algorithm.update(params, state, params, **event)[0]

    found = jax.jit(jax.vmap(first_two_steps))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(found[0], np.zeros((2, 3)))
    np.testing.assert_allclose(found[1], -np.array([[0.05] * 3, [0.1] * 3]), rtol=1e-6)


def test_a_name_is_a_function_of_the_module():
    assert set(BY_HAND) == {text for text in BY_HAND if hasattr(schedules, text.partition("(")[0])}
