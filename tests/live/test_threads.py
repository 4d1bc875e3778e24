"""Workers as threads: what happened replays, workers overlap, errors arrive."""

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
    list(threads(1, 2)[1])  # compiled
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
        if 8.5 <= fast / slow <= 11.5:
            break
    assert 8.5 <= fast / slow <= 11.5


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
