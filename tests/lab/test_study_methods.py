"""Studies of single methods: verdicts where the answer is known, and the studies in small."""

import importlib
import itertools
import math

import numpy as np
import pytest
from looks import check, kept

from asyncflax import algorithms, data, queues, theory
from asyncflax.errors import RunError
from asyncflax.lab import claims
from asyncflax.lab.studies import methods
from asyncflax.lab.studies.methods import (
    _parts,
    closed_loop,
    constant_delay,
    live,
    planned_workers,
    stable_rates,
)
from asyncflax.lab.studies.methods._trainings import Trainings

JUDGED = [name for name in methods.names() if name != "constant_delay"]


@pytest.mark.parametrize("name", JUDGED)
def test_a_design_is_the_one_that_was_committed_before_it_was_judged(name):
    module = importlib.import_module(f"asyncflax.lab.studies.methods.{name}")
    assert methods.criterion(module.DESIGN) == module.CRITERION != methods.criterion(module.QUICK)


# --- What they measure with ------------------------------------------------------------------------------------------


def test_trainings_are_those_of_a_loop_in_numpy():
    """Softmax regression, each seed and learning rate on its own, in float64."""
    seeds, rates = (3, 5), np.array([[0.5, 0.25], [2.0, 1.0]])
    traces = [
        queues.simulate(num_workers=3, num_updates=12, service_time=queues.exponential(), seed=seed) for seed in seeds
    ]
    trainings = Trainings(traces, seeds, hidden=0, batch_size=8, every=5)
    digits = data.digits()
    images = (digits.train_images - digits.train_images.mean(axis=0)).reshape(len(digits.train_labels), -1) / 255
    one_hot = np.eye(10)[digits.train_labels]

    def loss_and_error(weights, rows):
        logits = images[rows] @ weights[:-1] + weights[-1]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return -np.mean(np.log(np.sum(p * one_hot[rows], axis=1))), (p - one_hot[rows]) / len(rows)

    expected = np.zeros((2, 2, 4))
    for s, (seed, trace) in enumerate(zip(seeds, traces, strict=True)):
        batches = data.batch_rows(len(images), 8, range(12), seed=seed)
        for h in range(2):
            versions = [np.zeros((65, 10))]
            for rows, read in zip(batches, trace.read_version, strict=True):
                _, error = loss_and_error(versions[read], rows)
                gradient = np.vstack([images[rows].T @ error, error.sum(axis=0)])
                versions.append(versions[-1] - rates[h, s] * gradient)
            expected[h, s] = [loss_and_error(versions[t], np.arange(len(images)))[0] for t in (0, 5, 10, 12)]
    np.testing.assert_allclose(trainings.losses(algorithms.asgd, rates), expected, rtol=1e-4)


def test_bisection_finds_the_limits_of_theory():
    """Of several constant delays at once, each with a closed form."""
    delays = (0, 1, 3, 7)
    is_stable = lambda rates: np.array([theory.mean_radius(d, h) < 1 for d, h in zip(delays, rates, strict=True)])
    found = stable_rates.bisect(lambda rates: is_stable(np.broadcast_to(rates, 4)), (-8.0, 3.0), 12)
    closed = np.log2(2 * np.sin(np.pi / (2 * (2 * np.array(delays) + 1))))
    np.testing.assert_allclose(found, closed, atol=11 / 2**12)


@pytest.mark.parametrize("delay, momentum", [(3, 0.0), (4, 0.5)])
def test_the_engine_falls_below_a_limit_and_grows_above_it(delay, momentum):
    """And it tells a limit from numbers that are none."""
    limit = theory.stability_limit(delay, momentum)
    make = lambda h: algorithms.momentum_asgd(h, momentum)
    assert [constant_delay.is_limit(make, delay, factor * limit, 0.05) for factor in (0.8, 1.0, 1.2)] == [
        False,
        True,
        False,
    ]


# --- How they decide -------------------------------------------------------------------------------------------------


def limits(asgd=-1.0, steps=(0.5, 0.5), others=-0.5):
    """Made-up logarithms of limits [16 seeds, 4 numbers of workers] with these exponents and steps of the order."""
    rng, octaves = np.random.default_rng(0), np.arange(4.0)
    start = dict(zip(("nag_asgd", "multi_asgd", "dana_slim"), np.cumsum([0.0, *steps]), strict=True))
    means = {"asgd": asgd * octaves, **{name: at + others * octaves for name, at in start.items()}}
    return {name: mean + 0.05 * rng.standard_normal((16, 4)) for name, mean in means.items()}


