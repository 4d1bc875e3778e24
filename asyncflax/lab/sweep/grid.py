"""Which trainings a sweep consists of.

The cells of a grid differ in three ways. Hyper-parameters (learning rate, momentum) are numbers in one program. The
seed changes what cells share: trace, order of the data, initial weights, the *environment*. Any other field of the
config changes the program itself, but for those that say which data are loaded: all cells train on the same.
"""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from asyncflax import _check, _memory
from asyncflax.train.config import TrainConfig
from asyncflax.train.method import make_algorithm
from asyncflax.train.options import Items, in_range, parse_items, plain_call, plain_items

HYPER = ("learning_rate", "momentum")
ENVIRONMENT = ("seed",)
_BYTES_OF_CELL, _BYTES_OF_ROW = 4000, 128  # what a sweep keeps of a cell, and of each row of its metrics
_DATA = ("dataset", "data_dir", "data_cache", "classes")  # which data are loaded, once for all cells
_NO_AXES = ("num_updates", "width", "log_every", "eval_every", "eval_batch_size", "checkpoint_every")


@dataclasses.dataclass
class SweepConfig:
    """A grid of trainings.

    Attributes:
      train: what all cells have in common.
      axes: the fields of `train` that vary, and their values.
      cells_at_once: how many cells one program trains together; 0 takes as many as are fast and fit into memory.
      memory_gb: how much memory a program may take, in 10^9 bytes; 0 takes what the device has.
      figure: which figure shows the results, one of `asyncflax.lab.figures` or your own; '' draws the grid itself.

    Example:
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import Grid, SweepConfig
      >>> axes = {"num_workers": (1, 8), "momentum": (0.0, 0.5, 0.9), "seed": (0, 1)}
      >>> config = SweepConfig(TrainConfig(), axes)
      >>> Grid.of(config)
      Grid(num_workers: 2, momentum: 3, seed: 2; 12 cells)
    """

    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    # By name of a field of `train`, its values; in a flag 'num_workers=(1, 8), algorithm=(asgd, dc_asgd(strength=1))'.
    axes: Items = dataclasses.field(default="seed=(0,)", metadata={"plain": plain_items})
    cells_at_once: int = dataclasses.field(default=0, metadata={"free": True})
    memory_gb: float = dataclasses.field(default=0.0, metadata={"free": True})
    figure: str = dataclasses.field(default="", metadata={"free": True})  # for example 'tuned_momentum(target=0.9)'


