"""Verdicts on simulated experiments whose truth is known: how often they are wrong, how often they see what is there.

A share of R experiments has a standard deviation of sqrt(p (1 - p) / R); four of them are allowed.
"""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from asyncflax.lab.compare import CompareConfig
from asyncflax.lab.statistics import (
    ACCURACY_BOUND,
    JUDGING_SEEDS,
    RATIO_BOUND,
    VERDICTS,
    check_seeds,
    criterion_digest,
    decide_all,
    decide_difference,
    decide_number,
    decide_order,
    decide_trend,
    decide_updates,
    holm,
    least_updates,
    optimum,
    optimum_shift,
    power,
    proportion,
    resampled,
    smallest_difference,
    student,
)
from asyncflax.lab.sweep import SweepConfig
from asyncflax.train.config import TrainConfig

SEEDS = 16


def tolerance(share, experiments):
    return 4 * math.sqrt(share * (1 - share) / experiments)


def share_of(verdict, decided):
    return np.mean([one.verdict == verdict for one in decided])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- the difference of two arms


@pytest.fixture(scope="module")
def null():
    """2,000 experiments without a difference; no two verdicts share a number."""
    return [decide_difference(row, bound=0.1) for row in normal(2000, SEEDS)]


def test_a_difference_that_is_not_there_is_seen_in_one_of_forty_experiments(null):
    assert share_of("seen", null) == pytest.approx(0.025, abs=tolerance(0.025, 2000))
    assert share_of("refuted", null) == pytest.approx(0.025, abs=tolerance(0.025, 2000))


def test_intervals_hold_the_truth_and_p_values_are_uniform(null):
    covered = np.mean([one.interval.low <= 0 <= one.interval.high for one in null])
    assert covered == pytest.approx(0.95, abs=tolerance(0.95, 2000))
    assert stats.kstest([one.p for one in null], "uniform").pvalue > 1e-3
    assert np.mean([one.p_rank <= 0.05 for one in null]) == pytest.approx(0.05, abs=tolerance(0.05, 2000))


@pytest.mark.parametrize("seeds, effect", [(16, 0.5), (48, 0.4)])
def test_power_is_that_of_the_noncentral_t(seeds, effect):
    """Against simulations, and against the integral over the deviation that the noncentral t is."""
    experiments = 300
    decided = [decide_difference(effect + row) for row in normal(experiments, seeds, seed=1)]
    expected = power(effect, 1.0, seeds)
    assert share_of("seen", decided) == pytest.approx(expected, abs=tolerance(expected, experiments))

    limit, freedom = stats.t.ppf(0.975, seeds - 1), seeds - 1
    deviations = np.sqrt((np.arange(20_000) + 0.5) / 20_000)  # quantiles of chi² at midpoints of shares
    quantiles = np.sqrt(stats.chi2.ppf(deviations**2, freedom) / freedom)
    integral = np.mean(stats.norm.sf(limit * quantiles - effect * math.sqrt(seeds)))
    assert expected == pytest.approx(integral, abs=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 6, 16, 48])
@pytest.mark.parametrize("probability", [0.5, 0.8, 0.99])
def test_the_smallest_difference_is_seen_with_the_power_that_was_asked_for(seeds, probability):
    effect = smallest_difference(0.3, seeds, probability)
    assert power(effect, 0.3, seeds) == pytest.approx(probability, abs=1e-5)


def test_a_verdict_has_the_interval_of_student_and_the_difference_that_it_could_have_seen():
    differences = 0.01 * normal(SEEDS, seed=2)
    decided = decide_difference(differences)
    np.testing.assert_allclose(decided.interval, student(differences), rtol=1e-12)
    assert decided.detectable == smallest_difference(np.std(differences, ddof=1), SEEDS)
    assert decided.p_rank == stats.wilcoxon(differences).pvalue
    assert (decided.seeds, decided.test, decided.exception) == (SEEDS, "paired t", "")


def test_equivalence_at_the_bound_is_found_in_one_of_twenty_experiments():
    """As far from 0 as this, only the one-sided test at this bound matters."""
    decided = [decide_difference(row + 5.0, bound=5.0, claim="equal") for row in normal(500, SEEDS, seed=3)]
    assert share_of("equivalent", decided) == pytest.approx(0.05, abs=tolerance(0.05, 500))
    assert share_of("refuted", decided) == pytest.approx(0.025, abs=tolerance(0.025, 500))


