"""How much the suite catches: faults are planted one at a time, and the tests that cover them have to fail.

    python tests/mutants.py cover FOLDER                 # once for each suite: which test runs which line
    python tests/mutants.py plant FOLDER                 # one fault after the other; the same command goes on
    python tests/mutants.py report FOLDER [FOLDER ...]   # what died, after how much CPU; what survived

A fault is one of `BY_HAND`, or one that a seeded mutator makes in the syntax tree of one of `MODULES`: another
comparison, another operator, a constant off by one, a condition turned round. Tests are chosen by coverage: first
some that ran the line, those of the same wing and the quickest in front, then all of their files. Each fault lives in
a copy of the tree of its own; programs that it does not change are compiled once for all of them.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SELECTION = ["-m", "not slow", "-p", "no:cacheprovider", "-q"]
HANGS = ["-o", "faulthandler_timeout=240", "-o", "faulthandler_exit_on_timeout=true"]  # a test that does not end fails
MODULES = (
    "gradients",
    "history",
    "queues",
    "staleness",
    "local",
    "engine/execute",
    "engine/host_store",
    "engine/placement",
    "engine/plan",
    "engine/step",
    "live/packed",
    "live/server",
    "live/threads",
    "algorithms/asgd",
    "algorithms/closed_loop",
    "algorithms/dana",
    "algorithms/dc_asgd",
    "algorithms/delayed_nesterov",
    "algorithms/gap_aware",
    "algorithms/lwp",
    "algorithms/momentum",
    "algorithms/ormo",
    "algorithms/shifted_momentum",
    "algorithms/smega2",
    "algorithms/yellowfin",
    "transforms/_draws",
    "transforms/compensation",
    "transforms/delay",
    "transforms/momentum",
    "transforms/scaling",
    "transforms/versions",
    "transforms/weight_decay",
    "transforms/wrappers",
    "theory/estimate",
    "theory/mean",
    "theory/mean_square",
    "theory/meter",
    "theory/momentum",
    "theory/best",
    "data/order",
    "data/pipeline",
    "train/checkpoint",
    "train/feeds",
    "train/workdir",
    "lab/sweep/cells",
    "lab/sweep/program",
    "lab/sweep/results",
    "lab/sweep/run",
    "lab/compare/grid",
    "lab/compare/orders",
    "lab/compare/summary",
)
LIMITS = (100, 200)  # seconds of CPU for some of the tests that ran a line, and then for all their files


class Fault(NamedTuple):
    """A change of one file.

    Attributes:
      name: tells it from the others.
      path: of the file, from the root.
      line: where it begins, from 1.
      column: and where in the line, from 0.
      old: the text that is replaced; it must be in the file, for those by hand exactly once.
      new: what takes its place.
    """

    name: str
    path: str
    line: int
    column: int
    old: str
    new: str


COMPARISONS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
OPERATORS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "//"}


def mutations(node: ast.AST, source: str) -> Iterator[str]:
    """What may stand in place of a node."""
    text = lambda part: ast.get_source_segment(source, part)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield f"(({text(node.left)}) {COMPARISONS[type(node.ops[0])]} ({text(node.comparators[0])}))"
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield f"(({text(node.left)}) {OPERATORS[type(node.op)]} ({text(node.right)}))"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"({node.value} + 1)"
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield str(not node.value)
    elif isinstance(node, ast.IfExp):
        yield f"(({text(node.orelse)}) if {text(node.test)} else ({text(node.body)}))"
    elif isinstance(node, ast.BoolOp):
        word = " or " if isinstance(node.op, ast.And) else " and "
        yield f"({word.join(f'({text(value)})' for value in node.values)})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"({text(node.operand)})"


def inside_functions(tree: ast.Module) -> Iterator[ast.expr]:
    """Expressions that run when something is called: no annotation, default, docstring or message."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        waiting: list[ast.AST] = list(function.body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.Raise | ast.JoinedStr | ast.arguments | ast.AnnAssign):
                continue
            if isinstance(node, ast.expr):
                yield node
            waiting += ast.iter_child_nodes(node)


