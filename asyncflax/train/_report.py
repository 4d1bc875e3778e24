"""The reports of a run: rows of metrics, lines on the terminal, the final table and the figures."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from asyncflax import _style, plots
from asyncflax.errors import RunError
from asyncflax.theory.meter import MomentumMeter
from asyncflax.train import progress
from asyncflax.train._runs import Step
from asyncflax.train.checkpoint import Checkpoints
from asyncflax.train.columns import event_means
from asyncflax.train.experiment import Experiment
from asyncflax.train.method import explicit_momentum
from asyncflax.train.records import Records

_SHOWN = {
    "train_loss": "train loss {:.4f}",
    "test_loss": "test loss {:.4f}",
    "test_accuracy": "test accuracy {:.2%}",
    "ema_test_accuracy": "of the average {:.2%}",
    "test_top5_accuracy": "top 5 {:.2%}",
    "implicit_momentum": "implicit momentum {:.2f}",
    "updates_per_second": "{:.1f} updates/s",
}  # columns on the terminal


class Reporter:
    """Reports each step as a row of metrics, a line on the terminal and progress of the bar."""

    def __init__(
        self,
        experiment: Experiment,
        records: Records,
        checkpoints: Checkpoints,
        meter: MomentumMeter | None,
        bar: Any,
    ):
        self._experiment, self._records, self._checkpoints = experiment, records, checkpoints
        self.meter, self._bar = meter, bar
        last = records.rows[-1] if records.rows else {"update": 0, "wall_seconds": 0.0}
        self._update, self._seconds_before = last["update"], last["wall_seconds"]
        self._began = self._then = time.perf_counter()
        self._constant_momentum = explicit_momentum(experiment.config)

    def report_start(self, evaluation: Mapping[str, jax.Array]) -> None:
        """Records the evaluation of the initial parameters."""
        clock = {} if self._experiment.trace.time is None else {"simulated_time": 0.0}
        self._write({"update": 0, **clock}, evaluation)

    def report(self, step: Step, evaluation: Mapping[str, jax.Array], momentum: jax.Array | None) -> dict[str, float]:
        """Waits for a step and records its means; returns the evaluation as floats.

        Raises:
          RunError: a loss is not finite.
        """
        events = step.events
        out = jax.tree.map(lambda x: np.asarray(x)[: events.stop - events.start], step.out)
        for what, values in (("loss", out.losses), ("gap", out.gap)):
            for i in np.flatnonzero(~np.isfinite(values))[:1]:
                event = events.start + int(i)
                raise self.diverged(f"the {what} of update {event + 1:,} is {values[i]}", event)
        if self.meter is not None:
            self.meter.add(step.read_version, out.aux["meter"])
        now = time.perf_counter()
        rate = (events.stop - self._update) / max(now - self._then, 1e-9)
        self._then, self._update = now, events.stop
        clock = {} if step.time is None else {"simulated_time": step.time}
        row = {
            "update": events.stop,
            **clock,
            **event_means(out, lambda values: float(values.mean())),
            "explicit_momentum": float(self._constant_momentum if momentum is None else momentum),
            "learning_rate": float(self._experiment.schedule(events.stop - 1)),
            "updates_per_second": round(rate, 3),
        }
        self._bar.update(events.stop - self._bar.n)
        self._bar.set_postfix_str(f"loss {row['train_loss']:.4g}")
        return self._write(row, evaluation)

    def diverged(self, what: str, update: int) -> RunError:
        """The error of a diverged run: what happened, what is saved and what to do."""
        config, saved = self._experiment.config, self._checkpoints.updates()
        kept = f"The last good checkpoint, of update {saved[-1]:,}, is kept." if saved else "No checkpoint was saved."
        return RunError(
            f"{what}: the training has diverged (learning rate {float(self._experiment.schedule(update)):g}, explicit "
            f"momentum {config.momentum:g}, {config.num_workers} workers). {kept} Try a smaller learning rate or less "
            "momentum in a new workdir."
        )

    def _write(self, row: dict[str, Any], evaluation: Mapping[str, jax.Array]) -> dict[str, float]:
        metrics = {name: float(value) for name, value in evaluation.items()}
        if not np.isfinite(metrics.get("test_loss", 0.0)):
            update = row["update"]
            raise self.diverged(f"the test loss is {metrics['test_loss']} after update {update:,}", max(update - 1, 0))
        seconds = self._seconds_before + time.perf_counter() - self._began
        row = {**row, **metrics, **(self._momentum() if metrics else {}), "wall_seconds": round(seconds, 3)}
        self._records.write(row)
        if metrics:
            words = [text.format(row[name]) for name, text in _SHOWN.items() if name in row]
            progress.say("   ".join([f"update {row['update']:,}", *words]))
        return metrics

    def _momentum(self) -> dict[str, float]:
        """The meter's estimate by column; {} if it has none."""
        measured = self.meter.estimate() if self.meter is not None else None
        if measured is None:
            return {}
        return {
            "implicit_momentum": measured.implicit,
            "implicit_momentum_low": measured.low,
            "implicit_momentum_high": measured.high,
            "total_momentum": measured.total,
        }


