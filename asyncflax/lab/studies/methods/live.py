"""Does a queue of measured service times predict a live training? Two threads on CIFAR-10, beside their emulation.

Two live workers train a small network, and each gradient takes an exponential time, longer than it needs. What happened
is replayed. Then a queue draws from the times that were measured (`queues.measured`), which gives traces that might as
well have happened; initial weights, batches and random keys, by ticket, are those of the live training. If workers are
such a queue, the live training is one more of its traces: the mean of its last training losses lies in the 95 %
prediction interval of theirs. A training without staleness shows what the interval can tell apart.

Threads add the time of the machine to service times that the seed of the training draws. So a repetition has nearly the
same trace, not an independent one: where that lies near an end of the interval, the verdict may change.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from asyncflax import _style, queues, staleness
from asyncflax.lab import statistics
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.trace import Trace
from asyncflax.train._runs import Emulation, Run, make_run
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import Experiment, make_experiment, plan_of

_COLUMNS = {"worker": int, "read_version": int, "ticket": int, "begun": float, "time": float}  # of a live trace
_WINDOWS = 30  # of updates, whose mean losses are drawn


@dataclasses.dataclass(frozen=True)
class Design:
    """What is fixed beforehand."""

    training: TrainConfig  # live, in one chunk
    last: int  # updates, whose training losses are averaged
    judging: tuple[int, ...]  # seeds of the emulated queues; nothing is chosen


DESIGN = Design(
    training=TrainConfig(
        dataset="cifar10",
        pixel_scale=1 / 64,
        crop_pad=4,
        flip=True,
        num_workers=2,
        execution="threads(service_time=exponential(mean=0.4))",
        learning_rate=0.01,
        momentum=0.9,
        num_updates=300,
        log_every=300,
        eval_every=300,
        checkpoint_every=300,
    ),
    last=100,
    judging=tuple(range(100, 108)),
)
QUICK = Design(
    training=TrainConfig(
        model="Mlp",
        num_workers=2,
        execution="threads(service_time=exponential(mean=0.005))",
        learning_rate=0.02,
        momentum=0.9,
        num_updates=60,
        log_every=60,
        eval_every=60,
        checkpoint_every=60,
    ),
    last=20,
    judging=tuple(range(1000, 1008)),
)
# The digest of `DESIGN`, committed before it was judged.
CRITERION = "d3ac1a4203ede1c5b23939620c87612d1c59fe8f5cb95ee3bb73a0627d0ec21d"


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claim, and the figure."""
    config = design.training
    made = functools.cache(lambda: make_experiment(config))
    *columns, live = parts.get("live", lambda: _live(made()))
    recorded = {name: column.astype(_COLUMNS[name]) for name, column in zip(_COLUMNS, columns, strict=True)}
    trace = Trace(**recorded, num_workers=config.num_workers)
    fresh = staleness.constant(0).trace(num_updates=config.num_updates)
    emulated = lambda: [_emulated(made(), simulated(trace, seed)) for seed in design.judging]
    losses = {
        "live": live,
        "replay": parts.get("replay", lambda: _emulated(made(), trace)),
        "without staleness": parts.get("fresh", lambda: _emulated(made(), fresh)),
        "emulated": parts.get("emulated", lambda: np.stack(emulated())),
    }
    return [decide(design, losses)], _draw(design, losses)


def simulated(trace: Trace, seed: int) -> Trace:
    """As many events of a queue with the service times of a trace; tickets as a live server hands them out."""
    workers, service_time = trace.num_workers, queues.measured(trace)
    made = queues.simulate(num_workers=workers, num_updates=len(trace), service_time=service_time, seed=seed)
    first = made.read_version == 0
    return dataclasses.replace(made, ticket=np.where(first, made.worker, made.read_version + workers - 1))


def predicted(values: np.ndarray) -> statistics.Interval:
    """The mean of independent numbers, with Student's 95 % prediction interval for one more."""
    mean, low, high = statistics.student(values)
    wider = np.sqrt(len(values) + 1)  # the new number has the variance of one, their mean an n-th of it
    return statistics.Interval(mean, mean - wider * (mean - low), mean + wider * (high - mean))


