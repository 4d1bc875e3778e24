"""The planner: its numbers against the theory, the clocks of queues and simulated runs; its files and its launcher."""

import csv
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import asyncflax
from asyncflax import queues, theory
from asyncflax.theory import descent, planner
from asyncflax.theory.planner import _asynchrony

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan():
    return planner.make([1, 4, 5], target_momentum=0.8)


def test_the_mean_is_that_of_the_theory(plan):
    one, four, five = plan.forecasts
    best = theory.best_hyper_parameters(0, plan.condition_number)
    assert (one.mean_momentum, one.mean_step_size) == pytest.approx(best[:2], abs=1e-4)
    assert plan.condition_number == pytest.approx(322.0, abs=0.05) and plan.target_momentum == pytest.approx(0.8)
    assert [f.implicit_momentum for f in plan.forecasts] == [0.0, 0.75, 0.8]
    assert [f.rule_momentum for f in plan.forecasts] == pytest.approx([0.8, 0.05, 0.0], abs=1e-5)
    # At M = 5 asynchrony alone is the momentum that is best for one worker: as many updates.
    assert (five.mean_momentum, five.mean_updates) == pytest.approx((0.0, 1.0), abs=1e-3)
    assert four.mean_momentum == pytest.approx(0.041, abs=1e-3) and four.mean_step_size == pytest.approx(
        14.56, abs=0.01
    )
    assert four.mean_limit == theory.stability_limit(theory.ExponentialQueue(4), four.mean_momentum)
    assert (one.run_momentum, one.mean_updates, one.run_updates, one.time) == (one.mean_momentum, 1.0, 1.0, 1.0)


def test_what_a_run_needs_is_what_its_mean_square_needs(plan):
    """Both ends of the range shrink equally fast, and no momentum on a coarse grid does better."""
    four, kappa = plan.forecasts[1], plan.condition_number
    queue = theory.ExponentialQueue(4)
    assert four.run_step_size < four.run_limit < four.mean_step_size
    assert four.run_limit == theory.mean_square_limit(queue, four.run_momentum)
    ends = [
        theory.mean_square_radius(queue, h, momentum=four.run_momentum)
        for h in four.run_step_size / np.array([1, kappa])
    ]
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    assert math.log(plan.target_momentum) / math.log(max(ends)) == pytest.approx(four.run_updates, rel=1e-3)
    for momentum in np.arange(-0.4, 0.8, 0.1):
        for step in theory.mean_square_limit(queue, momentum) * np.array([0.5, 0.8, 0.9, 0.95, 0.98]):
            radius = theory.mean_square_radius(queue, step / kappa, momentum=momentum)
            assert radius >= max(ends) or theory.mean_square_radius(queue, step, momentum=momentum) >= max(ends)


def test_the_target_is_what_the_recursion_reaches():
    """In the exponential queue and along a trace of one with workers in turn, for a given spectrum."""
    spectrum = theory.Spectrum([0.5, 2.0], [3.0, 1.0], noise=0.5, loss_noise=0.5)
    for exponential, law in ((True, queues.exponential()), (False, queues.deterministic())):
        two = planner.make([1, 2], service_time=law, spectrum=spectrum, target=0.2)
        assert (two.condition_number, two.curvature_max) == (4.0, 2.0)
        for f in two.forecasts:
            along = theory.ExponentialQueue(f.num_workers)
            if not exponential and f.num_workers > 1:
                along = queues.simulate(num_workers=f.num_workers, num_updates=20_000, service_time=law)
            updates = math.ceil(f.updates * two.updates - 1e-9)
            losses = descent.expected_losses(spectrum, along, updates, step_size=f.step_size / 2.0, momentum=f.momentum)
            assert losses[-1] <= 0.8 + 1e-12 < losses[-2]  # a fifth of 3 + 1


def test_noise_is_what_many_workers_average_away():
    """Without it, one worker is the fastest: momentum helps it alone. With much of it, time is shared out."""
    calm, noisy = (planner.make([1, 4, 16], condition_number=9.0, noise=noise) for noise in (0.0, 30.0))
    assert calm.recommended.num_workers == 1 and noisy.recommended.num_workers == 16
    assert [f.time for f in noisy.forecasts] == pytest.approx([1, 1 / 4, 1 / 16], rel=0.15)
    assert planner.recommendation(noisy).count("\n") == 2


