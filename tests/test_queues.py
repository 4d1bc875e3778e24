"""Queues against the event loop of the oracle, exact identities, and the laws that theory gives."""

import numpy as np
import pytest
import reference
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from asyncflax import Trace, queues, staleness, theory

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


# --- A server and a link that take time ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers, ratio", [(1, 0.5), (2, 0.25), (8, 0.05), (8, 0.125), (8, 0.5), (32, 0.02)])
def test_a_server_that_takes_time_is_the_machine_repairman(num_workers, ratio):
    """Throughput and utilization of M/M/1//M, within 3 %: 20,000 updates have a standard error below 1 %."""
    stages = {"service_time": queues.exponential(2.0), "server_time": queues.exponential(2.0 * ratio)}
    trace = queues.simulate(num_workers=num_workers, num_updates=20_000, **stages)
    busy = reference.repairman(num_workers, ratio)
    assert busy == pytest.approx(reference.throughput(num_workers, 1.0, [ratio]) * ratio, rel=1e-9)
    assert 20_000 / trace.time[-1] == pytest.approx(busy / (2.0 * ratio), rel=0.03)
    gaps = np.diff(trace.time, prepend=0.0)
    arrived = trace.begun + next_draws(trace, queues.exponential(2.0), 0)
    idle = np.maximum(arrived - np.append(0.0, trace.time[:-1]), 0.0)
    assert 1 - idle.sum() / gaps.sum() == pytest.approx(busy, rel=0.03)


@pytest.mark.parametrize("num_workers, link, server", [(4, 0.1, 0.1), (8, 0.15, 0.05), (8, 0.02, 0.3)])
def test_links_and_server_are_a_closed_network(num_workers, link, server):
    """Throughput by mean value analysis: the link out, the link in, the server."""
    stages = {"link_time": queues.exponential(link), "server_time": queues.exponential(server)}
    trace = queues.simulate(num_workers=num_workers, num_updates=20_000, service_time=queues.exponential(), **stages)
    rate = reference.throughput(num_workers, 1.0, [link, link, server])
    assert 20_000 / trace.time[-1] == pytest.approx(rate, rel=0.03)
    alone = queues.simulate(
        num_workers=num_workers, num_updates=20_000, service_time=queues.exponential(), link_time=stages["link_time"]
    )
    assert 20_000 / alone.time[-1] == pytest.approx(reference.throughput(num_workers, 1.0, [link, link]), rel=0.03)


def next_draws(trace, law, stage, each=1):
    """What the worker of each event drew at a stage, [T] or, where it draws several times a job, [T, each]."""
    tasks = queues._Tasks(law, trace.num_workers, 0, queues._STAGES[stage])
    drawn = np.empty((len(trace), each))
    for i in range(trace.num_workers):
        of_worker = np.flatnonzero(trace.worker == i)
        stream = tasks.one_by_one(i)
        drawn[of_worker] = np.array([next(stream) for _ in range(each * len(of_worker))]).reshape(-1, each)
    return drawn[:, 0] if each == 1 else drawn


def served(arrived, seconds, order):
    """When a line of one server has served each job: Lindley's recursion, in the given order, that of arrival."""
    assert np.all(np.diff(arrived[order]) >= 0)
    finish, free = np.empty(len(arrived)), 0.0
    for t in order:
        finish[t] = free = max(arrived[t], free) + seconds[t]
    return finish


@given(
    st.integers(1, 6),
    st.integers(1, 80),
    st.sampled_from(LAWS[2:9]),
    st.sampled_from(LAWS[2:9]),
    st.sampled_from(LAWS[2:9]),
)
@pytest.mark.parametrize("stages", ["server", "link", "both"])
def test_lines_are_served_in_order_of_arrival(stages, num_workers, size, service, server, link):
    """Every time of a trace follows from the draws by three recursions of Lindley, one for each line."""
    if "[1.0" in service.name + server.name + link.name:
        num_workers = 5
    used = {"server_time": server} if stages != "link" else {}
    used |= {"link_time": link} if stages != "server" else {}
    trace = queues.simulate(num_workers=num_workers, num_updates=size, service_time=service, **used)
    # Jobs that have begun and are not over at the end stand in the same lines: go on until all of them are.
    longer, more = trace, 20
    while len(np.unique(longer.worker[size:])) < num_workers:
        longer = queues.simulate(num_workers=num_workers, num_updates=size + more, service_time=service, **used)
        more *= 4
    np.testing.assert_array_equal(longer.prefix(size).worker, trace.worker)
    np.testing.assert_array_equal(longer.prefix(size).time, trace.time)
    now = longer.begun
    if "link_time" in used:
        hops = next_draws(longer, link, 2, each=2)
        now = served(now, hops[:, 0], np.lexsort((longer.worker, now)))
    now = now + next_draws(longer, service, 0)
    if "link_time" in used:
        now = served(now, hops[:, 1], np.lexsort((longer.worker, now)))
    if "server_time" in used:
        now = served(now, next_draws(longer, server, 1), np.arange(len(longer)))
    np.testing.assert_allclose(now[:size], trace.time, rtol=1e-12)
    # A version is read when its worker has made it, as without lines.
    last = np.zeros(num_workers, int)
    for t, (i, version) in enumerate(zip(trace.worker, trace.read_version, strict=True)):
        assert version == last[i] and trace.begun[t] == (0.0 if version == 0 else trace.time[version - 1])
        last[i] = t + 1


