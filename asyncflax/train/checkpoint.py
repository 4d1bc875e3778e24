"""Checkpoints of the whole `RunState`: written atomically, verified by checksum; the newest and the best are kept.

    checkpoints/500/state/          the arrays, in dicts by name: load them with `orbax.checkpoint.v1.load`
    checkpoints/500/info.json       update, config, metrics, run, and the shape and dtype of every array
    checkpoints/500/metrics.jsonl   the rows of metrics so far
    checkpoints/500/extra.npz       arrays of the run outside its state, if any
    checkpoints/500/SHA256SUMS      checksums (`sha256sum -c SHA256SUMS`), since Orbax does not checksum array data

In `state/` dict keys escape a dot as '%2E', a slash as '%2F' and a percent sign as '%25', since Orbax joins nested keys
into one name; a typed PRNG key is stored as its key data, and arrays without elements are omitted.

With several processes, each reads and writes its shards in a shared folder; the primary does the rest. A run may resume
with another number of processes and on another mesh.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from asyncflax import _check
from asyncflax._files import set_aside
from asyncflax._files import sync as to_disk
from asyncflax.engine.execute import RunState
from asyncflax.train.distributed import broadcast, is_primary, sync

__all__ = ["Checkpoint", "Checkpoints", "load_model"]

_FORMAT = 1
_PARTIAL, _REMOVED, _SUMS = ".partial", ".removed", "SHA256SUMS"
_INFO, _ROWS, _EXTRA = "info.json", "metrics.jsonl", "extra.npz"


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      update: int, the number of server updates.
      config: dict, the config of the run.
      metrics: dict of numbers by name; empty before the first evaluation.
      state: the `RunState`.
      extra: dict of NumPy arrays by name, as passed to `save`.
      rows: list of dicts, the rows of metrics so far.
    """

    update: int
    config: dict[str, Any]
    metrics: dict[str, float]
    state: RunState
    extra: dict[str, np.ndarray]
    rows: list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
      folder: the folder of the checkpoints; created by the first `save`.
      keep: the number of newest checkpoints to keep. The one with the highest `best_metric` is kept as well.
      best_metric: the name of a metric.
      run: the identity of the run, see `Workdir.began`; checkpoints of another run are not loaded.
      warn: called with a sentence when a checkpoint is corrupted.

    Example:
      >>> import asyncflax, jax.numpy as jnp, tempfile
      >>> from asyncflax.train.checkpoint import Checkpoints, load_model
      >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=10))
      >>> state = asyncflax.init_run(asyncflax.algorithms.momentum_asgd(0.1), jnp.ones(2), plan)
      >>> checkpoints = Checkpoints(tempfile.mkdtemp())
      >>> checkpoints.save(0, state, config={"seed": 0}, metrics={"test_accuracy": 0.1})
      >>> checkpoints.latest(like=state).metrics
      {'test_accuracy': 0.1}
      >>> load_model(checkpoints.folder / "0", params=jnp.zeros(2))[0].tolist()
      [1.0, 1.0]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 3,
        best_metric: str = "test_accuracy",
        run: str = "",
        warn: Callable[[str], Any] = print,
    ):
        self.folder = pathlib.Path(folder).absolute()  # required by Orbax
        self.keep = _check.integer("keep", keep, 1)
        self.best_metric = best_metric
        self.run = run
        self.warn = warn

    def updates(self) -> list[int]:
        """The updates that have a checkpoint, in increasing order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _is_checkpoint(path))

    def save(
        self,
        update: int,
        state: RunState,
        *,
        config: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
        rows: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Writes a checkpoint under a temporary name, renames it, then removes old checkpoints.

        Args:
          update: the number of server updates, at least 0.
          state: the state returned by `run_chunk`.
          config: a JSON dict, returned by `latest`.
          metrics: the metrics, numbers by name.
          extra: NumPy arrays of numbers or text by name, for program state outside the `RunState`.
          rows: the rows of metrics so far, JSON dicts; see `Records`.

        Raises:
          TypeError, ValueError: an argument is invalid; nothing is written.
          FileExistsError: this update already has a checkpoint.
        """
        from orbax.checkpoint import tree
        from orbax.checkpoint import v1 as orbax

        update, state = _check.integer("update", update, 0), _on_devices(state)
        info = {
            "format": _FORMAT,
            "run": self.run,
            "update": update,
            "config": _json("config", dict(config)),
            "metrics": _json("metrics", {name: float(value) for name, value in (metrics or {}).items()}),
            "arrays": _described(state),
        }
        text = "".join(json.dumps(_json("rows", dict(row))) + "\n" for row in rows)
        extra = {name: _plain_array(f"extra[{name!r}]", array) for name, array in (extra or {}).items()}
        final, partial = self.folder / str(update), self.folder / f"{update}{_PARTIAL}"
        if is_primary():
            if os.path.lexists(final):
                raise FileExistsError(f"{final} exists; checkpoints are not overwritten.")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        sync(f"{update} begun")
        arrays = {name: _data(x) for name, x in _leaves(state).items() if x.size}
        orbax.save(os.fspath(partial / "state"), tree.from_flat_dict(arrays, sep="/"))
        if is_primary():
            self._finish(partial, final, info, text, extra)
        sync(f"{update} saved")

    def _finish(
        self, partial: pathlib.Path, final: pathlib.Path, info: Any, rows: str, extra: Mapping[str, np.ndarray]
    ) -> None:
        """Adds the files that are not arrays and renames the checkpoint into place."""
        (partial / _ROWS).write_text(rows)
        if extra:
            with (partial / _EXTRA).open("wb") as file:
                np.savez(file, **extra)  # pyright: ignore[reportArgumentType]
        info["files"] = [path.relative_to(partial).as_posix() for path in _files(partial)]
        (partial / _INFO).write_text(json.dumps(info, indent=1) + "\n")
        (partial / _SUMS).write_text(_sums(partial))
        for path in (*partial.rglob("*"), partial):
            to_disk(path)
        os.rename(partial, final)
        to_disk(self.folder)
        self._remove_old()

    def latest(self, *, like: RunState | Callable[[int, dict[str, Any]], RunState]) -> Checkpoint | None:
        """Loads the newest intact checkpoint; returns None if there are no checkpoints.

        Corrupted checkpoints and those of another run are renamed (to '500.corrupted') and reported through `warn`.

        Args:
          like: a state of the same run, for example from `init_run`; arrays are restored with its shardings. Or a
            function of the saved update and config that returns one, if the structure changes during a run.

        Raises:
          ValueError: all checkpoints are corrupted, or the newest has different shapes or another format.
        """
        update = broadcast(self._newest() if is_primary() else None)
        return None if update is None else self._load(self.folder / str(update), like)

    def _newest(self) -> int | None:
        """The newest intact update; removes partial checkpoints and renames corrupted ones."""
        for path in (*self.folder.glob(f"*{_PARTIAL}"), *self.folder.glob(f"*{_REMOVED}")):
            if path.stem.isdecimal() and not path.is_symlink():
                shutil.rmtree(path)  # left by a process that was killed
        aside = []
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if ".corrupted" in path.name:
                aside.append(path.name)
            elif not _is_checkpoint(path):
                self.warn(f"note: {path} is not a checkpoint and is ignored")
        for update in reversed(self.updates()):
            path = self.folder / str(update)
            fault = _fault(path, self.run)
            if fault is None:
                return update
            aside.append(set_aside(path).name)
            self.warn(f"note: checkpoint {path} is corrupted ({fault}); it is now {aside[-1]}")
        if aside:
            raise ValueError(
                f"{self.folder} has only corrupted checkpoints ({', '.join(aside)}); restore one from a backup, or "
                "start over in a new workdir."
            )
        return None

    def _load(self, path: pathlib.Path, like: RunState | Callable[[int, dict[str, Any]], RunState]) -> Checkpoint:
        info = _info(path)
        like = _on_devices(like(info["update"], info["config"]) if callable(like) else like)
        _refuse_other(path, "run", info["arrays"], like)
        state: RunState = _restored(path, info["arrays"], like)
        extra = {}
        if (path / _EXTRA).exists():
            with np.load(path / _EXTRA, allow_pickle=False) as file:
                extra = dict(file)
        rows = [json.loads(line) for line in (path / _ROWS).read_text().splitlines()]
        return Checkpoint(
            **{name: info[name] for name in ("update", "config", "metrics")},
            state=state._replace(event=np.int32(state.event)),
            extra=extra,
            rows=rows,
        )

    def _remove_old(self) -> None:
        found = self.updates()
        metric = {update: self._metric(update) for update in found}
        best = max(found, key=lambda update: metric[update])
        for update in found[: -self.keep]:
            if update != best or metric[best] == -np.inf:
                removed = self.folder / f"{update}{_REMOVED}"  # a partly deleted checkpoint must not be loaded
                os.rename(self.folder / str(update), removed)
                shutil.rmtree(removed)

    def _metric(self, update: int) -> float:
        try:
            info = json.loads((self.folder / str(update) / _INFO).read_text())
            return float(info["metrics"].get(self.best_metric, -np.inf))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):  # corrupted meanwhile
            return -np.inf


