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
from asyncflax.lab.figures.best_momentum import best_momentum
from asyncflax.lab.figures.efficiency import efficiency
from asyncflax.lab.figures.negative_momentum import negative_momentum
from asyncflax.lab.figures.tuned_momentum import tuned_momentum
from asyncflax.lab.sweep import SweepConfig, best_cells, paired_change, updates_to_target
from asyncflax.train.config import TrainConfig

ROOT = pathlib.Path(__file__).parents[2]
GROUPS, MOMENTA, RATES, SEEDS = (1, 2, 4, 8), (0.0, 0.3, 0.6, 0.9), (0.1, 0.2), (0, 1, 2)
BEST = {1: 0.9, 2: 0.6, 4: 0.3, 8: 0.0}
EVALUATED = np.arange(0, 1001, 50)


def results(workers=GROUPS, momenta=MOMENTA, speed=None, **train) -> xarray.Dataset:
    """Accuracy min(1, update / needed): 0.9 is reached at 0.9 * needed, which `speed(m, mu, rate, seed)` says."""
    speed = speed or (lambda m, mu, rate, seed: 200 * (1 + abs(mu - BEST[m])) * (0.1 / rate) ** 0.5 + 20 * seed)
    shape = (len(workers), len(momenta), len(RATES), len(SEEDS))
    needed = np.array([speed(m, mu, a, s) for m in workers for mu in momenta for a in RATES for s in SEEDS]).reshape(
        shape
    )
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
        {"num_workers": list(workers), "momentum": list(momenta), "learning_rate": list(RATES), "seed": list(SEEDS)}
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


def test_tuned_momentum_finds_the_momenta_and_their_fall():
    findings = tuned_momentum(Figure(), results(), target=0.9)
    (claim,) = findings.claims
    assert claim["value"] == pytest.approx(0.9) and claim["seeds"] == 3
    assert "0.90, 0.60, 0.30, 0.00 at 1, 2, 4, 8 workers" in claim["ours"]


def test_a_target_that_is_never_reached_is_reported_as_such():
    slow = results(speed=lambda m, mu, rate, seed: 400.0 if m < 8 else 5000.0)
    findings = tuned_momentum(Figure(), slow, target=0.9)
    assert findings.claims == () and "is not reached by all seeds" in findings.table
    findings = efficiency(Figure(), slow, target=0.9)
    (claim,) = findings.claims
    assert "What 4 workers buy" in claim["statement"] and "none" in findings.table
    assert claim["ours"].endswith("; not reached by 8 workers in 1,000 updates")
    never = efficiency(Figure(), results(speed=lambda m, mu, rate, seed: 5000.0), target=0.9)
    assert not never.claims


def test_efficiency_is_the_product():
    speed = lambda m, mu, rate, seed: (200.0 + 20 * seed) * (1 + 0.1 * (m > 4)) * (1 + abs(mu - BEST[m]))
    (claim,) = efficiency(Figure(), results(speed=speed), target=0.9, gradient_seconds=2.0).claims
    assert claim["value"] == pytest.approx(1.1 / 8, rel=0.01)
    assert "hardware 0.1" in claim["ours"] and "statistical 1.10" in claim["ours"]


@pytest.mark.parametrize("draw, kind", [(efficiency, "efficiency-cold"), (tuned_momentum, "tuned-momentum")])
def test_claims_about_the_sample_of_imagenet_name_the_network_and_say_which_classes(draw, kind):
    """Those about other data are called as those that are saved already."""
    (digits,) = draw(Figure(), results(), target=0.9).claims
    assert digits["name"] == f"{kind}-digits-test-accuracy" and "(digits, " in digits["statement"]
    saved = json.loads((ROOT / "results" / f"{digits['name']}.json").read_text())
    assert saved["name"] == digits["name"]
    for model in ("CaffeNet", "SmallCnn"):
        (claim,) = draw(Figure(), results(dataset="imagenet_eight", model=model), target=0.9).claims
        assert claim["name"] == f"{kind}-imagenet-eight-{model.lower()}-test-accuracy"
        words = f"(imagenet_eight, whose classes are not the paper's first eight of ImageNet, {model}, "
        assert words in claim["statement"]


def test_best_momentum_is_that_of_the_highest_accuracy():
    (claim,) = best_momentum(Figure(), results(speed=lambda m, mu, rate, seed: 2000 + 500 * abs(mu - BEST[m]))).claims
    assert "0.90, 0.60, 0.30, 0.00 at 1, 2, 4, 8 workers" in claim["ours"] and claim["value"] == pytest.approx(0.9)


def negative(speed):
    return results(workers=(8,), momenta=(-0.2, -0.09, 0.0), speed=speed).isel(num_workers=0)


