"""Comparisons: all methods share trace, data and weights, cells are what single runs give, failures are counted."""

import dataclasses
import json
import os
import pathlib
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray

from asyncflax import algorithms
from asyncflax.errors import RunError
from asyncflax.lab import claims
from asyncflax.lab.compare import (
    CompareConfig,
    Comparison,
    check_orders,
    criteria,
    draw_comparison,
    figures,
    markdown_tables,
    parse_orders,
    run_comparison,
    summarize,
)
from asyncflax.lab.statistics import decide_difference, student
from asyncflax.lab.sweep import SweepUnfinishedError
from asyncflax.lab.sweep import run as sweep_run
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.loop import train_and_evaluate

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = TrainConfig(model="Mlp(hidden=8)", num_updates=24, log_every=4, eval_every=12, batch_size=8, momentum=0.6)
CONFIG = CompareConfig(
    TRAIN,
    methods={"nag_asgd": "nag_asgd", "mild": "momentum_asgd(momentum=0.3, form=outside)", "ssgd": "ssgd"},
    service_times="equal=gamma(cv=0.1), stragglers(share=0.5)",
    num_workers=(2, 4),
    seeds=(0, 1),
    linear_scaling=("ssgd",),
    failed_below=0.05,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A comparison, and its folder."""
    workdir = tmp_path_factory.mktemp("compare") / "whole"
    return run_comparison(CONFIG, workdir), workdir


def test_methods_share_trace_data_and_weights():
    comparison = Comparison(CONFIG)
    for k, m, s in np.ndindex(2, 2, 2):
        one, other, rounds = (make_experiment(comparison.config((method, k, m, s))) for method in range(3))
        for made in (other, rounds):
            np.testing.assert_array_equal(one.batches(one.plan[0]), made.batches(made.plan[0]))
            jax.tree.map(np.testing.assert_array_equal, one.params, made.params)
            assert (jax.random.key_data(one.key) == jax.random.key_data(made.key)).all()
        for name in ("worker", "read_version", "time"):
            np.testing.assert_array_equal(getattr(one.trace, name), getattr(other.trace, name))
        # Rounds are those of the same workers: each finishes its first gradient when it does without a barrier.
        workers = comparison.config((0, k, m, s)).num_workers
        for worker in range(workers):
            of = [np.asarray(made.trace.time)[made.trace.worker == worker] for made in (one, rounds)]
            assert len(of[0]) == 0 or of[0][0] == of[1][0]
        assert (rounds.trace.read_version % workers == 0).all()


def test_traces_differ_between_service_times_numbers_of_workers_and_seeds():
    comparison = Comparison(CONFIG)
    traces = [make_experiment(comparison.config((0, *rest))).trace for rest in np.ndindex(2, 2, 2)]
    clocks = [np.asarray(trace.time).tobytes() for trace in traces]
    assert len(set(clocks)) == 8


@pytest.mark.parametrize(
    "index", [(1, 1, 0, 1), *(pytest.param(i, marks=pytest.mark.slow) for i in [(0, 0, 1, 0), (2, 1, 1, 1)])]
)
def test_a_cell_gives_what_a_single_training_gives(whole, tmp_path, index):
    results, _ = whole
    comparison = Comparison(CONFIG)
    rows = train_and_evaluate(comparison.config(index), tmp_path / "run").rows
    cell = results.sel(comparison.coordinates(index))
    evaluated = [row for row in rows if "test_loss" in row]
    for name in ("test_loss", "test_accuracy", "simulated_time"):
        np.testing.assert_allclose(cell[name], [row[name] for row in evaluated], rtol=1e-5)
    trained = [row for row in rows if "train_loss" in row]
    for name in ("train_loss", "gap"):
        np.testing.assert_allclose(cell[name], [row[name] for row in trained], rtol=1e-4, atol=1e-9)
    assert [row["update"] for row in trained] == cell.trained.values.tolist()


def test_results_are_labelled(whole):
    results, workdir = whole
    assert dict(results.test_accuracy.sizes) == {
        "method": 3,
        "service_time": 2,
        "num_workers": 2,
        "seed": 2,
        "update": 3,
    }
    assert results.algorithm.values.tolist() == ["nag_asgd", "momentum_asgd", "ssgd"]
    assert results.call.values[1] == "momentum_asgd(momentum=0.3, form='outside')"
    assert results.law.values.tolist() == ["gamma(cv=0.1)", "stragglers(share=0.5)"]
    with xarray.open_dataset(workdir / "results.nc", engine="scipy") as saved:
        xarray.testing.assert_equal(saved.load(), results)
        assert json.loads(saved.attrs["config"])["methods"] == CONFIG.methods


def test_a_step_of_ssgd_takes_the_gradients_of_all_workers(whole):
    results, workdir = whole
    steps = results.server_steps.sel({"method": "ssgd"})
    assert steps.values.tolist() == [[0, 6, 12], [0, 3, 6]]  # of 2 and 4 workers after 0, 12, 24 gradients
    assert (results.server_steps.sel({"method": "mild"}) == results["update"]).all()
    assert results.learning_rate.values.tolist() == [[0.05, 0.05], [0.05, 0.05], [0.1, 0.2]]
    assert (results.gap.sel({"method": "ssgd"}) == 0).all() and (results.gap.sel({"method": "mild"}) > 0).any()
    drawn = draw_comparison(results, workdir)
    assert "A server step of ssgd takes M gradients" in drawn.table
    assert (workdir / "table.md").read_text() == drawn.table + "\n"
    assert [path.name for path in drawn.figures] == [
        "table.png",
        "accuracy.png",
        "curves-equal.png",
        "curves-stragglers.png",
    ]
    assert all(path.read_bytes()[1:4] == b"PNG" for path in drawn.figures)
    (legend,) = dict(figures.all_figures(results))["curves-equal"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["nag_asgd", "mild", "ssgd (a step is M gradients)"]


def test_a_comparison_that_was_stopped_goes_on(whole, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(
        CONFIG, methods={k: v for k, v in CONFIG.methods.items() if k != "ssgd"}, linear_scaling=()
    )
    with pytest.raises(SweepUnfinishedError, match=r"0 of 16 cells are finished .* rerun the same command to resume"):
        run_comparison(config, tmp_path / "part", stop_after_minutes=0.0)
    tiles, add = [], sweep_run._Finished.add

    def add_and_stop(self, cells, rows):
        add(self, cells, rows)
        tiles.append(cells)
        if len(tiles) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sweep_run._Finished, "add", add_and_stop)
        run_comparison(config, tmp_path / "part")
    done = sum(map(len, tiles))
    assert 0 < done < 16 and not (tmp_path / "part" / "results.nc").exists()
    capsys.readouterr()
    resumed = run_comparison(config, tmp_path / "part")
    assert f"{done} of 16 cells are finished" in capsys.readouterr().out
    same = whole[0].sel({"method": ["nag_asgd", "mild"]})
    xarray.testing.assert_identical(resumed.drop_attrs(), same.drop_attrs())


def test_how_it_is_read_may_change_and_what_is_trained_may_not(whole, capsys):
    results, workdir = whole
    capsys.readouterr()
    strict = run_comparison(dataclasses.replace(CONFIG, failed_below=1.0), workdir)
    assert "to train" not in capsys.readouterr().out and int(strict.failed.sum()) == 24
    xarray.testing.assert_equal(run_comparison(CONFIG, workdir), results)
    other = dataclasses.replace(CONFIG, methods="asgd, ssgd")
    with pytest.raises(RunError, match=r"config\.methods was .* now it is 'asgd, ssgd'"):
        run_comparison(other, workdir)


def made_up(accuracy, train_loss, diverged=None, scales=(1.0, 0.1)):
    """Results of one method, service time and number of workers: accuracy [scale, seed] at the end."""
    accuracy, train_loss = np.array(accuracy), np.array(train_loss)
    axes = ("method", "service_time", "num_workers", "learning_rate_scale", "seed")
    cell = lambda x: np.asarray(x)[None, None, None]
    config = dataclasses.asdict(CompareConfig(failed_below=0.2))
    return xarray.Dataset(
        {
            "test_accuracy": ((*axes, "update"), np.stack([0 * cell(accuracy) + 0.1, cell(accuracy)], -1)),
            "train_loss": ((*axes, "trained"), np.stack([0 * cell(train_loss) + 2.3, cell(train_loss)], -1)),
            "gap": ((*axes, "trained"), np.full((1, 1, 1, *accuracy.shape, 2), 0.01)),
            "simulated_time": ((*axes, "update"), np.broadcast_to([0.0, 9.0], (1, 1, 1, *accuracy.shape, 2))),
            "diverged_at": (axes, cell(np.where(np.zeros_like(accuracy) if diverged is None else diverged, 5, -1))),
            "learning_rate": (("method", "num_workers", "learning_rate_scale"), 0.5 * np.array([[scales]])),
        },
        {"method": ["asgd"], "algorithm": ("method", ["asgd"]), "service_time": ["equal"], "num_workers": [8]}
        | {"learning_rate_scale": list(scales), "seed": list(range(accuracy.shape[1])), "update": [0, 10]}
        | {"trained": [5, 10]},
        {"config": json.dumps(config)},
    )


def test_the_learning_rate_is_picked_by_the_rule_that_is_named():
    results = made_up([[0.9, 0.92, 0.94], [0.8, 0.8, 0.8]], [[0.3, 0.3, 0.3], [0.1, 0.1, 0.1]])
    leaky = summarize(results, pick="test_accuracy")
    assert leaky.picked_learning_rate.item() == 0.5 and leaky["mean"].item() == pytest.approx(0.92)
    blind = summarize(results, pick="train_loss")
    assert blind.picked_learning_rate.item() == 0.05 and blind["mean"].item() == pytest.approx(0.8)
    assert "picked by train_loss" in markdown_tables(blind) and "test images are not used" in markdown_tables(blind)
    assert "80.0 ± 0.0 (0.05)" in markdown_tables(blind)


def test_a_learning_rate_with_failures_comes_last_and_failures_are_counted():
    nan = np.nan
    results = made_up([[0.99, 0.99, nan], [0.5, 0.6, 0.7]], [[0.1, 0.1, nan], [0.9, 0.9, 0.9]], [[0, 0, 1], [0, 0, 0]])
    for pick in ("train_loss", "test_accuracy"):
        summary = summarize(results, pick=pick)
        assert summary.picked_scale.item() == 0.1 and int(summary.failed.sum()) == 0
    alone = results.isel(learning_rate_scale=0, drop=True).drop_vars("learning_rate")
    some = summarize(alone, failed_below=0.2)
    assert some.failed.values.ravel().tolist() == [0, 0, 1] and some["mean"].item() == pytest.approx(0.99)
    table = markdown_tables(some)
    assert "FAIL 1/3, 99.0 ± 0.0" in table and "3 trainings, 1 failed: 1 diverged, 0 ended below 20%" in table
    chance = summarize(made_up([[0.1, 0.11, 0.1]], [[2.3] * 3], scales=(1.0,)), failed_below=0.2)
    assert "FAIL 3/3 " in markdown_tables(chance) and np.isnan(chance["mean"].item())
    assert "3 failed: 0 diverged, 3 ended below 20%" in markdown_tables(chance)
    for summary in (some, chance):  # with nothing but failures too
        assert [name for name, _ in figures.all_figures(summary)] == ["table", "accuracy", "curves-equal"]


def test_the_way_to_a_target_is_in_gradients_steps_and_seconds():
    two = xarray.concat([made_up([[0.9, 0.5, 0.9]], [[0.1] * 3], scales=(1.0,))] * 2, xarray.Variable("method", [0, 1]))
    two = two.isel(learning_rate_scale=0, drop=True).drop_vars("learning_rate")
    two = two.assign_coords({"method": ["asgd", "sync"], "algorithm": ("method", ["asgd", "ssgd"])})
    two["simulated_time"] = two.simulated_time.isel(method=0, drop=True).expand_dims(method=two["method"]) * [0.0, 1.0]
    two.attrs["config"] = json.dumps(dataclasses.asdict(CompareConfig(target=0.5)))
    summary = summarize(two, target=0.74)
    np.testing.assert_allclose(summary.gradients_to_target[0].values.ravel(), [8.0, np.nan, 8.0])
    np.testing.assert_allclose(summary.steps_to_target[1].values.ravel(), [1.0, np.nan, 1.0])
    np.testing.assert_allclose(summary.seconds_to_target[1].values.ravel(), [7.2, np.nan, 7.2])
    table = markdown_tables(summary)
    assert "2/3 seeds: 8 (7.2)" in table and "2/3 seeds: 8 = 1 steps (7.2)" in table


COMMAND = "/usr/bin/python launch/compare.py --config=configs/dana_table.py:fast --workdir=runs/dana"
EXCEPTION = {"exception": "a test"}
ENDS = {  # losses [method, seed] by workers
    16: [[0.2, 0.22, 0.25], [0.4, 0.47, 0.5], [0.5, 0.4, 0.7]],
    64: [[0.3, 0.3, 0.31], [0.2, 0.2, 0.21], [2.0, 2.1, 2.2]],
}


def ordered(orders=(), losses=ENDS, accuracies=None, diverged=(), **fields):
    """Summarized results of the methods best, good and 'fixed 0.0': losses and accuracies [method, seed] by workers."""
    axes = ("method", "service_time", "num_workers", "seed")
    ends = np.stack([np.asarray(values, float) for values in losses.values()], axis=1)[:, None]
    accuracy = 1 - ends / 4 if accuracies is None else np.stack(list(accuracies.values()), axis=1)[:, None]
    at = np.full(ends.shape, -1)
    for method, m, seed in diverged:
        place = method, 0, list(losses).index(m), seed
        at[place], ends[place], accuracy[place] = 7, np.nan, np.nan
    workers, seeds = tuple(losses), tuple(range(ends.shape[-1]))
    config = CompareConfig(TRAIN, num_workers=workers, seeds=seeds, orders=orders, failed_below=0.2, **fields)
    untrained = np.broadcast_to(0.1 + 0.01 * (np.arange(len(seeds)) % 3), ends.shape)
    results = xarray.Dataset(
        {
            "test_accuracy": ((*axes, "update"), np.stack([untrained, accuracy], -1)),
            "test_loss": ((*axes, "update"), np.stack([np.full(ends.shape, 2.3), ends], -1)),
            "train_loss": ((*axes, "trained"), np.stack([np.full(ends.shape, 2.2), ends], -1)),
            "gap": ((*axes, "trained"), np.stack([0.01 * ends, 0.01 * ends], -1)),
            "simulated_time": ((*axes, "update"), np.broadcast_to([0.0, 9.0], (*ends.shape, 2))),
            "diverged_at": (axes, at),
        },
        {"method": ["best", "good", "fixed 0.0"], "algorithm": ("method", ["ormo", "dana_slim", "momentum_asgd"])}
        | {"service_time": ["equal"], "num_workers": list(workers), "seed": list(seeds)}
        | {"update": [0, 24], "trained": [12, 24]},
        {"config": json.dumps(dataclasses.asdict(config)), "criteria": json.dumps(criteria(config))},
    )
    return summarize(results, failed_below=0.2)


def test_an_order_is_one_of_losses_in_their_logarithms_paired_over_seeds():
    (finding,) = check_orders(ordered("(best, good, 'fixed 0.0')", {16: ENDS[16]}, **EXCEPTION))
    best, good, fixed = np.log(ENDS[16])
    first, second = student(good - best).exp(), student(fixed - good).exp()
    claim = finding.claim
    assert first.low > 1 > second.low
    np.testing.assert_allclose([claim["value"], *claim["interval"]], second)  # the smaller of the two
    assert claim["ours"].startswith(
        f"16 workers: loss of good {first.value:.3g} ({first.low:.3g} to {first.high:.3g}) times that of best, seen; "
        f"loss of fixed 0.0 {second.value:.3g} ({second.low:.3g} to {second.high:.3g}) times that of good, "
        "not decided; all of them: not decided; in 4 of 5 such experiments a ratio of "
    )
    assert claim["statement"] == (
        "best > good > fixed 0.0 in training loss after 24 gradients (digits, Mlp(hidden=8), learning rate 0.05, "
        "equal, 16 workers)."
    )
    assert (claim["source"], claim["paper"], claim["seeds"]) == ("no paper", "no number", 3)
    assert claim["verdict"] == "not decided" and claim["ours"].endswith("; a test")
    assert [cell.strip() for cell in finding.table[-1].split("|")[1:3]] == ["verdict", "not decided"]


NOISE = np.random.default_rng(0).normal(scale=0.02, size=(3, 16))


@pytest.mark.parametrize(
    "gains, verdict",
    [
        ({16: 1.5, 32: 2.0}, "seen"),
        ({16: 1.5, 32: 0.6}, "refuted"),
        ({16: 1.5, 32: 1.0}, "not decided"),
        ({16: 1.0, 32: 1.01}, "equivalent"),
    ],
)
def test_a_claim_holds_where_it_holds_at_every_number_of_workers(gains, verdict):
    losses = {m: 0.1 * np.exp(NOISE) * [[1.0], [gain], [3.0]] for m, gain in gains.items()}
    (finding,) = check_orders(ordered("(best, good)", losses))
    assert finding.claim["verdict"] == verdict and finding.claim["seeds"] == 16
    at = [decide_difference(np.diff(np.log(losses[m]), axis=0)[0], bound=np.log(1.1)).verdict for m in gains]
    assert [cell.strip() for cell in finding.table[-1].split("|")[2:4]] == at


@pytest.mark.parametrize("gap, verdict", [(0.0, "equivalent"), (0.02, "refuted"), (0.005, "not decided")])
def test_methods_that_are_said_to_be_equal_are_compared_in_accuracy(gap, verdict):
    accuracies = {m: 0.9 + 0.1 * NOISE + [[gap], [0.0], [0.0]] for m in (16, 32)}
    losses = dict.fromkeys((16, 32), 0.1 + 0 * NOISE)
    (finding,) = check_orders(ordered((), losses, accuracies, equals={"same": ("best", "good")}))
    claim = finding.claim
    assert claim["verdict"] == verdict and claim["name"] == "same-digits-mlp-0-05-equal-16-32"
    assert "best = good in test accuracy" in claim["statement"] and "best less good " in claim["ours"]
    assert claim["value"] == pytest.approx(gap, abs=0.005)


def test_a_diverged_training_counts_as_untrained_and_is_counted():
    lost = [(2, 16, seed) for seed in range(3)]
    (finding,) = check_orders(ordered([["good", "fixed 0.0"]], diverged=lost, **EXCEPTION))
    expected = student(np.log(2.3) - np.log(ENDS[16][1])).exp()
    assert f"{expected.value:.3g} ({expected.low:.3g} to {expected.high:.3g})" in "\n".join(finding.table)
    assert "failed: fixed 0.0 3 of 6 trainings (3 diverged, which count as untrained)" in finding.claim["ours"]
    both = [(k, 64, seed) for k in (0, 1) for seed in range(3)]
    (finding,) = check_orders(ordered("(best, good)", diverged=both, **EXCEPTION))
    assert "64 workers: loss of good 1 (1 to 1) times that of best, equivalent" in finding.claim["ours"]
    worse = {16: [[0.2, 0.2, 0.21], [40.0, 50.0, 60.0], [1, 1, 1]]}  # not diverged, but above where it began
    (finding,) = check_orders(ordered("(best, good)", worse, **EXCEPTION))
    assert finding.claim["value"] == pytest.approx(2.3 / np.exp(np.log(worse[16][0]).mean()))


def test_seeds_that_pick_learning_rates_do_not_judge():
    accuracies = [[0.9] * 20, [0.8] * 20]
    runs = [made_up(accuracies, [[0.3] * 20, [low] * 2 + [high] * 18]) for low, high in ((0.1, 0.5), (0.6, 0.1))]
    both = xarray.concat(runs, xarray.Variable("method", ["one", "other"]))
    both = both.assign_coords({"method": ["one", "other"], "algorithm": ("method", ["asgd", "asgd"])})
    both["test_loss"] = xarray.full_like(both.test_accuracy, 2.3)
    config = CompareConfig(
        orders="(other, one)", learning_rate_scales=(1.0, 0.1), num_workers=(8,), seeds=tuple(range(20)), choosing=2
    )
    both.attrs["config"] = json.dumps(dataclasses.asdict(config))
    (finding,) = check_orders(summarize(both, choosing=2))
    assert "best of 2 learning rates" in finding.claim["statement"] and finding.claim["seeds"] == 18
    assert finding.claim["value"] == pytest.approx(0.5 / 0.3)
    both.attrs["config"] = json.dumps(dataclasses.asdict(dataclasses.replace(config, choosing=0)))
    (finding,) = check_orders(summarize(both))
    assert finding.claim is None and "also picked the learning rates" in finding.table[-1]


def test_few_seeds_make_no_claim_without_a_reason():
    (finding,) = check_orders(ordered("(best, good)"))
    assert finding.claim is None and finding.table[-1].startswith("No claim: only 3 seeds judge; use 16")


def test_orders_become_claims_with_figures(tmp_path):
    orders = "(best, good, 'fixed 0.0'), other=(good, asgd)"
    said = {"source": "Somebody 2016", "paper": {"best": "best | good", "other": "nothing"}, **EXCEPTION}
    made = ordered(orders, **said).assign_attrs(cpu_minutes=2.5)
    drawn = draw_comparison(made, tmp_path, command=COMMAND)
    assert drawn.table.endswith("\n\nNo claim of good > asgd (equal): asgd not compared.")
    assert "| best > good > fixed 0.0 (equal) " in drawn.table
    (claim,) = claims.load_all(tmp_path / "claims")
    assert [claim] == drawn.claims and claim.name == "best-digits-mlp-0-05-equal-16-64"
    assert claim.command == COMMAND.removeprefix("/usr/bin/") and claim.paper == "best | good"
    assert claim.cpu_minutes == 2.5 and claim.criterion == json.loads(made.attrs["criteria"])["best"]
    assert 1_000 < (tmp_path / "claims" / claim.figure).stat().st_size < 200_000
    one = ordered("(best, good)", {16: ENDS[16]}, **EXCEPTION)  # other numbers of workers are another claim
    draw_comparison(one, tmp_path, command=COMMAND.replace("launch", "/somewhere/launch"))
    names = ["best-digits-mlp-0-05-equal-16", "best-digits-mlp-0-05-equal-16-64"]
    assert sorted(claim.name for claim in claims.collect(tmp_path / "claims", tmp_path / "kept")) == names
    assert {claim.command for claim in claims.load_all(tmp_path / "kept")} == {COMMAND.removeprefix("/usr/bin/")}
    alone = draw_comparison(
        ordered("(best, good)", {16: np.array(ENDS[16])[:, :1]}), tmp_path / "claims", command=COMMAND
    )
    assert alone.claims == [] and "No claim of best > good (equal): an interval needs two seeds." in alone.table
    assert draw_comparison(one, tmp_path / "kept").claims == []  # without a command


def test_a_finished_folder_is_read_for_other_orders_and_gets_their_claims(whole, capsys):
    """The fields that are only for reading what is finished may change."""
    _, workdir = whole
    capsys.readouterr()
    results = run_comparison(dataclasses.replace(CONFIG, orders="(mild, nag_asgd)", **EXCEPTION), workdir)
    assert "to train" not in capsys.readouterr().out
    drawn = draw_comparison(results, workdir, command=COMMAND)
    assert [c.name for c in drawn.claims] == [f"mild-digits-mlp-0-05-{law}-2-4" for law in ("equal", "stragglers")]
    assert all(claim.cpu_minutes > 0 and claim.seeds == 2 and len(claim.criterion) == 64 for claim in drawn.claims)


def test_orders_of_methods_that_are_not_compared_have_no_effect():
    fields = {"methods": "asgd, mild=ormo(momentum=0.3)", "linear_scaling": ""}
    for orders in ("(dana_slim, asgd)", "(mild, 'fixed *')", "(asgd, mild)", " , "):
        Comparison(dataclasses.replace(CONFIG, **fields, orders=orders))


def test_many_methods_take_several_pages():
    pages = figures.pages(xarray.Dataset(coords={"method": algorithms.__all__[:14]}))
    assert [len(page) for page in pages] == [5, 5, 4] and [
        method for page in pages for method in page
    ] == algorithms.__all__[:14]


def test_a_share_of_the_workers_is_slow_rounded_up():
    laws = {"a": "stragglers(share=0.0625)", "b": "stragglers(share=1, slowdown=2.0)"}
    comparison = Comparison(CompareConfig(TRAIN, "asgd", laws, num_workers=(8, 16, 17, 64), seeds=(0,)))
    for (index, slow), share in zip(((0, (1, 1, 2, 4)), (1, (8, 16, 17, 64))), ("0.0625", "1.0"), strict=True):
        for m, count in enumerate(slow):
            config = comparison.config((0, index, m, 0))
            law = config.named.asynchrony.options["service_time"].make()
            means = law.machine(np.random.default_rng(0), config.num_workers)
            assert f"share={share}" in config.asynchrony and (means > 1).sum() == count


def test_learning_rates_of_methods_scale():
    methods = "asgd, own=asgd(learning_rate=1.0), ssgd"
    config = CompareConfig(TRAIN, methods, num_workers=(4,), learning_rate_scales=(1, 0.5), linear_scaling="own, ssgd")
    comparison = Comparison(config)
    rates = [[comparison.config((k, 0, 0, r, 0)).learning_rate for r in range(2)] for k in range(3)]
    np.testing.assert_allclose(rates, [[0.05, 0.025], [4.0, 2.0], [0.2, 0.1]])


def test_a_name_in_linear_scaling_is_of_all_entries_with_it():
    config = CompareConfig(TRAIN, "asgd, ssgd, sync=ssgd", num_workers=(4,), linear_scaling="ssgd")
    comparison = Comparison(config)
    rates = [comparison.config((k, 0, 0, 0)).learning_rate for k in range(3)]
    np.testing.assert_allclose(rates, [0.05, 0.2, 0.2])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"methods": "asgd, dana_zro"}, r"config\.methods must be one of .* got 'dana_zro'; did you mean 'dana_zero'"),
        ({"methods": "multi_asgd(momenta=0.9)"}, r"config\.methods: multi_asgd has no option 'momenta'"),
        ({"methods": {"a|b": "asgd"}}, r"config\.methods: 'a\|b' must be one line without '\|'"),
        ({"methods": "asgd(learning_rate=fast)"}, r"learning_rate must be of type float, got 'fast'"),
        ({"methods": "asgd(momentum=0.9)"}, "asgd has no option 'momentum'"),
        ({"methods": "nag_asgd(momentum=2.0)"}, r"the cell method='nag_asgd'.* is invalid: config\.momentum must be"),
        ({"methods": "multi_asgd(form=insid)"}, r"is invalid: .*: form must be one of .* did you mean 'inside'"),
        ({"methods": "asgd, asgd(decay_at=server)"}, r"has 'asgd' twice; give one a label, as in 'another=asgd\("),
        ({"methods": "multi_asgd(num_workers=3)"}, "num_workers of multi_asgd is set by a field of its own"),
        ({"methods": " , "}, r"config\.methods is empty"),
        ({"methods": "asgd; nag_asgd"}, r"config\.methods must be like .*, got 'asgd; nag_asgd'"),
        ({"service_times": "equal=gama"}, r"config\.service_times: equal must be one of .* did you mean 'gamma'"),
        (
            {"service_times": "equal=gamma(cv=-1)"},
            r"config\.service_times: equal='gamma\(cv=-1\.0\)': cv must be finite",
        ),
        (
            {"service_times": "stragglers(num_slow=M/16)"},
            r"config\.service_times: num_slow must be a number, a word, .* got 'stragglers\(num_slow=M/16\)'",
        ),
        ({"service_times": "a=gamma, b=gamma"}, r"'a' and 'b' are identical"),
        ({"service_times": "stragglers(num_slow=9)"}, "num_slow=9 exceeds num_workers=2"),
        ({"num_workers": (2, 2)}, r"config\.num_workers must have distinct values, got 2 twice"),
        ({"num_workers": ()}, r"config\.num_workers must be a tuple of at least one value, got \(\)"),
        ({"num_workers": (0,)}, r"config\.num_workers must be an integer >= 1, got config\.num_workers=0"),
        ({"seeds": (0.5,)}, r"config\.seeds must be a concrete integer, got 0\.5"),
        ({"learning_rate_scales": (1.0, -1.0)}, r"config\.learning_rate_scales must be finite and in \(0"),
        ({"linear_scaling": "ssgt"}, r"config\.linear_scaling: 'ssgt' is not a label .* did you mean 'ssgd'"),
        (
            {"orders": "(mild, nag_agsd)"},
            r"config\.orders: 'nag_agsd' is not a label of config.methods; did you mean 'nag_as",
        ),
        ({"orders": "mild"}, r"config\.orders must be like 'name=\(best, .*', with at least two places, got 'mild'"),
        ({"orders": "(mild, (), nag_asgd)"}, r"config\.orders must be like .* got \('mild', \(\), 'nag_asgd'\)"),
        (
            {"orders": "(mild, ssgd, mild)"},
            r"config\.orders: .* got 'mild' twice in \('mild', 'ssgd', 'mild'\)",
        ),
        ({"orders": "(mild, 'm*')"}, r"config\.orders: .* got 'mild' twice in 'mild > m\*'"),
        ({"orders": "(mild, ssgd), (mild, nag_asgd)"}, r"config\.orders has the name 'mild' twice; rename one"),
        (
            {"orders": {"?": ("mild", "ssgd")}},
            r"config\.orders: \('mild', 'ssgd'\) needs a name with letters a-z or digits",
        ),
        (
            {"orders": "(mild, ssgd)", "service_times": {"a+": "gamma", "A-": "exponential"}},
            r"config\.service_times: labels must differ in their letters a-z and digits, .* got 'a\+', 'A-'",
        ),
        ({"source": "  "}, r"config\.source must be one line of text, got '  '"),
        ({"paper": "two\nlines"}, r"config\.paper must be one line of text, got 'two\\nlines'"),
        ({"pick": "test_acuracy"}, r"config\.pick must be one of .* did you mean 'test_accuracy'"),
        ({"failed_below": 20.0}, r"config\.failed_below must be finite and in \[0, 1\], got config\.failed_below=20"),
        (
            {"train": dataclasses.replace(TRAIN, asynchrony="barrier")},
            r"config\.train\.asynchrony must be 'queue\(\.\.\.\)', .* got 'barrier'",
        ),
        (
            {"train": dataclasses.replace(TRAIN, batch_size=0)},
            r"is invalid: config\.batch_size must be an integer >= 1",
        ),
        ({"train": dataclasses.replace(TRAIN, model="Mlpp")}, r"config\.model must be .* did you mean 'Mlp'"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_is_trained(tmp_path, fields, message):
    with pytest.raises(RunError, match=message):
        run_comparison(dataclasses.replace(CONFIG, **{"linear_scaling": "", **fields}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, variants, cells",
    [
        ("dana_table", ("", "short", "cifar10", "digits", "fast"), 30),
        ("ormo_table", ("", "short", "cifar10", "digits", "fast"), 30),
        ("closed_loop", ("", "long", "fast"), 12),
        ("orders", ("mlp", "mlp_short_steps", "mlp_16", "stragglers", "cnn", "cnn_short_steps", "cifar10", "fast"), 24),
    ],
)
def test_configs_name_what_there_is(name, variants, cells):
    get_config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]
    for variant in variants:
        config = get_config(variant)
        comparison = Comparison(config)
        assert len(comparison) >= cells
        if "dana_dc" in comparison.methods:
            assert comparison.methods["dana_dc"].options == {"strength": 2.0, "mean_square": "per_worker"}
        for order in parse_orders(config.orders):
            assert variant == "fast" or not order.lacking(comparison.methods)
    with pytest.raises(ValueError, match=f"configs/{name}.py has the variants .* not 'slow'"):
        get_config("slow")


def launch(*flags):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_ENABLE_X64": "0"}
    command = [sys.executable, "launch/compare.py", "--config=configs/ormo_table.py:fast", *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_command_stops_goes_on_and_leaves_a_table_and_figures(tmp_path):
    workdir = tmp_path / "run"
    flags = [f"--workdir={workdir}", "--config.methods=asgd, late=nag_asgd"]
    flags += ["--config.orders=(late, asgd)", "--config.source=Somebody 2016", "--citation"]
    flags += ["--config.exception=two seeds are enough for a test"]
    flags += ["--config.num_workers=2,3", "--config.learning_rate_scales=1.0", "--config.train.num_updates=10"]
    status, out, err = launch(*flags, "--stop_after_minutes=0")
    assert status == 75 and "0 of 24 cells are finished and saved" in err and "rerun the same command to resume" in err
    status, out, err = launch(*flags)
    assert status == 0, err
    assert "| late " in out and "24 trainings, " in out and f"results: {workdir}/results.nc" in out
    made = {path.name for path in workdir.iterdir()}
    assert {"results.nc", "table.md", "table.png", "accuracy.png", "curves-stragglers.png"} <= made
    assert "claims:\n" in out and out.count("@inproceedings{mitliagkas2016asynchrony,") == 1
    made_claims = claims.load_all(workdir / "claims")
    assert [claim.source for claim in made_claims] == ["Somebody 2016"] * 3
    assert made_claims[0].command.startswith("python launch/compare.py --config=configs/ormo_table.py:fast ")
    assert made_claims[0].command.endswith("--workdir=runs/run")
    status, _, err = launch(*flags, "--config.seeds=0,1,2")
    assert status == 1 and "config.seeds was [0, 1], now it is [0, 1, 2]. Take a new workdir" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.methds=asgd"], "config has no field 'methds'; did you mean 'methods'"),
        (["--config.methods=ormoo"], "got 'ormoo'; did you mean 'ormo'"),
        (["--config.num_workers=two"], "config.num_workers must be a concrete integer, got 'two'"),
    ],
)
def test_a_wrong_flag_is_one_clear_error_and_nothing_is_written(tmp_path, flags, message):
    status, _, err = launch(f"--workdir={tmp_path / 'run'}", *flags)
    assert status == 1 and "Traceback" not in err and message in err, err
    assert list(tmp_path.iterdir()) == []
