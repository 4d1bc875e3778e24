"""Checkpoints: the whole `RunState` on disk, atomic, verified, the newest few and the best.

    checkpoints/500/state/      what Orbax writes: load it with `orbax.checkpoint.v1.load`
    checkpoints/500/info.json   update, config, metrics
    checkpoints/500/extra.npz   arrays that belong to the run but not to its state, if there are any
    checkpoints/500/SHA256SUMS  of all files (`sha256sum -c SHA256SUMS`), since Orbax does not notice a flipped bit

A checkpoint is written under another name and moved into place when it is on the disk, so one that is there is whole.
One that is damaged later is told by its sums and set aside, and the one before it is taken.

Where several processes run, each writes and reads its part of the arrays, in a folder that all of them see; the primary
does the rest and decides. A run may go on in other processes and on another mesh. Needs orbax-checkpoint (the extra
`train`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from asyncflax import _check
from asyncflax.engine.execute import RunState
from asyncflax.train.distributed import broadcast, is_primary, sync

__all__ = ["Checkpoint", "Checkpoints", "load_model"]

_PARTIAL, _REMOVED, _DAMAGED, _SUMS = ".partial", ".removed", ".damaged", "SHA256SUMS"
_EXTRA = "extra.npz"


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      update: int, how many updates the server had made.
      config: dict, the configuration of the run.
      metrics: dict of numbers by name, {} where nothing was evaluated.
      state: `RunState`.
      extra: dict of NumPy arrays by name, what `save` was given beside the state.

    Example: see `Checkpoints`.
    """

    update: int
    config: dict[str, Any]
    metrics: dict[str, float]
    state: RunState
    extra: dict[str, np.ndarray]


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
      folder: where they are; made by the first `save`.
      keep: how many of the newest stay. The one with the highest `best_metric` stays as well.
      best_metric: the name of a metric.
      warn: called with a sentence when a checkpoint is found damaged.

    Example:
      >>> import asyncflax, jax.numpy as jnp, tempfile
      >>> from asyncflax.train.checkpoint import Checkpoints
      >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=10))
      >>> state = asyncflax.init_run(asyncflax.algorithms.momentum_asgd(0.1), jnp.ones(2), plan)
      >>> checkpoints = Checkpoints(tempfile.mkdtemp())
      >>> checkpoints.save(0, state, config={"seed": 0}, metrics={"test_accuracy": 0.1})
      >>> checkpoints.latest(like=state).metrics
      {'test_accuracy': 0.1}
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 3,
        best_metric: str = "test_accuracy",
        warn: Callable[[str], Any] = print,
    ):
        self.folder = pathlib.Path(folder).absolute()  # as Orbax wants it
        self.keep = _check.integer("keep", keep, 1)
        self.best_metric = best_metric
        self.warn = warn

    def updates(self) -> list[int]:
        """After how many updates there are checkpoints, in increasing order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def save(
        self,
        update: int,
        state: RunState,
        *,
        config: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes a checkpoint and removes those that need not stay; it is on the disk when this returns.

        Args:
          update: how many updates the server has made.
          state: from `run_chunk`.
          config: what `latest` gives back with it; JSON.
          metrics: numbers by name.
          extra: NumPy arrays by name; what the program around the run remembers.

        Raises:
          FileExistsError: there is a checkpoint of this update.
        """
        from orbax.checkpoint import v1 as orbax

        final, partial = self.folder / str(update), self.folder / f"{update}{_PARTIAL}"
        if is_primary():
            if final.exists():
                raise FileExistsError(f"{final} is there already; checkpoints are not overwritten.")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        sync(f"{update} begun")
        orbax.save(os.fspath(partial / "state"), _plain(state))
        if is_primary():
            info = {"update": update, "config": dict(config), "metrics": dict(metrics or {})}
            self._finish(partial, final, info, extra or {})
        sync(f"{update} saved")

    def _finish(self, partial: pathlib.Path, final: pathlib.Path, info: Any, extra: Mapping[str, np.ndarray]) -> None:
        """Adds what is not in arrays, and moves the checkpoint into place."""
        (partial / "info.json").write_text(json.dumps(info, indent=1) + "\n")
        if extra:
            with (partial / _EXTRA).open("wb") as file:
                np.savez(file, **extra)  # pyright: ignore[reportArgumentType]
        (partial / _SUMS).write_text(_sums(partial))
        for path in (*_files(partial), partial / _SUMS):
            _sync(path)
        os.rename(partial, final)
        _sync(self.folder)
        self._remove_old()

    def latest(self, *, like: RunState) -> Checkpoint | None:
        """The newest checkpoint that is undamaged; None where there has been none.

        Damaged ones are moved aside (to '500.damaged') and reported through `warn`.

        Args:
          like: a state of the same run, for example from `init_run`; the arrays go where its arrays are.

        Raises:
          ValueError: all checkpoints are damaged, or the newest is of another run (other shapes).
        """
        update = broadcast(self._newest() if is_primary() else None)
        return None if update is None else self._load(self.folder / str(update), like)

    def _newest(self) -> int | None:
        """The newest that is undamaged, with everything else out of the way."""
        for path in (*self.folder.glob(f"*{_PARTIAL}"), *self.folder.glob(f"*{_REMOVED}")):
            shutil.rmtree(path)  # of a process that was killed while it wrote or removed
        found = self.updates()
        for update in reversed(found):
            path = self.folder / str(update)
            damage = _damage(path)
            if damage is None:
                return update
            aside = _free_name(self.folder / f"{update}{_DAMAGED}")
            path.rename(aside)
            self.warn(f"checkpoint {path} is damaged ({damage}); it is now {aside.name}")
        if found or any(self.folder.glob(f"*{_DAMAGED}*")):
            raise ValueError(f"no checkpoint in {self.folder} is undamaged; start anew in another workdir.")
        return None

    def _load(self, path: pathlib.Path, like: RunState) -> Checkpoint:
        from orbax.checkpoint import v1 as orbax

        info = json.loads((path / "info.json").read_text())
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _plain(like))
        saved, wanted = _described(orbax.metadata(os.fspath(path / "state")).metadata), _described(abstract)
        if saved != wanted:  # Orbax itself would cut or pad the arrays
            name = next(n for n in (*wanted, *saved) if saved.get(n) != wanted.get(n))
            raise ValueError(
                f"checkpoint {path} is of another run: state{name} is {saved.get(name, 'missing')} in it, "
                f"here it is {wanted.get(name, 'missing')}."
            )
        state = orbax.load(os.fspath(path / "state"), abstract)
        key = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(like.key))
        extra = {}
        if (path / _EXTRA).exists():
            with np.load(path / _EXTRA, allow_pickle=False) as file:
                extra = dict(file)
        return Checkpoint(**info, state=state._replace(key=key, event=np.int32(state.event)), extra=extra)

    def _remove_old(self) -> None:
        found = self.updates()
        metric = {update: self._metric(update) for update in found}
        best = max(found, key=lambda update: metric[update])
        for update in found[: -self.keep]:
            if update != best or metric[best] == -np.inf:
                removed = self.folder / f"{update}{_REMOVED}"  # half a checkpoint is none
                os.rename(self.folder / str(update), removed)
                shutil.rmtree(removed)

    def _metric(self, update: int) -> float:
        try:
            info = json.loads((self.folder / str(update) / "info.json").read_text())
            return float(info["metrics"].get(self.best_metric, -np.inf))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):  # damaged meanwhile
            return -np.inf


