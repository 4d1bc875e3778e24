"""Which trainings a comparison of methods consists of."""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from asyncflax import _check, algorithms, queues
from asyncflax.base import AsyncAlgorithm
from asyncflax.lab.compare.orders import claimed, slug
from asyncflax.lab.compare.summary import RULES
from asyncflax.lab.statistics import criterion_digest
from asyncflax.lab.sweep.grid import Cells
from asyncflax.train import asynchrony
from asyncflax.train.asynchrony import Asynchrony
from asyncflax.train.config import TrainConfig
from asyncflax.train.method import is_of_optax
from asyncflax.train.options import Items, Spec, makers, parse_items, plain_items, read, typed

_METHODS = makers(algorithms, AsyncAlgorithm)
_OWN = ("learning_rate", "momentum")  # options of a method that are fields of the config
_FREE = {"free": True}
_ITEMS = {"plain": plain_items}


@dataclasses.dataclass
class CompareConfig:
    """Methods x service times x numbers of workers x seeds, as many trainings.

    Methods, service times and orders are items: a mapping by label, a tuple, or the text of a flag.

    Attributes:
      train: what all trainings have in common. Its algorithm, num_workers and seed are not used; its momentum goes to
        the methods that have one, and its asynchrony, a queue, gets the service times.
      methods: of `asyncflax.algorithms` or your own, as in 'mild=ormo(momentum=0.5), asgd'; a label is a method's name
        where there is no other. learning_rate and momentum may be options: they replace those of `train`.
      service_times: of `asyncflax.queues` or your own, as items, each of them an environment of its own.
      num_workers: M, the numbers of workers.
      seeds: of trace, data and initial weights, which all methods share.
      learning_rate_scales: what the learning rate of every method is multiplied by to find its best; () tries one.
      linear_scaling: the methods whose learning rate is multiplied by M. A name of a method stands for all entries with
        it, whatever their labels; one that is not compared has no effect.
      pick: how the learning rate is picked where several are tried, see `compare.RULES`.
      failed_below: a test accuracy at the end that is lower counts as a failure, as if the training had diverged.
      target: a test accuracy; how long it takes to reach it is in the tables; 0 for none.
      orders: labels of methods, best first, as in {"dana": ("dana_slim", "multi_asgd", "nag_asgd")}; see
        `compare.parse_orders`. `draw_comparison` makes a claim of each. One with a method that is not compared has no
        effect.
      equals: likewise, of methods that are said to be equal.
      choosing: how many of the first seeds pick the learning rate, where several are tried; the others judge.
      exception: why fewer seeds judge than `statistics.JUDGING_SEEDS`; without it these make no claim.
      source: the paper that claims the orders, and where in it; a mapping by name has one for each.
      paper: what it says, in a line; likewise.
      cells_at_once: how many trainings one program makes together; 0 takes as many as are fast and fit into memory.
      memory_gb: how much memory a program may take, in 10^9 bytes; 0 takes what the device has.

    Example:
      >>> from asyncflax.lab.compare import CompareConfig, Comparison
      >>> config = CompareConfig(
      ...     methods={"asgd": "asgd", "mild": "momentum_asgd(momentum=0.3)", "usual": "momentum_asgd"},
      ...     service_times="equal=gamma(cv=0.1), stragglers(share=0.0625)",
      ...     num_workers=(16, 64),
      ... )
      >>> Comparison(config)
      Comparison(method: 3, service_time: 2, num_workers: 2, seed: 3; 36 cells)
    """

    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    methods: Items = dataclasses.field(default=("asgd", "momentum_asgd"), metadata=_ITEMS)
    service_times: Items = dataclasses.field(default="homogeneous=gamma(cv=0.1)", metadata=_ITEMS)
    num_workers: tuple[int, ...] = (8,)
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rate_scales: tuple[float, ...] = ()  # for example 0.5, 1, 2
    linear_scaling: Items = dataclasses.field(default=(), metadata=_ITEMS)
    pick: str = dataclasses.field(default="train_loss", metadata=_FREE)
    failed_below: float = dataclasses.field(default=0.0, metadata=_FREE)
    target: float = dataclasses.field(default=0.0, metadata=_FREE)
    orders: Items = dataclasses.field(default=(), metadata=_FREE)
    equals: Items = dataclasses.field(default=(), metadata=_FREE)
    choosing: int = dataclasses.field(default=0, metadata=_FREE)
    exception: str = dataclasses.field(default="", metadata=_FREE)
    source: Items = dataclasses.field(default="no paper", metadata=_FREE)
    paper: Items = dataclasses.field(default="no number", metadata=_FREE)
    cells_at_once: int = dataclasses.field(default=0, metadata=_FREE)
    memory_gb: float = dataclasses.field(default=0.0, metadata=_FREE)

    @property
    def cited(self) -> list[Any]:
        """What makes the methods, for `asyncflax.citation`."""
        return list(dict.fromkeys(spec.function for spec in named_methods(self).values()))


