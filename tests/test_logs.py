"""Logs of others: three realistic ones, all forms of a table, any names of versions, and what is refused."""

import csv
import datetime
import json

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncflax
from asyncflax import Trace, queues

# An asynchronous RL trainer: weights are called by the trainer's step, which also counts what is not logged here.
RL = """\
{"step": 812, "actor": "rollout-2", "weights": 810, "sampled_at": 1764425000.5, "trained_at": 1764425004.0, "r": 0.1}
{"step": 814, "actor": "rollout-10", "weights": 810, "sampled_at": 1764425000.5, "trained_at": 1764425005.0, "r": 0.2}

{"step": 816, "actor": "rollout-2", "weights": 812, "sampled_at": 1764425004.25, "trained_at": 1764425007.0, "r": 0.2}
{"step": 818, "actor": "rollout-2", "weights": 816, "sampled_at": 1764425007.0, "trained_at": 1764425009.5, "r": 0.3}
"""
RL_COLUMNS = {"worker": "actor", "version": "weights", "made": "step", "time": "trained_at", "begun": "sampled_at"}

# A parameter server that counts its updates.
SERVER = "rank,read_clock,time\n3,0,0.5\n1,0,0.75\n3,1,1.0\n"
SERVER_COLUMNS = {"worker": "rank", "version": "read_clock"}

# Federated learning with a buffer of two: models are called by their hashes, and every second line makes one.
FEDERATED = {
    "client": ["berlin", "oslo", "berlin", "turin"],
    "base": ["9f3c", "9f3c", "9f3c", "07aa"],
    "model": ["07aa", "07aa", "e1b2", "e1b2"],
    "applied": ["2026-11-29T12:00:01Z", "2026-11-29T12:00:02Z", "2026-11-29T13:00:03+01:00", "2026-11-29T12:00:05.5Z"],
}
FEDERATED_COLUMNS = {"worker": "client", "version": "base", "made": "model", "time": "applied"}


def test_a_trainer_of_reinforcement_learning(tmp_path):
    path = tmp_path / "trainer.jsonl"
    path.write_text(RL)
    trace = Trace.from_log(path, columns=RL_COLUMNS)
    assert trace.worker.tolist() == [0, 1, 0, 0] and trace.read_version.tolist() == [0, 0, 1, 3]
    assert trace.time.tolist() == [3.5, 4.5, 6.5, 9.0] and trace.begun.tolist() == [0.0, 0.0, 3.75, 6.5]
    law = queues.measured(trace)
    assert law.machine(np.random.default_rng(0), 2).tolist() == [pytest.approx((3.5 + 2.75 + 2.5) / 3), 4.5]


def test_a_parameter_server(tmp_path):
    path = tmp_path / "server.csv"
    path.write_text("\ufeff" + SERVER)  # as spreadsheets write it
    trace = Trace.from_log(str(path), columns=SERVER_COLUMNS)
    assert trace.worker.tolist() == [1, 0, 1] and trace.read_version.tolist() == [0, 0, 1]
    assert trace.time.tolist() == [0.0, 0.25, 0.5] and trace.begun is None and trace.num_workers == 2


def test_a_federated_log():
    frame = pandas.DataFrame(FEDERATED)
    zoned = frame.assign(applied=pandas.to_datetime(frame["applied"], utc=True, format="ISO8601"))
    naive = zoned.assign(applied=zoned["applied"].dt.tz_localize(None))
    for log in (FEDERATED, frame, zoned, naive):
        trace = Trace.from_log(log, columns=FEDERATED_COLUMNS)
        assert trace.worker.tolist() == [0, 1, 0, 2] and trace.read_version.tolist() == [0, 0, 0, 2]
        np.testing.assert_allclose(trace.time, [0.0, 1.0, 2.0, 4.5], atol=1e-6)


@st.composite
def runs(draw):
    """Traces of queues, in which versions are read in any order."""
    law = draw(st.sampled_from([queues.exponential(), queues.stragglers(1, 5.0), queues.gamma(0.5)]))
    return queues.simulate(
        num_workers=draw(st.integers(1, 12)),
        num_updates=draw(st.integers(1, 60)),
        service_time=law,
        server_time=queues.gamma(0.5, 0.2),
        seed=draw(st.integers(0, 99)),
    )