def at_random(count: int, seed: int) -> list[Fault]:
    """Faults from the mutator, no two in one line, spread over the modules."""
    rng, found = random.Random(seed), {}
    for module in MODULES:
        path = f"asyncflax/{module}.py"
        source = (ROOT / path).read_text()
        for node in inside_functions(ast.parse(source)):
            old = ast.get_source_segment(source, node)
            for new in mutations(node, source):
                if old and "\n" not in old:
                    found.setdefault((path, node.lineno), []).append(
                        Fault("", path, node.lineno, node.col_offset, old, new)
                    )
    by_path: dict[str, list[list[Fault]]] = {}
    for (path, _), faults in sorted(found.items()):
        by_path.setdefault(path, []).append(faults)
    chosen: list[Fault] = []
    paths = sorted(by_path)
    while len(chosen) < count:
        rng.shuffle(paths)
        for path in paths[: count - len(chosen)]:
            faults = by_path[path].pop(rng.randrange(len(by_path[path])))
            chosen.append(rng.choice(faults)._replace(name=f"random-{len(chosen)}"))
    return chosen


def by_hand(rows: Iterable[tuple[str, str, str, str]]) -> list[Fault]:
    """Those of `BY_HAND`, or others like them, found in the files."""
    faults = []
    for name, path, old, new in rows:
        source = (ROOT / path).read_text()
        if source.count(old) != 1:
            raise SystemExit(f"{name}: {path} has {source.count(old)} times {old!r}, it must be there once")
        before = source[: source.index(old)]
        faults.append(Fault(name, path, before.count("\n") + 1, len(before.rpartition("\n")[2]), old, new))
    return faults


def planted(fault: Fault, source: str) -> str:
    """The source with the fault in it."""
    at = len("".join(source.splitlines(keepends=True)[: fault.line - 1])) + fault.column
    assert source[at:].startswith(fault.old), fault
    return source[:at] + fault.new + source[at + len(fault.old) :]


def environment(tree: pathlib.Path, folder: pathlib.Path) -> dict[str, str]:
    kept = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, **kept, "PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}


def cover(folder: pathlib.Path) -> None:
    """Runs the suite once, and keeps which test ran which line and for how long."""
    import coverage

    folder.mkdir(parents=True, exist_ok=True)
    data, durations = folder / "coverage", folder / "durations.txt"
    options = ["--cov=asyncflax", "--cov-context=test", "--cov-report=", "--durations=0", "--durations-min=0.0", "-vv"]
    with durations.open("w") as output:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "2", *SELECTION[:-1], *options, "tests"],
            cwd=ROOT,
            env={**environment(ROOT, folder), "COVERAGE_FILE": str(data), "COVERAGE_CORE": "ctrace"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    read, lines = coverage.CoverageData(basename=str(data)), {}
    read.read()
    tests = lambda contexts: sorted({c.partition("|")[0] for c in contexts} - {""})
    for path in sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("asyncflax/**/*.py")):
        by_line = read.contexts_by_lineno(str(ROOT / path))
        lines[path] = {line: tests(contexts) for line, contexts in by_line.items()}
    (folder / "lines.json").write_text(json.dumps(lines))


def seconds_of_tests(folder: pathlib.Path) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for line in (folder / "durations.txt").read_text().splitlines():
        words = line.split(maxsplit=2)
        if len(words) == 3 and words[0].endswith("s") and words[1] in ("call", "setup", "teardown"):
            seconds[words[2]] = seconds.get(words[2], 0.0) + float(words[0][:-1])
    return seconds


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dies(tree: pathlib.Path, folder: pathlib.Path, tests: list[str], limit: int) -> tuple[bool, str]:
    """Whether a test fails, or does not come to its end; and which."""
    if not tests:
        return False, ""
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", *SELECTION, *HANGS, "--no-header", "-rf", *tests]
    cpu = lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    streams = {"capture_output": True, "text": True, "timeout": 5 * limit}
    try:
        done = subprocess.run(command, cwd=tree, env=environment(tree, folder), preexec_fn=cpu, **streams)
    except subprocess.TimeoutExpired:
        return False, "out of time"
    if done.returncode == -signal.SIGXCPU:
        return False, "out of time"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    failed += ["a test does not end"] if "Timeout (" in done.stderr else []
    passed = done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return not passed, (failed or [f"exit status {done.returncode}"])[0][:200]


