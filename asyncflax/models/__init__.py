"""Networks in Flax NNX, and what makes functions of them. Needs flax (the extra `train`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from asyncflax.models.cifar10_quick import Cifar10Quick
from asyncflax.models.mlp import Mlp
from asyncflax.models.small_cnn import SmallCnn

__all__ = ["Cifar10Quick", "Mlp", "SmallCnn", "count_parameters", "functional"]


def functional(model: nnx.Module) -> tuple[Callable[..., jax.Array], Any]:
    """A model as a pure function and its parameters, a nested dict of arrays.

    Args:
      model: an NNX model whose only state are parameters.

    Returns:
      `apply(params, *args, **kwargs)`, which calls the model with these parameters; and the model's parameters.

    Raises:
      ValueError: the model has other state, such as running statistics.

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
        raise ValueError(f"functional needs a model whose only state are parameters, it also has {other}.")
    params = nnx.to_pure_dict(state)

    def apply(params: Any, *args: Any, **kwargs: Any) -> jax.Array:
        filled = jax.tree.map(lambda leaf: leaf, state)  # a container of its own
        nnx.replace_by_pure_dict(filled, params)
        return nnx.merge(structure, filled, other)(*args, **kwargs)

    return apply, params


def count_parameters(model: nnx.Module) -> int:
    """How many numbers a model trains.

    >>> from flax import nnx
    >>> from asyncflax import models
    >>> models.count_parameters(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