@pytest.mark.parametrize("law", [queues.exponential(), queues.gamma(0.5), queues.stragglers(2, 3.0)], ids=str)
def test_behind_a_saturated_server_workers_take_turns(law):
    options = {"num_workers": 8, "num_updates": 4000, "service_time": law}
    free = queues.simulate(**options).staleness[100:]
    busy = queues.simulate(server_time=queues.deterministic(1.0), **options).staleness[100:]
    assert busy.mean() == pytest.approx(7.0, abs=0.02)
    assert np.mean(np.abs(busy - 7) <= 2) > 0.95 and busy.std() < min(1.6, 0.7 * free.std())
    turns = queues.simulate(
        num_workers=8, num_updates=80, service_time=queues.deterministic(1.0), server_time=queues.deterministic(0.5)
    )
    np.testing.assert_array_equal(turns.staleness, np.minimum(np.arange(80), 7))
    np.testing.assert_allclose(turns.time, 1.0 + 0.5 * np.arange(1, 81))  # the server never rests again


def test_workers_server_and_link_draw_from_streams_of_their_own():
    """And machines do, of which each stage has its own."""
    law, seeds = queues.heterogeneous_gamma(), (0, 1, 2, 3)
    drawn = [
        tasks.draw(i, 1)[0] / tasks.mean[i]
        for stage in queues._STAGES
        for tasks in (queues._Tasks(law, 4, seed, stage) for seed in seeds)
        for i in range(4)
    ]
    means = [queues._Tasks(law, 4, seed, stage).mean[i] for stage in queues._STAGES for seed in seeds for i in range(4)]
    assert len({*drawn}) == len({*means}) == 3 * 4 * 4


def test_a_server_or_link_without_delay_changes_nothing():
    options = {"num_workers": 5, "num_updates": 400, "service_time": queues.gamma(0.5), "seed": 3}
    plain = queues.simulate(**options)
    assert plain.begun is None
    for name in ("server_time", "link_time"):
        trace = queues.simulate(**options, **{name: queues.deterministic(1e-12)})
        np.testing.assert_array_equal(trace.worker, plain.worker)
        np.testing.assert_array_equal(trace.read_version, plain.read_version)
        np.testing.assert_allclose(trace.time, plain.time, rtol=1e-9)


@pytest.mark.parametrize("seconds", [0.15, 0.4])
def test_the_mean_behind_a_busy_server_follows_the_kernel_of_theorem_2(seconds):
    """On (1/2) x^2: the law of staleness of these traces says how their mean moves; the geometric law does not."""
    h, size, runs = 0.05, 100, 1500
    x, taus = np.ones((runs, size + 1)), []
    for run in range(runs):
        trace = queues.simulate(
            num_workers=8,
            num_updates=size,
            service_time=queues.exponential(),
            server_time=queues.exponential(seconds),
            seed=run,
        )
        taus.append(trace)
        for t, version in enumerate(trace.read_version):
            x[run, t + 1] = x[run, t] - h * x[run, version]
    late = np.concatenate([trace.staleness[50:] for trace in taus])
    law = staleness.empirical(np.bincount(late) / len(late))
    error, mean = x.std(axis=0) / np.sqrt(runs), x.mean(axis=0)
    kernel = theory.mean_iterates(law, h, size)
    geometric = theory.mean_iterates(staleness.geometric(7.0), h, size)
    assert np.all(np.abs(mean - kernel) < 5 * error + 0.003)
    assert np.max(np.abs(mean - geometric)) > 4 * np.max(np.abs(mean - kernel))
    # Theorem 2 itself: E(x'' - x') = E(x' - x) - h (q_0 E x' - sum_l (q_l - q_(l+1)) E x_(t-1-l)).
    weights = theory.momentum_kernel(law)
    for t in range(60, size):
        past = kernel[t - 1 :: -1][: len(weights.past)]
        step = kernel[t] - kernel[t - 1] - h * (weights.current * kernel[t] - weights.past[: len(past)] @ past)
        assert kernel[t + 1] - kernel[t] == pytest.approx(step, abs=1e-4)


# --- Service times of a trace --------------------------------------------------------------------------------------


def distance(one, other):
    """Total variation between the staleness of two traces, without the first 200 events."""
    size = max(one.staleness.max(), other.staleness.max()) + 1
    one, other = (np.bincount(trace.staleness[200:], minlength=size) / (len(trace) - 200) for trace in (one, other))
    return np.abs(one - other).sum() / 2


