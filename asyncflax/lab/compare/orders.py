"""Orders of methods, such as dana_slim > multi_asgd > nag_asgd, and methods that are said to be equal, judged in pairs.

With one seed, service time and number of workers two methods have the same trace, data and initial weights. So their
test accuracies at the end are subtracted seed by seed, and `statistics` decides, at each number of workers and at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray

from asyncflax.lab.compare.summary import aligned, of_workers, with_picked_rates
from asyncflax.lab.statistics import JUDGING_SEEDS, OrderVerdict, Verdict, decide_all, decide_difference
from asyncflax.train.options import parse_items

_EXAMPLE = "'name=(best, (good, other), worst)'"


class Order(NamedTuple):
    """Methods of which each is said to be better than each of the next place, or equal to it.

    Attributes:
      name: a slug, for the files of the claim.
      places: labels, best first; several share a place, and '*' in one stands for anything.
      equal: whether those of adjacent places are said to be equal.

    Example: see `parse_orders`.
    """

    name: str
    places: tuple[tuple[str, ...], ...]
    equal: bool = False

    def __str__(self) -> str:
        return (" = " if self.equal else " > ").join(", ".join(place) for place in self.places)

    @property
    def claim(self) -> str:
        """What `statistics` calls it."""
        return "equal" if self.equal else "greater"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each label with each of the next place."""
        return [(a, b) for one, below in zip(self.places, self.places[1:], strict=False) for a in one for b in below]

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
      claim: the fields of a `Claim` without command, figure and criterion; None where nothing can be judged.
      order: its name.

    Example: see `check_orders`.
    """

    table: list[str]
    methods: list[str]
    service_time: str
    claim: dict[str, Any] | None
    order: str = ""


def parse_orders(value: Any, *, equal: bool = False) -> list[Order]:
    """Orders as a config has them.

    Args:
      value: items (see `train.options`), each a tuple of places, best first; a place is a label of a method, or a tuple
        of labels that share it. '*' in a label stands for anything. The label of an item goes into the name of the
        claim; without one it is the first label of a method.
      equal: whether methods are said to be equal instead.

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
        orders[found] = Order(found, places, equal)
    return list(orders.values())


def slug(text: str) -> str:
    """The text in small letters, digits and hyphens.

    >>> from asyncflax.lab.compare.orders import slug
    >>> slug("fixed -0.2")
    'fixed-0-2'
    """
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def check_orders(results: xarray.Dataset) -> list[Finding]:
    """Judges what the config of a comparison says of methods, for each law of service times.

    A training that diverged has no accuracy at the end. It counts with that of the same network before its first
    update, which is about that of chance; how many did so is said. A training that ended below `failed_below` counts
    with what it has. Seeds that pick learning rates (`choosing`) do not judge.

    Args:
      results: of `run_comparison`; what is claimed is in the config that they carry.

    Returns:
      findings. Each pair of methods at each number of workers is decided by `statistics.decide_difference`, and all of
      them by `statistics.decide_all`, with Holm's adjustment: the verdict of the claim. Its value is the pair that is
      least in favour, as a share (0.01 is one point): a claim holds if this one does. There is no claim where too few
      seeds judge, or those that also picked the learning rates; the table says so.

    Raises:
      ValueError: see `parse_orders`.

    Example: see `configs/orders.py`.
    """
    config = json.loads(results.attrs["config"])
    labels = [str(k) for k in results.method.values]
    findings = []
    for order in claimed(config):
        there = order.of(labels)
        for law in map(str, results.service_time.values):
            reason = ""
            if lacking := order.lacking(labels):
                reason = f"{', '.join(lacking)} not compared"
            elif results.sizes["seed"] < 2 + config.get("choosing", 0):
                reason = "an interval needs two seeds"
            if reason:
                findings.append(Finding([f"No claim of {order} ({law}): {reason}."], [], law, None))
                continue
            findings.append(_finding(results.sel(service_time=law), there, law, config))
    return findings


def claimed(config: Mapping[str, Any]) -> list[Order]:
    """What a config says of methods: its orders, then what it says to be equal."""
    return parse_orders(config.get("orders", ())) + parse_orders(config.get("equals", ()), equal=True)