class Comparison(Cells):
    """The cells of a comparison; every one has been checked.

    Args:
      config: of the comparison.

    Attributes:
      axes: method, service_time, num_workers, learning_rate_scale (where some are tried) and seed, with their values.
      methods: `Spec` by label.
      service_times: `Spec` by label.

    Raises:
      TypeError, ValueError: a name, an option or a value is wrong; the message names the field and the value.

    Example:
      >>> from asyncflax.lab.compare import CompareConfig, Comparison
      >>> comparison = Comparison(CompareConfig(methods="asgd, ssgd", linear_scaling="ssgd"))
      >>> cell = comparison.config((1, 0, 0, 2))
      >>> cell.algorithm, cell.asynchrony, cell.learning_rate, cell.seed
      ('ssgd()', 'barrier(service_time=gamma(cv=0.1))', 0.4, 2)
      >>> Comparison(CompareConfig(methods="asgd, multi_agsd"))  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: config.methods must be one of 'asgd', ..., got 'multi_agsd'; did you mean 'multi_asgd'?
    """

    together = (("method", "service_time", "num_workers", "learning_rate_scale"),)

    def __init__(self, config: CompareConfig):
        _check.instance("config", config, CompareConfig, "a CompareConfig")
        _check.instance("config.train", config.train, TrainConfig, "a TrainConfig")
        self._config, self._train = config, dataclasses.replace(config.train)
        self._queue = read("config.train.asynchrony", config.train.asynchrony, makers(asynchrony, Asynchrony))
        self._check_fields()
        self.methods = named_methods(config)
        laws = makers(queues, queues.ServiceTime)
        self.service_times = _read_all("config.service_times", config.service_times, laws, queues.ServiceTime)
        self._scaled = [str(name) for _, name in parse_items("config.linear_scaling", config.linear_scaling)]
        names = [spec.name for spec in self.methods.values()]
        for label in self._scaled:
            if label not in (*self.methods, *names, *_METHODS):  # the config may be for more methods
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
        self.need(len(self), self._train)
        self._fields = {label: self._method(label) for label in self.methods}
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
            if len(set(values)) < len(values):
                twice = next(value for i, value in enumerate(values) if value in values[:i])
                raise ValueError(f"config.{name} has the value {twice!r} twice.")
        _check.choice("config.pick", config.pick, list(RULES))
        for name in ("failed_below", "target"):
            _check.scalar(f"config.{name}", getattr(config, name), low=0.0, high=1.0)
        _check.integer("config.cells_at_once", config.cells_at_once, 0)
        _check.integer("config.choosing", config.choosing, 0, len(config.seeds) - 1)
        _check.instance("config.exception", config.exception, str, "the reason for fewer seeds, or ''")
        _check.scalar("config.memory_gb", config.memory_gb, low=0.0)
        if self._queue.name != "queue":
            raise ValueError(
                f"config.train.asynchrony={config.train.asynchrony!r}: here traces follow from service_times; "
                "take 'queue(...)'."
            )

    def _check_orders(self) -> None:
        orders = claimed({"orders": self._config.orders, "equals": self._config.equals})
        for order in orders:
            field = "config.equals" if order.equal else "config.orders"
            for label in order.lacking(self.methods):
                if "*" not in label and label not in _METHODS:  # the config may be for more methods
                    hint = _check.nearest(label, list(self.methods))
                    raise ValueError(f"{field}: {label!r} is no label of config.methods{hint}")
            labels = [label for place in order.of(self.methods).places for label in place]
            twice = [label for i, label in enumerate(labels) if label in labels[:i]]
            if twice:
                raise ValueError(f"{field}: {str(order)!r} has {twice[0]!r} twice.")
        slugs = [slug(label) for label in self.service_times]
        if orders and (not all(slugs) or len(set(slugs)) < len(slugs)):
            raise ValueError(
                "config.service_times: labels must differ in letters a-z and digits, which the names of the claims of "
                f"config.orders have, got {', '.join(map(repr, self.service_times))}."
            )
        names = [order.name for order in orders]
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise ValueError(f"config.orders and config.equals have the name {twice[0]!r} twice; give one another.")
        for name in ("source", "paper"):
            texts = getattr(self._config, name)
            if isinstance(texts, Mapping) and (missing := [order for order in names if order not in texts]):
                raise ValueError(f"config.{name} has no text for {', '.join(missing)}.")
            for text in texts.values() if isinstance(texts, Mapping) else [texts]:
                _check.instance(f"config.{name}", text, str, "one line of text")
                if not text.strip() or "\n" in text:
                    raise ValueError(f"config.{name} must be one line of text, got {text!r}.")

    def _method(self, label: str) -> dict[str, Any]:
        """The fields of a training that say what the server does."""
        spec = self.methods[label]
        plain = str(spec.without(*_OWN))
        of_optax = is_of_optax(
            dataclasses.replace(self._train, algorithm=plain, num_workers=self._config.num_workers[0])
        )
        fields = ("learning_rate",) if of_optax else _OWN
        own = {k: typed(f"config.methods: {label}: {k}", spec.options[k], float) for k in fields if k in spec.options}
        momentum = self._train.momentum if "momentum" in fields and spec.accepts("momentum") else 0.0
        return {"algorithm": str(spec.without(*own)), "momentum": momentum, **own}

    def _check_cells(self) -> None:
        labels: dict[str, str] = {}
        for label, spec in self.service_times.items():
            if str(spec) in labels:
                raise ValueError(f"config.service_times: {labels[str(spec)]!r} and {label!r} are the same.")
            labels[str(spec)] = label
            spec.make()
        self.check()

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        """The config of a cell's training, as `launch/train.py` would run it."""
        at = self.coordinates(index)
        method, num_workers = at["method"], at["num_workers"]
        fields, law = dict(self._fields[method]), self.service_times[at["service_time"]]
        if self.methods[method].name == "ssgd":
            fields["asynchrony"] = f"barrier(service_time={law})"
        else:
            own = {**self._queue.options, "service_time": law}
            fields["asynchrony"] = str(dataclasses.replace(self._queue, options=own))
        rate = fields.get("learning_rate", self._train.learning_rate) * at.get("learning_rate_scale", 1.0)
        fields["learning_rate"] = rate * num_workers if self._is_scaled(method) else rate
        return dataclasses.replace(self._train, **fields, num_workers=num_workers, seed=at["seed"])

    def _is_scaled(self, label: str) -> bool:
        return label in self._scaled or self.methods[label].name in self._scaled

    def environment(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What the methods share: service times and seed, as (field, value). From it follow trace, data and weights."""
        config = self.config(index)
        return tuple((name, getattr(config, name)) for name in ("asynchrony", "seed"))

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """What all cells of one program have in common, as (axis, value)."""
        return tuple((name, self.coordinates(index)[name]) for name in ("method", "num_workers"))


def named_methods(config: CompareConfig) -> dict[str, Spec]:
    """The methods of a comparison by label.

    >>> from asyncflax.lab.compare import CompareConfig
    >>> from asyncflax.lab.compare.grid import named_methods
    >>> str(named_methods(CompareConfig(methods="asgd, mild=ormo(momentum=0.5)"))["mild"])
    'ormo(momentum=0.5)'
    """
    return _read_all("config.methods", config.methods, _METHODS, AsyncAlgorithm, optax.GradientTransformation)


def criteria(config: CompareConfig) -> dict[str, str]:
    """By what each order of a comparison is judged: `statistics.criterion_digest` by its name.

    It is of the config, of the seeds that judge and of the order, so it is known before anything is trained.

    Args:
      config: of a comparison.

    Example:
      >>> from asyncflax.lab.compare import CompareConfig, criteria
      >>> list(criteria(CompareConfig(orders={"plain": ("asgd", "momentum_asgd")})))
      ['plain']
    """
    about = {"choosing": config.choosing, "pick": config.pick}
    return {
        order.name: criterion_digest(
            config,
            config.seeds[config.choosing :],
            order=str(order),
            metric=order.criterion,
            bound=order.bound,
            **about,
        )
        for order in claimed({"orders": config.orders, "equals": config.equals})
    }


def _read_all(field: str, items: Any, library: Mapping[str, Callable[..., Any]], *kinds: type) -> dict[str, Spec]:
    """What the items of a field name, by their labels."""
    specs: dict[str, Spec] = {}
    for label, text in parse_items(field, items):
        if set("|\n") & {*label}:
            raise ValueError(f"{field}: {label!r} must be a line without '|', which separates columns of tables.")
        given = ("num_workers", "weight_decay")
        spec = read(f"{field}: {label}" if label else field, text, library, given, kinds, given_imported=())
        label = label or spec.name
        if label in specs:
            raise ValueError(f"{field} has {label!r} twice; give one a label, as in 'another={text}'.")
        specs[label] = spec
    if not specs:
        raise ValueError(f"{field} is empty; it needs one entry at least, as {next(iter(library))!r}.")
    return specs
