"""Verdicts on claims: one set of rules for all experiments, and the intervals that rows of results have.

- Choose on seeds A, judge once on other seeds B (`check_seeds`), at least `JUDGING_SEEDS` of them. Before judging, the
  config, the criterion and the bound of equivalence are committed as a digest (`criterion_digest`).
- Two arms share trace, data order and initial weights seed by seed. What is tested are differences within a seed.
- The criterion is a loss, an accuracy (`decide_difference`, `decide_order`, `decide_trend`), the updates to a target
  fixed beforehand (`decide_updates`), or the place of an optimum (`optimum`). What theory says of a number is decided
  by its interval (`decide_number`).
- A training lasts long enough for momentum to act (`least_updates`).

Arrays have the seeds on their first axis; results are named tuples. Nothing is random but the bootstrap of `optimum`,
which has a seed of its own. Needs SciPy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check

__all__ = [
    "ACCURACY_BOUND",
    "JUDGING_SEEDS",
    "RATIO_BOUND",
    "VERDICTS",
    "Interval",
    "Optimum",
    "OrderVerdict",
    "Verdict",
    "check_seeds",
    "criterion_digest",
    "decide_all",
    "decide_difference",
    "decide_number",
    "decide_order",
    "decide_trend",
    "decide_updates",
    "holm",
    "least_updates",
    "log_updates",
    "optimum",
    "optimum_shift",
    "power",
    "proportion",
    "resampled",
    "smallest_difference",
    "spread",
    "student",
]

VERDICTS = ("seen", "refuted", "equivalent", "not decided")
ACCURACY_BOUND = 0.005  # accuracies, as shares, that differ by less are equivalent: half a point
RATIO_BOUND = 1.1  # times whose ratio is nearer to 1, above or below, are equivalent
JUDGING_SEEDS = 16  # at least
LEVEL = 0.05  # of all tests, two-sided; of each of the two one-sided tests of equivalence
MISSED_SHARE = 0.2  # if more of an arm miss the target, ranks decide instead of logarithms
RESAMPLES = 2000  # of a bootstrap


class Interval(NamedTuple):
    """A number and its confidence interval; NaN where a number is missing.

    Attributes:
      value: float.
      low: float, the lower end.
      high: float, the upper end.

    Example: see `student`.
    """

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As '0.50 (0.45 to 0.55)'."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    @property
    def of_claim(self) -> dict[str, Any]:
        """The fields of a `Claim` that say it."""
        return {"value": self.value, "interval": (self.low, self.high)}

    def exp(self) -> Interval:
        """The interval of a ratio, from that of the difference of two logarithms."""
        return Interval(*(float(np.exp(number)) for number in self))


class Verdict(NamedTuple):
    """What an experiment says about a claim.

    Attributes:
      verdict: one of `VERDICTS`.
      interval: `Interval` at 95 %; positive numbers are in favour of the claim. See the function that decides for what
        it is an interval of.
      p: float, two-sided, of the test that decides.
      p_rank: float, two-sided, of a rank test, shown beside it: Wilcoxon's signed-rank test over the seeds, or the
        log-rank test where `test` is Gehan's. It does not decide.
      p_equivalent: float, the larger of the two one-sided tests of equivalence; NaN where there is no bound.
      seeds: int, how many; in each of them the arms are paired.
      detectable: float, the smallest true difference that is seen with a power of 80 % given the spread over these
        seeds, in units of the interval; see `smallest_difference`.
      test: 'paired t', 'Page' or 'Gehan', the test that decides.
      exception: why fewer than `JUDGING_SEEDS` seeds were judged, or ''.

    Example: see `decide_difference`.
    """

    verdict: str
    interval: Interval
    p: float
    p_rank: float
    p_equivalent: float
    seeds: int
    detectable: float
    test: str
    exception: str

    @property
    def of_updates(self) -> Interval:
        """What `decide_updates` found: the ratio second / first of geometric means, or U / n^2 where ranks decide."""
        return self.interval if self.test == "Gehan" else self.interval.exp()

    @property
    def words(self) -> str:
        """The verdict, and whether what is significant is no more than the bound of equivalence."""
        small = self.verdict in ("seen", "refuted") and self.p_equivalent <= LEVEL
        return f"{self.verdict}, within the bound of equivalence" if small else self.verdict


class OrderVerdict(NamedTuple):
    """What an experiment says about an order of methods, or about a claim that is to hold at several places.

    Attributes:
      verdict: one of `VERDICTS`.
      pairs: a `Verdict` for each pair of methods or each place, as if it were the only one.
      p_holm: float [pairs], their two-sided p values, adjusted by `holm`. They decide.

    Example: see `decide_order`.
    """

    verdict: str
    pairs: tuple[Verdict, ...]
    p_holm: np.ndarray


class Optimum(NamedTuple):
    """The place of an optimum on a grid, or how far two are apart.

    Attributes:
      interval: `Interval`, 95 %, in units of the grid.
      at_edge: bool, whether an optimum is at an end of the grid, so that the true one may lie beyond.

    Example: see `optimum`.
    """

    interval: Interval
    at_edge: bool


def student(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """The mean of independent numbers, with Student's interval.

    Args:
      values: float [seeds]; of a single one the interval is NaN.
      confidence: in (0, 1).

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import student
      >>> student(np.array([0.1, 0.2, 0.3])).text()
      '0.20 (-0.05 to 0.45)'
    """
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def spread(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean of numbers that are no sample, with the smallest and the largest of them.

    Args:
      values: float [...].

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import spread
      >>> spread(np.array([0.1, 0.2, 0.6])).text()
      '0.30 (0.10 to 0.60)'
    """
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def resampled(values: np.ndarray) -> Interval:
    """The mean of independent numbers, with a percentile bootstrap interval.

    Args:
      values: float [seeds], two at least.

    Source: Efron 1979 (doi:10.1214/aos/1176344552).

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import resampled
      >>> resampled(np.array([0.1, 0.2, 0.3])).text()
      '0.20 (0.10 to 0.30)'
    """
    return _resampled(lambda seeds, axis=-1: values[seeds].mean(axis), len(values), 10_000, seed=0)


