"""Queues against the event loop of the oracle, exact identities, and the laws that theory gives."""

import numpy as np
import pytest
import reference
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from asyncflax import queues

LAWS = [
    queues.deterministic(),
    queues.deterministic(mean=[0.1, 0.2, 0.3, 0.4, 0.5]),
    queues.exponential(),
    queues.exponential(mean=[1.0, 2.0, 3.0, 4.0, 5.0]),
    queues.gamma(cv=0.1),
    queues.gamma(cv=2.0, mean=0.01),
    queues.heterogeneous_gamma(),
    queues.lognormal(),
    queues.pareto(),
    queues.pareto(1 + 1e-9),
    queues.pareto(1.01, mean=1e-9),
    queues.exponential(mean=1e-305),
    queues.lognormal(cv=1e6),
    queues.stragglers(),
    queues.stragglers(2, 3.0, queues.exponential()),
    queues.ServiceTime("ties", lambda rng, m: np.ones(m), lambda rng, n: rng.integers(0, 3, n).astype(float)),
]
laws = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)


def twin_draws(law, num_workers, seed):
    """The service times that `simulate` draws, one by one, for the oracle's event loop."""
    tasks = queues._Tasks(law, num_workers, seed)
    streams = [tasks.one_by_one(i) for i in range(num_workers)]
    return lambda worker: next(streams[worker])


@laws
@pytest.mark.parametrize("policy", [None, "restart", "discard"])
def test_queues_equal_the_event_loop(law, policy):
    limit = {} if policy is None else {"max_staleness": 4, "policy": policy}
    trace = queues.simulate(num_workers=5, num_updates=400, service_time=law, seed=3, **limit)
    worker, read_version, time = reference.queue_events(5, 400, twin_draws(law, 5, 3), **limit)
    np.testing.assert_array_equal(trace.worker, worker)
    np.testing.assert_array_equal(trace.read_version, read_version)
    np.testing.assert_allclose(trace.time, time, rtol=1e-12)


@given(st.integers(1, 6), st.integers(1, 150), st.integers(0, 150), st.integers(0, 3), st.sampled_from(LAWS[4:]))
@pytest.mark.parametrize("policy", [None, "restart", "discard"])
def test_a_longer_trace_extends_a_shorter_one(policy, num_workers, size, more, seed, law):
    if "stragglers" in law.name:
        num_workers += 2
    options = {"num_workers": num_workers, "service_time": law, "seed": seed}
    if policy is not None:
        options |= {"max_staleness": 2, "policy": policy}
    short = queues.simulate(num_updates=size, **options)
    long = queues.simulate(num_updates=size + more, **options).prefix(size)
    np.testing.assert_array_equal(short.worker, long.worker)
    np.testing.assert_array_equal(short.read_version, long.read_version)
    np.testing.assert_array_equal(short.time, long.time)


@laws
def test_the_sum_of_staleness_telescopes(law):
    """sum tau = sum_i V_i - t, V_i the version after worker i's last update; reads are distinct but for version 0."""
    trace = queues.simulate(num_workers=5, num_updates=2000, service_time=law, seed=1)
    for t in (1, 10, 500, 2000):
        last = np.zeros(5, int)
        last[trace.worker[:t]] = np.arange(1, t + 1)
        assert trace.staleness[:t].sum() == last.sum() - t
    later = trace.read_version[trace.read_version > 0]
    assert len(np.unique(later)) == len(later)
    assert np.sum(trace.read_version == 0) == 5


def test_equal_work_is_round_robin():
    trace = queues.simulate(num_workers=6, num_updates=600, service_time=queues.deterministic(0.1))
    np.testing.assert_array_equal(trace.staleness, np.minimum(np.arange(600), 5))
    np.testing.assert_array_equal(trace.worker, np.arange(600) % 6)


