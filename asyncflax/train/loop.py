"""Training under asynchrony, from a config to a folder with metrics, checkpoints and figures.

    workdir/run.json         the config and the versions that it began with
    workdir/trace.npz        the trace, to be plotted or replayed
    workdir/metrics.jsonl    metrics as they come; metrics.csv at the end; tensorboard/ and others: see `writers`
    workdir/checkpoints/     see `checkpoint`
    workdir/training.png     the figures

A run that stopped, however it did, goes on from its newest checkpoint when it is started again, and gives what an
uninterrupted run gives, on CPUs bit by bit: batches, keys and augmentation depend on the event alone.

Several processes do the same together after `distributed.start`, each with its own devices, in a folder that all of
them see. Each has a copy of a data set in memory, or decodes its part of every batch of records. The primary writes
metrics and figures and prints; all save and load the arrays; a signal to any of them stops all after the same chunk.
Needs the extra `train`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from asyncflax import _style, plots
from asyncflax.engine.execute import RunOutput, RunState, init_run, run_chunk
from asyncflax.engine.plan import Plan
from asyncflax.errors import RunError, of_system
from asyncflax.theory.meter import MomentumMeter
from asyncflax.train import distributed, progress
from asyncflax.train._invariants import broken_leaf, check_run
from asyncflax.train.asynchrony import inputs
from asyncflax.train.checkpoint import Checkpoints
from asyncflax.train.columns import event_means
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, make_experiment, make_meter
from asyncflax.train.extension import extend, refuse_other_ends
from asyncflax.train.method import averaged, explicit_momentum, steered_momentum
from asyncflax.train.records import Records
from asyncflax.train.workdir import Workdir

__all__ = ["RunError", "RunInterruptedError", "Summary", "train_and_evaluate"]


class RunInterruptedError(RunError):
    """A signal asked the run to stop; it is saved, and the same call goes on.

    Attributes:
      exit_status: 128 + the number of the signal, as shells have it.

    Example: see `train_and_evaluate`.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


class Summary(NamedTuple):
    """How a training ended.

    Attributes:
      rows: the metrics, see `Records`.
      state: the last `RunState`.
      figure: where the figures are.
      table: the results in words, and in its last line what was checked: what holds at the end of every run.

    Example: see `train_and_evaluate`.
    """

    rows: list[dict[str, Any]]
    state: RunState
    figure: pathlib.Path
    table: str


def train_and_evaluate(config: TrainConfig, workdir: str | os.PathLike[str]) -> Summary:
    """Trains, or goes on with what was begun in the folder.

    A folder that is new or empty: a new run. The folder of a run with this config: goes on from its newest checkpoint.
    The folder of a complete run: gives its results. Anything else is refused, and nothing is written.

    Args:
      config: what to train.
      workdir: the folder of the run.

    Raises:
      RunError: the config or the folder is not as it should be, or the training has diverged; one clear sentence.
      RunInterruptedError: SIGINT (Ctrl-C) or SIGTERM arrived.

    Example:
      >>> import tempfile
      >>> from asyncflax.train.config import TrainConfig
      >>> from asyncflax.train.loop import train_and_evaluate
      >>> config = TrainConfig(model="Mlp", num_workers=4, num_updates=40, learning_rate=0.1)
      >>> summary = train_and_evaluate(config, tempfile.mkdtemp())  # doctest: +ELLIPSIS
      update 0 ...
      >>> [row["update"] for row in summary.rows]
      [0, 20, 40]
    """
    try:
        config = config.check()
        distributed.same(_of_all(config, workdir))
        folder = Workdir(workdir, config)
        saved = Checkpoints(folder.path / "checkpoints")
        begun = distributed.broadcast(distributed.is_primary() and bool(saved.updates()))
        # A run that goes on needs nothing else to start from.
        experiment = make_experiment(dataclasses.replace(config, start_from="") if begun else config)
        experiment = experiment._replace(config=config)
        trace, plans = extend(experiment)
        experiment = experiment._replace(trace=trace)
    except (TypeError, ValueError, OSError) as error:
        raise RunError(str(error)) from error
    try:
        with folder.owned(), contextlib.closing(experiment.feed):
            state, records = _train(experiment, plans, folder)
            checked = check_run(experiment.trace, state, records.rows, _bound(experiment))
            figure = folder.path / "training.png"
            if distributed.is_primary() and not figure.exists():
                _draw(experiment, records, figure)
            distributed.sync("end")
    except RunError:
        raise
    except Exception as error:
        of_disk = of_system(error)  # a full disk, a folder that went away
        if of_disk is None:
            raise
        saved = "saved checkpoints stay, the same command resumes from the newest"
        raise RunError(f"{' '.join(str(of_disk).split())}; {saved}") from error
    return Summary(records.rows, state, figure, f"{_table(experiment, records)}\n{'checked':15s} {checked}")


