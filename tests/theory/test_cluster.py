"""Workers, server and staleness found in traces whose queues are known; other clusters against their own queues."""

import json

import launching
import numpy as np
import pytest
from matplotlib.figure import Figure

from asyncflax import Trace, queues, staleness, theory
from asyncflax.theory import cluster

LAWS = {
    "exponential": queues.exponential(),
    "gamma": queues.gamma(0.3),
    "stragglers": queues.stragglers(1, 8.0, queues.gamma(0.3)),
}


def simulated(law, *, num_workers=8, server=None, size=6000, seed=0):
    return queues.simulate(num_workers=num_workers, num_updates=size, service_time=law, server_time=server, seed=seed)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_time_of_the_server_is_found(law, seconds):
    """From a sixth of the time on that it is busy, whether it varies by 5 % or not at all."""
    for server in (queues.deterministic(seconds), queues.gamma(0.05, mean=seconds)):
        trace = simulated(law, server=server)
        found = cluster.measure(trace)
        assert found.server_seconds == pytest.approx(seconds, rel=0.05)
        assert found.busy == pytest.approx(min(6000 * seconds / trace.time[-1], 1.0), rel=0.05)
        if found.busy < 0.75:
            np.testing.assert_allclose(found.service_seconds, queues.mean_seconds(law, 8), rtol=0.35)
            assert found.service_seconds.mean() == pytest.approx(queues.mean_seconds(law, 8).mean(), rel=0.15)


@pytest.mark.parametrize("num_workers", [1, 2, 8, 32])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_without_a_server_none_is_seen(law, num_workers):
    for seed in range(3):
        found = cluster.measure(simulated(law, num_workers=num_workers, seed=seed))
        assert (found.server_seconds, found.busy, found.saturation) == (0.0, 0.0, np.inf)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_other_clusters_are_those_of_their_own_queues(law):
    """Seconds per update within 10 % of a queue of so many such workers, the server at rest or busy."""
    server, means = 0.08, queues.mean_seconds(law, 8)
    found = cluster.measure(simulated(law, server=queues.deterministic(server)))
    scenarios = {(s.name, s.num_workers): s for s in cluster.what_if(found, [1, 8, 16, 64])}
    one = scenarios["as measured", 1]
    assert one.hardware == 1.0 and one.staleness_std == 0.0
    for (name, m), scenario in scenarios.items():
        if m == 1:
            continue
        machines = np.where(means > 2, 1.0, means) if name == "no stragglers" else means
        seconds = server / 2 if name == "server twice as fast" else server
        twin_law = queues.ServiceTime("twin", lambda rng, m, machines=machines: np.resize(machines, m), law.task)
        twin = simulated(twin_law, num_workers=m, server=queues.deterministic(seconds), size=20_000, seed=1)
        assert scenario.hardware == pytest.approx(twin.time[-1] / 20_000 / (1 + server), rel=0.1), (name, m)
        assert scenario.busy == pytest.approx(min(20_000 * seconds / twin.time[-1], 1.0), rel=0.1), (name, m)
        assert scenario.staleness_std == pytest.approx(twin.staleness[2000:].std(), rel=0.25, abs=0.3), (name, m)
    assert found.fit == pytest.approx(1.0, abs=0.1)
    assert {name for name, _ in scenarios} == {"as measured", "server twice as fast"} | (
        {"no stragglers"} if means.max() > 2 else set()
    )
    assert 64 > found.saturation == pytest.approx(8 / server / np.sum(1 / (means + server)), rel=0.1)
    assert scenarios["as measured", 64].busy > 0.99


def test_momentum_where_staleness_is_geometric_and_a_kernel_where_it_is_not():
    free = cluster.measure(simulated(queues.exponential()))
    assert free.from_geometric < 0.1
    assert "it acts as    an implicit momentum of 1 - 1/M = 0.875; to set, mu* - 0.875 = -0.075" in cluster.table(
        free, []
    )
    busy = cluster.measure(simulated(queues.exponential(), server=queues.deterministic(0.5)))
    assert busy.from_geometric > 0.5 and busy.staleness.mean == pytest.approx(7.0, abs=0.02)
    text = cluster.table(busy, [])
    assert "the kernel of Theorem 2" in text and "it saturates at" in text and "not to be told from the wait" in text
    slow = cluster.measure(simulated(queues.stragglers(2, 8.0), num_workers=10))
    assert "; stragglers: 0 and 1" in cluster.table(slow, [])
    constant = staleness.constant(7)
    assert cluster._from_geometric(constant, 8) == pytest.approx(1 - constant.pmf(7) * 0.125 * 0.875**7)


