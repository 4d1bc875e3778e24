"""The cells of a comparison."""

# No `from __future__ import annotations`: config flags need the types of fields, not their names.

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from asyncflax import _check, algorithms, queues
from asyncflax.base import AsyncAlgorithm
from asyncflax.lab.compare.orders import claimed, repeated, slug
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
    """Methods x service times x numbers of workers x seeds.

    Methods, service times and orders are given as a mapping by label, a tuple, or the text of a flag.

    Attributes:
      train: the config shared by all cells. Its algorithm, num_workers and seed are ignored; its momentum applies to
        the methods that have one, and its asynchrony, a queue, takes the service times.
      methods: methods of `asyncflax.algorithms` or your own, as in 'mild=ormo(momentum=0.5), asgd'; a label defaults to
        the name. The options learning_rate and momentum replace those of `train`.
      service_times: service times of `asyncflax.queues` or your own.
      num_workers: the numbers of workers, M.
      seeds: the seeds of trace, data order and initial weights, which all methods share.
      learning_rate_scales: factors of every method's learning rate, of which the best is picked; () keeps the rate.
      linear_scaling: the names or labels of methods whose learning rate is multiplied by M.
      pick: the rule that picks the learning rate, see `compare.RULES`.
      failed_below: the final test accuracy below which a run counts as failed, as diverged runs do.
      target: a test accuracy; the tables report the time to reach it; 0 for none.
      orders: labels of methods, best first, as in {"dana": ("dana_slim", "multi_asgd", "nag_asgd")}; see
        `compare.parse_orders`. `draw_comparison` writes a claim for each order whose methods are all compared.
      equals: likewise, methods claimed to be equal.
      choosing: the number of leading seeds that pick the learning rate if several are tried; the others judge.
      exception: the reason why fewer than `statistics.JUDGING_SEEDS` seeds judge; without it, they make no claim.
      source: the paper that claims the orders and the place in it; one text for all, or a mapping by name.
      paper: the published result, likewise.
      cells_at_once: the number of cells per program; 0 takes as many as are fast and fit into memory.
      memory_gb: the memory per program, in 10^9 bytes; 0 takes what the device has.

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
        """The factories of the methods, for `asyncflax.citation`."""
        return list(dict.fromkeys(spec.function for spec in named_methods(self).values()))


class Comparison(Cells):
    """The validated cells of a comparison.

    Args:
      config: the config of the comparison.

    Attributes:
      axes: method, service_time, num_workers, learning_rate_scale (if some are tried) and seed, with their values.
      methods: the `Spec` of each method, by label.
      service_times: the `Spec` of each service time, by label.

    Raises:
      TypeError, ValueError: a name, an option or a value is invalid; the message names the field and the value.

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
                raise ValueError(f"config.linear_scaling: {label!r} is not a label of config.methods{hint}")
        self._check_orders()
        scales = {"learning_rate_scale": tuple(map(float, config.learning_rate_scales))}
        self.axes = {
            "method": tuple(self.methods),
            "service_time": tuple(self.service_times),
            "num_workers": tuple(config.num_workers),
            **(scales if config.learning_rate_scales else {}),
            "seed": tuple(config.seeds),
        }
        self.need(len(self), self._train)
        self._fields = {label: self._method(label) for label in self.methods}
        labels: dict[str, str] = {}
        for label, law in self.service_times.items():
            if (same := labels.setdefault(str(law), label)) != label:
                raise ValueError(f"config.service_times: {same!r} and {label!r} are identical; remove one.")
            law.make()
        self.check()

    def _check_fields(self) -> None:
        config = self._config
        for name in ("num_workers", "seeds", "learning_rate_scales"):
            values = getattr(config, name)
            if not isinstance(values, tuple | list) or (not values and name != "learning_rate_scales"):
                raise ValueError(f"config.{name} must be a tuple of at least one value, got {values!r}.")
        _check.integers("config.num_workers", config.num_workers, 1)
        _check.integers("config.seeds", config.seeds, 0)
        _check.number("config.learning_rate_scales", config.learning_rate_scales, low=0.0, exclusive_low=True)
        for name in ("num_workers", "seeds", "learning_rate_scales"):
            if twice := repeated(getattr(config, name)):
                raise ValueError(f"config.{name} must have distinct values, got {twice[0]!r} twice.")
        _check.choice("config.pick", config.pick, list(RULES))
        for name in ("failed_below", "target"):
            _check.scalar(f"config.{name}", getattr(config, name), low=0.0, high=1.0)
        _check.integer("config.cells_at_once", config.cells_at_once, 0)
        _check.integer("config.choosing", config.choosing, 0, len(config.seeds) - 1)
        _check.instance("config.exception", config.exception, str, "the reason for fewer seeds, or ''")
        _check.scalar("config.memory_gb", config.memory_gb, low=0.0)
        if self._queue.name != "queue":
            raise ValueError(
                "config.train.asynchrony must be 'queue(...)', which takes config.service_times, got "
                f"{config.train.asynchrony!r}."
            )

    def _check_orders(self) -> None:
        orders = claimed({"orders": self._config.orders, "equals": self._config.equals})
        for order in orders:
            field = "config.equals" if order.equal else "config.orders"
            for label in order.lacking(self.methods):
                if "*" not in label and label not in _METHODS:  # the config may be for more methods
                    hint = _check.nearest(label, list(self.methods))
                    raise ValueError(f"{field}: {label!r} is not a label of config.methods{hint}")
            labels = [label for place in order.of(self.methods).places for label in place]
            if twice := repeated(labels):
                raise ValueError(f"{field}: labels of an order must differ, got {twice[0]!r} twice in {str(order)!r}.")
        slugs = [slug(label) for label in self.service_times]
        if orders and (not all(slugs) or len(set(slugs)) < len(slugs)):
            raise ValueError(
                "config.service_times: labels must differ in their letters a-z and digits, which name the claims of "
                f"config.orders, got {', '.join(map(repr, self.service_times))}."
            )
        names = [order.name for order in orders]
        if twice := repeated(names):
            raise ValueError(f"config.orders and config.equals share the name {twice[0]!r}; rename one.")
        for name in ("source", "paper"):
            texts = getattr(self._config, name)
            if isinstance(texts, Mapping) and (missing := [order for order in names if order not in texts]):
                raise ValueError(f"config.{name} must have a text for each order; missing {', '.join(missing)}.")
            for text in texts.values() if isinstance(texts, Mapping) else [texts]:
                _check.instance(f"config.{name}", text, str, "one line of text")
                if not text.strip() or "\n" in text:
                    raise ValueError(f"config.{name} must be one line of text, got {text!r}.")

    def _method(self, label: str) -> dict[str, Any]:
        """The fields of `TrainConfig` that define a method."""
        spec = self.methods[label]
        plain = str(spec.without(*_OWN))
        of_optax = is_of_optax(
            dataclasses.replace(self._train, algorithm=plain, num_workers=self._config.num_workers[0])
        )
        fields = ("learning_rate",) if of_optax else _OWN
        own = {k: typed(f"config.methods: {label}: {k}", spec.options[k], float) for k in fields if k in spec.options}
        momentum = self._train.momentum if "momentum" in fields and spec.accepts("momentum") else 0.0
        return {"algorithm": str(spec.without(*own)), "momentum": momentum, **own}

    def config(self, index: tuple[int, ...]) -> TrainConfig:
        """The config of a cell, as `launch/train.py` would run it."""
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
        """Asynchrony and seed, as (field, value), which determine trace, data and weights of all methods."""
        config = self.config(index)
        return tuple((name, getattr(config, name)) for name in ("asynchrony", "seed"))

    def program(self, index: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
        """The coordinates that all cells of a program share, as (axis, value)."""
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
    """The `statistics.criterion_digest` of config, judging seeds and order, by name of the order.

    Args:
      config: the config of a comparison; nothing needs to be trained.

    Example:
      >>> from asyncflax.lab.compare import CompareConfig, criteria
      >>> list(criteria(CompareConfig(orders={"plain": ("asgd", "momentum_asgd")})))
      ['plain']
    """
    return {
        order.name: criterion_digest(
            config,
            config.seeds[config.choosing :],
            order=str(order),
            metric=order.criterion,
            bound=order.bound,
            choosing=config.choosing,
            pick=config.pick,
        )
        for order in claimed({"orders": config.orders, "equals": config.equals})
    }


def _read_all(field: str, items: Any, library: Mapping[str, Callable[..., Any]], *kinds: type) -> dict[str, Spec]:
    """The specs of a field's items, by label."""
    specs: dict[str, Spec] = {}
    for label, text in parse_items(field, items):
        if set("|\n") & {*label}:
            raise ValueError(f"{field}: {label!r} must be one line without '|', which separates table columns.")
        given = ("num_workers", "weight_decay")
        spec = read(f"{field}: {label}" if label else field, text, library, given, kinds, given_imported=())
        label = label or spec.name
        if label in specs:
            raise ValueError(f"{field} has {label!r} twice; give one a label, as in 'another={text}'.")
        specs[label] = spec
    if not specs:
        raise ValueError(f"{field} is empty; expected at least one entry, such as {next(iter(library))!r}.")
    return specs
