"""Argument checks: each raises a TypeError or ValueError that names the argument, its value and what to do.

Traced values (inside `jax.jit`, `jax.vmap`, ...) pass unchecked.
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

LARGEST = 2**31 - 1  # the int32 maximum; traces, plans and counters are int32


def is_traced(value: Any) -> bool:
    """Whether a value only exists while JAX traces a function."""
    return isinstance(value, Tracer)


def shown(value: Any) -> str:
    """The value as shown in a message: on one line, truncated."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_array(value: Any) -> bool:
    """True for array-likes of JAX: arrays of JAX and NumPy, traced values, numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind not in "OSUMm"  # objects, strings, dates
    return isinstance(value, jax.Array | bool | int | float | complex) or hasattr(value, "__jax_array__")


def is_leaf(value: Any) -> bool:
    """True for what JAX puts into a PyTree field: an array, a traced value, or a placeholder."""
    return not isinstance(value, np.generic | bool | int | float | complex | str | bytes | list | tuple | dict | set)


def integer(name: str, value: Any, minimum: int, maximum: int | None = LARGEST) -> int:
    """`value` as an int in minimum..maximum; None means no maximum, for values that never become int32."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a concrete integer, got {_typed(name, value)}.") from None
    if isinstance(value, bool) or _kind(value) == "b" or number < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {name}={shown(value)}.")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {name}={shown(value)}.")
    return number


def integers(name: str, values: Any, minimum: int) -> list[int]:
    """A list of integers, each at least `minimum`."""
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    if not is_list or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"{name} must be a list of integers, got {shown(values)}.")
    return [integer(name, value, minimum) for value in values]


def _typed(name: str, value: Any) -> str:
    """The value with its type; for a traced one, how to keep Optax from tracing it."""
    hint = f"; under optax.inject_hyperparams pass static_args=({name!r},)" if is_traced(value) else ""
    return f"{shown(value)} ({type(value).__name__}){hint}"


def boolean(name: str, value: Any) -> bool:
    """`value` as a bool; rejects numbers and strings such as 'False', which is truthy."""
    if is_traced(value) or np.ndim(value) != 0 or not (isinstance(value, bool) or _kind(value) == "b"):
        raise TypeError(f"{name} must be True or False, got {_typed(name, value)}.")
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
    """Raises unless a number, or an array of them, is finite and in [low, high]; the ends may be exclusive."""
    if is_traced(value):
        return
    values = numbers(name, value)
    below = values <= low if exclusive_low else values < low
    above = values >= high if exclusive_high else values > high
    if not np.all(np.isfinite(values)) or np.any(below) or np.any(above):
        interval = f"{'(' if exclusive_low else '['}{low:g}, {high:g}{')' if exclusive_high else ']'}"
        raise ValueError(f"{name} must be finite and in {interval}, got {name}={shown(value)}.{hint}")


def numbers(name: str, value: Any, what: str = "a number") -> np.ndarray:
    """A real number, or an array or list of them, as float64; rejects strings, bools and objects."""
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
    """The dtype kind of an array or scalar of NumPy or JAX, such as 'b', 'i', 'u' or 'f'; '' for anything else."""
    if isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__jax_array__"):
        dtype = value.dtype
        return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind  # bfloat16 has a kind of its own in NumPy
    return ""


def scalar(name: str, value: Any, **bounds: Any) -> float:
    """`value` as a single concrete float, within the bounds of `number`."""
    if is_traced(value) or isinstance(value, list | tuple | range) or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a single concrete number, got {shown(value)}.")
    number(name, value, **bounds)
    return float(value)


def minutes(name: str, value: Any) -> None:
    """Raises unless the value is a non-negative time; infinity is allowed."""
    if isinstance(value, float) and value == np.inf:
        return
    scalar(name, value, low=0.0)


def instance(name: str, value: Any, kind: type, hint: str) -> None:
    """Raises unless the value is an instance; the hint says what to pass."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {hint}, got {shown(value)} ({type(value).__name__}).")


def path(name: str, value: Any) -> pathlib.Path:
    """`value`, a str or a path, as a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {shown(value)} ({type(value).__name__}).")
    return pathlib.Path(value)


GRADIENT = ", such as jax.value_and_grad(loss_fn)"
METHOD = "an AsyncAlgorithm (asyncflax.from_optax lifts an Optax optimizer)"


def function(name: str, value: Any, hint: str = "") -> None:
    """Raises unless the value is callable."""
    if not callable(value):
        raise TypeError(f"{name} must be a function{hint}, got {shown(value)} ({type(value).__name__}).")


def momentum(value: Any, name: str = "momentum") -> None:
    """Raises if |momentum| > 1; exactly 1 is allowed (as in the ImageNet grid of Mitliagkas et al.)."""
    number(name, value, low=-1.0, high=1.0, hint=" Beyond that the velocity grows without bound.")


def learning_rate(value: Any) -> None:
    """Raises unless the value is a schedule (a callable of the number of updates) or a non-negative number."""
    if not callable(value):
        number("learning_rate", value, low=0.0)


def choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises unless the value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        hint = nearest(value, choices)
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}{hint}")