class Cells:
    """Trainings along some axes, as `train_cells` works through them; a `Grid`, or what a comparison consists of.

    Attributes:
      axes: by name, its values.
    """

    axes: Mapping[str, tuple[Any, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
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
        """The values of a cell, by name of the axis."""
        return {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        """The config of a cell's training, as `launch/train.py` would run it."""
        raise NotImplementedError

    def environment(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What cells with other hyper-parameters share with this one, as (field, value)."""
        raise NotImplementedError

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What all cells of one program have in common, as (name, value)."""
        raise NotImplementedError

    def need(self, count: int, train: TrainConfig) -> None:
        """Raises where the results of so many cells do not fit into memory."""
        updates, *every = (
            _check.integer(f"config.train.{name}", getattr(train, name), 1)
            for name in ("num_updates", "log_every", "eval_every")
        )
        rows = sum(updates // interval for interval in every)
        _memory.need("axes", count, count * (_BYTES_OF_CELL + _BYTES_OF_ROW * rows), f"the results of {count} cells")

    def check(self, field: str = "") -> None:
        """Raises where a cell cannot be trained, in a sentence that begins with the field."""
        for index in self:
            try:
                config = self.config(index)
                config.check()
                make_algorithm(config)
            except (TypeError, ValueError) as error:
                at = ", ".join(f"{name}={value!r}" for name, value in self.coordinates(index).items())
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{field}the cell {at} is refused: {error}") from None

    def hyper(self, index: tuple[int, ...]) -> tuple[float, float]:
        """The learning rate and the momentum of a cell."""
        config = self.config(index)
        return config.learning_rate, config.momentum


@dataclasses.dataclass(frozen=True, repr=False)
class Grid(Cells):
    """The cells of a sweep; every one has been checked.

    Attributes:
      train: what all cells have in common.
      axes: by name of a field of `train`, its values.

    Raises:
      ValueError: an axis is unknown or empty, has a value twice or one that the config refuses; the message names it.

    Example:
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.lab.sweep import Grid
      >>> grid = Grid(TrainConfig(), {"momentum": (0.0, 0.5), "seed": (0, 1, 2)})
      >>> len(grid), grid.config((1, 2)).momentum, grid.config((1, 2)).seed
      (6, 0.5, 2)
      >>> Grid(TrainConfig(), {"momenta": (0.0, 0.5)})
      Traceback (most recent call last):
        ...
      ValueError: axes: 'momenta' is no field of the config that can vary in a sweep; did you mean 'momentum'?
    """

    train: TrainConfig
    axes: Mapping[str, tuple[Any, ...]]

    def __post_init__(self):
        free = [field.name for field in dataclasses.fields(TrainConfig) if field.metadata.get("free")]
        names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in (*free, *_NO_AXES)]
        if not self.axes:
            raise ValueError("axes is empty; a sweep needs one at least, such as seed=(0, 1, 2).")
        _check.instance("train", self.train, TrainConfig, "a TrainConfig")
        _check.instance("axes", self.axes, Mapping, "a mapping from fields to tuples of values")
        self.need(math.prod(len(values) for values in self.axes.values() if isinstance(values, Sequence)), self.train)
        axes = {}
        for name, values in self.axes.items():
            if name in _DATA:
                raise ValueError(
                    f"axes: {name} decides which data are loaded, and all cells of a sweep train on the same; set "
                    f"config.train.{name}, and make a sweep of its own for each value."
                )
            if name not in names:
                raise ValueError(
                    f"axes: {name!r} is no field of the config that can vary in a sweep{_check.nearest(name, names)}"
                )
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ValueError(f"axes: {name} must be a tuple of values, got {_check.shown(values)}.")
            if not values:
                raise ValueError(f"axes: {name} is empty, so the grid has no cell.")
            values = tuple(float(v) if name in HYPER and type(v) is int else v for v in values)
            for value in values:  # what a coordinate of the results can be
                if not isinstance(value, bool | int | float | str) or (isinstance(value, int) and value >= 2**31):
                    raise ValueError(
                        f"axes: {name} must have numbers below 2^31 or texts as values, got {_check.shown(value)}."
                    )
            # A recorded trace is known by its content, which nobody has looked at yet.
            plain = [value if "recorded" in str(value) else plain_call(value) for value in values]
            before: set[Any] = set()
            for value, meaning in zip(values, plain, strict=True):
                if meaning in before:
                    raise ValueError(f"axes: {name} has the value {value!r} twice.")
                before.add(meaning)
            axes[name] = values
        object.__setattr__(self, "axes", axes)
        self.check("axes: ")

    @classmethod
    def of(cls, config: SweepConfig) -> "Grid":
        """The grid of a `SweepConfig`.

        Raises:
          ValueError: as the class, or another field cannot be read.
        """
        _check.instance("config", config, SweepConfig, "a SweepConfig")
        _check.integer("cells_at_once", config.cells_at_once, 0)
        _check.scalar("memory_gb", config.memory_gb, low=0.0)
        return cls(config.train, _parse_axes(config.axes))

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        """The config of a cell's training, as `launch/train.py` would run it."""
        return dataclasses.replace(self.train, **self.coordinates(index))

    def environment(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What cells with other hyper-parameters share with this one, as (field, value)."""
        return tuple((name, getattr(self.config(index), name)) for name in ENVIRONMENT)

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What all cells of one program have in common beyond `train`, as (field, value)."""
        inside = (*HYPER, *ENVIRONMENT)
        return tuple((name, value) for name, value in self.coordinates(index).items() if name not in inside)


def _parse_axes(value: Any) -> dict[str, tuple[Any, ...]]:
    """The values of each axis; a single value is an axis of one."""
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