def test_exponential_work_gives_geometric_staleness():
    """Chi-square on events that are independent: the first after burn-in of many short runs."""
    num_workers, runs = 8, 4000
    draws = np.array(
        [
            queues.simulate(
                num_workers=num_workers, num_updates=120, service_time=queues.exponential(), seed=seed
            ).staleness[-1]
            for seed in range(runs)
        ]
    )
    law = scipy.stats.geom(1 / num_workers, loc=-1)
    edges = np.arange(25)
    expected = runs * np.append(law.pmf(edges), law.sf(edges[-1]))
    observed = np.append(np.bincount(draws, minlength=25)[:25], np.sum(draws > 24))
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize(
    "shape, num_workers, variance",
    [(1, 4, 12), (1, 16, 240), (2, 8, 28.78), (2, 32, 499.44), (4, 4, 3.47), (4, 16, 62.36), (100, 8, 1.21)],
)
def test_the_variance_of_gamma_queues(shape, num_workers, variance):
    """Var tau = (M-1)^2 Var W + (M-1) c_k, within 5 standard errors over 16 independent runs."""
    law = queues.gamma(cv=shape**-0.5)
    draws = [
        queues.simulate(num_workers=num_workers, num_updates=22_000, service_time=law, seed=seed).staleness[2000:]
        for seed in range(16)
    ]
    variances = [np.mean((tau - (num_workers - 1.0)) ** 2) for tau in draws]
    error = np.std(variances, ddof=1) / np.sqrt(len(variances))
    assert abs(np.mean(variances) - variance) < 5 * error + 0.005
    assert error < 0.05 * variance


def test_service_times_have_the_laws_that_they_name():
    rng = np.random.default_rng(0)
    size = 200_000
    for law, twin in [
        (queues.exponential(), scipy.stats.expon()),
        (queues.gamma(0.5), scipy.stats.gamma(4, scale=0.25)),
        (queues.lognormal(0.5), scipy.stats.lognorm(np.sqrt(np.log(1.25)), scale=1.25**-0.5)),
        (queues.pareto(2.5), scipy.stats.pareto(2.5, scale=0.6)),
    ]:
        assert twin.mean() == pytest.approx(1.0)
        assert scipy.stats.kstest(law.task(rng, size), twin.cdf).pvalue > 1e-5
    # The share of iterations that take more than 1.25 times the mean, homogeneous and heterogeneous.
    homogeneous = np.mean(queues.gamma(0.1).task(rng, size) > 1.25)
    assert homogeneous == pytest.approx(0.00938, abs=0.001)
    law = queues.heterogeneous_gamma()
    times = law.machine(rng, size) * law.task(rng, size)
    assert np.mean(times > 1.25) == pytest.approx(0.2788, abs=0.005)


@pytest.mark.parametrize(
    "options, machines",
    [
        ({"num_slow": 2}, [5.0, 5.0, 0.5, 0.5]),
        ({"num_slow": 0}, [0.5, 0.5, 0.5, 0.5]),
        ({}, [5.0, 0.5, 0.5, 0.5]),
        ({"share": 0.0}, [0.5, 0.5, 0.5, 0.5]),
        ({"share": 0.6}, [5.0, 5.0, 5.0, 0.5]),
    ],
)
def test_stragglers_are_slow(options, machines):
    law = queues.stragglers(slowdown=10.0, service_time=queues.deterministic(0.5), **options)
    assert law.machine(np.random.default_rng(0), 4).tolist() == machines