def proportion(hits: int, total: int) -> Interval:
    """A share of independent trials, with Wilson's interval.

    Args:
      hits: in how many of them something was seen.
      total: how many there were.

    Source: Wilson 1927 (doi:10.1080/01621459.1927.10502953).

    Example:
      >>> from asyncflax.lab.statistics import proportion
      >>> proportion(95, total=100).text()
      '0.95 (0.89 to 0.98)'
    """
    from scipy import stats

    found = stats.binomtest(hits, total)
    ends = found.proportion_ci(1 - LEVEL, method="wilson")
    return Interval(float(found.statistic), float(ends.low), float(ends.high))


def log_updates(updates: Any, horizon: float) -> Any:
    """log min(t, T), in whose mean arms are compared: a training that misses its target counts with all its updates.

    Args:
      updates: t, float [...] or an `xarray.DataArray`; NaN, infinity, or more than `horizon` for a miss.
      horizon: T.

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import log_updates
      >>> np.exp(log_updates(np.array([100.0, np.nan]), horizon=400)).round()
      array([100., 400.])
    """
    return np.log(np.fmin(updates, horizon))


def decide_difference(
    differences: np.ndarray, *, bound: float = ACCURACY_BOUND, claim: str = "greater", exception: str = ""
) -> Verdict:
    """Whether one arm is better than another, or as good, by the paired t interval of their differences.

    With d the differences, n seeds and s their standard deviation, the 95 % interval is mean(d) +- t s / sqrt(n) with
    the 97.5 % quantile t of Student's distribution with n - 1 degrees of freedom. Two one-sided t tests of 5 % show
    equivalence: the 90 % interval lies inside of +-bound.

    =========== =============================================== ==================================
    verdict     claim 'greater'                                 claim 'equal'
    =========== =============================================== ==================================
    seen        the interval lies above 0
    refuted     it lies below 0                                 it lies wholly outside of +-bound
    equivalent  neither, and the one-sided tests show it        the one-sided tests show it
    not decided otherwise                                       otherwise
    =========== =============================================== ==================================

    If there is no difference, 2.5 % of experiments see one.

    Args:
      differences: float [seeds], better arm minus worse arm as the claim has it: accuracies (shares, 0.01 is a point),
        or losses of the worse minus those of the better. What diverged needs a number first.
      bound: of equivalence, > 0, in units of the differences; the default is for accuracies.
      claim: 'greater' or 'equal'.
      exception: why fewer than `JUDGING_SEEDS` seeds have to do.

    Returns:
      `Verdict`; its interval is that of the mean difference.

    Raises:
      ValueError: a difference is not finite, there are too few without an exception, or fewer than two; the bound is
        not positive; the claim is unknown.

    Source: Student 1908 (doi:10.1093/biomet/6.1.1); Schuirmann 1987 (doi:10.1007/BF01068419) for equivalence.

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import decide_difference
      >>> noise = np.random.default_rng(0).normal(scale=0.01, size=16)
      >>> decided = decide_difference(0.02 + noise)
      >>> decided.verdict, decided.interval.text(3)
      ('seen', '0.017 (0.013 to 0.022)')
      >>> decide_difference(0.1 * noise, claim="equal").verdict
      'equivalent'
    """
    _check.choice("claim", claim, ("greater", "equal"))
    bound = _check.scalar("bound", bound, low=0.0, exclusive_low=True)
    differences = _judged("differences", differences, 1, exception)
    return _decided(differences, exception, bound=bound, claim=claim)


