"""Trains under asynchrony, from a config to a folder with metrics, checkpoints and figures.

    workdir/run.json         the config and the package versions at the start
    workdir/trace.npz        the trace, to plot or replay
    workdir/metrics.jsonl    metrics during the run; metrics.csv at the end; tensorboard/ and others: see `writers`
    workdir/checkpoints/     see `checkpoint`
    workdir/training.png     the figures

A stopped run resumes from its newest checkpoint, with the results of an uninterrupted run (bitwise on CPU): batches,
keys and augmentation depend only on the event.

Several processes train together after `distributed.start`, each with its own devices, in a shared folder. Each has a
copy of a data set in memory, or decodes its part of every batch of records. The primary writes metrics and figures and
prints; all save and load the arrays; a signal to any of them stops all after the same chunk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import jax

from asyncflax.engine.execute import RunState
from asyncflax.engine.plan import Plan
from asyncflax.errors import RunError, of_system
from asyncflax.trace import Trace
from asyncflax.train import distributed, progress
from asyncflax.train._invariants import broken_leaf, check_run
from asyncflax.train._report import Reporter, draw, table
from asyncflax.train._runs import make_run
from asyncflax.train._signals import noted
from asyncflax.train.asynchrony import inputs
from asyncflax.train.checkpoint import Checkpoints
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, make_experiment, make_meter
from asyncflax.train.extension import extend, refuse_other_ends
from asyncflax.train.method import averaged, steered_momentum
from asyncflax.train.records import Records
from asyncflax.train.workdir import Workdir

__all__ = ["RunError", "RunInterruptedError", "Summary", "train_and_evaluate"]


class RunInterruptedError(RunError):
    """A signal stopped the run, which is saved; repeat the call to resume.

    Attributes:
      exit_status: 128 + the number of the signal, as in shells.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


class Summary(NamedTuple):
    """The results of a run.

    Attributes:
      rows: the rows of metrics, see `Records`.
      state: the last `RunState`.
      figure: the path of the figures.
      table: the results as text; its last line lists the invariants that were checked.
    """

    rows: list[dict[str, Any]]
    state: RunState
    figure: pathlib.Path
    table: str


def train_and_evaluate(config: TrainConfig, workdir: str | os.PathLike[str]) -> Summary:
    """Trains, or resumes the run in the folder.

    A new or empty folder starts a run; the folder of a run with the same config resumes it, or returns its results if
    it is complete.

    Args:
      config: the config of the run.
      workdir: the folder of the run.

    Raises:
      RunError: the config is invalid or the folder holds something else (nothing is written), or training diverged.
      RunInterruptedError: the process received SIGINT (Ctrl-C) or SIGTERM.

    Example:
      >>> import tempfile
      >>> from asyncflax.train import TrainConfig, train_and_evaluate
      >>> config = TrainConfig(model="Mlp", num_workers=4, num_updates=40, learning_rate=0.1)
      >>> summary = train_and_evaluate(config, tempfile.mkdtemp())  # doctest: +ELLIPSIS
      update 0 ...
      >>> [row["update"] for row in summary.rows]
      [0, 20, 40]
    """
    try:
        config = config.check()
        distributed.same(_shared(config, workdir))
        folder = Workdir(workdir, config)
        saved = Checkpoints(folder.path / "checkpoints")
        resumed = distributed.broadcast(distributed.is_primary() and bool(saved.updates()))
        experiment = make_experiment(dataclasses.replace(config, start_from="") if resumed else config)
        trace, plans = extend(experiment._replace(config=config))
        experiment = experiment._replace(config=config, trace=trace)
    except (TypeError, ValueError, OSError) as error:
        raise RunError(str(error)) from error
    try:
        with folder.owned(), contextlib.closing(experiment.feed):
            state, records, trace = _train(experiment, plans, folder)
            experiment = experiment._replace(trace=trace)
            checked = check_run(trace, state, records.rows, _bound(experiment))
            figure = folder.path / "training.png"
            if distributed.is_primary() and not figure.exists():
                draw(experiment, records, figure)
            distributed.sync("end")
    except RunError:
        raise
    except Exception as error:
        of_disk = of_system(error)  # a full disk, an unmounted folder
        if of_disk is None:
            raise
        reason = " ".join(str(of_disk).split())
        raise RunError(f"{reason}; checkpoints are kept; rerun the same command to resume") from error
    return Summary(records.rows, state, figure, table(experiment, records, checked))


def _bound(experiment: Experiment) -> int | None:
    """The largest staleness that the run's queue allows; None if unbounded."""
    asynchrony = experiment.config.named.asynchrony
    return asynchrony.option("max_staleness") if asynchrony.name == "queue" else None