@pytest.mark.parametrize(
    "made, verdicts",
    [
        (limits(), ("equivalent", "seen", "seen")),
        (limits(asgd=-0.6), ("refuted", "seen", "seen")),
        (limits(steps=(0.5, -0.5)), ("equivalent", "refuted", "seen")),
        (limits(steps=(0.5, 0.0)), ("equivalent", "not decided", "seen")),
        (limits(others=0.5), ("equivalent", "seen", "refuted")),
        (limits(others=0.0), ("equivalent", "seen", "not decided")),
    ],
)
def test_verdicts_on_limits_that_were_made_up(made, verdicts):
    facts = stable_rates.decide(stable_rates.DESIGN, made)
    assert tuple(fact["verdict"] for fact in facts) == verdicts
    assert facts[0]["value"] == pytest.approx(np.mean(np.polyfit(range(4), made["asgd"].T, 1)[0]))


class Made:
    """Trainings whose losses fall from 1 to reach 0.1 after so many updates, [rates, seeds]."""

    def __init__(self, updates):
        self.updates, self.seeds = np.asarray(updates), tuple(range(np.shape(updates)[1]))

    def losses(self, make, hypers):
        assert hypers.shape == self.updates.shape
        return np.where(40 * np.arange(101) < self.updates[..., None], 1.0, 0.005)


def test_a_race_looks_for_the_loss_chooses_the_best_rate_and_decides():
    race, rng = closed_loop.DESIGN.race, np.random.default_rng(0)
    updates = race.updates_to(Made([[400, 440], [160, 4001], [280, 320]]), None, np.ones(3))
    np.testing.assert_array_equal(updates, [[400, 440], [160, np.nan], [280, 320]])
    assert race.best(updates) == race.rates[2] and len(race.rates) == 17

    first, noise = rng.uniform(900, 1100, 16), rng.uniform(0.95, 1.05, 16)
    verdict = lambda second, claim="sooner": race.decide(("one", first), ("other", second), claim)
    assert verdict(1.5 * noise * first)["verdict"] == "seen"
    assert verdict(noise * first / 1.5)["verdict"] == "refuted"
    assert verdict(noise * first, "equal")["verdict"] == "equivalent"
    assert verdict(1.5 * noise * first, "equal")["verdict"] == "refuted"
    missed = verdict(np.where(np.arange(16) < 10, np.nan, 2 * first))
    assert (
        missed["verdict"] == "seen" and "of 16 trainings miss the loss: one 0 times, other 10 times" in missed["ours"]
    )
    assert -1 <= missed["value"] <= 1


def traced(seconds):
    """A live trace of two workers; worker 1 takes three times these seconds."""
    law = queues.ServiceTime("made", lambda rng, n: np.array([1.0, 3.0])[:n], lambda rng, n: np.resize(seconds, n))
    return queues.simulate(num_workers=2, num_updates=40, service_time=law)


def test_a_simulated_trace_has_the_measured_times_and_the_tickets_of_a_server():
    trace = live.simulated(traced([0.5, 1.5]), seed=1)
    handed_out, open_tickets = itertools.count(2), {0: 0, 1: 1}
    for worker, ticket in zip(trace.worker, trace.ticket, strict=True):  # deliver, then read
        assert ticket == open_tickets[worker]
        open_tickets[worker] = next(handed_out)
    for worker, scale in ((0, 1.0), (1, 3.0)):
        seconds = np.diff(trace.time[trace.worker == worker], prepend=0.0)
        np.testing.assert_allclose(np.unique(seconds.round(6)), [0.5 * scale, 1.5 * scale])
    assert (live.simulated(traced([0.5, 1.5]), seed=2).worker != trace.worker).any()


def test_the_prediction_interval_by_hand():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])  # s^2 = 6, t of 7 degrees of freedom 2.3646
    half = 2.364624 * math.sqrt(6.0) * math.sqrt(1 + 1 / 8)
    np.testing.assert_allclose(live.predicted(values), [4.5, 4.5 - half, 4.5 + half], rtol=1e-6)


