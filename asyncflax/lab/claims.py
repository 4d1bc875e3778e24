"""Claims of papers as small JSON files, with our number, its interval, a verdict and the command that reproduces it.

A study writes its claims and figures into WORKDIR/claims. `collect` copies them into results/, `documents` renders
these as tables, and `reproduce` runs their commands again.
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
    """Strips the folders of Python and of the script from a command; an `asyncflax` command is unchanged.

    Example:
      >>> from asyncflax.lab.claims import portable
      >>> portable("/usr/bin/python /somewhere/launch/sweep.py '--config.axes=seed=(0, 1)'")
      "python launch/sweep.py '--config.axes=seed=(0, 1)'"
    """
    program, script, *words = shlex.split(command)
    if program == "asyncflax":
        return command
    return shlex.join(["python", "/".join(pathlib.Path(script).parts[-2:]), *words])


def this_machine() -> str:
    """Describes the CPU cores and the accelerator.

    The host name is left out, as in '2 CPU cores'.
    """
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f", {device.device_kind}"
    return f"{os.cpu_count()} CPU cores{accelerator}"


def cpu_minutes() -> float:
    """Returns the CPU minutes used by this process.

    Its threads and finished children are included.
    """
    return sum(os.times()[:4]) / 60


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper, our measurement, and the command that reproduces it.

    Attributes:
      name: a slug such as 'theorem-5', also the name of the file.
      statement: the claim in one sentence.
      source: the paper and its theorem or figure; claims are sorted by it.
      paper: the published number, as text; short tables truncate it at the first semicolon.
      ours: our number with its interval, as text; truncated likewise.
      value: our number.
      interval: the interval (low, high), which contains `value`.
      seeds: the number of independent runs, or of random cases of an exact identity.
      command: the command that reproduces the claim, 'python SCRIPT ...' or 'asyncflax ...'.
      verdict: one of `statistics.VERDICTS`.
      criterion: the `statistics.criterion_digest`, or '' if nothing was chosen, as for an exact identity.
      cpu_minutes: the CPU time of the command from scratch; 0 if not measured.
      confidence: the confidence level of the interval, in (0, 1]; 1 if it covers all cases.
      figure: the name of a PNG in the same folder, or ''.
      machine: the hardware of the measurement, without the host name.

    Example:
      >>> import tempfile
      >>> from asyncflax.lab.claims import Claim, collect, cpu_minutes, load_all, this_machine
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
      ...     cpu_minutes=cpu_minutes(),
      ...     machine=this_machine(),
      ... )
      >>> study, results = tempfile.mkdtemp(), tempfile.mkdtemp()
      >>> claim.save(study).name, collect(study, results) == load_all(results) == [claim]
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
            raise ValueError(f"figure must be the name of a PNG in the claim's folder, got {self.figure!r}.")
        if not isinstance(self.interval, tuple | list) or len(self.interval) != 2:
            raise ValueError(f"interval must be (low, high), got {self.interval!r}.")
        _check.choice("verdict", self.verdict, VERDICTS)
        if not re.fullmatch(r"[0-9a-f]*", self.criterion):
            raise ValueError(f"criterion must be a digest from criterion_digest or '', got {self.criterion!r}.")
        numbers = {
            "value": _check.scalar("value", self.value),
            "interval": tuple(_check.scalar("interval", end) for end in self.interval),
            "cpu_minutes": _check.scalar("cpu_minutes", self.cpu_minutes, low=0.0),
            "confidence": _check.scalar("confidence", self.confidence, low=0.0, high=1.0, exclusive_low=True),
            "seeds": _check.integer("seeds", self.seeds, 1),
        }
        for field, number in numbers.items():
            object.__setattr__(self, field, number)
        if not self.interval[0] <= self.value <= self.interval[1]:
            raise ValueError(f"interval must contain value={self.value}, got {self.interval}.")

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> pathlib.Path:
        """Writes `folder`/`name`.json atomically, and returns the path.

        Args:
          folder: the destination, created if missing.
          overwrite: whether to replace a different file of this name; otherwise raises FileExistsError.
        """
        path = pathlib.Path(folder) / f"{self.name}.json"
        content = (json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
        if path.exists() and path.read_bytes() == content:
            return path
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} holds a different result; pass overwrite=True to replace it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Claim:
        """Reads a file written by `save`.

        Raises:
          FileNotFoundError: the file does not exist.
          ValueError: a field is missing, unknown or invalid, or the file is not named after the claim.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"claim file {path} does not exist.")
        try:
            fields = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}.") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{path} must hold the fields of a claim, got {type(fields).__name__}.")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                raise ValueError(f"{path}: unknown field {name!r}{_check.nearest(name, names)}")
        missing = [name for name in names if name not in fields]
        if missing:
            raise ValueError(f"{path}: missing fields {', '.join(missing)}.")
        try:
            claim = cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        if claim.name != path.stem:
            raise ValueError(f"{path} holds the claim {claim.name!r}; rename the file to {claim.name}.json.")
        return claim


def load_all(folder: str | os.PathLike[str]) -> list[Claim]:
    """The claims in a folder, sorted by source, then by name.

    Args:
      folder: a folder with one JSON file per claim; it may be empty or missing.
    """
    claims = [Claim.load(path) for path in pathlib.Path(folder).glob("*.json")]
    return sorted(claims, key=place)


def collect(
    source: str | os.PathLike[str], results: str | os.PathLike[str] = "results", *, overwrite: bool = False
) -> list[Claim]:
    """Copies the claims of a study and their figures into `results`, all or none, and returns the claims.

    Args:
      source: WORKDIR/claims.
      results: the destination.
      overwrite: whether to replace files that differ.

    Raises:
      FileNotFoundError: `source` has no claims, or a figure is missing.
      FileExistsError: a different file of the same name exists.
      ValueError: a file is not a claim, or a figure is larger than 200 kB.
    """
    source, results = pathlib.Path(source), pathlib.Path(results)
    claims = load_all(source)
    if not claims:
        raise FileNotFoundError(f"no claims in {source}.")
    files = {f"{claim.name}.json": source / f"{claim.name}.json" for claim in claims}
    for claim in claims:
        check_figure(claim, source)
        if claim.figure:
            files[claim.figure] = source / claim.figure
    contents = {results / name: path.read_bytes() for name, path in files.items()}
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content and not overwrite:
            raise FileExistsError(f"{path} differs; pass overwrite=True to replace it.")
    results.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_atomically(path, lambda file, content=content: file.write(content))
    return claims


def check_figure(claim: Claim, folder: pathlib.Path) -> None:
    """Raises if a claim has a figure that is missing or too large."""
    figure = folder / claim.figure
    if claim.figure and not figure.is_file():
        raise FileNotFoundError(f"claim {claim.name}: figure {figure} does not exist.")
    if claim.figure and (size := figure.stat().st_size) > _LARGEST_FIGURE:
        raise ValueError(f"claim {claim.name}: {figure} has {size:,} bytes, over {_LARGEST_FIGURE:,}; lower its dpi.")


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
    """The sort key of a claim: its source, then its name."""
    return _natural(claim.source), claim.name


def _natural(text: str) -> list[Any]:
    """The sort key of a text, with 'Theorem 9' before 'Theorem 10'."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", text)]
