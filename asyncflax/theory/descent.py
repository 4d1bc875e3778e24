r"""How the loss of a training falls on quadratics with gradient noise, along a trace, and what makes it fall soonest.

The training is a `Spectrum`, with its symbols. With :math:`x_i = 1` at first, and read the version that was read,

.. math::
    v_i' = \mu v_i - \alpha \lambda_i (x_i^{read} + n_i), \qquad x_i' = x_i + v_i', \qquad
    E n_i^2 = r + r_L \frac{L^{read}}{L^0}, \qquad L = \sum_i L_i E x_i^2

Once the trace is given, all this is linear: the second moments of the server, its last step and the versions that are
yet to be read obey a recursion without approximation, for any staleness and any service time, at the cost of one row of
them an event. In the exponential queue, seven moments do for all traces at once (`queue_mean_square_matrix`).

Source: derived; the model is that of `theory`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from asyncflax import _check, _memory
from asyncflax.theory._model import ExponentialQueue, checked_momentum
from asyncflax.theory._numerics import zero
from asyncflax.theory.mean_square import QUEUE_START, queue_map
from asyncflax.theory.spectrum import SPECTRUM, Spectrum
from asyncflax.trace import Trace

__all__ = ["Soonest", "expected_losses", "soonest"]

_MOMENTA = np.array([-0.6, -0.3, 0.0, 0.3, 0.6, 0.8, 0.9, 0.95])
_LARGEST = 3  # binary logarithm of alpha L / (1 - mu), the first that is tried
_SMALLEST = -20
_FINER = ((0.1, 0.5), (0.04, 0.2))  # spacings of momenta, and of the logarithm of step sizes, around the best
_TIE = 1.02  # times the updates of the first: not worth a larger momentum
_PATIENCE = 3  # times the updates that it takes without noise or staleness, after which a step size is too large

Along = Trace | ExponentialQueue


class Soonest(NamedTuple):
    """The explicit momentum and the step size that reach a target loss first.

    Attributes:
      momentum: float, mu_L.
      step_size: float, alpha.
      updates: float, until the expected loss is the target; infinite where no candidate reaches it.

    Example: see `soonest`.
    """

    momentum: float
    step_size: float
    updates: float


def expected_losses(
    spectrum: Spectrum, along: Along, num_updates: int, *, step_size: float, momentum: float = 0.0
) -> np.ndarray:
    """The expected excess loss before training and after each update.

    Args:
      spectrum: the training.
      along: a trace, over whose noise the expectation is; if it is too short it begins again. Or an `ExponentialQueue`,
        then it is over all traces too.
      num_updates: T.
      step_size: alpha, at least 0.
      momentum: mu_L, the explicit momentum in [-1, 1].

    Returns:
      float64 [T + 1].

    Raises:
      TypeError, ValueError: an argument is out of range.

    Source: derived.

    Example: without noise, every fresh step halves the distance.
      >>> from asyncflax import staleness, theory
      >>> from asyncflax.theory import descent
      >>> one = theory.Spectrum([1.0], [1.0])
      >>> descent.expected_losses(one, staleness.constant(0).trace(3), 3, step_size=0.5)
      array([1.      , 0.25    , 0.0625  , 0.015625])
      >>> descent.expected_losses(one, staleness.constant(1).trace(3), 3, step_size=0.5)
      array([1.    , 0.25  , 0.    , 0.0625])
    """
    spectrum, num_updates = _spectrum(spectrum), _check.integer("num_updates", num_updates, 1)
    alpha, mu = _check.scalar("step_size", step_size, low=0.0), checked_momentum(momentum)
    with np.errstate(over="ignore", invalid="ignore"):
        losses = [loss[0] for loss in _losses(_source(along, num_updates), spectrum, np.array([alpha]), np.array([mu]))]
    return np.array([spectrum.losses.sum(), *losses])


def soonest(spectrum: Spectrum, along: Along, target: float, *, max_updates: int = 50_000) -> Soonest:
    r"""The step size and explicit momentum with which the expected loss reaches a target first.

    Momenta from -0.6 to 0.95 are followed side by side, with :math:`\alpha L / (1 - \mu_L)` from 8 downwards in octaves
    until a smaller one is later; then two finer grids around the best.

    Args:
      spectrum: the training.
      along: a trace or an `ExponentialQueue`, see `expected_losses`.
      target: excess loss over that before training, in (0, 1).
      max_updates: after which the search gives up.

    Raises:
      TypeError, ValueError: an argument is out of range.

    Source: derived.

    Example: noise makes small steps best; then staleness costs little.
      >>> from asyncflax import theory
      >>> from asyncflax.theory import descent
      >>> one, eight = map(theory.ExponentialQueue, (1, 8))
      >>> for noise in (0.0, 10.0):
      ...     spectrum = theory.Spectrum.even(30.0, noise=noise)
      ...     updates = [descent.soonest(spectrum, queue, 0.1).updates for queue in (one, eight)]
      ...     print(f"{updates[1] / updates[0]:.1f} times the updates with 8 workers")
      9.5 times the updates with 8 workers
      1.1 times the updates with 8 workers
    """
    spectrum, max_updates = _spectrum(spectrum), _check.integer("max_updates", max_updates, 1)
    source = _source(along, max_updates)
    target = _check.scalar("target", target, low=0.0, high=1.0, exclusive_low=True)
    if target == 1.0:
        raise ValueError("target must be below 1, got target=1.0: that is the loss before training.")
    largest, loss = float(spectrum.curvatures.max()), target * spectrum.losses.sum()
    flow = _flow_time(spectrum, loss) * largest  # alpha L times the updates of small steps without noise
    best = Soonest(0.0, 0.0, np.inf)

    def attempt(momenta: np.ndarray, steps: np.ndarray, updates: float) -> Soonest:
        mu, steps = (grid.ravel() for grid in np.meshgrid(momenta, steps))
        updates = min(updates, best.updates + 1, max_updates)
        return _first(source, spectrum, steps * (1 - mu) / largest, mu, loss, int(np.ceil(updates)))

    for octave in range(_LARGEST, _SMALLEST, -1):
        found = attempt(_MOMENTA, np.array([2.0**octave]), _PATIENCE * (flow / 2.0**octave + 100 + source.mean))
        if found.updates < best.updates:
            best = found
        elif best.updates < np.inf or flow / 2.0**octave > max_updates:
            break
    for spacing, octaves in _FINER if best.updates < np.inf else ():
        momenta = np.clip(best.momentum + spacing * np.arange(-1, 2), -0.98, 0.98)
        step = best.step_size * largest / (1 - best.momentum)
        best = min(best, attempt(momenta, step * 2.0 ** (octaves * np.arange(-1, 2)), np.inf), key=lambda s: s.updates)
    return best


class _Source(NamedTuple):
    """What losses are followed along."""

    queue: int  # number of workers of an exponential queue, or 0
    reads: Sequence[int]  # of each update of a trace, where the version that it reads is kept
    writes: Sequence[int]  # where version 0, 1, ... goes, -1 if nobody reads it
    mean: float  # staleness


def _source(along: Along, num_updates: int) -> _Source:
    if isinstance(along, ExponentialQueue) and along.num_workers > 1:
        return _Source(along.num_workers, range(num_updates), (), along.num_workers - 1.0)
    if not isinstance(along, ExponentialQueue):
        _check.instance("along", along, Trace, "a Trace or a theory.ExponentialQueue")
    stale = [0] if isinstance(along, ExponentialQueue) else along.staleness
    staleness = np.minimum(np.resize(stale, num_updates), np.arange(num_updates))
    return _Source(0, *_slots(staleness), float(np.mean(stale)))


def _slots(staleness: np.ndarray) -> tuple[list[int], list[int]]:
    """`reads` and `writes` of a source: a version is kept until it is read for the last time."""
    read_version = np.arange(len(staleness)) - staleness
    last_read = np.full(len(staleness) + 1, -1)
    np.maximum.at(last_read, read_version, np.arange(len(staleness)))
    free, slot_of, reads, writes = [], {}, [], []
    for version, last in enumerate(last_read.tolist()):
        if last >= 0:
            slot_of[version] = heapq.heappop(free) if free else len(slot_of)
        writes.append(slot_of.get(version, -1))
        if version < len(staleness):
            read = int(read_version[version])
            reads.append(slot_of[read])
            if last_read[read] == version:
                heapq.heappush(free, slot_of.pop(read))
    return reads, writes


def _first(
    source: _Source, spectrum: Spectrum, alpha: np.ndarray, mu: np.ndarray, loss: float, max_updates: int
) -> Soonest:
    """Of the candidates [G] that are at a loss when the first of them is, or a little later, that with least momentum.

    Between two updates, the logarithm of the loss is a straight line.
    """
    before, reached, last = np.full(len(alpha), spectrum.losses.sum()), np.full(len(alpha), np.inf), np.inf
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for t, after in enumerate(itertools.islice(_losses(source, spectrum, alpha, mu), max_updates)):
            new = (after <= loss) & (reached == np.inf)
            reached[new] = t + (np.log(before / loss) / np.log(before / after))[new]
            last = min(last, _TIE * reached.min())
            if t + 1 >= last or not np.any(after < np.inf):
                break
            before = after
    if last == np.inf:
        return Soonest(0.0, 0.0, np.inf)
    i = int(np.argmin(np.where(reached <= last, np.abs(mu), np.inf)))
    return Soonest(float(mu[i]), float(alpha[i]), float(reached[i]))


def _losses(source: _Source, spectrum: Spectrum, alpha: np.ndarray, mu: np.ndarray) -> Iterator[np.ndarray]:
    """The expected losses [G] after each update."""
    h, losses = alpha[:, None] * spectrum.curvatures, spectrum.losses
    noise = lambda read: h**2 * (spectrum.noise + spectrum.loss_noise / losses.sum() * (read @ losses))[:, None]
    return _in_queue(source, h, mu, losses, noise) if source.queue else _along_trace(source, h, mu, losses, noise)


def _in_queue(source: _Source, h: np.ndarray, mu: np.ndarray, losses: np.ndarray, noise: Any) -> Iterator[np.ndarray]:
    """With the seven moments [G, n, 7] of `queue_mean_square_matrix`."""
    maps = [[queue_map(source.queue, step, float(m)) for m in mu] for step in (0.0, 1.0, 2.0)]
    at_0, at_1, at_2 = (np.array([matrix for matrix, _ in row])[:, None] for row in maps)
    of_noise = maps[1][0][1]
    linear, square = (4 * at_1 - 3 * at_0 - at_2) / 2, (at_0 - 2 * at_1 + at_2) / 2  # the map is of second degree in h
    matrix = at_0 + h[..., None, None] * linear + h[..., None, None] ** 2 * square
    moments = np.broadcast_to(QUEUE_START, (*h.shape, 7))
    for _ in source.reads:
        moments = (matrix @ moments[..., None])[..., 0] + noise(moments[..., 5])[..., None] * of_noise
        yield moments[..., 0] @ losses


def _along_trace(
    source: _Source, h: np.ndarray, mu: np.ndarray, losses: np.ndarray, noise: Any
) -> Iterator[np.ndarray]:
    """With the moments [k, k, G, n] of the versions yet to be read, the server and its last step."""
    slots = 1 + max(source.writes)
    x, v, size = slots, slots + 1, slots + 2
    _memory.need("along", slots, 8 * size**2 * h.size, "the moments of the versions yet to be read")
    moments, mu = np.zeros((size, size, *h.shape)), mu[:, None]
    moments[x, x] = 1.0

    def keep(slot: int) -> None:
        """The server as the version in a slot."""
        if slot >= 0:
            moments[slot] = moments[x]
            moments[:, slot] = moments[slot]
            moments[slot, slot] = moments[x, x]

    keep(source.writes[0])
    for read, write in zip(source.reads, source.writes[1:], strict=True):
        row = mu * moments[v] - h * moments[read]  # the next step, with all that there was before
        row[v] = mu * row[v] - h * row[read] + noise(moments[read, read])
        moments[v] = moments[:, v] = row
        row = moments[x] + row  # the next server
        row[x] += row[v]
        moments[x] = moments[:, x] = row
        keep(write)
        yield row[x] @ losses


def _flow_time(spectrum: Spectrum, loss: float) -> float:
    """The time of gradient flow to a loss."""
    excess = lambda log: spectrum.losses @ np.exp(-2 * spectrum.curvatures * np.exp(log)) - loss
    slowest = np.log(-np.log(loss / spectrum.losses.sum()) / 2 / spectrum.curvatures.min())
    return float(np.exp(zero(excess, slowest - 100, slowest + 0.01)))


def _spectrum(spectrum: Spectrum) -> Spectrum:
    _check.instance("spectrum", spectrum, Spectrum, SPECTRUM)
    return spectrum.checked()
