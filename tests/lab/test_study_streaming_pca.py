"""Streaming PCA: the rule against its formula, ensembles against the limits, and the study on top of them."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from looks import check, kept
from problems import assert_close

import asyncflax
from asyncflax import staleness, theory
from asyncflax.errors import RunError
from asyncflax.lab.claims import load_all
from asyncflax.lab.studies.streaming_pca import Results, StreamingPcaConfig, run_study
from asyncflax.lab.studies.streaming_pca.config import cells_of
from asyncflax.lab.studies.streaming_pca.report import differs
from asyncflax.lab.studies.streaming_pca.results import evaluate, optimal_delay, tolerable_delay
from asyncflax.theory import streaming_pca
from asyncflax.theory.problems import StreamingPca

PROBLEM = StreamingPca()
EIGENVALUES = np.array(PROBLEM.eigenvalues)
KINDS = {"fresh": 0, "constant": 7, "law": staleness.geometric(3.0), "queue": theory.ExponentialQueue(4)}
GENERIC = np.array([0.3, 0.8, -0.4, 0.2]) / np.linalg.norm([0.3, 0.8, -0.4, 0.2])


# --- The rule ---------------------------------------------------------------------------------------------------------


def async_msgd(start, samples, read_version, eta, mu):
    """v_{k+1} = v_k + mu (v_k - v_{k-1}) + eta (I - u u^T) X_k X_k^T u with u = v_{k - tau_k}, as it is written."""
    v = [np.array(start)]
    for k, x in enumerate(samples):
        u, before = v[read_version[k]], v[max(k - 1, 0)]
        v.append(v[k] + mu * (v[k] - before) + eta * (np.eye(len(u)) - np.outer(u, u)) @ np.outer(x, x) @ u)
    return np.array(v)


@pytest.mark.parametrize(
    "kind, mu, stream",
    [("fresh", 0.8, "signs"), ("constant", -0.3, "gaussian"), ("law", 0.8, "signs"), ("queue", 0.8, "signs")],
)
def test_async_msgd_is_momentum_asgd_with_the_negative_gradient(kind, mu, stream):
    """The formula, the general engine and the ensemble give the same v_k."""
    problem = StreamingPca(stream=stream)
    options = {"learning_rate": 0.01, "momentum": mu, "num_updates": 96, "num_trajectories": 2, "every": 24}
    ensemble = problem.ensemble(KINDS[kind], start=GENERIC, seed=3, **options)
    trace, samples = ensemble.replay(1)
    v = async_msgd(GENERIC, samples, trace.read_version, 0.01, mu)
    assert_close(ensemble.paths[:, 1], v[::24])
    result = asyncflax.run(asyncflax.algorithms.momentum_asgd(0.01, mu), problem.gradient, GENERIC, trace, samples)
    assert_close(result.params, v[-1])


def test_without_delay_and_momentum_it_is_ojas_rule():
    ensemble = PROBLEM.ensemble(0, learning_rate=0.01, num_updates=64, num_trajectories=2, start=GENERIC)
    _, samples = ensemble.replay(0)
    v = GENERIC
    for x in samples:
        y = x @ v
        v = v + 0.01 * y * (x - y * v)
    assert_close(ensemble.paths[-1, 0], v)


def test_rotations_change_nothing():
    """Another basis, the engine in it: v turns with the stream."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    trace = staleness.constant(3).trace(50)
    samples = np.random.default_rng(1).normal(size=(50, 4)) * np.sqrt(EIGENVALUES)
    algorithm = asyncflax.algorithms.momentum_asgd(0.01, 0.5)
    plain = asyncflax.run(algorithm, PROBLEM.gradient, GENERIC, trace, samples).params
    turned = asyncflax.run(algorithm, PROBLEM.gradient, rotation @ GENERIC, trace, samples @ rotation.T).params
    assert_close(turned, rotation @ np.asarray(plain))


