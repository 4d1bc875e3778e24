"""Simulates queues of workers: turns service-time distributions into traces.

M workers compute without waiting for each other. A worker reads the newest version, computes a gradient on it for a
random service time, delivers it, and starts over. So each version v >= 1 is read by exactly one worker, the one whose
update produced it; version 0 is read by all. For every service-time distribution the mean staleness tends to M - 1.
A server or link that takes time serves in order of arrival; when it saturates, workers take turns.

Each worker has its own random stream, so a longer trace with the same seed extends the shorter one. Simultaneous
deliveries (equal floating-point times) are ordered by worker id.

Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 2.1; gamma times as in rafi-cohen/SMEGA2.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from asyncflax import _check, _memory
from asyncflax.staleness import StalenessLaw, geometric
from asyncflax.trace import Trace

__all__ = [
    "ServiceTime",
    "barrier",
    "deterministic",
    "exponential",
    "gamma",
    "heterogeneous_gamma",
    "lognormal",
    "measured",
    "pareto",
    "simulate",
    "stragglers",
]


Task = Callable[[np.random.Generator, int], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ServiceTime:
    """The distribution of the time of one gradient: a mean per machine, drawn once, times a factor per task.

    Attributes:
      name: the name that `repr` shows.
      machine: (generator, num_workers) -> float64 [num_workers], mean seconds of a task on each worker's machine.
      task: (generator, n) -> float64 [n], independent non-negative factors of mean 1, drawn in blocks of any size; the
        factors must not depend on the block size. Or a tuple of such functions: worker i uses
        number i modulo their number.
      memoryless: whether the factors are exponential.

    Raises:
      TypeError: `name` is not a str, `machine` or `task` is not callable, or `memoryless` is not a bool.

    Example:
      >>> import asyncflax
      >>> import numpy as np
      >>> coin = lambda rng, n: rng.choice([0.5, 1.5], n)
      >>> law = asyncflax.queues.ServiceTime("coin", lambda rng, num_workers: np.ones(num_workers), coin)
      >>> asyncflax.queues.simulate(num_workers=2, num_updates=100, service_time=law).num_workers
      2
    """

    name: str
    machine: Callable[[np.random.Generator, int], np.ndarray]
    task: Task | tuple[Task, ...]
    memoryless: bool = False

    def __post_init__(self):
        _check.instance("name", self.name, str, "a str")
        _check.function("machine", self.machine)
        for task in self.task if isinstance(self.task, tuple) and self.task else (self.task,):
            _check.function("task", task)
        object.__setattr__(self, "memoryless", _check.boolean("memoryless", self.memoryless))

    def task_of(self, worker: int) -> Task:
        """The function that draws the factors of a worker.

        >>> import asyncflax
        >>> import numpy as np
        >>> asyncflax.queues.deterministic().task_of(worker=3)(np.random.default_rng(0), 2)
        array([1., 1.])
        """
        worker = _check.integer("worker", worker, 0)
        return self.task[worker % len(self.task)] if isinstance(self.task, tuple) else self.task

    def staleness(self, num_workers: int) -> StalenessLaw | None:
        """The staleness distribution of the queue, known for equal machines with exponential times; else None.

        Source: Mitliagkas et al. 2016 (arXiv:1605.09774), Theorem 5.

        >>> import asyncflax
        >>> asyncflax.queues.exponential().staleness(num_workers=8)
        geometric(7)
        >>> asyncflax.queues.gamma().staleness(num_workers=8) is None
        True
        """
        if not self.memoryless:
            return None
        equal = np.ptp(mean_seconds(self, num_workers)) == 0
        return geometric(mean=num_workers - 1.0) if equal else None

    def __repr__(self) -> str:
        return self.name


def mean_seconds(service_time: ServiceTime, num_workers: int, seed: int = 0, *, stage: int = 0) -> np.ndarray:
    """float64 [num_workers], positive: the mean seconds of a task on each worker's machine."""
    num_workers = _check.integer("num_workers", num_workers, 1)
    _memory.need("num_workers", num_workers, 64 * num_workers, "their machines")
    mean = np.asarray(service_time.machine(np.random.default_rng([seed, 0, stage]), num_workers))
    if mean.shape != (num_workers,) or not np.all((mean >= _SHORTEST) & np.isfinite(mean)):
        raise ValueError(
            f"machine of {service_time} must return {num_workers} positive numbers, got {_check.shown(mean)}."
        )
    return mean


