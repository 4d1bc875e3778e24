"""Traces: what they refuse, and what survives a file."""

import io
import zipfile

import numpy as np
import pytest

import asyncflax
from asyncflax import Trace
from asyncflax._files import sign


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"worker": [0, 0], "read_version": [0, -1]}, r"event 1: read_version=-1 is not in 0..1"),
        ({"worker": [0, 0, 0], "read_version": [0, 1, 3]}, r"event 2: read_version=3 is not in 0..2"),
        ({"worker": [0, -2], "read_version": [0, 0]}, r"event 1: worker=-2 is not in 0"),
        ({"worker": [0, 3], "read_version": [0, 0], "num_workers": 3}, r"event 1: worker=3 is not in 0..2"),
        ({"worker": [0], "read_version": [0, 0]}, "worker and read_version must have the same length, got 1 and 2"),
        ({"worker": [], "read_version": []}, "at least one event"),
        ({"worker": [2**40], "read_version": [0]}, "event 0: worker=1099511627776 is not in 0..2147483646"),
        ({"worker": [2**31 - 1], "read_version": [0]}, "event 0: worker=2147483647 is not in 0..2147483646"),
        ({"worker": [0], "read_version": [2**32]}, "event 0: read_version=4294967296 is not in 0..0"),
        ({"worker": [0], "read_version": [0], "num_workers": 2**40}, "num_workers must be at most 2147483647"),
        ({"worker": [True], "read_version": [0]}, "worker must be a list of integers"),
        ({"worker": [0.5], "read_version": [0]}, "worker must be a list of integers"),
        ({"worker": [[0]], "read_version": [0]}, "worker must be a list of integers"),
        (
            {"worker": [0], "read_version": [0], "num_workers": 0},
            "num_workers must be an integer >= 1, got num_workers=0",
        ),
        ({"worker": [0, 0], "read_version": [0, 0], "time": [1.0]}, r"time must have shape \(2,\), got \(1,\)"),
        ({"worker": [0, 0], "read_version": [0, 0], "time": [1.0, np.nan]}, "event 1: time=nan is not finite"),
        (
            {"worker": [0, 0], "read_version": [0, 0], "time": [1.0, 0.5]},
            "event 1: time=0.5 is before time=1.0 of event 0",
        ),
        ({"worker": [0, 0], "read_version": [0, 0], "ticket": [0]}, "ticket must have .* the 2 events, got 1"),
        ({"worker": [0, 0], "read_version": [0, 0], "ticket": [4, -1]}, "event 1: ticket=-1 is not in 0..2147483647"),
        ({"worker": [0], "read_version": [0], "ticket": [2**31]}, "event 0: ticket=2147483648 is not in 0..2147483647"),
        ({"worker": [0] * 3, "read_version": [0] * 3, "ticket": [7, 5, 7]}, "event 2: ticket=7 is also .* event 0"),
        ({"worker": [0], "read_version": [0], "ticket": [1.5]}, "ticket must be a list of integers"),
        ({"worker": [0], "read_version": [0], "begun": [0.0]}, "begun requires time"),
        ({"worker": [0], "read_version": [0], "time": [1.0], "begun": [[0.0]]}, r"begun must have shape \(1,\), got"),
        ({"worker": [0], "read_version": [0], "time": [1.0], "begun": [np.inf]}, "event 0: begun=inf is not finite"),
        ({"worker": [0], "read_version": [0], "time": [1.0], "begun": [1.5]}, "event 0: begun=1.5 is after time=1.0"),
        (
            {"worker": [0, 1], "read_version": [0, 1], "time": [1.0, 2.0], "begun": [0.0, 0.5]},
            "event 1: begun=0.5 is before version 1 existed, at time=1.0",
        ),
    ],
)
def test_bad_events_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trace(**arguments)