def test_arms_that_are_equal_are_equivalent_with_the_power_of_two_one_sided_tests():
    """mean +- t_0.95 s / sqrt(n) within the bound; with normal numbers that is an integral over s."""
    bound, experiments = 0.75, 400
    decided = [decide_difference(row, bound=bound, claim="equal") for row in normal(experiments, SEEDS, seed=4)]
    freedom, root = SEEDS - 1, math.sqrt(SEEDS)
    s = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, freedom) / freedom)
    room = np.maximum(bound - stats.t.ppf(0.95, freedom) * s / root, 0.0)
    expected = np.mean(1 - 2 * stats.norm.sf(room * root))
    assert 0.5 < expected < 0.9
    assert share_of("equivalent", decided) == pytest.approx(expected, abs=tolerance(expected, experiments))


SPREAD = np.linspace(-1.0, 1.0, SEEDS)  # the half-width of its 95 % interval is 0.33, of its 90 % interval 0.27


def test_a_resampled_interval_holds_the_mean():
    rng = np.random.default_rng(0)
    hits = [low <= 1.0 <= high for _, low, high in (resampled(rng.normal(1.0, 1.0, 16)) for _ in range(200))]
    assert 0.88 <= np.mean(hits) <= 0.98


def test_a_proportion_has_an_interval_at_its_ends_as_well():
    assert proportion(0, 20).value == 0.0 and 0.1 < proportion(0, 20).high < 0.2
    z, share, total = stats.norm.ppf(0.975), 0.3, 40
    low, high = proportion(12, total)[1:]
    for end in (low, high):  # by definition, the shares whose score is z
        np.testing.assert_allclose(abs(share - end), z * np.sqrt(end * (1 - end) / total))


@pytest.mark.parametrize(
    "claim, mean, bound, verdict",
    [
        ("greater", 0.5, 0.1, "seen"),
        ("greater", -0.5, 0.1, "refuted"),
        ("greater", 0.0, 0.1, "not decided"),
        ("greater", 0.0, 0.5, "equivalent"),
        ("greater", 0.0, 0.3, "equivalent"),  # the 90 % interval decides, that of 95 % is wider than the bound
        ("greater", 0.5, 9.0, "seen"),  # small, and yet seen
        ("greater", -0.5, 9.0, "refuted"),
        ("equal", 0.0, 0.5, "equivalent"),
        ("equal", 0.5, 9.0, "equivalent"),
        ("equal", 0.5, 0.1, "refuted"),
        ("equal", -0.5, 0.1, "refuted"),
        ("equal", 0.5, 0.3, "not decided"),
        ("equal", 0.0, 0.1, "not decided"),
    ],
)
def test_what_is_said_of_which_interval(claim, mean, bound, verdict):
    decided = decide_difference(SPREAD + mean, bound=bound, claim=claim)
    assert decided.verdict == verdict and verdict in VERDICTS
    assert (decided.p_equivalent <= 0.05) == (abs(mean) + 0.27 < bound)


def test_differences_that_are_all_the_same_are_decided():
    """Methods that compute the same, bit for bit, are equivalent; SciPy has no t for them."""
    same = decide_difference(np.zeros(SEEDS))
    assert (same.verdict, same.p, same.p_rank, same.p_equivalent) == ("equivalent", 1.0, 1.0, 0.0)
    assert decide_difference(np.full(SEEDS, 0.25)).verdict == "seen"
    assert decide_difference(np.full(SEEDS, -0.25)).verdict == "refuted"
    assert decide_difference(np.full(SEEDS, 0.25), bound=0.25, claim="equal").verdict == "not decided"


@pytest.mark.parametrize(
    "interval, ends, verdict",
    [
        ((0.2, 0.3), {"low": 0.2, "high": 0.3}, "seen"),
        ((0.2, 0.3), {"low": 0.3}, "not decided"),
        ((0.2, 0.3), {"high": 0.25}, "not decided"),
        ((0.2, 0.3), {"low": 0.31}, "refuted"),
        ((0.2, 0.3), {"high": 0.19}, "refuted"),
        ((0.2, 0.3), {"low": 0.25, "high": 0.25}, "not decided"),
    ],
)
def test_a_number_is_where_its_interval_is(interval, ends, verdict):
    assert decide_number(interval, **ends) == verdict


