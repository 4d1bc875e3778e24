"""What figures share: checks, and words."""

from __future__ import annotations

import json

import xarray

from asyncflax import _style
from asyncflax.train import columns


def refuse_no_updates(updates: xarray.DataArray, target: float) -> None:
    """Refuses a target that is reached before anything is trained: there is nothing to compare."""
    if bool((updates == 0).any()):
        raise ValueError(f"the target {target:g} is reached before the first update; take a higher one")


def words(metric: str) -> str:
    """'test accuracy' for 'test_accuracy'."""
    return columns.long_name(metric)


def train_config(results: xarray.Dataset) -> dict:
    """What all cells of a sweep have in common, a dict of the fields of a `TrainConfig`."""
    return json.loads(results.attrs["config"])["train"]


def title(results: xarray.Dataset) -> str:
    """'digits, SmallCnn, momentum_asgd, 1 and 8 workers, 100 updates, 2 seeds'."""
    train, seeds = train_config(results), results.sizes.get("seed", 1)
    workers = results.num_workers.values.tolist() if "num_workers" in results.dims else [train["num_workers"]]
    *others, last = workers
    named = f"{', '.join(map(str, others))} and {last} workers" if others else _style.workers(last)
    trained = f"{train['dataset']}, {train['model']}, {train['algorithm']}, {named}, {train['num_updates']:,} updates"
    return f"{trained}, {seeds} seed{'s' * (seeds != 1)}"
