"""The cells of a sweep.

Cells differ in three ways. Hyperparameters (learning rate, momentum, any number that the method accepts traced) are
inputs of a program. The seed changes the *environment*: trace, data order, initial weights. Any other field requires a
separate program. All cells train on the same data and are logged after the same updates.
"""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
import itertools
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from asyncflax import _check, _memory
from asyncflax.train.config import TrainConfig
from asyncflax.train.method import NUMBERS, OPTION, can_trace, make_algorithm
from asyncflax.train.options import Items, in_range, parse_items, plain_call, plain_items

HYPER = ("learning_rate", "momentum")  # traced in every program
ENVIRONMENT = ("seed",)
DATA = ("dataset", "data_dir", "data_cache", "classes")  # read once for all cells
ROWS = ("num_updates", "log_every", "eval_every", "eval_batch_size", "checkpoint_every")  # one for all cells
PLACES = {"width": 1, "mesh": "", "server": "replicated", "store": "device"}  # set by the programs
_BYTES_OF_CELL, _BYTES_OF_ROW = 4000, 128  # in memory, of a cell and of each row of its metrics


@dataclasses.dataclass
class SweepConfig:
    """A grid of training runs.

    Attributes:
      train: the config shared by all cells.
      axes: values by field of `train`, or by option of its method as `algorithm.OPTION`.
      cells_at_once: the number of cells to train together; 0 takes as many as are fast and fit into memory.
      memory_gb: the memory to use on each device, in 10^9 bytes; 0 takes all that is free.
      figure: figures of `asyncflax.lab.figures`, or your own; '' draws the grid itself.

    Example:
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import Grid, SweepConfig
      >>> Grid.of(SweepConfig(TrainConfig(), {"momentum": (0.0, 0.5, 0.9), "seed": (0, 1)}))
      Grid(momentum: 3, seed: 2; 6 cells)
      >>> Grid.of(SweepConfig(TrainConfig(algorithm="dc_asgd"), "algorithm.strength=(0, 0.04, 1), seed=(0, 1)"))
      Grid(algorithm.strength: 3, seed: 2; 6 cells)
    """

    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    # Values by name; as a flag, 'num_workers=(1, 8), algorithm=(asgd, dc_asgd), algorithm.strength=(0.04, 1)'.
    axes: Items = dataclasses.field(default="seed=(0,)", metadata={"plain": plain_items})
    cells_at_once: int = dataclasses.field(default=0, metadata={"free": True})
    memory_gb: float = dataclasses.field(default=0.0, metadata={"free": True})
    figure: str = dataclasses.field(default="", metadata={"free": True})  # for example 'tuned_momentum(target=0.9)'