def test_arrays_are_copies_and_read_only():
    worker = np.array([0, 1])
    trace = Trace(worker, [0, 0])
    worker[0] = 1
    assert trace.worker[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        trace.worker[0] = 1


FIELDS = ("worker", "read_version", "time", "ticket", "begun", "num_workers")


def assert_same(one, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True, err_msg=name)


@pytest.fixture(name="live")
def _live():
    """As a live run would leave it: jobs overtake each other, and a worker rests before it reads."""
    ticket, time = [1, 0, 3, 2, 40], [1.0, 1.5, 1.5, 3.0, 4.0]
    return Trace([1, 0, 1, 0, 2], [0, 0, 1, 2, 0], time, 4, ticket, [-0.5, 0.0, 1.0, 1.75, 0.0])


def test_the_ticket_is_the_index_unless_said_otherwise(live):
    trace = Trace([0, 1, 0], [0, 0, 1])
    assert trace.ticket.tolist() == [0, 1, 2] and trace.begun is None
    assert live.ticket.tolist() == [1, 0, 3, 2, 40] and live.ticket.dtype == np.int32
    assert live.prefix(3).ticket.tolist() == [1, 0, 3] and live.prefix(3).begun.tolist() == [-0.5, 0.0, 1.0]
    assert live.prefix(3).num_workers == 4
    for array in (live.ticket, live.begun):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.fixture(name="trace")
def _trace():
    return asyncflax.queues.simulate(num_workers=5, num_updates=500, service_time=asyncflax.queues.gamma(0.5), seed=1)


def test_a_file_gives_back_the_trace(tmp_path, trace, live):
    for original in (trace, live, asyncflax.staleness.poisson(2.0).trace(num_updates=50)):
        path = tmp_path / f"{len(original)}.npz"
        original.save(path)
        assert_same(Trace.load(path), original)
    assert len(list(tmp_path.iterdir())) == 3  # no leftovers


def test_files_of_the_first_format_are_read(tmp_path, trace):
    path = tmp_path / "trace.npz"
    path.write_bytes(sign(archive_of(trace)))
    assert set(trace._arrays()) == {"worker", "read_version", "time", "num_workers"}  # what that format has
    assert_same(Trace.load(path), trace)


def test_a_file_is_not_overwritten_unasked(tmp_path, trace):
    path = tmp_path / "trace.npz"
    trace.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        trace.prefix(10).save(path)
    assert path.read_bytes() == before
    trace.prefix(10).save(path, overwrite=True)
    assert len(Trace.load(path)) == 10


def test_corrupted_files_are_refused(tmp_path, trace):
    path = tmp_path / "trace.npz"
    with pytest.raises(FileNotFoundError, match="no trace at"):
        Trace.load(path)
    trace.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="corrupted"):
        Trace.load(path)
    for position in range(0, len(content), 5):  # a byte anywhere
        changed = bytearray(content)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"trace\.npz is corrupted or not a trace"):
            Trace.load(path)


def test_files_of_others_and_of_the_future_are_refused(tmp_path, trace):
    path = tmp_path / "trace.npz"
    np.savez(path, worker=[0], read_version=[0])
    with pytest.raises(ValueError, match="does not match its checksum"):
        Trace.load(path)
    archive = io.BytesIO()
    np.savez(archive, format=99, **trace._arrays())
    path.write_bytes(sign(archive.getvalue()))
    with pytest.raises(ValueError, match="format 99, but this version reads 1 and 2"):
        Trace.load(path)
    trace.save(path, overwrite=True)
    with np.load(path) as file:  # an ordinary .npz for everybody else
        np.testing.assert_array_equal(file["worker"], trace.worker)


def archive_of(trace, **arrays):
    """An archive as `save` makes it, with other arrays."""
    archive = io.BytesIO()
    np.savez_compressed(archive, **{"format": np.int64(1), **trace._arrays(), **arrays})
    return archive.getvalue()


