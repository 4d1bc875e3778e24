"""Several real processes on this machine: they compute what one computes, save and resume, and end together."""

import json
import pathlib
import re
import shlex
import signal
import subprocess
import time

import jax
import numpy as np
import problems
import processes
import pytest
from processes import ends, environment, free_port, started, started_task

import asyncflax
from asyncflax.train import distributed

ROOT = pathlib.Path(__file__).parents[2]


# --- They compute what one computes ---------------------------------------------------------------------------------


def assert_same(found, expected, case):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12, err_msg=f"{case}: {name}")


def alone(name, kind):
    """The same run in one process, on one device."""
    plan = processes.make_plan(kind)
    state, first = processes.run_on(processes.begin(name, plan), name, plan[0])
    state, last = processes.run_on(state, name, plan[1])
    return processes.whole(state, first, last)


def on_paper(name, kind):
    """The same run by the oracle in NumPy."""
    row, trace = problems.METHODS[name], problems.some_traces()[kind]
    twin = problems.norm_twin(row, trace, problems.batch_rows(), jax.random.key(processes.SEED))
    return {"params": twin.theta, "model_state": twin.model_state, "losses": twin.losses, "gap": twin.gaps}


@pytest.mark.slow
def test_two_and_four_processes_compute_what_one_computes_and_resume_what_others_saved(tmp_path):
    """All methods, all kinds of traces, replicated and sharded servers: the end, and what every event reports."""
    for count, task in ((2, "compute_two"), (4, "compute_four")):
        with started_task(task, tmp_path, count, devices=8 // count) as run:
            for status, error in ends(run, timeout=600):
                assert status == 0, error
        for case in processes.cases(count):
            with np.load(tmp_path / f"{count}-{'-'.join(case)}.npz") as found:
                assert_same(found, on_paper(*case[:2]), (count, *case))
                if case == processes.SAVED:
                    expected = alone(*case[:2])
                    assert_same(found, expected, (count, *case))

    tail = {key: x[processes.SAVED_AT :] if len(x) == problems.NUM_EVENTS else x for key, x in expected.items()}
    with np.load(tmp_path / "resumed.npz") as found:
        assert_same(found, tail, "saved by 2, resumed by 4")
    for where in ({}, {"mesh": asyncflax.make_mesh(4, 1), "server": "sharded"}):
        for saved_by in (2, 4):
            assert_same(processes.go_on(tmp_path, saved_by, **where), tail, f"saved by {saved_by}, resumed on {where}")


# --- They end together ----------------------------------------------------------------------------------------------


def wait_for(condition, run, timeout=300):
    """Returns when something holds; fails if a process ends before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert all(process.poll() is None for process in run), [process.communicate() for process in run]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, victim, number",
    [
        ("collective", 0, signal.SIGKILL),
        ("collective", 1, signal.SIGKILL),
        ("compiling", 0, signal.SIGKILL),
        ("compiling", 2, signal.SIGKILL),
        ("collective", 2, signal.SIGSTOP),  # as when a host has gone
    ],
)
def test_when_one_process_ends_all_end(task, victim, number, tmp_path):
    with started_task(task, tmp_path, 3) as run:
        for process in run:
            assert "ready\n" in iter(process.stdout.readline, "")
        time.sleep(0.5)
        run[victim].send_signal(number)
        found = ends([process for process in run if process is not run[victim]])
        assert all(status != 0 for status, _ in found), found


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, status, message",
    [
        ("error_alone", 3, "error: process 1: the disk of this host is full\n"),
        ("apart", 1, "error: process 1: workdir='run' is another folder here than in process 0; take one that all"),
    ],
)
def test_an_error_of_one_process_is_said_and_ends_all(task, status, message, tmp_path):
    with started_task(task, tmp_path, 2) as run:
        (other, _), (found, said) = ends(run, timeout=200)
    assert found == status and other != 0
    assert said.startswith(message) and said.count("\n") == 1, said


@pytest.mark.slow
def test_an_error_that_nobody_catches_ends_all_with_its_traceback(tmp_path):
    with started_task("bug_alone", tmp_path, 2) as run:
        (other, _), (status, said) = ends(run, timeout=200)
    assert other != 0 and status != 0
    assert said.startswith("Traceback") and "KeyError: 'a bug of this host'\n" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, status, messages",
    [
        ("error_of_all", 4, ("the same in all", "process 1: the same in all")),
        (
            "differ",
            1,
            (
                "process 1 was started with other values than process 0; start all processes of",
                "process 1: workdir is 'runs/1' here, but 'runs/0' in process 0; start all processes of",
            ),
        ),
    ],
)
def test_an_error_of_all_processes_ends_each_with_its_sentence(task, status, messages, tmp_path):
    with started_task(task, tmp_path, 2) as run:
        for (found, said), message in zip(ends(run, timeout=200), messages, strict=True):
            assert found == status and said.startswith(f"error: {message}") and said.count("\n") == 1, said


def test_processes_agree_and_leave_in_order(tmp_path):
    with started_task("agree", tmp_path, 3) as run:
        assert ends(run, timeout=200) == [(0, "")] * 3
    assert (tmp_path / "agreed").exists()


# --- They find each other -------------------------------------------------------------------------------------------


WRONG = {
    "no port": ({"coordinator": "node7"}, "coordinator must be HOST:PORT of process 0, .* got 'node7'"),
    "one of three": (
        {"coordinator": "node7:1234"},
        "coordinator='node7:1234' needs num_processes as well; pass it or set JAX_NUM_PROCESSES",
    ),
    "two of three": ({"num_processes": 2, "process_id": 1}, "num_processes=2 and process_id=1 need coordinator as"),
    "who is not there": (
        {"coordinator": "node7:1234", "num_processes": 2, "process_id": 2},
        "process_id must be below num_processes=2, got process_id=2",
    ),
    "no process": ({"num_processes": 0}, "num_processes must be an integer >= 1, got num_processes=0"),
}


@pytest.mark.parametrize("given, message", WRONG.values(), ids=WRONG)
def test_who_is_who_must_be_complete(given, message):
    with pytest.raises(ValueError, match=message):
        distributed.start(**given)


def test_the_environment_says_it_as_well(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(TypeError, match="JAX_PROCESS_ID must be a concrete integer, got 'one'"):
        distributed.start()
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    with pytest.raises(ValueError, match="process_id=1 needs coordinator as well; pass it or set JAX_COORDINATOR_A"):
        distributed.start()


def test_a_process_alone_starts_nothing(monkeypatch):
    """Also as the one task of a cluster, or as one of many that have nothing to do with each other."""
    distributed.start()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    distributed.start()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.start(num_processes=1)
    assert not jax.distributed.is_initialized() and distributed.is_primary()


@pytest.mark.slow
def test_slurm_says_who_is_who(tmp_path):
    """The variables that srun sets; the port follows from the number of the job."""
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    each = [environment(1, **job, SLURM_PROCID=task, SLURM_LOCALID=task) for task in ("0", "1")]
    with started([["tests/processes.py", "agree", str(tmp_path)]] * 2, each) as run:
        assert ends(run, timeout=200) == [(0, "")] * 2
    assert (tmp_path / "agreed").exists()


@pytest.mark.slow
def test_what_a_cluster_does_not_tell_is_said(tmp_path):
    job = environment(1, KUBERNETES_SERVICE_HOST="10.0.0.1", JOB_COMPLETION_INDEX="0", PYTHONWARNINGS="ignore")
    with started([["tests/processes.py", "agree", str(tmp_path)]], [job]) as run:
        [(status, error)] = ends(run)
    assert (
        status == 1 and "JAX cannot detect the other processes (coordinator_address should be defined.); pass" in error
    )


@pytest.mark.slow
def test_who_waits_in_vain_says_so():
    alone = [
        "-c",
        f"from asyncflax.train import distributed; distributed.start('127.0.0.1:{free_port()}', 2, 1, timeout=2)",
    ]
    with started([alone], [environment(1)]) as run:
        [(status, error)] = ends(run)
    assert status == 1 and error.startswith("error: timed out after 2 s waiting for all processes to connect; check")
    assert error.count("\n") == 1


# --- They train together --------------------------------------------------------------------------------------------


PAGE = ROOT / "docs" / "devices.md"
FAST = {
    "model": "Mlp",
    "num_updates": 160,
    "log_every": 10,
    "eval_every": 40,
    "checkpoint_every": 20,
    "meter_window": 0,
}


def commands_of_the_page(name):
    """Environment and arguments of the commands of docs/devices.md that train in runs/NAME."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines if f"--workdir=runs/{name} " in line):
        before, arguments = words[: words.index("python")], words[words.index("python") + 1 :]
        yield dict(word.split("=", 1) for word in before if before[0] != "srun"), arguments


def shortened(arguments, workdir, **fields):
    """The arguments of a command with another folder and few updates of a small network."""
    places = [f"--workdir={workdir}", f"--coordinator=127.0.0.1:{fields.pop('port', 0)}"]
    changed = [next((p for p in places if word.split("=")[0] == p.split("=")[0]), word) for word in arguments]
    return [*changed, *(f"--config.{name}={value}" for name, value in {**FAST, **fields}.items())]


def rows(workdir):
    """The metrics so far, without the clock."""
    path = workdir / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: x for k, x in row.items() if k not in ("wall_seconds", "updates_per_second")} for row in found]