def draw(experiment: Experiment, records: Records, path: pathlib.Path) -> None:
    """Draws the figures of a run."""
    width = 15 + 5 * any("implicit_momentum" in row for row in records.rows)
    figure = _style.new_figure(width if experiment.trace.time is not None else width - 5, 7.5)
    config = experiment.config
    title = (
        f"{config.dataset}, {config.model}, {_style.workers(config.num_workers)}, {config.algorithm}, "
        f"learning rate {config.learning_rate:g}, explicit momentum {config.momentum:g}"
    )
    _style.title(figure, title)
    plots.training(figure, records.rows, experiment.trace, experiment.law)
    _style.save(figure, path)


def table(experiment: Experiment, records: Records, checked: str) -> str:
    """The results, one per line; `checked` is the summary of `check_run`."""
    config, trace, law, last = experiment.config, experiment.trace, experiment.law, records.rows[-1]
    updates, accuracy = records.column("test_accuracy")
    best, seconds = int(np.argmax(accuracy)), last["wall_seconds"]
    expected = None if law is None else law.implicit_momentum
    implicit = "" if expected is None else f", implicit momentum {expected:.3f}"
    lines = {
        "data, network": f"{config.dataset}, {config.model}",
        "method": f"{config.algorithm}, learning rate {config.learning_rate:g}, explicit momentum {config.momentum:g}",
        "workers": f"{config.num_workers}{implicit}",
        "staleness": f"mean {trace.staleness.mean():.2f}, largest {trace.staleness.max()}"
        + (f", in theory {law}" if law else ""),
        "gap": f"mean {np.mean(records.column('gap')[1]):.3g}",
        "momentum meter": _measured(experiment, records),
        "updates": f"{last['update']:,} in {seconds:.1f} s, {last['update'] / seconds:.1f} a second",
        "simulated time": f"{last['simulated_time']:,.1f} s" if "simulated_time" in last else "none",
        "test loss": f"{last['test_loss']:.4f}",
        "test accuracy": f"{accuracy[-1]:.2%}, best {accuracy[best]:.2%} at update {updates[best]:,}",
    }
    if "ema_test_accuracy" in last:
        lines["moving average"] = f"test loss {last['ema_test_loss']:.4f}, accuracy {last['ema_test_accuracy']:.2%}"
    if "test_top5_accuracy" in last:
        lines["top 5"] = f"{last['test_top5_accuracy']:.2%}"
    lines["checked"] = checked
    return "\n".join(f"{name:15s} {text}" for name, text in lines.items())


def _measured(experiment: Experiment, records: Records) -> str:
    """The meter's last estimate, or the reason for its absence."""
    config, law = experiment.config, experiment.law
    rows = [row for row in records.rows if "implicit_momentum" in row]
    if not rows:
        return f"none, {experiment.no_meter or f'no {config.meter_window} updates in a row at one learning rate'}"
    last = rows[-1]
    low, high = last["implicit_momentum_low"], last["implicit_momentum_high"]
    fit = "" if law and law.implicit_momentum is not None else " (a best fit, if staleness is not geometric)"
    return (
        f"implicit {last['implicit_momentum']:.3f}, 95 % in [{low:.3f}, {high:.3f}]{fit}, "
        f"with explicit {config.momentum:g} in all {last['total_momentum']:.3f}, at update {last['update']:,}"
    )