@pytest.mark.parametrize(
    "interval, ends, message",
    [
        ((0.3, 0.2), {}, r"interval must be \(low, high\), got \(0.3, 0.2\)"),
        ((0.3, math.nan), {}, "interval must be finite"),
        ((0.2, 0.3), {"low": 1.0, "high": 0.0}, "low must be at most high, got low=1.0, high=0.0"),
    ],
)
def test_what_is_no_interval_is_refused(interval, ends, message):
    with pytest.raises(ValueError, match=message):
        decide_number(interval, **ends)


def test_what_is_significant_and_small_is_said_to_be_so():
    small, large = (decide_difference(mean + 0.0005 * SPREAD) for mean in (0.001, 0.02))
    assert (small.verdict, small.words) == ("seen", "seen, within the bound of equivalence")
    assert (large.verdict, large.words) == ("seen", "seen")


def test_the_bounds_are_half_a_point_and_a_ratio_of_1_1():
    assert (ACCURACY_BOUND, RATIO_BOUND, JUDGING_SEEDS) == (0.005, 1.1, 16)
    assert decide_difference(0.004 * SPREAD).verdict == "equivalent"
    assert decide_difference(0.003 + 0.011 * SPREAD, claim="equal").verdict == "not decided"


# --- orders


def test_holm_is_what_its_paper_does():
    """Step down: the smallest against 5 % / k, the next against 5 % / (k - 1), until one is not rejected."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        p = rng.choice([0.001, 0.01, 0.013, 0.02, 0.03, 0.06, 0.5], size=rng.integers(1, 6))
        rejected, order = np.zeros(len(p), bool), np.argsort(p)
        for step, place in enumerate(order):
            if p[place] > 0.05 / (len(p) - step):
                break
            rejected[place] = True
        np.testing.assert_array_equal(holm(p) <= 0.05, rejected, err_msg=str(p))
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_a_pair_of_equal_methods_is_seen_or_refuted_in_one_of_twenty_orders():
    """The error of the family; adjacent pairs share a method. Pairs that are not adjusted go wrong more often."""
    experiments = 300
    values = normal(experiments, SEEDS, 4, seed=6)
    orders = [decide_order(one[:, :-1] - one[:, 1:]) for one in values]
    wrong = np.mean([np.any(order.p_holm <= 0.05) for order in orders])
    alone = np.mean([any(pair.p <= 0.05 for pair in order.pairs) for order in orders])
    assert wrong <= 0.05 + tolerance(0.05, experiments) < alone
    assert np.mean([order.verdict == "seen" for order in orders]) <= 0.01


@pytest.mark.parametrize(
    "means, verdict",
    [((2.0, 1.0, 0.0), "seen"), ((2.0, 1.0, 1.0), "not decided"), ((2.0, 0.0, 1.0), "refuted"), ((0, 1, 2), "refuted")],
)
def test_an_order_is_seen_where_all_pairs_are_and_refuted_by_one(means, verdict):
    values = np.array(means, float) + 0.2 * normal(SEEDS, 3, seed=7)
    order = decide_order(values[:, :-1] - values[:, 1:])
    assert order.verdict == verdict
    assert [pair.seeds for pair in order.pairs] == [SEEDS, SEEDS]


def test_an_order_takes_more_than_each_pair_alone():
    """p = 0.04 decides a pair, but not the order of four methods."""
    scale = stats.t.isf(0.02, SEEDS - 1) / math.sqrt(SEEDS) * np.std(SPREAD, ddof=1)
    differences = np.stack([SPREAD + scale] * 3, axis=1)
    order = decide_order(differences)
    assert [pair.verdict for pair in order.pairs] == ["seen"] * 3
    np.testing.assert_allclose(order.p_holm, 0.12)
    assert order.verdict == decide_order(-differences).verdict == "not decided"
    assert decide_order(differences[:, :1]).verdict == "seen"
    assert decide_order(-differences[:, :1]).verdict == "refuted"


# --- trends


@pytest.mark.parametrize(
    "means, claim, verdict",
    [
        ((0.02, 0.03), "greater", "seen"),
        ((0.02, -0.03), "greater", "refuted"),
        ((0.02, 0.0), "greater", "not decided"),
        ((0.001, 0.0), "greater", "equivalent"),
        ((0.0, 0.001), "equal", "equivalent"),
        ((0.0, 0.03), "equal", "refuted"),
        ((0.0, 0.004), "equal", "not decided"),
    ],
)
def test_a_claim_at_several_places_holds_where_it_holds_at_all(means, claim, verdict):
    decided = decide_all([decide_difference(mean + 0.005 * SPREAD, claim=claim) for mean in means], claim=claim)
    assert decided.verdict == verdict and len(decided.pairs) == len(decided.p_holm) == 2


def test_trainings_that_miss_are_not_equivalent_at_several_places_either():
    updates = np.where(np.arange(SEEDS) < 2, np.inf, 100.0 + np.arange(SEEDS))
    place = decide_updates(updates, updates, horizon=200.0)
    assert place.p_equivalent <= 0.05 and decide_all([place, place]).verdict == "not decided"
    with pytest.raises(ValueError, match="verdicts must contain at least one"):
        decide_all([])


@pytest.mark.parametrize("levels", [3, 5])
def test_a_trend_that_is_not_there_is_seen_in_one_of_forty_experiments(levels):
    experiments = 300
    decided = [decide_trend(one, direction="falls") for one in normal(experiments, SEEDS, levels, seed=8)]
    for verdict in ("seen", "refuted"):
        assert share_of(verdict, decided) == pytest.approx(0.025, abs=tolerance(0.025, experiments))
    assert not share_of("equivalent", decided)
    covered = np.mean([one.interval.low <= 0 <= one.interval.high for one in decided])
    assert covered == pytest.approx(0.95, abs=tolerance(0.95, experiments))


def test_a_trend_is_seen_in_its_direction_and_refuted_in_the_other():
    values = 0.5 * np.arange(5) + normal(SEEDS, 5, seed=9)
    rises, falls = (decide_trend(values, direction=direction) for direction in ("rises", "falls"))
    assert (rises.verdict, falls.verdict) == ("seen", "refuted")
    assert rises.p == falls.p and rises.interval.value == -falls.interval.value
    expected = np.mean([stats.spearmanr(row, np.arange(5)).statistic for row in values])
    assert rises.interval.value == pytest.approx(expected, rel=1e-12)
    assert (rises.test, rises.seeds) == ("Page", SEEDS) and math.isnan(rises.p_equivalent)


def test_pages_test_is_that_of_all_orders_of_the_levels():
    """All of 16 seeds rise over three levels in one of 6^16 cases; two seeds reach L = 14 + 13 in five of 36."""
    strict = decide_trend(np.tile([1.0, 2.0, 3.0], (SEEDS, 1)), direction="rises")
    assert (strict.verdict, strict.interval) == ("seen", (1.0, 1.0, 1.0))
    assert strict.p == pytest.approx(2 / 6**SEEDS, rel=1e-9)
    few = decide_trend(np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]), direction="rises", exception="a table by hand")
    assert few.p == pytest.approx(2 * 5 / 36)
    flat = decide_trend(np.ones((SEEDS, 3)), direction="falls")
    assert (flat.verdict, flat.interval.value, flat.p) == ("not decided", 0.0, 1.0)


# --- updates to a target


def exponential(hazards, experiments, seeds, seed):
    """Independent times [experiments, 2, seeds]."""
    scale = 1 / np.array(hazards)[:, None]
    return np.random.default_rng(seed).exponential(scale, size=(experiments, 2, seeds))


@pytest.mark.parametrize("horizon, test", [(1e9, "paired t"), (0.7, "Gehan")])
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_updates_that_do_not_differ_are_seen_to_in_at_most_one_of_forty_experiments(horizon, test, alike):
    """Seeds that are alike in both arms are what pairs are for; with them the log-rank test is conservative."""
    experiments = 300
    z = math.sqrt(alike) * normal(experiments, 1, SEEDS, seed=10) + math.sqrt(1 - alike) * normal(
        experiments, 2, SEEDS, seed=11
    )
    decided = [decide_updates(*one, horizon=horizon) for one in np.exp(z)]
    of_test = [one for one in decided if one.test == test]
    assert len(of_test) >= 0.97 * experiments
    for verdict in ("seen", "refuted"):
        assert share_of(verdict, of_test) <= 0.025 + tolerance(0.025, experiments)
    if test == "Gehan":
        log_rank = np.mean([one.p_rank <= 0.05 for one in of_test])
        assert log_rank <= 0.01 if alike else log_rank == pytest.approx(0.05, abs=tolerance(0.05, experiments))


def test_pairs_see_what_independent_arms_do_not():
    z = 2 * normal(1, SEEDS, seed=12) + 0.2 * normal(2, SEEDS, seed=13)
    decided = decide_updates(*np.exp(z + np.array([[0.0], [0.5]])), horizon=math.exp(1.0))
    assert (decided.test, decided.verdict) == ("Gehan", "seen")
    assert decided.p_rank > 0.05 > decided.p


def test_ranks_and_log_rank_know_exponential_hazards():
    """U / n² estimates (a - b) / (a + b) (1 - exp(-(a + b) T)); the log-rank test has Schoenfeld's power."""
    (a, b), horizon, seeds, experiments = (2.0, 1.0), 0.8, 48, 200
    decided = [decide_updates(*one, horizon=horizon) for one in exponential((a, b), experiments, seeds, 14)]
    assert {one.test for one in decided} == {"Gehan"}
    expected = (a - b) / (a + b) * (1 - math.exp(-(a + b) * horizon))
    values = np.array([one.interval.value for one in decided])
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / math.sqrt(experiments))
    covered = np.mean([one.interval.low <= expected <= one.interval.high for one in decided])
    assert covered == pytest.approx(0.95, abs=tolerance(0.95, experiments))
    events = seeds * (2 - math.exp(-a * horizon) - math.exp(-b * horizon))
    schoenfeld = stats.norm.sf(1.96 - math.log(a / b) * math.sqrt(events) / 2)
    log_rank = np.mean([one.p_rank <= 0.05 for one in decided])
    assert log_rank == pytest.approx(schoenfeld, abs=tolerance(schoenfeld, experiments) + 0.03)  # his is asymptotic
    equal = [decide_updates(*one, horizon=horizon) for one in exponential((a, a), 200, seeds, 15)]
    assert np.mean([one.p_rank <= 0.05 for one in equal]) == pytest.approx(0.05, abs=tolerance(0.05, 200))