def with_header(trace, shape):
    """An archive in which an array claims a shape that it does not have."""
    archive, array = io.BytesIO(archive_of(trace)), io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<i4", "fortran_order": False, "shape": shape})
    changed = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, array.getvalue() if name == "worker.npy" else old.read(name))
    return changed.getvalue()


def with_byte(archive, signature, offset, value):
    """The archive with another byte in all entries of its directory."""
    changed, place = bytearray(archive), 0
    while (place := archive.find(signature, place)) >= 0:
        changed[place + offset] = value
        place += 1
    return bytes(changed)


HOSTILE = {
    "no zip": lambda trace: b"PK" * 100,
    "half a zip": lambda trace: archive_of(trace)[:400] + archive_of(trace)[-22:],
    "pickles": lambda trace: archive_of(trace, worker=np.array([print] * len(trace), object)),
    "text": lambda trace: archive_of(trace, worker=np.array(["0"] * len(trace))),
    "a table": lambda trace: archive_of(trace, worker=trace.worker[None]),
    "a list for a number": lambda trace: archive_of(trace, num_workers=np.array([5])),
    "another array": lambda trace: archive_of(trace, more=np.zeros(3)),
    "an array too few": lambda trace: archive_of(trace).replace(b"read_version.npy", b"read_versiom.npy"),
    "a name twice": lambda trace: archive_of(trace, twicer=trace.worker).replace(b"twicer.npy", b"worker.npy"),
    "a header that claims more than there is": lambda trace: with_header(trace, (10**15,)),
    "a header that claims a negative length": lambda trace: with_header(trace, (-1,)),
    "encrypted": lambda trace: with_byte(archive_of(trace), b"PK\x01\x02", 8, 1),
    "an unknown compression": lambda trace: with_byte(archive_of(trace), b"PK\x01\x02", 10, 77),
    "an array of another length": lambda trace: archive_of(trace, read_version=trace.read_version[:-1]),
    "a version of the future": lambda trace: archive_of(trace, read_version=trace.read_version + 500),
    "tickets that are no integers": lambda trace: archive_of(trace, ticket=np.arange(len(trace)) / 2),
    "a ticket twice": lambda trace: archive_of(trace, ticket=np.zeros(len(trace), np.int32)),
    "what ends before it has begun": lambda trace: archive_of(trace, begun=trace.time + 1),
    "workers who are not there": lambda trace: archive_of(trace, num_workers=np.int64(2)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_files_whose_checksum_is_right_and_whose_content_is_not(content, tmp_path, trace):
    path = tmp_path / "trace.npz"
    path.write_bytes(sign(content(trace)))
    with pytest.raises(ValueError, match=r"trace\.npz") as error:
        Trace.load(path)
    assert "\n" not in str(error.value)


def test_nothing_is_unpacked_that_does_not_fit_in_memory(tmp_path, trace, monkeypatch):
    """A file of 2 kB that would unpack to 2 MB, on a machine with 1 MB."""
    path = tmp_path / "trace.npz"
    path.write_bytes(sign(archive_of(trace, time=np.zeros(250_000))))
    monkeypatch.setattr("numpy.load", None)
    monkeypatch.setattr("asyncflax._memory.available", lambda: 2**20)
    with pytest.raises(ValueError, match=r"trace\.npz holds 2,0\d\d,\d\d\d bytes, more than the 1,048,576 bytes of"):
        Trace.load(path)
    monkeypatch.setattr("asyncflax._memory.available", lambda: 256)
    with pytest.raises(ValueError, match=r"trace\.npz holds [1-9],\d\d\d bytes, more than the 256 bytes of"):
        Trace.load(path)


def test_prefix_and_summary(trace):
    assert len(trace.prefix(7)) == 7 and trace.prefix(7).num_workers == 5
    with pytest.raises(ValueError, match="exceeds the 500 events"):
        trace.prefix(501)
    figures = trace.summary()
    assert figures["workers"] == 5 and figures["staleness_max"] == trace.staleness.max()
    assert figures["events_per_second"] == pytest.approx(5.0, rel=0.1)
