"""Claims run again: real ones against their files, and programs that fail, stop, or come to another verdict."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from asyncflax.lab import reproduce
from asyncflax.lab.claims import Claim, load_all

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = {
    "statement": "1 is 1.",
    "source": "Somebody 2016",
    "paper": "1",
    "ours": "1.00",
    "value": 1.0,
    "interval": (0.5, 1.5),
    "seeds": 2,
    "verdict": "seen",
    "machine": "2 CPU cores",
}
# A program that makes claims: as often as it is told it stops or fails first, and it counts its starts.
PROGRAM = """
import json, os, pathlib, sys
flags = dict(word[2:].split("=") for word in sys.argv[1:])
workdir = pathlib.Path(flags["workdir"])
workdir.mkdir(parents=True, exist_ok=True)
starts = workdir / "starts"
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
print("begins")
if len(starts.read_text()) <= int(flags.get("stops", 0)):
    print("error: stopped", file=sys.stderr)
    sys.exit(75)
(workdir / "pid").write_text(str(os.getpid()))
if "sleeps" in flags:
    import time
    time.sleep(60)
fields = json.loads(pathlib.Path("fields.json").read_text())
(workdir / "claims").mkdir()
for name in flags["names"].split(","):
    claim = {**fields, "name": name, "verdict": flags.get("verdict", "seen"), "command": "python launch/make.py"}
    (workdir / "claims" / f"{name}.json").write_text(json.dumps(claim))
"""


def kept(root, name, *, flags="", names=None, minutes=1.0, **fields):
    """A claim in results/ that the program makes."""
    (root / "launch").mkdir(exist_ok=True)
    (root / "launch" / "make.py").write_text(PROGRAM)
    command = " ".join(f"python launch/make.py --names={names or name} {flags} --workdir=runs/{names or name}".split())
    claim = Claim(name=name, command=command, cpu_minutes=minutes, **{**FIELDS, **fields})
    (root / "fields.json").write_text(json.dumps(dataclasses.asdict(claim)))
    claim.save(root / "results")
    return claim


def again(root, *which):
    """What becomes of the claims in results/."""
    found = []
    for task in reproduce.tasks(load_all(root / "results"), which, root / "again"):
        found += reproduce.outcomes(task, reproduce.run(task, root))
    return {one.then.name: one for one in found}


def launch(root, *flags):
    """`asyncflax claims` in a checkout of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "asyncflax", "claims", f"--root={root}", f"--folder={root}/again", *flags]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    assert "Traceback" not in process.stderr, process.stderr
    return process.returncode, process.stdout, process.stderr


def test_the_smallest_claim_comes_out_as_it_is_kept(tmp_path):
    """From scratch, as somebody would who doubts it."""
    results = load_all(ROOT / "results")
    smallest = min((claim for claim in results if claim.cpu_minutes), key=lambda claim: claim.cpu_minutes)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "launch/claims.py", f"--run={smallest.name}", f"--folder={tmp_path / 'again'}"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stdout + process.stderr
    (task,) = reproduce.tasks(results, [smallest.name], tmp_path / "again")
    now = Claim.load(task.workdir / "claims" / f"{smallest.name}.json")
    same = {"machine": smallest.machine, "value": smallest.value, "interval": smallest.interval, "ours": smallest.ours}
    assert dataclasses.replace(now, cpu_minutes=smallest.cpu_minutes, **same) == smallest
    assert 0 < now.cpu_minutes < 5 and now.value == pytest.approx(smallest.value, rel=0.1, abs=1e-13)


def test_a_command_runs_once_for_all_its_claims_and_not_again(tmp_path):
    for name in ("one", "two"):
        kept(tmp_path, name, names="one,two")
    for _ in range(2):
        assert [(name, one.fault) for name, one in again(tmp_path, "two").items()] == [("one", ""), ("two", "")]
        assert (tmp_path / "again" / "one,two" / "starts").read_text() == "x"
    assert (tmp_path / "again" / "one,two.log").read_text() == "begins\n"