def decide_number(interval: tuple[float, float], *, low: float = -math.inf, high: float = math.inf) -> str:
    """Whether a number lies where a claim says, by its interval.

    A claim of equality has the range number +- tolerance, one that a number is positive the range from 0. An interval
    that only touches the range decides nothing, so that a wide one does not pass for agreement. Of an exact identity
    the interval is that of the largest difference in all cases, (worst, worst).

    Args:
      interval: its two ends.
      low: of the range; -infinity where it has no lower end.
      high: of the range, at least `low`.

    Returns:
      'seen' if the interval lies in [low, high], 'refuted' if it lies wholly outside, else 'not decided'.

    Raises:
      ValueError: an end of the interval is not finite, or ends are in the wrong order.

    Example:
      >>> from asyncflax.lab.statistics import decide_number
      >>> decide_number((0.8748, 0.8764), low=0.87, high=0.88)
      'seen'
      >>> decide_number((0.84, 0.90), low=0.87, high=0.88), decide_number((1.2, 1.3), high=1.0)
      ('not decided', 'refuted')
    """
    first, last = (_check.scalar("interval", end) for end in interval)
    if not first <= last:
        raise ValueError(f"interval must be (low, high), got {interval!r}.")
    if not low <= high:
        raise ValueError(f"low must be at most high, got {low=}, {high=}.")
    if low <= first and last <= high:
        return "seen"
    return "refuted" if last < low or first > high else "not decided"


def decide_order(differences: np.ndarray, *, bound: float = ACCURACY_BOUND, exception: str = "") -> OrderVerdict:
    """Whether methods come in an order: each better than those in the next place.

    Each pair of methods in adjacent places has a paired t test; `decide_all` decides.

    Args:
      differences: float [seeds, pairs], of each pair of adjacent methods the better one minus the worse one; with
        `values` [seeds, methods], best method first, it is `values[:, :-1] - values[:, 1:]`.
      bound: of equivalence, for the verdicts on pairs, see `decide_difference`.
      exception: why fewer than `JUDGING_SEEDS` seeds have to do.

    Raises:
      ValueError: as in `decide_difference`, or there is no pair.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6, 65-70).

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import decide_order
      >>> best_first = np.array([0.95, 0.93, 0.90]) + np.random.default_rng(0).normal(scale=0.01, size=(16, 3))
      >>> order = decide_order(best_first[:, :-1] - best_first[:, 1:])
      >>> order.verdict, [pair.verdict for pair in order.pairs]
      ('seen', ['seen', 'seen'])
    """
    differences = _judged("differences", differences, 2, exception)
    return decide_all([decide_difference(row, bound=bound, exception=exception) for row in differences.T])


def decide_all(verdicts: Sequence[Verdict], *, claim: str = "greater") -> OrderVerdict:
    """Whether a claim holds at all of several places: pairs of methods, numbers of workers.

    `holm` adjusts the p values. A claim that one arm is better is 'seen' if all are significant in its direction,
    'refuted' if one is significant in the other; where neither is so, 'equivalent' if each place passes its tests of
    equivalence, and else 'not decided'. A claim that arms are equal is 'equivalent' if each place is, and 'refuted' if
    one is: the former needs no adjustment, as all tests have to be passed, and the latter has none.

    Args:
      verdicts: one for each place, of one of the functions above and below.
      claim: 'greater' (or sooner) or 'equal', the claim that they were decided for.

    Raises:
      ValueError: there is no verdict, or the claim is unknown.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6, 65-70); Berger 1982 (doi:10.1080/00401706.1982.10487790)
    for passing all tests.

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import decide_all, decide_difference
      >>> noise = np.random.default_rng(0).normal(scale=0.01, size=(2, 16))
      >>> few, many = (decide_difference(gain + row) for gain, row in zip((0.02, 0.03), noise))
      >>> decide_all([few, many]).verdict
      'seen'
    """
    _check.choice("claim", claim, ("greater", "equal"))
    if not verdicts:
        raise ValueError("verdicts must have one at least, got none.")
    adjusted = holm(np.array([each.p for each in verdicts]))
    alike = lambda each: each.verdict != "not decided" and each.p_equivalent <= LEVEL
    verdict = "equivalent" if all(map(alike, verdicts)) else "not decided"
    if claim == "equal":
        verdict = "refuted" if any(each.verdict == "refuted" for each in verdicts) else verdict
    else:
        in_favour = np.array([each.interval.value > 0 for each in verdicts])
        significant = adjusted <= LEVEL
        if np.all(significant & in_favour):
            verdict = "seen"
        elif np.any(significant & ~in_favour):
            verdict = "refuted"
    return OrderVerdict(verdict, tuple(verdicts), adjusted)