def load_model(path: str | os.PathLike[str], *, params: Any, model_state: Any = None) -> tuple[Any, Any]:
    """The server's parameters in one checkpoint and what belongs to them that gradients do not train.

    All files are read for their sums. The arrays of the other parts, such as past versions, are not loaded.

    Args:
      path: of the checkpoint, as 'WORKDIR/checkpoints/4000'.
      params: PyTree of parameters of the same model.
      model_state: PyTree of its model state (the statistics of BatchNorm); with None it is not looked for.

    Returns:
      parameters and model state, of the structure of the arguments.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: it is damaged, or of another model.

    Example:
      >>> import asyncflax, jax.numpy as jnp, tempfile
      >>> from asyncflax.train.checkpoint import Checkpoints, load_model
      >>> plan = asyncflax.make_plan(asyncflax.staleness.constant(3).trace(num_updates=10))
      >>> begin = {"params": jnp.ones(2), "model_state": {"mean": jnp.zeros(2)}}
      >>> state = asyncflax.init_run(asyncflax.algorithms.asgd(0.1), plan=plan, **begin)
      >>> checkpoints = Checkpoints(tempfile.mkdtemp())
      >>> checkpoints.save(0, state, config={})
      >>> load_model(checkpoints.folder / "0", **begin)
      (Array([1., 1.], dtype=float32), {'mean': Array([0., 0.], dtype=float32)})
    """
    from orbax.checkpoint import v1 as orbax

    folder = pathlib.Path(path).absolute()
    if not (folder / "state").is_dir():
        raise FileNotFoundError(f"{path} is no checkpoint; it must be a folder such as WORKDIR/checkpoints/4000.")
    damage = _damage(folder)
    if damage is not None:
        raise ValueError(f"checkpoint {path} is damaged ({damage}).")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=here)
    metadata: Any = orbax.metadata(os.fspath(folder / "state")).metadata
    asked = {"params"} if model_state is None else {"params", "model_state"}
    skip = lambda _: orbax.PLACEHOLDER
    parts = {name: jax.tree.map(abstract if name in asked else skip, part) for name, part in metadata.items()}
    saved: Any = orbax.load(os.fspath(folder / "state"), parts)
    return _part(path, "params", saved["params"], params), _part(
        path, "model_state", saved.get("model_state"), model_state
    )


