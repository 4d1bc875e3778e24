"""Every figure, of runs that reach their target, that do not and that diverge: nothing empty, cut off or off the cycle.

Warnings of matplotlib are errors, as all are.
"""

import dataclasses
import json

import numpy as np
import pytest
import xarray
from looks import check, kept

from asyncflax import _style, engine, plots, queues, staleness
from asyncflax.lab.compare import CompareConfig, figures, summarize
from asyncflax.lab.figures import _draw
from asyncflax.lab.figures._words import title
from asyncflax.lab.sweep import SweepConfig
from asyncflax.theory import planner
from asyncflax.train.config import TrainConfig

WORKERS, MOMENTA, RATES, SEEDS = (1, 8), (-0.09, 0.0, 0.9), (0.1, 0.316, 1.0, 3.16), (0, 1, 2)


AXES = ("num_workers", "momentum", "learning_rate", "seed")


def grid(needed, axes=AXES):
    """A sweep whose accuracy is min(1, update / needed(...)), NaN from update 20 on where that is NaN."""
    sizes = dict(zip(AXES, (WORKERS, MOMENTA, RATES, SEEDS), strict=True))
    shape = [len(values) for values in sizes.values()]
    updates = np.arange(0, 101, 10)
    speed = np.array([needed(m, mu, a, s) for m in WORKERS for mu in MOMENTA for a in RATES for s in SEEDS])
    accuracy = np.minimum(1.0, 0.05 + updates / speed.reshape(shape)[..., None])
    accuracy[np.isnan(accuracy) & (updates < 20)] = 0.1
    clock = np.broadcast_to(updates / np.array(WORKERS)[:, None, None, None, None], accuracy.shape)
    train = dataclasses.asdict(TrainConfig(num_updates=100, num_workers=8))
    results = xarray.Dataset(
        {
            "test_accuracy": ((*sizes, "update"), accuracy),
            "test_loss": ((*sizes, "update"), 1.5 - accuracy),
            "simulated_time": ((*sizes, "update"), clock),
            "train_loss": ((*sizes, "trained"), 1.5 - accuracy[..., 1:]),
            "diverged_at": (tuple(sizes), np.where(np.isnan(accuracy[..., -1]), 20, -1)),
        },
        {name: list(values) for name, values in sizes.items()} | {"update": updates, "trained": updates[1:]},
        {"config": json.dumps({"train": train})},
    )
    return results.isel({name: -1 for name in sizes if name not in axes})


RUNS = {
    "all reach it": lambda m, mu, rate, seed: 60.0 + 10 * seed + 20 * m * abs(mu),
    "one reaches it": lambda m, mu, rate, seed: 60.0 + 10 * seed if m == 8 else 5000.0 + seed,
    "the fewest reach it": lambda m, mu, rate, seed: 60.0 + 10 * seed if m == 1 else 5000.0 + seed,
    "one seed reaches it": lambda m, mu, rate, seed: 60.0 if seed else 5000.0,
    "none reach it": lambda m, mu, rate, seed: 3000.0 + 100 * seed,
    "most diverge": lambda m, mu, rate, seed: np.nan if m == 8 or rate == 0.2 else 5000.0,
    "all diverge": lambda m, mu, rate, seed: np.nan,
}
JUDGED = ("tuned_momentum", "fixed_momentum", "penalty", "negative_momentum")
FIGURES = ["best_momentum", "efficiency(target=0.9)", "grid", *(f"{name}(target=0.6, choosing=1)" for name in JUDGED)]


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("figure", FIGURES)
def test_figures_of_sweeps(runs, figure, tmp_path):
    of_one = figure.startswith("negative")
    axes = dict(zip(AXES, (WORKERS, MOMENTA, RATES, SEEDS), strict=True))
    axes = {name: values for name, values in axes.items() if name != "num_workers" or not of_one}
    results = grid(RUNS[runs], tuple(axes))
    config = SweepConfig(axes=axes, figure=figure)
    with kept() as figures:
        _draw.draw(results, config, tmp_path)
    (drawn,) = figures.values()
    check(drawn)
    workers = "8 workers" if of_one else "1 and 8 workers"
    assert drawn.get_suptitle() == f"digits, SmallCnn, momentum_asgd, {workers}, 100 updates, 3 seeds"


