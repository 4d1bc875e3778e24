"""All public parameters and all fields of configs, with the values that `doors` refuses and accepts beforehand."""

from __future__ import annotations

import dataclasses
import inspect
import re
import time
import typing
from collections.abc import Callable
from typing import Any

import doors
import jax
import numpy as np
import optax
import pytest
from doors import KINDS, THING
from flax import nnx

import asyncflax
from asyncflax import _memory, algorithms, models, queues, staleness, theory
from asyncflax.errors import RunError
from asyncflax.lab import figures
from asyncflax.lab.compare import CompareConfig, Comparison
from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig
from asyncflax.lab.sweep import Grid, SweepConfig
from asyncflax.theory import problems
from asyncflax.train import TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.options import typed

REFUSALS = (TypeError, ValueError, OSError, RunError)
SECONDS = 20.0  # far more than a refusal takes, far less than what is too large


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    function = doors.function(name)
    is_network = inspect.isclass(function) and issubclass(function, nnx.Module)
    found = inspect.signature(function.__init__ if is_network else function).parameters.values()
    named = (p for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return {p.name: p for p in named if p.name not in ("self", "rngs")}


def call(name: str, /, **changes: Any) -> Any:
    arguments = {**doors.CALLS[name], **changes}
    function = doors.function(name)
    own = (arguments.pop("self"),) if "self" in arguments else ()
    if inspect.isclass(function) and issubclass(function, nnx.Module):
        arguments["rngs"] = nnx.Rngs(0)
    return function(*own, **arguments)


def fault(shown: str, pattern: str, attempt: Callable[[], Any]) -> str:
    """What is wrong with how something is refused; '' where nothing is."""
    began = time.perf_counter()
    try:
        attempt()
    except REFUSALS as error:
        text, seconds = str(error), time.perf_counter() - began
        if seconds > SECONDS:
            return f"{shown} took {seconds:.0f} s"
        if "\n" in text.strip():
            return f"{shown}: not one line: {text[:200]!r}"
        return "" if re.search(pattern, text) else f"{shown}: {pattern} is not in {type(error).__name__}: {text[:200]}"
    except Exception as error:
        return f"{shown}: {type(error).__name__}: {str(error)[:200]}"
    return f"{shown} is accepted"


def refusals(name: str, parameter: inspect.Parameter) -> list[str]:
    pattern = rf"\b({doors.ALIASES.get((name, parameter.name), parameter.name)})"
    others = doors.given(name, parameter.name)
    attempts = {
        f"{name}({parameter.name}={value!r})": lambda value=value: call(name, **{**others, parameter.name: value})
        for value in doors.refused(name, parameter)
    }
    return [found for shown, attempt in attempts.items() if (found := fault(shown, pattern, attempt))]


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", doors.CALLS)
def test_what_is_refused(name, tmp_path):
    faults = [found for parameter in parameters(name).values() for found in refusals(name, parameter)]
    assert faults == []
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_public_is_called_or_excepted():
    beginnings = tuple(beginning for reason in doors.NOT_CALLED.values() for beginning in reason)
    called = {id(doors.function(name)) for name in doors.CALLS}
    public = doors.public()
    assert len(public) > 200
    assert [n for n in public if id(doors.function(n)) not in called and not n.startswith(beginnings)] == []
    assert [b for b in beginnings if not any(name.startswith(b) for name in public)] == []


def test_exceptions_and_other_arguments_are_of_parameters_that_there_are():
    tables = (doors.EXCEPTIONS, doors.ALIASES, doors.GIVEN, doors.ONE_SPELLING)
    found = [key for table in tables for key in table if key[0] != "*" and key[1] not in parameters(key[0])]
    assert found == []


# --- Accepted --------------------------------------------------------------------------------------------------------


def leaves(value: Any) -> list[Any]:
    """All arrays, numbers and texts in what a call returns."""
    if isinstance(value, asyncflax.AsyncAlgorithm):
        return [value.num_workers, *leaves(after_an_event(value))]
    if isinstance(value, optax.GradientTransformation):
        return leaves(after_an_event(value))
    if isinstance(value, queues.ServiceTime):
        rng = np.random.default_rng(0)
        return [value.machine(rng, 4), *(value.task_of(i)(rng, 5) for i in range(4))]
    if isinstance(value, nnx.Module):
        return jax.tree.leaves(nnx.state(value, nnx.Param))
    if dataclasses.is_dataclass(value):
        return [leaf for field in dataclasses.fields(value) for leaf in leaves(getattr(value, field.name))]
    if isinstance(value, dict):
        return leaves(list(value.values()))
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return [jax.random.key_data(value)]
    return [value] if isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float | str) else []


