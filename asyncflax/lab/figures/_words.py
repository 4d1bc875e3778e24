"""What figures share: checks, and words."""

from __future__ import annotations

import json

import xarray

from asyncflax import _style
from asyncflax.lab.compare.orders import slug
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


def trained_on(results: xarray.Dataset) -> tuple[str, str]:
    """A slug for the name of a claim, and its words: the data, the network, the batches."""
    train = train_config(results)
    dataset, model = train["dataset"], train["model"]
    if dataset == "imagenet_eight":
        dataset += ", whose classes are not the paper's first eight of ImageNet"
    if model == "Mlp(hidden=0)":
        model = "softmax regression"
    return slug(f"{train['dataset']} {model}"), f"{dataset}, {model}, batches of {train['batch_size']}"


def workers_of(results: xarray.Dataset) -> list[int]:
    """The numbers of workers of a sweep, one or more."""
    return (
        [int(m) for m in results.num_workers.values.reshape(-1)]
        if "num_workers" in results.coords
        else [train_config(results)["num_workers"]]
    )


def title(results: xarray.Dataset) -> str:
    """'digits, SmallCnn, momentum_asgd, 1 and 8 workers, 100 updates, 2 seeds'."""
    train, seeds = train_config(results), results.sizes.get("seed", 1)
    workers = _style.workers(*workers_of(results))
    trained = f"{train['dataset']}, {train['model']}, {train['algorithm']}, {workers}, {train['num_updates']:,} updates"
    return f"{trained}, {seeds} seed{'s' * (seeds != 1)}"