def _evaluated(experiment: Experiment, state: RunState) -> dict[str, jax.Array]:
    """Evaluates the parameters and their moving average, with the same statistics of BatchNorm."""
    found = experiment.evaluate(state.params, state.model_state)
    if experiment.config.ema_decay == 0:
        return found
    average = experiment.evaluate(averaged(state.algorithm, state.params), state.model_state)
    return found | {f"ema_{name}": value for name, value in average.items()}


def _shared(config: TrainConfig, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The values that all processes must share; the path of the data set may differ."""
    fields = dataclasses.asdict(dataclasses.replace(config, data_dir="", data_cache=""))
    return {"workdir": os.fspath(workdir), **{f"config.{name}": value for name, value in fields.items()}}


def _train(experiment: Experiment, plans: list[Plan], folder: Workdir) -> tuple[RunState, Records, Trace]:
    """Executes the run; records, evaluates and saves at each step."""
    config = experiment.config

    def like(update: int, saved: dict[str, Any]) -> RunState:
        refuse_other_ends(saved, update, config)
        return run.state(update)

    try:
        run = make_run(experiment, plans)
        about_run = {"inputs": inputs(config.named.asynchrony), "sources": config.named.sources()}
        folder.begin(None if config.live else experiment.trace.prefix(config.num_updates), **about_run)
        options: dict[str, Any] = {"keep": config.keep_checkpoints, "run": folder.began["sha256"], "warn": progress.say}
        checkpoints = Checkpoints(folder.path / "checkpoints", **options)
        checkpoint = checkpoints.latest(like=like)
        start = 0 if checkpoint is None else checkpoint.update
        if config.extend:
            folder.save_trace(experiment.trace)
        rows = () if checkpoint is None else checkpoint.rows
        records = Records(folder.path, rows=rows, writers=config.named.writers, config=dataclasses.asdict(config))
    except (TypeError, ValueError, OSError) as error:
        raise RunError(str(error)) from error
    state, saved = (run.state(), {}) if checkpoint is None else (checkpoint.state, checkpoint.extra)
    run.begin(state, saved)
    if checkpoint is not None:
        progress.say(f"{'resumes' if start < run.num_updates else 'is complete'} at update {start:,}")
        for change in folder.changes():
            progress.say(f"note: {change}")
    gradient_fn, meter = experiment.gradient_fn, None
    # In a resumed live run some versions were read twice, which the meter does not support.
    if not experiment.no_meter and start < config.num_updates and not (config.live and start):
        gradient_fn, meter = make_meter(experiment)
        if checkpoint is not None:
            meter.restore(checkpoint.extra)
    if config.extend:
        first, last = (experiment.schedule(update) for update in (config.num_updates, run.num_updates - 1))
        progress.say(
            f"note: config.extend={config.extend}: after the {config.num_updates:,} updates of the schedule the "
            f"learning rate is {float(first):g}, and {float(last):g} at the end; workers restart from the server's "
            "parameters"
        )

    with contextlib.ExitStack() as stack, records, noted() as signals, progress.bar(run.num_updates, start) as bar:
        reporter = Reporter(experiment, records, checkpoints, meter, bar)
        if checkpoint is None:
            reporter.report_start(_evaluated(experiment, state))
        waiting = None  # a step's metrics are read when the next one has been dispatched
        steps = stack.enter_context(contextlib.closing(run.steps(gradient_fn)))
        for step in steps:
            state, update = step.state, step.events.stop
            if step.restarts:
                reporter.meter = meter = None  # versions of different traces would be mixed
                if distributed.is_primary():
                    (folder.path / "training.png").unlink(missing_ok=True)
            if waiting is not None:
                reporter.report(*waiting)
            evaluation = _evaluated(experiment, state) if update % config.eval_every == 0 or step.is_last else {}
            waiting = (step, evaluation, steered_momentum(state.algorithm))
            stopped_by = signals.stopped_by()
            if update % config.checkpoint_every == 0 or step.is_last or stopped_by:
                metrics = reporter.report(*waiting)
                waiting = None
                _refuse_broken(reporter, state, update)
                records.sync()
                extra = run.arrays() | (meter.arrays() if meter is not None else {})
                about: dict[str, Any] = {"config": dataclasses.asdict(config), "metrics": metrics}
                checkpoints.save(update, state, **about, extra=extra, rows=records.rows)
                if config.live:
                    folder.save_trace(run.trace)
                if stopped_by and update < run.num_updates:
                    raise RunInterruptedError(
                        f"stopped by {stopped_by.name} after update {update:,} and saved; rerun the same "
                        "command to resume",
                        stopped_by,
                    )
    return state, records, run.trace


def _refuse_broken(reporter: Reporter, state: RunState, update: int) -> None:
    """Raises if the state is not finite, which a loss would show only once a worker reads it."""
    if name := broken_leaf(state):
        raise reporter.diverged(f"the state {name} is not finite after update {update:,}", update - 1)
