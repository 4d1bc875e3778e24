"""Modules and CPU time of `import asyncflax`, and the modules to read before changing the engine.

    python benchmarks/imports.py [--starts 11]

The cost is the CPU time of the import alone, in fresh processes that have already imported jax, optax and numpy. The
modules to read are those of this package that `engine/execute.py` imports, directly or not.
"""

from __future__ import annotations

import argparse
import ast
import pathlib
import statistics
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parents[1] / "asyncflax"
IMPORT = """
import sys, time
import jax, jax.numpy, numpy, optax
before = time.process_time()
import asyncflax
spent = time.process_time() - before
print(spent, sum(name.split(".")[0] == "asyncflax" for name in sys.modules))
"""


def measure(starts: int) -> tuple[float, int]:
    """The median CPU seconds, and the number of modules loaded."""
    seconds, modules = [], 0
    for _ in range(starts):
        command = [sys.executable, "-W", "ignore", "-c", IMPORT]
        spent, count = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds.append(float(spent))
        modules = int(count)
    return statistics.median(seconds), modules


def file_of(name: str) -> pathlib.Path:
    """The file of a module, named without the package in front."""
    path = PACKAGE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(name: str) -> set[str]:
    """The modules of this package that one imports at its top."""
    found = set()
    for node in ast.parse(file_of(name).read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "asyncflax":
            base = (node.module or "").removeprefix("asyncflax").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if file_of(inner).exists() else base)
    return found - {""}


def to_read(start: str) -> set[str]:
    """A module and all that it imports, directly or not."""
    seen, waiting = set(), {start}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= imported(name) - seen
    return seen


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=11)
    seconds, modules = measure(parser.parse_args().starts)
    print(f"import asyncflax: {modules} modules, {seconds:.3f} s of CPU over jax, optax and numpy")
    names = to_read("engine.execute")
    lines = sum(len(file_of(name).read_text().splitlines()) for name in names)
    print(f"to change the engine: {len(names)} modules, {lines:,} lines ({', '.join(sorted(names))})")


if __name__ == "__main__":
    main()