def nearest(value: Any, choices: Sequence[str]) -> str:
    """The end of a message about an unknown name: '; did you mean ...?', or a full stop."""
    names = difflib.get_close_matches(str(value), choices, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else "."


def like(name: str, tree: Any, other_name: str, other: Any) -> None:
    """Raises unless a PyTree has the structure and shapes of another."""
    have, want = jax.tree.structure(tree), jax.tree.structure(other)
    if have != want:
        raise ValueError(f"{name} must have the structure of {other_name}, {want}; got {have}.")
    for (path, leaf), twin in zip(_leaves(name, tree), jax.tree.leaves(other), strict=True):
        if _shape(leaf) != _shape(twin):
            raise ValueError(f"{path} must have the shape of {other_name}, {_shape(twin)}; got {_shape(leaf)}.")


_TRAINED = "for a module, pass nnx.state(model, nnx.Param) or equinox.filter(model, equinox.is_inexact_array)."


def arrays(name: str, tree: Any, hint: str = _TRAINED) -> None:
    """Raises unless all leaves of a PyTree are arrays; the hint says what to do."""
    if any(kind.__module__.startswith("flax.nnx") and kind.__name__ == "Module" for kind in type(tree).__mro__):
        raise TypeError(f"{name} must be a PyTree of arrays, got the NNX module {type(tree).__name__}; {hint}")
    for path, leaf in _leaves(name, tree):
        if not is_array(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(f"{path} must be an array, got {shown(leaf)} ({type(leaf).__name__}); {hint}")


def parameters(name: str, tree: Any) -> None:
    """Raises unless a PyTree has leaves and all are real floating arrays."""
    arrays(name, tree)
    leaves = _leaves(name, tree)
    if not leaves:
        raise TypeError(f"{name} must be a PyTree of floating arrays, got {shown(tree)}, which has no leaves.")
    for path, leaf in leaves:
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating):
            continue
        what = f"{dtype}{list(_shape(leaf))}" if hasattr(leaf, "dtype") else shown(leaf)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            why = (
                "JAX's gradient of a real loss is the conjugate of the ascent direction, so updates would point the "
                "wrong way; pass real and imaginary parts as two real leaves."
            )
        else:
            why = "convert it to float, or move non-trainable values to model_state or the batches."
        raise TypeError(f"{path} must be real and floating, got {what}; {why}")


def real(name: str, tree: Any) -> None:
    """Raises for complex leaves, for rules that need real numbers."""
    for path, leaf in _leaves("params", tree):
        if jnp.iscomplexobj(leaf):
            where = f"{jnp.result_type(leaf)} at {path}"
            raise TypeError(f"{name} needs real parameters, got {where}; pass real and imaginary parts as two leaves.")


def rows(name: str, tree: Any, count: int, *, at_least: bool = False, of: str = "events") -> None:
    """Raises unless all leaves of a PyTree have a leading axis of length `count`, or longer with `at_least`."""
    each = f"one row for each of the {count} {of}"
    stack = "stack them with jax.tree.map(lambda *rows: numpy.stack(rows), *batches)."
    for path, leaf in _leaves(name, tree):
        if not is_array(leaf) and not hasattr(leaf, "shape"):
            what = f"{shown(leaf)} ({type(leaf).__name__})"
            raise TypeError(f"{path} must be an array with {each}, got {what}; if it yields batches, {stack}")
        shape = _shape(leaf)
        if shape[:1] == (count,) or (at_least and shape and shape[0] > count):
            continue
        if isinstance(tree, list | tuple) and len(tree) == count > 1:
            what = f"a {type(tree).__name__} of {count} batches"
            raise ValueError(f"{name} must be arrays with {each}, got {what}; {stack}")
        raise ValueError(f"{path} must have {each}, got shape {shape}.")


def key(name: str, value: Any) -> None:
    """Raises unless the value is a single typed key."""
    is_key = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not is_key or value.ndim > 0:
        raise TypeError(f"{name} must be a single typed key such as jax.random.key(0), got {shown(value)}.")


def batchable(name: str, key: jax.Array, advice: str = "use jax.random.key(seed, impl='threefry2x32')") -> None:
    """Raises for a key whose random numbers depend on batching, as under `jax.vmap`."""
    kind = str(jax.random.key_impl(key))
    if "rbg" in kind:
        raise ValueError(f"{name} uses the implementation {kind}, whose random numbers depend on batching; {advice}.")


def unbatched(name: str, key: jax.Array) -> jax.Array:
    """The key; `jax.vmap` over it raises if its random numbers depend on batching."""
    if "rbg" not in str(jax.random.key_impl(key)):
        return key

    @jax.custom_batching.custom_vmap
    def alone(key):
        return key

    @alone.def_vmap
    def refuse(size, batched, key):
        batchable(f"{name}, batched by jax.vmap,", key)
        return key, batched[0]

    return alone(key)


def _leaves(name: str, tree: Any) -> list[tuple[str, Any]]:
    """Leaves with their paths, such as params['w']; iterators count as leaves, for which JAX would raise."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, Iterator))
    return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)