def test_titles_name_all_workers():
    results = grid(RUNS["all reach it"])
    three = xarray.concat([results, results.isel(num_workers=[1]).assign_coords(num_workers=[16])], "num_workers")
    assert title(three).startswith("digits, SmallCnn, momentum_asgd, 1, 8 and 16 workers, ")
    assert title(results.isel(num_workers=0, seed=0, drop=True)).endswith(", 8 workers, 100 updates, 1 seed")


def comparison(accuracy, methods=("ssgd", "asgd", "nag_asgd"), workers=(2, 8), laws=("stragglers",)):
    """A comparison in which `accuracy(method, m, seed)` is reached at the end; NaN diverges half way."""
    axes = ("method", "service_time", "num_workers", "seed")
    shape, updates = (len(methods), len(laws), len(workers), len(SEEDS)), np.array([0, 10, 20])
    ends = np.array([accuracy(k, m, s) for k in range(len(methods)) for _ in laws for m in workers for s in SEEDS])
    course = 0.1 + (ends.reshape(shape)[..., None] - 0.1) * updates / 20
    course[..., 0] = 0.1
    stale = np.array([0.0 if name == "ssgd" else 0.01 for name in methods]).reshape(-1, 1, 1, 1, 1)
    slow = np.array([100.0 if name == "ssgd" else 1.0 for name in methods]).reshape(-1, 1, 1, 1, 1)
    config = CompareConfig(TrainConfig(num_updates=20), target=0.999, failed_below=0.2)
    results = xarray.Dataset(
        {
            "test_accuracy": ((*axes, "update"), course),
            "train_loss": ((*axes, "trained"), 2 - course[..., 1:]),
            "gap": ((*axes, "trained"), np.where(np.isnan(course[..., 1:]), np.nan, stale * np.array([0.0, 1.0]))),
            "simulated_time": ((*axes, "update"), np.broadcast_to(slow * updates, course.shape)),
            "diverged_at": (axes, np.where(np.isnan(ends).reshape(shape), 10, -1)),
            "learning_rate": (("method", "num_workers"), np.full((len(methods), len(workers)), 0.1)),
        },
        {"method": list(methods), "algorithm": ("method", list(methods)), "service_time": list(laws)}
        | {"num_workers": list(workers), "seed": list(SEEDS), "update": updates, "trained": updates[1:]},
        {"config": json.dumps(dataclasses.asdict(config))},
    )
    return summarize(results, target=0.999, failed_below=0.2)


COMPARED = {
    "not reached": comparison(lambda k, m, s: 0.5 + 0.1 * k + 0.02 * s, laws=("equal", "stragglers")),
    "alike": comparison(lambda k, m, s: 0.342 + 0.0001 * s),
    "one worker count": comparison(lambda k, m, s: 0.5 + 0.02 * s, workers=(16,)),
    "some diverge": comparison(lambda k, m, s: np.nan if (k, s) == (1, 0) else 0.6),
    "all diverge": comparison(lambda k, m, s: np.nan),
    "all fail": comparison(lambda k, m, s: 0.1),
    "synchronous": comparison(lambda k, m, s: 0.7, methods=("ssgd",)),
    "many": comparison(lambda k, m, s: 0.3 + 0.05 * k, methods=(*(f"method_{k}" for k in range(8)), "ssgd")),
}


@pytest.mark.parametrize("results", COMPARED.values(), ids=COMPARED.keys())
def test_figures_of_comparisons(results):
    for name, figure in figures.all_figures(results):
        check(figure)
        (legend,) = figure.legends or [None]
        text = figure.get_suptitle() or legend.get_title().get_text()
        assert "digits, SmallCnn after 20 gradients" in text.replace("\n", " "), name
        accuracies = [axes for axes in figure.axes if "accuracy" in axes.get_title() or name == "accuracy"]
        assert all(len(axes.get_yticks()) >= 3 for axes in accuracies if name != "table")


