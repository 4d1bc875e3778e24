"""The contract between a method and the engine: `AsyncAlgorithm`, and how to build one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, Unpack

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
    jax.tree_util.register_dataclass, data_fields=["init", "update", "view"], meta_fields=["num_workers"]
)
@dataclasses.dataclass(frozen=True)
class AsyncAlgorithm:
    """A method of asynchronous training: pure functions on the server's state.

    It is Optax's pair with a `view`, which returns what a worker receives when it asks for parameters.

    Attributes:
      init: `init(params) -> state`.
      update: `update(grads, state, params, *, worker, staleness, read_params, **extra) -> (updates, state)`, one event:
        grads: PyTree like params, computed on read_params;
        params: the server's parameters before the update;
        worker: int32 [], the worker that delivers;
        staleness: int32 [], the number of updates since the version was handed out;
        read_params: the parameters that the worker received (a `view`);
        extra: `value`, the loss at read_params, and further arguments; accept **extra and use what you need.
        The engine adds the updates to the parameters.
      view: `view(params, state, *, worker=None) -> PyTree like params`, what a worker downloads: the parameters
        themselves, a look-ahead, a prediction. worker is int32 [], or None if several workers may read the version
        (version 0, and all versions of traces in which they do).
      num_workers: the number of workers that the state was built for; None if it does not depend on it.

    An algorithm is a PyTree: its structure is the method, its leaves are the hyperparameters that `method` found. It
    can be an argument of jitted functions, and of `jax.vmap`.

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
            function = getattr(self, name)
            _check.function(name, function)
            if not isinstance(function, Partial | _Callable):  # already a Partial when JAX rebuilds the tree
                object.__setattr__(self, name, as_partial(function))
        if self.num_workers is not None:
            object.__setattr__(self, "num_workers", _check.integer("num_workers", self.num_workers, 1))

    def __repr__(self) -> str:
        part = getattr(self.update, "func", None)
        if not isinstance(part, _Part):
            return f"AsyncAlgorithm(init={self.init}, update={self.update}, view={self.view})"
        arguments = {**dict(part.static), **self.update.args[0]}  # pyright: ignore[reportFunctionMemberAccess]
        return f"{part.make.__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def as_partial(function: Any) -> Any:
    """A function as a PyTree whose leaves can be arguments of a compiled program.

    A plain function has no leaves. The leaves of a callable PyTree are its arrays, in a `Partial` of arrays and numbers
    also the numbers; everything else (functions, strings, options) belongs to its structure.
    """
    if not callable(function):
        return function
    leaves, structure = jax.tree.flatten(function)
    if jax.tree_util.treedef_is_leaf(structure):
        return Partial(function)
    arguments = []
    for part in jax.tree.leaves(function, is_leaf=lambda x: isinstance(x, Partial | _Callable)):
        inside = jax.tree.leaves(part)
        numbers_too = isinstance(part, Partial | _Callable) and not any(map(_is_option, inside))
        arguments += [not (_is_option(x) or isinstance(x, int | float | complex)) or numbers_too for x in inside]
    if all(arguments):
        return function
    arrays = [leaf for leaf, is_argument in zip(leaves, arguments, strict=True) if is_argument]
    rest = tuple(None if is_argument else leaf for leaf, is_argument in zip(leaves, arguments, strict=True))
    try:
        hash(rest)
    except TypeError as error:
        raise TypeError(
            f"fields of a callable PyTree must be arrays or hashable ({error}); use a tuple or a static field."
        ) from None
    return _Callable(arrays, structure, rest)


def _is_option(leaf: Any) -> bool:
    return isinstance(leaf, bool) or not _check.is_array(leaf)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["structure", "rest"])
@dataclasses.dataclass(frozen=True)
class _Callable:
    """A callable PyTree with only the arrays as leaves; equal structures compare equal, so that it compiles once."""

    arrays: list[Any]
    structure: Any
    rest: tuple[Any, ...]  # None in place of each array

    def __call__(self, *args, **kwargs):
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def _function(self) -> Callable[..., Any]:
        arrays = iter(self.arrays)
        return self.structure.unflatten(next(arrays) if leaf is None else leaf for leaf in self.rest)


def from_optax(
    tx: optax.GradientTransformation, *, view: Callable[..., Any] = server_params, num_workers: int | None = None
) -> AsyncAlgorithm:
    """Runs an Optax optimizer at the server, one update per event.

    Every transformation in it that takes extra arguments receives worker, staleness, read_params and value. A new
    optimizer object recompiles; see `method` for how to change hyperparameters without recompiling.

    Args:
      tx: an optimizer, for example a chain with `asyncflax.transforms`, or an `optax.MultiSteps`. Initialization raises
        if it needs more than the gradient of an event: line searches and L-BFGS (the loss at other parameters),
        `optax.contrib.sam` (a second gradient), and `optax.lookahead` (a pair of parameters).
      view, num_workers: see `AsyncAlgorithm`.

    Example:
      >>> import asyncflax, optax
      >>> algorithm = asyncflax.from_optax(optax.sgd(0.1, momentum=0.9))
    """
    tx = as_optax("tx", tx)
    return AsyncAlgorithm(_OptaxInit(tx), _OptaxUpdate(tx), view, num_workers)


