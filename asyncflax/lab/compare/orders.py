"""Orders of methods, such as dana_slim > multi_asgd > nag_asgd, checked in pairs.

With one seed, service time and number of workers two methods have the same trace, data and initial weights. So their
test accuracies at the end are subtracted seed by seed, and the difference has Student's interval over the seeds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray

from asyncflax.lab.compare.summary import aligned, of_workers, with_picked_rates
from asyncflax.lab.statistics import Interval, student
from asyncflax.train.options import parse_items

_EXAMPLE = "'name=(best, (good, other), worst)'"


class Order(NamedTuple):
    """Methods of which each is said to be better than each of the next place.

    Attributes:
      name: a slug, for the files of the claim.
      places: labels, best first; several share a place, and '*' in one stands for anything.

    Example: see `parse_orders`.
    """

    name: str
    places: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return " > ".join(", ".join(place) for place in self.places)

    def of(self, labels: Iterable[str]) -> Order:
        """The order with the labels that '*' stands for; those that nothing matches are left out."""
        labels = list(labels)
        match = lambda text: [k for k in labels if re.fullmatch(".*".join(map(re.escape, text.split("*"))), k)]
        return self._replace(places=tuple(tuple(k for text in place for k in match(text)) for place in self.places))

    def lacking(self, labels: Iterable[str]) -> list[str]:
        """What is in the order and is none of the labels."""
        labels = list(labels)
        return [text for place in self.places for text in place if not any(Order("", ((text,),)).of(labels).places[0])]


class Finding(NamedTuple):
    """What became of an order with a law of service times.

    Attributes:
      table: lines of Markdown, or the reason why there is nothing to see.
      methods: the labels that it is about.
      service_time: the label of the law.
      claim: the fields of a `Claim` without command and figure; None where nothing can be computed.

    Example: see `check_orders`.
    """

    table: list[str]
    methods: list[str]
    service_time: str
    claim: dict[str, Any] | None


def parse_orders(value: Any) -> list[Order]:
    """Orders as a config has them.

    Args:
      value: items (see `train.options`), each a tuple of places, best first; a place is a label of a method, or a tuple
        of labels that share it. '*' in a label stands for anything. The label of an item goes into the name of the
        claim; without one it is the first label of a method.

    Raises:
      ValueError: an order has fewer than two places, an empty one or a label twice, or two have one name.

    Example:
      >>> from asyncflax.lab.compare import parse_orders
      >>> parse_orders("(dana_slim, multi_asgd, nag_asgd)")
      [Order(name='dana-slim', places=(('dana_slim',), ('multi_asgd',), ('nag_asgd',)))]
      >>> (order,) = parse_orders({"loop": ("closed_loop_momentum", "fixed *")})
      >>> str(order.of(["closed_loop_momentum", "fixed 0.0", "fixed 0.6"]))
      'closed_loop_momentum > fixed 0.0, fixed 0.6'
    """
    orders: dict[str, Order] = {}
    for name, chain in parse_items("config.orders", value):
        listed = chain if isinstance(chain, tuple | list) else (chain,)
        places = tuple(tuple(map(str, place)) if isinstance(place, tuple | list) else (str(place),) for place in listed)
        labels = [label for place in places for label in place]
        if len(places) < 2 or not all(places) or not all(map(str.strip, labels)):
            raise ValueError(f"config.orders must be like {_EXAMPLE}, two places at least, got {chain!r}.")
        twice = [label for i, label in enumerate(labels) if label in labels[:i]]
        if twice:
            raise ValueError(f"config.orders: {chain!r} has {twice[0]!r} twice.")
        found = slug(name or labels[0])
        if not found:
            raise ValueError(f"config.orders: {chain!r} needs a name of letters a-z or digits, as in 'name=(a, b)'.")
        if found in orders:
            raise ValueError(f"config.orders has the name {found!r} twice; give one another, as in 'other={chain}'.")
        orders[found] = Order(found, places)
    return list(orders.values())


def slug(text: str) -> str:
    """The text in small letters, digits and hyphens.

    >>> from asyncflax.lab.compare.orders import slug
    >>> slug("fixed -0.2")
    'fixed-0-2'
    """
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def check_orders(results: xarray.Dataset) -> list[Finding]:
    """Compares what the config of a comparison orders, for each law of service times.

    A training that diverged has no accuracy at the end. It counts with that of the same network before its first
    update, which is about that of chance; how many did so is said. A training that ended below `failed_below` counts
    with what it has. Intervals are those of single pairs, they do not allow for how many pairs there are.

    Args:
      results: of `run_comparison`; the order is in the config that they carry.

    Returns:
      findings. With M workers an order is 'seen' where the intervals of all its pairs lie above 0, 'contradicted' where
      one of them lies below 0, and else 'open'. The value of a claim is the smallest difference of a pair at the
      largest number of workers, as a share (0.01 is one point): the order holds there if this one does.

    Raises:
      ValueError: see `parse_orders`.

    Example: see `configs/dana_table.py`.
    """
    config = json.loads(results.attrs["config"])
    labels = [str(k) for k in results.method.values]
    findings = []
    for order in parse_orders(config.get("orders", ())):
        there = order.of(labels)
        for law in map(str, results.service_time.values):
            reason = ""
            if lacking := order.lacking(labels):
                reason = f"{', '.join(lacking)} not compared"
            elif results.sizes["seed"] < 2:
                reason = "an interval needs two seeds"
            if reason:
                findings.append(Finding([f"No claim of {order} ({law}): {reason}."], [], law, None))
                continue
            findings.append(_finding(results.sel(service_time=law), there, law, config))
    return findings


def _finding(results: xarray.Dataset, order: Order, law: str, config: Mapping[str, Any]) -> Finding:
    pairs = [
        (a, b) for one, next_one in zip(order.places, order.places[1:], strict=False) for a in one for b in next_one
    ]
    accuracy, workers = _accuracies(results), [int(m) for m in results.num_workers.values]
    at = lambda k, m: accuracy.sel({"method": k, "num_workers": m}).values
    changes = {m: {(a, b): student(at(a, m) - at(b, m)) for a, b in pairs} for m in workers}
    verdicts = {m: _verdict(changes[m].values()) for m in workers}
    methods = [k for place in order.places for k in place]
    rows = [[f"{order} ({law})", *map(of_workers, workers)]]
    rows += [[f"{a} over {b}", *(_points(changes[m][a, b]) for m in workers)] for a, b in pairs]
    rows += [["the order is", *verdicts.values()]]
    table = aligned(rows)
    if failures := _failures(results, methods):
        table += ["", f"{failures[0].upper()}{failures[1:]}."]
    most = max(workers)
    weakest = min(changes[most].values(), key=lambda change: change.value)
    train, scales = config["train"], config["learning_rate_scales"]
    rates = f", best of {len(scales)} learning rates" if len(scales) > 1 else ""
    claim = {
        "name": f"{order.name}-order-{slug(train['dataset'])}-{slug(law)}-{'-'.join(map(str, workers))}",
        "statement": f"{order} in test accuracy after {train['num_updates']:,} gradients ({train['dataset']}, "
        f"{train['model']}, {law}, {_list(workers)}{rates}).",
        "source": config["source"],
        "paper": config["paper"],
        "ours": _ours(changes[most], verdicts, most, failures),
        "value": weakest.value,
        "interval": (weakest.low, weakest.high),
        "seeds": results.sizes["seed"],
    }
    return Finding(table, methods, law, claim)


def _accuracies(results: xarray.Dataset) -> xarray.DataArray:
    """Test accuracies at the end; of what diverged, those before the first update (0 if it began broken)."""
    untrained = with_picked_rates(results, "test_accuracy").test_accuracy.isel(update=0, drop=True)
    return results.final_accuracy.fillna(untrained).fillna(0.0).transpose("method", "num_workers", "seed")


def _verdict(changes: Iterable[Interval]) -> str:
    changes = list(changes)
    if all(change.low > 0 for change in changes):
        return "seen"
    return "contradicted" if any(change.high < 0 for change in changes) else "open"


def _ours(changes: Mapping[tuple[str, str], Interval], verdicts: Mapping[int, str], most: int, failures: str) -> str:
    """The differences at the largest number of workers, and where the order is seen."""
    pairs = ", ".join(f"{a} over {b} {_points(change)}" for (a, b), change in changes.items())
    text = f"{of_workers(most)}: {pairs} points, so the order is {verdicts[most]}"
    others = []
    for verdict in ("seen", "open", "contradicted"):
        at = [m for m in verdicts if verdicts[m] == verdict and m != most]
        others += [f"{verdict} with {', '.join(map(str, at))}"] if at else []
    return "; ".join([text, *([", ".join(others)] if others else []), *([failures] if failures else [])])


def _failures(results: xarray.Dataset, methods: Sequence[str]) -> str:
    """As 'failed: nag_asgd 3 of 6 trainings (2 diverged, which count as untrained)'."""
    words = []
    for k in methods:
        cell = results.sel({"method": k})
        failed, diverged = int(cell.failed.sum()), int(cell.final_accuracy.isnull().sum())
        if failed:
            how = f" ({diverged} diverged, which count as untrained)" if diverged else ""
            words.append(f"{k} {failed} of {cell.failed.size} trainings{how}")
    return f"failed: {', '.join(words)}" if words else ""


def _points(change: Interval) -> str:
    value, low, high = (100 * np.array(change)).round(1) + 0.0  # no -0.0
    return f"{value:+.1f} ({low:.1f} to {high:.1f})"


def _list(workers: Sequence[int]) -> str:
    """'1 worker', '8 and 16 workers', '4, 8 and 16 workers'."""
    *first, last = sorted(workers)
    return f"{', '.join(map(str, first))} and {last} workers" if first else of_workers(last)