@pytest.mark.parametrize("off, verdict", [(0.0, "seen"), (6.1, "seen"), (6.2, "refuted"), (-6.2, "refuted")])
def test_a_live_training_is_judged_by_its_last_losses(off, verdict):
    updates, last = live.DESIGN.training.num_updates, live.DESIGN.last
    course = lambda end: np.append(np.full(updates - last, 9.0), np.full(last, end))
    losses = {"emulated": np.stack([course(float(k)) for k in range(1, 9)]), "live": course(4.5 + off)}
    losses |= {"replay": losses["live"] + 0.25, "without staleness": course(2.0)}
    fact = live.decide(live.DESIGN, losses)
    assert (fact["value"], fact["verdict"]) == (4.5, verdict)
    assert f"{4.5 + off:.3f} live, 2.000 without staleness; largest difference of the replay 0.2" in fact["ours"]


def planned(ratios, *, recommended=1):
    """Made-up cases with 16 seeds: the recommended number of workers takes so many times the time of the best, 8."""
    design, rng = planned_workers.DESIGN, np.random.default_rng(0)
    kinds = [(planned_workers.Task(*task), law) for task in design.tasks for law in design.laws]
    cases = {}
    for kind, ratio in zip(kinds, ratios, strict=True):
        times = 100 * np.array([4.0, 4.0, 4.0, 1.0, 4.0])[:, None] * np.exp(0.03 * rng.standard_normal((5, 16)))
        times[recommended] *= ratio / 4.0
        cases[kind] = {"planned": np.ones(5), "recommended": np.array(float(recommended)), "times": times}
    return cases


@pytest.mark.parametrize(
    "ratios, held, verdict",
    [
        ([1.1] * 6 + [2.0] * 2, 6, "seen"),
        ([1.1] * 5 + [2.0] * 3, 5, "refuted"),
        ([1.1] * 5 + [1.28] + [2.0] * 2, 6, "not decided"),
    ],
)
def test_a_plan_is_judged_by_the_cases_in_which_it_is_near_the_best(ratios, held, verdict):
    fact = planned_workers.decide(planned_workers.DESIGN, planned(ratios))
    assert (fact["value"], fact["verdict"]) == (held, verdict)
    constant = f"in all cases 0 with 1, {held} with 2, 0 with 4, 8 with 8, 0 with 16; "
    assert fact["ours"].startswith(f"{held} of 8; with the same number of workers {constant}recommended: ")
    assert "; recommended: digits, batch 256, exponential: 2 (best 8, 1.1" in fact["ours"]


def test_times_to_a_loss_are_those_of_the_clock(monkeypatch):
    """One arm halves the loss every look; another diverges; a third comes too late to be chosen."""
    design, task = planned_workers.QUICK, planned_workers.Task(*planned_workers.QUICK.tasks[0])

    class Halving:
        def __init__(self, traces, seeds, **options):
            self.shape = (3, len(seeds), options["every"])

        def looks(self, make, hypers):
            assert hypers.shape == (3, 2, 2) and self.shape[2] == 4
            rates = np.array([0.5, np.inf, 0.999])
            for k in range(61):
                yield np.repeat((2.0 * rates**k if k else np.full(3, 2.0))[:, None], 2, axis=1)

    monkeypatch.setattr(planned_workers, "Trainings", Halving)
    times = planned_workers._times(design, task, "exponential", 4, (1000, 1001), np.ones((3, 2)))
    trace = queues.simulate(num_workers=4, num_updates=240, service_time=queues.exponential(), seed=1001)
    assert times[0, 1] == pytest.approx(trace.time[7])  # 2 is halved twice to reach 0.5: after the second look
    assert np.isnan(times[1:]).all()


# --- The studies -----------------------------------------------------------------------------------------------------

SLOW = ("closed_loop", "outer_momentum", "planned_workers", "stable_rates")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in methods.names()]
)
def test_a_study_makes_claims_and_a_figure_and_resumes(name, tmp_path, monkeypatch):
    with kept() as figures:
        made = methods.run_study(name, tmp_path, quick=True)
    check(figures[f"{name.replace('_', '-')}.png"])
    command = f"asyncflax study --name={name} --workdir=runs/{name.replace('_', '-')} --quick"
    assert made and {claim.command for claim in made} == {command}
    assert {len(claim.criterion) for claim in made} == {0 if name == "constant_delay" else 64}
    assert claims.collect(tmp_path / "claims", tmp_path / "results") == claims.load_all(tmp_path / "claims")

    monkeypatch.setattr(_parts, "write_arrays", None)  # nothing is measured again
    assert methods.run_study(name, tmp_path, quick=True) == made
    with pytest.raises(RunError, match="holds a run of another config"):
        methods.run_study(name, tmp_path)


def test_a_study_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match="name must be one of"):
        methods.run_study("stable_rate", tmp_path)
