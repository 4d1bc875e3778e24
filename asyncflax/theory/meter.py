r"""A momentum meter: the implicit momentum of a run in progress.

In a queue every version v >= 1 of the server's parameters is read by one worker, the one that made it. What workers
read and deliver, sorted by read version, is therefore the path :math:`x_1, x_2, ...` of the server and the gradients
:math:`g_v = \nabla f(x_v; z_v)` on it, the arguments of `theory.estimate_momentum`. A few dozen coordinates suffice:
`watch` makes a gradient function report them, `MomentumMeter` collects them on the host.

    E (1 - mu_L B) (1 - mu_S B) (x_{t+1} - x_t) = -(1 - mu_S) alpha E g_t        (B is the back shift)

mu_L is known, mu_S is measured. Total momentum, mu_L + mu_S, neglects the second-order term, -mu_L mu_S B^2.

Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5, and Theorems 6 and 7 of the Allerton version for the
operator.
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
from asyncflax.theory._model import checked_momentum
from asyncflax.transforms import _coordinates

__all__ = ["Measured", "MomentumMeter", "Readout", "watch"]


class Readout(NamedTuple):
    """The report of `watch` for an event; with a leading axis [E] for E events.

    Attributes:
      params: [coordinates], the coordinates of the parameters that the worker read.
      grads: [coordinates], those of the gradient at them, as the momentum of the method receives it.
    """

    params: Any
    grads: Any


class Measured(NamedTuple):
    """The result of `MomentumMeter.estimate`.

    Attributes:
      implicit: float, mu_S, the momentum of asynchrony.
      low: float, the lower end of its interval.
      high: float, the upper end.
      total: float, mu_L + mu_S, explicit and implicit momentum to first order.
      versions: (first, last), the range of versions in the window.
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
    """A gradient function that also reports coordinates of the parameters read and of the gradient.

    Its auxiliary outputs get an entry 'meter', a `Readout`, at the cost of two gathers per event. The coordinates are
    fixed and drawn without replacement, with equal numbers in all leaves of the parameters, as far as sizes allow, so
    that small layers count as much as large ones.

    Args:
      gradient_fn: a gradient function as described in `gradients`, whose auxiliary output is empty or a dict.
      params: PyTree of arrays like its parameters; only shapes matter.
      coordinates: the maximum number of coordinates.
      seed: the random seed of their draw.
      applied: `applied(grads, read_params) -> grads`, the gradient that the method's momentum receives; by default the
        identity. It is called with PyTrees like params of the coordinates only, so it must be elementwise, like weight
        decay and multipliers; clipping by the norm belongs in the gradient function.

    Raises:
      TypeError: `gradient_fn` or `applied` is not callable. When called: the auxiliary output is not a dict.
      ValueError: coordinates is below 1, or params has no numbers. When called: there already is an entry 'meter'.

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
    """A gradient function with a meter; a PyTree, so that bound arrays are arguments of the compiled program."""

    gradient_fn: Callable[..., Any]
    applied: Callable[[Any, Any], Any] | None
    places: tuple[Any, ...]  # the coordinates in each leaf

    def __call__(self, read_params, batch, **context) -> GradientResult:
        result = call_gradient_fn(self.gradient_fn, read_params, batch, **context)
        aux = {} if isinstance(result.aux, tuple) and not result.aux else result.aux
        if not isinstance(aux, dict):
            raise TypeError(f"gradient_fn must report nothing or a dict to be watched, got {aux!r}.")
        if "meter" in aux:
            raise ValueError("gradient_fn already reports 'meter'; watch it only once, or rename that entry.")
        params, grads = (_coordinates.take(tree, self.places) for tree in (read_params, result.grads))
        if self.applied is not None:
            grads = self.applied(grads, params)
            _check.like("the result of `applied`", grads, "its arguments", params)
        readout = Readout(_coordinates.flat(params), _coordinates.flat(grads))
        return result._replace(aux={**aux, "meter": readout})


class MomentumMeter:
    r"""Implicit momentum over the newest `window` delivered versions of a run.

    Assumptions:

    - every version v >= 1 is read once: a queue without restarts or discards, in which workers read the server's own
      parameters (no look-ahead);
    - the method is SGD or heavy ball (`algorithms.asgd`, `algorithms.momentum_asgd`), with weight decay, if any, at the
      parameters read;
    - service times are exponential with equal means. Under other distributions there is no single momentum, and the
      value is a best fit.

    A window in which the learning rate changes has no estimate.

    For a small convolutional network on digits (M = 8, explicit momentum 0.3), the half-width of the interval was 0.09
    (0.06 to 0.17) with a window of 480 updates and 0.05 with 960; more than 64 coordinates did not reduce it. The value
    was 0.01 to 0.03 too low: the bias of the estimator is of order one over the window.

    Args:
      learning_rate: alpha, a number or a function from int [n], indices of events, to their learning rates.
      momentum: mu_L, the explicit momentum in [-1, 1].
      window: the number of versions, at least 12.
      confidence: the confidence level of the interval, in (0, 1).

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
        self.learning_rate, self.momentum = learning_rate, checked_momentum(momentum)
        self.window = _check.integer("window", window, 12)
        bounds = {"low": 0.0, "high": 1.0, "exclusive_low": True, "exclusive_high": True}
        self.confidence = _check.scalar("confidence", confidence, **bounds)
        self._versions: np.ndarray = np.zeros(0, np.int64)  # sorted
        self._params = self._grads = np.zeros((0, 0))  # [versions, coordinates]

    def add(self, read_version: Any, readout: Readout) -> None:
        """Adds readouts of events, in any order. Version 0, which all workers read, is ignored.

        Args:
          read_version: int [E], the versions read by these events: `trace.read_version[events]`.
          readout: arrays [E, coordinates], the entry 'meter' of their auxiliary output.

        Raises:
          ValueError: shapes do not agree, or a version is repeated.
        """
        _check.instance("readout", readout, Readout, "a Readout, the entry 'meter' of the auxiliary output")
        versions = np.array(_check.integers("read_version", read_version, 0), np.int64)
        params, grads = (np.asarray(part) for part in readout)
        if versions.ndim != 1 or params.ndim != 2 or params.shape != grads.shape or len(params) != len(versions):
            raise ValueError(
                f"readout must hold two arrays [E, coordinates], a row for each of the E events in read_version; "
                f"got {params.shape} and {grads.shape} for read_version of shape {versions.shape}."
            )
        if not len(self._versions):
            self._params, self._grads = params[:0], grads[:0]
        if params.shape[1] != self._params.shape[1]:
            raise ValueError(
                f"readout has {params.shape[1]} coordinates, but earlier ones had {self._params.shape[1]}; "
                "use one meter per watched gradient function."
            )
        later = versions > 0
        versions = np.concatenate([self._versions, versions[later]])
        order = np.argsort(versions, kind="stable")
        versions = versions[order]
        for version in versions[1:][np.diff(versions) == 0][:1]:
            raise ValueError(
                f"version {version} was read twice; the meter needs a trace in which every version after 0 is "
                "read once, such as that of a queue without restarts."
            )
        keep = slice(self._window_start(versions), None)
        rows = lambda old, new: np.concatenate([old, new[later]])[order][keep]
        self._params, self._grads = rows(self._params, params), rows(self._grads, grads)
        self._versions = versions[keep]

    def estimate(self) -> Measured | None:
        """Momentum over the newest window.

        None if there are too few consecutive versions, if the learning rate is 0 or changes in the window, or if the
        parameters do not move or are not finite.
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
        """The state of the meter, for checkpoints."""
        return {"meter_versions": self._versions, "meter_params": self._params, "meter_grads": self._grads}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores the state from `arrays`, exactly; without its entries, the meter is empty."""
        self._versions = np.zeros(0, np.int64)
        if len(arrays.get("meter_versions", ())):
            self.add(arrays["meter_versions"], Readout(arrays["meter_params"], arrays["meter_grads"]))

    def _window_start(self, versions: np.ndarray) -> int:
        """The start of the newest `window` consecutive versions; 0 if there are none."""
        span = self.window - 1
        complete = np.flatnonzero(versions[span:] - versions[: max(len(versions) - span, 0)] == span)
        return int(complete[-1]) if len(complete) else 0

    def _learning_rate(self, events: np.ndarray) -> float | None:
        """The learning rate of the events; None if it is zero or not constant."""
        if not callable(self.learning_rate):
            return float(self.learning_rate) or None
        alphas = np.broadcast_to(np.asarray(self.learning_rate(events), np.float64), events.shape)
        return float(alphas[0]) if alphas[0] > 0 and np.all(alphas == alphas[0]) else None