def holm(p: np.ndarray) -> np.ndarray:
    r"""Holm's adjusted p values: rejecting those up to 5 % makes a false rejection among all in at most 5 %.

    .. math:: \tilde p_{(i)} = \max_{j \leq i} \min(1, (k - j + 1) p_{(j)}), \qquad p_{(1)} \leq \dots \leq p_{(k)}

    Args:
      p: float [k], p values in [0, 1].

    Returns:
      float [k], in the order of `p`.

    Raises:
      ValueError: there is none, or one is not in [0, 1].

    Source: Holm 1979 (Scandinavian Journal of Statistics 6, 65-70).

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import holm
      >>> holm(np.array([0.01, 0.04, 0.03]))
      array([0.03, 0.06, 0.06])
    """
    _check.number("p", p, low=0.0, high=1.0)
    if np.ndim(p) != 1 or not len(p):
        raise ValueError(f"p must have one axis and a p value at least, its shape is {np.shape(p)}.")
    rising = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[rising] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * np.asarray(p)[rising]))
    return adjusted


def decide_trend(values: np.ndarray, *, direction: str, exception: str = "") -> Verdict:
    """Whether a number rises or falls along ordered levels, by Page's test.

    The levels are ranked within each seed. Page's L is the sum over seeds and levels of rank times level; in each
    direction a one-sided test has half of the 5 %. 'seen' is a trend in the direction of the claim, 'refuted' one in
    the other; there is no equivalence.

    Args:
      values: float [seeds, levels], levels in rising order, three at least.
      direction: 'rises' or 'falls'.
      exception: why fewer than `JUDGING_SEEDS` seeds have to do.

    Returns:
      `Verdict`; its interval is Student's, of the mean over seeds of Spearman's correlation of level and value, of
      which L is a linear function, with the sign of the claim: 1 if all seeds follow it strictly.

    Raises:
      ValueError: a value is not finite, or there are too few seeds or levels; the direction is unknown.

    Source: Page 1963 (doi:10.1080/01621459.1963.10500843).

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import decide_trend
      >>> momentum = np.array([0.8, 0.5, 0.3, 0.1]) + np.random.default_rng(0).normal(scale=0.2, size=(16, 4))
      >>> decided = decide_trend(momentum, direction="falls")
      >>> decided.verdict, decided.interval.text()
      ('seen', '0.88 (0.77 to 0.98)')
    """
    from scipy import stats

    _check.choice("direction", direction, ("rises", "falls"))
    values = _judged("values", values, 2, exception)
    levels = values.shape[1]
    if levels < 3:
        raise ValueError(f"values must have at least 3 levels, their shape is {values.shape}; take decide_difference.")
    values = values if direction == "rises" else values[:, ::-1]
    ahead, back = (float(stats.page_trend_test(v).pvalue) for v in (values, values[:, ::-1]))
    place = np.arange(levels) - (levels - 1) / 2
    correlations = 12 * stats.rankdata(values, axis=1) @ place / (levels * (levels**2 - 1))
    decided = _decided(correlations, exception, largest=1.0)
    verdict = "seen" if ahead <= LEVEL / 2 else "refuted" if back <= LEVEL / 2 else "not decided"
    return decided._replace(verdict=verdict, p=min(1.0, 2 * min(ahead, back)), test="Page")


