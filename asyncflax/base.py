"""The contract between a method and the engine: `AsyncAlgorithm`, and two ways to make one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax.tree_util import Partial

from asyncflax import _check

Factory = TypeVar("Factory", bound=Callable[..., "AsyncAlgorithm"])


def server_params(params: Any, state: Any, *, worker: Any = None) -> Any:
    """The plain view: a worker receives the server's `params`, whatever `state` and `worker` are.

    >>> import asyncflax
    >>> asyncflax.server_params({"w": 1.0}, state=())
    {'w': 1.0}
    """
    del state, worker
    return params


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["init", "update", "view"],
    meta_fields=["num_workers"],
)
@dataclasses.dataclass(frozen=True)
class AsyncAlgorithm:
    """A method of asynchronous training: pure functions on the server's state.

    It is Optax's pair plus `view`, what a worker receives when it asks for parameters.

    Attributes:
      init: `init(params) -> state`.
      update: `update(grads, state, params, *, worker, staleness, read_params, **extra) -> (updates, state)`, one event:
        grads: PyTree like params, computed on read_params;
        params: the server's parameters before the update;
        worker: int32 [], who delivers;
        staleness: int32 [], how many updates the server made since the version was handed out;
        read_params: what the worker had received (a `view`);
        extra: `value`, the loss at read_params, and whatever later engines add; take what you need.
        The engine adds the updates to the parameters.
      view: `view(params, state, *, worker=None) -> PyTree like params`, what a worker downloads: the parameters
        themselves, a look-ahead, a prediction. worker is int32 [], or None where the version is not one worker's own
        (version 0, and traces in which several workers read one version).
      num_workers: the number of workers the state was built for, None if it does not matter.

    An algorithm is a PyTree: its structure is the method, its leaves are the hyper-parameters that `method` found. It
      can
    be an argument of jitted functions, and of `jax.vmap`.

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> def update(grads, state, params, **event):
      ...     return jax.tree.map(lambda g: -0.1 * jnp.sign(g), grads), state
      >>> sign_descent = asyncflax.AsyncAlgorithm(init=lambda params: (), update=update)
      >>> sign_descent.update(jnp.array([3.0, -2.0]), (), None)[0]
      Array([-0.1,  0.1], dtype=float32)
    """

    init: Callable[..., Any]
    update: Callable[..., tuple[Any, Any]]
    view: Callable[..., Any] = server_params
    num_workers: int | None = None

    def __post_init__(self):
        for name in ("init", "update", "view"):
            object.__setattr__(self, name, as_partial(getattr(self, name)))


def as_partial(function: Any) -> Any:
    """A callable as a PyTree without leaves; what is a `Partial` (or, inside JAX, no callable) stays as it is."""
    if isinstance(function, Partial) or not callable(function):
        return function
    return Partial(function)


def from_optax(
    tx: optax.GradientTransformation,
    *,
    view: Callable[..., Any] = server_params,
    num_workers: int | None = None,
) -> AsyncAlgorithm:
    """Lifts an Optax optimizer, which then runs at the server: one update an event.

    Every transformation in it that takes extra arguments receives worker, staleness, read_params and value.

    Args:
      tx: any optimizer, for example a chain with `asyncflax.transforms`.
      view: see `AsyncAlgorithm`.
      num_workers: see `AsyncAlgorithm`.

    Raises:
      TypeError: `tx` is not an Optax transformation.

    Example:
      >>> import asyncflax, optax
      >>> algorithm = asyncflax.from_optax(optax.sgd(0.1, momentum=0.9))
    """
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(f"tx must be an optax.GradientTransformation, got {tx!r}.")
    tx = optax.with_extra_args_support(tx)

    def update(grads, state, params, *, worker, staleness, read_params, **extra):
        return tx.update(
            grads,
            state,
            params,
            worker=worker,
            staleness=staleness,
            read_params=read_params,
            **extra,
        )

    return AsyncAlgorithm(tx.init, update, view, num_workers)


def method(factory: Factory) -> Factory:
    """Decorates a function that makes an algorithm, so that its numbers become hyper-parameters.

    Floats and arrays that the caller passes become leaves of the algorithm; everything else (workers, options,
    schedules) becomes its structure. Two algorithms that differ in numbers alone share one compiled program, and
    `jax.vmap` over a function that makes an algorithm runs a grid of them. Inside a jitted function the factory is
    called again with traced numbers: it must not branch on their values, and defaults stay concrete.

    Example:
      >>> import asyncflax, jax, optax
      >>> @asyncflax.method
      ... def clipped_sgd(learning_rate, clip=1.0):
      ...     return asyncflax.from_optax(optax.chain(optax.clip(clip), optax.sgd(learning_rate)))
      >>> jax.tree.leaves(clipped_sgd(0.5).init)
      [0.5]
      >>> jax.tree.structure(clipped_sgd(0.5)) == jax.tree.structure(clipped_sgd(0.25))
      True
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args, **kwargs) -> AsyncAlgorithm:
        algorithm = factory(*args, **kwargs)  # checks concrete values before anything is traced
        given = signature.bind(*args, **kwargs).arguments
        numbers = {name: _as_leaf(value) for name, value in given.items() if _is_number(value)}
        static = tuple((name, value) for name, value in given.items() if name not in numbers)
        for name, value in static:
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{name} of {factory.__name__} must be hashable, got {value!r}; "
                    "pass a tuple, or a function that makes the value."
                ) from None
        part = lambda name: Partial(_Part(factory, static, name), numbers)
        return AsyncAlgorithm(part("init"), part("update"), part("view"), algorithm.num_workers)

    return make  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class _Part:
    """One function of the algorithm that `factory` makes; equal for equal static arguments."""

    factory: Callable[..., AsyncAlgorithm]
    static: tuple[tuple[str, Any], ...]
    name: str

    def __call__(self, numbers: dict[str, Any], *args, **kwargs):
        algorithm = self.factory(**dict(self.static), **numbers)
        return getattr(algorithm, self.name)(*args, **kwargs)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.ndarray | np.generic | jax.Array) or _check.is_traced(value)


def _as_leaf(value: Any) -> Any:
    # A NumPy scalar has a strong type, which would lift bfloat16 updates to float32; a Python float has not.
    return float(value) if isinstance(value, float | np.floating) else value