def decide(design: Design, losses: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of the claim, from training losses [..., updates]."""
    config, last = design.training, _last(design, losses)
    interval = predicted(last["emulated"])
    difference = np.max(np.abs(losses["replay"] - losses["live"]))
    return {
        "name": "live-emulated",
        "statement": "Asynchronous workers are a queue: the mean training loss of a live training over its last "
        f"{design.last} updates lies in the 95 % prediction interval of queues with its measured service times "
        f"({config.dataset}, {config.model}, {_style.workers(config.num_workers)}, momentum {config.momentum:g}, "
        f"batches of {config.batch_size}, {config.num_updates} updates).",
        "source": "Mitliagkas et al. 2016, section 2.1",
        "paper": "no number",
        "ours": f"{interval.text(3)} emulated, {last['live']:.3f} live, {last['without staleness']:.3f} without "
        f"staleness; largest difference of the replay {difference:.1g}",
        **interval.of_claim,
        "verdict": statistics.decide_number((last["live"], last["live"]), low=interval.low, high=interval.high),
        "seeds": len(design.judging),
    }


def _last(design: Design, losses: dict[str, np.ndarray]) -> dict[str, Any]:
    """The means over the last updates."""
    return {name: values[..., -design.last :].mean(axis=-1) for name, values in losses.items()}


def _live(made: Experiment) -> np.ndarray:
    """The trace and the losses of a live training, [columns, updates]."""
    short = made._replace(config=dataclasses.replace(made.config, num_updates=made.config.num_workers))
    _losses(made, make_run(short, []))  # compiles, so that no service time is that of the compiler
    run = make_run(made, [])
    losses = _losses(made, run)
    return np.stack([*(getattr(run.trace, name) for name in _COLUMNS), losses])


def _emulated(made: Experiment, trace: Trace) -> np.ndarray:
    """The losses of the training over another trace, [updates]."""
    return _losses(made, Emulation(made._replace(trace=trace), [plan_of(made.config, trace)]))


def _losses(made: Experiment, run: Run) -> np.ndarray:
    run.begin(run.state(), {})
    (step,) = run.steps(made.gradient_fn)
    return np.asarray(step.out.losses, float)


def _draw(design: Design, losses: dict[str, np.ndarray]) -> Any:
    config, last = design.training, _last(design, losses)
    figure = _style.new_figure(11, 4.6)
    curves, means = figure.subplots(1, 2, width_ratios=(3, 1))
    ends = np.linspace(0, config.num_updates, _WINDOWS + 1)[1:]
    windows = lambda values: values.reshape(*values.shape[:-1], _WINDOWS, -1).mean(axis=-1)
    names = ["live", "replay", "without staleness"]
    emulated = f"{len(design.judging)} emulations"
    for k, one in enumerate(windows(losses["emulated"])):
        curves.plot(ends, one, color=_style.GREY, linewidth=1, label=emulated if k == 0 else None)
    for k, name in enumerate(names):
        width = 5 if name == "live" else 1.5  # its replay lies upon it
        curves.plot(ends, windows(losses[name]), **_style.look(k, _WINDOWS), linewidth=width, label=name)
    curves.set_xlabel("updates")
    curves.set_ylabel("training loss")
    curves.legend()

    means.plot(np.zeros(len(design.judging)), last["emulated"], ".", color=_style.GREY)
    _style.intervals(means, [0.0], [predicted(last["emulated"])], len(names))
    for k, name in enumerate(names):
        means.plot([k + 1], [last[name]], **_style.look(k))
    means.set_xticks(range(len(names) + 1), [f"{emulated},\n95 % prediction", *names], rotation=30, ha="right")
    means.set_xlim(-0.5, len(names) + 0.5)
    means.set_ylabel(f"mean of the last {design.last} updates")
    where = f"{config.dataset}, {config.model}, {_style.workers(config.num_workers)}, momentum {config.momentum:g}"
    _style.title(figure, f"{where}: a live training, its replay, and queues with its measured service times")
    return figure