def decide_updates(
    first: np.ndarray,
    second: np.ndarray,
    *,
    horizon: float,
    bound: float = RATIO_BOUND,
    claim: str = "sooner",
    exception: str = "",
) -> Verdict:
    """Whether one arm reaches a target in fewer updates than another; trainings end after T = `horizon` updates.

    **If at most a fifth of either arm misses**, the paired t interval of log(second / first) decides, as in
    `decide_difference` with the bound log(`bound`). A training that misses counts with T, so the arms are compared in
    the mean of log min(t, T), which makes a miss less late than it is. Where the slower arm misses more often this is
    conservative: its disadvantage is understated. Where the faster arm does it is not: its advantage is overstated. For
    equivalence it is not either, since two that miss differ by 0: an experiment with a miss is never 'equivalent'.

    **If more miss**, Gehan's test decides. All trainings are censored at the same T, so his scores are the ranks among
    both arms, those that miss sharing the last. The differences of the ranks within a seed, divided by the number of
    seeds, have the mean

        U / n^2 = P(first is sooner) - P(second is sooner),

    over all n^2 couples of a training of the one and one of the other arm, and the paired t interval of the differences
    decides (with 16 seeds it holds the truth in 93 to 96 % of simulations). The log-rank test, shown beside it, takes
    the arms as independent: if trainings of a seed are alike, it is conservative. Ranks know no ratio: nothing is
    'equivalent', and the claim 'equal' is 'not decided'; take a larger T.

    Args:
      first: float [seeds], updates to the target of the arm that the claim says is sooner, > 0; NaN, infinity, or more
        than `horizon` where it was not reached.
      second: float [seeds], of the other arm, with the same seeds.
      horizon: T > 0, the updates after which all trainings ended.
      bound: of equivalence, a ratio > 1.
      claim: 'sooner' or 'equal'.
      exception: why fewer than `JUDGING_SEEDS` seeds have to do.

    Returns:
      `Verdict`; where `test` is 'paired t' its interval is of the mean log(second / first), whose `exp()` is a ratio of
      geometric means; where it is 'Gehan' of U / n^2.

    Raises:
      ValueError: the arms have other shapes, updates are not positive, there are too few seeds, or an option is wrong.

    Source: Gehan 1965 (doi:10.1093/biomet/52.1-2.203); O'Brien and Fleming 1987 (Biometrics 43, 169-180) for the pairs,
    here with Student's distribution instead of the normal one; Mantel 1966 (PMID 5910392) for the log-rank test.

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import decide_updates
      >>> rng = np.random.default_rng(0)
      >>> first, second = 100 * rng.gamma(20, 0.05, size=16), 150 * rng.gamma(20, 0.05, size=16)
      >>> decided = decide_updates(first, second, horizon=400)
      >>> decided.verdict, decided.test, decided.interval.exp().text()
      ('seen', 'paired t', '1.70 (1.44 to 2.00)')
      >>> decided = decide_updates(first, second, horizon=150)
      >>> decided.verdict, decided.test, decided.interval.text()
      ('seen', 'Gehan', '0.92 (0.70 to 1.00)')
    """
    from scipy import stats

    _check.choice("claim", claim, ("sooner", "equal"))
    horizon = _check.scalar("horizon", horizon, low=0.0, exclusive_low=True)
    bound = _check.scalar("bound", bound, low=1.0, exclusive_low=True)
    arms = [np.asarray(arm, float) for arm in (first, second)]
    if arms[0].shape != arms[1].shape:
        raise ValueError(f"first and second must have the same seeds; shapes are {arms[0].shape}, {arms[1].shape}.")
    missed = [~(arm <= horizon) for arm in arms]
    first, second = (
        _judged(name, np.fmin(arm, horizon), 1, exception) for name, arm in zip(("first", "second"), arms, strict=True)
    )
    for name, arm in {"first": first, "second": second}.items():
        if np.any(arm <= 0):
            raise ValueError(f"{name} must be positive, got {arm.min():g}; take a target that is not yet reached.")
    if max(np.mean(miss) for miss in missed) > MISSED_SHARE:
        ranks = stats.rankdata(np.where(np.concatenate(missed), np.inf, np.concatenate([first, second])))
        decided = _decided((ranks[len(first) :] - ranks[: len(first)]) / len(first), exception, largest=1.0)
        verdict = decided.verdict if claim == "sooner" else "not decided"
        return decided._replace(verdict=verdict, p_rank=_log_rank(first, second, *missed), test="Gehan")
    claim = "greater" if claim == "sooner" else "equal"
    logs = log_updates(second, horizon) - log_updates(first, horizon)
    decided = _decided(logs, exception, bound=math.log(bound), claim=claim)
    if decided.verdict == "equivalent" and np.any(missed):
        return decided._replace(verdict="not decided")
    return decided


def optimum(curves: np.ndarray, grid: np.ndarray, *, largest: bool = False, seed: int = 0) -> Optimum:
    """Where the curve, averaged over seeds, has its optimum: the vertex of the parabola through the best three points.

    The optimum of each seed on a flat curve is noise; that of the average is not. Its interval is a percentile
    bootstrap over seeds. Between grid points the curve is taken for the parabola through the best point and its
    neighbours. Points where a seed has no finite number (it diverged) are left out for all seeds.

    Args:
      curves: float [seeds, points], losses or logarithms of updates to a target, at each point of the grid.
      grid: float [points], rising, three at least; the logarithm of learning rates is the better scale for them.
      largest: whether large numbers are good.
      seed: of the bootstrap.

    Raises:
      ValueError: shapes disagree, the grid does not rise, there are fewer than two seeds, or fewer than three points
        where all seeds are finite.

    Source: Efron 1979 (doi:10.1214/aos/1176344552) for the bootstrap.

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import optimum
      >>> momentum = np.linspace(0.0, 0.9, 10)
      >>> noise = np.random.default_rng(0).normal(scale=0.02, size=(16, 10))
      >>> found = optimum((momentum - 0.42) ** 2 + noise, momentum)
      >>> found.interval.text(), found.at_edge
      ('0.45 (0.40 to 0.48)', False)
    """
    return _bootstrapped([_finite("curves", curves, grid, largest)], lambda place: place, seed)