def load_model(path: str | os.PathLike[str], *, params: Any, model_state: Any = None) -> tuple[Any, Any]:
    """Loads the server's parameters and model state from one checkpoint.

    All checksums are verified. Other arrays, such as past versions, are not loaded.

    Args:
      path: the checkpoint, for example 'WORKDIR/checkpoints/4000'.
      params: a PyTree of parameters of the same model.
      model_state: a PyTree of its model state (the statistics of BatchNorm); None skips it.

    Returns:
      the parameters and the model state, with the structure of the arguments.

    Raises:
      FileNotFoundError: the checkpoint does not exist.
      ValueError: the checkpoint is corrupted or belongs to another model.
    """
    folder = pathlib.Path(path).absolute()
    if not (folder / "state").is_dir():
        raise FileNotFoundError(f"{path} is not a checkpoint; expected a folder such as WORKDIR/checkpoints/4000.")
    fault = _fault(folder)
    if fault is not None:
        raise ValueError(f"checkpoint {path} is corrupted ({fault}).")
    asked = {"params": params} if model_state is None else {"params": params, "model_state": model_state}
    saved = _info(folder)["arrays"]
    _refuse_other(folder, "model", {name: x for name, x in saved.items() if name.split("/")[0] in asked}, asked)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = _restored(folder, saved, asked, here)
    return found["params"], found.get("model_state")


