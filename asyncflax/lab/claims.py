"""Claims of papers, checked: one small JSON file a claim, with our number, its interval and the command that makes it.

A study writes its claims and figures into WORKDIR/claims. `collect` copies them into results/, of which `documents`
makes tables, and `reproduce` runs their commands again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shlex
from typing import Any

import jax

from asyncflax import _check
from asyncflax._files import write_atomically
from asyncflax.lab.statistics import VERDICTS

__all__ = ["Claim", "collect", "cpu_minutes", "load_all", "portable", "this_machine"]

_LARGEST_FIGURE = 200_000  # bytes


def portable(command: str) -> str:
    """A command as it was typed, without where python and the script were; one of the program `asyncflax` as it is.

    >>> from asyncflax.lab.claims import portable
    >>> portable("/usr/bin/python /somewhere/launch/sweep.py '--config.axes=seed=(0, 1)'")
    "python launch/sweep.py '--config.axes=seed=(0, 1)'"
    """
    program, script, *words = shlex.split(command)
    if program == "asyncflax":
        return command
    return shlex.join(["python", "/".join(pathlib.Path(script).parts[-2:]), *words])


def this_machine() -> str:
    """The cores and the accelerator of this machine, without its name.

    Example:
      >>> from asyncflax.lab.claims import this_machine
      >>> "CPU cores" in this_machine()
      True
    """
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f", {device.device_kind}"
    return f"{os.cpu_count()} CPU cores{accelerator}"


def cpu_minutes() -> float:
    """What this process has used so far: user and system time of all its threads, and of its children that ended.

    Example:
      >>> from asyncflax.lab.claims import cpu_minutes
      >>> 0 < cpu_minutes() < 60
      True
    """
    return sum(os.times()[:4]) / 60


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says, what was measured here, and how to measure it again.

    Attributes:
      name: a slug such as 'theorem-5'; the claim's file is called so too.
      statement: the claim in one sentence.
      source: the paper and its theorem or figure; claims are sorted by it.
      paper: the paper's number, as text; a short table ends at the first semicolon.
      ours: our number with its interval, as text; likewise.
      value: our number.
      interval: (low, high) around it.
      seeds: how many independent runs stand behind it, or random cases of an exact identity; at least 1.
      command: the exact command, begins with 'python ' and a script, or with 'asyncflax '.
      verdict: one of `statistics.VERDICTS`, by the rules of that module.
      criterion: the digest of what was fixed before judging, see `statistics.criterion_digest`; '' where nothing was
        chosen, such as of an exact identity.
      cpu_minutes: of the command from scratch, where it was measured; 0 where it was not.
      confidence: of the interval, in (0, 1]; 1 where it holds all cases, the worst among them.
      figure: the name of a PNG file beside the claim's file, or ''.
      machine: where it was measured, without a host's name.

    Raises:
      TypeError, ValueError: a field has a wrong type or value; the message names it.

    Example:
      >>> from asyncflax.lab.claims import Claim
      >>> claim = Claim(
      ...     name="mean-staleness",
      ...     statement="The mean staleness of M workers is M - 1.",
      ...     source="Mitliagkas et al. 2016, section 2.1",
      ...     paper="7 at M = 8",
      ...     ours="7.01 (6.98 to 7.04)",
      ...     value=7.01,
      ...     interval=(6.98, 7.04),
      ...     seeds=20,
      ...     command="python launch/theory.py --workdir=runs/theory",
      ... )
      >>> import tempfile
      >>> path = claim.save(tempfile.mkdtemp())
      >>> path.name, Claim.load(path) == claim
      ('mean-staleness.json', True)
    """

    name: str
    statement: str
    source: str
    paper: str
    ours: str
    value: float
    interval: tuple[float, float]
    seeds: int
    command: str
    verdict: str = "not decided"
    criterion: str = ""
    cpu_minutes: float = 0.0
    confidence: float = 0.95
    figure: str = ""
    machine: str = dataclasses.field(default_factory=this_machine)

    def __post_init__(self):
        for field in ("name", "statement", "source", "paper", "ours", "command", "criterion", "figure", "machine"):
            text = getattr(self, field)
            _check.instance(field, text, str, "one line of text")
            if (not text.strip() and field not in ("figure", "criterion")) or "\n" in text:
                raise ValueError(f"{field} must be one line of text, got {text!r}.")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"name must be a slug such as 'theorem-5' (a-z, 0-9, -), got {self.name!r}.")
        words = _words(self.command)
        is_script = words[:1] == ["python"] and words[1:2] and words[1].endswith(".py") and not os.path.isabs(words[1])
        if not is_script and (words[:1] != ["asyncflax"] or len(words) < 2):
            raise ValueError(
                f"command must begin with 'python ' and a script (launch/x.py) or 'asyncflax ', got {self.command!r}."
            )
        if not re.fullmatch(r"([a-z0-9_-]+\.png)?", self.figure):
            raise ValueError(f"figure must be the name of a PNG beside the claim's file, got {self.figure!r}.")
        if not isinstance(self.interval, tuple | list) or len(self.interval) != 2:
            raise ValueError(f"interval must be (low, high), got {self.interval!r}.")
        value = _check.scalar("value", self.value)
        low, high = (_check.scalar("interval", end) for end in self.interval)
        if not low <= value <= high:
            raise ValueError(f"interval must hold value={value}, got ({low}, {high}).")
        _check.choice("verdict", self.verdict, VERDICTS)
        if not re.fullmatch(r"[0-9a-f]*", self.criterion):
            raise ValueError(f"criterion must be a digest of criterion_digest or '', got {self.criterion!r}.")
        cpu_minutes = _check.scalar("cpu_minutes", self.cpu_minutes, low=0.0)
        confidence = _check.scalar("confidence", self.confidence, low=0.0, high=1.0, exclusive_low=True)
        seeds = _check.integer("seeds", self.seeds, 1)
        for field, number in {
            "value": value,
            "interval": (low, high),
            "cpu_minutes": cpu_minutes,
            "confidence": confidence,
            "seeds": seeds,
        }.items():
            object.__setattr__(self, field, number)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> pathlib.Path:
        """Writes `folder`/`name`.json, whole or not at all, and returns the path.

        Args:
          folder: is made if there is none.
          overwrite: replaces another claim of this name; without it, only the same claim may lie there.

        Raises:
          FileExistsError: another claim, or something else, lies there.

        Example: see `Claim`.
        """
        path = pathlib.Path(folder) / f"{self.name}.json"
        content = (json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
        if path.exists() and path.read_bytes() == content:
            return path
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} holds another result; pass overwrite=True to replace it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Claim:
        """Reads what `save` wrote.

        Args:
          path: of the JSON file.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is no claim, a field is missing, unknown or wrong, or the file is not called as the claim is.

        Example: see `Claim`.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no claim at {path}.")
        try:
            fields = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}.") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{path} must hold the fields of a claim, got {type(fields).__name__}.")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                raise ValueError(f"{path}: a claim has no field {name!r}{_check.nearest(name, names)}")
        missing = [name for name in names if name not in fields]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}.")
        try:
            claim = cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        if claim.name != path.stem:
            raise ValueError(f"{path} holds the claim {claim.name!r}; call the file {claim.name}.json.")
        return claim


def load_all(folder: str | os.PathLike[str]) -> list[Claim]:
    """The claims in a folder, sorted by source, then by name.

    Args:
      folder: with one JSON file a claim; none, or no folder, gives no claims.

    Raises:
      ValueError: a file is no claim.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.claims import load_all
      >>> load_all(tempfile.mkdtemp())
      []
    """
    claims = [Claim.load(path) for path in pathlib.Path(folder).glob("*.json")]
    return sorted(claims, key=place)


def collect(
    source: str | os.PathLike[str], results: str | os.PathLike[str] = "results", *, overwrite: bool = False
) -> list[Claim]:
    """Copies the claims of a study and their figures into the folder of all results, or nothing if one may not be.

    Args:
      source: the folder with the claims' files, WORKDIR/claims.
      results: where to.
      overwrite: replaces files there that are different.

    Returns:
      The claims that were copied.

    Raises:
      FileNotFoundError: there are no claims, or a figure is missing.
      FileExistsError: a different file of the same name is there.
      ValueError: a file is no claim, or a figure is larger than 200 kB.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.claims import collect
      >>> collect("runs/nothing/claims", tempfile.mkdtemp())
      Traceback (most recent call last):
        ...
      FileNotFoundError: no claims in runs/nothing/claims.
    """
    source, results = pathlib.Path(source), pathlib.Path(results)
    claims = load_all(source)
    if not claims:
        raise FileNotFoundError(f"no claims in {source}.")
    files = {f"{claim.name}.json": source / f"{claim.name}.json" for claim in claims}
    for claim in claims:
        if claim.figure:
            check_figure(claim, source)
            files[claim.figure] = source / claim.figure
    contents = {results / name: path.read_bytes() for name, path in files.items()}
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content and not overwrite:
            raise FileExistsError(f"{path} is another one; pass overwrite=True to replace it.")
    results.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_atomically(path, lambda file, content=content: file.write(content))
    return claims


def check_figure(claim: Claim, folder: pathlib.Path) -> None:
    figure = folder / claim.figure
    if claim.figure and not figure.is_file():
        raise FileNotFoundError(f"claim {claim.name}: there is no figure {figure}.")
    if claim.figure and figure.stat().st_size > _LARGEST_FIGURE:
        raise ValueError(
            f"claim {claim.name}: {figure} has {figure.stat().st_size:,} bytes; "
            f"figures may have {_LARGEST_FIGURE:,}: lower its dpi."
        )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def files_of(command: str) -> list[str]:
    """The script of a command, and its config file without a variant's name."""
    program, script, *words = _words(command)
    configs = [word.partition("=")[2].partition(":")[0] for word in words if word.startswith("--config=")]
    named = [config if config.endswith(".py") else f"configs/{config}.py" for config in configs]
    return [f"launch/{script.replace('-', '_')}.py" if program == "asyncflax" else script, *named]


def place(claim: Claim) -> tuple[list[Any], str]:
    """A key that sorts claims by source, then by name."""
    return _natural(claim.source), claim.name


def _natural(text: str) -> list[Any]:
    """A key that sorts 'Theorem 9' before 'Theorem 10'."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", text)]
