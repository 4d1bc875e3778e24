"""Checks at the door: every bad argument gets one error that names it, shows its value and says what to do.

Only concrete values are checked. A traced value (inside `jax.jit`, `jax.vmap`, ...) has none to look at and passes.
"""

from __future__ import annotations

import difflib
import operator
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

LARGEST = 2**31 - 1  # of int32, in which traces, plans and counters are kept


def is_traced(value: Any) -> bool:
    """True for a value that only exists while JAX traces a function."""
    return isinstance(value, Tracer)


def shown(value: Any) -> str:
    """How a message shows a value: on one line, and not all of a long one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_array(value: Any) -> bool:
    """True for what JAX takes as an array: arrays of JAX and NumPy, traced values, numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind not in "OSUMm"  # objects, text, dates
    return isinstance(value, jax.Array | bool | int | float | complex) or hasattr(value, "__jax_array__")


def is_leaf(value: Any) -> bool:
    """True for what JAX puts into a field of a PyTree: an array, a traced value, or a placeholder of its own."""
    return not isinstance(value, np.generic | bool | int | float | complex | str | bytes | list | tuple | dict | set)


def integer(name: str, value: Any, minimum: int, maximum: int | None = LARGEST) -> int:
    """`value` as an int that is at least `minimum` and at most `maximum`; None is for what is never an int32."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be a concrete integer, got {shown(value)} ({type(value).__name__}){_as_static(name, value)}."
        ) from None
    if isinstance(value, bool) or _kind(value) == "b" or number < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {name}={shown(value)}.")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {name}={shown(value)}.")
    return number


def integers(name: str, values: Any, minimum: int) -> list[int]:
    """A list of integers, each at least `minimum`; text is none."""
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    if not is_list or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"{name} must be a list of integers, got {shown(values)}.")
    return [integer(name, value, minimum) for value in values]


def _as_static(name: str, value: Any) -> str:
    """How a wrapper that traces arguments is told not to; nothing for a value that is not traced."""
    return f"; under optax.inject_hyperparams pass static_args=({name!r},)" if is_traced(value) else ""


def boolean(name: str, value: Any) -> bool:
    """`value` as a bool; a text such as 'False', which Python takes for true, is refused, and so is a number."""
    if is_traced(value) or np.ndim(value) != 0 or not (isinstance(value, bool) or _kind(value) == "b"):
        raise TypeError(
            f"{name} must be True or False, got {shown(value)} ({type(value).__name__}){_as_static(name, value)}."
        )
    return bool(value)


def number(
    name: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    exclusive_low: bool = False,
    exclusive_high: bool = False,
    hint: str = "",
) -> None:
    """Refuses numbers (or arrays of them) that are not finite or not in [low, high], whose ends may be excluded."""
    if is_traced(value):
        return
    values = numbers(name, value)
    below = values <= low if exclusive_low else values < low
    above = values >= high if exclusive_high else values > high
    if not np.all(np.isfinite(values)) or np.any(below) or np.any(above):
        interval = f"{'(' if exclusive_low else '['}{low:g}, {high:g}{')' if exclusive_high else ']'}"
        raise ValueError(f"{name} must be finite and in {interval}, got {name}={shown(value)}.{hint}")


def numbers(name: str, value: Any, what: str = "a number") -> np.ndarray:
    """A real number, an array or a list of them as float64; text, truth values and objects are none."""
    try:
        if _are_numbers(value):
            return np.asarray(value, dtype=np.float64)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got {name}={shown(value)}.") from None
    except (TypeError, ValueError):  # lists of different lengths
        pass
    raise TypeError(f"{name} must be {what}, got {shown(value)} ({type(value).__name__}).")


def _are_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple | range):
        return isinstance(value, range) or all(map(_are_numbers, value))
    if isinstance(value, bool) or is_traced(value):
        return False
    return isinstance(value, int | float) or _kind(value) in ("i", "u", "f")


def _kind(value: Any) -> str:
    """Of an array or a scalar of NumPy or JAX: 'b' for truth values, 'i', 'u' or 'f' for numbers; '' of all else."""
    if isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__jax_array__"):
        dtype = value.dtype
        return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind  # bfloat16 has a kind of its own in NumPy
    return ""


def scalar(name: str, value: Any, **bounds: Any) -> float:
    """`value` as a float, concrete and single, within the bounds of `number`."""
    if is_traced(value) or isinstance(value, list | tuple | range) or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a single concrete number, got {shown(value)}.")
    number(name, value, **bounds)
    return float(value)


def minutes(name: str, value: Any) -> None:
    """Refuses what is no time: infinity is one."""
    if isinstance(value, float) and value == np.inf:
        return
    scalar(name, value, low=0.0)


def instance(name: str, value: Any, kind: type, hint: str) -> None:
    """Refuses what is not of a class; the hint says what to pass."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {hint}, got {shown(value)} ({type(value).__name__}).")


def path(name: str, value: Any) -> pathlib.Path:
    """`value`, a text or a path, as a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {shown(value)} ({type(value).__name__}).")
    return pathlib.Path(value)


GRADIENT = ", such as jax.value_and_grad(loss_fn)"


def function(name: str, value: Any, hint: str = "") -> None:
    """Refuses what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function{hint}, got {shown(value)} ({type(value).__name__}).")


