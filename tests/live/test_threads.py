"""Workers as threads: what happened replays, workers overlap, errors arrive."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest
from problems import METHODS, NORM_PARAMS, NORM_STATE, SOFTMAX_PARAMS, batch_rows, norm_gradient, softmax_loss

import asyncflax
from asyncflax import algorithms, queues
from asyncflax.live import Server, Threads, run_threads

EVENTS = 60
BATCHES = batch_rows(EVENTS + 8)
SOFTMAX = asyncflax.from_loss(softmax_loss)


@pytest.mark.parametrize("name", ["multi_asgd", "dana_dc"])
def test_what_happened_replays(name):
    """With BatchNorm and dropout, on three devices; reports, losses and gaps as well."""
    problem = (METHODS[name].make(), norm_gradient, NORM_PARAMS)
    start = {"key": jax.random.key(3), "model_state": NORM_STATE}
    live, trace = run_threads(
        *problem, BATCHES, num_workers=3, num_updates=EVENTS, service_time=queues.exponential(0.001), **start
    )
    assert trace.num_workers == 3 and len(trace) == EVENTS and trace.staleness.max() > 0
    again = asyncflax.run(*problem, trace, BATCHES, **start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), live, again)


def test_batches_may_be_a_function_of_the_ticket():
    problem = (algorithms.asgd(0.1), SOFTMAX, SOFTMAX_PARAMS)
    live, trace = run_threads(*problem, lambda ticket: BATCHES[ticket], num_workers=2, num_updates=10)
    again = asyncflax.run(*problem, trace, BATCHES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), live.params, again.params)


def threads(num_workers, num_updates, gradient_fn=SOFTMAX, **options):
    server = Server(algorithms.asgd(0.1), SOFTMAX_PARAMS, num_workers=num_workers, num_updates=num_updates)
    batch = lambda ticket: BATCHES[ticket % len(BATCHES)]
    return server, Threads(server, gradient_fn, batch, key=jax.random.key(0), **options)


def test_segments_end_at_the_cuts_and_a_restored_server_continues():
    server, run = threads(2, 30, cuts=(10, 25))
    segments = list(run)
    assert [segment.events for segment in segments] == [slice(0, 10), slice(10, 25), slice(25, 30)]
    assert [segment.out.losses.shape for segment in segments] == [(10,), (15,), (5,)]
    trace = server.trace()
    other, run = threads(2, 30, cuts=(10, 25))
    other.restore(segments[0].snapshot)
    assert [segment.events for segment in run] == [slice(10, 25), slice(25, 30)]
    resumed = other.trace()
    np.testing.assert_array_equal(resumed.time[:10], trace.time[:10])
    assert resumed.time[10] >= trace.time[9] and resumed.begun[10] >= trace.time[9]
    rows = BATCHES[np.arange(resumed.num_tickets) % len(BATCHES)]
    again = asyncflax.run(algorithms.asgd(0.1), SOFTMAX, SOFTMAX_PARAMS, resumed, rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), other.params, again.params)


def test_threads_end_with_the_iteration():
    before = threading.active_count()
    _, run = threads(3, 10_000, cuts=range(0, 10_000, 10))
    for _ in run:
        break
    assert threading.active_count() == before


def test_an_error_of_a_worker_is_raised_where_it_is_awaited():
    def broken(ticket):
        if ticket == 7:
            raise OSError("record 7 is gone")
        return BATCHES[ticket]

    server = Server(algorithms.asgd(0.1), SOFTMAX_PARAMS, num_workers=2, num_updates=20)
    with pytest.raises(OSError, match="record 7 is gone"):
        list(Threads(server, SOFTMAX, broken, key=jax.random.key(0)))


def seconds(num_workers, num_updates, service_time):
    server, run = threads(num_workers, num_updates, service_time=service_time)
    began = time.perf_counter()
    list(run)
    return time.perf_counter() - began, server.trace()


def test_two_workers_take_turns_with_what_one_does_alone():
    """Gradients of 20 ms: two workers need about half of the time, and read while the other one computes."""
    nearly = queues.gamma(cv=0.1, mean=0.02)
    for _ in range(3):  # a busy machine may oversleep
        (alone, _), (together, trace) = seconds(1, 40, nearly), seconds(2, 40, nearly)
        if together < 0.65 * alone:
            break
    assert together < 0.65 * alone
    assert np.mean(trace.staleness > 0) >= 0.5


def test_a_straggler_delivers_as_slowly_as_it_is():
    for _ in range(3):  # the other one may be held up
        _, trace = seconds(2, 77, queues.deterministic([0.02, 0.2]))
        fast, slow = np.bincount(trace.worker)
        if 7.5 <= fast / slow <= 12:
            break
    assert 7.5 <= fast / slow <= 12


class BusyServer(Server):
    """Each update takes 4 ms longer, in which the others wait."""

    def deliver(self, worker, lease, result):
        time.sleep(0.004)
        return super().deliver(worker, lease, result)


class Arrivals:
    """The times at which workers ask for their turn, in order, around the lock of a run."""

    def __init__(self, server, turn):
        self.server, self.turn, self.seconds, self.held = server, turn, [], []

    def __enter__(self):
        arrived = self.server._now()
        self.turn.__enter__()
        self.seconds.append((threading.current_thread().name, arrived))
        self.begun = time.monotonic()

    def __exit__(self, *error):
        self.held.append(time.monotonic() - self.begun)
        self.turn.__exit__(*error)


def recorded(kind, num_updates, service_time):
    """A trace; the same with the times of arrival at the server; how long the server took."""
    server = kind(algorithms.asgd(0.1), SOFTMAX_PARAMS, num_workers=4, num_updates=num_updates)
    batch = lambda ticket: BATCHES[ticket % len(BATCHES)]
    run = Threads(server, SOFTMAX, batch, key=jax.random.key(0), service_time=service_time)
    run._turn = arrivals = Arrivals(server, run._turn)
    list(run)
    trace = server.trace()
    first = {arrivals.seconds.index(next(x for x in arrivals.seconds if x[0] == f"worker {i}")) for i in range(4)}
    delivered = [seconds for k, (_, seconds) in enumerate(arrivals.seconds) if k not in first]
    arrived = np.maximum.accumulate(delivered[:num_updates])
    return trace, dataclasses.replace(trace, time=arrived), float(np.median(arrivals.held[4:]))


def against_queues(trace, **cluster):
    """The staleness of a trace against 20 queues: ratio of means, total variation, and that of a single queue."""
    shares = lambda trace: np.bincount(np.minimum(trace.staleness[50:], 39), minlength=40) / (len(trace) - 50)
    same = {"num_workers": trace.num_workers, "num_updates": len(trace)}
    each = [shares(queues.simulate(seed=seed, **same, **cluster)) for seed in range(20)]
    pooled, found = np.mean(each, axis=0), shares(trace)
    distance = lambda other: np.abs(other - pooled).sum() / 2
    return found @ range(40) / (pooled @ range(40)), distance(found), np.mean([distance(one) for one in each])


def test_staleness_is_that_of_a_queue_with_the_measured_times():
    for _ in range(3):  # the machine may be busy with something else
        trace, _, _ = recorded(Server, 600, queues.exponential(0.01))
        ratio, distance, noise = against_queues(trace, service_time=queues.measured(trace))
        if abs(ratio - 1) < 0.02 and distance < 3 * noise:
            break
    assert abs(ratio - 1) < 0.02 and distance < 3 * noise


def test_behind_a_busy_server_only_a_queue_with_one_fits():
    for _ in range(3):
        trace, arrived, held = recorded(BusyServer, 300, queues.exponential(0.002))
        times = queues.measured(arrived)
        _, without, noise = against_queues(trace, service_time=queues.measured(trace))
        behind = against_queues(trace, service_time=times, server_time=queues.deterministic(held))
        if abs(behind[0] - 1) < 0.02 and behind[1] < 3 * behind[2] and without > 3 * noise:
            break
    assert abs(behind[0] - 1) < 0.02 and behind[1] < 3 * behind[2]
    assert without > 3 * noise


NAMES = {
    "num_workers": (lambda: threads(0, 5), ValueError, "num_workers must be an integer >= 1"),
    "devices": (lambda: threads(1, 5, devices=[]), ValueError, "devices must have at least one device"),
    "service_time": (lambda: threads(1, 5, service_time=0.1), TypeError, "service_time must be a ServiceTime"),
    "gradient_fn": (lambda: threads(1, 5, gradient_fn=3), TypeError, "gradient_fn must be a function"),
    "batches": (
        lambda: run_threads(algorithms.asgd(0.1), SOFTMAX, SOFTMAX_PARAMS, BATCHES[:9], num_workers=3, num_updates=8),
        ValueError,
        "batches must have one row for each of the 10 tickets that may be handed out",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), NAMES.values(), ids=NAMES)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
