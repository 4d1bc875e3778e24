"""What figures share: checks, and words."""

from __future__ import annotations

import json

import xarray


def refuse_no_updates(updates: xarray.DataArray, target: float) -> None:
    """Refuses a target that is reached before anything is trained: there is nothing to compare."""
    if bool((updates == 0).any()):
        raise ValueError(f"the target {target:g} is reached before the first update; take a higher one")


def workers(m: int) -> str:
    """'1 worker', '8 workers'."""
    return f"{m} worker{'s' if m > 1 else ''}"


def words(metric: str) -> str:
    """'test accuracy' for 'test_accuracy'."""
    return metric.replace("_", " ")


def train_config(results: xarray.Dataset) -> dict:
    """What all cells of a sweep have in common, a dict of the fields of a `TrainConfig`."""
    return json.loads(results.attrs["config"])["train"]