def test_gehan_counts_couples():
    """His statistic as he wrote it: over all couples, one for each of which it is known who was sooner."""
    first, second = (np.ceil(t * 6) for t in exponential((1.0, 0.6), 1, SEEDS, 16)[0])
    horizon = 6.0
    known = 0
    for x in np.where(first <= horizon, first, np.inf):
        for y in np.where(second <= horizon, second, np.inf):
            known += int(x < y) - int(y < x)
    decided = decide_updates(first, second, horizon=horizon)
    assert decided.test == "Gehan"
    assert decided.interval.value == pytest.approx(known / SEEDS**2, rel=1e-12)


def test_the_paired_t_test_is_one_of_log_min_t_and_horizon():
    first, second = 100 * np.exp(0.1 * normal(2, SEEDS, seed=17))
    second[:3] = np.nan, np.inf, 301.0  # three of sixteen miss
    decided = decide_updates(first, 1.5 * second, horizon=300.0)
    entered = np.r_[np.full(3, 300.0), 1.5 * second[3:]]
    np.testing.assert_allclose(decided.interval, student(np.log(entered / first)), rtol=1e-12)
    assert (decided.test, decided.verdict) == ("paired t", "seen")
    second[3] = np.nan  # four are more than a fifth
    assert decide_updates(first, 1.5 * second, horizon=300.0).test == "Gehan"
    assert decide_updates(second, 1.5 * first, horizon=300.0).test == "Gehan"