def optimum_shift(
    first: np.ndarray, second: np.ndarray, grid: np.ndarray, *, largest: bool = False, seed: int = 0
) -> Optimum:
    """How far the optimum of one arm is from that of another: second minus first, see `optimum`.

    The bootstrap draws seeds, and both arms with them. On a grid of logarithms the shift is that of logarithms, and
    `interval.exp()` is the ratio of the two optima.

    Args:
      first: float [seeds, points].
      second: float [seeds, points], with the same seeds.
      grid: float [points], rising.
      largest: whether large numbers are good.
      seed: of the bootstrap.

    Raises:
      ValueError: as in `optimum`, or the arms have other seeds.

    Example:
      >>> import numpy as np
      >>> from asyncflax.lab.statistics import optimum_shift
      >>> rates = np.log([0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
      >>> noise = np.random.default_rng(0).normal(scale=0.2, size=(2, 16, 6))
      >>> first, second = ((rates - np.log(best)) ** 2 for best in (0.1, 0.05))
      >>> optimum_shift(first + noise[0], second + noise[1], rates).interval.exp().text()
      '0.51 (0.45 to 0.57)'
    """
    arms = [_finite(name, arm, grid, largest) for name, arm in {"first": first, "second": second}.items()]
    if len(arms[0][0]) != len(arms[1][0]):
        raise ValueError(f"first and second must have the same seeds, got {len(arms[0][0])} and {len(arms[1][0])}.")
    return _bootstrapped(arms, lambda place, other: other - place, seed)


def power(effect: float, deviation: float, seeds: int) -> float:
    r"""How probable `decide_difference` is to see a true difference, if differences are normal.

    .. math:: 1 - F_{n - 1, \delta \sqrt{n} / \sigma}(t_{0.975, n - 1})

    with the noncentral t distribution F of n - 1 degrees of freedom.

    Args:
      effect: delta, the true mean difference.
      deviation: sigma > 0, the standard deviation of differences over seeds.
      seeds: n >= 2.

    Raises:
      ValueError: a number is out of its range.

    Source: Johnson and Welch 1940 (doi:10.1093/biomet/31.3-4.362).

    Example:
      >>> from asyncflax.lab.statistics import power
      >>> round(power(0.01, deviation=0.0125, seeds=16), 2)
      0.85
    """
    from scipy import stats

    effect = _check.scalar("effect", effect)
    deviation = _check.scalar("deviation", deviation, low=0.0, exclusive_low=True)
    seeds = _check.integer("seeds", seeds, 2)
    return float(stats.nct.sf(stats.t.ppf(1 - LEVEL / 2, seeds - 1), seeds - 1, effect * math.sqrt(seeds) / deviation))


def smallest_difference(deviation: float, seeds: int, probability: float = 0.8) -> float:
    """The smallest true difference that `decide_difference` sees with this probability: the inverse of `power`.

    Args:
      deviation: sigma >= 0, the standard deviation of differences over seeds.
      seeds: n >= 2.
      probability: in (0, 1).

    Raises:
      ValueError: a number is out of its range.

    Source: see `power`.

    Example:
      >>> from asyncflax.lab.statistics import power, smallest_difference
      >>> round(smallest_difference(deviation=0.0125, seeds=16), 4)
      0.0094
      >>> round(smallest_difference(deviation=0.0125, seeds=6), 4)
      0.0179
    """
    from scipy import special, stats

    deviation = _check.scalar("deviation", deviation, low=0.0)
    seeds = _check.integer("seeds", seeds, 2)
    probability = _check.scalar("probability", probability, low=0.0, high=1.0, exclusive_low=True, exclusive_high=True)
    noncentral = special.nctdtrinc(seeds - 1, 1 - probability, stats.t.ppf(1 - LEVEL / 2, seeds - 1))
    return float(noncentral * deviation / math.sqrt(seeds))


def least_updates(num_workers: int, momentum: float) -> int:
    """The fewest updates of a training that is to show what momentum does: 7 M / (1 - mu).

    M / (1 - mu) updates is how long M workers with momentum mu remember a gradient; after seven times that a thousandth
    of it is left.

    Args:
      num_workers: M >= 1.
      momentum: mu in [-1, 1).

    Raises:
      ValueError: a number is out of its range.

    Example:
      >>> from asyncflax.lab.statistics import least_updates
      >>> least_updates(16, 0.9)
      1120
    """
    num_workers = _check.integer("num_workers", num_workers, 1)
    momentum = _check.scalar("momentum", momentum, low=-1.0, high=1.0, exclusive_high=True)
    return math.ceil(round(7 * num_workers / (1 - momentum), 6))


