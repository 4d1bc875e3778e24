"""The method of a run: the one that `config.algorithm` names, wrapped with schedule, clipping, decay and average.

    gradient -> clip_norm -> weight decay -> bias_multiplier -> method(schedule of learning_rate, momentum) -> ema_decay

Weight decay is the method's own unless `decay_mask` or `bias_multiplier` is set. In all functions, `numbers` overrides
hyperparameters of the `config`, by the name of a field ('momentum') or of a method's option ('algorithm.strength');
they may be traced, so that `jax.vmap` runs a grid.

Example:
  >>> import jax.numpy as jnp
  >>> from asyncflax.train import TrainConfig, method
  >>> method.make_algorithm(TrainConfig(algorithm="asgd", learning_rate=0.5))
  asgd(decay_at='read', learning_rate=0.5, weight_decay=0.0)
  >>> float(method.learning_rates(TrainConfig(schedule="linear", num_updates=100, learning_rate=0.5))(50))
  0.25
  >>> method.of_gradients(TrainConfig()) is None, method.of_gradients(TrainConfig(clip_norm=1.0)) is None
  (True, False)

  >>> config = TrainConfig(algorithm="optax.sgd(momentum=0.5)", ema_decay=0.99)
  >>> method.is_of_optax(config), method.explicit_momentum(config)
  (True, 0.5)
  >>> method.can_trace(config, "algorithm.momentum"), method.can_trace(config, "algorithm.nesterov")
  (True, False)
  >>> params = jnp.ones(2)
  >>> state = method.make_algorithm(config).init(params)
  >>> method.steered_momentum(state), method.averaged(state, params).shape
  (None, (2,))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asyncflax import transforms
from asyncflax.base import AsyncAlgorithm, from_optax, transform_gradients, transform_updates
from asyncflax.train.config import GIVEN, TrainConfig
from asyncflax.train.options import Spec
from asyncflax.train.schedules import Schedule, make_schedule

__all__ = [
    "NUMBERS",
    "OPTION",
    "averaged",
    "can_trace",
    "explicit_momentum",
    "is_of_optax",
    "learning_rates",
    "make_algorithm",
    "of_gradients",
    "steered_momentum",
]

NUMBERS = (*GIVEN, "bias_multiplier", "clip_norm")  # fields that may be traced
OPTION = "algorithm."  # prefix of a method's own hyperparameters


def make_algorithm(config: TrainConfig, numbers: Mapping[str, Any] | None = None) -> AsyncAlgorithm:
    """Builds the method that a config names: one of the library, one of your own, or an Optax transformation.

    A factory of your own receives those of learning_rate, momentum, num_workers and weight_decay that it has as
    parameters. If it returns an Optax transformation, momentum and weight decay are its own options, and the config's
    must be 0; its parameter learning_rate receives the config's schedule (`optax.inject_hyperparams`), and a parameter
    mask that of `config.decay_mask`.

    Raises:
      TypeError, ValueError: an option of the method is invalid, or a field does not apply to it.
    """
    numbers = numbers or {}
    value = lambda name: numbers.get(name, getattr(config, name))
    options = {name.removeprefix(OPTION): x for name, x in numbers.items() if name.startswith(OPTION)}
    spec = config.named.algorithm
    spec = dataclasses.replace(spec, options={**spec.options, **options})
    outside = _decays_outside(config, numbers)
    given = {
        "learning_rate": _of_method(config, value("learning_rate")),
        "momentum": value("momentum"),
        "num_workers": config.num_workers,
        "weight_decay": 0.0 if outside else value("weight_decay"),
    }
    mask = {} if config.decay_mask == "all" else {"mask": _is_weight}
    made = (spec.without("decay_at") if outside else spec).make(**given, **mask)
    if isinstance(made, AsyncAlgorithm):
        _check_fields(config, spec, given)
        algorithm = made
    else:
        algorithm = _of_optax(config, spec, given["learning_rate"], mask)
    change = of_gradients(config, numbers)
    algorithm = algorithm if change is None else transform_gradients(change, algorithm)
    if config.ema_decay == 0:
        return algorithm
    return transform_updates(algorithm, transforms.average_params(config.ema_decay))


def can_trace(config: TrainConfig, name: str) -> bool:
    """Whether a hyperparameter may be traced; False if an optimizer branches on its value.

    Args:
      config: the checked config.
      name: a key of `numbers`.
    """
    if name in NUMBERS and not config.named.algorithm.imported:
        return True
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}

    def works(numbers):
        try:
            jax.eval_shape(lambda numbers: one_event(make_algorithm(config, numbers), params), numbers)
        except Exception:  # of any type, since the optimizer may be imported
            return False
        return True

    return works({name: jnp.float32(0)}) or not works({})  # fails for another reason


def one_event(algorithm: AsyncAlgorithm, params: Any) -> Any:
    """Computes the updates of a method's first event, to be traced, so that its errors are raised early.

    Args:
      algorithm: the method.
      params: a PyTree of arrays, also used as gradients.
    """
    event = {"worker": jnp.int32(0), "staleness": jnp.int32(0), "read_params": params, "value": jnp.float32(0)}
    updates, state = algorithm.update(params, algorithm.init(params), params, **event)
    algorithm.view(params, state, worker=event["worker"])
    return updates


def of_gradients(
    config: TrainConfig, numbers: Mapping[str, Any] | None = None, *, decay_of_method: bool = False
) -> optax.GradientTransformationExtraArgs | None:
    """The transformation of gradients before the method; None if there is none.

    Args:
      config: the config, of which clip_norm, weight_decay, decay_mask and bias_multiplier are used.
      numbers: see the module.
      decay_of_method: whether to include weight decay that the method applies itself, as its first step.
    """
    numbers = numbers or {}
    value = lambda name: numbers.get(name, getattr(config, name))
    parts = []
    if "clip_norm" in numbers or config.clip_norm > 0:
        norm = jnp.asarray(value("clip_norm"))
        parts.append(optax.clip_by_global_norm(jnp.where(norm > 0, norm, jnp.inf)))  # type: ignore[arg-type]
    if _decays_outside(config, numbers) or (decay_of_method and config.weight_decay > 0):
        decay = transforms.decay_weights(value("weight_decay"), at=config.named.algorithm.option("decay_at", "read"))
        parts.append(decay if config.decay_mask == "all" else optax.masked(decay, _is_weight))
    if "bias_multiplier" in numbers or config.bias_multiplier != 1.0:
        parts.append(optax.masked(optax.scale(value("bias_multiplier")), _is_bias))
    return optax.chain(*parts) if parts else None


def learning_rates(config: TrainConfig, learning_rate: Any = None) -> Schedule:
    """The learning rate as a function of the server's updates; constant within each round of synchronous SGD.

    Args:
      config: the config of the run.
      learning_rate: a replacement for the config's, which may be traced.

    Raises:
      TypeError, ValueError: an option of the schedule is invalid.
    """
    learning_rate = config.learning_rate if learning_rate is None else learning_rate
    run_length = {"num_updates": config.num_updates, "num_workers": config.num_workers}
    schedule, events = make_schedule(config.named.schedule, learning_rate, **run_length), _events_of_a_step(config)
    return schedule if events == 1 else lambda update: schedule(update // events * events)


def explicit_momentum(config: TrainConfig) -> float:
    """The explicit momentum mu_L of a method with constant momentum; 0 for none.

    It is a field of the config, or an option of an Optax optimizer.
    """
    if not is_of_optax(config):
        return config.momentum
    own = config.named.algorithm.option("momentum")
    return float(own) if isinstance(own, int | float) else 0.0


def steered_momentum(algorithm_state: Any) -> jax.Array | None:
    """Explicit momentum mu_L, float [], if it changes; the mean if there are several, None if there is none.

    Methods that choose it store it as explicit_momentum in `algorithm_state`; `optax.inject_hyperparams` stores a
    scheduled one.
    """
    chosen = optax.tree.get_all_with_path(algorithm_state, "explicit_momentum")
    named = optax.tree.get_all_with_path(algorithm_state, "momentum")
    injected = [(path, value) for path, value in named if getattr(path[-2:][0], "name", "") == "hyperparams"]
    found = [jnp.ravel(value) for _, value in (*chosen, *injected)]
    return jnp.mean(jnp.concatenate(found)) if found else None


def averaged(algorithm_state: Any, params: Any) -> Any:
    """The moving average of the parameters, in their dtypes.

    Args:
      algorithm_state: the state of a method from `make_algorithm`, with an `ema_decay` above 0.
      params: the server's parameters, for structure and dtypes.
    """
    average = optax.tree.get(algorithm_state, "params_average")
    return jax.tree.map(lambda mean, w: mean.astype(w.dtype), average, params)


def is_of_optax(config: TrainConfig) -> bool:
    """Whether the method is an Optax transformation, or a function that returns one.

    Such a method takes momentum and weight decay as options of its own.
    """
    given = {name: getattr(config, name) for name in (*GIVEN, "num_workers")}
    return config.named.algorithm.imported and not isinstance(config.named.algorithm.make(**given), AsyncAlgorithm)


def _of_method(config: TrainConfig, learning_rate: Any) -> Any:
    """The learning rate as the method takes it: a number, or a schedule of the method's own steps."""
    spec, events = config.named.schedule, _events_of_a_step(config)
    if spec.name == "constant" and not spec.options:
        return learning_rate
    schedule = learning_rates(config, learning_rate)
    return schedule if events == 1 else lambda step: schedule(step * events)