def test_what_is_quick(tmp_path):
    for name, minutes in {"long": 5.1, "unmeasured": 0.0, "five": 5.0, "short": 0.1}.items():
        kept(tmp_path, name, minutes=minutes)
    claims = load_all(tmp_path / "results")
    names = lambda *which: [task.claims[0].name for task in reproduce.tasks(claims, which, "again")]
    assert names("quick") == ["short", "five"]
    assert names("all") == ["unmeasured", "short", "five", "long"]
    assert names("long", "five") == ["five", "long"]
    for which, message in ((["fife"], "did you mean 'five'"), ([], "must be"), (["quick", "sort"], "'sort'")):
        with pytest.raises(ValueError, match=message):
            names(*which)
    with pytest.raises(ValueError, match="must contain --workdir=FOLDER to be rerun, got 'asyncflax theory'"):
        reproduce.tasks([dataclasses.replace(claims[0], command="asyncflax theory")], ["all"], "again")


def test_another_verdict_a_failure_and_a_missing_claim_are_faults_and_the_others_run(tmp_path):
    kept(tmp_path, "changed", flags="--verdict=refuted")
    kept(tmp_path, "fails", flags="--stops=9")
    kept(tmp_path, "writes-another", names="other")
    kept(tmp_path, "criterion", criterion="abc")
    kept(tmp_path, "agrees")
    found = again(tmp_path, "all")
    assert found["changed"].fault == "the verdict was seen" and found["changed"].now.verdict == "refuted"
    assert found["fails"].fault == f"exit status 75: error: stopped ({tmp_path}/again/fails.log)"
    assert found["writes-another"].fault == f"the command did not write the claim ({tmp_path}/again/other.log)"
    assert found["criterion"].fault == "the criterion differs"
    assert found["agrees"].fault == "" and found["fails"].now is None
    rows = {line.split()[0]: line.split()[1:] for line in reproduce.table([*found.values()]).splitlines()}
    assert rows["agrees"] == ["seen", "seen", "1", "1", "1.00", "1.00"]
    assert rows["fails"][:6] == ["seen", "-", "1", "-", "1.00", "-"]
    assert rows["changed"] == ["seen", "refuted", "1", "1", "1.00", "1.00", "the", "verdict", "was", "seen"]


def test_what_stopped_goes_on(tmp_path):
    kept(tmp_path, "one", flags="--stops=1")
    assert "exit status 75" in again(tmp_path, "one")["one"].fault
    assert again(tmp_path, "one")["one"].fault == ""
    assert (tmp_path / "again" / "one" / "starts").read_text() == "xx"


def test_the_program(tmp_path):
    kept(tmp_path, "changed", flags="--verdict=refuted", minutes=0.5)
    kept(tmp_path, "agrees")
    status, out, _ = launch(tmp_path, "--run=quick", "--list")
    assert status == 0 and not (tmp_path / "again").exists()
    assert "2 of 2 claims by 2 commands, about 1.5 CPU minutes" in out
    assert out.index("--names=changed") < out.index("--names=agrees")
    status, out, err = launch(tmp_path, "--run=agrees,changed")
    assert status == 1 and out.splitlines()[-1].startswith("agrees ")
    assert err == "error: 1 of 2 claims differ from results/: changed.\n"
    status, _, err = launch(tmp_path, "--run=agree", "--check")
    assert status == 1 and "got --check and --run; use one of them" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_stops_the_command_too(number, tmp_path):
    kept(tmp_path, "one", flags="--sleeps=1")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "asyncflax", "claims", f"--root={tmp_path}", f"--folder={tmp_path}/again"]
    process = subprocess.Popen([*command, "--run=all"], env=environment, stderr=subprocess.PIPE, text=True)
    pid, began = tmp_path / "again" / "one" / "pid", time.monotonic()
    while not (pid.exists() and pid.read_text()) and time.monotonic() - began < 30:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and err == "error: stopped; rerun the same command to resume\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
