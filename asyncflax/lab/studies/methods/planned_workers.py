"""Is the planner right about trainings: does its number of workers take hardly more time than the best one?

Eight cases: a perceptron on handwritten digits and on CIFAR-10 at 8x8, batches of 16 and 256, exponential and nearly
equal times of a gradient. For each, a short run of one worker without momentum is measured, the planner recommends a
number of workers, and all numbers of workers are trained to the same training loss in simulated time, each with the
learning rate and the momentum that are best for it on other seeds. The recommended one may take 1.3 times the time of
the best one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import asyncflax
from asyncflax import _style, algorithms, data, queues, staleness, theory
from asyncflax.gradients import from_loss
from asyncflax.lab import statistics
from asyncflax.lab.studies.methods import _trainings
from asyncflax.lab.studies.methods._parts import Parts
from asyncflax.lab.studies.methods._trainings import Trainings
from asyncflax.theory import Spectrum, meter, planner

_LAWS = {"exponential": queues.exponential(), "gamma(cv=0.1)": queues.gamma(0.1)}
_ENOUGH = 1.15  # times the time of the first arm of which all seeds are there; later ones are not chosen


class Task(NamedTuple):
    """A training, and the short run that shows what it is like."""

    images: str
    batch_size: int
    loss: float  # the training loss to be reached
    time: float  # after which trainings end, in mean times of a gradient
    every: float  # time between two looks at the loss
    largest: float  # learning rate / (1 - momentum) of one worker that is tried; M^-3/4 times that of M
    short_rate: float
    short_updates: int


@dataclasses.dataclass(frozen=True)
class Design:
    """What is fixed beforehand."""

    tasks: tuple[Any, ...]  # a list of the fields of a `Task` each
    laws: tuple[str, ...]  # of the time of a gradient
    num_workers: tuple[int, ...]
    momenta: tuple[float, ...]
    rates: int  # learning rates that are tried, in half octaves
    hidden: int
    bound: float  # of the time of the recommended number of workers over that of the best
    least: int  # cases in which it must hold
    measuring: int  # seed of the short runs
    choosing: tuple[int, ...]  # seeds that learning rates and momenta are chosen on
    judging: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(map(list, self.tasks)))  # as they are read from a file
        statistics.check_seeds((self.measuring, *self.choosing), self.judging)


DESIGN = Design(
    tasks=(
        Task("digits", 256, loss=0.05, time=120, every=1, largest=16.0, short_rate=1.0, short_updates=100),
        Task("digits", 16, loss=0.05, time=400, every=3, largest=16.0, short_rate=0.25, short_updates=400),
        Task("cifar10", 256, loss=1.6, time=300, every=2, largest=16.0, short_rate=0.5, short_updates=300),
        Task("cifar10", 16, loss=1.7, time=1000, every=5, largest=8.0, short_rate=0.125, short_updates=1200),
    ),
    laws=("exponential", "gamma(cv=0.1)"),
    num_workers=(1, 2, 4, 8, 16),
    momenta=(-0.4, 0.0, 0.3, 0.6, 0.8, 0.9),
    rates=13,
    hidden=32,
    bound=1.3,
    least=6,
    measuring=50,
    choosing=(0, 1, 2),
    judging=tuple(range(100, 116)),
)
QUICK = dataclasses.replace(
    DESIGN,
    tasks=(Task("digits", 64, loss=0.5, time=60, every=1, largest=8.0, short_rate=0.5, short_updates=100),),
    num_workers=(1, 4),
    momenta=(0.0, 0.6),
    rates=5,
    hidden=8,
    least=2,
    measuring=1050,
    choosing=(1000, 1001),
    judging=tuple(range(1100, 1116)),
)
# The digest of `DESIGN`, committed before it was judged.
CRITERION = "0b2893391475ee25fbdd359ebdde8350e2a00a14ee48a033df7911924261850b"


def study(design: Design, parts: Parts) -> tuple[list[dict[str, Any]], Any]:
    """The fields of the claim, and the figure."""
    kinds = [(Task(*task), law) for task in design.tasks for law in design.laws]
    cases = {kind: _case(design, parts, *kind) for kind in kinds}
    return [decide(design, cases)], _draw(design, cases)


def decide(design: Design, cases: dict[tuple[Task, str], dict[str, np.ndarray]]) -> dict[str, Any]:
    """The fields of the claim.

    Args:
      design: what is fixed beforehand.
      cases: by task and law, 'planned' times relative to one worker [workers], 'recommended' index [], and measured
        'times' [workers, seeds].
    """
    workers, rows, ratios = np.array(design.num_workers), [], []
    constant = np.zeros(len(workers), int)  # cases in which always the same number would do
    for (task, law), case in cases.items():
        logs = np.log(case["times"])
        best, chosen = int(np.argmin(logs.mean(axis=1))), int(case["recommended"])
        constant += logs.mean(axis=1) - logs[best].mean() <= np.log(design.bound)
        ratios.append(statistics.student(logs[chosen] - logs[best]).exp())
        rows.append(
            f"{task.images}, batch {task.batch_size}, {law}: {workers[chosen]} (best {workers[best]}, "
            f"{ratios[-1].value:.2f} times its time)"
        )
    held = sum(ratio.value <= design.bound for ratio in ratios)
    surely, perhaps = (sum(getattr(r, end) <= design.bound for r in ratios) for end in ("high", "low"))
    always = ", ".join(f"{count} with {m}" for m, count in zip(workers, constant, strict=True))
    return {
        "name": "planned-workers",
        "statement": f"The number of workers that the planner recommends takes at most {design.bound} times the time "
        f"of the best one, in at least {design.least} of {len(cases)} cases (perceptron, simulated time to a training "
        "loss, learning rate and momentum tuned for each number of workers).",
        "source": "Mitliagkas et al. 2016, section 1",
        "paper": "no number",
        "ours": f"{held} of {len(cases)}; with the same number of workers in all cases {always}; recommended: "
        f"{'; '.join(rows)}",
        "value": float(held),
        "interval": (float(surely), float(max(perhaps, surely))),
        "verdict": statistics.decide_number((surely, perhaps), low=design.least),
        "seeds": len(design.judging),
    }


def _case(design: Design, parts: Parts, task: Task, law: str) -> dict[str, np.ndarray]:
    """What is planned and what is measured."""
    part = f"{task.images}-{task.batch_size}-{law.partition('(')[0]}"
    planned = parts.get(f"planning-{part}", lambda: _planned(design, task, law))
    times = []
    for workers in design.num_workers:
        hypers = grid(design, task, workers)
        measure = lambda seeds, hypers, workers=workers: _times(design, task, law, workers, seeds, hypers)
        chosen = parts.get(
            f"choosing-{part}-{workers}", lambda hypers=hypers, measure=measure: measure(design.choosing, hypers)
        )
        best = hypers[[int(np.argmin(_log(chosen, task.time).mean(axis=1)))]]
        times.append(parts.get(f"judging-{part}-{workers}", lambda m=measure, best=best: m(design.judging, best))[0])
    return {
        "planned": planned[:-1],
        "recommended": planned[-1],
        "times": np.exp(_log(np.array(times), task.time)),
    }


def grid(design: Design, task: Task, workers: int) -> np.ndarray:
    """Learning rates, inside the velocity, and momenta [hypers, 2]."""
    effective = task.largest * workers**-0.75 * 2.0 ** (-np.arange(design.rates) / 2)
    return np.array([(rate * (1 - momentum), momentum) for momentum in design.momenta for rate in effective])


def _method(hyper: Any) -> Any:
    return algorithms.momentum_asgd(hyper[0], hyper[1])


def _times(
    design: Design, task: Task, law: str, workers: int, seeds: tuple[int, ...], hypers: np.ndarray
) -> np.ndarray:
    """The simulated times to the loss, [hypers, seeds]; NaN where it is not reached before others are there."""
    every = round(task.every * workers)
    events = every * round(task.time / task.every)
    traces = [
        queues.simulate(num_workers=workers, num_updates=events, service_time=_LAWS[law], seed=seed) for seed in seeds
    ]
    trainings = Trainings(
        traces, seeds, hidden=design.hidden, batch_size=task.batch_size, every=every, images=task.images
    )
    clock = np.array([np.append(0.0, np.asarray(trace.time)[every - 1 :: every]) for trace in traces]).T
    times = np.full((len(hypers), len(seeds)), np.nan)
    before, last = None, np.inf
    for k, loss in enumerate(trainings.looks(_method, np.repeat(hypers[:, None], len(seeds), axis=1))):
        if before is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                part = np.log(before / task.loss) / np.log(before / loss)  # a straight line in the logarithm
            part = np.where(np.isfinite(part), part, 1.0)
            reached = (loss <= task.loss) & np.isnan(times)
            times = np.where(reached, clock[k - 1] + part * (clock[k] - clock[k - 1]), times)
        complete = times[~np.isnan(times).any(axis=1)]
        last = min([last, *(_ENOUGH * complete.max(axis=1))])
        if clock[k].min() > last or not np.isnan(times).any():
            break
        before = loss
    return times


def _log(times: np.ndarray, horizon: float) -> np.ndarray:
    """Logarithms; what is missing takes until the end."""
    return np.log(np.where(np.isnan(times), horizon, times))


def _planned(design: Design, task: Task, law: str) -> np.ndarray:
    """The planned times relative to one worker, and the index of the recommended number of workers."""
    pixels, labels = map(jnp.asarray, _trainings.training_images(task.images))
    params = jax.tree.map(jnp.asarray, _trainings.initial_weights(design.measuring, pixels.shape[1], design.hidden))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    gradient_fn = from_loss(jax.tree_util.Partial(_trainings.loss_of_rows, (pixels, labels)))
    run = asyncflax.run(
        algorithms.asgd(task.short_rate),
        meter.watch(gradient_fn, params, coordinates=size),
        params,
        staleness.constant(0).trace(task.short_updates),
        data.batch_rows(len(labels), task.batch_size, range(task.short_updates), seed=design.measuring),
    )
    spectrum = Spectrum.measured(
        run.losses,
        run.aux["meter"],
        learning_rate=task.short_rate,
        curvature_max=theory.largest_curvature(_trainings.mean_loss, run.params, pixels, labels),
    )
    plan = planner.make(
        design.num_workers,
        service_time=_LAWS[law],
        spectrum=spectrum,
        target=task.loss / float(spectrum.losses.sum()),
    )
    return np.array([*(f.time for f in plan.forecasts), design.num_workers.index(plan.recommended.num_workers)])


def _draw(design: Design, cases: dict[tuple[Task, str], dict[str, np.ndarray]]) -> Any:
    """Planned and measured time against the number of workers, a panel a case."""
    rows, columns = len(design.laws), len(design.tasks)
    figure = _style.new_figure(3.4 * columns, 3.2 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for (task, law), case in cases.items():
        axes = panels[design.laws.index(law), design.tasks.index(list(task))]
        measured = np.exp(np.log(case["times"]).mean(axis=1))
        axes.plot(design.num_workers, measured / measured[0], **_style.look(0), label="measured")
        axes.plot(design.num_workers, case["planned"], **_style.look(1), label="planned")
        chosen = int(case["recommended"])
        axes.axvline(design.num_workers[chosen], color="0.7", linestyle=":", label="recommended")
        _style.plain_log(axes, "x")
        _style.plain_log(axes, "y")
        axes.set_xticks(design.num_workers, [str(m) for m in design.num_workers])
        axes.set_title(f"{task.images}, batch {task.batch_size}\n{law}", fontsize="medium")
    for axes in panels[-1]:
        axes.set_xlabel("workers")
    for axes in panels[:, 0]:
        axes.set_ylabel("time / that of one worker")
    panels[0, 0].legend(fontsize="small")
    return figure
