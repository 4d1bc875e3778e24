"""What a worker computes: the gradient function and its result.

    gradient_fn(read_params, batch, *, key, event, worker, model_state) -> GradientResult

Of the four keywords a gradient function receives those that its signature names (all, if it has **kwargs), so that
`jax.value_and_grad(loss_fn)` is one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_CONTEXT = ("key", "event", "worker", "model_state")


class ModelUpdate(NamedTuple):
    """What an event does to model state that gradients do not train: `decay * model_state + increment`.

    The server applies it in event order, whatever the width of the rounds. Running BatchNorm statistics with momentum m
    and batch statistics b: decay m, increment (1 - m) b. A counter: decay 1, increment 1.

    Attributes:
      decay: a number, or a PyTree like model_state.
      increment: PyTree like model_state.

    Example:
      >>> import asyncflax
      >>> count_events = asyncflax.ModelUpdate(decay=1, increment=1)
    """

    decay: Any
    increment: Any

    def apply(self, model_state: Any) -> Any:
        """The server's new model state, in the dtypes of the old.

        >>> import asyncflax, jax.numpy as jnp
        >>> asyncflax.ModelUpdate(0.9, {"mean": 0.1 * jnp.ones(2)}).apply({"mean": jnp.zeros(2)})
        {'mean': Array([0.1, 0.1], dtype=float32)}
        """
        decay = self.decay
        if jax.tree.structure(decay) != jax.tree.structure(model_state):
            decay = jax.tree.map(lambda _: self.decay, model_state)
        return jax.tree.map(
            lambda s, d, i: (d * s + i).astype(jnp.asarray(s).dtype), model_state, decay, self.increment
        )


class GradientResult(NamedTuple):
    """What one event computes at the parameters it read.

    Attributes:
      loss: [], the loss on the batch.
      grads: PyTree like the parameters.
      aux: PyTree of arrays to be reported for the event (accuracy, ...); the same structure for every event.
      model_update: a `ModelUpdate`, or None.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> def noisy_gradient(params, batch, *, key, event, worker, model_state):
      ...     noise = jax.random.normal(key, params.shape)
      ...     return asyncflax.GradientResult(loss=jnp.sum(params**2), grads=2 * params + noise, aux={"noise": noise})
      >>> trace = asyncflax.staleness.constant(1).trace(num_updates=5)
      >>> result = asyncflax.run(asyncflax.algorithms.asgd(0.1), noisy_gradient, jnp.ones(3), trace, jnp.zeros(5))
      >>> result.aux["noise"].shape
      (5, 3)
    """

    loss: Any
    grads: Any
    aux: Any = ()
    model_update: ModelUpdate | None = None


def from_loss(
    loss_fn: Callable[..., Any], *, has_aux: bool = False, has_model_update: bool = False
) -> Callable[..., GradientResult]:
    """The gradient function of a loss.

    Two calls with the same loss give equal functions, so that compiled programs are found again (two calls of
    `jax.value_and_grad` do not).

    Args:
      loss_fn: `loss_fn(params, batch, ...)`; of the keywords key, event, worker and model_state it receives those that
        its signature names. It returns the loss, or with the options below `(loss, aux)`, `(loss, model_update)` or
        `(loss, (aux, model_update))`.
      has_aux: it returns something to report.
      has_model_update: it returns a `ModelUpdate`.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> gradient_fn = asyncflax.from_loss(lambda w, batch: jnp.sum((w - batch) ** 2))
      >>> gradient_fn(jnp.array([2.0]), jnp.array([1.0])).grads
      Array([2.], dtype=float32)
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function of (params, batch), got {loss_fn!r}.")
    return _LossGradient(loss_fn, has_aux, has_model_update)


@dataclasses.dataclass(frozen=True)
class _LossGradient:
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
    """Calls a gradient function of any accepted form and gives its result the full form."""
    result = gradient_fn(read_params, batch, **_named_in(gradient_fn, context))
    if not isinstance(result, GradientResult):
        try:
            value, grads = result
        except (TypeError, ValueError):
            raise TypeError(
                "gradient_fn must return a GradientResult or (loss, grads), as jax.value_and_grad does; "
                f"it returned {type(result).__name__}. A plain loss is lifted by asyncflax.from_loss(loss_fn)."
            ) from None
        loss, aux = value if isinstance(value, tuple) else (value, ())
        result = GradientResult(loss, grads, aux)
    if jax.tree.structure(result.grads) != jax.tree.structure(read_params):
        raise ValueError(
            "gradient_fn must return gradients like the parameters, "
            f"{jax.tree.structure(read_params)}; it returned {jax.tree.structure(result.grads)}."
        )
    if jnp.shape(result.loss) != ():
        raise ValueError(f"gradient_fn must return one loss an event, got shape {jnp.shape(result.loss)}.")
    return result


def _named_in(function: Any, context: dict[str, Any]) -> dict[str, Any]:
    """The part of the context that the function's signature names."""
    if isinstance(function, jax.tree_util.Partial):
        function = function.func
    if isinstance(function, _LossGradient):
        return context
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin without a signature
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return context
    names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY} & set(_CONTEXT)
    return {name: value for name, value in context.items() if name in names}
