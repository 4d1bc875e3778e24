"""The extra arguments of updates: trees that match the updates inside of Optax's wrappers."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asyncflax import _check


def given(block: str, name: str, value: Any) -> Any:
    """The argument of an update; raises if it is missing."""
    if value is None and name == "params":
        raise ValueError(f"{block} needs params; call update(updates, state, params).")
    if value is None:
        raise ValueError(
            f"{block} needs {name} in update(...); pass it by keyword. A wrapper that forwards no extra arguments "
            "drops it (convert optax.MultiSteps with optax.GradientTransformationExtraArgs(steps.init, steps.update)), "
            "and a loop without events has none (use transforms.with_delay)."
        )
    return value


def worker_of(block: str, worker: Any, num_workers: int) -> Any:
    """The id of the worker, checked if concrete."""
    given(block, "worker", worker)
    if not _check.is_traced(worker):
        _check.integer("worker", worker, 0, num_workers - 1)
    return worker


def matching(block: str, name: str, tree: Any, updates: Any) -> Any:
    """A PyTree like the parameters, masked like the updates, or one vector if `optax.flatten` made them one."""
    given(block, name, tree)
    if _is_raveled(updates, tree):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    try:
        tree = jax.tree.map(lambda u, x: u if is_masked(u) else x, updates, tree, is_leaf=is_masked)
    except ValueError:
        have, want = jax.tree.structure(tree), jax.tree.structure(updates)
        raise ValueError(f"{block} needs {name} with the structure of the updates, {want}; got {have}.") from None
    _check.like(name, tree, "the updates", updates)
    return tree


def is_masked(x: Any) -> bool:
    """Whether a mask hides this part of a tree."""
    return isinstance(x, optax.MaskedNode)


def _is_raveled(updates: Any, tree: Any) -> bool:
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(updates)) or jnp.ndim(updates) != 1:
        return False
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return shapes != [jnp.shape(updates)] and sum(map(math.prod, shapes)) == jnp.size(updates)