def _part(path: Any, part: str, saved: Any, like: Any) -> Any:
    """What a checkpoint holds of something, in the structure of the same thing here."""
    if like is None:
        return None
    have, wanted = _described(saved), _described(like)
    if have != wanted:
        name = next(n for n in (*wanted, *have) if have.get(n) != wanted.get(n))
        raise ValueError(
            f"checkpoint {path} is of another model: {part}{name} is {have.get(name, 'missing')} in it, "
            f"here it is {wanted.get(name, 'missing')}."
        )
    structure = jax.tree.structure(like)
    places = jax.tree.leaves(_nested(jax.tree.unflatten(structure, range(structure.num_leaves))))
    arrays = dict(zip(places, jax.tree.leaves(_nested(saved)), strict=True))
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[i]) for i in range(structure.num_leaves)])


def _plain(state: RunState) -> RunState:
    """The state in arrays that Orbax knows; the event, a number of the host, lies where the key is."""
    key = jax.random.key_data(state.key)
    here = key.sharding
    if isinstance(here, NamedSharding):
        here = NamedSharding(here.mesh, PartitionSpec())
    event = jax.make_array_from_callback((), here, lambda _: np.asarray(state.event, np.int32))
    return state._replace(key=key, event=event)


def _nested(tree: Any) -> Any:
    """The tree in dicts: Orbax forgets tuples and their names."""
    if isinstance(tree, tuple) and hasattr(tree, "_asdict"):
        tree = tree._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(tree, tuple | list):
        tree = dict(enumerate(tree))
    return {str(name): _nested(value) for name, value in tree.items()} if isinstance(tree, dict) else tree


def _described(tree: Any) -> dict[str, str]:
    """Shape and dtype of the arrays by their place."""
    leaves = [(jax.tree_util.keystr(k), x) for k, x in jax.tree_util.tree_leaves_with_path(_nested(tree))]
    return {name: f"{np.dtype(x.dtype)}{list(x.shape)}" for name, x in leaves if hasattr(x, "shape")}


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SUMS)


def _sums(folder: pathlib.Path) -> str:
    """One line a file, as sha256sum prints it."""
    line = lambda path: f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
    return "".join(map(line, _files(folder)))


def _damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing is. Files that it does not list do not matter."""
    try:
        stated = (folder / _SUMS).read_text().splitlines()
        found = set(_sums(folder).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be read: {error}"
    if not any(line.endswith("  info.json") for line in stated):
        return f"{_SUMS} is incomplete"
    lost = sorted(set(stated) - found)
    return f"{lost[0].split('  ')[-1]} has changed" if lost else None


def _free_name(path: pathlib.Path) -> pathlib.Path:
    names = (path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 10_000)))
    return next(name for name in names if not name.exists())


def _sync(path: pathlib.Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