def _bound(experiment: Experiment) -> int | None:
    """The largest staleness that the queue of a run lets through; None for any."""
    asynchrony = experiment.config.named.asynchrony
    return asynchrony.option("max_staleness") if asynchrony.name == "queue" else None


def _evaluated(experiment: Experiment, state: RunState) -> dict[str, jax.Array]:
    """How good the parameters are, and beside them their moving average, with the same statistics of BatchNorm."""
    found = experiment.evaluate(state.params, state.model_state)
    if experiment.config.ema_decay == 0:
        return found
    average = experiment.evaluate(averaged(state.algorithm, state.params), state.model_state)
    return found | {f"ema_{name}": value for name, value in average.items()}


def _of_all(config: TrainConfig, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """What all processes of a run have in common; a data set may lie elsewhere on each host."""
    fields = {f"config.{name}": value for name, value in dataclasses.asdict(config).items()}
    for place in ("data_dir", "data_cache"):
        del fields[f"config.{place}"]
    return {"workdir": os.fspath(workdir), **fields}


def _train(experiment: Experiment, plans: list[Plan], folder: Workdir) -> tuple[RunState, Records]:
    """The loop: chunks, metrics, evaluations, checkpoints."""
    config, trace, algorithm = experiment.config, experiment.trace, experiment.algorithm

    def like(update: int, saved: dict[str, Any]) -> RunState:
        refuse_other_ends(saved, update, config)
        return _begun(experiment, _plan_at(plans, update))

    try:
        about_run = {"inputs": inputs(config.named.asynchrony), "sources": config.named.sources()}
        folder.begin(trace.prefix(config.num_updates), **about_run)
        options: dict[str, Any] = {"keep": config.keep_checkpoints, "run": folder.began["sha256"], "warn": progress.say}
        checkpoints = Checkpoints(folder.path / "checkpoints", **options)
        checkpoint = checkpoints.latest(like=like)
        start = 0 if checkpoint is None else checkpoint.update
        if config.extend:
            folder.save_extended(trace)
        rows = () if checkpoint is None else checkpoint.rows
        records = Records(folder.path, rows=rows, writers=config.named.writers, config=dataclasses.asdict(config))
    except (TypeError, ValueError, OSError) as error:
        raise RunError(str(error)) from error
    if checkpoint is None:
        state = _begun(experiment, plans[0])
    else:
        state = checkpoint.state
        progress.say(f"{'goes on' if start < len(trace) else 'is complete'} at update {start:,}")
        for change in folder.changes():
            progress.say(f"note: {change}")
    gradient_fn, meter = experiment.gradient_fn, None
    if not experiment.no_meter and start < config.num_updates:
        gradient_fn, meter = make_meter(experiment)
        if checkpoint is not None:
            meter.restore(checkpoint.extra)
    if config.extend:
        first, last = (experiment.schedule(update) for update in (config.num_updates, len(trace) - 1))
        progress.say(
            f"note: config.extend={config.extend}: beyond the {config.num_updates:,} updates of the schedule the "
            f"learning rate is {float(first):g}, at the end {float(last):g}; the workers begin anew from the server's "
            "parameters"
        )

    with records, _signals() as signals, progress.bar(len(trace), start) as bar:
        reporter = _Reporter(experiment, records, checkpoints, meter, bar, start)
        if checkpoint is None:
            reporter.report_start(_evaluated(experiment, state))
        waiting = None  # a chunk's metrics are read when the next one has been dispatched
        for plan, chunk in ((each, chunk) for each in plans for chunk in each):
            begin, update = chunk.events.start, chunk.events.stop
            if begin < start:
                continue
            if begin > 0 and begin == plan.events.start:
                state, gradient_fn = _begun(experiment, plan, state), experiment.gradient_fn
                reporter.meter = meter = None  # versions of two traces follow each other
                if distributed.is_primary():
                    (folder.path / "training.png").unlink(missing_ok=True)
            batches = experiment.batches(chunk)
            state, out = run_chunk(algorithm, gradient_fn, state, chunk, batches)
            if waiting is not None:
                reporter.report(*waiting)
            is_last = update == plan.events.stop
            evaluate = update % config.eval_every == 0 or is_last
            evaluation = _evaluated(experiment, state) if evaluate else {}
            waiting = (chunk.events, out, evaluation, steered_momentum(state.algorithm))
            stopped_by = signals.stopped_by()
            if update % config.checkpoint_every == 0 or is_last or stopped_by:
                metrics = reporter.report(*waiting)
                waiting = None
                _refuse_broken(reporter, state, update)
                records.sync()
                extra = meter.arrays() if meter is not None else {}
                about: dict[str, Any] = {"config": dataclasses.asdict(config), "metrics": metrics}
                checkpoints.save(update, state, **about, extra=extra, rows=records.rows)
                if stopped_by and update < len(trace):
                    raise RunInterruptedError(
                        f"stopped by {stopped_by.name} after update {update:,} and saved; "
                        "the same command goes on from there",
                        stopped_by,
                    )
    return state, records


def _plan_at(plans: Sequence[Plan], update: int) -> Plan:
    """The plan that makes an update, 1 being the first."""
    return next(plan for plan in plans if update <= plan.events.stop)


def _begun(experiment: Experiment, plan: Plan, state: RunState | None = None) -> RunState:
    """The state before the first event of a plan: the initial one, or where the plan before has ended."""
    if state is None:
        begin = {"key": experiment.key, "model_state": experiment.model_state}
        return init_run(experiment.algorithm, experiment.params, plan, **begin)
    begin = {"key": state.key, "model_state": state.model_state, "algorithm_state": state.algorithm}
    return init_run(experiment.algorithm, state.params, plan, **begin)


class _Reporter:
    """Turns what a chunk gives out into a row of metrics, a line and a step of the progress bar."""

    def __init__(
        self,
        experiment: Experiment,
        records: Records,
        checkpoints: Checkpoints,
        meter: MomentumMeter | None,
        bar: Any,
        start: int,
    ):
        self._experiment, self._records, self._checkpoints = experiment, records, checkpoints
        self.meter, self._bar = meter, bar
        self._seconds_before = records.rows[-1]["wall_seconds"] if records.rows else 0.0
        self._began = self._then = time.perf_counter()
        self._update = start
        self._constant_momentum = explicit_momentum(experiment.config)

    def report_start(self, evaluation: dict[str, jax.Array]) -> None:
        """The evaluation of the initial parameters."""
        clock = {} if self._experiment.trace.time is None else {"simulated_time": 0.0}
        self._write({"update": 0, **clock}, evaluation)

    def report(
        self, events: slice, out: RunOutput, evaluation: dict[str, jax.Array], momentum: jax.Array | None
    ) -> dict[str, float]:
        """Waits for a chunk and records its means; returns the evaluation as numbers.

        Raises:
          RunError: a loss is not finite.
        """
        count, trace = events.stop - events.start, self._experiment.trace
        out = jax.tree.map(lambda x: np.asarray(x)[:count], out)
        for what, values in (("loss", out.losses), ("gap", out.gap)):
            for i in np.flatnonzero(~np.isfinite(values))[:1]:
                event = events.start + int(i)
                raise self.diverged(f"the {what} of update {event + 1:,} is {values[i]}", event)
        if self.meter is not None:
            self.meter.add(trace.read_version[events], out.aux["meter"])
        now = time.perf_counter()
        rate = (events.stop - self._update) / max(now - self._then, 1e-9)
        self._then, self._update = now, events.stop
        clock = {} if trace.time is None else {"simulated_time": float(trace.time[events.stop - 1])}
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
        """The error that says what has happened, what is left and what to do."""
        config, saved = self._experiment.config, self._checkpoints.updates()
        return RunError(
            f"{what}: the training has diverged (learning rate {float(self._experiment.schedule(update)):g}, "
            f"explicit momentum {config.momentum:g}, {config.num_workers} workers). "
            + (
                f"The last good checkpoint, of update {saved[-1]:,}, stays. "
                if saved
                else "There is no checkpoint yet. "
            )
            + "Take a smaller learning rate or less momentum in a new workdir."
        )

    def _write(self, row: dict[str, Any], evaluation: dict[str, jax.Array]) -> dict[str, float]:
        metrics = {name: float(value) for name, value in evaluation.items()}
        if not np.isfinite(metrics.get("test_loss", 0.0)):
            update = row["update"]
            raise self.diverged(f"the test loss is {metrics['test_loss']} after update {update:,}", max(update - 1, 0))
        momentum = self._momentum() if metrics else {}
        seconds = self._seconds_before + time.perf_counter() - self._began
        self._records.write({**row, **metrics, **momentum, "wall_seconds": round(seconds, 3)})
        if metrics:
            words = [f"update {row['update']:,}"]
            words += [f"train loss {row['train_loss']:.4f}"] if "train_loss" in row else []
            words += [f"test loss {metrics['test_loss']:.4f}", f"test accuracy {metrics['test_accuracy']:.2%}"]
            words += [f"of the average {metrics['ema_test_accuracy']:.2%}"] if "ema_test_accuracy" in metrics else []
            words += [f"top 5 {metrics['test_top5_accuracy']:.2%}"] if "test_top5_accuracy" in metrics else []
            words += [f"implicit momentum {momentum['implicit_momentum']:.2f}"] if momentum else []
            words += [f"{row['updates_per_second']:.1f} updates/s"] if "updates_per_second" in row else []
            progress.say("   ".join(words))
        return metrics

    def _momentum(self) -> dict[str, float]:
        """What the meter shows, by name; {} where it shows nothing."""
        measured = self.meter.estimate() if self.meter is not None else None
        if measured is None:
            return {}
        return {
            "implicit_momentum": measured.implicit,
            "implicit_momentum_low": measured.low,
            "implicit_momentum_high": measured.high,
            "total_momentum": measured.total,
        }


def _refuse_broken(reporter: _Reporter, state: RunState, update: int) -> None:
    """What is saved must be finite; the loss shows broken parameters only when a worker has read them."""
    if name := broken_leaf(state):
        raise reporter.diverged(f"the state {name} is not finite after update {update:,}", update - 1)


class _Signals:
    arrived: signal.Signals | None = None

    def stopped_by(self) -> signal.Signals | None:
        """What stops the run after this chunk, the same one in all processes."""
        return signal.SIGTERM if distributed.preempted() else self.arrived


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """Notes the first SIGINT or SIGTERM, so that the run can save; the second one acts at once.

    Where several processes run, JAX notes SIGTERM, and SIGINT is passed on as one.
    """
    noted, before = _Signals(), {}

    def note(number: int, _: Any) -> None:
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            noted.arrived = signal.Signals(number)  # the loop looks; nothing else is safe here
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    several = jax.process_count() > 1
    with contextlib.suppress(ValueError):  # not in the main thread, whose owner handles signals
        for number in (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        restore()


def _draw(experiment: Experiment, records: Records, path: pathlib.Path) -> None:
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


def _table(experiment: Experiment, records: Records) -> str:
    """The results, one a line."""
    config, trace, last = experiment.config, experiment.trace, records.rows[-1]
    updates, accuracy = records.column("test_accuracy")
    best = int(np.argmax(accuracy))
    law = f", in theory {experiment.law}" if experiment.law else ""
    clock = f"{last['simulated_time']:,.1f} s" if "simulated_time" in last else "none"
    expected = None if experiment.law is None else experiment.law.implicit_momentum
    implicit = "" if expected is None else f", implicit momentum {expected:.3f}"
    seconds = last["wall_seconds"]
    lines = {
        "data, network": f"{config.dataset}, {config.model}",
        "method": f"{config.algorithm}, learning rate {config.learning_rate:g}, explicit momentum {config.momentum:g}",
        "workers": f"{config.num_workers}{implicit}",
        "staleness": f"mean {trace.staleness.mean():.2f}, largest {trace.staleness.max()}{law}",
        "gap": f"mean {np.mean(records.column('gap')[1]):.3g}",
        "momentum meter": _measured(experiment, records),
        "updates": f"{last['update']:,} in {seconds:.1f} s, {last['update'] / seconds:.1f} a second",
        "simulated time": clock,
        "test loss": f"{last['test_loss']:.4f}",
        "test accuracy": f"{accuracy[-1]:.2%}, best {accuracy[best]:.2%} at update {updates[best]:,}",
    }
    if "ema_test_accuracy" in last:
        lines["moving average"] = f"test loss {last['ema_test_loss']:.4f}, accuracy {last['ema_test_accuracy']:.2%}"
    if "test_top5_accuracy" in last:
        lines["top 5"] = f"{last['test_top5_accuracy']:.2%}"
    return "\n".join(f"{name:15s} {text}" for name, text in lines.items())


def _measured(experiment: Experiment, records: Records) -> str:
    """What the meter has shown last, or why there is nothing."""
    config, rows = experiment.config, [row for row in records.rows if "implicit_momentum" in row]
    if experiment.no_meter and not rows:
        return f"none, {experiment.no_meter}"
    if not rows:
        return f"none, no {config.meter_window} updates in a row at one learning rate"
    last = rows[-1]
    low, high = last["implicit_momentum_low"], last["implicit_momentum_high"]
    fits = experiment.law is not None and experiment.law.implicit_momentum is not None
    fit = "" if fits else " (a best fit, if staleness is not geometric)"
    return (
        f"implicit {last['implicit_momentum']:.3f}, 95 % in [{low:.3f}, {high:.3f}]{fit}, "
        f"with explicit {config.momentum:g} in all {last['total_momentum']:.3f}, at update {last['update']:,}"
    )