def _equal_machines(mean: float | Sequence[float]) -> Callable[[np.random.Generator, int], np.ndarray]:
    _check.number("mean", mean, low=0.0, exclusive_low=True)
    means = np.array(mean, dtype=np.float64)
    if means.ndim > 1 or not means.size:
        raise ValueError(f"mean must be one number or one per worker, got mean={_check.shown(mean)}.")

    def machine(rng: np.random.Generator, num_workers: int) -> np.ndarray:
        del rng
        if means.ndim and means.shape != (num_workers,):
            raise ValueError(f"mean has {means.size} values for num_workers={num_workers}; pass one or one per worker.")
        return np.broadcast_to(means, num_workers)

    return machine


def deterministic(mean: float | Sequence[float] = 1.0) -> ServiceTime:
    """Constant times of `mean` seconds: workers take turns, tau = M - 1 after the first M updates.

    Here and in the other distributions, `mean` is one number or one per worker.

    Raises:
      ValueError: a mean is not positive; in `simulate`, the number of means differs from the number of workers.

    >>> import asyncflax
    >>> q = asyncflax.queues
    >>> q.simulate(num_workers=3, num_updates=6, service_time=q.deterministic()).staleness
    array([0, 1, 2, 2, 2, 2], dtype=int32)
    """
    return ServiceTime(f"deterministic({mean})", _equal_machines(mean), lambda rng, n: np.ones(n))


def exponential(mean: float | Sequence[float] = 1.0) -> ServiceTime:
    """Exponential times (assumption A2 of Mitliagkas et al.): tau is geometric with mean M - 1.

    Raises:
      ValueError: a mean is not positive.

    >>> import asyncflax
    >>> asyncflax.queues.exponential()
    exponential(1.0)
    """
    task = lambda rng, n: rng.standard_exponential(n)
    return ServiceTime(f"exponential({mean})", _equal_machines(mean), task, memoryless=True)


def gamma(cv: float = 0.1, mean: float | Sequence[float] = 1.0) -> ServiceTime:
    """Gamma distributed times with coefficient of variation `cv`, shape 1/cv^2.

    0.1 models nearly regular tasks on equal machines; 1 is exponential.

    Raises:
      ValueError: cv or a mean is not positive.

    Source: the machines of rafi-cohen/SMEGA2, cv = 0.1; said to be the homogeneous ones of Hakimi et al. 2019
    (arXiv:1907.11612).

    >>> import asyncflax
    >>> asyncflax.queues.gamma(cv=0.5)
    gamma(cv=0.5, mean=1.0)
    """
    cv = _check.scalar("cv", cv, low=0.0, exclusive_low=True)
    return ServiceTime(f"gamma({cv=}, {mean=})", _equal_machines(mean), _gamma_tasks(cv))


def heterogeneous_gamma(machine_cv: float = 0.6, task_cv: float = 0.1, mean: float = 1.0) -> ServiceTime:
    """Unequal machines: the mean of each is drawn once from a gamma distribution, its tasks from another.

    Args:
      machine_cv: coefficient of variation of the machines' mean times.
      task_cv: coefficient of variation of one machine's tasks.
      mean: mean seconds of a task on an average machine.

    Raises:
      ValueError: an argument is not positive.

    Source: Ali et al. 2000 (the CVB method); 0.6 and 0.1 are said to be the numbers of Hakimi et al. 2019
    (arXiv:1907.11612).

    >>> import asyncflax
    >>> asyncflax.queues.heterogeneous_gamma()
    heterogeneous_gamma(machine_cv=0.6, task_cv=0.1, mean=1.0)
    """
    machine_cv = _check.scalar("machine_cv", machine_cv, low=0.0, exclusive_low=True)
    task_cv = _check.scalar("task_cv", task_cv, low=0.0, exclusive_low=True)
    mean = _check.scalar("mean", mean, low=0.0, exclusive_low=True)
    machines = _gamma_tasks(machine_cv)
    return ServiceTime(
        f"heterogeneous_gamma({machine_cv=}, {task_cv=}, {mean=})",
        lambda rng, num_workers: mean * machines(rng, num_workers),
        _gamma_tasks(task_cv),
    )