def rows(updates, *, momentum=False, kinds=("loss", "accuracy")):
    """What a run of so many updates records every 20."""
    out = []
    for update in range(0, updates + 1, 20):
        row = {"update": update, "simulated_time": update / 8}
        for k, kind in enumerate(kinds):
            row |= {f"test_{kind}": 0.5 + k / (1 + update)} if update % 100 == 0 or update == updates else {}
            row |= {f"train_{kind}": 0.6 + k / (1 + update), "gap": 0.01} if update else {}
        if momentum and update % 100 == 0 and update:
            row |= {"implicit_momentum": 0.8, "implicit_momentum_low": 0.7, "implicit_momentum_high": 0.9}
            row |= {"total_momentum": 1.1}
        out.append(row)
    return out


TRAINED = {
    "long": (rows(2000), 8),
    "short": (rows(20), 8),
    "nothing trained": (rows(0), 8),
    "measured": (rows(600, momentum=True), 8),
    "without accuracy": (rows(200, kinds=("loss",)), 8),
    "one worker": (rows(60), 1),
}


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("trained, workers", TRAINED.values(), ids=TRAINED.keys())
def test_figures_of_trainings(trained, workers, timed):
    updates = max(trained[-1]["update"], 1)
    law = staleness.geometric(workers - 1.0) if workers > 1 else None
    queue = queues.simulate(num_workers=workers, num_updates=updates, service_time=queues.exponential())
    trace = queue if timed else staleness.geometric(7.0).trace(updates)
    figure = _style.new_figure(15, 7.5)
    _style.title(figure, f"digits, SmallCnn, {_style.workers(workers)}, dc_asgd(strength=0.04), learning rate 0.1 " * 4)
    plots.training(figure, trained, trace, law)
    check(figure)
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert ("accuracy" in labels) == ("test_accuracy" in trained[0])
    assert sum(axes.get_xlabel() == "updates" for axes in figure.axes) <= 2
    ticks = [axes.get_xticks() for axes in figure.axes if "updates" in axes.get_xlabel()]
    assert all(np.all(tick == np.round(tick)) for tick in ticks) and ticks


def test_a_short_line_has_a_marker_at_each_point_and_a_long_one_some():
    look = _style.look(0, 25)
    assert look["marker"] == "o" and look["markevery"] is None
    assert _style.look(1, 500)["markevery"] == 50
    looks = [tuple(_style.look(k)[name] for name in ("color", "marker", "linestyle")) for k in range(18)]
    assert len(set(looks)) == 18


@pytest.mark.parametrize("low, high", [(36.0, 63.0), (0.0012, 0.0014), (2.0, 900.0), (1e-5, 1e3), (900.0, 40_000.0)])
def test_logarithmic_axes_have_three_ticks_in_plain_numbers(low, high):
    figure = _style.new_figure(5, 4)
    axes = figure.subplots()
    axes.plot([1, 2], [low, high], **_style.look(0))
    _style.plain_log(axes, "y")
    check(figure)
    inside = [tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    assert 3 <= len(inside) <= 14
    assert not [text for text in axes.get_yticklabels() if "times" in text.get_text()]


@pytest.mark.parametrize("workers", [[1], [1, 2], [1, 2, 4, 5, 8, 16]])
def test_the_figure_of_a_plan(workers):
    figure = _style.new_figure(15, 5.4)
    planner.draw(figure, planner.make(workers, condition_number=9.0))
    check(figure)


def test_the_figure_of_rounds():
    figure = _style.new_figure(11, 4.5)
    trace = queues.simulate(num_workers=64, num_updates=640, service_time=queues.exponential())
    engine.draw(figure, trace, device_groups=[1, 4], widths=[4, 8, 16], replicas=2)
    check(figure)