def plant(folder: pathlib.Path, faults: list[Fault], part: int, parts: int) -> None:
    """Plants what has not been planted yet; `part` of `parts` at the same time."""
    lines = json.loads((folder / "lines.json").read_text())
    seconds = seconds_of_tests(folder)
    done = {
        json.loads(line)["name"] for path in folder.glob("faults-*.jsonl") for line in path.read_text().splitlines()
    }
    tree = folder / f"tree-{part}"
    shutil.rmtree(tree, ignore_errors=True)
    ignore = shutil.ignore_patterns(".git", ".venv*", "*.pyc", "__pycache__", ".pytest_cache", "build", "dist", "runs")
    shutil.copytree(ROOT, tree, ignore=ignore)
    if (found := dies(tree, folder, ["tests/test_public.py"], LIMITS[0]))[0]:
        raise SystemExit(f"tests fail without a fault: {found[1]}")
    for fault in faults[part::parts]:
        if fault.name in done:
            continue
        source = (ROOT / fault.path).read_text()
        (tree / fault.path).write_text(planted(fault, source))
        end = fault.line + fault.old.count("\n")
        ran = {test for line in range(fault.line, end + 1) for test in lines.get(fault.path, {}).get(str(line), ())}
        wing = "/".join(["tests", *pathlib.PurePath(fault.path).parts[1:-1]])
        abroad = lambda test, wing=wing: str(pathlib.PurePath(test.partition("::")[0]).parent) != wing
        tests = sorted(ran, key=lambda test: (abroad(test), seconds.get(test, 1.0)))
        began, stage = cpu_of_children(), "tests that ran it"
        killed, by = dies(tree, folder, tests[:40], LIMITS[0])
        if not killed and tests:
            stage = "their files"
            files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
            killed, by = dies(tree, folder, files, LIMITS[1])
        (tree / fault.path).write_text(source)
        row = {**fault._asdict(), "killed": killed, "by": by, "stage": stage, "tests": len(tests)}
        row["seconds"] = round(cpu_of_children() - began, 1)
        with (folder / f"faults-{part}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{'killed  ' if killed else 'SURVIVES'} {row['seconds']:6.1f} s  {fault.name}: {fault.path}:{fault.line}"
        )
    shutil.rmtree(tree)


