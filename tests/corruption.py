"""Spoils every kind of file that is read again, and counts what becomes of it.

    python tests/corruption.py --flips 200

A file is truncated, emptied, removed, replaced by that of a sibling (another run, another part of the same run), and
single bits of it are flipped: a third of them in its first tenth, where headers are, a third behind, a third anywhere.
It is read by its reader in this process, and by whole commands. The outcome is one of

    undisturbed   the results are those of the files as they were written, bit by bit
    corrected     so they are, and a note says what was set aside, lost or computed again
    clear         one line that says where the file is; exit status 1
    wrong         other results, an error of another kind, or several lines

and none may be wrong. In this process, lost results are not computed again: what is found must be as it was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import killing
import launching
import numpy as np

from asyncflax.errors import RunError

Results = dict[str, Any]
OUTCOMES = ("undisturbed", "corrected", "clear", "wrong")
REFUSED = (TypeError, ValueError, OSError, RunError)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      name: for people.
      whole: a folder that is as it was written.
      files: paths in it of the files of this kind; one may be a folder.
      siblings: folders whose files of this kind are not to be taken for these.
      read: (folder) -> results by name.
      known: the results that may be found; without a note all of `expected`.
      expected: the results of `whole`.
    """

    name: str
    whole: pathlib.Path
    files: Sequence[str]
    siblings: Sequence[pathlib.Path]
    read: Callable[[pathlib.Path], Results]
    known: Results
    expected: Results


class Spoiled(NamedTuple):
    """What is done to a file, to which one, and what lies there then: bytes, a copy of a folder, or nothing."""

    what: str
    file: str
    content: bytes | pathlib.Path | None

    def apply(self, folder: pathlib.Path) -> None:
        """Spoils the file in a copy of the folder."""
        path = folder / self.file
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if isinstance(self.content, pathlib.Path):
            shutil.copytree(self.content, path)
        elif self.content is not None:
            path.write_bytes(self.content)