class Cells:
    """Training runs along some axes, for `train_cells`: a `Grid` or a comparison.

    Attributes:
      axes: the values of each axis, by name.
      numbers: the names of the hyperparameters, see `make_algorithm`.
    """

    axes: Mapping[str, tuple[Any, ...]]
    numbers: tuple[str, ...] = HYPER

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values on each axis."""
        return tuple(len(values) for values in self.axes.values())

    def __len__(self) -> int:
        """The number of cells."""
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self.shape))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(values)}" for name, values in self.axes.items())
        return f"{type(self).__name__}({sizes}; {len(self)} cells)"

    def coordinates(self, index: tuple[int, ...]) -> dict[str, Any]:
        """The values of a cell by axis."""
        return {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        """The config of a cell."""
        raise NotImplementedError

    def environment(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """The fields that determine the environment of a cell, as (field, value)."""
        raise NotImplementedError

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """The coordinates that all cells of a program share, as (name, value)."""
        raise NotImplementedError

    def need(self, count: int, train: TrainConfig) -> None:
        """Raises unless the results of `count` cells fit into memory."""
        updates, *every = (
            _check.integer(f"config.train.{name}", getattr(train, name), 1)
            for name in ("num_updates", "log_every", "eval_every")
        )
        rows = sum(updates // interval for interval in every)
        _memory.need("axes", count, count * (_BYTES_OF_CELL + _BYTES_OF_ROW * rows), f"the results of {count} cells")

    def check(self, field: str = "") -> None:
        """Raises if a cell cannot be trained; the message begins with `field`.

        Valid numbers form intervals, so only the ends of axes are checked, in all combinations; seeds separately.
        """
        ends = {name: _ends(values) for name, values in self.axes.items()}
        corners = lambda axes: itertools.product(*(ends[name] if name in axes else [0] for name in ends))
        for index in dict.fromkeys([*corners(ends.keys() - ENVIRONMENT), *corners(ENVIRONMENT)]):
            try:
                config = self.config(index).check()
                if config.extend:
                    raise ValueError(f"config.extend={config.extend} requires a single run; set num_updates.")
                if config.live:
                    raise ValueError(f"config.execution={config.execution!r} requires a single run; use 'emulated()'.")
                make_algorithm(config)
            except (TypeError, ValueError) as error:
                at = ", ".join(f"{name}={value!r}" for name, value in self.coordinates(index).items())
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{field}the cell {at} is invalid: {error}") from None

    def hyper(self, index: tuple[int, ...]) -> tuple[float, ...]:
        """The hyperparameters `numbers` of a cell."""
        config = self.config(index)
        return tuple(getattr(config, name) for name in self.numbers)


@dataclasses.dataclass(frozen=True, repr=False)
class Grid(Cells):
    """The validated cells of a sweep.

    Attributes:
      train, axes: see `SweepConfig`.
      numbers: learning_rate, momentum and the other axes of hyperparameters.

    Raises:
      ValueError: an axis is unknown or empty, or has a repeated or invalid value; the message names it.

    Example:
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import Grid
      >>> grid = Grid(TrainConfig(), {"momentum": (0.0, 0.5), "seed": (0, 1, 2)})
      >>> len(grid), grid.config((1, 2)).momentum, grid.config((1, 2)).seed
      (6, 0.5, 2)
      >>> grid = Grid(TrainConfig(algorithm="dc_asgd"), {"algorithm.strength": (0, 0.04), "num_workers": (4, 8)})
      >>> grid.config((1, 0)).algorithm, grid.numbers
      ('dc_asgd(strength=0.04)', ('learning_rate', 'momentum', 'algorithm.strength'))
      >>> Grid(TrainConfig(), {"momenta": (0.0, 0.5)})
      Traceback (most recent call last):
        ...
      ValueError: axes: 'momenta' is not a config field that can vary in a sweep; did you mean 'momentum'?
    """

    train: TrainConfig
    axes: Mapping[str, tuple[Any, ...]]

    def __post_init__(self):
        free = [field.name for field in dataclasses.fields(TrainConfig) if field.metadata.get("free")]
        names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in (*free, *ROWS, *PLACES)]
        kinds = typing.get_type_hints(TrainConfig)
        if not self.axes:
            raise ValueError("axes is empty; expected at least one, such as seed=(0, 1, 2).")
        _check.instance("train", self.train, TrainConfig, "a TrainConfig")
        _check.instance("axes", self.axes, Mapping, "a mapping from fields to tuples of values")
        self.need(math.prod(len(values) for values in self.axes.values() if isinstance(values, Sequence)), self.train)
        axes = {}
        for name, values in self.axes.items():
            if name in DATA:
                raise ValueError(
                    f"axes: {name} selects the data, which all cells of a sweep share; set config.train.{name} and run "
                    "one sweep per value."
                )
            if name not in names and not (name.startswith(OPTION) and name.removeprefix(OPTION).isidentifier()):
                raise ValueError(
                    f"axes: {name!r} is not a config field that can vary in a sweep{_check.nearest(name, names)}"
                )
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ValueError(f"axes: {name} must be a tuple of values, got {_check.shown(values)}.")
            if not values:
                raise ValueError(f"axes: {name} is empty; expected at least one value.")
            values = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
            for value in values:  # they become coordinates of the results
                if not isinstance(value, bool | int | float | str) or (isinstance(value, int) and abs(value) >= 2**31):
                    raise ValueError(
                        f"axes: values of {name} must be numbers below 2^31 or strings, got {_check.shown(value)}."
                    )
            values = _floats(values) if kinds.get(name) is float else values
            # Recorded traces are compared by content, which is not read here.
            plain = [plain_call(v) if isinstance(v, str) and "recorded" not in v else v for v in values]
            before: set[Any] = set()
            for value, meaning in zip(values, plain, strict=True):
                if meaning in before:
                    raise ValueError(f"axes: {name} must have distinct values, got {value!r} twice.")
                before.add(meaning)
            axes[name] = values
        object.__setattr__(self, "axes", axes)
        self.check("axes: ")
        options = self.config((0,) * len(axes)).named.algorithm.options
        for name, values in axes.items():
            one = options[name.removeprefix(OPTION)] if name.startswith(OPTION) else None
            axes[name] = _floats(values) if float in map(type, (one, *values)) else values
        object.__setattr__(self, "numbers", self._numbers())

    def _numbers(self) -> tuple[str, ...]:
        """Learning rate, momentum and the other axes of numbers that all methods accept traced."""
        is_option = lambda name, values: name.startswith(OPTION) and {*map(type, values)} == {float}
        options = [name for name, values in self.axes.items() if is_option(name, values)]
        fields = [name for name in self.axes if name in NUMBERS and name not in HYPER]
        varies = lambda name: name.partition(".")[0] == "algorithm" and name not in options
        places = [range(len(values)) if varies(name) else [0] for name, values in self.axes.items()]
        configs = [self.config(index) for index in itertools.product(*places)]
        can_trace_all = lambda name: all(can_trace(config, name) for config in configs)
        return tuple(filter(can_trace_all, (*HYPER, *fields, *options)))

    @classmethod
    def of(cls, config: SweepConfig) -> "Grid":
        """The grid of a `SweepConfig`; raises ValueError if one of its fields is invalid."""
        _check.instance("config", config, SweepConfig, "a SweepConfig")
        _check.integer("cells_at_once", config.cells_at_once, 0)
        _check.scalar("memory_gb", config.memory_gb, low=0.0)
        return cls(config.train, _parse_axes(config.axes))

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        at = self.coordinates(index)
        options = {name.removeprefix(OPTION): at.pop(name) for name in [*at] if name.startswith(OPTION)}
        config = dataclasses.replace(self.train, **at)
        if not options:
            return config
        spec = config.named.algorithm
        for name in options.keys() & spec.options.keys() if "algorithm" in at else ():
            raise ValueError(f"{OPTION}{name} is an axis, but algorithm={config.algorithm!r} sets it too; remove one.")
        return dataclasses.replace(
            config, algorithm=str(dataclasses.replace(spec, options={**spec.options, **options}))
        )

    def hyper(self, index: tuple[int, ...]) -> tuple[float, ...]:
        at = self.coordinates(index)
        return tuple(at[name] if name in at else getattr(self.train, name) for name in self.numbers)

    def environment(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        at = self.coordinates(index)
        return tuple((name, at.get(name, getattr(self.train, name))) for name in ENVIRONMENT)

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        inside = (*self.numbers, *ENVIRONMENT)
        return tuple((name, value) for name, value in self.coordinates(index).items() if name not in inside)


def _floats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Ints as floats."""
    return tuple(float(value) if type(value) is int else value for value in values)


def _ends(values: Sequence[Any]) -> list[int]:
    """The indices of the smallest and the largest number of each type, and of all other values."""
    places = []
    for kind in {*map(type, values)}:
        alike = [i for i, value in enumerate(values) if type(value) is kind]
        none = alike if issubclass(kind, str) else [i for i in alike if values[i] != values[i]]
        places += none or [min(alike, key=values.__getitem__), max(alike, key=values.__getitem__)]
    return sorted({*places})


def _parse_axes(value: Any) -> dict[str, tuple[Any, ...]]:
    """The values of each axis."""
    example = "axes must be like 'momentum=(0, 0.3), seed=(0, 1, 2)'"
    axes: dict[str, tuple[Any, ...]] = {}
    for name, values in parse_items("axes", value):
        if not name:
            raise ValueError(f"{example}, got {values!r} without a name.")
        if name in axes:
            raise ValueError(f"{example}, got {name} twice.")
        values = values.tolist() if isinstance(values, np.ndarray | np.generic) else values
        listed = values if isinstance(values, tuple | list | range) else (values,)
        axes[name] = tuple(one for value in listed for one in in_range(f"axes: {name}", value))
    return axes
