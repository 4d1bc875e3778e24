"""The model of `asyncflax.theory`: staleness, its generating function, characteristic polynomials.

Source: derived; Mitliagkas et al. 2016 (arXiv:1605.09774) for the model and its mean, Giladi et al. 2020
(arXiv:1909.12340) for shifted momentum, second-hand.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from asyncflax import _check
from asyncflax.staleness import StalenessLaw, constant

FORMS = ("heavy_ball", "shifted")
_LARGEST_TABLE = 2048  # of non-geometric distributions, whose polynomials have a root for each entry


@dataclasses.dataclass(frozen=True)
class ExponentialQueue:
    """M workers with one gradient in flight each and exponential work of equal mean.

    Attributes:
      num_workers: M, the number of workers.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 2.1, assumptions A2 and A3.

    Example:
      >>> from asyncflax import theory
      >>> theory.stability_limit(theory.ExponentialQueue(num_workers=4))
      14.0
    """

    num_workers: int

    def __post_init__(self):
        object.__setattr__(self, "num_workers", _check.integer("num_workers", self.num_workers, 1))


Staleness = int | StalenessLaw | ExponentialQueue


def generating_function(staleness: Staleness) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of Q(z) = sum_l q_l z^-l."""
    is_queue = isinstance(staleness, ExponentialQueue)
    mu = 1.0 - 1.0 / staleness.num_workers if is_queue else as_law(staleness).implicit_momentum
    if mu is not None:
        return np.array([1.0 - mu, 0.0]), np.array([1.0, -mu])
    q = as_law(staleness).table
    if len(q) > _LARGEST_TABLE:
        raise ValueError(
            f"staleness must be at most {_LARGEST_TABLE - 1}, or geometric; "
            f"got {as_law(staleness)} with a table up to {len(q) - 1}."
        )
    return q, np.append(1.0, np.zeros(len(q) - 1))


def characteristic(staleness: Staleness, momentum: float, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Polynomials a and b of one length: the growth factors of the mean are the roots of a + h b."""
    _check.choice("form", form, FORMS)
    numerator, denominator = generating_function(staleness)
    if form == "heavy_ball":
        a = np.convolve(np.poly([1.0, momentum]), denominator)
    else:
        a = np.convolve([1.0, -1.0], np.append(denominator, 0.0) - momentum * np.append(0.0, numerator))
    return a, np.concatenate([[0.0], numerator, [0.0]])


def queue_update(num_workers: int, h: float, momentum: float) -> tuple[np.ndarray, ...]:
    """x', v', s_i', m' as coefficients of (x, v, s_i, m, n): the event in which worker i delivers."""
    num_workers = _check.integer("num_workers", num_workers, 1)
    x, v, s, m, n = np.eye(5)
    new_v = momentum * v - h * (s + n)
    new_x = x + new_v
    return new_x, new_v, new_x, m + (new_x - s) / num_workers


def is_fixed(staleness: Staleness) -> bool:
    """Whether the staleness is constant."""
    if isinstance(staleness, ExponentialQueue):
        return staleness.num_workers == 1
    return bool(np.count_nonzero(as_law(staleness).table) == 1)


def as_law(staleness: Staleness) -> StalenessLaw:
    """The distribution of a staleness; for a queue, only with one worker."""
    if isinstance(staleness, StalenessLaw):
        return staleness
    if isinstance(staleness, ExponentialQueue):
        return constant(0)
    return constant(_check.integer("staleness", staleness, 0))


def checked_step(h: float, *, positive: bool = False) -> float:
    return _check.scalar("h", h, low=0.0, exclusive_low=positive)


def checked_momentum(momentum: float, *, inside: bool = False) -> float:
    return _check.scalar("momentum", momentum, low=-1.0, high=1.0, exclusive_low=inside, exclusive_high=inside)
