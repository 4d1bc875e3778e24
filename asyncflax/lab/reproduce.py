"""Reruns the commands of claims from scratch and compares the outcome with the stored claims.

    runs/claims/theorem-3/       the folder of a command, named as in its --workdir
    runs/claims/theorem-3.log    its output

Commands run one after another. A finished command is skipped and an interrupted one resumes; to start over, remove its
folder.
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

QUICK_MINUTES = 5.0  # the CPU time of a quick command, at most


class Task(NamedTuple):
    """A command to run.

    Attributes:
      command: the command, as stored in its claims.
      claims: the stored claims that the command writes.
      minutes: the CPU time of the command, in minutes; 0 if not measured.
      workdir: the folder of the new run.
    """

    command: str
    claims: tuple[Claim, ...]
    minutes: float
    workdir: pathlib.Path

    @property
    def is_finished(self) -> bool:
        """Whether the new run has written all claims."""
        return all(_path(self, claim).is_file() for claim in self.claims)


class Outcome(NamedTuple):
    """A claim, stored and reproduced.

    Attributes:
      then: the stored claim.
      now: the new claim, or None.
      fault: the reason why the two disagree, or ''.
    """

    then: Claim
    now: Claim | None
    fault: str


def tasks(claims: Sequence[Claim], which: Sequence[str], folder: str | os.PathLike[str]) -> list[Task]:
    """The distinct commands of selected claims, cheapest first.

    Args:
      claims: all stored claims.
      which: ('quick',) for commands of at most five CPU minutes, ('all',), or names of claims, whose commands may also
        write other claims.
      folder: the parent of the commands' folders.

    Raises:
      ValueError: a name is unknown, or a command has no --workdir.
    """
    names = {claim.name: claim.command for claim in claims}
    if not which:
        raise ValueError("which must be ('quick',), ('all',) or names of claims, got none.")
    if tuple(which) not in (("quick",), ("all",)):
        for name in which:
            _check.choice("which", name, ("quick", "all", *names))
    found, every, quick = [], [*which] == ["all"], [*which] == ["quick"]
    for command in dict.fromkeys(names.values()):
        made = tuple(claim for claim in claims if claim.command == command)
        minutes = max(claim.cpu_minutes for claim in made)
        if every or (quick and 0 < minutes <= QUICK_MINUTES) or any(claim.name in which for claim in made):
            found.append(Task(command, made, minutes, pathlib.Path(folder) / _workdir(command).name))
    return sorted(found, key=lambda task: task.minutes)


def run(task: Task, root: str | os.PathLike[str]) -> str:
    """Runs or resumes a command, unless it is finished.

    Args:
      task: the command.
      root: the checkout in which it runs.

    Returns:
      '' on success, otherwise the error in one line.

    Example: see `asyncflax.commands.claims`.
    """
    if task.is_finished:
        return ""
    workdir = task.workdir.absolute()
    if workdir.is_relative_to(pathlib.Path(root).absolute()):
        workdir = workdir.relative_to(pathlib.Path(root).absolute())  # claims contain no absolute path
    program, *words = shlex.split(task.command)
    python = [sys.executable, "-m", "asyncflax"] if program == "asyncflax" else [sys.executable]
    words = [f"--workdir={workdir}" if word.startswith("--workdir=") else word for word in words]
    log = task.workdir.with_name(f"{task.workdir.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen([*python, *words], cwd=root, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        except BaseException:  # such as KeyboardInterrupt
            process.terminate()
            process.wait()
            raise
    if status:
        last = log.read_text(errors="replace").rstrip().rpartition("\n")[2].strip()
        return f"exit status {status}: {last or 'no output'} ({log})"
    return "" if task.is_finished else f"the command did not write the claim ({log})"


def outcomes(task: Task, failure: str = "") -> list[Outcome]:
    """Compares the claims of a command by verdict and criterion; values may differ between machines.

    Args:
      task: the command.
      failure: the return value of `run`.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.claims import Claim
      >>> from asyncflax.lab.reproduce import outcomes, table, tasks
      >>> fields = {"statement": "1 is 1.", "source": "Somebody 2016", "paper": "1", "ours": "1", "value": 1.0}
      >>> fields |= {"interval": (1.0, 1.0), "seeds": 1, "command": "asyncflax theory --workdir=runs/theory"}
      >>> (task,) = tasks([Claim(name="one", verdict="seen", **fields)], ["all"], tempfile.mkdtemp())
      >>> outcomes(task, "exit status 1: error: no space left")[0].fault
      'exit status 1: error: no space left'
      >>> _ = Claim(name="one", verdict="refuted", **fields).save(task.workdir / "claims")
      >>> print(table(outcomes(task)))
      row  verdict      now               value         now  CPU min      now
      one  seen         refuted               1           1        -        -  the verdict was seen
    """
    found = []
    for then in task.claims:
        try:
            now = Claim.load(_path(task, then))
        except (OSError, ValueError) as error:
            found.append(Outcome(then, None, failure or str(error)))
            continue
        if now.criterion != then.criterion:
            fault = "the criterion differs"
        else:
            fault = f"the verdict was {then.verdict}" if now.verdict != then.verdict else ""
        found.append(Outcome(then, now, fault))
    return found


def table(found: Sequence[Outcome]) -> str:
    """Renders verdict, value and CPU minutes of each claim, stored and new.

    Args:
      found: the outcomes.
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
    """The --workdir of a command."""
    folders = [word.partition("=")[2] for word in shlex.split(command) if word.startswith("--workdir=")]
    if not folders:
        raise ValueError(f"the command of a claim must contain --workdir=FOLDER to be rerun, got {command!r}.")
    return pathlib.Path(folders[-1])
