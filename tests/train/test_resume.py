"""Invariant 5: killed at any moment and resumed = uninterrupted, bit by bit, as processes of their own."""

import random
import signal

import killing
import pytest

UPDATES = 200


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("twin") / "run"
    killing.finish(workdir, UPDATES)
    return killing.results(workdir)


@pytest.mark.parametrize(
    "moments", [("write",), pytest.param(("folder", "write", "later"), marks=pytest.mark.slow)], ids=["once", "thrice"]
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(moments, twin, tmp_path):
    rng, workdir = random.Random(1), tmp_path / "run"
    hits = [killing.kill(workdir, UPDATES, when, rng) for when in moments]
    assert "after the end" not in hits and (moments[0] != "folder" or hits[0] == "before the first checkpoint")
    killing.finish(workdir, UPDATES)
    found = killing.results(workdir)
    assert len(found) > 20 and any("workers" in name for name in found)
    assert killing.differing(twin, found) == []


def test_the_comparison_can_fail(twin):
    name = next(name for name in twin if "params" in name)
    other = {**twin, name: twin[name] + 1e-7}
    assert killing.differing(twin, other) == [name]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_from_where_it_was_asked_to_stop(twin, tmp_path):
    """Also between two checkpoints of the plan."""
    workdir = tmp_path / "run"
    process = killing.start(workdir, UPDATES)
    killing.wait_for(lambda: (workdir / "checkpoints" / "10").exists(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    killing.finish(workdir, UPDATES)
    assert set(killing.differing(twin, killing.results(workdir))) <= {"kept"}