def test_a_queue_that_does_not_fit_says_so():
    """Workers that share one processor: alone a gradient takes a second, but they all wait for each other."""
    trace = Trace(np.arange(400) % 4, np.maximum(np.arange(400) - 3, 0), np.arange(1.0, 401), begun=np.arange(400.0))
    found = cluster.measure(trace, server_seconds=0.0)
    assert found.fit == pytest.approx(0.25, abs=0.01)
    assert "a queue of these times takes 0.25 times the measured seconds" in cluster.table(found, [])


def test_a_log_without_times_cannot_be_measured():
    for trace in (Trace([0, 1], [0, 0]), Trace([0], [0], [1.0]), Trace([0, 1], [0, 0], [1.0, 1.0])):
        with pytest.raises(ValueError, match="trace must have the times of at least two updates"):
            cluster.measure(trace)
    with pytest.raises(ValueError, match="trace leaves worker 0 no service time"):
        cluster.measure(simulated(queues.gamma(), size=100), server_seconds=9.0)


def test_the_figure_has_the_kernel_of_the_measured_staleness():
    found = cluster.measure(simulated(queues.exponential(), server=queues.deterministic(0.2)))
    scenarios, figure = cluster.what_if(found, [1, 8]), Figure(figsize=(15, 5))
    cluster.draw(figure, found, scenarios)
    histogram, kernel, what_if = figure.axes
    past = theory.momentum_kernel(found.staleness).past
    drawn = kernel.lines[0].get_ydata()
    np.testing.assert_allclose(drawn[: len(past)], past[: len(drawn)])
    np.testing.assert_allclose(histogram.lines[0].get_ydata()[:5], found.staleness.pmf(np.arange(5)))
    assert what_if.lines[0].get_ydata() == pytest.approx([1.0, scenarios[2].hardware])
    assert [text.get_text() for text in what_if.get_legend().get_texts()] == [
        "as measured", "server twice as fast", "1/M", "the server saturates"
    ]  # fmt: skip


def test_the_launcher_measures_a_log(tmp_path):
    """Two workers behind a server that is always busy; and what is wrong, in one line each."""
    trace = simulated(queues.deterministic(0.5), num_workers=2, server=queues.deterministic(1.0), size=500)
    rows = zip(trace.worker.tolist(), trace.read_version.tolist(), trace.time.tolist(), strict=True)
    lines = [{"actor": f"w{i}", "weights": v, "step": t + 1, "time": s} for t, (i, v, s) in enumerate(rows)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "log.csv").write_text("worker,version\n0,0\n1,7\n")
    columns, log = "--columns=worker=actor,version=weights,made=step", f"--trace={tmp_path / 'log.jsonl'}"
    flags = ["--num_workers=1,4", "--condition_number=9", f"--workdir={tmp_path / 'plan'}"]
    Trace([0, 1, 0, 1], [0, 0, 1, 2], [1.0, 2.0, 3.0, 4.0], num_workers=3).save(tmp_path / "short.npz")
    short = [f"--trace={tmp_path / 'short.npz'}", "--condition_number=9"]
    commands = [[columns, log, *flags], short, [columns, log, *flags], [columns], [f"--trace={tmp_path / 'log.csv'}"]]
    done, unmeasured, *wrong = launching.launch_all([["launch/plan.py", *flags] for flags in commands])
    assert done.status == 0, done
    assert "Measured: 500 updates by 2 workers" in done.out and "1 s an update, busy 100% of the time" in done.out
    assert "In the long run" in done.out
    assert unmeasured.status == 0 and "In the long run" in unmeasured.out
    assert "no measurement: trace leaves worker 2 no service time after server_time=0.0" in unmeasured.out
    content = json.loads((tmp_path / "plan" / "cluster.json").read_text())
    assert content["server_seconds"] == 1.0 and [row["num_workers"] for row in content["scenarios"]] == [1, 1, 4, 4]
    assert (tmp_path / "plan" / "cluster.png").read_bytes()[1:4] == b"PNG"
    messages = [
        f"{tmp_path}/plan/plan.csv exists; pass --overwrite to replace it.",
        "--columns applies to a trace or log; pass its file as --trace.",
        f"{tmp_path}/log.csv, line 3: version=7 is read, but only versions 0..1 exist",
    ]
    for found, message in zip(wrong, messages, strict=True):
        assert found.status == 1 and found.out == "" and found.err.startswith(f"error: {message}"), found
        assert found.err.count("\n") == 1