NAMES = {
    "numbers with gaps": lambda v: 1000 + 7 * v,
    "numbers as floats": lambda v: float(3 * v),
    "hashes": lambda v: f"{(v + 1) * 2654435761 % 2**32:08x}",
    "times": lambda v: (datetime.datetime(2026, 11, 29) + datetime.timedelta(seconds=v)).isoformat(),
}


@given(runs(), st.sampled_from(sorted(NAMES)), st.sampled_from(["csv", "jsonl", "dict", "frame"]))
def test_every_trace_comes_back_from_its_log(tmp_path_factory, trace, names, form):
    name = NAMES[names]
    log = {
        "host": [f"w{i}" for i in trace.worker.tolist()],
        "read": [name(v) for v in trace.read_version.tolist()],
        "new": [name(t + 1) for t in range(len(trace))],
        "time": trace.time.tolist(),
        "begun": trace.begun.tolist(),
        "job": (7 * trace.ticket + 3).tolist(),
        "version": ["1.2.0"] * len(trace),  # of the software
    }
    rows = [dict(zip(log, row, strict=True)) for row in zip(*log.values(), strict=True)]
    path = tmp_path_factory.mktemp("log") / f"log.{form}"
    if form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, log)
            writer.writeheader()
            writer.writerows(rows)
        log = path
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
        log = path
    elif form == "frame":
        log = pandas.DataFrame(log)
    names = {"worker": "host", "version": "read", "made": "new", "ticket": "job"}
    found = Trace.from_log(log, columns=names)
    workers = np.unique(trace.worker)
    np.testing.assert_array_equal(workers[found.worker], trace.worker)
    np.testing.assert_array_equal(found.read_version, trace.read_version)
    np.testing.assert_allclose(found.time, trace.time, rtol=1e-12)  # somebody began at 0
    np.testing.assert_allclose(found.begun, trace.begun, rtol=1e-12)
    np.testing.assert_array_equal(found.ticket, 7 * trace.ticket + 3)
    # Without a column of versions, those that were the newest when they were read.
    found = Trace.from_log(log, columns={"worker": "host", "version": None})
    np.testing.assert_array_equal(found.read_version, trace.read_version)


def test_a_log_that_begins_in_the_middle():
    """Of a queue: the first line of each worker may have read what was made before, and nothing else has."""
    trace = queues.simulate(num_workers=5, num_updates=400, service_time=queues.exponential())
    tail = {"worker": trace.worker[200:], "version": trace.read_version[200:], "made": np.arange(201, 401)}
    with pytest.raises(ValueError, match=r"log, row 1: version .* is read, but no line made it"):
        Trace.from_log(tail)
    found = Trace.from_log(tail, before_start="clamp")
    np.testing.assert_array_equal(found.read_version, np.maximum(trace.read_version[200:] - 200, 0))
    assert np.sum(found.staleness != trace.staleness[200:]) == 5 - 1  # one of them was made by the last line before
    gap = {name: np.delete(column, 100) for name, column in tail.items()}
    with pytest.raises(ValueError, match=r"row 1\d\d: version 301 is read, but no line made it and the initial"):
        Trace.from_log(gap, before_start="clamp")