def momentum(value: Any, name: str = "momentum") -> None:
    """Refuses |momentum| > 1; exactly 1 is allowed (the ImageNet grid of Mitliagkas et al. has it)."""
    number(name, value, low=-1.0, high=1.0, hint=" Beyond it the velocity grows without any gradient.")


def learning_rate(value: Any) -> None:
    """Accepts a schedule (a callable of the number of updates) or a non-negative number."""
    if not callable(value):
        number("learning_rate", value, low=0.0)


def choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses what is not one of the named options."""
    if not isinstance(value, str) or value not in choices:
        hint = nearest(value, choices)
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}{hint}")


def nearest(value: Any, choices: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: '; did you mean ...?', or a full stop."""
    names = difflib.get_close_matches(str(value), choices, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else "."


def like(name: str, tree: Any, other_name: str, other: Any) -> None:
    """Refuses a PyTree whose structure or shapes are not those of another."""
    have, want = jax.tree.structure(tree), jax.tree.structure(other)
    if have != want:
        raise ValueError(f"{name} must have the structure of {other_name}, {want}; got {have}.")
    for (path, leaf), twin in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        if _shape(leaf) != _shape(twin):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must have the shape of {other_name}, {_shape(twin)}; "
                f"got {_shape(leaf)}."
            )


_TRAINED = "of a module pass nnx.state(model, nnx.Param) or equinox.filter(model, equinox.is_inexact_array)."


def arrays(name: str, tree: Any, hint: str = _TRAINED) -> None:
    """Refuses a PyTree in which a leaf is no array; the hint says what to do."""
    if any(kind.__module__.startswith("flax.nnx") and kind.__name__ == "Module" for kind in type(tree).__mro__):
        raise TypeError(f"{name} must be a PyTree of arrays, got the NNX module {type(tree).__name__}; {hint}")
    for path, leaf in _leaves(tree):
        if not is_array(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct):
            path = name + jax.tree_util.keystr(path)
            raise TypeError(f"{path} must be an array, got {shown(leaf)} ({type(leaf).__name__}); {hint}")


def parameters(name: str, tree: Any) -> None:
    """Refuses a PyTree that is not one of real floating arrays, or has none."""
    arrays(name, tree)
    leaves = _leaves(tree)
    if not leaves:
        raise TypeError(f"{name} must be a PyTree of floating arrays, got {shown(tree)}, which has none.")
    for path, leaf in leaves:
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating):
            continue
        what = f"{dtype}{list(_shape(leaf))}" if hasattr(leaf, "dtype") else shown(leaf)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            why = (
                "JAX's gradient of a real loss is the conjugate of the direction in which it grows, along which a "
                "method would go wrong; pass real and imaginary part as two real leaves."
            )
        else:
            why = "write numbers as floats; what gradients do not train belongs in model_state or in the batches."
        raise TypeError(f"{name}{jax.tree_util.keystr(path)} must be real and floating, got {what}; {why}")


def real(name: str, tree: Any) -> None:
    """Refuses complex leaves, for rules that compare or multiply numbers as real ones."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.numpy.iscomplexobj(leaf):
            where = f"{jax.numpy.result_type(leaf)} at params{jax.tree_util.keystr(path)}"
            raise TypeError(f"{name} needs real parameters, got {where}; make real and imaginary parts two leaves.")


_STACK = "stack them, jax.tree.map(lambda *rows: numpy.stack(rows), *batches)."


def rows(name: str, tree: Any, count: int) -> None:
    """Refuses a PyTree in which a leaf's leading axis is not `count` long."""
    for path, leaf in _leaves(tree):
        if not is_array(leaf) and not hasattr(leaf, "shape"):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)} must be an array with one row for each of the {count} events, got "
                f"{shown(leaf)} ({type(leaf).__name__}); if it yields batches, {_STACK}"
            )
        shape = _shape(leaf)
        if shape[:1] == (count,):
            continue
        if isinstance(tree, list | tuple) and len(tree) == count > 1:
            raise ValueError(
                f"{name} must be arrays with one row for each of the {count} events, got a {type(tree).__name__} of "
                f"{count} batches; {_STACK}"
            )
        path = name + jax.tree_util.keystr(path)
        raise ValueError(f"{path} must have one row for each of the {count} events, its shape is {shape}.")


def key(name: str, value: Any) -> None:
    """Refuses what is not one typed key."""
    is_key = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not is_key or value.ndim > 0:
        raise TypeError(f"{name} must be one typed key as jax.random.key makes it, got {shown(value)}.")


def batchable(name: str, key: jax.Array, advice: str = "take jax.random.key(seed, impl='threefry2x32')") -> None:
    """Refuses a key whose numbers depend on what is computed together, as under `jax.vmap`."""
    kind = str(jax.random.key_impl(key))
    if "rbg" in kind:
        raise ValueError(f"{name} is of the kind {kind}, whose numbers depend on what is computed together; {advice}.")


def unbatched(name: str, key: jax.Array) -> jax.Array:
    """The key; `jax.vmap` over it is refused if it is of a kind that gives other numbers there."""
    if "rbg" not in str(jax.random.key_impl(key)):
        return key

    @jax.custom_batching.custom_vmap
    def alone(key):
        return key

    @alone.def_vmap
    def refuse(size, batched, key):
        batchable(f"{name}, which jax.vmap batches,", key)
        return key, batched[0]

    return alone(key)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    """Leaves with their paths; an iterator is one, which JAX is about to refuse otherwise."""
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, Iterator))


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)