def lognormal(cv: float = 0.5, mean: float | Sequence[float] = 1.0) -> ServiceTime:
    """Log-normal times with coefficient of variation `cv`: a moderately heavy tail.

    Raises:
      ValueError: cv or a mean is not positive.

    >>> import asyncflax
    >>> asyncflax.queues.lognormal()
    lognormal(cv=0.5, mean=1.0)
    """
    cv = _check.scalar("cv", cv, low=0.0, exclusive_low=True)
    sigma = np.sqrt(np.log1p(cv**2))
    return ServiceTime(
        f"lognormal({cv=}, {mean=})",
        _equal_machines(mean),
        lambda rng, n: rng.lognormal(-(sigma**2) / 2, sigma, n),
    )


def pareto(shape: float = 2.5, mean: float | Sequence[float] = 1.0) -> ServiceTime:
    """Pareto times, P(W > w) ~ w^-shape: a heavy tail, with a finite mean only for shape > 1.

    Raises:
      ValueError: shape is not greater than 1, or a mean is not positive.

    >>> import asyncflax
    >>> asyncflax.queues.pareto()
    pareto(shape=2.5, mean=1.0)
    """
    shape = _check.scalar("shape", shape, low=1.0, exclusive_low=True, hint=" The mean is finite only above 1.")
    return ServiceTime(
        f"pareto({shape=}, {mean=})",
        _equal_machines(mean),
        lambda rng, n: (1.0 + rng.pareto(shape, n)) * (shape - 1.0) / shape,
    )


def stragglers(
    num_slow: int | None = None,
    slowdown: float = 10.0,
    service_time: ServiceTime | None = None,
    *,
    share: float | None = None,
) -> ServiceTime:
    """Workers 0..num_slow-1 are `slowdown` times slower than `service_time` (default: gamma with cv 0.1).

    Pass the number of slow workers (default 1), or their share of the workers, rounded up.

    Raises:
      ValueError: num_slow is negative, slowdown not positive, share outside of [0, 1], or both num_slow and share are
        given; in `simulate`, num_slow exceeds the number of workers.

    Source: said of Shi et al. 2024 (arXiv:2407.19234): 1 of 16 or 4 of 64 workers about ten times slower.

    >>> import asyncflax
    >>> import numpy as np
    >>> asyncflax.queues.stragglers(num_slow=4)
    stragglers(4 x 10.0, gamma(cv=0.1, mean=1.0))
    >>> asyncflax.queues.stragglers(share=0.0625, slowdown=5).machine(np.random.default_rng(0), 17)[:3]
    array([5., 5., 1.])
    """
    if num_slow is not None and share is not None:
        raise ValueError(f"num_slow={num_slow} and share={share} are mutually exclusive; pass one.")
    if share is None:
        num_slow = _check.integer("num_slow", 1 if num_slow is None else num_slow, 0)
        count, what = lambda num_workers: num_slow, f"{num_slow}"
    else:
        share = _check.scalar("share", share, low=0.0, high=1.0)
        count, what = lambda num_workers: math.ceil(round(share * num_workers, 9)), f"{share:g} M"
    slowdown = _check.scalar("slowdown", slowdown, low=0.0, exclusive_low=True)
    base = gamma(0.1) if service_time is None else service_time
    _check.instance("service_time", base, ServiceTime, "a ServiceTime of asyncflax.queues")

    def machine(rng: np.random.Generator, num_workers: int) -> np.ndarray:
        slow = count(num_workers)
        if slow > num_workers:
            raise ValueError(f"num_slow={slow} exceeds num_workers={num_workers}.")
        return base.machine(rng, num_workers) * np.where(np.arange(num_workers) < slow, slowdown, 1.0)

    return ServiceTime(f"stragglers({what} x {slowdown}, {base})", machine, base.task, base.memoryless)