def wait_for_rows(workdir, run, count):
    """Returns when so many more rows have come than the run began with."""
    begun = len(rows(workdir))
    wait_for(lambda: len(rows(workdir)) >= begun + count, run)


def test_the_page_names_what_is_tested_here():
    names = re.findall(r"--workdir=runs/(\w+) ", PAGE.read_text())
    assert sorted(names) == ["cpu", "host", "one", "slurm", "two", "two", "two"]
    [(_, slurm)], ((_, by_hand), *_) = commands_of_the_page("slurm"), commands_of_the_page("two")
    flags = {word.split("=")[0]: word for word in by_hand}
    assert all(word == flags[word.split("=")[0]] for word in slurm if not word.startswith("--workdir"))


@pytest.mark.slow
@pytest.mark.parametrize("name, devices", [("one", 1), ("host", 8)])
def test_the_commands_of_the_page_for_one_host_run(name, devices, tmp_path):
    [(_, arguments)] = commands_of_the_page(name)
    with started([shortened(arguments, tmp_path, num_updates=20)], [environment(devices)]) as run:
        assert ends(run, timeout=300) == [(0, "")]
    assert rows(tmp_path)[-1]["update"] == 20 and (tmp_path / "training.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(0,), (1, 0)])
def test_a_training_in_two_processes_gives_the_metrics_of_one_and_survives_what_happens_to_them(victims, tmp_path):
    """A signal to one stops all after the same chunk; a kill of one ends both, with a whole checkpoint that resumes
    elsewhere."""
    [(devices, arguments)] = commands_of_the_page("cpu")
    with started([shortened(arguments, tmp_path / "cpu")], [environment(1, **devices)]) as run:
        assert ends(run, timeout=300) == [(0, "")]

    workdir = tmp_path / "two"
    (_, first), (_, second), (_, elsewhere) = commands_of_the_page("two")

    def two_hosts():
        port = free_port()
        return started([shortened(words, workdir, port=port) for words in (first, second)], [environment(2)] * 2)

    with two_hosts() as run:
        wait_for_rows(workdir, run, 3)
        run[1].send_signal(signal.SIGTERM)
        (status, said), (other, quiet) = ends(run)
    stopped = re.search(r"^error: stopped by SIGTERM after update (\d+) and saved; rerun the same", said, re.MULTILINE)
    assert (status, other) == (143, 143) and "error: process 1: stopped by SIGTERM after" in quiet, quiet
    assert rows(workdir)[-1]["update"] == int(stopped[1]) and (workdir / "checkpoints" / stopped[1]).is_dir()
    for victim in victims:
        with two_hosts() as run:
            wait_for_rows(workdir, run, 3)
            run[victim].kill()
            [(status, _)] = ends([run[1 - victim]], timeout=60)
            assert status != 0
        newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
        subprocess.run(
            ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=workdir / "checkpoints" / str(newest), check=True
        )
    assert rows(workdir)[-1]["update"] < 160
    with started([shortened(elsewhere, workdir)], [environment(4)]) as run:
        assert ends(run, timeout=300) == [(0, "")]

    expected = rows(tmp_path / "cpu")
    assert [row["update"] for row in rows(workdir)] == [row["update"] for row in expected] == list(range(0, 161, 10))
    for row, twin in zip(rows(workdir), expected, strict=True):
        assert row == pytest.approx(twin, rel=1e-4, abs=1e-4)
