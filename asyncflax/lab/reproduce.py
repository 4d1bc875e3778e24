"""Runs the commands of claims again, from scratch, and compares what comes out with what is kept.

    runs/claims/theorem-3/       the folder of a command, called as its own --workdir is
    runs/claims/theorem-3.log    what it printed

Commands run one after another. One that has written its claims is not run again, and one that was stopped resumes: to
begin anew, remove its folder.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from asyncflax import _check
from asyncflax.lab.claims import Claim

__all__ = ["QUICK_MINUTES", "Outcome", "Task", "outcomes", "run", "table", "tasks"]

QUICK_MINUTES = 5.0  # of CPU time, of a command that is quick


class Task(NamedTuple):
    """A command that is to be run.

    Attributes:
      command: as the claims have it.
      claims: those that it makes, as they are kept.
      minutes: of CPU time that it takes; 0 where nobody has measured it.
      workdir: where it runs this time.

    Example: see `tasks`.
    """

    command: str
    claims: tuple[Claim, ...]
    minutes: float
    workdir: pathlib.Path

    @property
    def is_finished(self) -> bool:
        """Whether its claims are there."""
        return all(_path(self, claim).is_file() for claim in self.claims)


class Outcome(NamedTuple):
    """What became of a claim.

    Attributes:
      then: as it is kept.
      now: as it came out; None where it did not.
      fault: why the two do not agree, '' where they do.

    Example: see `outcomes`.
    """

    then: Claim
    now: Claim | None
    fault: str


def tasks(claims: Sequence[Claim], which: Sequence[str], folder: str | os.PathLike[str]) -> list[Task]:
    """The commands of some claims, each once, the cheapest first.

    Args:
      claims: all that are kept.
      which: ('quick',) for commands of at most five CPU minutes, ('all',), or names of claims, whose commands may make
        others too.
      folder: for the folders of the commands.

    Raises:
      ValueError: there is no claim of a name, or a command has no --workdir.

    Example:
      >>> from asyncflax.lab.claims import Claim
      >>> from asyncflax.lab.reproduce import tasks
      >>> fields = {"statement": "1 is 1.", "source": "Somebody 2016", "paper": "1", "ours": "1", "value": 1.0}
      >>> fields |= {"interval": (1.0, 1.0), "seeds": 1, "command": "asyncflax theory --workdir=runs/theory"}
      >>> two = [Claim(name=name, cpu_minutes=0.7, **fields) for name in ("one", "two")]
      >>> [(str(task.workdir), len(task.claims)) for task in tasks(two, ["quick"], "again")]
      [('again/theory', 2)]
    """
    names = {claim.name: claim.command for claim in claims}
    if not which:
        raise ValueError("which must be ('quick',), ('all',) or names of claims, got none.")
    if tuple(which) not in (("quick",), ("all",)):
        for name in which:
            _check.choice("which", name, ("quick", "all", *names))
    found = []
    for command in dict.fromkeys(names.values()):
        made = tuple(claim for claim in claims if claim.command == command)
        minutes = max(claim.cpu_minutes for claim in made)
        wanted = [*which] == ["all"] or any(claim.name in which for claim in made)
        if wanted or ([*which] == ["quick"] and 0 < minutes <= QUICK_MINUTES):
            found.append(Task(command, made, minutes, pathlib.Path(folder) / _workdir(command).name))
    return sorted(found, key=lambda task: task.minutes)


def run(task: Task, root: str | os.PathLike[str]) -> str:
    """Runs a command, unless it is finished, or goes on with it.

    Args:
      task: what to run.
      root: the checkout, in which it runs.

    Returns:
      '' if it is finished now; else why it is not, in one line.

    Example: see `asyncflax.commands.claims`.
    """
    if task.is_finished:
        return ""
    workdir = task.workdir.absolute()
    if workdir.is_relative_to(pathlib.Path(root).absolute()):
        workdir = workdir.relative_to(pathlib.Path(root).absolute())  # claims name no folder of one machine
    program, *words = shlex.split(task.command)
    python = [sys.executable, "-m", "asyncflax"] if program == "asyncflax" else [sys.executable]
    words = [f"--workdir={workdir}" if word.startswith("--workdir=") else word for word in words]
    log = task.workdir.with_name(f"{task.workdir.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen([*python, *words], cwd=root, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        except BaseException:  # somebody stops this process
            process.terminate()
            process.wait()
            raise
    if status:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return f"exit status {status}: {said[-1].strip() if said else 'it said nothing'} ({log})"
    return "" if task.is_finished else f"it wrote no such claim ({log})"


def outcomes(task: Task, failure: str = "") -> list[Outcome]:
    """What became of the claims of a command, by verdict and criterion: numbers may differ from machine to machine.

    Args:
      task: that was run.
      failure: what `run` returned.

    Example:
      >>> import pathlib, tempfile
      >>> from asyncflax.lab.claims import Claim
      >>> from asyncflax.lab.reproduce import outcomes, tasks
      >>> fields = {"statement": "1 is 1.", "source": "Somebody 2016", "paper": "1", "ours": "1", "value": 1.0}
      >>> fields |= {"interval": (1.0, 1.0), "seeds": 1, "command": "asyncflax theory --workdir=runs/theory"}
      >>> (task,) = tasks([Claim(name="one", verdict="seen", **fields)], ["all"], tempfile.mkdtemp())
      >>> outcomes(task, "exit status 1: error: no space left")[0].fault
      'exit status 1: error: no space left'
      >>> _ = Claim(name="one", verdict="refuted", **fields).save(task.workdir / "claims")
      >>> outcomes(task)[0].fault
      'the verdict was seen'
    """
    found = []
    for then in task.claims:
        try:
            now = Claim.load(_path(task, then))
        except (OSError, ValueError) as error:
            found.append(Outcome(then, None, failure or str(error)))
            continue
        if now.criterion != then.criterion:
            fault = "the criterion is another one"
        else:
            fault = f"the verdict was {then.verdict}" if now.verdict != then.verdict else ""
        found.append(Outcome(then, now, fault))
    return found


def table(found: Sequence[Outcome]) -> str:
    """Row by row, verdict, value and CPU minutes: as they are kept, and as they came out.

    Args:
      found: of `outcomes`.

    Example:
      >>> from asyncflax.lab.reproduce import table
      >>> table([]).split()
      ['row', 'verdict', 'now', 'value', 'now', 'CPU', 'min', 'now']
    """
    width = max([len(one.then.name) for one in found], default=3)
    lines = [f"{'row':{width}}  {'verdict':11}  {'now':11}  {'value':>10}  {'now':>10}  {'CPU min':>7}  {'now':>7}"]
    for then, now, fault in found:
        minutes = [f"{claim.cpu_minutes:.2f}" if claim and claim.cpu_minutes else "-" for claim in (then, now)]
        verdict, value = (now.verdict, f"{now.value:.4g}") if now else ("-", "-")
        lines.append(
            f"{then.name:{width}}  {then.verdict:11}  {verdict:11}  {then.value:10.4g}  {value:>10}  "
            f"{minutes[0]:>7}  {minutes[1]:>7}{f'  {fault}' if fault else ''}"
        )
    return "\n".join(lines)


def _path(task: Task, claim: Claim) -> pathlib.Path:
    return task.workdir / "claims" / f"{claim.name}.json"


def _workdir(command: str) -> pathlib.Path:
    """The folder that a command names."""
    folders = [word.partition("=")[2] for word in shlex.split(command) if word.startswith("--workdir=")]
    if not folders:
        raise ValueError(f"the command of a claim must have a --workdir=FOLDER to be run again, got {command!r}.")
    return pathlib.Path(folders[-1])
