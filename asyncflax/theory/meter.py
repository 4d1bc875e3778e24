r"""A momentum meter: how much momentum asynchrony adds, measured while a run goes on.

In a queue every version v >= 1 of the server's parameters is read by one worker, the one that made it. What the workers
read and deliver, sorted by read version, is therefore the path :math:`x_1, x_2, ...` of the server and the gradients
:math:`g_v = \nabla f(x_v; z_v)` on it, which is what `theory.estimate_momentum` asks for. A few dozen coordinates
do. `watch` makes a gradient function report them, `MomentumMeter` collects them on the host.

    E (1 - mu_L B) (1 - mu_S B) (x_{t+1} - x_t) = -(1 - mu_S) alpha E g_t        (B is the back shift)

mu_L is known, mu_S is measured. Total momentum, mu_L + mu_S, is the first-order reading of this operator: the product
-mu_L mu_S B^2 remains.

Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5, and Theorems 6 and 7 of the Allerton version for the
operator; the estimator is that of `theory`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check, theory
from asyncflax.base import as_partial
from asyncflax.gradients import GradientResult, call_gradient_fn
from asyncflax.transforms import _coordinates

__all__ = ["Measured", "MomentumMeter", "Readout", "watch"]


class Readout(NamedTuple):
    """What `watch` reports for an event; with a leading axis [E] for E events.

    Attributes:
      params: [coordinates], some of the parameters that the worker read.
      grads: [coordinates], the same ones of the gradient on them, as the method's momentum receives it.

    Example: see `watch`.
    """

    params: Any
    grads: Any


class Measured(NamedTuple):
    """What `MomentumMeter.estimate` returns.

    Attributes:
      implicit: float, mu_S, the momentum of asynchrony.
      low: float, the lower end of its interval.
      high: float, the upper end.
      total: float, mu_L + mu_S, explicit and implicit momentum to first order.
      versions: (first, last), the versions of the window.

    Example: see `MomentumMeter`.
    """

    implicit: float
    low: float
    high: float
    total: float
    versions: tuple[int, int]


def watch(
    gradient_fn: Callable[..., Any],
    params: Any,
    *,
    coordinates: int = 64,
    seed: int = 0,
    applied: Callable[[Any, Any], Any] | None = None,
) -> Callable[..., GradientResult]:
    """The gradient function, which now also reports a few coordinates of what was read and of the gradient.

    What it reports stays, with one more entry, 'meter': a `Readout`. An event costs two gathers of `coordinates`
    numbers.

    The coordinates are fixed: the same number from every leaf of the parameters, as far as it has so many, drawn
    without replacement. So small layers count as much as large ones; where there are more leaves than coordinates, the
    largest leaves have one each.

    Args:
      gradient_fn: any gradient function described in `gradients` that reports nothing or a dict.
      params: PyTree of arrays, parameters as it will receive them; only shapes matter.
      coordinates: how many; all, where there are fewer.
      seed: of the draw.
      applied: `applied(grads, read_params) -> grads`, what the method's momentum receives in place of the gradient.
        It is given PyTrees like params that hold the coordinates alone, so it must act number by number, as weight
        decay and multipliers do. (What looks at the whole gradient, such as clipping by its norm, belongs into the
        gradient function.) Default: the gradient itself.

    Raises:
      TypeError: `gradient_fn` or `applied` is no function; later, what it reports is no dict.
      ValueError: coordinates below 1, params without numbers; later, there is an entry 'meter' already.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> from asyncflax.theory import meter
      >>> params = {"kernel": jnp.ones((100, 10)), "bias": jnp.zeros(10)}
      >>> loss_fn = lambda p, batch: jnp.sum((batch @ p["kernel"] + p["bias"][None]) ** 2)
      >>> watched = meter.watch(jax.value_and_grad(loss_fn), params, coordinates=16)
      >>> jax.tree.map(jnp.shape, watched(params, jnp.ones((5, 100))).aux)
      {'meter': Readout(params=(16,), grads=(16,))}
    """
    _check.function("gradient_fn", gradient_fn, _check.GRADIENT)
    if applied is not None:
        _check.function("applied", applied, " of (grads, read_params) or None")
    coordinates = _check.integer("coordinates", coordinates, 1)
    seed = _check.integer("seed", seed, 0, None)
    _check.arrays("params", params)
    if not sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(params)):
        raise ValueError(f"params must hold numbers, got {params!r}.")
    places = tuple(map(jnp.asarray, _coordinates.draw(params, coordinates, seed)))
    return _Watched(as_partial(gradient_fn), None if applied is None else as_partial(applied), places)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["gradient_fn", "applied", "places"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class _Watched:
    """A gradient function with a meter; a PyTree, so that what it binds are arguments of the compiled program."""

    gradient_fn: Callable[..., Any]
    applied: Callable[[Any, Any], Any] | None
    places: tuple[Any, ...]  # of the coordinates in each leaf

    def __call__(self, read_params, batch, **context) -> GradientResult:
        result = call_gradient_fn(self.gradient_fn, read_params, batch, **context)
        aux = {} if isinstance(result.aux, tuple) and not result.aux else result.aux
        if not isinstance(aux, dict):
            raise TypeError(f"gradient_fn must report nothing or a dict to be watched, it reports {aux!r}.")
        if "meter" in aux:
            raise ValueError("gradient_fn reports 'meter' already; watch it once, or give that entry another name.")
        params, grads = (_coordinates.take(tree, self.places) for tree in (read_params, result.grads))
        if self.applied is not None:
            grads = self.applied(grads, params)
            _check.like("what `applied` returns", grads, "its arguments", params)
        readout = Readout(_coordinates.flat(params), _coordinates.flat(grads))
        return result._replace(aux={**aux, "meter": readout})


class MomentumMeter:
    r"""Implicit momentum over the newest `window` versions of a run, as far as the workers have delivered them.

    What makes it right:

    - every version v >= 1 is read once: a queue without restarts or discards, in which workers read the server's own
      parameters (no look-ahead);
    - the method is SGD or heavy-ball momentum, step size inside or outside the velocity (`algorithms.asgd`,
      `algorithms.momentum_asgd`), with weight decay at the parameters read, if any;
    - service times are exponential with equal means. Under other laws there is no one momentum, and the value is a best
      fit.

    A window in which the learning rate changes gives nothing; the next one lies behind the change.

    The half-width of the interval was 0.09 (0.06 to 0.17) for a window of 480 updates of a small convolutional network
    on digits (M = 8, explicit momentum 0.3) and 0.05 for 960; more than 64 coordinates did not narrow it. The value
    lies 0.01 to 0.03 too low there: the bias of the estimator is of the order of one over the window.

    Args:
      learning_rate: alpha, a number or a function from int [n], indices of events, to their learning rates.
      momentum: mu_L, the explicit momentum in [-1, 1].
      window: how many versions, at least 12.
      confidence: of the interval, in (0, 1).

    Raises:
      TypeError, ValueError: a number is not finite or out of its range; the message names it.

    Example: 8 workers on a noisy quadratic, explicit momentum 0.3.
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> from asyncflax.theory import meter
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=8, num_updates=3000, service_time=q.exponential())
      >>> noise = jax.random.normal(jax.random.key(0), (3000, 64))
      >>> params, loss_fn = jnp.zeros(64), lambda x, noise: 0.5 * jnp.sum((x - noise) ** 2)
      >>> watched = meter.watch(jax.value_and_grad(loss_fn), params)
      >>> result = asyncflax.run(asyncflax.algorithms.momentum_asgd(0.2, 0.3), watched, params, trace, noise)
      >>> momentum = meter.MomentumMeter(learning_rate=0.2, momentum=0.3, window=2500)
      >>> momentum.add(trace.read_version, result.aux["meter"])
      >>> measured = momentum.estimate()
      >>> measured.low < 1 - 1 / 8 < measured.high, measured.high - measured.low < 0.1
      (True, True)
    """

    def __init__(
        self,
        *,
        learning_rate: float | Callable[[np.ndarray], Any],
        momentum: float = 0.0,
        window: int = 500,
        confidence: float = 0.95,
    ):
        if not callable(learning_rate):
            _check.scalar("learning_rate", learning_rate, low=0.0)
        _check.momentum(momentum)
        self.learning_rate, self.momentum = learning_rate, _check.scalar("momentum", momentum)
        self.window = _check.integer("window", window, 12)
        self.confidence = _check.scalar("confidence", confidence, low=0.0, high=1.0, exclusive_low=True)
        if self.confidence == 1.0:
            raise ValueError("confidence must be below 1, got confidence=1.0.")
        self._versions: np.ndarray = np.zeros(0, np.int64)  # sorted
        self._params: Any = None  # [versions, coordinates]
        self._grads: Any = None

    def add(self, read_version: Any, readout: Readout) -> None:
        """Takes what events report, in any order and any portions. Version 0, which all workers read, does not count.

        Args:
          read_version: int [E], of these events: `trace.read_version[events]`.
          readout: arrays [E, coordinates], from the entry 'meter' of what the events report.

        Raises:
          ValueError: shapes do not agree, or a version comes twice.
        """
        _check.instance("readout", readout, Readout, "a Readout, the entry 'meter' of what events report")
        versions = np.array(_check.integers("read_version", read_version, 0), np.int64)
        params, grads = (np.asarray(part) for part in readout)
        if versions.ndim != 1 or params.ndim != 2 or params.shape != grads.shape or len(params) != len(versions):
            raise ValueError(
                f"readout must hold two arrays [E, coordinates], a row for each of the E events in read_version; "
                f"got {params.shape} and {grads.shape} for read_version of shape {versions.shape}."
            )
        if self._params is None:
            self._params, self._grads = params[:0], grads[:0]
        if params.shape[1] != self._params.shape[1]:
            raise ValueError(
                f"readout has {params.shape[1]} coordinates, those before had {self._params.shape[1]}; "
                "one meter belongs to one watched gradient function."
            )
        later = versions > 0
        versions = np.concatenate([self._versions, versions[later]])
        order = np.argsort(versions, kind="stable")
        versions = versions[order]
        for version in versions[1:][np.diff(versions) == 0][:1]:
            raise ValueError(
                f"version {version} has been read twice; the meter needs a trace in which every version after 0 is "
                "read once, such as that of a queue without restarts."
            )
        keep = slice(self._window_start(versions), None)
        rows = lambda old, new: np.concatenate([old, new[later]])[order][keep]
        self._params, self._grads = rows(self._params, params), rows(self._grads, grads)
        self._versions = versions[keep]

    def estimate(self) -> Measured | None:
        """Momentum over the newest window; None where it cannot be told.

        That is: not enough versions in a row yet, a learning rate that is 0 or changes in the window, parameters that
        do not move or are not finite.
        """
        first = self._window_start(self._versions)
        versions = self._versions[first : first + self.window]
        if first + self.window > len(self._versions) or np.any(np.diff(versions) != 1):
            return None
        alpha = self._learning_rate(versions[:-1])
        if alpha is None:
            return None
        x, g = (part[first : first + self.window].astype(np.float64) for part in (self._params, self._grads))
        try:
            value, low, high = theory.estimate_momentum(
                x, g, learning_rate=alpha, momentum=self.momentum, confidence=self.confidence
            )
        except ValueError:  # nothing moves, or something is not finite
            return None
        if not np.all(np.isfinite([value, low, high])):
            return None
        return Measured(value, low, high, self.momentum + value, (int(versions[0]), int(versions[-1])))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the meter remembers, to be saved."""
        none = np.zeros((0, 0))
        params, grads = (none if part is None else part for part in (self._params, self._grads))
        return {"meter_versions": self._versions, "meter_params": params, "meter_grads": grads}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `arrays` gave, bit by bit; from nothing, where these are not there.

        Args:
          arrays: by name; others are left alone.

        Raises:
          ValueError: they do not belong together.
        """
        self._versions, self._params, self._grads = np.zeros(0, np.int64), None, None
        if len(arrays.get("meter_versions", ())):
            self.add(arrays["meter_versions"], Readout(arrays["meter_params"], arrays["meter_grads"]))

    def _window_start(self, versions: np.ndarray) -> int:
        """Where the newest stretch of `window` versions without holes begins; 0 if there is none."""
        span = self.window - 1
        complete = np.flatnonzero(versions[span:] - versions[: max(len(versions) - span, 0)] == span)
        return int(complete[-1]) if len(complete) else 0

    def _learning_rate(self, events: np.ndarray) -> float | None:
        """That of the events, if there is one."""
        if not callable(self.learning_rate):
            return float(self.learning_rate) or None
        alphas = np.broadcast_to(np.asarray(self.learning_rate(events), np.float64), events.shape)
        return float(alphas[0]) if alphas[0] > 0 and np.all(alphas == alphas[0]) else None