def test_updates_are_equivalent_within_a_ratio_and_where_all_reach_the_target():
    first, second = 100 * np.exp(0.05 * normal(2, SEEDS, seed=18))
    for claim in ("sooner", "equal"):
        assert decide_updates(first, second, horizon=300.0, claim=claim).verdict == "equivalent"
        assert decide_updates(first, second, horizon=300.0, bound=1.01, claim=claim).verdict == "not decided"
    assert decide_updates(first, 1.5 * second, horizon=300.0, claim="equal").verdict == "refuted"
    first[0] = second[0] = np.nan  # they differ by 0, but nobody knows by how much
    assert decide_updates(first, second, horizon=300.0, claim="equal").verdict == "not decided"


def test_ranks_know_no_ratio():
    first, second = exponential((4.0, 0.5), 1, SEEDS, 19)[0]
    assert decide_updates(first, second, horizon=0.5).verdict == "seen"
    assert decide_updates(second, first, horizon=0.5).verdict == "refuted"
    assert decide_updates(first, second, horizon=0.5, claim="equal").verdict == "not decided"


def test_a_target_that_nobody_reaches_decides_nothing():
    missed = np.full(SEEDS, np.nan)
    decided = decide_updates(missed, missed, horizon=100.0)
    assert (decided.verdict, decided.p, decided.p_rank, decided.interval.value) == ("not decided", 1.0, 1.0, 0.0)
    one_arm = decide_updates(np.linspace(10, 90, SEEDS), missed, horizon=100.0)
    assert (one_arm.verdict, one_arm.interval.value, one_arm.interval.high) == ("seen", 1.0, 1.0)