def measured(trace: Trace | str | os.PathLike[str], server_time: float = 0.0) -> ServiceTime:
    """The service times of a trace, resampled with replacement for each worker: a straggler stays a straggler.

    Worker i of a simulation draws the times of worker i of the trace, modulo its number of workers. A service time is
    `time - begun`. If the trace lacks `begun`, workers are assumed to read a version as soon as they have delivered, as
    in `simulate`, and their first events are skipped.

    Args:
      trace: a trace with times, or the path of one.
      server_time: the mean seconds that the server spends on an update, which are subtracted; pass
        `deterministic(server_time)` to `simulate` as well. The wait for a busy server is unknown, so only gradients
        that found it idle are drawn; a worker without any gets its shortest time.

    Raises:
      FileNotFoundError, ValueError: the trace cannot be loaded, has no times, or leaves a worker none after
        server_time is subtracted.

    >>> import asyncflax
    >>> import numpy as np
    >>> q = asyncflax.queues
    >>> trace = q.simulate(num_workers=4, num_updates=4000, service_time=q.stragglers(slowdown=10.0))
    >>> law = q.measured(trace)
    >>> law, law.machine(np.random.default_rng(0), 5).round(1)
    (measured(4000 events of 4 workers), array([10.1,  1. ,  1. ,  1. , 10.1]))
    """
    if not isinstance(trace, Trace):
        trace = Trace.load(_check.path("trace", trace))
    server_time = _check.scalar("server_time", server_time, low=0.0)
    if trace.time is None:
        raise ValueError("trace must have times, the seconds at which updates were made; got time=None.")
    rested = np.diff(trace.time, prepend=-np.inf) >= 1.5 * server_time  # server times may vary a little
    order = np.argsort(trace.worker, kind="stable")
    samples = []
    for i, events in enumerate(np.split(order, np.searchsorted(trace.worker[order], np.arange(1, trace.num_workers)))):
        if trace.begun is None:
            begun, events = trace.time[events[:-1]], events[1:]
        else:
            begun = trace.begun[events]
        seconds = np.maximum(trace.time[events] - begun - server_time, 0.0)
        alone = seconds[rested[events]]
        if not seconds.any():
            raise ValueError(
                f"trace leaves worker {i} no service time after server_time={server_time} is subtracted; record more "
                "of its events, or pass a smaller server_time."
            )
        samples.append(alone if alone.any() else seconds[seconds > 0].min(keepdims=True))
    means = np.array([of_worker.mean() for of_worker in samples])
    return ServiceTime(
        f"measured({len(trace)} events of {trace.num_workers} workers)",
        lambda rng, num_workers: np.resize(means, num_workers),
        tuple(_resampled(of_worker / mean) for of_worker, mean in zip(samples, means, strict=True)),
    )


def _resampled(values: np.ndarray) -> Task:
    return lambda rng, n: values[(rng.random(n) * len(values)).astype(np.int64)]