@dataclasses.dataclass(frozen=True)
class _OptaxInit:
    """The init of an optimizer; like `_OptaxUpdate`, equal for the same optimizer, so that a run compiles once."""

    tx: optax.GradientTransformation

    def __call__(self, params):
        return check_optax_state(self.tx.init(params))


@dataclasses.dataclass(frozen=True)
class _OptaxUpdate:
    """The update of an optimizer."""

    tx: optax.GradientTransformation

    def __call__(self, grads, state, params, *, worker, staleness, read_params, **extra):
        event = {"worker": worker, "staleness": staleness, "read_params": read_params}
        return optax.with_extra_args_support(self.tx).update(grads, state, params, **event, **extra)


def as_optax(name: str, tx: Any) -> optax.GradientTransformation:
    """An Optax transformation; `optax.MultiSteps` as one that passes extra arguments on."""
    if isinstance(tx, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)  # pyright: ignore[reportArgumentType]
    _check.instance(name, tx, optax.GradientTransformation, "an optax.GradientTransformation")
    return tx


_LINE_SEARCH = "a line search evaluates the loss at further parameters (value_fn), but an event has one; remove it"
# Why optimizers are not supported, by their state anywhere in a chain.
_NO_METHODS = {
    optax.ScaleByBacktrackingLinesearchState: _LINE_SEARCH,
    optax.ScaleByZoomLinesearchState: _LINE_SEARCH,
    optax.ScaleByLBFGSState: (
        "L-BFGS compares gradients at successive parameters and searches along a line (value_fn), but stale "
        "gradients belong to other parameters; use a first-order optimizer such as optax.adam"
    ),
    optax.contrib.SAMState: (
        "optax.contrib.sam needs a second gradient (grad_fn), but an event has one; compute both in the gradient "
        "function and return the second"
    ),
    optax.LookaheadState: (
        "optax.lookahead has a pair of parameters, fast and slow, but a worker reads one; pass the fast optimizer alone"
    ),
}


def check_optax_state(state: Any) -> Any:
    """The state of an optimizer; raises if it needs more than the gradient of an event."""
    kinds = tuple(_NO_METHODS)
    for part in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kinds)):
        if isinstance(part, kinds):
            raise TypeError(f"tx cannot train asynchronously: {_NO_METHODS[type(part)]}.")
    return state


def transform_gradients(tx: optax.GradientTransformation, algorithm: AsyncAlgorithm) -> AsyncAlgorithm:
    """Applies an Optax transformation, such as clipping, to the gradients before a method receives them.

    Args:
      tx: the transformation, run at the server with the extra arguments of an event; its state precedes the method's.
      algorithm: the method.

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> algorithm = asyncflax.transform_gradients(optax.clip(1.0), asyncflax.algorithms.asgd(0.5))
      >>> event = {"worker": 0, "staleness": 0, "read_params": jnp.zeros(2)}
      >>> algorithm.update(jnp.array([4.0, 0.5]), algorithm.init(jnp.zeros(2)), jnp.zeros(2), **event)[0]
      Array([-0.5 , -0.25], dtype=float32)
    """
    return _joined(tx, algorithm, tx_first=True)


def transform_updates(algorithm: AsyncAlgorithm, tx: optax.GradientTransformation) -> AsyncAlgorithm:
    """Applies an Optax transformation, such as averaging, to the updates of a method.

    Args:
      algorithm: the method.
      tx: the transformation, run at the server with the extra arguments of an event; its state follows the method's.

    Example:
      >>> import asyncflax, jax.numpy as jnp, optax
      >>> average = asyncflax.transforms.average_params(0.99)
      >>> algorithm = asyncflax.transform_updates(asyncflax.algorithms.asgd(0.5), average)
      >>> algorithm.init(jnp.zeros(2))[1].params_average
      Array([0., 0.], dtype=float32)
    """
    return _joined(tx, algorithm, tx_first=False)


def _joined(tx: Any, algorithm: AsyncAlgorithm, *, tx_first: bool) -> AsyncAlgorithm:
    _check.instance("algorithm", algorithm, AsyncAlgorithm, "an AsyncAlgorithm")
    tx = as_optax("tx", tx)
    part = lambda name: Partial(_Joined(tx, tx_first, name), algorithm)
    return AsyncAlgorithm(part("init"), part("update"), part("view"), algorithm.num_workers)