@pytest.mark.parametrize("stream", ["signs", "gaussian"])
def test_the_stream_has_the_covariance_and_the_fourth_moments_that_the_limits_need(stream):
    samples = StreamingPca(stream=stream).ensemble(0, learning_rate=0.0, num_updates=20000, num_trajectories=1)
    x = samples.replay(0)[1]
    np.testing.assert_allclose(x.T @ x / len(x), np.diag(EIGENVALUES), atol=0.15)
    fourth = (x[:, :, None] * x[:, None, :]) ** 2
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(fourth.mean(axis=0)[off], np.outer(EIGENVALUES, EIGENVALUES)[off], rtol=0.08)


def test_errors_at_the_optima_and_at_the_saddles():
    assert [float(PROBLEM.error(sign * PROBLEM.axis(i))) for i in (0, 1, 3) for sign in (1, -1)] == [0, 0, 2, 2, 2, 2]
    assert float(PROBLEM.error(np.array([1.5, 0.5, 0.0, 0.0]))) == 0.5


BAD = {
    "order": (lambda: StreamingPca((1.0, 2.0)), ValueError, "must be at least two and descend"),
    "no gap": (lambda: StreamingPca((2.0, 2.0, 1.0)), ValueError, "the first strictly"),
    "one": (lambda: StreamingPca((2.0,)), ValueError, "at least two"),
    "negative": (lambda: StreamingPca((2.0, -1.0)), ValueError, "eigenvalues must be finite"),
    "array": (lambda: StreamingPca(EIGENVALUES), TypeError, "eigenvalues must be a tuple"),
    "stream": (lambda: StreamingPca(stream="gausian"), ValueError, "did you mean 'gaussian'"),
    "axis": (lambda: PROBLEM.axis(4), ValueError, "index must be at most 3"),
    "start": (
        lambda: PROBLEM.ensemble(0, learning_rate=0.1, num_updates=1, num_trajectories=1, start=np.ones(3)),
        ValueError,
        r"start must have the shape \(4,\), got \(3,\)",
    ),
    "ode start": (lambda: streaming_pca.ode(np.zeros(4), EIGENVALUES, 1.0), ValueError, "not all zero"),
    "ode shape": (lambda: streaming_pca.ode(np.ones(3), EIGENVALUES, 1.0), ValueError, "start must be 4 finite"),
    "ode time": (lambda: streaming_pca.ode(GENERIC, EIGENVALUES, -1.0), ValueError, "time must be finite"),
    "momentum": (lambda: streaming_pca.sde(EIGENVALUES, momentum=1.0), ValueError, r"momentum must be .* in \(-1, 1\)"),
    "near": (lambda: streaming_pca.sde(EIGENVALUES, near=4), ValueError, "near must be at most 3"),
    "regime": (lambda: streaming_pca.tolerable_delay(0.5, 0.1, regime="pde", gamma=0.1), ValueError, "'ode', 'sde'"),
    "gamma": (lambda: streaming_pca.tolerable_delay(0.5, 0.1, regime="sde", gamma=0.6), ValueError, "gamma must be"),
    "h": (lambda: streaming_pca.delay_margin(0.5, 0.0), ValueError, "h must be finite"),
    "accuracy": (lambda: streaming_pca.phases(EIGENVALUES, 0.1, accuracy=0.5), ValueError, "accuracy must be"),
    "eigenvalues": (lambda: streaming_pca.sde([1.0]), ValueError, "at least two numbers"),
    "phases": (lambda: streaming_pca.phases([1.0, 1.0], 0.1, accuracy=0.01), ValueError, "the first strictly"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


# --- The limits -------------------------------------------------------------------------------------------------------


def test_the_closed_form_solves_the_ode():
    """Euler steps of 1e-5, also for a start that is far from the leading direction."""
    for start in (GENERIC, np.array([0.01, 0.0, 1.0, 0.0])):
        v, size = start / np.linalg.norm(start), 1e-5
        for _ in range(40000):
            v = v + size / 0.5 * (EIGENVALUES * v - (v @ (EIGENVALUES * v)) * v)
        np.testing.assert_allclose(streaming_pca.ode(start, EIGENVALUES, 0.4, momentum=0.5), v, atol=2e-5)
    far = streaming_pca.ode(GENERIC, EIGENVALUES, [1e3, 1e6])
    assert_close(far, np.tile(PROBLEM.axis(0), (2, 1)))


def test_momentum_only_rescales_time():
    s = np.linspace(0, 3, 7)
    plain = streaming_pca.ode(GENERIC, EIGENVALUES, s)
    assert_close(streaming_pca.ode(GENERIC, EIGENVALUES, s / 2, momentum=0.5), plain)
    assert_close(streaming_pca.ode(GENERIC, EIGENVALUES, s / 8, momentum=0.875), plain)


def deviation(eta, mu, tau, slow=1.2, count=256):
    """Root mean square distance of v_k from the ODE at five times, over trajectories."""
    every = round(slow * (1 - mu) / eta / 5)
    ensemble = PROBLEM.ensemble(
        tau, learning_rate=eta, momentum=mu, num_updates=5 * every, num_trajectories=count, every=every, start=GENERIC
    )
    want = streaming_pca.ode(GENERIC, EIGENVALUES, ensemble.updates * eta, momentum=mu)
    return np.sqrt(np.mean(np.sum((ensemble.paths - want[:, None]) ** 2, axis=-1)))


@pytest.mark.parametrize("mu, tau", [(0.0, 0), (0.8, 0), (0.8, 3)])
def test_trajectories_tend_to_the_ode_as_the_root_of_the_step_size(mu, tau):
    """V(s) at s = k eta: single trajectories, as the step size falls by 16; a fixed delay does not count."""
    rates = np.array([16e-3, 4e-3, 1e-3]) * (1 - mu)
    errors = [deviation(eta, mu, tau) for eta in rates]
    slope = np.polyfit(np.log(rates), np.log(errors), 1)[0]
    assert 0.45 < slope < 0.6
    assert errors[-1] < 0.12


def test_eta_over_one_minus_mu_fixed_leaves_the_curve_unchanged():
    """1 / (1 - mu) doubled twice, eta halved twice: E v as a function of k is the same curve."""
    curves = []
    for mu in (0.5, 0.75, 0.875):
        ensemble = PROBLEM.ensemble(
            0, learning_rate=2e-3 * (1 - mu), momentum=mu, num_updates=600, num_trajectories=4096, every=100,
            start=GENERIC,
        )  # fmt: skip
        curves.append(ensemble.paths)
    want = streaming_pca.ode(GENERIC, EIGENVALUES, ensemble.updates * 2e-3)
    for paths in curves:
        noise = 4.5 * paths.std(axis=1) / 64
        assert np.all(np.abs(paths.mean(axis=1) - curves[0].mean(axis=1)) < 2 * noise + 0.02)
        assert np.all(np.abs(paths.mean(axis=1) - want) < noise + 0.03)


@pytest.mark.parametrize("mu, tau", [(0.0, 0), (0.8, 0), (0.8, 10)])
def test_the_stationary_variance_at_the_optimum_is_that_of_the_sde(mu, tau):
    """Monte Carlo interval, and 3 % for a step size that is not zero."""
    eta, count = 1e-3 * (1 - mu), 8192
    ensemble = PROBLEM.ensemble(
        tau, learning_rate=eta, momentum=mu, num_updates=2500, num_trajectories=count, start=PROBLEM.axis(0)
    )
    scaled = ensemble.paths[-1, :, 1:] ** 2 / eta
    want = streaming_pca.sde(EIGENVALUES, momentum=mu).variance(np.inf)[1:]
    at_end = streaming_pca.sde(EIGENVALUES, momentum=mu).variance(2500 * eta)[1:]
    np.testing.assert_allclose(at_end, want, rtol=0.01)
    interval = 4 * scaled.std(axis=0) / count**0.5
    assert np.all(np.abs(scaled.mean(axis=0) - at_end) < interval + 0.03 * at_end)


@pytest.mark.parametrize("mu, tau", [(0.0, 0), (0.8, 10)])
def test_the_escape_from_the_saddle_grows_as_the_sde_says(mu, tau):
    """E v_1^2 / eta from e_2 while it is small: its course, and the rate of its logarithm."""
    eta, count = 2e-4 * (1 - mu), 2048
    ensemble = PROBLEM.ensemble(
        tau, learning_rate=eta, momentum=mu, num_updates=8000, num_trajectories=count, every=1000
    )
    scaled = ensemble.paths[..., 0] ** 2 / eta
    process = streaming_pca.sde(EIGENVALUES, momentum=mu, near=1)
    want = np.array([process.variance(k * eta)[0] for k in ensemble.updates])
    inside = want * eta < 0.02  # where the linearisation holds
    inside[0] = False  # both are 0 there
    assert np.count_nonzero(inside) >= 5
    interval = 4.5 * scaled.std(axis=1) / count**0.5
    assert np.all((np.abs(scaled.mean(axis=1) - want) < interval + 0.05 * want)[inside])


def test_directions_above_a_saddle_grow_and_below_it_rest():
    process = streaming_pca.sde(EIGENVALUES, near=1)
    assert list(np.sign(process.drift)) == [1, 0, -1, -1]
    variance = process.variance(np.inf)
    assert variance[0] == np.inf and variance[1] == 0.0
    assert_close(variance[2:], [6 / 2, 3 / 4])
    assert_close(process.variance(0.0, start=np.arange(4.0)), np.arange(4.0))


def test_the_stationary_variance_is_the_limit_of_the_exact_one():
    """theory.stationary_variance of the linearised recursion, with a delay, as the step size falls."""
    for mu, tau in ((0.0, 5), (0.8, 0), (0.8, 5)):
        eta, gap = 1e-4, EIGENVALUES[0] - EIGENVALUES[1:]
        exact = [
            theory.stationary_variance(tau, eta * g, momentum=mu, sigma=np.sqrt(EIGENVALUES[0] * low) / g)
            for g, low in zip(gap, EIGENVALUES[1:], strict=True)
        ]
        want = eta * streaming_pca.sde(EIGENVALUES, momentum=mu).variance(np.inf)[1:]
        np.testing.assert_allclose(exact, want, rtol=0.01)


def test_the_phases_have_the_lengths_that_were_derived():
    eta, mu, accuracy, delta = 5e-5, 0.5, 0.01, 0.3
    lengths = streaming_pca.phases(EIGENVALUES, eta, momentum=mu, accuracy=accuracy, delta=delta)
    every = 1000
    ensemble = PROBLEM.ensemble(
        0, learning_rate=eta, momentum=mu, num_updates=every * 100, num_trajectories=128, every=every
    )
    square = ensemble.paths**2
    escape = ensemble.updates[np.argmax(square[..., 0].mean(axis=1) >= delta**2)]
    assert escape == pytest.approx(lengths.escape, rel=0.1)
    # The typical trajectory crosses the sphere at the speed of the ODE.
    first, last = (np.argmax(square[..., 0] >= level, axis=0) for level in (delta**2, 1 - delta**2))
    assert every * np.median(last - first) == pytest.approx(lengths.traverse, rel=0.05)
    settled = np.argmax(square[..., 1] <= accuracy, axis=0)
    assert every * np.median(settled - last) == pytest.approx(lengths.settle, rel=0.2)
    assert streaming_pca.phases(EIGENVALUES, 0.1, momentum=mu, accuracy=0.01).settle == np.inf


@pytest.mark.parametrize("mu", [-0.3, -0.09, 0.0, 0.5, 0.9])
def test_the_delay_margin_inverts_the_stability_limit(mu):
    for tau in (1, 2, 3, 7, 15, 31):
        assert streaming_pca.delay_margin(mu, theory.stability_limit(tau, mu)) == pytest.approx(tau, rel=1e-9)
    assert streaming_pca.delay_margin(mu, 2 * (1 + mu)) < 0
    h = 1e-6
    small = np.pi / 2 * (1 - mu) / h - 1 / (1 - mu) + 0.5
    assert streaming_pca.delay_margin(mu, h) == pytest.approx(small, rel=1e-6)


def test_the_two_statements_about_delays_have_their_exponents():
    for regime, power in (("ode", 1.0), ("sde", 0.5)):
        at = lambda mu, eta, regime=regime: streaming_pca.tolerable_delay(mu, eta, regime=regime, gamma=0.25)
        assert at(0.9, 1e-3) / at(0.8, 1e-3) == pytest.approx(0.25)
        assert at(0.9, 1e-4) / at(0.9, 1e-3) == pytest.approx(10 ** (power - 0.25))


# --- The study --------------------------------------------------------------------------------------------------------

SMALL = StreamingPcaConfig(
    momenta=(0.7, 0.8),
    learning_rates=(4e-3,),
    margins=(1.0, 1.4),
    slow_time=12.0,
    records=12,
    replicates=5,
    trajectories=64,
)
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(__file__).parents[2] / ".pytest_cache" / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}
COMMAND = "python launch/streaming_pca.py --config=configs/streaming_pca.py --workdir=runs/streaming_pca"


def test_tolerable_and_optimal_delays_of_known_curves():
    delays = np.array([0.0, 10.0, 20.0, 30.0])
    assert tolerable_delay(delays, np.array([1.0, 1.1, 1.2, 4.8]), 1.0) == pytest.approx(
        20 + 10 * np.log(2 / 1.2) / np.log(4)
    )
    assert np.isnan(tolerable_delay(delays, np.ones(4), 0.5))
    paths = np.exp(-np.outer([1.0, 0.5, 0.4, 0.0], np.arange(9.0)))  # ever slower in updates, but tau + 1 workers
    assert optimal_delay(delays, paths, 0.5) == 20.0


@pytest.mark.parametrize(
    "interval, verdict",
    [((1.2, 1.3), "seen"), ((0.5, 0.6), "seen"), ((0.98, 1.05), "refuted"), ((1.0, 1.2), "not decided")],
)
def test_a_ratio_near_one_refutes_a_difference(interval, verdict):
    assert differs(interval) == verdict


def test_a_study_writes_results_claims_and_a_figure_and_goes_on(tmp_path):
    folder = tmp_path / "study"
    with kept() as figures:
        study = run_study(SMALL, folder, command=COMMAND)
    check(figures["streaming_pca.png"])
    results = study.results
    assert results.tolerable.shape == results.optimal.shape == (1, 2, 5)
    assert np.all(np.diff(results.tolerable.mean(axis=-1)[0]) < 0)  # more momentum, less delay
    assert np.all(np.abs(results.tolerable / results.margin[..., None] - 1.1) < 0.35)
    claims = load_all(folder / "claims")
    assert len(claims) == 3 and all(claim.interval[0] <= claim.value <= claim.interval[1] for claim in claims)
    assert all(claim.seeds == 5 and claim.command == COMMAND and claim.confidence == 0.95 for claim in claims)
    assert study.figure.stat().st_size < 200_000
    verdicts = {claim.name.removeprefix("streaming-pca-"): claim.verdict for claim in claims}
    assert verdicts["tolerable-delay"] == "seen" and verdicts["not-momentum"] == "seen"
    with np.load(folder / "results.npz") as saved:
        for name in Results._fields:
            np.testing.assert_array_equal(saved[name], getattr(results, name))
            assert len(saved[f"{name}.axes"]) == saved[name].ndim
    assert all(claim.cpu_minutes > 0 for claim in claims)
    # The same config reads what is there; a lost cell is made again, with the same bits.
    cell = folder / "cells" / "queue.npz"
    before = cell.read_bytes(), study.figure.read_bytes()
    cell.unlink()
    again = run_study(SMALL, folder, command=COMMAND)
    assert (cell.read_bytes(), study.figure.read_bytes()) == before
    assert again.table == study.table
    # A claim follows from the cells; where it was measured stays, the command is that of now.
    claim = claims[0]
    changed = dataclasses.replace(claim, machine="64 CPU cores", command="python launch/other.py", cpu_minutes=3.0)
    changed.save(folder / "claims", overwrite=True)
    run_study(SMALL, folder, command=COMMAND)
    assert load_all(folder / "claims")[0] == dataclasses.replace(claim, machine="64 CPU cores", cpu_minutes=3.0)
    dataclasses.replace(claim, paper="another").save(folder / "claims", overwrite=True)
    run_study(SMALL, folder, command=COMMAND)
    assert load_all(folder / "claims") == claims
    (folder / "claims" / f"{claim.name}.json").unlink()  # as if the process had been stopped before it wrote it
    run_study(SMALL, folder, command=COMMAND)
    assert load_all(folder / "claims") == [dataclasses.replace(claim, cpu_minutes=0.0), *claims[1:]]
    with pytest.raises(RunError, match="seed was 0, now it is 1"):
        run_study(dataclasses.replace(SMALL, seed=1), folder, command=COMMAND)


BAD_CONFIGS = {
    "momenta": ({"momenta": (0.9, 0.8)}, "at least two increasing values"),
    "one momentum": ({"momenta": (0.9,)}, "at least two increasing values"),
    "momentum of 1": ({"momenta": (0.9, 1.0)}, "below 1"),
    "list": ({"momenta": 0.9}, "config.momenta must be a tuple"),
    "margins": ({"margins": (1.0, 0.5)}, "config.margins must be increasing"),
    "records": ({"records": 13}, "multiple of 12"),
    "replicates": ({"replicates": 1}, "config.replicates must be an integer >= 2"),
    "learning rate": ({"learning_rates": (0.1,)}, "tolerates only a delay below 2"),
    "stream": ({"stream": "noise"}, "stream must be one of"),
    "workers": ({"workers": 1}, "config.workers"),
    "tolerance": ({"tolerance": 0.0}, "config.tolerance"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configs_are_refused_before_anything_is_written(case, tmp_path):
    fields, message = BAD_CONFIGS[case]
    with pytest.raises(RunError, match=message):
        run_study(dataclasses.replace(SMALL, **fields), tmp_path / "study", command=COMMAND)
    assert not (tmp_path / "study").exists()


def test_margins_that_end_too_early_are_said():
    flat = {cell.name: np.ones((SMALL.records + 1, SMALL.replicates)) for cell in cells_of(SMALL)}
    with pytest.raises(ValueError, match="ends before the error is 1"):
        evaluate(SMALL, flat)


def test_the_launcher(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    flags = ["--config=configs/streaming_pca.py:fast", "--config.momenta=(0.7,0.8)"]
    flags += ["--config.learning_rates=(4e-3,)", "--config.margins=(1.0,1.4)", "--config.records=12"]
    process = subprocess.run(
        [sys.executable, "launch/streaming_pca.py", *flags, f"--workdir={tmp_path / 'study'}"],
        cwd=root,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_ENABLE_X64": "0", **CACHE},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert "exponent in 1 - mu" in process.stdout and (tmp_path / "study" / "streaming_pca.png").exists()
    for claim in load_all(tmp_path / "study" / "claims"):
        assert claim.command.startswith("python launch/streaming_pca.py --config=configs/streaming_pca.py:fast ")
        assert str(tmp_path) not in claim.command and claim.cpu_minutes > 0


def test_the_gradient_is_that_of_the_loss_on_the_sphere():
    """Where |v| = 1 it is the projected Euclidean one."""
    loss, gradient = PROBLEM.gradient(GENERIC, np.ones(4))
    euclidean = jax.grad(lambda v: PROBLEM.gradient(v, np.ones(4))[0])(GENERIC)
    assert_close(gradient, euclidean - (euclidean @ GENERIC) * GENERIC)
    assert_close(gradient @ GENERIC, 0.0)
    assert float(loss) == pytest.approx(-((GENERIC.sum()) ** 2) / 2)