LOG = {"worker": [0, 1, 0], "version": [5, 5, 6], "made": [6, 7, 8], "time": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    "log, options, message",
    [
        ({"version": [0]}, {}, r"not say which worker delivered \('worker'\); pass columns=, available: \['version'\]"),
        ({"worker": [0]}, {}, r"log does not say which version was read \('version'\), or when \('time' and 'begun'\)"),
        ({"worker": [0], "time": [0.0]}, {}, "does not say which version"),
        (LOG, {"columns": {"worker": "wrker"}}, "columns maps 'worker' to 'wrker', but log has .* mean 'worker'"),
        (LOG, {"columns": {"staleness": "s"}}, "columns must be one of 'worker', 'version', .* got 'staleness'"),
        (LOG, {"before_start": "drop"}, "before_start must be one of 'refuse', 'clamp'"),
        (LOG | {"time": [1.0, 3.0, 2.0]}, {}, "log, row 2: time=2.0 is before time=3.0 of the previous line; sort"),
        (LOG | {"version": [5, 5, 8]}, {}, r"log, row 2: version 8 is read before it was made \(log, row 2\)"),
        (LOG | {"version": [7, 5, 6]}, {}, r"log, row 0: version 7 is read before it was made \(log, row 1\)"),
        (LOG | {"version": [5, 4, 6]}, {}, "log, row 1: version 4 is read, but no line made it and the initial"),
        (LOG | {"made": [6, 7, 6]}, {}, "log, row 2: version 6 was already made by log, row 0"),
        (LOG, {"columns": {"made": None}}, r"log, row 0: version=5 is read, but only versions 0..0 exist then"),
        (LOG | {"version": ["a", "b", "c"]}, {"columns": {"made": None}}, "log, row 0: version=a is read, but only"),
        (LOG | {"version": [5, None, 6]}, {}, "log, row 1: version must be a name or a number, got None"),
        (LOG | {"version": [5, np.nan, 6]}, {}, "log, row 1: version must be a name or a number, got nan"),
        (LOG | {"time": [1.0, "noon", 3.0]}, {}, "log, row 1: time must be a time, got 'noon'"),
        (LOG | {"time": [1.0, np.inf, 3.0]}, {}, "log, row 1: time must be a time, got inf"),
        (
            LOG | {"time": [1.0, 2.0]},
            {},
            r"log\['time'\] must be a list with one entry per update, got shape \(2,",
        ),
        (LOG | {"worker": [[0], [1], [0]]}, {}, r"log\['worker'\] must be a list with one entry per update"),
        ({"worker": [], "version": []}, {}, r"log\['worker'\] must be a list with one entry per update"),
        (LOG | {"ticket": [0, 1.5, 2]}, {}, "log, row 1: ticket must be an integer, got 1.5"),
        (LOG | {"ticket": [0, 3, 3]}, {}, "log, event 2: ticket=3 is also the ticket of event 1"),
        (LOG | {"begun": [0.0, 2.5, 1.0]}, {}, "log, event 1: begun=2.5 is after time=2.0"),
        (LOG | {"begun": [0.0, 0.5, 0.5]}, {}, "log, event 2: begun=0.5 is before version 1 existed, at time=1.0"),
        ("none.csv", {}, "no log at none.csv"),
        ("log.txt", {}, "log must end in one of .csv, .jsonl, .ndjson, got log.txt"),
        (7, {}, "log must be the path of a .csv or .jsonl file, a DataFrame or a dict of lists, got 7"),
        (LOG, {"columns": ["worker"]}, "columns must be a dict such as"),
    ],
)
def test_bad_logs_are_refused_in_one_line(log, options, message):
    with pytest.raises((ValueError, TypeError, OSError), match=message) as error:
        Trace.from_log(log, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("log.csv", b"", "log.csv has no lines; expected one line per update"),
        ("log.csv", b"worker,version\n", "log.csv has no lines"),
        ("log.csv", b"worker,version\n0,0\n\n1,\n", "log.csv, line 4: 'version' is missing"),
        ("log.csv", b"worker,version\n0,0,9\n", "log.csv, line 2: it has more cells than the header"),
        ("log.csv", b"worker,version\n0,0\n1,\xff\n", r"log.csv, after line \d: 'utf-8' codec"),
        ("log.csv", b"worker;version\n0;0\n", "log.csv does not say which worker delivered"),
        ("log.csv", b"worker,version\n0,0\n1,7\n", "log.csv, line 3: version=7 is read, but only versions 0..1 exist"),
        ("log.jsonl", b'{"worker": 0, "version": 0}\n{"worker": 1}\n', "log.jsonl, line 2: 'version' is missing"),
        ("log.jsonl", b'{"worker": 0, "version": 0}\n{"worker": 1', "log.jsonl, line 2: Expecting"),
        ("log.jsonl", b'\n{"worker": 0, "version": null}\n', "log.jsonl, line 2: 'version' is missing"),
        ("log.ndjson", b"[0, 0]\n", r"log.ndjson, line 1: expected a JSON object, got \[0, 0\]"),
        ("log.jsonl", b"\xff\xfe", r"log.jsonl, line \d: 'utf-8' codec"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Trace.from_log(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_log_is_a_trace_like_any_other(tmp_path):
    """It is replayed, saved and loaded."""
    trace = Trace.from_log(FEDERATED, columns=FEDERATED_COLUMNS)
    plan = asyncflax.make_plan(trace)
    assert plan.num_events == 4
    trace.save(tmp_path / "trace.npz")
    np.testing.assert_array_equal(Trace.load(tmp_path / "trace.npz").read_version, trace.read_version)