def test_a_barrier_makes_everybody_wait():
    trace = queues.barrier(num_workers=4, num_updates=40, service_time=queues.exponential(), seed=2)
    np.testing.assert_array_equal(trace.read_version, np.arange(40) // 4 * 4)
    np.testing.assert_array_equal(np.sort(trace.worker.reshape(-1, 4)), np.tile(np.arange(4), (10, 1)))
    time = trace.time.reshape(-1, 4)
    assert np.all(time[1:, 0] > time[:-1, -1])
    ties = queues.barrier(num_workers=4, num_updates=8, service_time=queues.deterministic(2.0))
    assert ties.worker.tolist() == [0, 1, 2, 3] * 2 and ties.time.tolist() == [2.0] * 4 + [4.0] * 4
    long = queues.barrier(num_workers=4, num_updates=90, service_time=queues.exponential(), seed=2).prefix(40)
    np.testing.assert_array_equal(long.time, trace.time)


@pytest.mark.parametrize("policy", ["restart", "discard"])
def test_no_gradient_is_staler_than_the_limit(policy):
    options = {"num_workers": 16, "num_updates": 3000, "service_time": queues.exponential()}
    trace = queues.simulate(max_staleness=20, policy=policy, **options)
    assert trace.staleness.max() <= 20
    generous = queues.simulate(max_staleness=10_000, policy=policy, **options)
    np.testing.assert_array_equal(generous.read_version, queues.simulate(**options).read_version)


def custom(task, machine=np.ones):
    """A law of one's own."""
    return queues.ServiceTime("mine", lambda rng, m: machine(m), lambda rng, n: task(n))


@pytest.mark.parametrize(
    "call, error, message",
    [
        ({"num_workers": 0}, ValueError, "num_workers must be an integer >= 1, got num_workers=0"),
        ({"num_workers": 2.5}, TypeError, "num_workers must be a concrete integer, got 2.5"),
        ({"num_updates": 0}, ValueError, "num_updates must be an integer >= 1"),
        ({"service_time": "exponential"}, TypeError, "service_time must be a ServiceTime"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
        ({"policy": "discard"}, ValueError, "policy='discard' needs max_staleness"),
        (
            {"service_time": custom(lambda n: np.full(n, np.nan))},
            ValueError,
            "task of mine must return .* non-negative",
        ),
        ({"service_time": custom(lambda n: -np.ones(n))}, ValueError, "task of mine must return .* non-negative"),
        ({"service_time": custom(lambda n: np.ones(3))}, ValueError, "task of mine must return"),
        ({"service_time": custom(np.zeros)}, ValueError, "zeros in a row, so time would not advance"),
        ({"service_time": custom(np.ones, np.zeros)}, ValueError, "machine of mine must return 4 positive numbers"),
        ({"max_staleness": -1}, ValueError, "max_staleness must be an integer >= 0"),
        ({"max_staleness": 3, "policy": "cancel"}, ValueError, "policy must be one of 'restart', 'discard'"),
        ({"service_time": queues.exponential([1.0, 2.0])}, ValueError, "mean has 2 values for num_workers=4"),
        ({"service_time": queues.stragglers(5)}, ValueError, "num_slow=5 exceeds num_workers=4"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        queues.simulate(**{"num_workers": 4, "num_updates": 10, "service_time": queues.exponential(), **call})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: queues.exponential(0.0), "mean must be finite and in"),
        (lambda: queues.gamma(-0.1), "cv must be finite and in"),
        (lambda: queues.gamma(np.inf), "cv must be finite"),
        (lambda: queues.lognormal(0.0), "cv must be finite"),
        (lambda: queues.pareto(1.0), "The mean is finite only above 1"),
        (lambda: queues.heterogeneous_gamma(machine_cv=0), "machine_cv must be finite"),
        (lambda: queues.stragglers(1, 0.0), "slowdown must be finite"),
        (lambda: queues.stragglers(1, 10.0, 2.0), "service_time must be a ServiceTime"),
        (lambda: queues.gamma(cv=[0.1, 0.2]), "cv must be a single concrete number"),
    ],
)
def test_bad_laws_are_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("shape", [1 + 1e-9, 1 + 1e-6, 1.01])
def test_a_mean_of_a_few_enormous_times_draws_no_more_than_is_needed(shape):
    """The mean time of 10^4 updates would be 10^9 draws or more; the updates come long before."""
    drawn = []
    law = queues.pareto(shape)
    counted = queues.ServiceTime("counted", law.machine, lambda rng, n: drawn.append(n) or law.task(rng, n))
    trace = queues.simulate(num_workers=64, num_updates=10_000, service_time=counted)
    assert sum(drawn) < 10 * 10_000
    assert (
        trace.worker.tolist() == queues.simulate(num_workers=64, num_updates=10_000, service_time=law).worker.tolist()
    )


@pytest.mark.parametrize(
    "law, message",
    [
        (queues.exponential(5e-324), "must return 2 positive numbers"),
        (queues.exponential(1e308), "takes too long: 9 updates overflow a double"),
    ],
)
def test_times_beyond_the_range_of_a_double_are_refused(law, message):
    with pytest.raises(ValueError, match=message):
        queues.simulate(num_workers=2, num_updates=9, service_time=law)