def check_seeds(choosing: Iterable[int], judging: Iterable[int]) -> None:
    """Refuses seeds that hyperparameters were chosen on among those that they are judged on.

    Args:
      choosing: seeds A.
      judging: seeds B.

    Raises:
      ValueError: a seed is in both, or twice in one.

    Example:
      >>> from asyncflax.lab.statistics import check_seeds
      >>> check_seeds(range(8), range(100, 116))
      >>> check_seeds(range(8), range(6, 22))
      Traceback (most recent call last):
        ...
      ValueError: judging must have other seeds than choosing, both have [6, 7].
    """
    both = set(_distinct("choosing", choosing)) & set(_distinct("judging", judging))
    if both:
        raise ValueError(f"judging must have other seeds than choosing, both have {sorted(both)}.")


def criterion_digest(config: Any, seeds: Iterable[int], **criterion: Any) -> str:
    """The SHA-256 of what an experiment is to be judged by: committed before judging, and named in the row of results.

    It is that of JSON with sorted keys and no spaces. Fields of the config that are marked `free` do not count (where
    data are, the devices, what is drawn): name those that the verdict depends on in `criterion`. Nor do fields with
    their default value, so that a digest outlives new options.

    Args:
      config: a dataclass such as `SweepConfig`, of plain values and other dataclasses.
      seeds: the judging seeds, in any order.
      criterion: what else the verdict depends on, such as `target=0.9, bound=1.1, claim="sooner"`.

    Returns:
      64 hexadecimal digits.

    Raises:
      TypeError: the config is no dataclass, or a value has no JSON.
      ValueError: a seed comes twice, or a number is not finite.

    Example:
      >>> from asyncflax.lab.statistics import criterion_digest
      >>> from asyncflax.train.config import TrainConfig
      >>> one = criterion_digest(TrainConfig(data_dir="here"), range(16), target=0.9)
      >>> one == criterion_digest(TrainConfig(data_dir="there"), range(16), target=0.9)
      True
      >>> one == criterion_digest(TrainConfig(momentum=0.5), range(16), target=0.9)
      False
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"config must be a dataclass such as SweepConfig, got {config!r} ({type(config).__name__}).")
    about = {"config": _bound(config), "seeds": sorted(_distinct("seeds", seeds)), "criterion": criterion}
    try:
        text = json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"config and criterion must be made of plain finite values: {error}.") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _judged(name: str, values: Any, axes: int, exception: str) -> np.ndarray:
    """The numbers, finite floats, of enough seeds."""
    _check.instance("exception", exception, str, "the reason for fewer seeds, or ''")
    array = np.asarray(values, float)
    if array.ndim != axes or 0 in array.shape:
        raise ValueError(f"{name} must have {axes} axes, none of them empty, its shape is {array.shape}.")
    if not np.all(np.isfinite(array)):
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"{name} must be finite, got {array[tuple(place)]} at {place}; for what diverged take a number such as the "
            "accuracy of the untrained network."
        )
    if len(array) < 2:
        raise ValueError(f"{name} must have at least 2 seeds for an interval, got {len(array)}.")
    if len(array) < JUDGING_SEEDS and not exception.strip():
        raise ValueError(
            f"{name} must have at least {JUDGING_SEEDS} judging seeds, got {len(array)}; judge on more, or say why not "
            "in exception='...'."
        )
    return array


def _decided(
    numbers: np.ndarray,
    exception: str,
    *,
    bound: float = math.nan,
    claim: str = "greater",
    largest: float = math.inf,
) -> Verdict:
    """The verdict of the paired t interval on numbers [seeds], whose mean is at most `largest`, above or below 0.

    Without a bound nothing is equivalent.
    """
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numbers that are all equal: no spread, p is 0 or 1
        shifted = np.stack([numbers, numbers + bound, bound - numbers])
        tested: Any = stats.ttest_1samp(shifted, 0.0, axis=1)
        signed_rank: Any = stats.wilcoxon(numbers)
    ends = tested.confidence_interval(1 - LEVEL)
    low, high = (float(np.clip(end[0], -largest, largest)) for end in (ends.low, ends.high))
    one_sided = np.where(tested.statistic > 0, tested.pvalue / 2, 1 - tested.pvalue / 2)[1:]
    p_equivalent = math.nan if math.isnan(bound) else max(map(_one_for_nan, one_sided))
    if claim == "equal":
        verdict = "refuted" if low > bound or high < -bound else "not decided"
    else:
        verdict = "seen" if low > 0 else "refuted" if high < 0 else "not decided"
    if verdict == "not decided" and p_equivalent <= LEVEL:
        verdict = "equivalent"
    interval = Interval(float(np.mean(numbers)), low, high)
    detectable = smallest_difference(float(np.std(numbers, ddof=1)), len(numbers))
    p, p_rank = _one_for_nan(tested.pvalue[0]), _one_for_nan(signed_rank.pvalue)
    return Verdict(verdict, interval, p, p_rank, p_equivalent, len(numbers), detectable, "paired t", exception)


def _one_for_nan(p: float) -> float:
    """A test of numbers that are all what they are tested for has no p value; nothing speaks against them."""
    return 1.0 if np.isnan(p) else float(p)


def _log_rank(first: np.ndarray, second: np.ndarray, *missed: np.ndarray) -> float:
    """The two-sided p value of the log-rank test, arms as if independent; 1 where nobody reaches the target."""
    from scipy import stats

    if np.all(missed):
        return 1.0
    one, other = (stats.CensoredData(t[~miss], right=t[miss]) for t, miss in zip((first, second), missed, strict=True))
    return float(stats.logrank(one, other).pvalue)


def _finite(name: str, curves: Any, grid: Any, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """Curves to minimize [seeds, points] and their grid, where all seeds are finite."""
    curves, grid = np.asarray(curves, float), np.asarray(grid, float)
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or not np.all(np.diff(grid) > 0):
        raise ValueError(f"grid must have one axis and rise, got {grid.tolist()}.")
    if curves.ndim != 2 or curves.shape[1] != len(grid) or len(curves) < 2:
        raise ValueError(
            f"{name} must have the shape [seeds, {len(grid)}] of the grid, with 2 seeds at least; it is {curves.shape}."
        )
    there = np.all(np.isfinite(curves), axis=0)
    if there.sum() < 3:
        raise ValueError(f"{name} must be finite for all seeds at 3 points of the grid, they are at {grid[there]}.")
    return curves[:, there] * (-1.0 if largest else 1.0), grid[there]


def _bootstrapped(
    arms: Sequence[tuple[np.ndarray, np.ndarray]], change: Callable[..., np.ndarray], seed: int
) -> Optimum:
    """A function of where the averaged curves are lowest, with a percentile bootstrap over the seeds of all arms."""

    def statistic(seeds: np.ndarray, axis: int = -1) -> np.ndarray:
        return change(*(_lowest(curves[seeds].mean(axis - 1), grid) for curves, grid in arms))

    ends = [np.argmin(curves.mean(0)) in (0, len(grid) - 1) for curves, grid in arms]
    return Optimum(_resampled(statistic, len(arms[0][0]), RESAMPLES, seed), any(ends))


def _resampled(statistic: Callable[..., np.ndarray], count: int, resamples: int, seed: int) -> Interval:
    """A statistic of the places of seeds, with a percentile bootstrap interval that holds it."""
    from scipy import stats

    places = np.arange(count)
    found = stats.bootstrap(
        (places,),
        statistic,
        n_resamples=resamples,
        vectorized=True,
        confidence_level=1 - LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    value = float(statistic(places))
    low, high = (float(end) for end in found.confidence_interval)
    return Interval(value, min(low, value), max(high, value))


def _lowest(curve: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Where curves [..., points] are lowest: the vertex of the parabola through the lowest point and its neighbours."""
    best = np.argmin(curve, axis=-1)
    left = np.clip(best - 1, 0, len(grid) - 3)
    midpoints, slopes = (grid[1:] + grid[:-1]) / 2, np.diff(curve, axis=-1) / np.diff(grid)
    falls, rises = (np.take_along_axis(slopes, (left + i)[..., None], axis=-1)[..., 0] for i in (0, 1))
    inside = best == left + 1
    bend = np.where(inside, rises - falls, 1.0)
    vertex = midpoints[left] - falls * (midpoints[left + 1] - midpoints[left]) / bend
    return np.where(inside, vertex, grid[best])


def _distinct(name: str, seeds: Iterable[int]) -> list[int]:
    """Seeds as a list of different integers."""
    listed = [_check.integer(name, seed, 0) for seed in seeds]
    twice = sorted({seed for seed in listed if listed.count(seed) > 1})
    if twice or not listed:
        raise ValueError(f"{name} must be different seeds, one at least, got {listed}.")
    return listed


def _bound(config: Any) -> Any:
    """A dataclass as a dict of what differs from the defaults, but for free fields, and those inside of it likewise."""
    if not dataclasses.is_dataclass(config):
        return config
    bound = {}
    for field in dataclasses.fields(config):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        value = _bound(getattr(config, field.name))
        if not field.metadata.get("free") and value != _bound(default):
            bound[field.name] = value
    return bound
