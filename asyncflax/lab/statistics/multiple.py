"""Verdicts on claims that must hold in several comparisons: pairs of methods, numbers of workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asyncflax import _check
from asyncflax.lab.statistics.intervals import LEVEL
from asyncflax.lab.statistics.paired import ACCURACY_BOUND, Verdict, decide_difference, judged


class OrderVerdict(NamedTuple):
    """The verdict on an order of methods, or on a claim in several comparisons.

    Attributes:
      verdict: one of `VERDICTS`.
      pairs: the `Verdict` of each comparison alone, without adjustment.
      p_holm: float [pairs], the two-sided p values adjusted by `holm`, which decide.
    """

    verdict: str
    pairs: tuple[Verdict, ...]
    p_holm: np.ndarray


def decide_order(differences: np.ndarray, *, bound: float = ACCURACY_BOUND, exception: str = "") -> OrderVerdict:
    """Decides whether each of several methods is better than the next, by paired t tests and `decide_all`.

    Args:
      differences: float [seeds, pairs], better minus worse method of each adjacent pair: `values[:, :-1] -
        values[:, 1:]` of values [seeds, methods], best method first.

    Example:
      >>> best_first = np.array([0.95, 0.93, 0.90]) + np.random.default_rng(0).normal(scale=0.01, size=(16, 3))
      >>> order = decide_order(best_first[:, :-1] - best_first[:, 1:])
      >>> order.verdict, [pair.verdict for pair in order.pairs]
      ('seen', ['seen', 'seen'])
    """
    differences = judged("differences", differences, 2, exception)
    return decide_all([decide_difference(row, bound=bound, exception=exception) for row in differences.T])


def decide_all(verdicts: Sequence[Verdict], *, claim: str = "greater") -> OrderVerdict:
    """Decides whether a claim holds in all comparisons, with p values adjusted by `holm`.

    The claim that one arm is better is 'seen' if all comparisons are significant in its direction, 'refuted' if any is
    in the other, otherwise 'equivalent' if all pass their tests of equivalence. The claim that arms are equal is
    'equivalent' if all comparisons are, which needs no adjustment, and 'refuted' if any is, unadjusted.

    Args:
      verdicts: the verdicts of the comparisons, at least one, all decided for this claim.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6, 65-70); Berger 1982 (doi:10.1080/00401706.1982.10487790)
    for passing all tests.

    Example:
      >>> noise = np.random.default_rng(0).normal(scale=0.01, size=(2, 16))
      >>> few, many = (decide_difference(gain + row) for gain, row in zip((0.02, 0.03), noise))
      >>> decide_all([few, many]).verdict
      'seen'
    """
    _check.choice("claim", claim, ("greater", "equal"))
    if not verdicts:
        raise ValueError("verdicts must contain at least one Verdict, got none.")
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
    r"""Holm's adjusted p values, which control the family-wise error rate.

    .. math:: \tilde p_{(i)} = \max_{j \leq i} \min(1, (k - j + 1) p_{(j)}), \qquad p_{(1)} \leq \dots \leq p_{(k)}

    Args:
      p: float [k], p values in [0, 1].

    Returns:
      float [k], in the order of `p`.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6, 65-70).

    Example:
      >>> holm(np.array([0.01, 0.04, 0.03]))
      array([0.03, 0.06, 0.06])
    """
    _check.number("p", p, low=0.0, high=1.0)
    if np.ndim(p) != 1 or not len(p):
        raise ValueError(f"p must be one-dimensional and not empty, got shape {np.shape(p)}.")
    rising = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[rising] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * np.asarray(p)[rising]))
    return adjusted