def after_an_event(tx: Any) -> Any:
    """The update and the state, from a state that is not all zeros."""
    event = {"worker": 1, "staleness": 2, "read_params": doors.W + 1, "value": 0.5}
    update = optax.with_extra_args_support(tx).update if isinstance(tx, optax.GradientTransformation) else tx.update
    _, state = update(doors.W + 1, tx.init(doors.W), doors.W, **event)
    return update(doors.W + 2, state, doors.W, **event)


def is_same(one: Any, other: Any) -> bool:
    """Equal, up to the rounding of numbers that came as float32."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(
        a == b if isinstance(a, str) else np.allclose(np.asarray(a, float), np.asarray(b, float), 1e-5, 1e-6, True)
        for a, b in pairs
    )


def differences(name: str, parameter: inspect.Parameter) -> list[str]:
    """What means the same as a plain value, and gives something else."""
    kind, _ = doors.kind_of(parameter)
    if not kind or (name, parameter.name) in doors.ONE_SPELLING:
        return []
    others = {**doors.CALLS[name], **doors.given(name, parameter.name)}
    if not KINDS[kind].same:
        return []
    plain = others.get(parameter.name, parameter.default)
    if plain is None or plain is parameter.empty:
        return [f"{name}({parameter.name}) has no value to be compared with"]
    plain = float(np.float32(plain)) if kind == "float" else plain
    want, faults = call(name, **{**others, parameter.name: plain}), []
    for spelled in KINDS[kind].same:
        try:
            value = spelled(plain)
            got = call(name, **{**others, parameter.name: value})
            if not is_same(want, got):
                faults.append(f"{name}({parameter.name}={value!r}) is not as {plain!r}: {got!r}, {want!r}")
        except Exception as error:
            faults.append(f"{name}({parameter.name}={spelled}({plain!r})): {type(error).__name__}: {str(error)[:200]}")
    return faults


ACCEPTING = [name for name in doors.CALLS if name not in doors.REFUSED_ONLY]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in doors.SLOW else ()) for name in ACCEPTING]
)
def test_what_is_accepted_means_the_plain_value(name):
    assert [found for parameter in parameters(name).values() for found in differences(name, parameter)] == []


# --- Fields of configs -----------------------------------------------------------------------------------------------

CONFIGS: dict[type, Callable[[Any], Any]] = {
    TrainConfig: TrainConfig.check,
    SweepConfig: figures.check,
    CompareConfig: Comparison,
    StreamingPcaConfig: StreamingPcaConfig.check,
}
KINDS["items"] = doors.Kind((None, 0, True, 1.5, THING))
NAMES = ("dataset", "precision", "asynchrony", "algorithm", "mesh", "stream", "figure")
_TYPES = {int: "int", float: "float", bool: "bool", str: "text"}
# What a field takes although its type does not, and why.
FIELDS: dict[tuple[type, str], tuple[Any, ...]] = {
    (TrainConfig, "seed"): (2**31,),  # JAX keeps 32 bits
    (StreamingPcaConfig, "seed"): (2**31,),
    (TrainConfig, "width"): (0,),  # one for each device group
}


def fields() -> list[Any]:
    return [
        pytest.param(config, field, id=f"{config.__name__}.{field.name}")
        for config in CONFIGS
        for field in dataclasses.fields(config)
    ]


def kind_of_field(config: type, field: dataclasses.Field) -> str:
    hint = typing.get_type_hints(config)[field.name]
    if typing.get_origin(hint) is tuple:
        return "ints" if typing.get_args(hint)[0] is int else "floats"
    return _TYPES.get(hint, "object" if hint is TrainConfig else "items")


@pytest.mark.parametrize("config, field", fields())
def test_what_a_field_refuses(config, field, tmp_path):
    kind = kind_of_field(config, field)
    ranges = doors.RANGES.get(field.name, ()) if kind in ("int", "float") else ()
    no_such = ("no such(",) if field.name in NAMES else ()
    allowed = {repr(value) for value in FIELDS.get((config, field.name), ())}
    values = [v for v in (*KINDS[kind].refused, *ranges, *no_such) if repr(v) not in allowed]
    change = lambda value: CONFIGS[config](dataclasses.replace(config(), **{field.name: value}))
    name = f"{config.__name__}.{field.name}"
    faults = [fault(f"{name}={value!r}", rf"\b{field.name}\b", lambda value=value: change(value)) for value in values]
    assert [found for found in faults if found] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", [f for f in dataclasses.fields(TrainConfig) if type(f.default) in (int, float, bool)])
def test_a_field_keeps_the_plain_value(field):
    kind = typing.get_type_hints(TrainConfig)[field.name]
    plain = kind(np.float32(field.default)) if kind is float else field.default
    for spelled in {int: (np.int64, np.uint32), float: (np.float32, np.float64), bool: (np.bool_,)}[kind]:
        config = TrainConfig(**{field.name: spelled(plain)}).check()
        kept = getattr(config, field.name)
        assert type(kept) is kind and kept == plain


# --- Too large -------------------------------------------------------------------------------------------------------

GIB = 2**30
QUEUE = {"service_time": doors.QUEUE}
LARGE = 2 * 10**9
TOO_LARGE: dict[str, Callable[[], Any]] = {
    "num_updates: law": lambda: doors.LAW.trace(LARGE),
    "num_updates: drop": lambda: doors.LAW.trace(LARGE, before_start="drop"),
    "num_updates: queue": lambda: queues.simulate(num_workers=4, num_updates=LARGE, **QUEUE),
    "num_updates: restarts": lambda: queues.simulate(num_workers=4, num_updates=LARGE, max_staleness=9, **QUEUE),
    "num_updates: barrier": lambda: queues.barrier(num_workers=4, num_updates=LARGE, **QUEUE),
    "num_workers: queue": lambda: queues.simulate(num_workers=10**8, num_updates=9, **QUEUE),
    "num_workers: barrier": lambda: queues.barrier(num_workers=10**8, num_updates=9, **QUEUE),
    "num_workers: law of a queue": lambda: doors.QUEUE.staleness(10**9),
    "num_workers: velocities": lambda: algorithms.multi_asgd(0.1, num_workers=10**9).init(doors.W),
    "num_workers: sums": lambda: algorithms.dana_zero(0.1, num_workers=10**9).init(doors.W),
    "num_workers: loop": lambda: algorithms.closed_loop_momentum(0.1, num_workers=10**9).init(doors.W),
    "num_workers: planner": lambda: theory.planner.make([1, 10**9]),
    "staleness: law": lambda: staleness.constant(LARGE),
    "high: law": lambda: staleness.uniform(0, LARGE),
    "num_stages: pipeline": lambda: staleness.pipeline(LARGE),
    "capacity: ring": lambda: asyncflax.history.Ring(LARGE).init(doors.W),
    "capacity: host": lambda: asyncflax.history.Ring(LARGE, "pinned_host").init(doors.W),
    "capacity: delay": lambda: asyncflax.transforms.delay_gradients(LARGE).init(doors.W),
    "capacity: versions": lambda: asyncflax.transforms.store_versions(LARGE).init(doors.W),
    "max_staleness: velocities": lambda: algorithms.shifted_momentum(
        0.1, num_workers=4, velocity="version", max_staleness=LARGE
    ).init(doors.W),
    "window: yellowfin": lambda: algorithms.yellowfin(window=LARGE).init(doors.W),
    "num_slots: run": lambda: asyncflax.init_run(doors.SGD, doors.W, asyncflax.make_plan(doors.TRACE, num_slots=LARGE)),
    "width: run": lambda: asyncflax.run(doors.SGD, doors.LOSS, doors.W, doors.TRACE, doors.BATCHES, width=LARGE),
    "cuts: plan": lambda: asyncflax.make_plan(doors.LAW.trace(60_000), cuts=range(30_000)),
    "num_updates: theory": lambda: theory.mean_iterates(3, 0.1, LARGE),
    "num_updates: squares": lambda: theory.mean_square_iterates(3, 0.1, LARGE),
    "staleness: ensemble": lambda: ensemble(2**30 - 1, 4, 2),
    "num_updates: ensemble": lambda: ensemble(1, LARGE, 2, every=1),
    "num_trajectories: ensemble": lambda: ensemble(1, 4, LARGE),
    "hidden: network": lambda: models.Mlp((8, 8, 1), hidden=LARGE, rngs=nnx.Rngs(0)),
    "num_classes: network": lambda: models.SmallCnn((8, 8, 1), LARGE, rngs=nnx.Rngs(0)),
    "config.model: training": lambda: make_experiment(TrainConfig(model="Mlp(hidden=2000000000)")),
    "width: training": lambda: make_experiment(TrainConfig(width=LARGE)),
    "config.trajectories: study": StreamingPcaConfig(trajectories=LARGE).check,
    "config.workers: study": StreamingPcaConfig(workers=LARGE).check,
    "num_updates: training": lambda: make_experiment(TrainConfig(num_updates=LARGE)),
    "num_workers: training": lambda: make_experiment(TrainConfig(num_workers=10**8)),
    "pad: augmentation": lambda: asyncflax.data.augment(jax.random.key(0), np.ones((2, 8, 8, 1)), pad=10**6),
    "classes: range": lambda: typed("classes", ("range(300000000)",), tuple[int, ...]),
    "axes: range": lambda: Grid.of(SweepConfig(axes="seed=range(300000000)")),
    "axes: grid": lambda: Grid.of(SweepConfig(axes="seed=range(3000), num_workers=range(1, 3001)")),
    "axes: comparison": lambda: Comparison(CompareConfig(seeds=tuple(range(3_000_000)))),
}


def ensemble(staleness: int, num_updates: int, num_trajectories: int, **options: Any) -> Any:
    sizes = {"num_updates": num_updates, "num_trajectories": num_trajectories, **options}
    return problems.NoisyQuadratic().ensemble(staleness, learning_rate=0.1, **sizes)


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_does_not_fit_is_said_at_the_door(what, monkeypatch, tmp_path):
    monkeypatch.setattr(_memory, "available", lambda: GIB)
    name = what.split(":")[0]
    found = fault(what, rf"\b{re.escape(name)}\b.* is too large: .* only 1.0 GiB is available", TOO_LARGE[what])
    assert found == "" and list(tmp_path.iterdir()) == []


def test_the_limit_is_what_there_is(monkeypatch):
    """Exactly: a million events fit into what they are said to take, and not into a byte less."""
    plain, num_updates = doors.LAW, 10**6
    need = 80 * num_updates + 40 * plain.maximum
    monkeypatch.setattr(_memory, "available", lambda: need)
    assert len(plain.trace(num_updates)) == num_updates
    monkeypatch.setattr(_memory, "available", lambda: need - 1)
    with pytest.raises(ValueError, match="num_updates=1000000 is too large"):
        plain.trace(num_updates)
    monkeypatch.setattr(_memory, "available", lambda: None)  # nobody says
    assert len(plain.trace(num_updates)) == num_updates