# --- optima


GRID = np.linspace(0.0, 0.9, 10)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_the_bootstrap_holds_the_optimum_of_a_flat_curve(noise):
    """0.42 is not on the grid; what seeds have in common does not move it. Percentiles are rather too wide."""
    experiments = 200
    flat = (GRID - 0.42) ** 2 + 5 * normal(experiments, SEEDS, 1, seed=20)
    curves = flat + noise * normal(experiments, SEEDS, len(GRID), seed=21)
    found = [optimum(one, GRID).interval for one in curves]
    covered = np.mean([one.low <= 0.42 <= one.high for one in found])
    assert 0.95 - tolerance(0.95, experiments) <= covered
    assert np.mean([one.high - one.low for one in found]) < 0.45
    assert np.mean([one.value for one in found]) == pytest.approx(0.42, abs=0.02)


def test_the_optimum_is_that_of_the_average_and_exact_on_a_parabola():
    """Whatever the spacing; two seeds of two optima have the average's between them."""
    grid = np.array([0.0, 0.1, 0.4, 0.5, 0.9])
    curves = np.stack([(grid - 0.3) ** 2, (grid - 0.5) ** 2])
    found = optimum(curves, grid)
    assert found.interval.value == pytest.approx(0.4, abs=1e-12) and not found.at_edge
    np.testing.assert_allclose(found.interval[1:], [0.3, 0.5], atol=1e-12)
    assert optimum(-curves, grid, largest=True) == found
    edge = optimum(np.stack([grid, grid]), grid)
    assert edge.interval == (0.0, 0.0, 0.0) and edge.at_edge


def test_points_where_a_seed_diverged_are_no_optimum():
    curves = (GRID - 0.4) ** 2 + 0.01 * normal(SEEDS, len(GRID), seed=22)
    curves[:, -1] = -9.0
    curves[3, -1], curves[4, -2] = np.nan, np.inf
    assert optimum(curves, GRID) == optimum(curves[:, :-2], GRID[:-2])


def test_the_ratio_of_two_optima():
    """Noise that the arms share moves both optima; drawing both with a seed, the interval has little of it."""
    rates = np.log(np.geomspace(0.01, 0.64, 7))
    shift = 0.3 * normal(SEEDS, 1, seed=23)
    first, second = ((rates - np.log(best) - shift) ** 2 for best in (0.1, 0.05))
    ratio = optimum_shift(first, second, rates).interval.exp()
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-9)
    apart = optimum_shift(first, second[::-1], rates).interval.exp()
    assert apart.low < 0.45 and apart.high > 0.55