def simulate(
    *,
    num_workers: int,
    num_updates: int,
    service_time: ServiceTime,
    seed: int = 0,
    max_staleness: int | None = None,
    policy: str | None = None,
    server_time: ServiceTime | None = None,
    link_time: ServiceTime | None = None,
) -> Trace:
    """Simulates `num_workers` asynchronous workers until the server has made `num_updates` updates.

    Args:
      num_workers: M, each with one gradient in flight.
      num_updates: T, the number of events.
      service_time: the distribution of the time of one gradient.
      seed: determines all random draws.
      max_staleness: gradients staler than this are not applied; None applies all.
      policy: what to do with gradients that would be too stale. 'restart' (the default) restarts a worker on the newest
        version as soon as its gradient is bound to be too stale; 'discard' lets it finish and rejects the gradient.
        Rejected gradients are not in the trace: versions count accepted updates. The threshold R of Ringmaster ASGD
        (arXiv:2501.16168) is max_staleness + 1.
      server_time: the distribution of the time that the server takes to apply one gradient of each worker; others wait
        in order of arrival. The worker then reads the new version. None means no time.
      link_time: the distribution of the time that a gradient or a version takes on the link of the server, which all
        workers share; each direction serves in order of arrival. None means no time. The time on a worker's own link
        belongs to service_time.

    With server_time or link_time, the trace records when each version was read (`Trace.begun`).

    Raises:
      ValueError: a number is below its minimum, the policy is unknown or lacks max_staleness, a time does not match
        num_workers, draws of it are negative, not finite or all zero, or max_staleness is combined with server_time or
        link_time.

    Source: Mitliagkas et al. 2016 (arXiv:1605.09774), section 2.1; Ringmaster ASGD (arXiv:2501.16168) for restarts.

    Example:
      >>> import asyncflax
      >>> q = asyncflax.queues
      >>> trace = q.simulate(num_workers=8, num_updates=10_000, service_time=q.exponential(), seed=0)
      >>> trace.staleness.mean().round(1)
      np.float64(7.0)
      >>> q.simulate(num_workers=8, num_updates=1000, service_time=q.exponential(), max_staleness=9).staleness.max()
      np.int32(9)

      A server that takes a quarter of a worker's time saturates with more than 5 workers, which then take turns:
      >>> trace = q.simulate(
      ...     num_workers=8, num_updates=2000, service_time=q.exponential(), server_time=q.deterministic(0.25)
      ... )
      >>> round(float(trace.time[-1] / 2000), 3), round(float(trace.staleness.std()), 1)
      (0.252, 4.0)
    """
    num_workers = _check.integer("num_workers", num_workers, 1)
    num_updates = _check.integer("num_updates", num_updates, 1)
    if policy is not None:
        _check.choice("policy", policy, ("restart", "discard"))
        if max_staleness is None:
            raise ValueError(f"policy={policy!r} requires max_staleness.")
    stages = {"link_time": link_time, "server_time": server_time}
    stages = {name: law for name, law in stages.items() if law is not None}
    if stages:
        if max_staleness is not None:
            raise ValueError(f"max_staleness={max_staleness} and {min(stages)} are mutually exclusive; pass one.")
        _need_trace(num_workers, 40_000, num_updates, 250)
        shared = {name: _Tasks(law, num_workers, seed, name) for name, law in stages.items()}
        return _pass_stages(_Tasks(service_time, num_workers, seed), num_updates, **shared)
    if max_staleness is None:
        _need_trace(num_workers, 2000, num_updates, 120)
        return _merge(_Tasks(service_time, num_workers, seed), num_updates)
    max_staleness = _check.integer("max_staleness", max_staleness, 0)
    _need_trace(num_workers, 10_000, num_updates, 160)
    return _serve(_Tasks(service_time, num_workers, seed), num_updates, max_staleness, restart=policy != "discard")


