"""Which trainings a comparison of methods consists of."""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
import re
from typing import Any, NamedTuple

from asyncflax import _check, algorithms, queues
from asyncflax.lab.compare.orders import parse_orders, slug
from asyncflax.lab.compare.summary import RULES
from asyncflax.lab.sweep.grid import Cells
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_algorithm
from asyncflax.train.options import parameters_of, parse_options, returning

_ENTRY = re.compile(r"(?:(?P<label>[^:()]+):)?\s*(?P<name>\w+)\s*(?:\((?P<options>.*)\))?", re.DOTALL)
_WORKERS = re.compile(r"(?<![\w.'\"])M(?:\s*/\s*([1-9]\d*))?(?![\w.'\"]|\s*/)")
_OWN = ("learning_rate", "momentum")  # options of a method that are fields of the config
_FREE = {"free": True}


@dataclasses.dataclass
class CompareConfig:
    """Methods x service times x numbers of workers x seeds, as many trainings.

    In options, M stands for the number of workers, and M/16 for a sixteenth of them, rounded up.

    Attributes:
      train: what all trainings have in common. Its algorithm, service time, num_workers and seed are not used; its
        momentum goes to the methods that have one.
      methods: of `asyncflax.algorithms`, separated by semicolons, with options and labels where wanted. learning_rate
        and momentum may be options: they replace those of `train`.
      service_times: laws of `asyncflax.queues` in the same way, each of them an environment of its own.
      num_workers: M, the numbers of workers.
      seeds: of trace, data and initial weights, which all methods share.
      learning_rate_scales: what the learning rate of every method is multiplied by to find its best; () tries one.
      linear_scaling: the methods whose learning rate is multiplied by M, separated by semicolons. A name of a method
        stands for all entries with it, whatever their labels; one that is not compared has no effect.
      pick: how the learning rate is picked where several are tried, see `compare.RULES`.
      failed_below: a test accuracy at the end that is lower counts as a failure, as if the training had diverged.
      target: a test accuracy; how long it takes to reach it is in the tables; 0 for none.
      orders: in labels of methods, best first, as 'dana_slim > multi_asgd > nag_asgd; name: ormo > asgd, smega2'; see
        `compare.parse_orders`. `draw_comparison` makes a claim of each. One with a method that is not compared has no
        effect.
      source: the paper that claims the orders, and where in it.
      paper: what it says, in a line.
      cells_at_once: how many trainings one program makes together; 0 takes as many as are fast and fit into memory.
      memory_gb: how much memory a program may take, in 10^9 bytes; 0 takes what the device has.

    Example:
      >>> from asyncflax.lab.compare import CompareConfig, Comparison
      >>> config = CompareConfig(
      ...     methods="asgd; momentum_asgd; mild: momentum_asgd(momentum=0.3)",
      ...     service_times="equal: gamma(cv=0.1); stragglers: stragglers(num_slow=M/16)",
      ...     num_workers=(16, 64),
      ... )
      >>> Comparison(config)
      Comparison(method: 3, service_time: 2, num_workers: 2, seed: 3; 36 cells)
    """

    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    methods: str = "asgd; momentum_asgd"  # for example 'asgd; dana_dc(strength=2.0); mild: ormo(momentum=0.5)'
    service_times: str = "homogeneous: gamma(cv=0.1)"  # for example 'equal: gamma; slow: stragglers(num_slow=M/16)'
    num_workers: tuple[int, ...] = (8,)
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rate_scales: tuple[float, ...] = ()  # for example 0.5, 1, 2
    linear_scaling: str = ""  # for example 'ssgd'
    pick: str = dataclasses.field(default="train_loss", metadata=_FREE)
    failed_below: float = dataclasses.field(default=0.0, metadata=_FREE)
    target: float = dataclasses.field(default=0.0, metadata=_FREE)
    orders: str = dataclasses.field(default="", metadata=_FREE)
    source: str = dataclasses.field(default="no paper", metadata=_FREE)
    paper: str = dataclasses.field(default="no number", metadata=_FREE)
    cells_at_once: int = dataclasses.field(default=0, metadata=_FREE)
    memory_gb: float = dataclasses.field(default=0.0, metadata=_FREE)

    @property
    def cited(self) -> list[str]:
        """The names of all methods, for `asyncflax.citation`."""
        return list(dict.fromkeys(entry.name for entry in named_methods(self).values()))


class Entry(NamedTuple):
    """A function of the library that a config names, with its options as they were typed.

    Attributes:
      name: of the function.
      options: for example 'strength=2.0'.
    """

    name: str
    options: str