def test_the_bootstrap_is_repeatable():
    curves = (GRID - 0.42) ** 2 + 0.2 * normal(SEEDS, len(GRID), seed=24)
    assert optimum(curves, GRID, seed=1) == optimum(curves, GRID, seed=1)
    assert optimum(curves, GRID, seed=1) != optimum(curves, GRID, seed=2)


# --- what is refused


DECISIONS = {
    "difference": lambda n, **rest: decide_difference(np.arange(n) * 1e-3 + 1.0, **rest),
    "order": lambda n, **rest: decide_order(np.arange(2 * n).reshape(n, 2) * 1e-3 + 1.0, **rest),
    "trend": lambda n, **rest: decide_trend(np.arange(4 * n).reshape(n, 4), direction="rises", **rest),
    "updates": lambda n, **rest: decide_updates(np.arange(1.0, n + 1), np.arange(2.0, n + 2), horizon=99, **rest),
}


@pytest.mark.parametrize("decide", DECISIONS.values(), ids=DECISIONS)
def test_fewer_than_sixteen_seeds_need_a_reason(decide):
    assert decide(JUDGING_SEEDS).verdict == "seen"
    for exception in ("", "  "):
        with pytest.raises(ValueError, match="at least 16 judging seeds, got 6; judge on more, or give the reason"):
            decide(6, exception=exception)
    with pytest.raises(ValueError, match="at least 2 seeds for an interval, got 1"):
        decide(1, exception="no time")
    with pytest.raises(TypeError, match="exception must be the reason for fewer seeds"):
        decide(6, exception=True)
    decided = decide(6, exception="a training takes 20 minutes")
    for one in getattr(decided, "pairs", [decided]):
        assert (one.seeds, one.exception) == (6, "a training takes 20 minutes")
        assert math.isfinite(one.detectable)


NOT_FINITE = np.r_[np.ones(SEEDS - 1), np.nan]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: decide_difference(NOT_FINITE), r"differences must be finite, got nan at \[15\]; replace diverged"),
        (lambda: decide_difference(np.ones((SEEDS, 2))), "differences must be 1-dimensional"),
        (lambda: decide_difference(SPREAD, claim="better"), "claim must be one of 'greater', 'equal', got 'better'"),
        (lambda: decide_difference(SPREAD, bound=0.0), r"bound must be finite and in \(0, inf\], got bound=0.0"),
        (lambda: decide_order(SPREAD), "differences must be 2-dimensional"),
        (lambda: decide_order(np.ones((SEEDS, 0))), "must be 2-dimensional and not empty, got shape"),
        (lambda: holm(np.array([0.1, 1.2])), r"p must be finite and in \[0, 1\]"),
        (lambda: holm(np.array([])), "p must be one-dimensional and not empty"),
        (lambda: decide_trend(np.ones((SEEDS, 2)), direction="falls"), "values must have at least 3 levels"),
        (lambda: decide_trend(np.ones((SEEDS, 3)), direction="fall"), "did you mean 'falls'"),
        (lambda: decide_updates(SPREAD + 2, SPREAD[1:] + 2, horizon=9.0), "first and second must have the same shape"),
        (lambda: decide_updates(SPREAD + 2, SPREAD, horizon=9.0), "second must be positive, got -1; choose a target"),
        (lambda: decide_updates(SPREAD + 2, SPREAD + 2, horizon=0.0), r"horizon must be finite and in \(0, inf\]"),
        (lambda: decide_updates(SPREAD + 2, SPREAD + 2, horizon=9.0, bound=1.0), r"bound must be .* in \(1, inf\]"),
        (lambda: decide_updates(SPREAD + 2, SPREAD + 2, horizon=9.0, claim="greater"), "'sooner', 'equal', got"),
        (lambda: optimum(np.ones((SEEDS, 9)), GRID), r"curves must have shape \[seeds, 10\], with"),
        (lambda: optimum(np.ones((1, 10)), GRID), "with at least 2 seeds"),
        (lambda: optimum(np.ones((SEEDS, 10)), GRID[::-1]), "grid must be one-dimensional and increasing"),
        (lambda: optimum(np.ones((SEEDS, 2)), GRID[:2]), "finite for all seeds at 3 or more points of the grid"),
        (lambda: optimum_shift(np.ones((9, 10)), np.ones((8, 10)), GRID), "the same number of seeds, got 9 and 8"),
        (lambda: power(0.1, 0.0, 16), "deviation must be finite and in"),
        (lambda: power(0.1, 1.0, 1), "seeds must be an integer >= 2"),
        (lambda: smallest_difference(0.1, 16, 1.0), r"probability must be finite and in \(0, 1\)"),
        (lambda: least_updates(8, 1.0), r"momentum must be finite and in \[-1, 1\)"),
        (lambda: least_updates(0, 0.0), "num_workers must be an integer >= 1"),
        (lambda: check_seeds([0, 1], [1, 2]), r"judging and choosing must not share seeds, got \[1\] in both"),
        (lambda: check_seeds([0, 1], [2, 2]), r"judging must contain .* no duplicates, got \[2, 2\]"),
        (lambda: check_seeds([], [2]), "choosing must contain at least one seed"),
        (lambda: criterion_digest(TrainConfig(), [0, 0]), "seeds must contain at least one seed and no duplicates"),
        (lambda: criterion_digest(TrainConfig(), [0], bound=math.nan), "plain, finite values"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value) or "p must be" in str(raised.value)