@dataclasses.dataclass(frozen=True)
class _Joined:
    """The function `name` of a method chained with a transformation; the state is a pair in their order."""

    tx: optax.GradientTransformation
    tx_first: bool
    name: str

    def __call__(self, algorithm: AsyncAlgorithm, *args, **kwargs):
        return getattr(self, self.name)(algorithm, *args, **kwargs)

    def init(self, algorithm, params):
        return tuple(init(params) for init in self._in_order(_OptaxInit(self.tx), algorithm.init))

    def update(self, algorithm, updates, state, params, **event):
        after = []
        stages = self._in_order(optax.with_extra_args_support(self.tx).update, algorithm.update)
        for update, before in zip(stages, state, strict=True):
            updates, new = update(updates, before, params, **event)
            after.append(new)
        return updates, tuple(after)

    def view(self, algorithm, params, state, *, worker=None):
        return algorithm.view(params, state[self.tx_first], worker=worker)

    def _in_order(self, of_tx, of_algorithm):
        return (of_tx, of_algorithm) if self.tx_first else (of_algorithm, of_tx)


class WeightDecay(TypedDict, total=False):
    """Keyword arguments of `transforms.decay_weights`, for factories with `**decay: Unpack[WeightDecay]`."""

    weight_decay: float
    decay_at: str


_DECAY = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=type(default).__name__)
    for name, default in WeightDecay(weight_decay=0.0, decay_at="read").items()
]


def method(factory: Factory) -> Factory:
    """Decorates a function that returns an algorithm: its numeric arguments become hyperparameters.

    Floats and arrays that the caller passes become leaves of the algorithm, and so do ints if the parameter is
    annotated as float or has a float as its default. Everything else (workers, options, schedules) becomes its
    structure and must be hashable. Two algorithms that differ only in hyperparameters share one compiled program, and
    `jax.vmap` over a function that builds an algorithm runs a grid of them. Inside a jitted function the factory is
    called again with traced values: it must not branch on them. Arguments that the caller omits stay concrete.

    Args:
      factory: a function of named parameters that returns an `AsyncAlgorithm`. `**decay: Unpack[WeightDecay]` becomes
        `weight_decay` and `decay_at` in the method's signature.

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
    _check.function("factory", factory, " that returns an AsyncAlgorithm")
    signature = _with_decay(inspect.signature(factory))
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{factory.__name__} must name all its parameters, got {parameter}.")

    @functools.wraps(factory)
    def make(*args, **kwargs) -> AsyncAlgorithm:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{factory.__name__}: {error}.") from None
        given = dict(bound.arguments)
        bound.apply_defaults()
        algorithm = factory(**bound.arguments)  # checks concrete values before anything is traced
        numbers, static = {}, []
        for name, parameter in signature.parameters.items():
            if name in given and _is_number(given[name], parameter):
                numbers[name] = _as_leaf(given[name])
                continue
            value = given.get(name, parameter.default)
            is_one = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
            value = value.item() if is_one else value
            static.append((name, value))
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{name} of {factory.__name__} must be hashable, got {value!r}; "
                    "pass a tuple, or a function that returns the value."
                ) from None
        part = lambda name: Partial(_Part(make, tuple(static), name), numbers)
        return AsyncAlgorithm(part("init"), part("update"), part("view"), algorithm.num_workers)

    make.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    return make  # type: ignore[return-value]


def _with_decay(signature: inspect.Signature) -> inspect.Signature:
    """The signature with `**decay: Unpack[WeightDecay]` expanded."""
    parameters = []
    for parameter in signature.parameters.values():
        is_decay = parameter.annotation in (Unpack[WeightDecay], "Unpack[WeightDecay]")
        parameters += _DECAY if is_decay else [parameter]
    return signature.replace(parameters=parameters)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One function of the algorithm that a decorated factory returns; equal for equal static arguments."""

    make: Callable[..., AsyncAlgorithm]
    static: tuple[tuple[str, Any], ...]
    name: str

    def __call__(self, numbers: dict[str, Any], *args, **kwargs):
        factory = self.make.__wrapped__  # type: ignore[attr-defined]  # what `method` decorated
        return getattr(factory(**dict(self.static), **numbers), self.name)(*args, **kwargs)


def _is_number(value: Any, parameter: inspect.Parameter) -> bool:
    if _check.is_traced(value):
        return True
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if isinstance(value, bool | np.bool_ | str) or not (is_array or isinstance(value, int | float)):
        return False
    if isinstance(value, float) or (is_array and jax.numpy.issubdtype(value.dtype, jax.numpy.inexact)):
        return True
    kind = parameter.annotation
    named = kind in (float, "float", "LearningRate") or float in typing.get_args(kind)
    return named or isinstance(parameter.default, float)


def _as_leaf(value: Any) -> Any:
    # A NumPy scalar is strongly typed and would promote bfloat16 updates to float32; a Python float is weakly typed.
    return float(value) if isinstance(value, int | float | np.number) else value
