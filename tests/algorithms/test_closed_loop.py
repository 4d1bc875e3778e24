"""Closed-loop momentum: it reaches its target where the momentum of asynchrony is known, and a twin agrees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import reference
from problems import SOFTMAX_PARAMS, assert_close

import asyncflax
from asyncflax import algorithms, meter, queues, staleness
from asyncflax.train.checkpoint import Checkpoints
from asyncflax.train.config import TrainConfig
from asyncflax.train.loop import train_and_evaluate

UPDATES, SIZE = 10_000, 64


def loss_fn(x, noise):
    return 0.5 * jnp.sum((x - noise) ** 2)


gradient_fn = asyncflax.from_loss(loss_fn)
NOISE = np.random.default_rng(0).normal(size=(UPDATES, SIZE)).astype(np.float32)


def numbers(state):
    return [float(optax.tree.get(state, name)) for name in ("explicit_momentum", "implicit_momentum")]


@pytest.mark.parametrize("num_workers", [1, 2, 4, 8, 16])
def test_total_momentum_reaches_the_target(num_workers):
    """The noisy quadratic; the meter, which sees the iterates, agrees within its interval (of 99 %)."""
    target, rate = 0.6, 0.2 / (1 + num_workers / 8)
    trace = queues.simulate(num_workers=num_workers, num_updates=UPDATES, service_time=queues.exponential(), seed=1)
    algorithm = algorithms.closed_loop_momentum(rate, target, num_workers=num_workers, window=5000)
    plan = asyncflax.make_plan(trace, cuts=[UPDATES - 2000])
    watched = meter.watch(gradient_fn, jnp.zeros(SIZE))
    state = asyncflax.init_run(algorithm, jnp.zeros(SIZE), plan)
    explicit = []
    for chunk in plan:
        state, out = asyncflax.run_chunk(algorithm, watched, state, chunk, chunk.take(NOISE))
        explicit.append(numbers(state.algorithm)[0])
    expected = target - (1 - 1 / num_workers)
    assert explicit[-1] == pytest.approx(expected, abs=0.06)

    momentum = meter.MomentumMeter(learning_rate=rate, momentum=float(np.mean(explicit)), window=1800, confidence=0.99)
    events = plan[1].events
    readout = meter.Readout(*(np.asarray(x)[: len(trace.worker[events])] for x in out.aux["meter"]))
    momentum.add(trace.read_version[events], readout)
    measured = momentum.estimate()
    slack = 1e-6 + abs(explicit[1] - explicit[0])  # the meter takes the explicit momentum for constant
    low, high = (explicit[-1] + end for end in (measured.low, measured.high))
    assert low - slack <= target <= high + slack


def test_explicit_momentum_changes_its_sign_with_asynchrony():
    found = []
    for num_workers in (1, 8):
        trace = queues.simulate(num_workers=num_workers, num_updates=2000, service_time=queues.exponential())
        algorithm = algorithms.closed_loop_momentum(0.05, 0.5, num_workers=num_workers)
        result = asyncflax.run(algorithm, gradient_fn, jnp.zeros(SIZE), trace, NOISE[:2000])
        found.append(numbers(result.state)[0])
    assert found[0] == pytest.approx(0.5, abs=1e-3) and found[1] < -0.25


def test_geometric_staleness_is_measured_as_well():
    trace = staleness.geometric(mean=3.0).trace(num_updates=UPDATES, seed=3)
    algorithm = algorithms.closed_loop_momentum(0.2, 0.5, num_workers=4, window=4000, reads="independent")
    result = asyncflax.run(algorithm, gradient_fn, jnp.zeros(SIZE), trace, NOISE)
    assert numbers(result.state)[1] == pytest.approx(0.75, abs=0.08)


@pytest.mark.parametrize(
    "kind, width, form, reads",
    [
        ("exponential", 3, "inside", "once"),
        ("exponential", 1, "outside", "once"),
        ("geometric", 4, "inside", "independent"),
        ("assigned", 1, "outside", "independent"),
    ],
)
def test_it_is_what_a_plain_server_does(kind, width, form, reads):
    """Softmax regression in float64, with weight decay, one velocity, every number of the loop, which has opened."""
    length = 260
    options = {"num_workers": 4, "form": form, "reads": reads, "weight_decay": 0.05, "gain": 0.1, "window": 50}
    trace = problems.some_traces(length)[kind]
    rows = np.random.default_rng(4).integers(32, size=(length, 4))
    algorithm = algorithms.closed_loop_momentum(0.2, 0.7, **options)
    loss = asyncflax.from_loss(problems.softmax_loss)
    result = asyncflax.run(algorithm, loss, SOFTMAX_PARAMS, trace, rows, width=width)

    twin = reference.ClosedLoop(problems.flat(SOFTMAX_PARAMS), 0.2, 0.7, **options)
    events = trace.worker.tolist(), trace.read_version.tolist()
    gradient = lambda t, worker, theta, state: (*problems.SOFTMAX.loss_and_gradient(theta, rows[t]), None)
    expected = reference.simulate(twin, gradient, *events)
    assert twin.mu != 0.0
    assert_close(jnp.array(numbers(result.state)), np.array([twin.mu, twin.mu_s]), 1e-9)
    assert_close(result.params, expected.theta, 1e-9)


def test_grids_of_targets_and_gains():
    trace = queues.simulate(num_workers=2, num_updates=400, service_time=queues.exponential())

    def final(target, gain):
        algorithm = algorithms.closed_loop_momentum(0.05, target, num_workers=2, gain=gain)
        state = asyncflax.run(algorithm, gradient_fn, jnp.zeros(SIZE), trace, NOISE[:400]).state
        return optax.tree.get(state, "explicit_momentum")

    targets, gains = jnp.array([0.2, 0.8]), jnp.array([0.01, 0.5])
    grid = jax.vmap(final)(targets, gains)
    np.testing.assert_allclose(grid, [final(*pair) for pair in zip(targets, gains, strict=True)], rtol=1e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gain": 0.0}, r"gain must be finite and in \(0, 1\], got gain=0.0"),
        ({"limit": 1.5}, r"limit must be finite and in \[0, 1\]"),
        ({"window": 5}, "window must be an integer >= 20, got window=5"),
        ({"reads": "twice"}, "reads must be one of 'once', 'independent', got 'twice'"),
        ({"coordinates": 0}, "coordinates must be an integer >= 1"),
        ({"momentum": 2.0}, "momentum must be finite and in"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        algorithms.closed_loop_momentum(0.1, num_workers=2, **options)


def test_a_training_logs_the_loop_and_goes_on_with_it(monkeypatch, tmp_path):
    """Interrupted after it has opened: the same numbers, bit by bit, in the metrics and in the checkpoint."""
    config = TrainConfig(
        model="Mlp(hidden=8)",
        algorithm="closed_loop_momentum",
        momentum=0.7,
        num_workers=2,
        num_updates=160,
        log_every=20,
        eval_every=80,
        checkpoint_every=40,
    )
    summary = train_and_evaluate(config, tmp_path / "whole")
    explicit = [row["explicit_momentum"] for row in summary.rows[1:]]  # after 20, 40, ... updates
    assert set(explicit[:5]) == {0.0} and len(set(explicit[5:])) == 3, "it opens after 10 (2 + 8) updates"

    save = Checkpoints.save

    def save_and_stop(self, update, *args, **options):
        save(self, update, *args, **options)
        if update == 120:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path / "parts")
    resumed = train_and_evaluate(config, tmp_path / "parts")
    assert [row["explicit_momentum"] for row in resumed.rows[1:]] == explicit
    jax.tree.map(np.testing.assert_array_equal, resumed.state.algorithm, summary.state.algorithm)
