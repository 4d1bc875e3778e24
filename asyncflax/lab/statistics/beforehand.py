"""Design of an experiment before it is judged: number and choice of seeds, length of runs, criterion."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

from asyncflax import _check
from asyncflax.lab.statistics.intervals import LEVEL

JUDGING_SEEDS = 16  # the minimum


def power(effect: float, deviation: float, seeds: int) -> float:
    r"""The probability that `decide_difference` sees a true difference, for normal differences.

    .. math:: 1 - F_{n - 1, \delta \sqrt{n} / \sigma}(t_{0.975, n - 1})

    with the noncentral t distribution F of n - 1 degrees of freedom.

    Args:
      effect: delta, the true mean difference.
      deviation: sigma > 0, the standard deviation of differences over seeds.
      seeds: n >= 2.

    Source: Johnson and Welch 1940 (doi:10.1093/biomet/31.3-4.362).

    Example:
      >>> round(power(0.01, deviation=0.0125, seeds=16), 2)
      0.85
    """
    from scipy import stats

    effect = _check.scalar("effect", effect)
    deviation = _check.scalar("deviation", deviation, low=0.0, exclusive_low=True)
    seeds = _check.integer("seeds", seeds, 2)
    return float(stats.nct.sf(stats.t.ppf(1 - LEVEL / 2, seeds - 1), seeds - 1, effect * math.sqrt(seeds) / deviation))


def smallest_difference(deviation: float, seeds: int, probability: float = 0.8) -> float:
    """The smallest true difference that `decide_difference` sees with this probability, the inverse of `power`.

    Args:
      deviation: sigma >= 0, the standard deviation of differences over seeds.
      seeds: n >= 2.
      probability: the power, in (0, 1).

    Example:
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
    """The fewest updates that show the effect of momentum: 7 M / (1 - mu).

    M workers with momentum mu remember a gradient for M / (1 - mu) updates; after seven times that, a thousandth of it
    is left.

    Args:
      num_workers: M >= 1.
      momentum: mu in [-1, 1).

    Example:
      >>> least_updates(16, 0.9)
      1120
    """
    num_workers = _check.integer("num_workers", num_workers, 1)
    momentum = _check.scalar("momentum", momentum, low=-1.0, high=1.0, exclusive_high=True)
    return math.ceil(round(7 * num_workers / (1 - momentum), 6))


def check_seeds(choosing: Iterable[int], judging: Iterable[int]) -> None:
    """Raises if hyperparameters are judged on seeds that they were chosen on.

    Args:
      choosing: the seeds A on which hyperparameters are chosen.
      judging: the seeds B on which they are judged.

    Example:
      >>> check_seeds(range(8), range(100, 116))
      >>> check_seeds(range(8), range(6, 22))
      Traceback (most recent call last):
        ...
      ValueError: judging and choosing must not share seeds, got [6, 7] in both.
    """
    both = set(_distinct("choosing", choosing)) & set(_distinct("judging", judging))
    if both:
        raise ValueError(f"judging and choosing must not share seeds, got {sorted(both)} in both.")


def criterion_digest(config: Any, seeds: Iterable[int], **criterion: Any) -> str:
    """The SHA-256 of an experiment's design, to be committed before judging and stored with the result.

    It is that of JSON with sorted keys and no spaces. Config fields marked `free` (data folders, devices, figures) are
    left out: pass those that the verdict depends on as `criterion`. Fields at their default value are left out as well,
    so that new options do not change old digests.

    Args:
      config: a dataclass such as `SweepConfig`, of plain values and other dataclasses.
      seeds: the judging seeds, in any order.
      criterion: other values that the verdict depends on, such as `target=0.9, bound=1.1, claim="sooner"`.

    Returns:
      64 hexadecimal digits.

    Raises:
      TypeError: the config is not a dataclass, or a value is not JSON-serializable.
      ValueError: a seed is listed twice, or a number is not finite.

    Example:
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
        raise type(error)(f"config and criterion must contain only plain, finite values: {error}.") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _distinct(name: str, seeds: Iterable[int]) -> list[int]:
    """Seeds as a list of distinct integers."""
    listed = [_check.integer(name, seed, 0) for seed in seeds]
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(f"{name} must contain at least one seed and no duplicates, got {listed}.")
    return listed


def _bound(config: Any) -> Any:
    """The fields of a dataclass, nested ones included, that are neither free nor at their default, as a dict."""
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
