"""Verdicts from differences within seeds: of losses, accuracies, ranks and updates to a target."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.lab.statistics.beforehand import JUDGING_SEEDS, smallest_difference
from asyncflax.lab.statistics.intervals import LEVEL, Interval

ACCURACY_BOUND = 0.005  # accuracies, as shares, that differ by less are equivalent: half a point
RATIO_BOUND = 1.1  # times whose ratio is nearer to 1, above or below, are equivalent
MISSED_SHARE = 0.2  # if more of an arm miss the target, ranks decide instead of logarithms


class Verdict(NamedTuple):
    """The outcome of an experiment about a claim.

    Attributes:
      verdict: one of `VERDICTS`.
      interval: the 95 % `Interval` of the quantity that the deciding function states; positive favours the claim.
      p: float, the two-sided p value of the test that decides.
      p_rank: float, the two-sided p value of a rank test that does not decide: Wilcoxon's signed-rank test over the
        seeds, or the log-rank test if `test` is Gehan's.
      p_equivalent: float, the larger p value of the two one-sided tests of equivalence; NaN without a bound.
      seeds: int, the number of seeds.
      detectable: float, the `smallest_difference` for the spread over these seeds, in units of the interval.
      test: the test that decides, 'paired t', 'Page' or 'Gehan'.
      exception: the reason why fewer than `JUDGING_SEEDS` seeds judge, or ''.
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
        """For `decide_updates`: the ratio second / first of geometric means, or U / n^2 where ranks decide."""
        return self.interval if self.test == "Gehan" else self.interval.exp()

    @property
    def words(self) -> str:
        """The verdict, with a note if a significant difference is within the bound of equivalence."""
        small = self.verdict in ("seen", "refuted") and self.p_equivalent <= LEVEL
        return f"{self.verdict}, within the bound of equivalence" if small else self.verdict


def log_updates(updates: Any, horizon: float) -> Any:
    """log min(t, T), whose mean compares arms: a run that misses its target counts with all its updates.

    Args:
      updates: t, float [...] or an `xarray.DataArray`; NaN, infinity, or more than `horizon` for a miss.
      horizon: T.

    Example:
      >>> np.exp(log_updates(np.array([100.0, np.nan]), horizon=400)).round()
      array([100., 400.])
    """
    return np.log(np.fmin(updates, horizon))


def decide_difference(
    differences: np.ndarray, *, bound: float = ACCURACY_BOUND, claim: str = "greater", exception: str = ""
) -> Verdict:
    """Decides whether one arm is better than another, or equal, by the paired t interval of their differences.

    Equivalence is shown by two one-sided t tests at 5 %: the 90 % interval is inside +-bound.

    =========== =============================================== ==================================
    verdict     claim 'greater'                                 claim 'equal'
    =========== =============================================== ==================================
    seen        the interval is above 0
    refuted     it is below 0                                   it is outside +-bound
    equivalent  neither, and the one-sided tests show it        the one-sided tests show it
    not decided otherwise                                       otherwise
    =========== =============================================== ==================================

    Args:
      differences: float [seeds], better minus worse arm as claimed: accuracies (0.01 is a point), or losses of the
        worse minus those of the better. Replace diverged values by a number first.
      bound: > 0, in units of the differences; the default is for accuracies.

    Returns:
      `Verdict` with the interval of the mean difference.

    Source: Student 1908 (doi:10.1093/biomet/6.1.1); Schuirmann 1987 (doi:10.1007/BF01068419) for equivalence.

    Example:
      >>> noise = np.random.default_rng(0).normal(scale=0.01, size=16)
      >>> decided = decide_difference(0.02 + noise)
      >>> decided.verdict, decided.interval.text(3)
      ('seen', '0.017 (0.013 to 0.022)')
      >>> decide_difference(0.1 * noise, claim="equal").verdict
      'equivalent'
    """
    _check.choice("claim", claim, ("greater", "equal"))
    bound = _check.scalar("bound", bound, low=0.0, exclusive_low=True)
    differences = judged("differences", differences, 1, exception)
    return _decided(differences, exception, bound=bound, claim=claim)


