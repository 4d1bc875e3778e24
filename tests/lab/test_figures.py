"""Figures and claims from results whose answers are known."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

from asyncflax.errors import RunError
from asyncflax.lab import figures
from asyncflax.lab.figures._words import trained_on
from asyncflax.lab.figures.best_momentum import best_momentum
from asyncflax.lab.figures.efficiency import efficiency
from asyncflax.lab.figures.fixed_momentum import fixed_momentum
from asyncflax.lab.figures.negative_momentum import negative_momentum
from asyncflax.lab.figures.penalty import penalty
from asyncflax.lab.figures.tuned_momentum import tuned_momentum
from asyncflax.lab.sweep import SweepConfig, best_cells, paired_change, updates_to_target
from asyncflax.train.config import TrainConfig

ROOT = pathlib.Path(__file__).parents[2]
GROUPS, MOMENTA, RATES, SEEDS = (1, 2, 4, 8), (0.0, 0.3, 0.6, 0.9), (0.1, 0.2), (0, 1, 2)
BEST = {1: 0.9, 2: 0.6, 4: 0.3, 8: 0.0}
EVALUATED = np.arange(0, 1001, 50)


def results(workers=GROUPS, momenta=MOMENTA, speed=None, rates=RATES, seeds=SEEDS, **train) -> xarray.Dataset:
    """Accuracy min(1, update / needed): 0.9 is reached at 0.9 * needed, which `speed(m, mu, rate, seed)` says."""
    speed = speed or (lambda m, mu, rate, seed: 200 * (1 + abs(mu - BEST[m])) * (0.1 / rate) ** 0.5 + 20 * (seed % 7))
    shape = (len(workers), len(momenta), len(rates), len(seeds))
    needed = np.array([speed(m, mu, a, s) for m in workers for mu in momenta for a in rates for s in seeds])
    needed = needed.reshape(shape)
    accuracy = np.minimum(1.0, EVALUATED / needed[..., None])
    clock = np.broadcast_to(EVALUATED / np.array(workers)[:, None, None, None, None], accuracy.shape)
    axes = ("num_workers", "momentum", "learning_rate", "seed")
    train = dataclasses.asdict(TrainConfig(num_workers=workers[0], **train))
    return xarray.Dataset(
        {
            "test_accuracy": ((*axes, "update"), accuracy),
            "test_loss": ((*axes, "update"), 1 - accuracy),
            "simulated_time": ((*axes, "update"), clock),
            "diverged_at": (axes, np.full(shape, -1)),
        },
        {"num_workers": list(workers), "momentum": list(momenta), "learning_rate": list(rates), "seed": list(seeds)}
        | {"update": EVALUATED},
        {"config": json.dumps({"train": train})},
    )


def test_updates_to_a_target_are_interpolated_and_unknown_where_it_is_never_reached():
    slow = results(speed=lambda m, mu, rate, seed: 400.0 if m < 8 else 5000.0)
    updates = updates_to_target(slow, 0.9)
    np.testing.assert_allclose(updates.sel(num_workers=[1, 2, 4]), 360.0)
    assert np.isnan(updates.sel(num_workers=8)).all()
    falling = xarray.Dataset({"test_loss": ("update", [2.0, 1.0, np.nan, 0.5])}, {"update": [0, 10, 20, 30]})
    assert float(updates_to_target(falling, 1.5, "test_loss")) == 5.0
    assert float(updates_to_target(falling, 0.5, "test_loss")) == 30.0  # nothing to interpolate with
    with pytest.raises(ValueError, match=r"metric must be one of .*'test_loss', got 'test_los'; did you mean"):
        updates_to_target(falling, 0.5, "test_los")


def test_a_cell_that_fails_for_one_seed_is_not_the_best():
    updates = updates_to_target(results(), 0.9)
    updates[{"num_workers": 0, "momentum": 3, "learning_rate": 1, "seed": 2}] = np.nan
    best = best_cells(updates)
    assert best.momentum.values.tolist() == [0.6, 0.6, 0.3, 0.0]  # 0.9 at 0.2 would be
    assert best.learning_rate.values.tolist() == [0.2, 0.2, 0.2, 0.2]
    none = best_cells(updates.where(updates.num_workers < 8))
    assert np.isnan(none.momentum[-1]) and np.isnan(none.score[-1])


def test_paired_changes_are_as_scipy_has_them():
    from scipy import stats

    rng = np.random.default_rng(0)
    old = xarray.DataArray(rng.uniform(90, 110, 6), {"seed": range(6)})
    new = old * rng.uniform(0.8, 0.9, 6)
    change = paired_change(new, old)
    want = stats.ttest_1samp(1 - new.values / old.values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((change.low, change.high), (want.low, want.high))
    with pytest.raises(ValueError, match="same seeds"):
        paired_change(new, old.assign_coords(seed=range(1, 7)))
    assert np.isnan(paired_change(new.where(new.seed > 0), old).value)


JUDGED = {"seeds": range(20), "rates": (0.1, 0.2)}  # 4 seeds choose
OPTIONS = {"target": 0.9, "metric": "test_accuracy", "choosing": 4}


def noisy(needed, spread=0.05):
    """`needed(m, mu, rate)` times noise that a seed has for itself, the same whenever it is asked."""
    draw = lambda *at: np.random.default_rng([round(1000 * abs(x)) + 7 * (x < 0) for x in at]).normal(scale=spread)
    return lambda m, mu, rate, seed: needed(m, mu, rate) * np.exp(draw(m, mu, rate, seed))


@pytest.mark.parametrize(
    "best, verdict",
    [({1: 0.6, 2: 0.5, 4: 0.4, 8: 0.3}, "seen"), ({1: 0.3, 2: 0.4, 4: 0.5, 8: 0.6}, "refuted")],
)
def test_tuned_momentum_is_the_optimum_of_the_pooled_curve_and_its_trend_has_a_verdict(best, verdict):
    speed = noisy(lambda m, mu, rate: 200 * (1 + 2 * (mu - best[m]) ** 2) * (0.1 / rate) ** 0.5)
    findings = tuned_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS)
    (claim,) = findings.claims
    assert (claim["verdict"], claim["seeds"]) == (verdict, 16)
    assert claim["value"] == pytest.approx(best[1] - best[8], abs=0.1)
    assert claim["interval"][0] <= claim["value"] <= claim["interval"][1]
    assert claim["name"] == "tuned-momentum-digits-smallcnn" and "at 1, 2, 4 and 8 workers" in claim["ours"]


def test_a_momentum_that_does_not_matter_has_no_trend():
    speed = noisy(lambda m, mu, rate: 200.0)
    (claim,) = tuned_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS).claims
    assert claim["verdict"] == "not decided"


def test_hyper_parameters_are_chosen_on_seeds_that_do_not_judge():
    """Learning rate 0.2 is better on the seeds that choose, 0.1 on those that judge."""
    speed = lambda m, mu, rate, seed: 200.0 if (rate == 0.2) == (seed < 4) else 400.0
    assert "200" not in tuned_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS).table.splitlines()[1]
    (claim,) = fixed_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS).claims
    assert claim["verdict"] == "equivalent"


@pytest.mark.parametrize("cost, verdict", [(1.5, "seen"), (1.0, "equivalent"), (0.8, "equivalent")])
def test_fixed_momentum_is_compared_with_the_tuned_one_at_each_number_of_workers(cost, verdict):
    """Where the fixed momentum is the best, it is the tuned one."""
    speed = noisy(lambda m, mu, rate: 300 * (cost if mu == 0.9 else 1.0), 0.02)
    (claim,) = fixed_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS).claims
    assert claim["verdict"] == verdict and claim["seeds"] == 16
    assert "With 2, 4 and 8 workers" in claim["statement"]


def test_what_holds_at_some_numbers_of_workers_is_not_decided():
    speed = noisy(lambda m, mu, rate: 300 * (1.5 if mu == 0.9 and m < 8 else 1.0), 0.02)
    (claim,) = fixed_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS).claims
    assert claim["verdict"] == "not decided" and claim["ours"].count("seen") == 3


def test_where_many_miss_ranks_decide():
    speed = lambda m, mu, rate, seed: 5000.0 if mu == 0.9 else 300.0 + seed
    (claim,) = fixed_momentum(Figure(), results(speed=speed, **JUDGED), **OPTIONS).claims
    assert claim["verdict"] == "seen" and "of the couples" in claim["ours"] and claim["value"] == 1.0


def test_few_seeds_make_no_claim_without_a_reason():
    few = results(speed=noisy(lambda m, mu, rate: 300.0))
    findings = tuned_momentum(Figure(), few, **OPTIONS | {"choosing": 1})
    assert findings.claims == () and "no verdict: only 2 seeds judge; use 16" in findings.table
    (claim,) = tuned_momentum(Figure(), few, **OPTIONS | {"choosing": 1}, exception="a test").claims
    assert claim["seeds"] == 2


def test_a_target_that_is_never_reached_is_reported_as_such():
    slow = results(speed=lambda m, mu, rate, seed: 400.0 if m < 8 else 5000.0)
    assert "none" in efficiency(Figure(), slow, target=0.9).table
    never = results(speed=lambda m, mu, rate, seed: 5000.0, **JUDGED)
    (claim,) = tuned_momentum(Figure(), never, **OPTIONS).claims
    assert claim["verdict"] == "not decided"


def test_efficiency_is_the_product():
    speed = lambda m, mu, rate, seed: (200.0 + 20 * seed) * (1 + 0.1 * (m > 4)) * (1 + abs(mu - BEST[m]))
    table = efficiency(Figure(), results(speed=speed), target=0.9, gradient_seconds=2.0).table
    assert "1.10 (1.05 to 1.15)" in table and "0.14 (0.13 to 0.14)" in table


def test_what_is_trained_on_the_sample_of_imagenet_says_which_classes():
    name, words = trained_on(results(dataset="imagenet_eight", model="CaffeNet", batch_size=64))
    assert name == "imagenet-eight-caffenet"
    assert words == "imagenet_eight, whose classes are not the paper's first eight of ImageNet, CaffeNet, batches of 64"


def test_best_momentum_is_that_of_the_highest_accuracy():
    table = best_momentum(Figure(), results(speed=lambda m, mu, rate, seed: 2000 + 500 * abs(mu - BEST[m]))).table
    assert [row.split()[1] for row in table.splitlines()[1:]] == ["0.90", "0.60", "0.30", "0.00"]


DECADES = tuple(0.1 * 10 ** (k / 2) for k in range(4))  # two grids of one rate a decade


@pytest.mark.parametrize(
    "choosing, judging, verdict",
    [
        (1.2, (1.2, 1.2), "seen"),
        (1.0, (1.0, 1.0), "equivalent"),
        (0.8, (0.8, 0.8), "equivalent"),  # the best is not negative
        (1.2, (0.8, 0.8), "refuted"),  # what was chosen was luck
        (1.2, (1.4, 0.8), "not decided"),  # seeds differ
    ],
)
def test_negative_momentum_is_judged_on_both_kinds_of_grids(choosing, judging, verdict):
    """By how many times as many updates it takes without, of the seeds that choose and of those that judge."""
    cost = lambda seed: choosing if seed < 4 else judging[seed % 2]
    common = lambda mu, rate: 300 * (1 + abs(mu)) * (1 + 0.02 * abs(np.log(rate / 0.3)))
    speed = lambda m, mu, rate, seed: common(max(mu, 0), rate) * (cost(seed) if mu >= 0 else 1.0) * (1 + seed / 500)
    found = results((8,), (-0.2, 0.0, 0.3), speed, DECADES, range(20)).isel(num_workers=0)
    coarse, fine = negative_momentum(Figure(), found, **OPTIONS).claims
    assert (coarse["verdict"], fine["verdict"]) == (verdict, verdict)
    assert coarse["name"] == "negative-momentum-digits-smallcnn-8-decades"
    assert fine["interval"][0] <= fine["value"] <= fine["interval"][1]


@pytest.mark.parametrize(
    "cost, verdict", [({}, "equivalent"), ({8: 1.5}, "refuted"), ({2: 1.09, 4: 1.09, 8: 1.09}, "not decided")]
)
def test_a_penalty_is_one_at_every_number_of_workers_or_none(cost, verdict):
    speed = noisy(lambda m, mu, rate: 300 * cost.get(m, 1.0) * (1 + abs(mu - 0.3)), 0.05)
    (claim,) = penalty(Figure(), results(speed=speed, **JUDGED), **OPTIONS).claims
    assert claim["verdict"] == verdict and "From a cold start" in claim["statement"]


def test_learning_rates_of_negative_momentum_are_even():
    with pytest.raises(ValueError, match="evenly spaced in their logarithm, two or more per decade"):
        negative_momentum(Figure(), results(workers=(8,), momenta=(-0.1, 0.0)).isel(num_workers=0), **OPTIONS)


ALL = "num_workers=(1, 8), momentum=(0, 0.5, 0.9), learning_rate=(0.1,), seed=(0, 1, 2)"
ONE = "tuned_momentum(target=0.9, choosing=1)"


def test_what_cannot_be_drawn_leaves_the_results(tmp_path):
    axes = f"num_workers={GROUPS}, momentum={MOMENTA}, learning_rate={RATES}, seed={SEEDS}"
    config = SweepConfig(axes=axes, figure="efficiency(target=0.0)")
    with pytest.raises(RunError, match=r"is reached before the first update; .* the results are in .*results\.nc"):
        figures.draw(results(), config, tmp_path)


@pytest.mark.parametrize(
    "axes, figure, message",
    [
        ("seed=(0, 1)", "tuned_momenta", "did you mean 'tuned_momentum'"),
        ("seed=(0, 1, 2)", ONE, "needs the axes num_workers, momentum, learning_rate, but config"),
        ("seed=(0, 1)", "tuned_momentum", r"tuned_momentum needs target, as in 'tuned_momentum\(target=...\)'"),
        ("seed=(0, 1)", "efficiency(targets=0.9)", "has no option 'targets'.*did you mean 'target'"),
        (ALL, "tuned_momentum(target=0.9, metric=accuracy)", "metric must be one of 'test_accuracy', 'test_loss'"),
        (ALL, "efficiency(target=0.9, metric=train_loss)", "metric must be one of 'test_accuracy', 'test_loss', got"),
        (ALL, "negative_momentum(target=0.9)", "does not support the axis num_workers"),
        (ALL, "tuned_momentum(target=0.9)", "choosing must be at least 1 and leave .*, got 8 of 3 seeds"),
        (ALL.replace("0.5, ", ""), ONE, "needs at least 3 values of momentum"),
        (ALL.replace("seed=(0, 1, 2)", "seed=(0,)"), "efficiency(target=0.9)", "needs at least 2 values of seed"),
        (ALL, f"{ONE}, one=grid", "figures take no label, got 'one'"),
        ("seeds=(0, 1)", "", "'seeds' is not a config field .* did you mean 'seed'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_trained(axes, figure, message):
    with pytest.raises(RunError, match=message):
        figures.check(SweepConfig(axes=axes, figure=figure))


def test_figures_and_their_claims_are_saved_under_the_command_and_the_criterion_that_make_them(tmp_path):
    from asyncflax.lab.claims import load_all

    axes = f"num_workers={GROUPS}, momentum={MOMENTA}, learning_rate={RATES}, seed={tuple(JUDGED['seeds'])}"
    options = "target=0.9, metric='test_accuracy', choosing=4"
    config = SweepConfig(axes=axes, figure=f"tuned_momentum({options}), fixed_momentum({options}), grid")
    command = "/somewhere/bin/python launch/sweep.py --config=configs/figure3.py:digits --workdir=x"
    trained = results(**JUDGED).assign_attrs(cpu_minutes=1.5)
    for _ in range(2):  # again: the same
        tuned, fixed, plain = figures.draw(trained, config, tmp_path, command=command)
    assert plain.path.name == "grid.png" and not plain.claims
    digests = list(figures.criteria(config).values())
    for claim, drawn in zip(load_all(tmp_path / "claims"), (tuned, fixed), strict=True):
        assert claim.command == command.removeprefix("/somewhere/bin/")
        assert (claim.seeds, claim.cpu_minutes) == (16, 1.5) and claim.criterion == digests.pop(0)
        assert (tmp_path / "claims" / claim.figure) == drawn.path and drawn.path.stat().st_size > 10_000
    moved = dataclasses.replace(config, figure=config.figure.replace("target=0.9", "target=0.8"))
    assert not {*figures.criteria(config).values()} & {*figures.criteria(moved).values()}


def test_the_grid_is_drawn_whatever_its_axes(tmp_path):
    strengths = results().rename(momentum="algorithm.strength")
    parts = (results(), results().isel(num_workers=0, drop=True), results().isel(momentum=0, seed=0, drop=True))
    for part in (*parts, strengths, strengths.isel(learning_rate=0).expand_dims("momentum")):
        (drawn,) = figures.draw(part, SweepConfig(), tmp_path)
        assert f"{part.diverged_at.size} cells, 0 of them diverged" in drawn.table