def test_more_workers_must_be_worth_it():
    plan = planner.make([1, 2], condition_number=9.0)
    slower = lambda *times: plan._replace(
        forecasts=[plan.forecasts[0]._replace(num_workers=m, time=t) for m, t in zip((1, 2, 4), times, strict=True)]
    )
    assert [
        slower(*times).recommended.num_workers for times in ((1.0, 0.95, 0.92), (1.0, 0.8, 0.75), (1.0, 0.8, 0.5))
    ] == [
        1,
        2,
        4,
    ]


def test_the_clock(plan):
    assert [f.hardware for f in plan.forecasts] == pytest.approx([1.0, 1 / 4, 1 / 5])
    harmonic = lambda m: sum(1 / k for k in range(1, m + 1))  # the mean of the slowest of m exponential times
    assert [f.barrier for f in plan.forecasts] == pytest.approx([1.0, harmonic(4) / 4, harmonic(5) / 5], rel=0.03)
    # Unequal workers make 1/3 + 1 updates a second; with barriers two gradients take three seconds.
    two = _asynchrony.of_queue(queues.deterministic([3.0, 1.0]), 2)
    assert two.seconds == pytest.approx(1 / (1 / 3 + 1)) and two.barrier == pytest.approx(3 / 2)
    measured = planner.make([1, 2], condition_number=9.0, update_seconds=[0.1, 0.08]).forecasts[1]
    assert measured.hardware == pytest.approx(0.8) and measured.time == measured.hardware * measured.updates


def test_other_service_times_have_no_one_momentum():
    plan = planner.make([1, 4], service_time=queues.deterministic(), condition_number=9.0)
    four = plan.forecasts[1]
    assert math.isnan(four.implicit_momentum) and math.isnan(four.rule_momentum) and four.staleness == 3.0
    assert four.run_step_size == four.mean_step_size and four.run_limit == four.mean_limit
    assert "not as one momentum" in planner.advice(plan) and planner.table(plan).splitlines()[-1].split()[1] == "-"
    gamma = planner.make([2], service_time=queues.gamma(0.5), condition_number=4.0).forecasts[0]
    assert (
        gamma.run_step_size < gamma.run_limit < theory.mean_square_limit(theory.ExponentialQueue(2), gamma.run_momentum)
    )
    assert gamma.staleness == pytest.approx(1.0, abs=0.01)


def test_a_trace():
    simulated = queues.simulate(num_workers=2, num_updates=4000, service_time=queues.deterministic(mean=0.2))
    plan = planner.make(trace=simulated, condition_number=9.0)
    (two,) = plan.forecasts
    assert two.num_workers == 2 and two.hardware == pytest.approx(1 / 2, rel=0.02) and math.isnan(two.barrier)
    untimed = asyncflax.staleness.constant(3).trace(4000)
    plan = planner.make(trace=untimed, condition_number=9.0)
    assert plan.forecasts[0].num_workers == 4 and math.isnan(plan.forecasts[0].time)
    assert "There is no clock" in planner.advice(plan) and "seconds are unknown" in planner.recommendation(plan)


def test_curvatures_give_the_step_size_itself():
    plan = planner.make([1], curvature_min=0.5, curvature_max=4.5)
    assert plan.condition_number == 9.0 and plan.forecasts[0].run_limit == pytest.approx(2 * (1 + 0.25), abs=1e-4)
    step_size = plan.forecasts[0].step_size / 4.5
    assert planner.table(plan).splitlines()[4].split()[-1] == f"{step_size:.4g}"
    assert f"step size {step_size:.3g} (" in planner.recommendation(plan)
    assert planner.condition_number_of(0.25) == pytest.approx(9.0)


