"""Gradient functions: what a worker computes.

    gradient_fn(read_params, batch, *, key, event, worker, model_state) -> GradientResult

A gradient function receives whichever of the four keywords its signature names (all of them if it has **kwargs), so
`jax.value_and_grad(loss_fn)` is a valid gradient function, and so is

    >>> def noisy_gradient(params, batch, *, key):
    ...     noise = jax.random.normal(key, params.shape)
    ...     return GradientResult(loss=jnp.sum(params**2), grads=2 * params + noise, aux={"noise": noise})
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asyncflax import _check
from asyncflax.base import as_partial

_CONTEXT = ("key", "event", "worker", "model_state")


class ModelUpdate(NamedTuple):
    """Update of non-trainable model state: `decay * model_state + increment`, applied by the server in event order.

    *BatchNorm.* In training mode the forward pass does not read the running statistics, so a worker can evaluate it
    with zero statistics: it returns (1 - m) b for momentum m and batch statistics b, which is the increment; the decay
    is m. The server then computes statistics <- m statistics + (1 - m) b. To freeze statistics, return no update.
    (Stale differences, running minus batch statistics, are unstable under asynchrony.)

    Attributes:
      decay: a number, or a PyTree of numbers like model_state. A single number applies to floating-point leaves;
        integer leaves are counters and are only incremented.
      increment: PyTree like model_state.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> update = asyncflax.ModelUpdate(0.75, {"mean": 0.25 * jnp.ones(2), "batches": 1})
      >>> update.apply({"mean": jnp.zeros(2), "batches": jnp.array(7)})
      {'batches': Array(8, dtype=int32), 'mean': Array([0.25, 0.25], dtype=float32)}
    """

    decay: Any
    increment: Any

    def apply(self, model_state: Any) -> Any:
        """Returns the updated model state, with dtypes preserved."""
        _check.like("increment of the ModelUpdate", self.increment, "model_state", model_state)
        one_for_all = jax.tree_util.treedef_is_leaf(jax.tree.structure(self.decay))
        decays = jax.tree.map(lambda _: self.decay, model_state) if one_for_all else self.decay
        if jax.tree.structure(decays) != jax.tree.structure(model_state):
            raise ValueError(f"decay of the ModelUpdate must be a number or like model_state, got {self.decay}.")

        def new(state, increment, decay):
            state = jnp.asarray(state)
            counter = one_for_all and jnp.issubdtype(state.dtype, jnp.integer)
            decayed = state if counter else state * jnp.asarray(decay, state.dtype)
            return decayed + jnp.asarray(increment, state.dtype)

        return jax.tree.map(new, model_state, self.increment, decays)


class GradientResult(NamedTuple):
    """Result of a gradient function for one event.

    Attributes:
      loss: [], the loss on the batch.
      grads: PyTree like the parameters.
      aux: PyTree of arrays to report for the event (accuracy, ...), with the same structure for all events.
      model_update: a `ModelUpdate`, or None.
    """

    loss: Any
    grads: Any
    aux: Any = ()
    model_update: ModelUpdate | None = None


def from_loss(
    loss_fn: Callable[..., Any], *, has_aux: bool = False, has_model_update: bool = False
) -> Callable[..., GradientResult]:
    """Builds a gradient function from a loss.

    Two calls with the same loss return equal functions, so compiled programs are reused (this does not hold for
    `jax.value_and_grad`).

    A data set in the loss's closure becomes a constant of the compiled program. Bind it with `jax.tree_util.Partial`,
    whose arrays are arguments of the program, and pass indices as batches.

    Args:
      loss_fn: `loss_fn(params, batch, ...)`; of the keywords key, event, worker and model_state it receives those that
        its signature names. Returns the loss, or with the options below `(loss, aux)`, `(loss, model_update)` or
        `(loss, (aux, model_update))`.
      has_aux: whether `loss_fn` returns auxiliary outputs.
      has_model_update: whether `loss_fn` returns a `ModelUpdate`.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.sum((w - batch) ** 2))
      >>> gradient_fn(jnp.array([2.0]), jnp.array([1.0])).grads
      Array([2.], dtype=float32)
      >>> import jax
      >>> data = jnp.arange(10.0)
      >>> loss_fn = jax.tree_util.Partial(lambda data, w, rows: jnp.mean((w - data[rows]) ** 2), data)
      >>> gradient_fn = asyncflax.from_loss(loss_fn)
      >>> jax.tree.leaves(gradient_fn)[0].shape
      (10,)
    """
    _check.function("loss_fn", loss_fn, " of (params, batch)")
    has_aux = _check.boolean("has_aux", has_aux)
    return _LossGradient(as_partial(loss_fn), has_aux, _check.boolean("has_model_update", has_model_update))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["loss_fn"], meta_fields=["has_aux", "has_model_update"]
)
@dataclasses.dataclass(frozen=True)
class _LossGradient:
    """Gradient of a loss, as a PyTree whose leaves are the arrays bound to the loss."""

    loss_fn: Callable[..., Any]
    has_aux: bool
    has_model_update: bool

    def __call__(self, read_params, batch, **context) -> GradientResult:
        has_extra = self.has_aux or self.has_model_update
        gradient = jax.value_and_grad(self.loss_fn, has_aux=has_extra)
        value, grads = gradient(read_params, batch, **_named_in(self.loss_fn, context))
        if not has_extra:
            return GradientResult(value, grads)
        loss, extra = value
        if not self.has_model_update:
            return GradientResult(loss, grads, extra)
        aux, model_update = extra if self.has_aux else ((), extra)
        return GradientResult(loss, grads, aux, model_update)


def call_gradient_fn(gradient_fn: Callable[..., Any], read_params, batch, **context) -> GradientResult:
    """Calls a gradient function of any accepted form and converts its result to a `GradientResult`."""
    result = gradient_fn(read_params, batch, **_named_in(gradient_fn, context))
    if not isinstance(result, GradientResult):
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                "gradient_fn must return a GradientResult or (loss, grads), as jax.value_and_grad does; "
                f"it returned {type(result).__name__}. Use asyncflax.from_loss(loss_fn) for a plain loss."
            )
        value, grads = result
        loss, aux = value if isinstance(value, tuple) else (value, ())
        result = GradientResult(loss, grads, aux)
    _check.like("gradients", result.grads, "the parameters", read_params)
    if jnp.shape(result.loss) != ():
        raise ValueError(f"gradient_fn must return a scalar loss, got shape {jnp.shape(result.loss)}.")
    if not isinstance(result.model_update, ModelUpdate | None):
        raise TypeError(f"model_update must be a ModelUpdate, got {type(result.model_update).__name__}.")
    if result.model_update is None:
        _check_not_reported(context.get("model_state"), result.aux)
    return result


def _check_not_reported(model_state: Any, aux: Any) -> None:
    """Rejects a new model state returned in aux, where it would never reach the server."""
    if not any(map(jnp.ndim, jax.tree.leaves(model_state))):  # scalars cannot be told apart from other outputs
        return
    types = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree)
    structure, wanted = jax.tree.structure(model_state), types(model_state)
    is_one = lambda tree: jax.tree.structure(tree) == structure and types(tree) == wanted
    if any(map(is_one, jax.tree.leaves(aux, is_leaf=is_one))):
        raise ValueError(
            "gradient_fn returns a new model_state in aux, which is reported but never reaches the server; return a "
            "ModelUpdate (from_loss(loss_fn, has_model_update=True)), or ModelUpdate(1.0, zeros) to freeze it."
        )


def _named_in(function: Any, context: dict[str, Any]) -> dict[str, Any]:
    """Entries of the context that the function's signature names, after the parameters and the batch."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[2:]
    except ValueError:  # a builtin without a signature
        return {}
    bound = function.keywords if isinstance(function, functools.partial) else {}
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = set(_CONTEXT) if everything else {p.name for p in parameters}
    return {name: value for name, value in context.items() if name in names and name not in bound}
