"""Judges orders of methods, such as dana_slim > multi_asgd > nag_asgd, and claims that methods are equal, in pairs.

Methods with the same seed, service time and number of workers share trace, data and initial weights. They are compared
seed by seed, and `statistics` decides at each number of workers and at all of them together. Orders compare logarithms
of final training losses; equal methods have the same final test accuracy, within half a point.
"""

from __future__ import annotations

import collections
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray

from asyncflax import _style
from asyncflax.lab.compare.summary import aligned, last_losses, with_picked_rates
from asyncflax.lab.statistics import (
    ACCURACY_BOUND,
    JUDGING_SEEDS,
    RATIO_BOUND,
    Verdict,
    decide_all,
    decide_difference,
)
from asyncflax.train.options import parse_items

_EXAMPLE = "'name=(best, (good, other), worst)'"


class Order(NamedTuple):
    """The claim that each method is better than the methods in the next place, or equal to them.

    Attributes:
      name: the slug that begins the name of the claim.
      places: the labels, best first; several may share a place, and '*' in a label matches anything.
      equal: whether adjacent places are claimed to be equal.
    """

    name: str
    places: tuple[tuple[str, ...], ...]
    equal: bool = False

    def __str__(self) -> str:
        return (" = " if self.equal else " > ").join(", ".join(place) for place in self.places)

    @property
    def claim(self) -> str:
        """The `claim` argument of `statistics`."""
        return "equal" if self.equal else "greater"

    @property
    def bound(self) -> float:
        """The equivalence bound, for accuracies or for logarithms of losses."""
        return ACCURACY_BOUND if self.equal else math.log(RATIO_BOUND)

    @property
    def criterion(self) -> str:
        """The metric to compare, as text."""
        return "test accuracy" if self.equal else "training loss"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of labels from adjacent places."""
        return [(a, b) for one, below in zip(self.places, self.places[1:], strict=False) for a in one for b in below]

    def of(self, labels: Iterable[str]) -> Order:
        """The order with '*' expanded to the labels that match; labels without a match are dropped."""
        labels = list(labels)
        places = (tuple(label for text in place for label in _matches(text, labels)) for place in self.places)
        return self._replace(places=tuple(places))

    def lacking(self, labels: Iterable[str]) -> list[str]:
        """The labels of the order that match none of `labels`."""
        labels = list(labels)
        return [text for place in self.places for text in place if not _matches(text, labels)]


def _matches(text: str, labels: Sequence[str]) -> list[str]:
    """The labels that a label with '*' matches."""
    pattern = ".*".join(map(re.escape, text.split("*")))
    return [label for label in labels if re.fullmatch(pattern, label)]


class Finding(NamedTuple):
    """The outcome of an order with one service time.

    Attributes:
      table: the lines of a Markdown table, or the reason why it is missing.
      methods: the labels of the methods compared.
      service_time: the label of the service time.
      claim: the fields of a `Claim` without command, figure and criterion; None if nothing is judged.
      order: the order with '*' expanded; None if nothing is computed.
      verdicts: a `Verdict` for each pair of methods, by number of workers.
    """

    table: list[str]
    methods: list[str]
    service_time: str
    claim: dict[str, Any] | None
    order: Order | None = None
    verdicts: Mapping[int, Mapping[tuple[str, str], Verdict]] = {}


def parse_orders(value: Any, *, equal: bool = False) -> list[Order]:
    """Parses the orders of a config.

    Args:
      value: items (see `train.options`), each a tuple of places, best first; a place is the label of a method, or a
        tuple of labels that share it. '*' in a label matches anything. The label of an item, by default its first
        method, names the claim.
      equal: whether the methods are claimed to be equal.

    Raises:
      ValueError: an order has fewer than two places, an empty one or a repeated label, or a name is repeated.

    Example:
      >>> from asyncflax.lab.compare import parse_orders
      >>> parse_orders("(dana_slim, multi_asgd, nag_asgd)")[0].places
      (('dana_slim',), ('multi_asgd',), ('nag_asgd',))
      >>> (order,) = parse_orders({"loop": ("closed_loop_momentum", "fixed *")})
      >>> str(order.of(["closed_loop_momentum", "fixed 0.0", "fixed 0.6"]))
      'closed_loop_momentum > fixed 0.0, fixed 0.6'
    """
    field = "config.equals" if equal else "config.orders"
    orders: dict[str, Order] = {}
    for name, chain in parse_items(field, value):
        listed = chain if isinstance(chain, tuple | list) else (chain,)
        places = tuple(tuple(map(str, place)) if isinstance(place, tuple | list) else (str(place),) for place in listed)
        labels = [label for place in places for label in place]
        if len(places) < 2 or not all(places) or not all(map(str.strip, labels)):
            raise ValueError(f"{field} must be like {_EXAMPLE}, with at least two places, got {chain!r}.")
        if twice := repeated(labels):
            raise ValueError(f"{field}: labels of an order must differ, got {twice[0]!r} twice in {chain!r}.")
        found = slug(name or labels[0])
        if not found:
            raise ValueError(f"{field}: {chain!r} needs a name with letters a-z or digits, as in 'name=(a, b)'.")
        if found in orders:
            raise ValueError(f"{field} has the name {found!r} twice; rename one, as in 'other={chain}'.")
        orders[found] = Order(found, places, equal)
    return list(orders.values())


def repeated(values: Sequence[Any]) -> list[Any]:
    """The values (hashable) that occur more than once."""
    return [value for value, count in collections.Counter(values).items() if count > 1]


def slug(text: str) -> str:
    """The text in lower-case letters, digits and hyphens.

    >>> from asyncflax.lab.compare.orders import slug
    >>> slug("fixed -0.2")
    'fixed-0-2'
    """
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def check_orders(results: xarray.Dataset) -> list[Finding]:
    """Judges the orders in the config of the results, for each service time.

    The training loss is the mean over the last tenth of the gradients. A run that diverged, or ended above the loss of
    its untrained network, counts as untrained, at about chance accuracy; the table reports the number of failures.
    Seeds that pick learning rates (`choosing`) do not judge.

    Returns:
      The findings. `statistics.decide_difference` decides each pair of methods at each number of workers, and
      `statistics.decide_all` the claim, with Holm's adjustment over all of them. The claim's value is that of the least
      favourable pair, a ratio of losses or a share (0.01 is one point). If too few seeds judge, or the judging seeds
      also picked the learning rates, there is no claim and the table gives the reason.

    Example: see `draw_comparison`.
    """
    config = json.loads(results.attrs["config"])
    labels = [str(k) for k in results.method.values]
    findings = []
    for order in claimed(config):
        there = order.of(labels)
        for law in map(str, results.service_time.values):
            if lacking := order.lacking(labels):
                reason = f"{', '.join(lacking)} not compared"
            elif results.sizes["seed"] < 2 + config.get("choosing", 0):
                reason = "an interval needs two seeds"
            else:
                findings.append(_finding(results.sel(service_time=law), there, law, config))
                continue
            findings.append(Finding([f"No claim of {order} ({law}): {reason}."], [], law, None))
    return findings


def claimed(config: Mapping[str, Any]) -> list[Order]:
    """The claims of a config: its orders, then those of equality."""
    return parse_orders(config.get("orders", ())) + parse_orders(config.get("equals", ()), equal=True)


def _finding(results: xarray.Dataset, order: Order, law: str, config: Mapping[str, Any]) -> Finding:
    choosing, exception = config.get("choosing", 0), config.get("exception", "")
    good = (_accuracies(results) if order.equal else -_log_losses(results)).isel(seed=slice(choosing, None))
    workers, seeds = [int(m) for m in results.num_workers.values], good.sizes["seed"]
    at = lambda k, m: good.sel({"method": k, "num_workers": m}).values
    options = {"claim": order.claim, "bound": order.bound, "exception": exception or "few seeds"}
    pairs = {m: {(a, b): decide_difference(at(a, m) - at(b, m), **options) for a, b in order.pairs} for m in workers}
    decided = {m: decide_all(list(pairs[m].values()), claim=order.claim).verdict for m in workers}
    every = decide_all([each for m in workers for each in pairs[m].values()], claim=order.claim)
    words = "{} less {} (points)" if order.equal else "loss of {1} over that of {0}"
    rows = [[f"{order} ({law})", *map(_style.workers, workers)]]
    rows += [[words.format(a, b), *(_shown(order, pairs[m][a, b]) for m in workers)] for a, b in order.pairs]
    table = aligned([*rows, ["verdict", *decided.values()]])
    methods = list(dict.fromkeys(k for place in order.places for k in place))
    if failures := _failures(results, methods):
        table += ["", f"{failures[0].upper()}{failures[1:]}."]
    train, scales = config["train"], config["learning_rate_scales"]
    reason = ""
    if len(scales) > 1 and not choosing:
        reason = "the judging seeds also picked the learning rates; set config.choosing"
    elif seeds < JUDGING_SEEDS and not exception:
        reason = f"only {seeds} seeds judge; use {JUDGING_SEEDS}, or set config.exception to the reason"
    if reason:
        return Finding([*table, "", f"No claim: {reason}."], methods, law, None, order, pairs)
    rate = f"{train['learning_rate']:.2g}"
    weakest = min(every.pairs, key=lambda each: -abs(each.interval.value) if order.equal else each.interval.value)
    interval = weakest.interval if order.equal else weakest.interval.exp()
    rates = f"best of {len(scales)} learning rates" if len(scales) > 1 else f"learning rate {rate}"
    about = (train["dataset"], train["model"], rates, law, _style.workers(*sorted(workers)))
    where = slug(f"{train['dataset']} {train['model'].partition('(')[0]} {rate} {law}")
    least = max(each.detectable for each in every.pairs)
    seen = f"{100 * least:.1f} points" if order.equal else f"a ratio of {math.exp(least):.2f}"
    texts = [_ours(order, m, of_pairs, decided[m]) for m, of_pairs in pairs.items()]
    if every.verdict == "not decided" or exception:
        texts += [f"in 4 of 5 such experiments {seen} would be seen"]
    claim = {
        "name": f"{order.name}-{where}-{'-'.join(map(str, workers))}",
        "statement": f"{order} in {order.criterion} after {train['num_updates']:,} gradients ({', '.join(about)}).",
        "source": _of(order, config["source"]),
        "paper": _of(order, config["paper"]),
        "ours": "; ".join(filter(None, [*texts, exception, failures])),
        **interval.of_claim,
        "seeds": seeds,
        "verdict": every.verdict,
    }
    return Finding(table, methods, law, claim, order, pairs)


def _of(order: Order, texts: Any) -> str:
    """The text for an order: one text for all orders, or one by name."""
    return texts[order.name] if isinstance(texts, Mapping) else texts


def _accuracies(results: xarray.Dataset) -> xarray.DataArray:
    """Final test accuracies; for diverged runs, those before the first update (0 if not finite)."""
    untrained = with_picked_rates(results, "test_accuracy").test_accuracy.isel(update=0, drop=True)
    return results.final_accuracy.fillna(untrained).fillna(0.0).transpose("method", "num_workers", "seed")


def _log_losses(results: xarray.Dataset) -> xarray.DataArray:
    """Logarithms of final training losses, at most the test loss before the first update."""
    runs = with_picked_rates(results.assign(last=last_losses(results)), "last", "test_loss")
    untrained = runs.test_loss.isel(update=0, drop=True)
    losses: Any = np.minimum(runs["last"].fillna(np.inf), untrained)
    return xarray.apply_ufunc(np.log, losses).transpose("method", "num_workers", "seed")


def _ours(order: Order, m: int, pairs: Mapping[tuple[str, str], Verdict], verdict: str) -> str:
    """The differences at a number of workers, and the verdict there."""
    form = "{0} less {1} {2} points, {3}" if order.equal else "loss of {1} {2} times that of {0}, {3}"
    texts = [form.format(a, b, _shown(order, each), each.words) for (a, b), each in pairs.items()]
    all_of = f"; all of them: {verdict}" if len(texts) > 1 else ""
    return f"{_style.workers(m)}: {'; '.join(texts)}{all_of}"


def _shown(order: Order, decided: Verdict) -> str:
    """Formats as '+0.2 (-0.1 to 0.5)', points, or '1.9 (1.5 to 2.4)', a ratio of losses."""
    if order.equal:
        value, low, high = (100 * np.array(decided.interval)).round(1) + 0.0  # no -0.0
        return f"{value:+.1f} ({low:.1f} to {high:.1f})"
    value, low, high = (f"{number:.3g}" for number in decided.interval.exp())
    return f"{value} ({low} to {high})"


def _failures(results: xarray.Dataset, methods: Sequence[str]) -> str:
    """Formats as 'failed: nag_asgd 3 of 6 trainings (2 diverged, which count as untrained)'."""
    words = []
    for k in methods:
        cell = results.sel({"method": k})
        failed, diverged = int(cell.failed.sum()), int(cell.final_accuracy.isnull().sum())
        if failed:
            how = f" ({diverged} diverged, which count as untrained)" if diverged else ""
            words.append(f"{k} {failed} of {cell.failed.size} trainings{how}")
    return f"failed: {', '.join(words)}" if words else ""
