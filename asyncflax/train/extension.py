"""Extensions of a complete run: `config.extend`.

After the last update of the plan all workers restart from the server's parameters, as at the beginning of a run, since
it is unknown which versions they would have read. The method's state, the order of the data and the statistics of
BatchNorm continue. The schedule refers to `num_updates`, and keeps its last value afterwards.

Example:
  >>> from asyncflax.train import TrainConfig, extension
  >>> from asyncflax.train.experiment import make_experiment
  >>> config = TrainConfig(num_workers=4, num_updates=100, extend=(40,))
  >>> trace, plans = extension.extend(make_experiment(config))
  >>> extension.ends(config), [plan.events for plan in plans], int(trace.read_version[100])
  ([100, 140], [range(0, 100), range(100, 140)], 100)
  >>> extension.refuse_other_ends({"extend": (30,)}, 120, config)
  Traceback (most recent call last):
    ...
  ValueError: config.extend=(40,), but the run is at update 120 of config.extend=(30,); use that value, and append \
further extensions once the run is complete.
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

    They are determined by num_updates and extend of the `config`.
    """
    return [*itertools.accumulate((config.num_updates, *config.extend))]


def extend(experiment: Experiment) -> tuple[Trace, list[Plan]]:
    """The trace with all extensions, and the plans of the run and of each extension.

    Args:
      experiment: the experiment of a config with `extend`.

    Raises:
      ValueError: the trace is recorded, or the learning rate of an extension is 0.
    """
    config, asynchrony = experiment.config, experiment.config.named.asynchrony
    whole, plans = experiment.trace, [experiment.plan]
    for number, count in enumerate(config.extend, start=1):
        if asynchrony.name == "recorded":
            raise ValueError("config.extend does not support recorded traces; set it to ().")
        first = len(whole)
        rates = np.asarray(jax.vmap(experiment.schedule)(jnp.arange(first, first + count)))
        if not rates.any():
            raise ValueError(
                f"config.extend: the learning rate of config.schedule={config.schedule!r} is 0 from update {first} on, "
                "so nothing would be learned; extend a run whose schedule ends above 0, as with end=0.1, or start a "
                "new one from its checkpoint with config.start_from."
            )
        (seed,) = np.random.SeedSequence([config.seed, number]).generate_state(1).tolist()
        made, _ = asynchrony.make(num_workers=config.num_workers, num_updates=count, seed=seed)
        whole = _followed(whole, made)
        plans.append(plan_of(config, made, experiment.plan.placement.mesh, first_event=first))
    return whole, plans


def refuse_other_ends(saved: dict[str, Any], update: int, config: TrainConfig) -> None:
    """Raises if a checkpoint is in an extension that the config does not have.

    Args:
      saved: the config of the checkpoint.
      update: the update of the checkpoint.
      config: the config of the resumed run.

    Raises:
      ValueError: the checkpoint is in such an extension.
    """
    before = tuple(saved.get("extend", ()))
    old, new = ends(dataclasses.replace(config, extend=before)), ends(config)
    passed = lambda all_ends: [end for end in all_ends if end <= update]
    following = lambda all_ends: next((end for end in all_ends if end > update), None)
    if passed(old) != passed(new) or (update not in old and following(old) != following(new)):
        raise ValueError(
            f"config.extend={config.extend}, but the run is at update {update} of config.extend={before}; use that "
            "value, and append further extensions once the run is complete."
        )


def _followed(trace: Trace, other: Trace) -> Trace:
    """One trace after another: versions and clock of the second continue from the end of the first."""
    later = lambda first, second: None if first is None or second is None else np.concatenate([first, second])
    shifted = lambda seconds: None if seconds is None or trace.time is None else trace.time[-1] + seconds
    return Trace(
        worker=np.concatenate([trace.worker, other.worker]),
        read_version=np.concatenate([trace.read_version, len(trace) + other.read_version]),
        time=later(trace.time, shifted(other.time)),
        begun=later(trace.begun, shifted(other.begun)),
        num_workers=max(trace.num_workers, other.num_workers),
    )
