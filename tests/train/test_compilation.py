"""Compiled programs that are kept: a second process finds what the first one has compiled."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from asyncflax.errors import RunError
from asyncflax.train.launcher import use_cache

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
ENVIRONMENT["JAX_PLATFORMS"] = "cpu"

COUNTS = """
import collections, sys, jax, jax.numpy as jnp
from asyncflax.train.launcher import use_cache
jnp.ones(3).block_until_ready()  # something is compiled before
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rsplit("/", 1)[-1]]))
use_cache(sys.argv[1])
x = jax.jit(lambda x: jax.lax.scan(lambda x, _: (jnp.sin(x) @ x, None), x, None, length=3)[0])(jnp.eye(8) * 0.5)
print(events["cache_hits"], events["cache_misses"], x.sum())
"""


def python(*arguments):
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    return process.returncode, process.stdout, process.stderr


def test_a_second_process_compiles_nothing(tmp_path):
    counts = []
    for _ in range(2):
        status, out, err = python("-W", "error", "-c", COUNTS, str(tmp_path / "new" / "cache"))
        assert status == 0 and err == "", err
        counts.append(out.split())
    (hits, misses, value), (hits_then, misses_then, same) = counts
    assert (hits, misses_then, same) == ("0", "0", value)
    assert int(misses) == int(hits_then) > 0


@pytest.mark.slow
def test_the_second_start_of_a_training_compiles_nothing_and_gives_the_same(tmp_path):
    found, rows = [], []
    flags = ["--config=configs/digits.py", "--config.num_updates=4", "--config.model=Mlp", "--config.meter_window=0"]
    for name in ("first", "second"):
        folders = [f"--workdir={tmp_path / name}", f"--compilation_cache={tmp_path / 'cache'}"]
        status, _, err = python("launch/train.py", *flags, *folders)
        assert status == 0 and err == "", err
        found.append(sorted(path.name for path in (tmp_path / "cache").iterdir()))
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        clock = ("wall_seconds", "updates_per_second")
        rows.append([{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines])
    assert len(found[0]) > 10 and found[1] == found[0]
    assert rows[1] == rows[0] and rows[0][-1]["update"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("launcher, config", [("train", "digits.py"), ("sweep", "figure3.py:fast")])
def test_a_launcher_refuses_a_folder_that_cannot_be(launcher, config, tmp_path):
    (tmp_path / "file").write_text("mine")
    flags = [f"--workdir={tmp_path / 'run'}", f"--compilation_cache={tmp_path / 'file'}"]
    status, out, err = python(f"launch/{launcher}.py", f"--config=configs/{config}", *flags)
    assert status == 1 and out == "" and not (tmp_path / "run").exists()
    assert err == f"error: --compilation_cache='{tmp_path / 'file'}' is a file; take a folder or a new name.\n"


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    cases = [tmp_path / "file" / "below", "/proc/cache", *([] if os.geteuid() == 0 else [closed, closed / "new"])]
    before = jax.config.jax_compilation_cache_dir
    for folder in cases:
        with pytest.raises(RunError, match=f"compilation_cache='{folder}' is not writable .*; take another folder"):
            use_cache(folder)
    use_cache(None)
    use_cache("")
    assert jax.config.jax_compilation_cache_dir == before