@pytest.mark.parametrize("config", [TrainConfig, {"momentum": 0.5}, None])
def test_a_digest_is_of_a_dataclass(config):
    with pytest.raises(TypeError, match="config must be a dataclass such as SweepConfig, got"):
        criterion_digest(config, [0])
    with pytest.raises(TypeError, match="plain, finite values"):
        criterion_digest(TrainConfig(), [0], bound=np.ones(2))


# --- what is committed before judging


@dataclasses.dataclass
class Inner:
    rate: float = 0.1
    folder: str = dataclasses.field(default="", metadata={"free": True})


@dataclasses.dataclass
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    axes: tuple = ("a", 2)
    devices: int = dataclasses.field(default=1, metadata={"free": True})


def test_the_digest_is_that_of_canonical_json():
    """Of what is not as it is by default."""
    text = '{"config":{"inner":{"rate":0.2}},"criterion":{"bound":1.1},"seeds":[3,5]}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert criterion_digest(Outer(Inner(0.2)), [5, 3], bound=1.1) == expected
    elsewhere = Outer(Inner(0.2, folder="elsewhere"), devices=8)
    assert criterion_digest(elsewhere, range(3, 6, 2), bound=1.1) == expected


@pytest.mark.parametrize("kind", [TrainConfig, SweepConfig, CompareConfig])
def test_what_changes_a_training_changes_the_digest_and_nothing_else_does(kind):
    """Every field of each config, those of the training inside of it as well."""
    seen = {criterion_digest(kind(), range(16))}

    def changed(config, field):
        value = getattr(config, field.name)
        other = {str: "other", tuple: ("other",), bool: not value, int: 99, float: 0.123}.get(type(value))
        return dataclasses.replace(config, **{field.name: other})

    for field in dataclasses.fields(kind):
        if field.name == "train":
            for inner in dataclasses.fields(TrainConfig):
                digest = criterion_digest(kind(train=changed(TrainConfig(), inner)), range(16))
                assert (digest in seen) == bool(inner.metadata.get("free")), inner.name
            continue
        digest = criterion_digest(changed(kind(), field), range(16))
        assert (digest in seen) == bool(field.metadata.get("free")), field.name


def test_what_the_verdict_depends_on_changes_the_digest():
    """Free fields, such as the figure with its target, are named where they count."""
    one = criterion_digest(SweepConfig(), range(16), figure="tuned_momentum(target=0.9)")
    assert one != criterion_digest(SweepConfig(), range(16), figure="tuned_momentum(target=0.8)")
    assert one != criterion_digest(SweepConfig(), range(1, 17), figure="tuned_momentum(target=0.9)")
    assert len(one) == 64 and int(one, 16)


@pytest.mark.parametrize("workers, momentum, updates", [(1, 0.0, 7), (8, 0.9, 560), (16, -0.5, 75), (3, 0.99, 2100)])
def test_trainings_outlast_the_memory_of_momentum(workers, momentum, updates):
    assert least_updates(workers, momentum) == updates
