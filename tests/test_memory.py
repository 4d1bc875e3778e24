"""What is available, by what files of the system say, and what is refused for it."""

import os

import jax.numpy as jnp
import pytest

from asyncflax import _memory

KIB = 1024


def lay(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine with 8 GiB, of which 4 are there."""
    monkeypatch.setattr(_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path / "cgroup")
    lay(tmp_path, {"proc/meminfo": f"MemTotal: {8 * KIB**2} kB\nMemAvailable: {4 * KIB**2} kB\n"})
    return tmp_path


def test_of_a_machine(system):
    assert _memory.available() == 4 * KIB**3


@pytest.mark.parametrize(
    "files, left",
    [
        ({"job/memory.max": "max", "job/memory.current": "5"}, 4 * KIB**3),  # no limit
        ({"job/memory.max": "1000", "job/memory.current": "300"}, 700),
        (  # pages of files give way
            {"job/memory.max": "1000", "job/memory.current": "300", "job/memory.stat": "anon 9\ninactive_file 200\n"},
            900,
        ),
        ({"memory.max": "500", "memory.current": "100", "job/memory.max": "1000", "job/memory.current": "0"}, 400),
        ({"job/memory.max": "1000", "job/memory.current": "2000"}, 0),
        ({"job/memory.current": "2000"}, 4 * KIB**3),
    ],
)
def test_of_a_control_group(system, files, left):
    lay(system, {"proc/self/cgroup": "0::/job\n"} | {f"cgroup/{name}": text for name, text in files.items()})
    assert _memory.available() == left


def test_without_proc_the_system_is_asked(system, monkeypatch):
    (system / "proc" / "meminfo").unlink()
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}[name], raising=False)
    assert _memory.available() == 40_960
    monkeypatch.setattr(os, "sysconf_names", {}, raising=False)
    assert _memory.available() is None
    _memory.need("rows", 10**30, 10**30, "nothing that anybody knows")


def test_the_message_says_what_is_needed_and_what_there_is(monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda: 3 * KIB**2)
    _memory.need("rows", 3, 3 * KIB**2, "the store")
    expected = "rows=4 is too large: the store would take about 4.0 MiB of memory, but only 3.0 MiB is available; "
    with pytest.raises(ValueError) as found:
        _memory.need("rows", 4, 4 * KIB**2, "the store")
    assert str(found.value) == f"{expected}reduce it."
    row = {"w": jnp.zeros((KIB, 3), jnp.float32)}
    assert _memory.num_bytes(row) == 12 * KIB
    with pytest.raises(ValueError, match="rows=257 is too large: 257 rows of arrays would take about 3"):
        _memory.need_rows("rows", 257, 257, row)
    _memory.need_rows("rows", 256, 256, row)
