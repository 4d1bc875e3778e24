"""The columns of all metrics with units and long names: rows of a run, and variables of `results.nc`.

Each metric of events is one line here, shared by runs, sweeps, comparisons, files and figures: a number per event,
computed from a `RunOutput` and logged as its mean over the events since the previous row. docs/metrics.md has the same
table (tested).

Example:
  >>> import numpy as np, xarray
  >>> from asyncflax.engine.step import RunOutput
  >>> from asyncflax.train import columns
  >>> columns.ROWS[1].name, columns.ROWS[1].unit, columns.long_name("test_accuracy")
  ('simulated_time', 's', 'test accuracy')
  >>> columns.of_evaluation("ema_test_loss"), columns.of_evaluation("train_loss")
  (True, False)
  >>> one = np.ones(2)
  >>> out = RunOutput(np.array([2.0, 1.0]), one, one, one, {"accuracy": one})
  >>> columns.event_means(out, np.mean)["train_loss"].item()
  1.5
  >>> columns.describe(xarray.Dataset({"gap": ("batch_size", [0.5])}, {"batch_size": [32]})).gap.attrs
  {'units': '1', 'long_name': 'gap of server and worker (RMS)'}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from asyncflax.engine.step import RunOutput
from asyncflax.metrics import normalised_gap

__all__ = ["RESULTS", "ROWS", "Column", "describe", "event_means", "long_name", "of_evaluation"]


class Column(NamedTuple):
    """A column.

    Attributes:
      name: the name of the column.
      unit: the unit; '1' for plain numbers, 'text' for text.
      long_name: the label for an axis.
      of_events: the function `of_events(out) -> [E]` of a metric that is a mean over events, else None.
    """

    name: str
    unit: str
    long_name: str
    of_events: Callable[[RunOutput], Any] | None = None


ROWS = (
    Column("update", "updates", "updates of the server"),
    Column("simulated_time", "s", "simulated time"),
    Column("train_loss", "1", "training loss", lambda out: out.losses),
    Column("train_accuracy", "1", "training accuracy", lambda out: out.aux["accuracy"]),
    Column("staleness", "updates", "staleness of the gradients", lambda out: out.staleness),
    Column("gap", "1", "gap of server and worker (RMS)", lambda out: out.gap),
    Column(
        "normalised_gap", "1", "gap relative to the gradient", lambda out: normalised_gap(out.gap, out.gradient_rms)
    ),
    Column("explicit_momentum", "1", "explicit momentum"),
    Column("learning_rate", "1", "learning rate"),
    Column("updates_per_second", "1/s", "updates per second of real time"),
    Column("test_loss", "1", "test loss"),
    Column("test_accuracy", "1", "test accuracy"),
    Column("test_top5_accuracy", "1", "test accuracy, top 5"),
    Column("ema_test_loss", "1", "test loss of the averaged parameters"),
    Column("ema_test_accuracy", "1", "test accuracy of the averaged parameters"),
    Column("ema_test_top5_accuracy", "1", "test accuracy of the averaged parameters, top 5"),
    Column("implicit_momentum", "1", "implicit momentum, measured"),
    Column("implicit_momentum_low", "1", "implicit momentum, lower end of the 95 % interval"),
    Column("implicit_momentum_high", "1", "implicit momentum, upper end of the 95 % interval"),
    Column("total_momentum", "1", "explicit and implicit momentum together, measured"),
    Column("wall_seconds", "s", "real time since the run began, without pauses"),
)
"""The columns of `metrics.jsonl`, `metrics.csv`, TensorBoard and the other writers."""

RESULTS = (
    Column("trained", "updates", "updates at which training means are given"),
    Column("diverged_at", "updates", "update at which divergence was detected; -1 for never"),
    Column("seed", "1", "seed"),
    Column("num_workers", "1", "workers"),
    Column("momentum", "1", "explicit momentum"),
    Column("algorithm", "text", "method as named in the config"),
    Column("method", "text", "method by its label"),
    Column("call", "text", "method with its options"),
    Column("service_time", "text", "distribution of service times by its label"),
    Column("law", "text", "distribution of service times with its options"),
    Column("learning_rate_scale", "1", "factor of the learning rate"),
    Column("server_steps", "1", "steps of the server"),
    Column("picked_scale", "1", "learning rate scale that was selected"),
    Column("picked_learning_rate", "1", "learning rate that was selected"),
    Column("final_accuracy", "1", "test accuracy at the end"),
    Column("failed", "1", "whether the run failed (1) or not (0)"),
    Column("mean", "1", "test accuracy at the end, mean over seeds"),
    Column("low", "1", "test accuracy at the end, lower end of the 95 % interval"),
    Column("high", "1", "test accuracy at the end, upper end of the 95 % interval"),
    Column("gradients_to_target", "1", "gradients to the target"),
    Column("steps_to_target", "1", "steps of the server to the target"),
    Column("seconds_to_target", "s", "simulated time to the target"),
)
"""The variables of `results.nc` besides `ROWS`; an axis of a sweep has the name of its field."""


def event_means(out: RunOutput, mean: Callable[[Any], Any]) -> dict[str, Any]:
    """The means over events, by name.

    Args:
      out: the output of a chunk.
      mean: a function that averages an array [E].
    """
    return {column.name: mean(column.of_events(out)) for column in ROWS if column.of_events is not None}


def describe(results: Any) -> Any:
    """Sets the attributes `units` and `long_name` of all variables and coordinates of a data set.

    Args:
      results: the `xarray.Dataset`.
    """
    for name, variable in results.variables.items():
        unit = "1" if variable.dtype.kind in "biuf" else "text"
        column = _by_name().get(str(name), Column(str(name), unit, f"config.train.{name}"))
        variable.attrs = {"units": column.unit, "long_name": column.long_name}
    return results


def of_evaluation(name: str) -> bool:
    """Whether a metric is computed on the test data, and therefore not in every row.

    Args:
      name: the name of the column.
    """
    return name.removeprefix("ema_").startswith("test_")


def long_name(name: str) -> str:
    """The label of a column, for the axis of a figure.

    Args:
      name: the name of the column.
    """
    return _by_name()[name].long_name


def _by_name() -> dict[str, Column]:
    return {column.name: column for column in (*ROWS, *RESULTS)}