def barrier(*, num_workers: int, num_updates: int, service_time: ServiceTime, seed: int = 0) -> Trace:
    """Synchronous rounds, for comparison: all M workers read the same version and wait for the slowest.

    An event is one gradient, so `num_updates` counts gradients and a server step takes M of them (see
    `algorithms.ssgd`). The events of a round are in order of arrival.

    Example:
      >>> import asyncflax
      >>> q = asyncflax.queues
      >>> trace = q.barrier(num_workers=3, num_updates=6, service_time=q.exponential(), seed=0)
      >>> trace.read_version
      array([0, 0, 0, 3, 3, 3], dtype=int32)
    """
    num_workers = _check.integer("num_workers", num_workers, 1)
    num_updates = _check.integer("num_updates", num_updates, 1)
    _need_trace(num_workers, 2000, num_updates, 90)
    tasks = _Tasks(service_time, num_workers, seed)
    rounds = -(-num_updates // num_workers)
    seconds = np.stack([tasks.draw(i, rounds) for i in range(num_workers)], axis=1)
    start = np.concatenate([[0.0], np.cumsum(seconds.max(axis=1))[:-1]])
    order = np.argsort(seconds, axis=1, kind="stable")
    time = start[:, None] + np.take_along_axis(seconds, order, axis=1)
    read_version = np.arange(rounds * num_workers) // num_workers * num_workers
    events = slice(num_updates)
    return Trace(order.ravel()[events], read_version[events], time.ravel()[events], num_workers)


def _gamma_tasks(cv: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    shape = cv**-2
    return lambda rng, n: rng.standard_gamma(shape, n) / shape


_SHORTEST = np.finfo(np.float64).tiny  # seconds, the smallest with full precision
_STAGES = ("service_time", "server_time", "link_time")  # each draws from streams of its own
_MANY = 16  # the smallest block of tasks drawn at once, if many are needed


class _Tasks:
    """The times of all workers at one stage; worker i draws from the stream [seed, i + 1]."""

    def __init__(self, law: ServiceTime, num_workers: int, seed: int, stage: str = "service_time"):
        _check.instance(stage, law, ServiceTime, "a ServiceTime such as queues.exponential()")
        seed = _check.integer("seed", seed, 0, None)
        number = _STAGES.index(stage)
        self.law = law
        self.mean = mean_seconds(law, num_workers, seed, stage=number)
        prefix = [seed, 0, number] if number else [seed]
        self._streams = [np.random.default_rng([*prefix, i + 1]) for i in range(num_workers)]
        self._tasks = [law.task_of(i) for i in range(num_workers)]

    @property
    def num_workers(self) -> int:
        """The number of workers, M."""
        return len(self.mean)

    def draw(self, worker: int, n: int) -> np.ndarray:
        """The next n service times of a worker, in seconds."""
        factors = np.asarray(self._tasks[worker](self._streams[worker], n))
        if factors.shape != (n,) or not np.all((factors >= 0) & np.isfinite(factors)):
            raise ValueError(f"task of {self.law} must return {n} non-negative numbers, got {_check.shown(factors)}.")
        seconds = self.mean[worker] * factors
        if n >= _MANY and not seconds.any():
            raise ValueError(f"task of {self.law} returned {n} zeros in a row, so time would not advance.")
        return seconds

    def one_by_one(self, worker: int) -> Iterator[float]:
        """An endless iterator over a worker's service times, in seconds."""
        while True:
            yield from self.draw(worker, 256).tolist()


def _need_trace(num_workers: int, of_worker: int, num_updates: int, of_update: int) -> None:
    """Raises if workers or updates do not fit into memory, given the bytes of each."""
    _memory.need("num_workers", num_workers, of_worker * num_workers, "their service times")
    _memory.need("num_updates", num_updates, of_worker * num_workers + of_update * num_updates, "the trace")


@np.errstate(over="ignore")  # infinite times raise below or in Trace
def _merge(tasks: _Tasks, num_updates: int) -> Trace:
    """Without restarts the workers are independent renewal processes: sum their service times and merge by time.

    All finish times up to a horizon are drawn. It starts at the expected time of the updates and grows until there are
    enough of them. If it is far too late, as for heavy tails, it shrinks to the time by which the finish times drawn so
    far already contain all updates.
    """
    finish = [np.zeros(1) for _ in range(tasks.num_workers)]  # finish times, from a start at 0
    fastest = tasks.mean.min()
    horizon = num_updates * fastest / np.sum(fastest / tasks.mean)
    until = lambda times: int(np.searchsorted(times, horizon, side="right")) - 1  # the number of updates by the horizon
    while True:
        if not np.isfinite(horizon):
            raise ValueError(f"service_time={tasks.law} is too long: {num_updates} updates overflow a double.")
        counts, total = [], 0
        for i in range(tasks.num_workers):
            while finish[i][-1] <= horizon and len(finish[i]) <= num_updates:
                made = len(finish[i]) - 1
                n = int((horizon - finish[i][-1]) / tasks.mean[i] * 1.05) + _MANY
                seconds = tasks.draw(i, max(min(n, num_updates - made), made // 4, _MANY))
                # A single running sum, so that rounding does not depend on the horizon.
                more = np.cumsum(np.concatenate([finish[i][-1:], seconds]))[1:]
                finish[i] = np.concatenate([finish[i], more])
            horizon = min(horizon, finish[i][num_updates]) if len(finish[i]) > num_updates else horizon
            counts.append(until(finish[i]))
            total += counts[-1]
            if total > 2 * num_updates:
                times = np.concatenate([times[1 : 1 + n] for times, n in zip(finish, counts, strict=False)])
                horizon = min(horizon, np.partition(times, num_updates - 1)[num_updates - 1])
                counts = [until(times) for times in finish[: i + 1]]
                total = sum(counts)
        if total >= num_updates:
            break
        horizon *= 1.1 * num_updates / max(total, num_updates // 4, 1)
    counts = [until(times) for times in finish]
    time = np.concatenate([times[1 : 1 + n] for times, n in zip(finish, counts, strict=True)])
    worker = np.repeat(np.arange(tasks.num_workers, dtype=np.int32), counts)
    order = np.argsort(time, kind="stable")  # sorted by worker id, so ties go to the lower one
    event = np.empty(len(order), np.int64)
    event[order] = np.arange(len(order))
    # A worker reads the version produced by its previous update, first version 0.
    read_version = np.where(np.diff(worker, prepend=-1) == 0, np.roll(event, 1) + 1, 0)
    first = order[:num_updates]
    return Trace(worker[first], read_version[first], time[first], tasks.num_workers)


def _serve(tasks: _Tasks, num_updates: int, max_staleness: int, *, restart: bool) -> Trace:
    """The event loop for policies under which a worker's start depends on the others."""
    seconds = [tasks.one_by_one(i) for i in range(tasks.num_workers)]
    read = [0] * tasks.num_workers  # the version on which each worker computes
    job = [0] * tasks.num_workers  # counts a worker's starts; deliveries of earlier jobs are void
    readers: dict[int, list[int]] = {}  # the workers that started on a version, for restarts
    heap: list[tuple[float, int, int]] = []
    worker, read_version, time = [], [], []

    def start(i: int, now: float, version: int) -> None:
        read[i] = version
        job[i] += 1
        if restart:
            readers.setdefault(version, []).append(i)
        heapq.heappush(heap, (now + next(seconds[i]), i, job[i]))

    for i in range(tasks.num_workers):
        start(i, 0.0, 0)
    while len(worker) < num_updates:
        now, i, number = heapq.heappop(heap)
        if number != job[i]:
            continue
        if len(worker) - read[i] <= max_staleness:
            worker.append(i)
            read_version.append(read[i])
            time.append(now)
        version = len(worker)
        start(i, now, version)
        too_old = version - max_staleness - 1
        for j in sorted(set(readers.pop(too_old, []))):
            if read[j] == too_old:
                start(j, now, version)
    return Trace(np.array(worker), np.array(read_version), np.array(time), tasks.num_workers)


def _pass_stages(
    tasks: _Tasks, num_updates: int, *, link_time: _Tasks | None = None, server_time: _Tasks | None = None
) -> Trace:
    """The event loop with a queue at each direction of the link and at the server."""
    streams = lambda stage: None if stage is None else [stage.one_by_one(i) for i in range(tasks.num_workers)]
    link = streams(link_time)
    route = [(link, True), (streams(tasks), False), (link, True), (streams(server_time), True)]
    route = [(seconds, in_line) for seconds, in_line in route if seconds is not None]
    free = [0.0] * len(route)  # when each stage has served its queue
    read, began = [0] * tasks.num_workers, [0.0] * tasks.num_workers
    heap: list[tuple[float, int, int]] = []
    worker, read_version, time, begun = [], [], [], []

    def enter(i: int, k: int, now: float) -> None:
        seconds, in_line = route[k]
        finish = (max(now, free[k]) if in_line else now) + next(seconds[i])
        free[k] = finish
        heapq.heappush(heap, (finish, i, k + 1))

    for i in range(tasks.num_workers):
        enter(i, 0, 0.0)
    while len(worker) < num_updates:
        now, i, k = heapq.heappop(heap)
        if k == len(route):
            worker.append(i)
            read_version.append(read[i])
            time.append(now)
            begun.append(began[i])
            read[i], began[i], k = len(worker), now, 0
        enter(i, k, now)
    return Trace(np.array(worker), np.array(read_version), np.array(time), tasks.num_workers, begun=np.array(begun))
