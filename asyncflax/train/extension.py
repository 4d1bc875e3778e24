"""A training that is longer than it was planned: `config.extend`.

After the last update of the plan all workers begin anew with the server's parameters, as at the start of a run: which
versions they would have read otherwise is not known. The method's state, the order of the data and the statistics of
BatchNorm go on. A schedule is that of the plan: it refers to `num_updates`, and stays at its end beyond.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax.engine.plan import Plan
from asyncflax.trace import Trace
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, plan_of

__all__ = ["ends", "extend", "refuse_other_ends"]


def ends(config: TrainConfig) -> list[int]:
    """The last updates of the plan and of each extension.

    >>> from asyncflax.train.config import TrainConfig
    >>> from asyncflax.train.extension import ends
    >>> ends(TrainConfig(num_updates=1000, extend=(500, 200)))
    [1000, 1500, 1700]
    """
    return [*itertools.accumulate((config.num_updates, *config.extend))]


def extend(experiment: Experiment) -> tuple[Trace, list[Plan]]:
    """The trace with all extensions, and the plans of the training and of each extension.

    Args:
      experiment: of a config with `extend`.

    Raises:
      ValueError: the trace was recorded, or the learning rate of an extension is 0.

    Example:
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.train.experiment import make_experiment
      >>> from asyncflax.train.extension import extend
      >>> trace, plans = extend(make_experiment(TrainConfig(num_workers=4, num_updates=100, extend=(40,))))
      >>> len(trace), [plan.events for plan in plans], int(trace.read_version[100])
      (140, [range(0, 100), range(100, 140)], 100)
    """
    config, asynchrony = experiment.config, experiment.config.named.asynchrony
    whole, plans = experiment.trace, [experiment.plan]
    for number, count in enumerate(config.extend, start=1):
        if asynchrony.name == "recorded":
            raise ValueError("config.extend needs a trace that can be made longer; a recorded one cannot.")
        first = len(whole)
        rates = np.asarray(jax.vmap(experiment.schedule)(jnp.arange(first, first + count)))
        if not rates.any():
            raise ValueError(
                f"config.extend: the learning rate of config.schedule={config.schedule!r} is 0 from update {first} on, "
                "so nothing would be learned; extend a training whose schedule ends above 0, as with end=0.1, or begin "
                "a new one with config.start_from."
            )
        (seed,) = np.random.SeedSequence([config.seed, number]).generate_state(1).tolist()
        made, _ = asynchrony.make(num_workers=config.num_workers, num_updates=count, seed=seed)
        whole = _followed(whole, made)
        plans.append(plan_of(config, made, experiment.plan.placement.mesh, first_event=first))
    return whole, plans


def refuse_other_ends(saved: dict[str, Any], update: int, config: TrainConfig) -> None:
    """Raises where a checkpoint is in an extension that the config does not have.

    Args:
      saved: the config of the checkpoint.
      update: of the checkpoint.
      config: of the training that goes on.

    Raises:
      ValueError: as above.

    >>> from asyncflax.train.config import TrainConfig
    >>> from asyncflax.train.extension import refuse_other_ends
    >>> config = TrainConfig(num_updates=1000, extend=(500, 200))
    >>> refuse_other_ends({"extend": (500,)}, 1500, config)
    >>> refuse_other_ends({"extend": (300,)}, 1200, config)
    Traceback (most recent call last):
      ...
    ValueError: config.extend=(500, 200), but the run stands at update 1200 of config.extend=(300,); take that, with \
further extensions behind it once it is complete.
    """
    before = tuple(saved.get("extend", ()))
    old, new = ends(dataclasses.replace(config, extend=before)), ends(config)
    passed = lambda all_ends: [end for end in all_ends if end <= update]
    following = lambda all_ends: next((end for end in all_ends if end > update), None)
    if passed(old) != passed(new) or (update not in old and following(old) != following(new)):
        raise ValueError(
            f"config.extend={config.extend}, but the run stands at update {update} of config.extend={before}; take "
            "that, with further extensions behind it once it is complete."
        )


def _followed(trace: Trace, other: Trace) -> Trace:
    """One trace after another: the versions and the clock of the second go on from the last of the first."""
    time = None
    if trace.time is not None and other.time is not None:
        time = np.concatenate([trace.time, trace.time[-1] + other.time])
    worker = np.concatenate([trace.worker, other.worker])
    read_version = np.concatenate([trace.read_version, len(trace) + other.read_version])
    return Trace(worker, read_version, time, max(trace.num_workers, other.num_workers))