@pytest.mark.parametrize(
    "law, server",
    [
        (queues.exponential(), None),
        (queues.stragglers(1, 10.0, queues.gamma(0.3)), None),
        (queues.heterogeneous_gamma(), None),
        (queues.gamma(0.5), 0.1),
        (queues.stragglers(1, 5.0, queues.gamma(0.3)), 0.1),
    ],
    ids=str,
)
def test_measured_times_make_the_queue_again(law, server):
    options = {"num_workers": 8, "num_updates": 20_000}
    if server is not None:
        options["server_time"] = queues.deterministic(server)
    machines = queues.mean_seconds(law, 8)
    law = queues.ServiceTime(law.name, lambda rng, m: machines, law.task)  # the same for every seed
    trace, twin = (queues.simulate(service_time=law, seed=seed, **options) for seed in (0, 1))
    found = queues.measured(trace, server_time=server or 0.0)
    again = queues.simulate(service_time=found, seed=2, **options)
    assert again.time[-1] == pytest.approx(trace.time[-1], rel=0.04)
    assert distance(again, trace) < 3 * distance(twin, trace)
    np.testing.assert_allclose(np.bincount(again.worker), np.bincount(trace.worker), rtol=0.15)
    if server is not None:  # that 65 % of the time somebody is served costs more than a queue without a server knows
        blind = queues.simulate(service_time=law, num_workers=8, num_updates=20_000)
        assert trace.time[-1] > 1.1 * blind.time[-1]


def test_a_straggler_ten_times_slower_has_a_tenth_of_the_updates():
    law = queues.stragglers(1, 10.0, queues.gamma(0.3))
    trace = queues.simulate(num_workers=4, num_updates=8000, service_time=law)
    measured = queues.measured(trace)
    for num_workers, slow in ((4, [0]), (2, [0]), (9, [0, 4, 8])):
        events = np.bincount(queues.simulate(num_workers=num_workers, num_updates=9000, service_time=measured).worker)
        fast = np.delete(events, slow)
        np.testing.assert_allclose(events[slow], fast.mean() / 10, rtol=0.1)


def test_what_is_drawn_is_what_was_measured(tmp_path):
    """Each worker's own seconds, from the read of a version to its update, with and without `begun`."""
    trace = Trace([0, 1, 0, 1, 0], [0, 0, 1, 2, 3], [1.0, 1.5, 3.0, 4.5, 8.0], begun=[0.5, 0.5, 2.0, 1.5, 4.5])
    trace.save(tmp_path / "trace.npz")
    rng = np.random.default_rng(0)
    for source, seconds in (
        (trace, ({0.5, 1.0, 3.5}, {1.0, 3.0})),
        (tmp_path / "trace.npz", ({0.5, 1.0, 3.5}, {1.0, 3.0})),
        (Trace(trace.worker, trace.read_version, trace.time), ({2.0, 5.0}, {3.0})),
    ):
        law = queues.measured(source)
        means = law.machine(rng, 3)
        for i in range(3):
            drawn = means[i] * law.task_of(i)(rng, 200)
            assert {round(float(x), 9) for x in drawn} == seconds[i % 2]
    # The gradient of 1.5 came 0.5 after the one before it, which may be a wait for a server of 0.4.
    law = queues.measured(trace, server_time=0.4)
    assert {round(float(x), 9) for x in law.machine(rng, 2)[1] * law.task_of(1)(rng, 99)} == {2.6}


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
        ({"server_time": 0.1}, TypeError, "server_time must be a ServiceTime"),
        ({"link_time": queues.exponential([1.0])}, ValueError, "mean has 1 values for num_workers=4"),
        (
            {"server_time": queues.exponential(), "max_staleness": 3},
            ValueError,
            "max_staleness=3 and server_time are mutually exclusive",
        ),
        ({"policy": "discard"}, ValueError, "policy='discard' requires max_staleness"),
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
        (lambda: queues.measured(Trace([0], [0])), "trace must have times"),
        (
            lambda: queues.measured(Trace([0, 1, 0], [0] * 3, [1.0, 2.0, 3.0])),
            "trace leaves worker 1 no service time",
        ),
        (lambda: queues.measured(Trace([0, 0], [0, 0], [1.0, 2.0]), server_time=1.0), "pass a smaller server_time"),
        (lambda: queues.measured(Trace([0], [0], [1.0], num_workers=2)), "worker 0 no"),
        (lambda: queues.ServiceTime("two", np.ones, ()), "task must be a function"),
        (lambda: queues.ServiceTime("two", np.ones, (np.ones, None)), "task must be a function"),
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
        (queues.exponential(1e308), "is too long: 9 updates overflow a double"),
    ],
)
def test_times_beyond_the_range_of_a_double_are_refused(law, message):
    with pytest.raises(ValueError, match=message):
        queues.simulate(num_workers=2, num_updates=9, service_time=law)
