"""Shared by all figures: their findings, and phrases that describe a sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import xarray

from asyncflax import _style
from asyncflax.lab.compare.orders import slug
from asyncflax.lab.sweep import updates_to_target


class Findings(NamedTuple):
    """The results of a figure.

    Attributes:
      table: the text table, for the terminal.
      claims: the fields of each `Claim` as a dict, without criterion, command and figure.
    """

    table: str
    claims: Sequence[dict[str, Any]] = ()


def updates_to(results: xarray.Dataset, target: float, metric: str) -> xarray.DataArray:
    """`updates_to_target`; raises ValueError if the target is reached before anything is trained."""
    updates = updates_to_target(results, target, metric)
    if bool((updates == 0).any()):
        raise ValueError(f"the target {target:g} is reached before the first update; choose another target")
    return updates


def train_config(results: xarray.Dataset) -> dict:
    """The fields of the `TrainConfig` that all cells of a sweep share."""
    return json.loads(results.attrs["config"])["train"]


def trained_on(results: xarray.Dataset) -> tuple[str, str]:
    """The data set, network and batch size: as a slug for the names of claims, and in words."""
    train = train_config(results)
    dataset, model = train["dataset"], train["model"]
    if dataset == "imagenet_eight":
        dataset += ", whose classes are not the paper's first eight of ImageNet"
    if model == "Mlp(hidden=0)":
        model = "softmax regression"
    return slug(f"{train['dataset']} {model}"), f"{dataset}, {model}, batches of {train['batch_size']}"


def workers_of(results: xarray.Dataset) -> list[int]:
    """The numbers of workers of a sweep."""
    if "num_workers" not in results.coords:
        return [train_config(results)["num_workers"]]
    return results.num_workers.values.reshape(-1).tolist()


def title(results: xarray.Dataset) -> str:
    """Formats as 'digits, SmallCnn, momentum_asgd, 1 and 8 workers, 100 updates, 2 seeds'."""
    train, seeds = train_config(results), results.sizes.get("seed", 1)
    workers = _style.workers(*workers_of(results))
    trained = f"{train['dataset']}, {train['model']}, {train['algorithm']}, {workers}, {train['num_updates']:,} updates"
    return f"{trained}, {seeds} seed{'s' * (seeds != 1)}"
