"""Tables of claims in documents, rendered from results/ and checked against it.

A table is enclosed by two comments:

    <!-- claims -->                       every claim, by paper, with its command and its figure: docs/claims.md
    <!-- /claims -->

    <!-- claims: theorem-5, figure-2 -->  these claims, in this order, in three columns: README.md
    <!-- /claims -->

`claims` is a list of `Claim`, `folder` the folder of their files relative to the document, and `results` its path.
Example:

    >>> import pathlib, tempfile
    >>> from asyncflax.lab.documents import faults, markdown_page, markdown_table, write_tables
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (root / "README.md").write_text("<!-- claims -->\\n<!-- /claims -->\\n")
    >>> len(faults([root / "README.md"], root / "results"))
    1
    >>> write_tables([root / "README.md"], root / "results")
    >>> markdown_page([]) in (root / "README.md").read_text()
    True
    >>> print(markdown_table([]))
    | claim | paper | ours (95 % interval) |
    |---|---|---|
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from asyncflax import _check
from asyncflax._files import write_atomically
from asyncflax.lab.claims import Claim, check_figure, files_of, load_all, place
from asyncflax.lab.statistics import VERDICTS

__all__ = ["DOCUMENTS", "faults", "markdown_page", "markdown_table", "write_tables"]

DOCUMENTS = ("README.md", "docs/claims.md")  # which have tables of claims
_MARKED = re.compile(r"(?<=^<!-- claims)(?:: *([^>\n]*?))? -->\n(.*?)(?=^<!-- /claims -->)", re.DOTALL | re.MULTILINE)


def markdown_table(claims: Sequence[Claim], folder: str = "results") -> str:
    """Renders a short table whose verdicts link to the figure, or to the claim's file if it has none.

    It keeps the order of the claims, truncates numbers at the first semicolon and drops arXiv identifiers.
    """
    _check_claims(claims, folder)
    rows = []
    for claim in claims:
        verdict = f"[{claim.verdict}]({folder}/{claim.figure or f'{claim.name}.json'})"
        source = re.sub(r" \(arXiv:[\d.]+\)", "", claim.source)
        paper, ours = (text.partition(";")[0] for text in (claim.paper, claim.ours))
        rows.append([f"{claim.statement} {source}.", paper, f"{verdict}: {ours}{_of_all(claim)}"])
    return _table(["claim", "paper", "ours (95 % interval)"], rows)


def markdown_page(claims: Sequence[Claim], folder: str = "results") -> str:
    """Renders the counts of verdicts, then tables, commands and figures by paper, oldest first.

    It keeps the order of each paper's claims.
    """
    _check_claims(claims, folder)
    verdicts = [claim.verdict for claim in claims]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    parts = [f"{len(claims)} claims: {counts}."]
    papers = {claim.name: _paper(claim.source) for claim in claims}
    for paper in sorted({*papers.values()}, key=lambda paper: (paper[-4:], paper)):
        of_paper = [claim for claim in claims if papers[claim.name] == paper]
        numbers = re.findall(r"arXiv:([\d.]+\d)", " ".join(claim.source for claim in of_paper))
        link = f" ([arXiv:{numbers[0]}](https://arxiv.org/abs/{numbers[0]}))" if numbers else ""
        parts.append(f"## {paper}{link}")
        for figure in dict.fromkeys(claim.figure for claim in of_paper):
            alike = [claim for claim in of_paper if claim.figure == figure]
            parts.append(_full_table(alike, paper, folder))
            parts.append("\n".join(["```sh", *dict.fromkeys(claim.command for claim in alike), "```"]))
            if figure:
                parts.append(f"![{', '.join(claim.name for claim in alike)}]({folder}/{figure})")
    return "\n\n".join(parts)


def write_tables(
    documents: Iterable[str | os.PathLike[str]] = DOCUMENTS, results: str | os.PathLike[str] = "results"
) -> None:
    """Writes the tables between the comments of documents.

    Args:
      documents: the paths of documents with comments as above, each on its own line.
      results: the folder of the claims.

    Raises:
      ValueError: a document has no such comments or names an unknown claim, or a file is not a claim.
    """
    claims = load_all(results)
    texts = {pathlib.Path(path): _with_tables(pathlib.Path(path), claims, pathlib.Path(results)) for path in documents}
    for path, text in texts.items():
        if text != path.read_text():
            write_atomically(path, lambda file, text=text: file.write(text.encode()))


def faults(
    documents: Iterable[str | os.PathLike[str]] = DOCUMENTS, results: str | os.PathLike[str] = "results"
) -> list[str]:
    """Lists the faults of claims and their tables, one sentence each: invalid, incomplete or out of date.

    Args:
      documents: as in `write_tables`.
      results: the folder of the claims, in the root of the repository.
    """
    results = pathlib.Path(results)
    found, claims = [], []
    for file in sorted(results.glob("*.json")):
        try:
            claims.append(Claim.load(file))
            check_figure(claims[-1], results)
        except (FileNotFoundError, ValueError) as error:
            found.append(str(error))
    for claim in claims:
        for name in files_of(claim.command):
            if not (results.parent / name).is_file():
                found.append(f"claim {claim.name}: its command names {name}, which does not exist.")
        if re.search(r"(^|[\s=])[/~]", claim.command):
            found.append(f"claim {claim.name}: its command contains a machine-specific path: {claim.command!r}.")
    claims.sort(key=place)
    for path in map(pathlib.Path, documents):
        try:
            text = _with_tables(path, claims, results)
        except ValueError as error:
            found.append(str(error))
            continue
        for _, table in _MARKED.findall(path.read_text()):
            for link in re.findall(rf"\]\(((?:\.\./)*{re.escape(results.name)}/[^)]+)\)", table):
                if not (path.parent / link).is_file():
                    found.append(f"{path.name} links to {link}, which does not exist.")
        if text != path.read_text():
            found.append(f"a table in {path.name} does not match {results.name}/; run: python launch/claims.py")
    return found


def _with_tables(path: pathlib.Path, claims: Sequence[Claim], results: pathlib.Path) -> str:
    """The text of a document with its tables up to date."""
    folder = pathlib.PurePath(os.path.relpath(results, path.parent)).as_posix()
    by_name = {claim.name: claim for claim in claims}

    def written(match: re.Match[str]) -> str:
        if match[1] is None:
            return f" -->\n\n{markdown_page(claims, folder)}\n\n"
        names = [name.strip() for name in match[1].split(",")]
        for name in names:
            if name not in by_name:
                raise ValueError(f"{path.name}: unknown claim {name!r}{_check.nearest(name, list(by_name))}")
        return f": {', '.join(names)} -->\n{markdown_table([by_name[name] for name in names], folder)}\n"

    text, count = _MARKED.subn(written, path.read_text() if path.is_file() else "")
    if not count:
        raise ValueError(f"{path} must contain a line <!-- claims --> and, below it, a line <!-- /claims -->.")
    return text


def _full_table(claims: Sequence[Claim], paper: str, folder: str) -> str:
    """The claims of a paper in all columns."""
    rows = []
    for claim in claims:
        where = re.sub(rf"^{re.escape(paper)}( \(arXiv:[\d.]+\))?(, |$)", "", claim.source)
        minutes = f"{claim.cpu_minutes:.{2 if claim.cpu_minutes < 1 else 1}f}" if claim.cpu_minutes else "-"
        ours = f"[{claim.ours}]({folder}/{claim.name}.json){_of_all(claim)}"
        about = [claim.paper, ours, claim.verdict, f"{claim.seeds:,}", minutes]
        rows.append([f"{claim.statement}{f' {where[0].upper()}{where[1:]}.' if where else ''}", *about])
    return _table(["claim", "paper", "ours (95 % interval)", "verdict", "seeds", "CPU minutes"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _of_all(claim: Claim) -> str:
    """The confidence level of an interval, unless it is 95 %."""
    return {0.95: "", 1.0: ", all cases"}.get(claim.confidence, f", {100 * claim.confidence:g} %")


def _paper(source: str) -> str:
    """Authors and year of a source, as in 'Hadjis et al. 2016'; the whole source if it has none."""
    name = r"[A-Z][\w'-]+"
    found = re.search(rf"{name}(, {name})*( and {name}| et al\.)? \d{{4}}", source)
    return found[0] if found else source


def _check_claims(claims: Any, folder: Any) -> None:
    _check.instance("folder", folder, str, "a string")
    if not isinstance(claims, Sequence) or not all(isinstance(claim, Claim) for claim in claims):
        raise TypeError(f"claims must be a list of Claim, got {_check.shown(claims)}.")