def decide_trend(values: np.ndarray, *, direction: str, exception: str = "") -> Verdict:
    """Decides whether a number rises or falls along ordered levels, by Page's test.

    The levels are ranked within each seed. Page's L is the sum over seeds and levels of rank times level; each
    direction has a one-sided test at 2.5 %. A trend in the claimed direction is 'seen', one in the other 'refuted';
    there is no equivalence.

    Args:
      values: float [seeds, levels], levels in increasing order, at least three.
      direction: 'rises' or 'falls'.

    Returns:
      `Verdict` with Student's interval of the mean over seeds of Spearman's correlation of level and value (a linear
      function of L), with the sign of the claim: 1 if all seeds follow it strictly.

    Source: Page 1963 (doi:10.1080/01621459.1963.10500843).

    Example:
      >>> momentum = np.array([0.8, 0.5, 0.3, 0.1]) + np.random.default_rng(0).normal(scale=0.2, size=(16, 4))
      >>> decided = decide_trend(momentum, direction="falls")
      >>> decided.verdict, decided.interval.text()
      ('seen', '0.88 (0.77 to 0.98)')
    """
    from scipy import stats

    _check.choice("direction", direction, ("rises", "falls"))
    values = judged("values", values, 2, exception)
    levels = values.shape[1]
    if levels < 3:
        raise ValueError(f"values must have at least 3 levels, got shape {values.shape}; use decide_difference.")
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
    """Decides whether one arm reaches a target in fewer updates than another; runs end after T = `horizon`.

    **If at most a fifth of each arm misses**, the paired t interval of log(second / first) decides, as in
    `decide_difference` with the bound log(`bound`). A miss counts with T updates, which understates it: conservative
    if the slower arm misses more often, but the advantage of a faster arm that misses is overstated, and two misses
    differ by 0. So an experiment with a miss is never 'equivalent'.

    **If more miss**, Gehan's test decides. All runs are censored at the same T, so the scores are the ranks among both
    arms, with misses tied last. The differences of ranks within a seed, divided by n seeds, have the mean

        U / n^2 = P(first is sooner) - P(second is sooner)

    over all n^2 couples of runs of the two arms, and their paired t interval decides (with 16 seeds it contains
    the truth in 93 to 96 % of simulations). The log-rank test beside it treats the arms as independent, which is
    conservative if runs of a seed are alike. Ranks have no ratio: nothing is 'equivalent', and the claim 'equal' is
    'not decided'; use a larger T.

    Args:
      first: float [seeds], updates to the target of the arm claimed to be sooner, > 0; NaN, infinity, or more than
        `horizon` for a miss.
      second: float [seeds], of the other arm, with the same seeds.
      horizon: T > 0, the updates after which all runs ended.
      bound: a ratio > 1.

    Returns:
      `Verdict` with the interval of U / n^2 where `test` is 'Gehan', else of the mean log(second / first); `of_updates`
      is the ratio of geometric means.

    Source: Gehan 1965 (doi:10.1093/biomet/52.1-2.203); O'Brien and Fleming 1987 (Biometrics 43, 169-180) for the pairs,
    here with Student's distribution instead of the normal one; Mantel 1966 (PMID 5910392) for the log-rank test.

    Example:
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
        raise ValueError(f"first and second must have the same shape, got {arms[0].shape} and {arms[1].shape}.")
    missed = [~(arm <= horizon) for arm in arms]
    first, second = (
        judged(name, np.fmin(arm, horizon), 1, exception) for name, arm in zip(("first", "second"), arms, strict=True)
    )
    for name, arm in {"first": first, "second": second}.items():
        if np.any(arm <= 0):
            raise ValueError(f"{name} must be positive, got {arm.min():g}; choose a target that is not yet reached.")
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


def judged(name: str, values: Any, axes: int, exception: str) -> np.ndarray:
    """The values as floats, checked to be finite and of enough seeds."""
    _check.instance("exception", exception, str, "the reason for fewer seeds, or ''")
    array = np.asarray(values, float)
    if array.ndim != axes or 0 in array.shape:
        raise ValueError(f"{name} must be {axes}-dimensional and not empty, got shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"{name} must be finite, got {array[tuple(place)]} at {place}; replace diverged values by a number such as "
            "the accuracy of the untrained network."
        )
    if len(array) < 2:
        raise ValueError(f"{name} must have at least 2 seeds for an interval, got {len(array)}.")
    if len(array) < JUDGING_SEEDS and not exception.strip():
        raise ValueError(
            f"{name} must have at least {JUDGING_SEEDS} judging seeds, got {len(array)}; judge on more, or give the "
            "reason for fewer as exception='...'."
        )
    return array


def _decided(
    numbers: np.ndarray, exception: str, *, bound: float = math.nan, claim: str = "greater", largest: float = math.inf
) -> Verdict:
    """The verdict by the t interval of numbers [seeds] whose mean is in +-largest; no bound means no equivalence."""
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
    """The p value, or 1 for the NaN of numbers that all equal the hypothesis."""
    return 1.0 if np.isnan(p) else float(p)


def _log_rank(first: np.ndarray, second: np.ndarray, *missed: np.ndarray) -> float:
    """The two-sided p value of the log-rank test for independent arms; 1 if all miss the target."""
    from scipy import stats

    if np.all(missed):
        return 1.0
    one, other = (stats.CensoredData(t[~miss], right=t[miss]) for t, miss in zip((first, second), missed, strict=True))
    return float(stats.logrank(one, other).pvalue)