def _leaves(tree: Any) -> dict[str, Any]:
    """The leaves by name, 'params/net/bias', in the order of the tree."""
    escape = {ord(c): f"%{ord(c):02X}" for c in "%./"}
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(jax.tree_util.keystr((key,), simple=True).translate(escape) for key in path)
        if name in leaves:
            raise ValueError(
                f"two arrays of the state have the name {name!r}; give the nodes of the tree distinct keys."
            )
        leaves[name] = leaf
    return leaves


def _described(tree: Any) -> dict[str, str]:
    """Dtype and shape of the leaves by name."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in _leaves(tree).items()}


def _refuse_other(path: Any, what: str, saved: Mapping[str, str], tree: Any) -> None:
    """Raises if names, shapes or dtypes differ; Orbax would truncate or pad the arrays."""
    wanted = _described(tree)
    if saved == wanted:
        return
    name = next(n for n in (*wanted, *saved) if saved.get(n) != wanted.get(n))
    raise ValueError(
        f"checkpoint {path} belongs to another {what}: {name} is {saved.get(name, 'missing')} in the checkpoint, "
        f"but {wanted.get(name, 'missing')} here."
    )


def _on_devices(state: RunState) -> RunState:
    """The state with its event, a host integer, converted to an array placed like the key."""
    here = jax.random.key_data(state.key).sharding
    if isinstance(here, NamedSharding):
        here = NamedSharding(here.mesh, PartitionSpec())
    return state._replace(event=jax.make_array_from_callback((), here, lambda _: np.asarray(state.event, np.int32)))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    """The leaf in the form that Orbax saves: the data of a key."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _restored(folder: pathlib.Path, saved: Mapping[str, str], tree: Any, sharding: Any = None) -> Any:
    """A tree of a checkpoint's arrays, with the shardings of the given tree or a single sharding."""
    from orbax.checkpoint import tree as nested
    from orbax.checkpoint import v1 as orbax

    has_elements = lambda described: 0 not in json.loads(described[described.index("[") :])
    wanted: dict[str, Any] = {name: orbax.PLACEHOLDER for name, described in saved.items() if has_elements(described)}
    leaves = _leaves(tree)
    data = {name: _data(leaf) for name, leaf in leaves.items()}
    for name, x in data.items():
        if x.size:
            wanted[name] = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding)
    loaded = orbax.load(os.fspath(folder / "state"), nested.from_flat_dict(wanted, sep="/"))
    found = nested.to_flat_dict(loaded, sep="/")
    arrays = []
    for name, leaf in leaves.items():
        array = found[name] if leaf.size else jnp.zeros_like(data[name])
        arrays.append(jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array)
    return jax.tree.unflatten(jax.tree.structure(tree), arrays)


def _json(name: str, value: Any) -> Any:
    """The value after a round trip through JSON."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be JSON-serializable, got {value!r}: {error}.") from None


def _plain_array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{name} must be an array of numbers or text, got an object array: {value!r}.")
    return array


def _is_checkpoint(path: pathlib.Path) -> bool:
    name = path.name
    return name.isascii() and name.isdecimal() and str(int(name)) == name and path.is_dir() and not path.is_symlink()


def _info(path: pathlib.Path) -> dict[str, Any]:
    info = json.loads((path / _INFO).read_text())
    if info.get("format") != _FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {info.get('format')}, but this version reads {_FORMAT}; load it with the "
            "version of asyncflax that wrote it."
        )
    return info


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SUMS)


def _sums(folder: pathlib.Path) -> str:
    """One line per file, in the format of sha256sum."""
    lines = []
    for path in _files(folder):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def _fault(folder: pathlib.Path, run: str | None = None) -> str | None:
    """Why a checkpoint is corrupted, or None. Files that SHA256SUMS does not list are ignored."""
    try:
        stated = (folder / _SUMS).read_text().splitlines()
        found = set(_sums(folder).splitlines())
        lost = sorted(set(stated) - found)
        if lost:
            return f"{lost[0].split('  ')[-1]} has changed"
        names = {line.split("  ", 1)[-1] for line in stated}
        if _INFO not in names:
            return f"{_SUMS} is incomplete"
        info = json.loads((folder / _INFO).read_text())
        if info.get("format") != _FORMAT:
            return None  # `_info` says so
        if not names >= {*info["files"], _INFO}:
            return f"{_SUMS} is incomplete"
        if str(info["update"]) != folder.name and run is not None:
            return f"it is the checkpoint of update {info['update']}"
        return "it belongs to another run" if run not in (None, info["run"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read: {error}"