def spoil(kind: Kind, flips: int, rng: random.Random) -> Iterator[Spoiled]:
    """All that is done to a kind of file."""
    for file in kind.files:
        path = kind.whole / file
        yield Spoiled("removed", file, None)
        if path.is_file():
            content = path.read_bytes()
            yield Spoiled("truncated", file, content[: len(content) // 2])
            yield Spoiled("emptied", file, b"")
        for sibling in kind.siblings:
            twin = twin_of(sibling / file)
            yield Spoiled("replaced", file, twin if twin.is_dir() else twin.read_bytes())
    large = [file for file in kind.files if (kind.whole / file).is_file() and (kind.whole / file).stat().st_size]
    for i in range(flips if large else 0):
        file = rng.choice(large)
        yield Spoiled("flipped", file, flipped((kind.whole / file).read_bytes(), i % 3, rng))


def twin_of(path: pathlib.Path) -> pathlib.Path:
    """The file itself, or the one beside which it would lie: Orbax names files at random."""
    return path if path.exists() else next(iter(path.parent.iterdir()))


def flipped(content: bytes, part: int, rng: random.Random) -> bytes:
    """With one bit flipped: in part 0 in the first tenth, in part 1 behind it, in part 2 anywhere."""
    tenth = max(len(content) // 10, 1)
    low, high = ((0, tenth), (min(tenth, len(content) - 1), len(content)), (0, len(content)))[part]
    changed = bytearray(content)
    changed[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def judge(kind: Kind, done: Spoiled, folder: pathlib.Path, said: str, found: Results | str) -> str:
    """The outcome of reading; `found` is the message of an error, or the results."""
    if isinstance(found, str):
        if found.count("\n") or str(folder) not in found:
            return f"wrong: {found}"
        return "clear"
    noted, lost = "note: " in said, sorted(kind.expected.keys() - found.keys())
    different = [name for name in found if name not in kind.known or not same(found[name], kind.known[name])]
    if different or (lost and not noted and done.what != "removed"):  # a part that is not there is not finished yet
        return f"wrong: {different or lost} without an error"
    return "corrected" if noted or lost else "undisturbed"


def same(left: Any, right: Any) -> bool:
    """Whether two results are bitwise the same."""
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    return left == right


class Table:
    """Outcomes by kind, and what was wrong."""

    def __init__(self):
        self.counts: dict[str, collections.Counter[str]] = {}
        self.faults: list[str] = []

    def add(self, kind: Kind, done: Spoiled, outcome: str) -> None:
        """Counts an outcome."""
        self.counts.setdefault(kind.name, collections.Counter())[outcome.partition(":")[0]] += 1
        if outcome.startswith("wrong"):
            self.faults.append(f"{kind.name}, {done.file} {done.what}: {outcome}")

    def __str__(self) -> str:
        rows = [("kind", "tried", *OUTCOMES)]
        total = sum(self.counts.values(), collections.Counter())
        for name, count in (*self.counts.items(), ("in all", total)):
            rows.append((name, str(count.total()), *(str(count[outcome]) for outcome in OUTCOMES)))
        return "\n".join(f"| {' | '.join(row)} |" for row in (*rows[:1], ("---",) * 6, *rows[1:]))


def read_in_process(kinds: Sequence[Kind], flips: int, rng: random.Random) -> Table:
    """Spoils and reads, each time in a fresh copy of the folder."""
    table = Table()
    with tempfile.TemporaryDirectory() as scratch:
        for kind in kinds:
            for done in spoil(kind, flips, rng):
                folder, found = pathlib.Path(scratch, "copy"), None
                shutil.copytree(kind.whole, folder)
                done.apply(folder)
                said = io.StringIO()
                try:
                    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                        found = kind.read(folder)
                except REFUSED as error:
                    found = str(error)
                except Exception as error:
                    found = f"a {type(error).__name__}\n{error}"
                table.add(kind, done, judge(kind, done, folder, said.getvalue(), found))
                shutil.rmtree(folder)
    return table


# --- Readers, and small folders for them ------------------------------------------------------------------------------


def kinds_in_process(folder: pathlib.Path) -> list[Kind]:
    """All kinds of files, in new folders below `folder`."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return [kind for make in (of_run, of_cells, of_study, of_caches) for kind in make(folder / make.__name__)]


def _kind(name: str, whole: pathlib.Path, files: Sequence[str], siblings: Sequence[pathlib.Path], read: Any) -> Kind:
    expected = read(whole)
    return Kind(name, whole, files, siblings, read, expected, expected)


def of_run(folder: pathlib.Path) -> list[Kind]:
    """The files of a training: a state of random numbers, after 20 and 40 updates of a trace that was given."""
    import jax
    import jax.numpy as jnp

    import asyncflax
    from asyncflax.train.checkpoint import Checkpoints, load_model
    from asyncflax.train.config import TrainConfig
    from asyncflax.train.records import Records
    from asyncflax.train.workdir import Workdir

    config = TrainConfig(num_updates=40, num_workers=3)
    algorithm = asyncflax.algorithms.multi_asgd(0.1, 0.5, num_workers=3)

    def state(seed: int, update: int, trace: asyncflax.Trace) -> Any:
        draw = np.random.default_rng([seed, update]).normal
        begin = {"params": {"w": draw(size=(4, 3)), "b": draw(size=3)}, "model_state": {"mean": draw(size=2)}}
        begin = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), begin)
        plan = asyncflax.make_plan(trace)
        return asyncflax.init_run(algorithm, plan=plan, key=jax.random.key(seed), **begin)._replace(event=update)

    def begin(path: pathlib.Path) -> tuple[Workdir, asyncflax.Trace]:
        given = path / "given.npz"
        trace = asyncflax.Trace.load(given)
        workdir = Workdir(path / "run", config)
        with workdir.owned():
            workdir.begin(trace, inputs={"trace": hashlib.sha256(given.read_bytes()).hexdigest()})
        return workdir, trace

    def write(path: pathlib.Path, seed: int) -> None:
        path.mkdir(parents=True)
        law = asyncflax.queues.exponential()
        asyncflax.queues.simulate(num_workers=3, num_updates=40, service_time=law, seed=seed).save(path / "given.npz")
        workdir, trace = begin(path)
        checkpoints = Checkpoints(workdir.path / "checkpoints", run=workdir.began["sha256"])
        with Records(workdir.path) as records:
            for update in (20, 40):
                records.write({"update": update, "test_loss": seed + 1 / update})
                extra = {"versions": np.arange(update) + seed, "kept": np.full(4, seed, np.float32)}
                about = {"config": dataclasses.asdict(config), "metrics": records.rows[-1], "extra": extra}
                checkpoints.save(update, state(seed, update, trace), rows=records.rows, **about)

    def read(path: pathlib.Path) -> Results:
        workdir, trace = begin(path)
        checkpoints = Checkpoints(workdir.path / "checkpoints", run=workdir.began["sha256"])
        found = checkpoints.latest(like=state(9, 0, trace))
        if found is None:
            raise RuntimeError("the run would begin anew")
        with Records(workdir.path, rows=found.rows):
            pass
        for change in workdir.changes():
            print(f"note: {change}")
        arrays = {"key": jax.random.key_data(found.state.key), **found.extra}
        leaves = jax.tree_util.tree_leaves_with_path(found.state._replace(key=None))
        arrays |= {jax.tree_util.keystr(name): x for name, x in leaves}
        results = {name: np.asarray(x) for name, x in arrays.items()}
        results |= {"config": found.config, "metrics": found.metrics, "rows": found.rows}
        results["metrics.jsonl"] = (workdir.path / "metrics.jsonl").read_text()
        results |= {"worker": trace.worker, "read_version": trace.read_version}
        again = asyncflax.Trace.load(workdir.path / "trace.npz")
        results |= {"worker again": again.worker, "read_version again": again.read_version}
        return {f"{found.update} {name}": x for name, x in results.items()}

    def start_from(path: pathlib.Path) -> Results:
        like = state(9, 0, asyncflax.staleness.constant(0).trace(1, num_workers=3))
        options = {"params": like.params, "model_state": like.model_state}
        loaded = load_model(path / "run/checkpoints/40", **options)
        return {jax.tree_util.keystr(name): np.asarray(x) for name, x in jax.tree_util.tree_leaves_with_path(loaded)}

    whole, other, older = (folder / name for name in ("whole", "other", "older"))
    write(whole, 0), write(other, 1)
    last, before = "run/checkpoints/40", "run/checkpoints/20"
    # The part of the same run that could be taken for the last checkpoint is the one before it.
    shutil.copytree(whole, older)
    shutil.rmtree(older / last)
    shutil.copytree(older / before, older / last)
    states = [path.relative_to(whole).as_posix() for path in sorted((whole / last / "state").rglob("*"))]
    states = [name for name in states if (whole / name).is_file()]
    parts = {name: [f"{last}/{name}"] for name in ("info.json", "metrics.jsonl", "extra.npz", "SHA256SUMS")}
    kinds = {
        "run.json": (["run/run.json"], [other]),
        "trace of a run": (["run/trace.npz"], [other]),
        "trace that a run is given": (["given.npz"], [other]),
        "metrics.jsonl": (["run/metrics.jsonl"], [other]),
        "checkpoint: state": (states, [other, older]),
        **{f"checkpoint: {name}": (files, [other, older]) for name, files in parts.items()},
        "checkpoint as a whole": ([last], [other, older]),
    }
    made = [_kind(name, whole, files, siblings, read) for name, (files, siblings) in kinds.items()]
    shutil.copytree(whole, folder / "interrupted")
    shutil.rmtree(folder / "interrupted" / last)
    made = [kind._replace(known=kind.known | read(folder / "interrupted")) for kind in made]
    every = [*states, *itertools.chain(*parts.values())]
    return [*made, _kind("checkpoint to start from", whole, every, [other, older], start_from)]


def of_cells(folder: pathlib.Path) -> list[Kind]:
    """The files of a sweep and of a comparison: cells of random numbers."""
    from asyncflax._files import write_once
    from asyncflax.lab.compare import CompareConfig, Comparison
    from asyncflax.lab.sweep import SweepConfig
    from asyncflax.lab.sweep.grid import Grid
    from asyncflax.lab.sweep.run import _dataset, _Finished
    from asyncflax.train.config import TrainConfig
    from asyncflax.train.workdir import Workdir

    def write(path: pathlib.Path, config: Any, grid: Any, seed: int) -> None:
        with Workdir(path, config).owned() as workdir:
            workdir.begin()
            finished = _Finished(path / "cells", grid, workdir.began["sha256"])
        cells, rng = list(grid), np.random.default_rng(seed)
        for some in (cells[:2], cells[2:4], cells[4:]):
            rows = {name: rng.normal(size=(len(some), 2)).astype(np.float32) for name in ("test_loss", "train_loss")}
            rows["diverged_at"] = np.full(len(some), -1, np.int32)
            shared = {"updates": np.array([10, 20]), "evaluated": np.array([0, 20]), "cpu_seconds": np.array(1.0)}
            finished.add(some, rows | shared)

    def reader(config: Any, grid: Any) -> Callable[[pathlib.Path], Results]:
        def read(path: pathlib.Path) -> Results:
            with Workdir(path, config).owned() as workdir:
                workdir.begin()
                finished = _Finished(path / "cells", grid, workdir.began["sha256"])
            found = {f"{index} {name}": x for index in finished for name, x in finished[index].items()}
            if len(finished) == len(grid):
                results = _dataset(config, grid, finished, "cpu")
                print(write_once(path / "results.nc", bytes(results.to_netcdf(engine="scipy"))))
                found["results.nc"] = (path / "results.nc").read_bytes()
            return found

        return read

    train = TrainConfig(model="Mlp", num_updates=20)
    swept = lambda seed: SweepConfig(train, axes={"momentum": (0.0, 0.5, 0.6), "seed": (seed, seed + 1)})
    compared = lambda seed: CompareConfig(
        train, "asgd, nag_asgd, lwp", {"equal": "gamma"}, num_workers=(2,), seeds=(seed, seed + 1)
    )
    kinds = []
    for name, make, grid_of in (("sweep", swept, Grid.of), ("comparison", compared, Comparison)):
        whole, other, same_run = (folder / name / part for part in ("whole", "other", "same"))
        for path, seed in ((whole, 0), (other, 1)):
            write(path, make(seed), grid_of(make(seed)), seed)
            reader(make(seed), grid_of(make(seed)))(path)
        cell, another = sorted(path.name for path in (whole / "cells").iterdir())[:2]
        shutil.copytree(whole, same_run)
        shutil.copy(whole / "cells" / another, same_run / "cells" / cell)
        twin = next(path for path in sorted((other / "cells").iterdir()))
        if twin.name != cell:
            raise RuntimeError("the cells of another run must have the same names")
        read = reader(make(0), grid_of(make(0)))
        kinds.append(_kind(f"cell of a {name}", whole, [f"cells/{cell}"], [other, same_run], read))
        if name == "sweep":
            kinds.append(_kind("run.json of a sweep", whole, ["run.json"], [other], read))
            kinds.append(_kind("results.nc of a sweep", whole, ["results.nc"], [other], read))
    return kinds


STUDY = {"momenta": (0.5, 0.8), "learning_rates": (4e-3,), "margins": (0.5, 1.0, 1.4), "records": 12}


def of_study(folder: pathlib.Path) -> list[Kind]:
    """The files of a small study of streaming PCA, which computes again what is lost."""
    from asyncflax.lab.studies.streaming_pca import StreamingPcaConfig, run_study

    def read(path: pathlib.Path, seed: int = 0) -> Results:
        config = StreamingPcaConfig(**STUDY, replicates=2, trajectories=32, seed=seed)
        study = run_study(config, path, command="python launch/streaming_pca.py")
        return study.results._asdict() | {"table": study.table} | of_study_folder(path)

    whole, other, same_run = (folder / name for name in ("whole", "other", "same"))
    read(whole), read(other, 1)
    shutil.copytree(whole, same_run)
    shutil.copy(whole / "cells/plain.npz", same_run / "cells/queue.npz")
    claim = "streaming-pca-tolerable-delay.json"
    return [
        _kind("setting of a study", whole, ["cells/queue.npz"], [other, same_run], read),
        _kind("results.npz of a study", whole, ["results.npz"], [other], read),
        _kind("claim of a study", whole, [f"claims/{claim}"], [other], read),
    ]


def of_study_folder(path: pathlib.Path) -> Results:
    """The numbers and the claims that a study leaves, without the machine and its minutes."""
    with np.load(path / "results.npz") as file:
        found: Results = {f"results.npz {name}": x for name, x in file.items()}
    for file in sorted((path / "claims").glob("*.json")):
        claim = json.loads(file.read_text())
        found[file.name] = {k: v for k, v in claim.items() if k not in ("machine", "cpu_minutes")}
    return found


def of_caches(folder: pathlib.Path) -> list[Kind]:
    """Caches of data: decoded images where they lie by default and where somebody wants them, and labels."""
    from asyncflax.data import arrays, imagenet

    images = lambda seed: np.random.default_rng(seed).integers(0, 256, (6, 4, 4, 3), np.uint8)
    decode = lambda name, split, *_: (images(len(name) + len(split)), np.arange(6, dtype=np.int32))

    def cifar(path: pathlib.Path, name: str = "cifar10", **options: Any) -> Results:
        (path / name / "3.0.2").mkdir(parents=True, exist_ok=True)
        with (
            mock.patch.object(arrays, "_decode", decode),
            mock.patch.dict(os.environ, XDG_CACHE_HOME=str(path)),
        ):
            return getattr(arrays, name)(path, **options)._asdict()

    def named(path: pathlib.Path) -> Results:
        return cifar(path, cache=path / "mine.npz")

    def labels(path: pathlib.Path, dataset: str = "one", seen: int = 40) -> Results:
        source = [{"image": b"%d" % i, "label": i % 5 if i < seen else 0, "file_name": b"%d" % i} for i in range(40)]
        records = imagenet.Records(source, (3, 1), path / f"{dataset}-labels.npz")
        return {str(i): records[i] for i in range(len(records))}

    whole, other = folder / "whole", folder / "other"
    cifar(whole), named(whole), labels(whole)
    # Under the names of those: what belongs to another data set.
    cifar(other, "cifar100"), cifar(other, "cifar100", cache=other / "mine.npz"), labels(other, "two", seen=20)
    default = "asyncflax/cifar10-3.0.2.npz"
    shutil.copy(other / "asyncflax/cifar100-3.0.2.npz", other / default)
    shutil.copy(other / "two-labels.npz", other / "one-labels.npz")
    return [
        _kind("cache of images", whole, [default], [other], cifar),
        _kind("cache of images, named", whole, ["mine.npz"], [other], named),
        _kind("cache of labels", whole, ["one-labels.npz"], [other], labels),
    ]


# --- Whole commands ---------------------------------------------------------------------------------------------------

COMMANDS = {
    "training": [
        *("launch/train.py", "--config=configs/digits.py", "--config.model=Mlp", "--config.num_updates=40"),
        *("--config.num_workers=4", "--config.log_every=5", "--config.eval_every=20", "--config.checkpoint_every=10"),
        *("--config.meter_window=12", "--config.seed={0}"),
    ],
    "sweep": [
        *("launch/sweep.py", "--config=configs/figure3.py:fast", "--config.train.model=Mlp"),
        *("--config.train.num_updates=20", "--config.train.log_every=10", "--config.train.eval_every=10"),
        "--config.axes=num_workers=(1, 4), momentum=(0.0, 0.3), learning_rate=(0.2,), seed=({0}, {1})",
        *("--config.figure=efficiency(target=0.3)", "--config.cells_at_once=2"),
    ],
    "comparison": [
        *("launch/compare.py", "--config=configs/dana_table.py:fast", "--config.num_workers=(2,)"),
        *("--config.service_times=homogeneous=gamma(cv=0.1)", "--config.seeds=({0},{1})"),
    ],
    "study": [
        *("launch/streaming_pca.py", "--config=configs/streaming_pca.py:fast", "--config.trajectories=32"),
        *(f"--config.{name}={value}" for name, value in STUDY.items()),
        *("--config.replicates=2", "--config.seed={0}"),
    ],
}


def command(name: str, workdir: pathlib.Path, seed: int = 0) -> list[str]:
    """One of the commands, with seeds from `seed` on."""
    return [word.format(seed, seed + 1) for word in COMMANDS[name]] + [f"--workdir={workdir}"]


def launch(commands: list[list[str]]) -> list[launching.Done]:
    """Runs commands that share what was compiled."""
    return launching.launch_all(commands, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")


def of_training(path: pathlib.Path) -> Results:
    """What a training leaves: the last checkpoint, and the metrics without the clock."""
    found: Results = killing.results(path)
    with np.load(path / "checkpoints" / str(found["kept"][-1]) / "extra.npz") as file:
        return found | {f"extra {name}": x for name, x in file.items()}


def of_dataset(path: pathlib.Path) -> Results:
    """The numbers of a sweep or a comparison."""
    import xarray

    with xarray.open_dataset(path / "results.nc", engine="scipy") as results:
        values = {str(name): np.asarray(x.values) for name, x in results.variables.items()}
    return {name: x.astype(str) if x.dtype.hasobject else x for name, x in values.items()}


def kinds_of_commands(folder: pathlib.Path) -> dict[str, list[Kind]]:
    """The files of a finished and an interrupted training, a sweep, a comparison and a study, by command."""
    folders = [(name, folder / f"{name}-{seed}", seed) for name in COMMANDS for seed in (0, 2)]
    for done in launch([command(*one) for one in folders]):
        if done.status:
            raise RuntimeError(done.err)
    first = lambda name, pattern: sorted((folder / f"{name}-0").glob(pattern))[0].relative_to(folder / f"{name}-0")

    def kinds_of(name: str, read: Any, files: dict[str, Any], whole: str = "") -> list[Kind]:
        results, whole = read(folder / f"{name}-0"), whole or name
        files = {"run.json": "run.json", **files}
        common = {"siblings": [folder / f"{whole}-2"], "read": read, "known": results, "expected": results}
        return [Kind(f"{whole}: {what}", folder / f"{whole}-0", [str(file)], **common) for what, file in files.items()]

    for seed in (0, 2):  # a training that was stopped after 30 of 40 updates
        shutil.copytree(folder / f"training-{seed}", folder / f"stopped-{seed}")
        for name in ("checkpoints/40", "metrics.csv", "training.png"):
            path = folder / f"stopped-{seed}" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    trainings = []
    for whole, last in (("training", 40), ("stopped", 30)):
        checkpoint = folder / f"{whole}-0" / "checkpoints" / str(last)
        array = max((checkpoint / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
        parts = [array.relative_to(checkpoint), "info.json", "metrics.jsonl", "extra.npz", "SHA256SUMS"]
        names = ["arrays", *parts[1:]]
        files = {f"checkpoint, {name}": f"checkpoints/{last}/{part}" for name, part in zip(names, parts, strict=True)}
        files |= {"checkpoint as a whole": f"checkpoints/{last}"}
        files |= {"trace": "trace.npz", "metrics.jsonl": "metrics.jsonl"}
        trainings += kinds_of("training", of_training, files, whole)
    cells = lambda name: {"cell": first(name, "cells/*"), "results.nc": "results.nc"}
    settings = {"setting": "cells/queue.npz", "results.npz": "results.npz", "claim": first("study", "claims/*.json")}
    return {
        "training": trainings,
        "sweep": kinds_of("sweep", of_dataset, cells("sweep")),
        "comparison": kinds_of("comparison", of_dataset, cells("comparison")),
        "study": kinds_of("study", of_study_folder, settings),
    }


def read_by_commands(name: str, kinds: Sequence[Kind], flips: int, rng: random.Random) -> Table:
    """Spoils files in copies of their folder, and starts the command in each."""
    table = Table()
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(kind, done) for kind in kinds for done in spoil(kind, flips, rng)]
        folders = [pathlib.Path(scratch, str(i)) for i in range(len(cases))]
        for (kind, done), folder in zip(cases, folders, strict=True):
            shutil.copytree(kind.whole, folder)
            done.apply(folder)
        parts = [folders[i : i + 30] for i in range(0, len(folders), 30)]  # a process has ten minutes
        ended = [end for part in parts for end in launch([command(name, folder) for folder in part])]
        for (kind, done), folder, end in zip(cases, folders, ended, strict=True):
            found = end.err.strip() if end.status == 1 else f"status {end.status}\n{end.err}" if end.status else ""
            table.add(kind, done, judge(kind, done, folder, end.out, found or kind.read(folder)))
    return table


def main() -> None:
    """Spoils, reads, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=200, help="of bits for each kind of file, in this process")
    parser.add_argument("--flips_of_commands", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, faults = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as programs:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
        tables = [read_in_process(kinds_in_process(pathlib.Path(folder, "in_process")), args.flips, rng)]
        print(f"In one process\n\n{tables[0]}\n\nBy whole commands\n", flush=True)
        for name, kinds in kinds_of_commands(pathlib.Path(folder, "commands")).items():
            tables.append(read_by_commands(name, kinds, args.flips_of_commands, rng))
            print(f"{tables[-1]}\n", flush=True)
    faults = [fault for table in tables for fault in table.faults]
    print("\n".join(faults) or "nothing was wrong")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
