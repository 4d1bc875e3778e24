"""Emulated and live runs. Both yield a `Step` wherever the loop logs, evaluates or saves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from asyncflax import live
from asyncflax.engine.execute import RunState, init_run, run_chunk
from asyncflax.engine.plan import Plan
from asyncflax.engine.step import RunOutput
from asyncflax.trace import Trace
from asyncflax.train import progress
from asyncflax.train.experiment import Experiment

__all__ = ["Emulation", "LiveRun", "Run", "Step", "make_run"]

_LOG = "live_"  # prefix of the server's log in a checkpoint


class Step(NamedTuple):
    """The events of a run since the last step, up to one after which it is logged, evaluated or saved.

    Attributes:
      events: the slice of these events.
      out: the `RunOutput` of these events, padded.
      state: the `RunState` after these events.
      read_version: int [events], the versions that these events read.
      time: the seconds of the trace at the last of them, or None.
      restarts: whether all workers restarted at the first of these events, as in an extension.
      is_last: whether a plan ends with these events.
    """

    events: slice
    out: RunOutput
    state: RunState
    read_version: np.ndarray
    time: float | None
    restarts: bool
    is_last: bool


class Run(Protocol):
    """The interface of runs for the training loop.

    Attributes:
      num_updates: the number of updates of the whole run.
      trace: the trace of the run; for a live run, of the updates made so far.
    """

    num_updates: int

    @property
    def trace(self) -> Trace: ...

    def state(self, update: int = 0) -> RunState:
        """The initial state; for an update > 0 a state with the structure of its checkpoint."""
        ...

    def begin(self, state: RunState, saved: Mapping[str, np.ndarray]) -> None:
        """Sets the initial state, or that of a checkpoint with the `arrays` saved in it."""
        ...

    def steps(self, gradient_fn: Callable[..., Any]) -> Generator[Step, None, None]:
        """Runs from the state of `begin`, which is donated."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that a checkpoint needs besides the state of the last step."""
        ...


def make_run(experiment: Experiment, plans: Sequence[Plan]) -> Run:
    """Creates the run of an experiment, emulated or live, as set by `config.execution`.

    Args:
      experiment: the experiment, with the trace of all plans.
      plans: the plans of the run and of its extensions.
    """
    execution = experiment.config.named.execution.make(seed=experiment.config.seed)
    if execution.workers is None:
        return Emulation(experiment, plans)
    return LiveRun(experiment, execution.workers)


class Emulation:
    """A run executed by the engine, see `Run`."""

    def __init__(self, experiment: Experiment, plans: Sequence[Plan]):
        self._experiment, self._plans, self._states = experiment, plans, []
        self.trace, self.num_updates = experiment.trace, len(experiment.trace)

    def state(self, update: int = 0) -> RunState:
        return self._begin(next(plan for plan in self._plans if update <= plan.events.stop))

    def begin(self, state: RunState, saved: Mapping[str, np.ndarray]) -> None:
        del saved
        self._states = [state]

    def steps(self, gradient_fn: Callable[..., Any]) -> Generator[Step, None, None]:
        state, made = self._states.pop(), self._experiment
        begin = int(state.event)
        for plan, chunk in ((each, chunk) for each in self._plans for chunk in each):
            events = chunk.events
            if events.start < begin:
                continue
            restarts = 0 < events.start == plan.events.start
            if restarts:
                state, gradient_fn = self._begin(plan, state), made.gradient_fn
            state, out = run_chunk(made.algorithm, gradient_fn, state, chunk, made.batches(chunk))
            seconds = self.trace.time
            clock = None if seconds is None else float(seconds[events.stop - 1])
            read = self.trace.read_version[events]
            yield Step(events, out, state, read, clock, restarts, events.stop == plan.events.stop)

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def _begin(self, plan: Plan, state: RunState | None = None) -> RunState:
        """The state before the first event of a plan: the initial one, or the end of the previous plan."""
        made = self._experiment
        if state is None:
            begin = {"key": made.key, "model_state": made.model_state}
            return init_run(made.algorithm, made.params, plan, **begin)
        begin = {"key": state.key, "model_state": state.model_state, "algorithm_state": state.algorithm}
        return init_run(made.algorithm, state.params, plan, **begin)


class LiveRun:
    """A run by live workers, see `Run`; the state of a step has no slots, since the workers hold the versions."""

    def __init__(self, experiment: Experiment, workers: Callable[..., Any]):
        config = experiment.config
        self._experiment, self._workers, self.num_updates = experiment, workers, config.num_updates
        self._server = live.Server(
            experiment.algorithm,
            experiment.params,
            num_workers=config.num_workers,
            num_updates=config.num_updates,
            model_state=experiment.model_state,
            warn=progress.say,
        )
        self._snapshot = self._server.state()

    @property
    def trace(self) -> Trace:
        """The trace of the updates up to the last step."""
        return Trace(**self._snapshot.log, num_workers=self._experiment.config.num_workers)

    def state(self, update: int = 0) -> RunState:
        del update
        snapshot = self._snapshot
        event: Any = np.int32(len(snapshot.log["time"]))
        return RunState(snapshot.params, snapshot.algorithm, (), snapshot.model_state, self._experiment.key, event)

    def begin(self, state: RunState, saved: Mapping[str, np.ndarray]) -> None:
        log = {name.removeprefix(_LOG): x for name, x in saved.items() if name.startswith(_LOG)}
        if log:
            open_tickets = log.pop("open_tickets")
            self._snapshot = live.Snapshot(state.params, state.algorithm, state.model_state, log, open_tickets)
            self._server.restore(self._snapshot)

    def steps(self, gradient_fn: Callable[..., Any]) -> Generator[Step, None, None]:
        made = self._experiment
        if self._server.num_applied == self.num_updates:
            return
        cuts = [chunk.events.stop for chunk in made.plan]
        segments = self._workers(self._server, gradient_fn, made.feed.batch, key=made.key, cuts=cuts)
        with contextlib.closing(iter(segments)) as segments:
            for segment in segments:
                self._snapshot, events, log = segment.snapshot, segment.events, segment.snapshot.log
                read, clock = log["read_version"][events], float(log["time"][-1])
                is_last = events.stop == self.num_updates
                yield Step(events, segment.out, self.state(), read, clock, False, is_last)

    def arrays(self) -> dict[str, np.ndarray]:
        log = {f"{_LOG}{name}": x for name, x in self._snapshot.log.items()}
        return log | {f"{_LOG}open_tickets": self._snapshot.open_tickets}
