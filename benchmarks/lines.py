"""Counts lines of code, of docstrings and of comments, here and in an earlier commit.

    python benchmarks/lines.py             # this tree
    python benchmarks/lines.py HEAD~10     # that commit, this tree, and the difference

Everything under asyncflax/ counts as the library, so that moves within it change nothing; tests, configs and launchers
have their own rows. A line of code has a token on it, outside docstrings.
"""

from __future__ import annotations

import ast
import io
import pathlib
import subprocess
import sys
import tokenize
from collections import Counter

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS: tuple[str, ...] = ("asyncflax", "tests", "configs", "launch", "benchmarks", "examples")
KINDS: tuple[str, ...] = ("files", "code", "docstring", "comment")
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def count(source: str) -> Counter[str]:
    """The number of lines of each kind in a module."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        lines = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments |= {*lines}
        elif token.type not in _NO_CODE:
            code |= {*lines}
    code -= docstrings
    return Counter(files=1, code=len(code), docstring=len(docstrings), comment=len(comments - code - docstrings))


def tree(commit: str | None) -> dict[str, Counter[str]]:
    """The counts by folder, of a commit or of the working tree."""
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    if commit is None:
        names = git("ls-files", "--cached", "--others", "--exclude-standard", "*.py").splitlines()
        read = lambda name: (ROOT / name).read_text(encoding="utf-8")
        names = [name for name in names if (ROOT / name).is_file()]
    else:
        names = [name for name in git("ls-tree", "-r", "--name-only", commit).splitlines() if name.endswith(".py")]
        read = lambda name: git("show", f"{commit}:{name}")
    counts = {folder: Counter(dict.fromkeys(KINDS, 0)) for folder in FOLDERS}
    for name in names:
        folder = name.partition("/")[0]
        if folder in counts:
            counts[folder].update(count(read(name)))
    return counts


def table(rows: dict[str, dict[str, Counter[str]]]) -> str:
    """The counts, one line per tree and folder."""
    lines = [f"{'':24s}" + "".join(f"{kind:>12s}" for kind in KINDS)]
    for title, counts in rows.items():
        lines += [
            f"{title} {folder:{23 - len(title)}s}" + "".join(f"{n[kind]:12,d}" for kind in KINDS)
            for folder, n in counts.items()
        ]
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    now = tree(None)
    if len(sys.argv) == 1:
        print(table({"now": now}))
        return
    before = tree(sys.argv[1])
    changed = {
        folder: Counter({kind: now[folder][kind] - before[folder][kind] for kind in KINDS}) for folder in FOLDERS
    }
    print(table({"before": before, "now": now, "change": changed}))


if __name__ == "__main__":
    main()