def report(folders: list[pathlib.Path]) -> None:
    """Prints what each suite kills, and what survives."""
    for folder in folders:
        rows = [json.loads(line) for path in sorted(folder.glob("faults-*.jsonl")) for line in path.open()]
        killed = sorted(row["seconds"] for row in rows if row["killed"])
        median = killed[len(killed) // 2] if killed else float("nan")
        print(f"{folder}: {len(killed)} of {len(rows)} killed, median {median:.1f} s of CPU")
        for row in rows:
            if not row["killed"]:
                old, new = row["old"].replace("\n", " "), row["new"].replace("\n", " ")
                print(f"  survives: {row['name']} {row['path']}:{row['line']}  {old}  ->  {new}  ({row['by']})")


BY_HAND = [
    (
        "a-gradient-counts-twice",
        "asyncflax/live/server.py",
        "if job is None or job.lease != lease:",
        "if job is None:",
    ),
    (
        "the-ticket-of-a-lost-worker-is-lost",
        "asyncflax/live/server.py",
        "            heapq.heappush(self._returned, job.ticket)",
        "            pass",
    ),
    (
        "a-live-worker-computes-with-the-key-of-the-version",
        "asyncflax/live/threads.py",
        "batch, np.int32(job.ticket), np.int32(worker))",
        "batch, np.int32(job.version), np.int32(worker))",
    ),
    (
        "staleness-off-by-one",
        "asyncflax/engine/step.py",
        '"staleness": chunk.staleness[i], ',
        '"staleness": chunk.staleness[i] + 1, ',
    ),
    (
        "the-newest-parameters-for-those-read",
        "asyncflax/engine/step.py",
        '"read_params": read_params}',
        '"read_params": server.params}',
    ),
    (
        "a-key-folded-with-the-place-in-the-chunk",
        "asyncflax/engine/step.py",
        "lane = (batch, jnp.asarray(self.chunk.ticket)[events],",
        "lane = (batch, events,",
    ),
    (
        "the-view-before-the-update",
        "asyncflax/engine/step.py",
        "self.algorithm.view(params, algorithm_state, worker=reader)",
        "self.algorithm.view(params, server.algorithm, worker=reader)",
    ),
    (
        "the-view-of-the-worker-who-delivers",
        "asyncflax/engine/step.py",
        "reader = chunk.reader[i] if chunk.exclusive else None",
        "reader = chunk.worker[i] if chunk.exclusive else None",
    ),
    (
        "a-slot-freed-too-early",
        "asyncflax/engine/plan.py",
        "np.arange(1, num_events + 2) - freed_before",
        "np.arange(1, num_events + 2) - freed_before - 1",
    ),
    (
        "a-slot-of-the-next-version",
        "asyncflax/engine/plan.py",
        "write_slot=by_event(slot[1:])",
        "write_slot=by_event(slot[:-1])",
    ),
    (
        "rounds-that-need-each-other",
        "asyncflax/engine/plan.py",
        "t = min(ends[t], t + width, end)",
        "t = min(ends[t] + 1, t + width, end)",
    ),
    (
        "the-server-keeps-old-statistics",
        "asyncflax/engine/step.py",
        "        return ServerState(params, algorithm_state, model_state, store, out)\n\n    def kept",
        "        return ServerState(params, algorithm_state, server.model_state, store, out)\n\n    def kept",
    ),
    (
        "the-event-counter-stands-still",
        "asyncflax/engine/execute.py",
        "event = state.event + chunk.num_events\n    return RunState",
        "event = state.event\n    return RunState",
    ),
    (
        "another-workers-row",
        "asyncflax/transforms/wrappers.py",
        "PerWorkerState(put_row(state.workers, worker, own))",
        "PerWorkerState(put_row(state.workers, 0 * worker, own))",
    ),
    (
        "the-sum-of-velocities-drifts",
        "asyncflax/transforms/momentum.py",
        "lambda s, a, b: s + (a - b)",
        "lambda s, a, b: s + a",
    ),
    (
        "momentum-outside-for-inside",
        "asyncflax/algorithms/parts.py",
        'if form == "inside" else reversed(blocks)',
        'if form != "inside" else reversed(blocks)',
    ),
    (
        "compensation-with-the-wrong-sign",
        "asyncflax/transforms/compensation.py",
        "scale * c * (wide(now) - read)",
        "scale * c * (wide(read) - now)",
    ),
    (
        "decay-at-the-server-for-decay-at-read",
        "asyncflax/transforms/weight_decay.py",
        '_check.choice("at", at, ("read", "server"))',
        '_check.choice("at", at, ("read", "server"))\n    at = "server"',
    ),
    ("ordered-momentum-one-bucket-late", "asyncflax/algorithms/ormo.py", "-(-version // k)", "version // k"),
    (
        "a-batch-of-another-event",
        "asyncflax/data/order.py",
        "events[:, None] * batch_size + np.arange",
        "(events[:, None] + (events[:, None] > 0)) * batch_size + np.arange",
    ),
    (
        "the-same-order-in-every-epoch",
        "asyncflax/data/order.py",
        "np.random.default_rng([seed, epoch])",
        "np.random.default_rng([seed, 0])",
    ),
    (
        "a-stale-state-is-saved",
        "asyncflax/train/checkpoint.py",
        'final, partial = self.folder / str(update), self.folder / f"{update}{_PARTIAL}"',
        'final, partial = self.folder / str(update), self.folder / f"{update}{_PARTIAL}"\n'
        '        state = self.__dict__.setdefault("first", jax.tree.map(lambda x: x.copy(), state))',
    ),
    (
        "half-a-file-is-accepted",
        "asyncflax/train/checkpoint.py",
        "            fault = _fault(path, self.run)\n",
        "            fault = None\n",
    ),
    (
        "another-config-goes-on",
        "asyncflax/train/workdir.py",
        "        if changed:\n",
        "        if len(changed) > 1:\n",
    ),
    (
        "a-restart-keeps-its-old-version",
        "asyncflax/queues.py",
        "        read[i] = version\n        job[i] += 1",
        "        read[i] = max(read[i], version - 1)\n        job[i] += 1",
    ),
]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("cover", "plant", "report"))
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=38, help="how many faults the mutator makes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=pathlib.Path, help="JSON with your own: name, path, old, new")
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2 share the work between two processes")
    args = parser.parse_args()
    folder = args.folders[0].absolute()
    if args.action == "cover":
        cover(folder)
    elif args.action == "plant":
        part, parts = map(int, args.part.split("/"))
        own = json.loads(args.faults.read_text()) if args.faults else None
        rows = BY_HAND if own is None else [(row["name"], row["path"], row["old"], row["new"]) for row in own]
        plant(folder, by_hand(rows) + (at_random(args.count, args.seed) if own is None else []), part, parts)
    else:
        report(args.folders)


if __name__ == "__main__":
    main()
