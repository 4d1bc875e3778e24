"""The momentum meter: it sees the path of the server, shows 1 - 1/M, survives interruptions, knows where it fails."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asyncflax
from asyncflax import algorithms, meter, queues
from asyncflax.train.checkpoint import Checkpoints
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment, make_meter, why_no_meter
from asyncflax.train.loop import train_and_evaluate

PARAMS = {"kernel": np.arange(6.0).reshape(3, 2) / 6, "bias": np.array([0.5, -0.5])}


def queue(num_workers, num_updates, service_time=None, **options):
    service_time = service_time or queues.exponential()
    return queues.simulate(num_workers=num_workers, num_updates=num_updates, service_time=service_time, **options)


def loss_fn(params, noise):
    """Its gradient is 0.5 sin x - noise, leaf by leaf."""
    parts = jax.tree.map(lambda x, n: jnp.sum(-0.5 * jnp.cos(x) - x * n), params, noise)
    return sum(jax.tree.leaves(parts)), {"twice": 2 * parts["bias"]}


def path_by_hand(trace, noise, *, alpha, mu, decay):
    """What a worker reads as version v and the gradient there, float64 [T + 1, 8]: bias, then kernel."""
    flat = lambda tree: np.concatenate([tree["bias"].reshape(*tree["bias"].shape[:-1], 2), tree["kernel"]], axis=-1)
    noise = flat({"bias": noise["bias"], "kernel": noise["kernel"].reshape(-1, 6)})
    x = np.full((len(trace) + 1, 8), np.nan)
    x[0], u, g = flat({"bias": PARAMS["bias"], "kernel": PARAMS["kernel"].reshape(6)}), 0.0, np.full_like(x, np.nan)
    for t, v in enumerate(trace.read_version):
        g[v] = 0.5 * np.sin(x[v]) - noise[t] + decay * x[v]
        u = mu * u + alpha * g[v]
        x[t + 1] = x[t] - u
    return x, g


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("form", ["inside", "outside"])
def test_the_workers_show_the_path_of_the_server(width, form):
    trace, rng = queue(4, 60), np.random.default_rng(0)
    noise = {"kernel": rng.normal(size=(60, 3, 2)), "bias": rng.normal(size=(60, 2))}
    decay = lambda grads, params: jax.tree.map(lambda g, x: g + 0.25 * x, grads, params)
    gradient_fn = asyncflax.from_loss(loss_fn, has_aux=True)
    watched = meter.watch(gradient_fn, PARAMS, applied=decay)
    algorithm = algorithms.momentum_asgd(0.2, 0.4, form=form, weight_decay=0.25)
    result = asyncflax.run(algorithm, watched, PARAMS, trace, noise, width=width)
    plain = asyncflax.run(algorithm, gradient_fn, PARAMS, trace, noise, width=width)
    np.testing.assert_allclose(result.params["kernel"], plain.params["kernel"], rtol=1e-14)
    np.testing.assert_array_equal(result.aux["twice"], plain.aux["twice"])

    x, g = path_by_hand(trace, noise, alpha=0.2, mu=0.4, decay=0.25)
    momentum = meter.MomentumMeter(learning_rate=0.2, momentum=0.4, window=30)
    momentum.add(trace.read_version, result.aux["meter"])
    seen = momentum.arrays()
    late = set(range(1, 60)) - set(trace.read_version)  # in flight at the end
    assert 0 < len(late) <= 4 and not late & set(seen["meter_versions"])
    np.testing.assert_allclose(seen["meter_params"], x[seen["meter_versions"]], rtol=1e-12)
    np.testing.assert_allclose(seen["meter_grads"], g[seen["meter_versions"]], rtol=1e-12, atol=1e-12)

    measured = momentum.estimate()
    first, last = measured.versions
    assert last - first == 29 and last < min(late) and set(range(last + 2, 60)) & late != set(range(last + 2, 60))
    direct = asyncflax.theory.estimate_momentum(
        x[first : last + 1], g[first : last + 1], learning_rate=0.2, momentum=0.4
    )
    np.testing.assert_allclose(measured[:3], direct, rtol=1e-6)
    assert measured.total == pytest.approx(0.4 + measured.implicit)


def noisy_quadratic(num_workers, mu, seed, *, updates=2500, dimension=64, alpha=0.2, **options):
    trace = queue(num_workers, updates, seed=seed)
    noise = np.random.default_rng(seed).normal(size=(updates, dimension))
    params = jnp.zeros(dimension)
    watched = meter.watch(QUADRATIC, params)
    momentum = meter.MomentumMeter(learning_rate=alpha, momentum=mu, window=updates - 150, **options)
    result = asyncflax.run(algorithms.momentum_asgd(alpha, mu), watched, params, trace, noise)
    momentum.add(trace.read_version, result.aux["meter"])
    return momentum.estimate()


QUADRATIC = asyncflax.from_loss(lambda x, noise: 0.5 * jnp.sum((x - noise) ** 2))


@pytest.mark.parametrize("mu", [0.0, 0.3, -0.09])
@pytest.mark.parametrize("num_workers", [2, 4, 8])
def test_a_noisy_quadratic_shows_one_minus_one_over_m(num_workers, mu):
    for seed in (0, 1):
        measured = noisy_quadratic(num_workers, mu, seed, confidence=0.99)
        assert measured.low < 1 - 1 / num_workers < measured.high
        assert measured.high - measured.low < 0.15
        assert measured.total == pytest.approx(mu + measured.implicit)


def test_any_order_any_portions_and_what_was_saved_give_the_same():
    trace, rng = queue(4, 300), np.random.default_rng(0)
    events = meter.Readout(rng.normal(size=(300, 3)), rng.normal(size=(300, 3)))
    part = lambda rows: (trace.read_version[rows], meter.Readout(*(x[rows] for x in events)))
    make = lambda: meter.MomentumMeter(learning_rate=0.1, window=100)
    whole, mixed, resumed = make(), make(), make()
    whole.add(*part(np.arange(300)))
    for rows in np.array_split(np.arange(300), 7):
        mixed.add(*part(rng.permutation(rows)))
    assert mixed.estimate() == whole.estimate() is not None
    assert len(mixed.arrays()["meter_versions"]) < 150  # old versions are forgotten
    resumed.restore({})
    assert resumed.estimate() is None
    early = make()
    early.add(*part(np.arange(160)))
    resumed.restore(early.arrays())
    resumed.add(*part(np.arange(160, 300)))
    assert resumed.estimate() == whole.estimate()
    empty = make()
    empty.restore(make().arrays())
    assert empty.estimate() is None


def test_a_worker_that_dies_does_not_stop_the_meter():
    """Its version is never delivered; the newest window without a hole lies behind it."""
    rng, momentum = np.random.default_rng(0), meter.MomentumMeter(learning_rate=0.1, window=50)
    versions = np.delete(np.arange(200), 120)
    momentum.add(versions, meter.Readout(*rng.normal(size=(2, 199, 3))))
    assert momentum.estimate().versions == (150, 199)
    momentum.add(np.array([200, 120]), meter.Readout(*rng.normal(size=(2, 2, 3))))
    assert momentum.estimate().versions == (151, 200)


def test_a_window_with_a_drop_of_the_learning_rate_shows_nothing():
    rng = np.random.default_rng(0)
    momentum = meter.MomentumMeter(learning_rate=lambda t: np.where(t < 100, 0.1, 0.01), window=50)
    found = []
    for v in range(1, 200, 7):
        momentum.add(np.arange(v, v + 7), meter.Readout(*rng.normal(size=(2, 7, 3))))
        found.append((v + 6, momentum.estimate() is not None))
    # Version v + 1 is made by event v: versions 51..100 need events to 99, versions 100..149 those from 100 on.
    assert [there for _, there in found] == [50 <= last <= 100 or last >= 149 for last, _ in found]


@pytest.mark.parametrize("change", ["rest", "nan", "stopped"])
def test_where_nothing_can_be_told(change):
    x, g = np.random.default_rng(0).normal(size=(2, 100, 3))
    x, g = {"rest": (0 * x, 0 * g), "nan": (np.where(x > 2, np.nan, x), g), "stopped": (x, g)}[change]
    momentum = meter.MomentumMeter(learning_rate=0.0 if change == "stopped" else 0.1, window=99)
    momentum.add(np.arange(100), meter.Readout(x, g))
    assert momentum.estimate() is None


def test_which_coordinates():
    """As many from every leaf as it has, the same ones for the same seed, none twice."""
    params = {"a": jnp.arange(1000.0), "b": -1 - jnp.arange(4.0), "c": jnp.array(5000.0), "d": jnp.zeros((0, 3))}
    gradient_fn = lambda p, batch: (batch, p)
    read = lambda **options: meter.watch(gradient_fn, params, **options)(params, 0.0).aux["meter"]
    seen = read(coordinates=65)
    assert len(np.unique(seen.params)) == 65 and (seen.params == seen.grads).all()
    assert (np.sum(seen.params < 0), np.sum(seen.params == 5000)) == (4, 1)
    assert len(read(coordinates=9).params) == 9 and len(read(coordinates=10**6).params) == 1005
    assert read(coordinates=2).params[0] < 1000  # more leaves than coordinates: the largest
    np.testing.assert_array_equal(read().params, read().params)
    assert (read(seed=1).params != read().params).any()


def test_the_price_on_the_device():
    """Of the compiled program: hardly any arithmetic, and nothing as large as the parameters is stored."""
    params = {"first": jnp.ones((64, 256)), "second": jnp.ones((256, 256)), "bias": jnp.ones(256)}
    loss = lambda p, x: jnp.mean(jnp.tanh(jnp.tanh(x @ p["first"]) @ p["second"] + p["bias"][None]) ** 2)
    decay = lambda grads, params: jax.tree.map(lambda g, x: g + 0.1 * x, grads, params)
    plan, algorithm = asyncflax.make_plan(queue(8, 100)), algorithms.momentum_asgd(0.1, 0.3, weight_decay=0.1)
    state, batches = asyncflax.init_run(algorithm, params, plan), jnp.ones((100, 32, 64))
    flops, temporary = [], []
    for gradient_fn in (asyncflax.from_loss(loss), meter.watch(asyncflax.from_loss(loss), params, applied=decay)):
        step = jax.jit(lambda f, s, b: asyncflax.run_chunk(algorithm, f, s, plan[0], b))
        compiled = step.lower(gradient_fn, state, batches).compile()
        flops.append(compiled.cost_analysis()["flops"])
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    assert flops[1] < 1.001 * flops[0]
    assert temporary[1] < temporary[0] + 10_000  # the smaller matrix has 65,536 bytes


# --- In training -----------------------------------------------------------------------------------------------------

DIGITS = TrainConfig(  # that of configs/digits.py, shorter, with a drop
    num_workers=8,
    momentum=0.3,
    learning_rate=0.2,
    schedule="steps(at=0.9)",
    num_updates=700,
    eval_every=100,
    checkpoint_every=100,
    meter_window=500,
)


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def compiled_once(made, monkeypatch):
    share(made, monkeypatch)


def share(made, monkeypatch):
    """Trainings that differ in the meter alone share what they are made of, and so the compiled programs."""

    def make(config):
        name = str(dataclasses.replace(config, meter_window=0))
        if name not in made:
            made[name] = make_experiment(config)
        return made[name]._replace(config=config)

    monkeypatch.setattr("asyncflax.train.loop.make_experiment", make)


def rows(workdir):
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("wall_seconds", "updates_per_second")} for row in found]


def interrupt(monkeypatch, config, workdir, update):
    """A training that ends right after the checkpoint of an update."""
    save = Checkpoints.save

    def save_and_stop(self, at, *args, **options):
        save(self, at, *args, **options)
        if at == update:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, workdir)


@pytest.fixture(scope="module")
def twin(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        share(made, monkeypatch)
        folder = tmp_path_factory.mktemp("twin") / "run"
        return folder, train_and_evaluate(DIGITS, folder)


def test_digits_with_eight_workers_show_seven_eighths(twin):
    """Measured over 4 seeds x 4 windows of 480 updates: mean 0.849, half-width 0.06 to 0.17, all hold 0.875."""
    folder, summary = twin
    (row,) = [row for row in summary.rows if "implicit_momentum" in row]
    assert row["update"] == 600  # there are 500 versions; at 700 the window has the drop at 630 in it
    assert row["implicit_momentum_low"] < 0.875 < row["implicit_momentum_high"]
    assert abs(row["implicit_momentum"] - 0.875) < 0.1
    assert row["implicit_momentum_high"] - row["implicit_momentum_low"] < 0.3
    assert row["total_momentum"] == pytest.approx(row["implicit_momentum"] + 0.3)
    assert f"momentum meter  implicit {row['implicit_momentum']:.3f}, 95 % in" in summary.table
    assert "implicit_momentum_low" in (folder / "metrics.csv").read_text().splitlines()[0]


def test_a_resumed_training_shows_the_same(compiled_once, twin, monkeypatch, tmp_path):
    for update in (300, 600):
        interrupt(monkeypatch, DIGITS, tmp_path / "run", update)
    train_and_evaluate(DIGITS, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(twin[0])


@pytest.mark.slow
def test_a_run_without_a_meter_gets_one_when_it_goes_on(compiled_once, monkeypatch, tmp_path):
    """Checkpoints without its arrays are no obstacle; and the table says why there is nothing."""
    off, short, long = (dataclasses.replace(DIGITS, meter_window=window) for window in (0, 150, 650))
    with monkeypatch.context() as patch:
        patch.setattr(meter.MomentumMeter, "arrays", lambda self: {})
        interrupt(monkeypatch, long, tmp_path / "short", 400)
    assert not list((tmp_path / "short").rglob("extra.npz"))
    shutil.copytree(tmp_path / "short", tmp_path / "long")

    summary = train_and_evaluate(short, tmp_path / "short")
    assert [row["update"] for row in summary.rows if "implicit_momentum" in row] == [600]
    summary = train_and_evaluate(long, tmp_path / "long")
    assert not any("implicit_momentum" in row for row in summary.rows)
    assert "momentum meter  none, no 650 updates in a row at one learning rate" in summary.table
    assert "momentum meter  none, meter_window is 0" in train_and_evaluate(off, tmp_path / "long").table


LAW = asyncflax.staleness.geometric(3.0)


@pytest.mark.parametrize(
    "changes, trace, reason",
    [
        ({"meter_window": 0}, queue(4, 600), "meter_window is 0"),
        ({"algorithm": "multi_asgd"}, queue(4, 600), "multi_asgd is no plain heavy ball"),
        ({"algorithm": "nag_asgd"}, queue(4, 600), "nag_asgd is no plain heavy ball"),
        (
            {"weight_decay": 0.1, "algorithm": "momentum_asgd(decay_at=server)"},
            queue(4, 600),
            "weight decay is at the server",
        ),
        ({"algorithm": "momentum_asgd(decay_at=server)"}, queue(4, 600), ""),
        ({"weight_decay": 0.1, "algorithm": "momentum_asgd(form=outside)"}, queue(4, 600), ""),
        ({"learning_rate": 0.0}, queue(4, 600), "the learning rate is 0"),
        ({}, LAW.trace(600), "some versions are read more than once"),
        ({}, queue(4, 600, max_staleness=4), "some versions are read more than once"),
        ({}, queue(4, 600, max_staleness=4, policy="discard"), "some versions are read more than once"),
        (
            {},
            queues.barrier(num_workers=4, num_updates=600, service_time=queues.exponential()),
            "some versions are read more than once",
        ),
        ({}, queue(4, 400), "fewer than meter_window=500 versions are delivered"),
        ({"algorithm": "asgd"}, queue(1, 600), ""),
        ({}, queue(4, 600, queues.stragglers(1)), ""),
    ],
)
def test_why_there_is_no_meter(changes, trace, reason):
    assert why_no_meter(TrainConfig(**changes), trace) == reason


def test_what_the_heavy_ball_receives():
    """Decay at the parameters read and the multiplier of biases, as the method itself applies them."""
    made = make_experiment(TrainConfig(num_workers=2, weight_decay=0.5, bias_multiplier=2.0, num_updates=600))
    gradient_fn = lambda params, batch: (0.0, jax.tree.map(jnp.ones_like, params))
    watched, momentum = make_meter(made._replace(gradient_fn=gradient_fn))
    params = jax.tree.map(lambda x: x + 3.0, made.params)
    seen = watched(params, 0).aux["meter"]
    multiplier = seen.grads / (1 + 0.5 * seen.params)
    biases, kernels = 10 + 10 + 11, 11 + 11 + 11  # of the 64 coordinates
    assert np.sum(np.isclose(multiplier, 2.0)) == biases and np.sum(np.isclose(multiplier, 1.0)) == kernels
    assert momentum.momentum == 0.0 and momentum.window == 500


# --- Bad arguments ---------------------------------------------------------------------------------------------------


def gradient(params, batch):
    return batch, params


THREE = meter.Readout(np.zeros((3, 2)), np.zeros((3, 2)))


def add(*portions):
    momentum = meter.MomentumMeter(learning_rate=0.1)
    for versions, readout in portions:
        momentum.add(np.array(versions), readout)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: meter.watch(3, PARAMS), TypeError, "gradient_fn must be a function"),
        (lambda: meter.watch(gradient, PARAMS, applied=3), TypeError, "applied must be a function"),
        (lambda: meter.watch(gradient, PARAMS, coordinates=0), ValueError, "coordinates must be an integer >= 1"),
        (lambda: meter.watch(gradient, PARAMS, seed=-1), ValueError, "seed must be an integer >= 0"),
        (lambda: meter.watch(gradient, {}), ValueError, "params must hold numbers"),
        (
            lambda: meter.watch(lambda p, b: ((b, [b]), p), PARAMS)(PARAMS, 1.0),
            TypeError,
            "gradient_fn must report nothing or a dict",
        ),
        (
            lambda: meter.watch(meter.watch(gradient, PARAMS), PARAMS)(PARAMS, 1.0),
            ValueError,
            "already reports 'meter'; watch it only once",
        ),
        (
            lambda: meter.watch(gradient, PARAMS, applied=lambda g, p: g["bias"])(PARAMS, 1.0),
            ValueError,
            "the result of `applied` must have the structure of its arguments",
        ),
        (lambda: meter.MomentumMeter(learning_rate=-1.0), ValueError, "learning_rate must be finite"),
        (lambda: meter.MomentumMeter(learning_rate=0.1, momentum=2.0), ValueError, "momentum must be finite"),
        (lambda: meter.MomentumMeter(learning_rate=0.1, window=5), ValueError, "window must be an integer >= 12"),
        (
            lambda: meter.MomentumMeter(learning_rate=0.1, confidence=1.0),
            ValueError,
            r"confidence must be .* in \(0, 1\)",
        ),
        (lambda: add(([1, 2], THREE)), ValueError, "a row for each of the E events"),
        (lambda: add(([1, 2, 2], THREE)), ValueError, "version 2 was read twice"),
        (lambda: add(([1, 2, 3], THREE), ([4, 5, 1], THREE)), ValueError, "version 1 was read twice"),
        (
            lambda: add(([1, 2, 3], THREE), ([4], meter.Readout(np.zeros((1, 3)), np.zeros((1, 3))))),
            ValueError,
            "readout has 3 coordinates, but earlier ones had 2",
        ),
        (lambda: TrainConfig(meter_window=-1).check(), ValueError, "config.meter_window must be an integer >= 0"),
        (lambda: TrainConfig(meter_window=5).check(), ValueError, "config.meter_window must be an integer >= 12"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_version_0_may_be_read_by_all():
    add(([0, 0, 1], THREE), ([0, 2, 3], THREE))


def test_a_clipped_gradient_is_what_the_momentum_receives():
    """The way for people with their own loops: the transformation in front of the method is the meter's `applied`."""
    clip = optax.clip(0.01)
    applied = lambda grads, params: clip.update(grads, clip.init(params), params)[0]
    watched = meter.watch(QUADRATIC, jnp.zeros(4), applied=applied)
    algorithm = asyncflax.transform_gradients(clip, algorithms.momentum_asgd(0.1, 0.5))
    result = asyncflax.run(algorithm, watched, jnp.zeros(4), queue(1, 50), np.ones((50, 4)))
    x, g = result.aux["meter"]
    steps = np.diff(np.asarray(x), axis=0)
    np.testing.assert_allclose(steps[1:] - 0.5 * steps[:-1], -0.1 * np.asarray(g)[1:-1], atol=1e-12)
    assert np.all(np.asarray(g) == -0.01)