class Comparison(Cells):
    """The cells of a comparison; every one has been checked.

    Args:
      config: of the comparison.

    Attributes:
      axes: method, service_time, num_workers, learning_rate_scale (where some are tried) and seed, with their values.
      methods: `Entry` by label.
      service_times: `Entry` by label.

    Raises:
      TypeError, ValueError: a name, an option or a value is wrong; the message names the field and the value.

    Example:
      >>> from asyncflax.lab.compare import CompareConfig, Comparison
      >>> comparison = Comparison(CompareConfig(methods="asgd; ssgd", linear_scaling="ssgd"))
      >>> cell = comparison.config((1, 0, 0, 2))
      >>> cell.algorithm, cell.barrier, cell.service_time, cell.learning_rate, cell.seed
      ('ssgd', True, 'gamma', 0.4, 2)
      >>> Comparison(CompareConfig(methods="asgd; multi_agsd"))
      Traceback (most recent call last):
        ...
      ValueError: config.methods: 'multi_agsd' is none of asyncflax.algorithms; did you mean 'multi_asgd'?
    """

    def __init__(self, config: CompareConfig):
        self._config, self._train = config, dataclasses.replace(config.train)
        self._check_fields()
        self.methods = named_methods(config)
        laws = returning(queues, "ServiceTime")
        self.service_times = _entries("service_times", config.service_times, laws, "the laws of asyncflax.queues")
        self._scaled = [label for part in config.linear_scaling.split(";") if (label := part.strip())]
        for label in self._scaled:
            if label not in self.methods and label not in algorithms.__all__:  # the config may be for more methods
                hint = _check.nearest(label, list(self.methods))
                raise ValueError(f"config.linear_scaling: {label!r} is no label of config.methods{hint}")
        self._check_orders()
        axes: dict[str, tuple[Any, ...]] = {
            "method": tuple(self.methods),
            "service_time": tuple(self.service_times),
            "num_workers": tuple(config.num_workers),
            "learning_rate_scale": tuple(map(float, config.learning_rate_scales)),
            "seed": tuple(config.seeds),
        }
        if not config.learning_rate_scales:
            del axes["learning_rate_scale"]
        self.axes = axes
        self._laws = {(k, m): self._law(k, m) for k in self.service_times for m in config.num_workers}
        self._fields = {(k, m): self._method(k, m) for k in self.methods for m in config.num_workers}
        self._check_cells()

    def _check_fields(self) -> None:
        config = self._config
        scales = "learning_rate_scales"
        for name in ("num_workers", "seeds", scales):
            values = getattr(config, name)
            if not isinstance(values, tuple | list) or (not values and name != scales):
                raise ValueError(f"config.{name} must be a tuple of one value or more, got {values!r}.")
            for value in values:
                if name == scales:
                    _check.scalar(f"config.{name}", value, low=0.0, exclusive_low=True)
                else:
                    _check.integer(f"config.{name}", value, 1 if name == "num_workers" else 0, 2**31 - 1)
            twice = [value for i, value in enumerate(values) if value in values[:i]]
            if twice:
                raise ValueError(f"config.{name} has the value {twice[0]!r} twice.")
        _check.choice("config.pick", config.pick, list(RULES))
        for name in ("failed_below", "target"):
            _check.scalar(f"config.{name}", getattr(config, name), low=0.0, high=1.0)
        _check.integer("config.cells_at_once", config.cells_at_once, 0)
        _check.scalar("config.memory_gb", config.memory_gb, low=0.0)
        for name in ("barrier", "staleness", "trace"):
            if getattr(config.train, name):
                raise ValueError(
                    f"config.train.{name}={getattr(config.train, name)!r}: here traces follow from service_times."
                )

    def _check_orders(self) -> None:
        orders = parse_orders(self._config.orders)
        for order in orders:
            for label in order.lacking(self.methods):
                if "*" not in label and label not in algorithms.__all__:  # the config may be for more methods
                    hint = _check.nearest(label, list(self.methods))
                    raise ValueError(f"config.orders: {label!r} is no label of config.methods{hint}")
            labels = [label for place in order.of(self.methods).places for label in place]
            twice = [label for i, label in enumerate(labels) if label in labels[:i]]
            if twice:
                raise ValueError(f"config.orders: {str(order)!r} has {twice[0]!r} twice.")
        slugs = [slug(label) for label in self.service_times]
        if orders and (not all(slugs) or len(set(slugs)) < len(slugs)):
            raise ValueError(
                "config.service_times: labels must differ in letters a-z and digits, which the names of the claims of "
                f"config.orders have, got {', '.join(map(repr, self.service_times))}."
            )
        for name in ("source", "paper"):
            text = getattr(self._config, name)
            _check.instance(f"config.{name}", text, str, "one line of text")
            if not text.strip() or "\n" in text:
                raise ValueError(f"config.{name} must be one line of text, got {text!r}.")

    def _law(self, label: str, num_workers: int) -> dict[str, Any]:
        """The fields of a training that say how long gradients take."""
        entry = self.service_times[label]
        law, options = getattr(queues, entry.name), _for_workers(entry.options, num_workers)
        arguments = parse_options(f"config.service_times: {label}", options, law)
        try:
            law(**arguments)
        except (TypeError, ValueError) as error:
            raise type(error)(f"config.service_times: {label}: {error}") from None
        return {"service_time": entry.name, "service_time_options": options}

    def _method(self, label: str, num_workers: int) -> dict[str, Any]:
        """The fields of a training that say what the server does."""
        entry = self.methods[label]
        make = getattr(algorithms, entry.name)
        text = _for_workers(entry.options, num_workers)
        options = parse_options(f"config.methods: {label}", text, make, given=("num_workers", "weight_decay"))
        own = {name: options.pop(name) for name in _OWN if name in options}
        has_momentum = "momentum" in parameters_of(make)
        return {
            "algorithm": entry.name,
            "algorithm_options": ", ".join(f"{name}={value!r}" for name, value in options.items()),
            "barrier": entry.name == "ssgd",
            "momentum": self._train.momentum if has_momentum else 0.0,
            **own,
        }

    def _check_cells(self) -> None:
        for num_workers in self.axes["num_workers"]:
            laws = {}
            for label in self.service_times:
                law = tuple(self._laws[label, num_workers].values())
                if law in laws:
                    raise ValueError(
                        f"config.service_times: {laws[law]!r} and {label!r} are the same with {num_workers} workers."
                    )
                laws[law] = label
        for index in self:
            try:
                config = self.config(index)
                config.check()
                make_algorithm(config)
            except (TypeError, ValueError) as error:
                at = ", ".join(f"{name}={value!r}" for name, value in self.coordinates(index).items())
                raise type(error)(f"the cell {at} is refused: {error}") from None

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        """The config of a cell's training, as `launch/train.py` would run it."""
        at = self.coordinates(index)
        method, num_workers = at["method"], at["num_workers"]
        fields = self._laws[at["service_time"], num_workers] | self._fields[method, num_workers]
        rate = fields.get("learning_rate", self._train.learning_rate) * at.get("learning_rate_scale", 1.0)
        fields["learning_rate"] = rate * num_workers if self._is_scaled(method) else rate
        return dataclasses.replace(self._train, **fields, num_workers=num_workers, seed=at["seed"])

    def _is_scaled(self, label: str) -> bool:
        return label in self._scaled or self.methods[label].name in self._scaled

    def environment(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What the methods share: service times and seed, as (field, value). From it follow trace, data and weights."""
        config = self.config(index)
        return tuple((name, getattr(config, name)) for name in ("service_time", "service_time_options", "seed"))

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What all cells of one program have in common, as (axis, value)."""
        return tuple((name, self.coordinates(index)[name]) for name in ("method", "num_workers"))


def named_methods(config: CompareConfig) -> dict[str, Entry]:
    """The methods of a comparison by label.

    >>> from asyncflax.lab.compare import CompareConfig
    >>> from asyncflax.lab.compare.grid import named_methods
    >>> named_methods(CompareConfig(methods="asgd; mild: ormo(momentum=0.5)"))["mild"]
    Entry(name='ormo', options='momentum=0.5')
    """
    return _entries("methods", config.methods, algorithms.__all__, "asyncflax.algorithms")


def _entries(field: str, text: str, names: list[str], where: str) -> dict[str, Entry]:
    """Entries like 'asgd; mild: ormo(momentum=0.5)' by their labels."""
    entries: dict[str, Entry] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        found = _ENTRY.fullmatch(part)
        if not found:
            raise ValueError(
                f"config.{field} must be like 'name; name(option=1); label: name(option=2)', got {part!r}."
            )
        name, label = found["name"], (found["label"] or found["name"]).strip()
        if name not in names:
            raise ValueError(f"config.{field}: {name!r} is none of {where}{_check.nearest(name, names)}")
        if label in entries:
            raise ValueError(f"config.{field} has {label!r} twice; give one a label, as in 'another: {part}'.")
        entries[label] = Entry(name, (found["options"] or "").strip())
    if not entries:
        raise ValueError(f"config.{field} is empty; it needs one of {where} at least.")
    return entries


def _for_workers(options: str, num_workers: int) -> str:
    """The options with the number of workers in place of M, and its parts, rounded up, in place of M/k."""
    return _WORKERS.sub(lambda found: str(-(-num_workers // int(found[1] or 1))), options)
