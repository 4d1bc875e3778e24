"""The server of a live run: whatever its callers do, the trace that it records replays to what it has."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import KINDS, METHODS, NORM_PARAMS, NORM_STATE, batch_rows, norm_gradient, of_one_shape, run_with_plan

import asyncflax
from asyncflax import algorithms
from asyncflax.engine.step import compute
from asyncflax.live import Server

WORKERS, EVENTS = 4, 12
BATCHES = batch_rows(EVENTS + WORKERS)
KEY = jax.random.key(5)
ALL = [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in METHODS]


@functools.partial(jax.jit, static_argnums=0)
def gradient(gradient_fn, read, rows, ticket, worker):
    return compute(gradient_fn, KEY, read, rows, ticket, worker)


class Clock:
    """Seconds that pass with each look."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        self.seconds += 0.5
        return self.seconds


class Drive:
    """A server and what its workers hold."""

    def __init__(self, algorithm):
        self.said, self.jobs, self.late = [], {}, []
        self.make = lambda: Server(
            algorithm,
            NORM_PARAMS,
            num_workers=WORKERS,
            num_updates=EVENTS,
            model_state=NORM_STATE,
            clock=Clock(),
            warn=self.said.append,
        )
        self.server = self.make()
        self.saved = self.server.state()

    def read(self, worker):
        self.jobs[worker] = self.server.read(worker)

    def deliver(self, worker):
        if (job := self.jobs.get(worker)) is None:
            return self.read(worker)
        read = (job.params, job.model_state)
        result = gradient(norm_gradient, read, BATCHES[job.ticket], np.int32(job.ticket), np.int32(worker))
        self.late.append((worker, job.lease, result))
        self.jobs[worker] = self.server.deliver(worker, job.lease, result)

    def forget(self, worker):
        self.server.forget(worker)
        self.jobs.pop(worker, None)

    def again(self, worker):
        """A delivery that has been made before, by whomever."""
        if self.late:
            before, said = self.server.num_applied, len(self.said)
            sender, lease, result = self.late[worker % len(self.late)]
            self.jobs[sender] = self.server.deliver(sender, lease, result)
            assert self.server.num_applied == before and len(self.said) == said + (before < EVENTS)

    def save(self, worker):
        self.saved = self.server.state()

    def restore(self, worker):
        """The server dies and begins again from what was saved; its workers know nothing of it."""
        self.server = self.make()
        self.server.restore(self.saved)


ACTIONS = st.sampled_from(["deliver"] * 6 + ["read", "forget", "again", "save", "restore"])


@pytest.mark.parametrize("name", ALL)
@given(schedule=st.lists(st.tuples(ACTIONS, st.integers(0, WORKERS - 1)), max_size=40))
def test_whatever_happens_replays(name, schedule):
    algorithm = METHODS[name].make()
    drive = Drive(algorithm)
    for action, worker in schedule:
        getattr(drive, action)(worker)
    worker = 0
    while drive.server.num_applied < EVENTS:
        drive.deliver(worker % WORKERS)
        worker += 1
    trace = drive.server.trace()
    assert len(trace) == EVENTS and len(set(trace.ticket.tolist())) == EVENTS
    assert np.all(trace.begun <= trace.time)
    if trace.num_tickets > len(BATCHES):  # many restarts hand out tickets that are never delivered
        return
    plan = of_one_shape(asyncflax.make_plan(trace), EVENTS)
    chunk = plan[0]
    start = {"key": KEY, "model_state": NORM_STATE}
    state, _ = run_with_plan(algorithm, norm_gradient, NORM_PARAMS, plan, BATCHES[np.asarray(chunk.ticket)], **start)
    own = drive.server.state()
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    jax.tree.map(same, (own.params, own.algorithm, own.model_state), (state.params, state.algorithm, state.model_state))


def test_times_are_of_reading_and_applying():
    drive = Drive(algorithms.asgd(0.1))
    drive.read(0)
    drive.read(1)
    drive.deliver(0)
    drive.deliver(1)
    trace = drive.server.trace()
    assert trace.worker.tolist() == [0, 1] and trace.read_version.tolist() == [0, 0]
    assert np.all(np.diff(trace.time) > 0) and np.all(trace.begun < trace.time[0])
    assert drive.server.busy > 0


def test_the_ticket_of_a_forgotten_worker_goes_to_the_next_reader():
    drive = Drive(algorithms.asgd(0.1))
    for worker in range(3):
        drive.read(worker)
    drive.forget(1)
    drive.read(3)
    assert drive.jobs[3].ticket == 1
    drive.read(2)  # a worker that begins anew
    assert drive.jobs[2].ticket == 2


def per_worker_view(params, state, *, worker=None):
    return params if worker is None else jax.tree.map(lambda x: x + worker, params)


BAD = {
    "algorithm": (lambda: Server(0.1, NORM_PARAMS, num_workers=1, num_updates=1), TypeError, "AsyncAlgorithm"),
    "num_workers": (
        lambda: Server(algorithms.multi_asgd(0.1, num_workers=2), NORM_PARAMS, num_workers=3, num_updates=1),
        ValueError,
        "num_workers=3, but the algorithm was built for 2",
    ),
    "view": (
        lambda: Server(
            asyncflax.AsyncAlgorithm(lambda params: (), lambda *args, **event: args[:2], per_worker_view),
            NORM_PARAMS,
            num_workers=2,
            num_updates=1,
        ),
        ValueError,
        "the view of the algorithm depends on the worker",
    ),
    "worker": (lambda: Drive(algorithms.asgd(0.1)).read(WORKERS), ValueError, "worker must be at most 3, got worker=4"),
    "snapshot": (
        lambda: Drive(algorithms.multi_asgd(0.1, num_workers=4)).server.restore(Drive(algorithms.asgd(0.1)).saved),
        ValueError,
        "the snapshot",
    ),
    "trace": (lambda: Drive(algorithms.asgd(0.1)).server.trace(), ValueError, "at least one event"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
