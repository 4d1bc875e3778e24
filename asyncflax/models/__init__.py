"""Flax NNX networks and their functional form. Needs flax (the extra `train`).

A network is called as `network(images, key=None)` with float images [n, height, width, channels], pixels 0..255 minus
their mean, and returns logits [n, num_classes]. A `key` selects training mode and seeds dropout. Networks share these
arguments:

    image_shape    (height, width, channels) of the images
    num_classes    the number of classes
    dropout        the dropout rate
    rngs           `nnx.Rngs` for the initial weights
    conv           the implementation of convolutions, see `layers.conv_by_name`; 'auto' is the fastest on JAX's backend
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from asyncflax import _check, _memory
from asyncflax.gradients import ModelUpdate
from asyncflax.models.caffenet import CaffeNet
from asyncflax.models.cifar10_quick import Cifar10Quick
from asyncflax.models.mlp import Mlp
from asyncflax.models.resnet import ResNet20
from asyncflax.models.resnet50 import ResNet50
from asyncflax.models.small_cnn import SmallCnn
from asyncflax.models.wide_resnet import WideResNet16x4

__all__ = ["CaffeNet", "Cifar10Quick", "Mlp", "ResNet20", "ResNet50", "SmallCnn", "WideResNet16x4"]
__all__ += ["count_parameters", "functional", "functional_with_state", "initialized"]


def functional(model: nnx.Module) -> tuple[Callable[..., jax.Array], Any]:
    """Splits a model into a function `apply(params, *args, **kwargs)` and its parameters, a nested dict of arrays.

    Args:
      model: an NNX model whose only state is its parameters.

    Raises:
      ValueError: the model has other state; for running statistics use `functional_with_state`.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> from asyncflax import models
      >>> apply, params = models.functional(models.Cifar10Quick(rngs=nnx.Rngs(0)))
      >>> apply(params, jnp.zeros((2, 32, 32, 3))).shape, params["dense2"]["kernel"].shape
      ((2, 10), (64, 10))
    """
    structure, state, other = nnx.split(model, nnx.Param, ...)
    if jax.tree.leaves(other):
        raise ValueError(
            f"functional needs a model whose only state is its parameters, but this one also has {_names(other)}; "
            "use functional_with_state for the running statistics of BatchNorm."
        )

    def apply(params: Any, *args: Any, **kwargs: Any) -> jax.Array:
        return nnx.merge(structure, _filled(state, params), other)(*args, **kwargs)

    return apply, nnx.to_pure_dict(state)


def functional_with_state(model: nnx.Module) -> tuple[Callable[..., tuple[jax.Array, ModelUpdate | None]], Any, Any]:
    """Splits a model, with or without BatchNorm, into a function, its parameters and its running statistics.

    In training the running statistics are zeros, which `flax.nnx.BatchNorm` replaces by (1 - m) b, the increment of a
    `ModelUpdate`. Layers created with use_running_average=True are frozen: training reads their statistics and does not
    change them.

    Args:
      model: an NNX model, called as `model(images, key=None)`: a key selects training mode; without one BatchNorm must
        use running statistics. A model without a parameter `key` is switched to evaluation by `model.eval()` instead.
        Its only state besides the parameters must be that of `flax.nnx.BatchNorm`.

    Returns:
      `apply(params, model_state, *args, key=None, **kwargs) -> (logits, update)`, where update is a `ModelUpdate` in
      training, and None in evaluation or if there is nothing to update; the parameters; and the running statistics,
      float32, or None. Both are nested dicts of arrays.

    Raises:
      ValueError: the model has other state.

    Example:
      >>> from flax import nnx
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import models
      >>> apply, params, model_state = models.functional_with_state(models.ResNet20((8, 8, 1), rngs=nnx.Rngs(0)))
      >>> training = lambda images: apply(params, model_state, images, key=jax.random.key(0))
      >>> logits, update = jax.eval_shape(training, jnp.ones((4, 8, 8, 1)))
      >>> logits.shape, update.increment["norm"]["mean"].shape
      ((4, 10), (16,))
    """
    structure, state, statistics, other = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    model_state = nnx.to_pure_dict(statistics)
    decays = _of_norms(model, lambda norm: norm.momentum)
    frozen = _of_norms(model, lambda norm: bool(norm.use_running_average))
    if jax.tree.leaves(other) or jax.tree.structure(decays) != jax.tree.structure(model_state):
        raise ValueError(
            "functional_with_state needs a model whose only state is its parameters and the statistics of "
            f"flax.nnx.BatchNorm, but this one also has {_names(other) or _names(statistics)}."
        )
    decays = jax.tree.map(lambda held, m: 1.0 if held else m, frozen, decays)
    different = set(jax.tree.leaves(decays))
    decay = different.pop() if len(different) == 1 else decays
    has_update = not all(jax.tree.leaves(frozen))
    has_key = "key" in inspect.signature(type(model).__call__).parameters
    shapes = jax.eval_shape(lambda: model_state)

    def apply(params: Any, model_state: Any, *args: Any, key: jax.Array | None = None, **kwargs: Any):
        model_state = {} if model_state is None else model_state
        _check.like("model_state", model_state, "the statistics of the model", shapes)
        updates = has_update and key is not None
        if updates:
            model_state = jax.tree.map(lambda held, x: x if held else jnp.zeros_like(x), frozen, model_state)
        called = nnx.merge(structure, _filled(state, params), _filled(statistics, model_state), other)
        if has_key:
            kwargs["key"] = key
        elif key is None:
            called.eval()
        logits = called(*args, **kwargs)
        if not updates:
            return logits, None
        left = nnx.to_pure_dict(nnx.state(called, nnx.BatchStat))
        return logits, ModelUpdate(decay, jax.tree.map(lambda held, x: jnp.zeros_like(x) if held else x, frozen, left))

    return apply, nnx.to_pure_dict(state), model_state or None


def _of_norms(model: nnx.Module, what: Callable[[nnx.BatchNorm], Any]) -> dict[str, Any]:
    """Maps each statistic of the model to a property of its BatchNorm layer."""
    found: dict[Any, Any] = {}
    for path, norm in nnx.iter_modules(model):
        if isinstance(norm, nnx.BatchNorm):
            place = functools.reduce(lambda part, name: part.setdefault(name, {}), path, found)
            place.update(mean=what(norm), var=what(norm))
    return found


def _names(state: Any) -> str:
    """The first names in a state."""
    names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _filled(state: Any, values: Any) -> Any:
    """A copy of a state with other values."""
    filled = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(filled, values)
    return filled


def initialized(network: Callable[..., nnx.Module], key: jax.Array, **arguments: Any) -> nnx.Module:
    """Constructs `network(**arguments, rngs=nnx.Rngs(key))`, drawing all weights in one compiled program.

    The weights equal those of a plain call (bitwise on CPUs unless XLA flags interfere); other keys reuse the program.

    Args:
      network: a network class whose only state is parameters and statistics.
      key: a typed JAX key for the weights.
      **arguments: hashable arguments of the network.

    Example:
      >>> import jax
      >>> from asyncflax import models
      >>> model = models.initialized(models.Mlp, jax.random.key(0), image_shape=(8, 8, 1), hidden=0)
      >>> model.dense.kernel.shape, models.count_parameters(model)
      ((64, 10), 650)
    """
    _check.function("network", network, ", such as a class of asyncflax.models")
    _check.key("key", key)
    model = nnx.eval_shape(lambda key: network(**arguments, rngs=nnx.Rngs(key)), key)
    size = 2 * _memory.num_bytes(nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    what = f"{network.__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    _memory.need("network", what, size, "its parameters", there_are=_memory.on_devices())
    nnx.update(model, _drawing(jax.default_backend())(network, tuple(arguments.items()), key))
    return model


@functools.cache
def _drawing(platform: str) -> Callable[..., Any]:
    """`(network, arguments, key) -> state`, compiled."""
    # Optimizing Threefry takes seconds per shape and it runs once. Without algsimp two constant factors stay separate.
    options = {"xla_backend_optimization_level": 1, "xla_disable_hlo_passes": "algsimp"}
    draw = lambda network, arguments, key: nnx.state(network(**dict(arguments), rngs=nnx.Rngs(key)))
    return jax.jit(draw, static_argnums=(0, 1), compiler_options=options if platform == "cpu" else None)


def count_parameters(model: nnx.Module) -> int:
    """The number of trainable parameters of a model.

    >>> from flax import nnx
    >>> from asyncflax import models
    >>> models.count_parameters(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
