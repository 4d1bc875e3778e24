"""The return types of checks, and the fields that their claims share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from asyncflax.lab.statistics import Interval, decide_number

PAPER = "Mitliagkas et al. 2016"
MOMENTUM = 0.005  # the largest difference of a measured momentum
_ROUNDING = 1e-12  # the largest difference in an identity

Fact = dict[str, Any]
"""The fields of a claim without command, CPU minutes and figure."""

Found = tuple[list[Fact], Any]
"""The claims of a check, and its figure."""


@dataclasses.dataclass(frozen=True)
class Size:
    """The amount of computation."""

    cases: int  # random cases of each identity
    runs: int  # simulated runs of each Monte Carlo average
    seeds: int  # noisy runs of each setting in which momentum is measured
    workers: tuple[int, ...]  # numbers of workers for Figure 2
    targets: tuple[float, ...]  # momenta for Figure 2, other than 0.8
    between: int  # points of the curve of Figure 6 for each that is published


def identity(
    name: str, statement: str, source: str, worst: float, cases: int, of_what: str, tolerance: float = _ROUNDING
) -> Fact:
    """The claim that two things are equal, with the largest difference found."""
    return {
        "name": name,
        "statement": statement,
        "source": f"{PAPER}, {source}",
        "paper": "equal",
        "ours": f"equal to {worst:.0e} in {cases} {of_what} (tolerance {tolerance:.0e})",
        "seeds": cases,
        **largest(worst, tolerance),
    }


def largest(difference: float, tolerance: float) -> Fact:
    """The largest difference in all cases, and whether it is tolerated."""
    verdict = decide_number((difference, difference), high=tolerance)
    return {"value": float(difference), "interval": (0.0, float(difference)), "confidence": 1.0, "verdict": verdict}


def near(interval: Interval, momentum: float) -> str:
    """The verdict on a measured momentum."""
    return decide_number(interval[1:], low=momentum - MOMENTUM, high=momentum + MOMENTUM)


def of_all(verdicts: Iterable[str]) -> str:
    """The verdict on a claim of several numbers: refuted by one, seen in all."""
    found = set(verdicts)
    return "refuted" if "refuted" in found else "seen" if found == {"seen"} else "not decided"