def _finding(results: xarray.Dataset, order: Order, law: str, config: Mapping[str, Any]) -> Finding:
    accuracy = _accuracies(results).isel(seed=slice(config.get("choosing", 0), None))
    workers, seeds = [int(m) for m in results.num_workers.values], accuracy.sizes["seed"]
    at = lambda k, m: accuracy.sel({"method": k, "num_workers": m}).values
    exception = config.get("exception", "")
    options = {"claim": order.claim, "exception": exception or "few seeds"}
    pairs = {m: {(a, b): decide_difference(at(a, m) - at(b, m), **options) for a, b in order.pairs} for m in workers}
    decided = {m: decide_all(list(pairs[m].values()), claim=order.claim) for m in workers}
    every = decide_all([each for m in workers for each in pairs[m].values()], claim=order.claim)
    rows = [[f"{order} ({law})", *map(of_workers, workers)]]
    rows += [[f"{a} less {b}", *(_points(pairs[m][a, b]) for m in workers)] for a, b in order.pairs]
    rows += [["verdict", *(decided[m].verdict for m in workers)]]
    table = aligned(rows)
    methods = [k for place in order.places for k in place]
    if failures := _failures(results, methods):
        table += ["", f"{failures[0].upper()}{failures[1:]}."]
    scales, choosing = config["learning_rate_scales"], config.get("choosing", 0)
    if len(scales) > 1 and not choosing:
        table += ["", "No claim: the seeds that judge have also picked the learning rates; set config.choosing."]
        return Finding(table, methods, law, None)
    if seeds < JUDGING_SEEDS and not exception:
        least = f"{JUDGING_SEEDS} judge, or there is a reason for fewer in config.exception"
        table += ["", f"No claim: {seeds} seeds judge; it takes {least}."]
        return Finding(table, methods, law, None)
    train = config["train"]
    against = lambda each: -abs(each.interval.value) if order.equal else each.interval.value
    weakest = min(every.pairs, key=against)
    rates = f"best of {len(scales)} learning rates" if len(scales) > 1 else f"learning rate {train['learning_rate']:g}"
    about = (train["dataset"], train["model"], rates, law, _list(workers))
    network = train["model"].partition("(")[0]
    where = slug(f"{train['dataset']} {network} {train['learning_rate']:g} {law}")
    claim = {
        "name": f"{order.name}-{where}-{'-'.join(map(str, workers))}",
        "statement": f"{order} in test accuracy after {train['num_updates']:,} gradients ({', '.join(about)}).",
        "source": _of(order, config["source"]),
        "paper": _of(order, config["paper"]),
        "ours": _ours(pairs, decided, every, failures, exception),
        "value": weakest.interval.value,
        "interval": weakest.interval[1:],
        "seeds": seeds,
        "verdict": every.verdict,
    }
    return Finding(table, methods, law, claim, order.name)


def _of(order: Order, texts: Any) -> str:
    """The source of an order, or what its paper says: one text for all, or one by name."""
    return texts[order.name] if isinstance(texts, Mapping) else texts


def _accuracies(results: xarray.Dataset) -> xarray.DataArray:
    """Test accuracies at the end; of what diverged, those before the first update (0 if it began broken)."""
    untrained = with_picked_rates(results, "test_accuracy").test_accuracy.isel(update=0, drop=True)
    return results.final_accuracy.fillna(untrained).fillna(0.0).transpose("method", "num_workers", "seed")


def _ours(
    pairs: Mapping[int, Mapping[tuple[str, str], Verdict]],
    decided: Mapping[int, OrderVerdict],
    every: OrderVerdict,
    failures: str,
    exception: str,
) -> str:
    """The differences at each number of workers, and the verdict there."""
    texts = []
    for m, of_pairs in pairs.items():
        points = ", ".join(f"{a} less {b} {_points(each)}" for (a, b), each in of_pairs.items())
        texts.append(f"{of_workers(m)}: {points} points, {decided[m].verdict}")
    if every.verdict == "not decided" or exception:
        most = max(100 * each.detectable for each in every.pairs)
        texts.append(f"{most:.1f} points would be seen in 4 of 5 experiments")
    return "; ".join([*texts, *([exception] if exception else []), *([failures] if failures else [])])


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


def _points(decided: Verdict) -> str:
    value, low, high = (100 * np.array(decided.interval)).round(1) + 0.0  # no -0.0
    return f"{value:+.1f} ({low:.1f} to {high:.1f})"


def _list(workers: Sequence[int]) -> str:
    """'1 worker', '8 and 16 workers', '4, 8 and 16 workers'."""
    *first, last = sorted(workers)
    return f"{', '.join(map(str, first))} and {last} workers" if first else of_workers(last)