def test_negative_momentum_is_compared_with_zero_seed_by_seed():
    speed = lambda m, mu, rate, seed: (300 + 40 * seed) * {-0.2: 1.1, -0.09: 0.85, 0.0: 1.0}[mu] * (0.1 / rate) ** 0.5
    (claim,) = negative_momentum(Figure(), negative(speed), target=0.9).claims
    assert claim["value"] == pytest.approx(0.15, abs=0.02)
    assert claim["interval"][0] <= claim["value"] <= claim["interval"][1]
    assert "best of the grid: -0.09" in claim["ours"]


def test_negative_momentum_says_what_was_not_reached():
    speed = lambda m, mu, rate, seed: 2000.0 + 100 * seed if mu == 0.0 else 1900.0 + 100 * seed
    findings = negative_momentum(Figure(), negative(speed), target=0.9)
    (claim,) = findings.claims
    assert "not reached in 1,000 updates by 3 and 3 of 3 seeds" in claim["ours"]
    assert claim["value"] == pytest.approx(np.mean([1000 / (1900 + d) - 1000 / (2000 + d) for d in (0, 100, 200)]))
    assert "3 of 3" in findings.table and "none" in findings.table


ALL = "num_workers=(1, 8), momentum=(0, 0.5), learning_rate=(0.1,), seed=(0, 1)"


def test_what_cannot_be_drawn_leaves_the_results(tmp_path):
    axes = f"num_workers={GROUPS}, momentum={MOMENTA}, learning_rate={RATES}, seed={SEEDS}"
    config = SweepConfig(axes=axes, figure="efficiency(target=0.0)")
    with pytest.raises(RunError, match=r"is reached before the first update; .* the results are in .*results\.nc"):
        figures.draw(results(), config, tmp_path)


def test_momenta_that_diverge_with_every_learning_rate_are_left_out():
    speed = lambda m, mu, rate, seed: np.nan if mu == -0.2 else 300.0 + 40 * seed
    findings = negative_momentum(Figure(), negative(speed).isel(momentum=[2, 0, 1]), target=0.9)
    assert "-0.2" not in findings.table.splitlines()[1] and len(findings.claims) == 1


@pytest.mark.parametrize(
    "axes, figure, message",
    [
        ("seed=(0, 1)", "tuned_momenta", "did you mean 'tuned_momentum'"),
        (
            "seed=(0, 1)",
            "tuned_momentum(target=0.9)",
            "needs the axes num_workers, momentum, learning_rate; config",
        ),
        ("seed=(0, 1)", "tuned_momentum", r"tuned_momentum needs target, as in 'tuned_momentum\(target=...\)'"),
        ("seed=(0, 1)", "efficiency(targets=0.9)", "has no option 'targets'.*did you mean 'target'"),
        (ALL, "tuned_momentum(target=0.9, metric=accuracy)", "metric must be one of 'test_accuracy', 'test_loss'"),
        (ALL, "negative_momentum(target=0.9)", "has no place for the axis num_workers"),
        ("momentum=(-0.1, 0.1), learning_rate=(1,), seed=(0, 1)", "negative_momentum(target=0.9)", "momentum 0"),
        (ALL.replace("seed=(0, 1)", "seed=(0,)"), "efficiency(target=0.9)", "needs two seeds at least"),
        ("seeds=(0, 1)", "", "'seeds' is no field .* did you mean 'seed'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_trained(axes, figure, message):
    with pytest.raises(RunError, match=message):
        figures.check(SweepConfig(axes=axes, figure=figure))


def test_a_figure_and_its_claims_are_saved_under_the_command_that_makes_them(tmp_path):
    from asyncflax.lab.claims import load_all

    axes = f"num_workers={GROUPS}, momentum={MOMENTA}, learning_rate={RATES}, seed={SEEDS}"
    config = SweepConfig(axes=axes, figure="tuned_momentum(target=0.9)")
    command = "/somewhere/bin/python launch/sweep.py --config=configs/figure3.py:digits --workdir=x"
    for _ in range(2):  # again: the same
        drawn = figures.draw(results(), config, tmp_path, command=command)
    (claim,) = load_all(tmp_path / "claims")
    assert claim.command == command.removeprefix("/somewhere/bin/") and claim.seeds == 3
    assert (tmp_path / "claims" / claim.figure) == drawn.path and drawn.path.stat().st_size > 10_000


def test_the_grid_is_drawn_whatever_its_axes(tmp_path):
    strengths = results().rename(momentum="algorithm.strength")
    parts = (results(), results().isel(num_workers=0, drop=True), results().isel(momentum=0, seed=0, drop=True))
    for part in (*parts, strengths, strengths.isel(learning_rate=0).expand_dims("momentum")):
        drawn = figures.draw(part, SweepConfig(), tmp_path)
        assert f"{part.diverged_at.size} cells, 0 of them diverged" in drawn.table