def _events_of_a_step(config: TrainConfig) -> int:
    return config.num_workers if config.named.algorithm.name == "ssgd" else 1


def _decays_outside(config: TrainConfig, numbers: Mapping[str, Any]) -> bool:
    """Whether weight decay is a separate link before the method."""
    some = config.bias_multiplier != 1.0 or "bias_multiplier" in numbers or config.decay_mask != "all"
    return some and not (config.named.algorithm.imported and is_of_optax(config))


def _check_fields(config: TrainConfig, spec: Spec, given: Mapping[str, Any]) -> None:
    """Raises if the config sets a parameter that the method lacks, or an option sets a field of the config."""
    for name in ("momentum", "weight_decay"):
        if getattr(config, name) and not spec.accepts(name):
            what = name.replace("_", " ")
            raise ValueError(f"config.{name}={getattr(config, name)}, but {spec.name} has no {what}; set it to 0.")
    for name in spec.options.keys() & given.keys():
        raise ValueError(f"{spec.field}: {name} of {spec.name} is set by a field of its own, got '{spec}'.")


def _of_optax(config: TrainConfig, spec: Spec, learning_rate: Any, mask: Mapping[str, Any]) -> AsyncAlgorithm:
    """Wraps an Optax transformation as a method; fields that do not apply to it must have their defaults."""
    for name, nothing in (("momentum", 0), ("weight_decay", 0), ("bias_multiplier", 1)):
        if getattr(config, name) != nothing:
            raise ValueError(
                f"config.{name}={getattr(config, name)}, but {spec.name} is an Optax transformation; set it to "
                f"{nothing}, and use the options of {spec.name}."
            )
    if mask and not spec.accepts("mask"):
        raise ValueError(f"config.decay_mask={config.decay_mask!r}, but {spec.name} has no mask; set it to 'all'.")
    if not spec.accepts("learning_rate"):
        raise ValueError(
            f"{spec.field}: {spec.name} has no learning_rate, so it cannot follow config.schedule; write a function "
            f"that returns optax.chain({spec.name}(...), optax.scale_by_learning_rate(learning_rate))."
        )
    make = lambda learning_rate: spec.make(learning_rate=learning_rate, num_workers=config.num_workers, **mask)
    return from_optax(optax.inject_hyperparams(make)(learning_rate=learning_rate))


def _is_bias(params: Any) -> Any:
    """Marks the leaves that are biases, by their names."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "bias", params)


def _is_weight(params: Any) -> Any:
    """Marks the leaves that are neither biases nor normalization parameters: those with at least two dimensions."""
    return jax.tree.map(lambda x: jnp.ndim(x) >= 2, params)