def test_advice(plan):
    text = planner.advice(plan)
    assert "Asynchrony alone has the momentum mu* at 5 workers" in text
    assert "Gradients have no noise here" in text
    assert "At 4, 5 workers the step size that is best for the mean is more than a run survives" in text


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"num_workers": []}, ValueError, r"num_workers must be a list of increasing numbers, got \[\]"),
        ({"num_workers": [4, 2]}, ValueError, "num_workers must be a list of increasing numbers"),
        ({"num_workers": [0]}, ValueError, "num_workers must be an integer >= 1, got num_workers=0"),
        ({"service_time": "gamma"}, TypeError, "service_time must be a law of asyncflax.queues"),
        ({"target_momentum": 1.0}, ValueError, "target_momentum must be below 1"),
        ({"target_momentum": 0.0}, ValueError, r"target_momentum must be finite and in \(0, 1\]"),
        ({"condition_number": 1.0}, ValueError, "condition_number must be finite and in"),
        ({"condition_number": 9.0, "target_momentum": 0.5}, ValueError, "target_momentum and condition_number exclude"),
        ({"curvature_min": 1.0}, ValueError, "curvature_min=1.0 needs curvature_max"),
        ({"curvature_min": 1.0, "curvature_max": 0.5}, ValueError, "curvature_max must be finite and in"),
        ({"update_seconds": [1.0]}, ValueError, "update_seconds has 1 values for the 5 numbers of workers"),
        ({"num_workers": [2], "update_seconds": [1.0]}, ValueError, "update_seconds needs the seconds of 1 worker"),
        ({"trace": 3}, TypeError, "trace must be a Trace"),
        ({"noise": -1.0}, ValueError, "noise must be finite and"),
        ({"target": 1.0}, ValueError, "target must be below 1"),
        ({"spectrum": 3}, TypeError, "spectrum must be a theory.Spectrum"),
        ({"spectrum": theory.Spectrum.even(9.0), "noise": 1.0}, ValueError, "spectrum and noise exclude each other"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, error, message):
    with pytest.raises(error, match=message):
        planner.make(**arguments)


def test_a_trace_excludes_groups_and_service_times():
    trace = asyncflax.staleness.constant(1).trace(10)
    for arguments in ({"num_workers": [2]}, {"service_time": queues.exponential()}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} and trace exclude each other"):
            planner.make(trace=trace, **arguments)


def test_files_are_not_overwritten_unasked(plan, tmp_path):
    paths = planner.save(plan, tmp_path / "new" / "folder")
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert [int(row["num_workers"]) for row in rows] == [1, 4, 5]
    assert float(rows[1]["run_limit"]) == plan.forecasts[1].run_limit
    content = json.loads(paths[1].read_text())
    assert content["curvature_max"] is None and content["forecasts"][1]["time"] == plan.forecasts[1].time
    assert content["recommended"] == plan.recommended.num_workers and content["spectrum"]["noise"] == 0.0
    assert paths[2].read_bytes()[1:4] == b"PNG"
    with pytest.raises(FileExistsError, match=r"plan.csv exists; pass overwrite=True"):
        planner.save(plan, paths[0].parent)
    planner.save(plan, paths[0].parent, overwrite=True)


def launch(*flags):
    process = subprocess.run(
        [sys.executable, "launch/plan.py", *flags],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in process.stderr, process.stderr
    return process.returncode, process.stdout, process.stderr


def test_the_launcher(tmp_path):
    flags = (
        "--num_workers=1,2",
        "--service_time=deterministic",
        "--condition_number=9",
        "--noise=9",
        f"--workdir={tmp_path}",
    )
    status, out, err = launch(*flags)
    assert status == 0 and err == "" and out.startswith("Set: 2 workers,") and f"{tmp_path}/plan.png" in out
    status, out, err = launch(*flags)
    assert status == 1 and err == f"error: {tmp_path}/plan.csv exists; pass --overwrite to replace it.\n"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--num_workers=1,x"], "--num_workers must be a list of numbers such as 1,2,4, got '1,x'."),
        (["--service_time=gama"], "--service_time must be one of"),
        (["--trace=nothing.npz"], "no trace at nothing.npz; pass the path of a file"),
    ],
)
def test_wrong_flags_are_one_sentence(flags, message):
    status, out, err = launch(*flags)
    assert status == 1 and out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1
