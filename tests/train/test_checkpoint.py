"""Checkpoints: what comes back is what went in; damage is noticed, whatever it is; the newest and the best stay."""

import random
import shutil
import subprocess
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asyncflax
from asyncflax.train.checkpoint import Checkpoints, load_model


def make_state(num_workers=3, seed=0):
    trace = asyncflax.queues.simulate(
        num_workers=num_workers, num_updates=10, service_time=asyncflax.queues.exponential()
    )
    algorithm = asyncflax.algorithms.multi_asgd(0.1, 0.5, num_workers=num_workers)
    params = {"w": jnp.arange(5.0), "b": jnp.ones((2, 3), jnp.float32)}
    plan = asyncflax.make_plan(trace)
    state = asyncflax.init_run(algorithm, params, plan, key=jax.random.key(seed), model_state={"mean": jnp.zeros(2)})
    fill = lambda x: x + 0.1 if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(fill, state._replace(key=None))._replace(key=state.key, event=np.int32(7))


def assert_same(state, other):
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(state._replace(key=None)), jax.tree.leaves(other._replace(key=None)), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert jax.random.key_data(state.key).tolist() == jax.random.key_data(other.key).tolist()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_saved_comes_back(tmp_path):
    checkpoints, state = Checkpoints(tmp_path / "new" / "folder"), make_state(seed=3)
    assert checkpoints.latest(like=state) is None and checkpoints.updates() == []
    checkpoints.save(7, state, config={"seed": 3}, metrics={"test_accuracy": 0.5})
    found = checkpoints.latest(like=make_state(seed=0))
    assert (found.update, found.config, found.metrics) == (7, {"seed": 3}, {"test_accuracy": 0.5})
    assert_same(found.state, state)
    with pytest.raises(FileExistsError, match="not overwritten"):
        checkpoints.save(7, state, config={})


def test_what_the_program_around_the_run_remembers_comes_back(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), make_state()
    extra = {"versions": np.arange(4), "params": np.ones((4, 2), np.float32)}
    checkpoints.save(1, state, config={})
    assert checkpoints.latest(like=state).extra == {}
    checkpoints.save(2, state, config={}, extra=extra)
    found = checkpoints.latest(like=state).extra
    assert found.keys() == extra.keys()
    for name, array in extra.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_sha256sum_agrees(tmp_path):
    Checkpoints(tmp_path).save(1, make_state(), config={})
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "1", check=True)
    listed = (tmp_path / "1" / "SHA256SUMS").read_text().splitlines()
    assert len(listed) == len(files(tmp_path / "1")) - 1 > 5


def test_every_corruption_of_every_file_is_noticed(tmp_path):
    """Also the flipped bit in an array, which Orbax reads without a word."""
    rng, state = random.Random(0), make_state()
    Checkpoints(tmp_path / "good").save(1, state, config={})
    Checkpoints(tmp_path / "good").save(2, state, config={}, extra={"window": np.arange(3.0)})

    def truncate(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def flip(path):
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    names = [path.relative_to(tmp_path / "good") for path in files(tmp_path / "good" / "2")]
    for damage in (truncate, flip, lambda path: path.unlink()):
        for name in names:
            folder = tmp_path / "damaged"
            shutil.copytree(tmp_path / "good", folder)
            if (folder / name).stat().st_size == 0 and damage in (truncate, flip):
                shutil.rmtree(folder)
                continue
            damage(folder / name)
            said = []
            found = Checkpoints(folder, warn=said.append).latest(like=state)
            assert found.update == 1 and len(said) == 1, (name, said)
            assert "2 is corrupted (" in said[0] and "it is now 2.corrupted" in said[0]
            assert (folder / "2.corrupted").is_dir()
            shutil.rmtree(folder)


def test_a_stray_file_is_no_damage(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, warn=pytest.fail), make_state()
    checkpoints.save(1, state, config={})
    (tmp_path / "1" / ".DS_Store").write_text("")
    assert checkpoints.latest(like=state).update == 1


def test_when_all_are_damaged_nothing_is_begun_anew_in_silence(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, warn=lambda text: None), make_state()
    checkpoints.save(1, state, config={})
    (tmp_path / "1" / "info.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=r"has only corrupted checkpoints \(1\.corrupted\); restore one .* or start over in a new workdir",
        ):
            checkpoints.latest(like=state)


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), make_state()
    checkpoints.save(1, state, config={})
    shutil.copytree(tmp_path / "1", tmp_path / "2.partial")
    shutil.copytree(tmp_path / "1", tmp_path / "0.removed")
    assert checkpoints.updates() == [1] and checkpoints.latest(like=state).update == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]


def test_the_newest_and_the_best_stay(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=2), make_state()
    for update, accuracy in enumerate([0.1, 0.9, None, 0.9, 0.2, 0.3]):
        checkpoints.save(update, state, config={}, metrics=None if accuracy is None else {"test_accuracy": accuracy})
    assert checkpoints.updates() == [1, 4, 5]
    checkpoints.save(6, state, config={}, metrics={"test_accuracy": 0.95})
    checkpoints.save(7, state, config={})
    checkpoints.save(8, state, config={})
    assert checkpoints.updates() == [6, 7, 8]


def test_a_checkpoint_of_another_run_is_refused_with_the_array_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(num_workers=3), config={})
    message = r"another run: algorithm/.* is float\d+\[3, .* in the checkpoint, but float\d+\[4, "
    with pytest.raises(ValueError, match=message):
        checkpoints.latest(like=make_state(num_workers=4))


class Pair(NamedTuple):
    """Parameters in a tuple with names that do not sort."""

    w: jax.Array
    b: jax.Array


def odd_trees():
    rank0 = {"w": jnp.ones(2), "adapter": jnp.zeros((0, 3))}
    names = {
        "net": {"bias": jnp.full(2, 1.0), "a/b": jnp.zeros(1)},
        "net.bias": jnp.full(2, 7.0),
        "net/bias": jnp.ones(3),
    }
    escaped = {"a.b": jnp.full(1, 1.0), "a%2Eb": jnp.full(1, 2.0), "a": {"b": jnp.full(1, 3.0)}, "": jnp.full(1, 4.0)}
    nested = [Pair(jnp.ones(2), jnp.zeros((2, 0))), (jnp.arange(3.0), {"..": jnp.ones(1, jnp.bfloat16)})]
    return {"a rank of 0": rank0, "dots": names, "escapes": escaped, "containers": nested, "one array": jnp.arange(3.0)}


@pytest.mark.parametrize("tree", odd_trees().values(), ids=odd_trees())
def test_every_tree_comes_back(tmp_path, tree):
    plan = asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=4))
    state = asyncflax.init_run(asyncflax.algorithms.momentum_asgd(0.1), tree, plan)
    Checkpoints(tmp_path).save(0, state, config={})
    assert_same(Checkpoints(tmp_path).latest(like=jax.tree.map(jnp.copy, state)).state, state)
    params, _ = load_model(tmp_path / "0", params=tree)
    assert jax.tree.structure(params) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, params, tree)


def test_typed_keys_of_a_method_come_back(tmp_path):
    noisy = optax.chain(optax.add_noise(eta=0.01, gamma=0.55, key=jax.random.key(5)), optax.sgd(0.1))
    plan = asyncflax.make_plan(asyncflax.staleness.constant(1).trace(num_updates=4))
    state = asyncflax.init_run(asyncflax.from_optax(noisy), jnp.ones(2), plan)
    Checkpoints(tmp_path).save(0, state, config={})
    other = asyncflax.init_run(asyncflax.from_optax(noisy), jnp.zeros(2), plan, key=jax.random.key(9))
    keys = lambda tree: [
        jax.random.key_data(x).tolist() for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    ]
    found = Checkpoints(tmp_path).latest(like=other).state
    assert keys(found) == keys(state) and len(keys(found)) == 2
    rbg = other._replace(key=jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=r"another run: key is key<fry>\[\] in the checkpoint, but key<rbg>\[\] here"):
        Checkpoints(tmp_path).latest(like=rbg)


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ({"update": -5}, ValueError, "update must be an integer >= 0, got update=-5"),
        ({"update": 2.5}, TypeError, "update must be a concrete integer, got 2.5"),
        ({"update": "../x"}, TypeError, "update must be a concrete integer, got '../x'"),
        (
            {"extra": {"a": np.array([{}])}},
            TypeError,
            r"extra\['a'\] must be an array of numbers or text, got an object",
        ),
        ({"config": {"a": object}}, TypeError, "config must be JSON-serializable"),
        ({"metrics": {"loss": float("nan")}}, ValueError, "metrics must be JSON-serializable"),
        ({"rows": [{"update": {1}}]}, TypeError, "rows must be JSON-serializable"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path, arguments, kind, message):
    with pytest.raises(kind, match=message):
        Checkpoints(tmp_path / "new").save(**{"update": 1, "state": make_state(), "config": {}, **arguments})
    assert not (tmp_path / "new").exists()


def test_the_checkpoint_of_another_run_or_update_is_not_taken(tmp_path):
    """Nor is one whose sums have lost a line together with the file, or that a later version wrote."""
    state, said = make_state(), []
    mine, sibling = (Checkpoints(tmp_path / name, run=name, warn=said.append) for name in ("mine", "sibling"))
    for update in (1, 2):
        mine.save(update, state, config={})
        sibling.save(update, state, config={})
    rows = [{"update": 2, "test_loss": 0.5}]
    mine.save(3, state, config={}, rows=rows)
    assert mine.latest(like=state).rows == rows
    shutil.rmtree(mine.folder / "3")
    shutil.rmtree(mine.folder / "2")
    shutil.copytree(sibling.folder / "2", mine.folder / "2")
    shutil.copytree(mine.folder / "1", mine.folder / "3")
    shutil.copytree(mine.folder / "1", mine.folder / "4")
    largest = max(files(mine.folder / "4" / "state"), key=lambda path: path.stat().st_size)
    largest.unlink()
    sums = mine.folder / "4" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if largest.name not in line))
    assert mine.latest(like=state).update == 1
    reasons = ["SHA256SUMS is incomplete", "it is the checkpoint of update 1", "it belongs to another run"]
    assert [text.partition("(")[2].partition(")")[0] for text in said] == reasons


def test_odd_names_are_ignored_with_a_note(tmp_path):
    state, said = make_state(), []
    checkpoints = Checkpoints(tmp_path, warn=said.append)
    checkpoints.save(1, state, config={})
    for name in ("007", "\u0663", "-1", "final", "9x"):
        shutil.copytree(tmp_path / "1", tmp_path / name)
    (tmp_path / "12").write_text("")
    (tmp_path / "13").symlink_to(tmp_path / "1")
    assert checkpoints.latest(like=state).update == 1 and len(said) == 7
    assert all(text.endswith("is not a checkpoint and is ignored") for text in said)


def test_a_run_can_begin_with_the_parameters_of_a_checkpoint(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), make_state(seed=3)
    checkpoints.save(7, state, config={})
    like = jax.tree.map(jnp.zeros_like, state.params)
    params, model_state = load_model(tmp_path / "7", params=like)
    assert model_state is None
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    with pytest.raises(
        ValueError, match=r"another model: params/w is float64\[5\] in the checkpoint, but .*\[6\] here"
    ):
        load_model(tmp_path / "7", params={**like, "w": jnp.zeros(6, jnp.float32)})
    tuples = state._replace(params=(Pair(2.0 * jnp.ones(3), jnp.zeros(2)), [jnp.arange(4.0)]))
    checkpoints.save(8, tuples, config={})
    params, _ = load_model(tmp_path / "8", params=tuples.params)
    jax.tree.map(np.testing.assert_array_equal, params, tuples.params)
    with pytest.raises(FileNotFoundError, match="is not a checkpoint; expected a folder such as"):
        load_model(tmp_path / "9", params=like)
    largest = max(files(tmp_path / "7" / "state"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="is corrupted"):
        load_model(tmp_path / "7", params=like)


def test_of_a_checkpoint_only_the_model_is_loaded(tmp_path, monkeypatch):
    """Not the versions and velocities of all workers, which are many times as much."""
    from orbax.checkpoint import v1 as orbax

    load, loaded, state = orbax.load, [], make_state()
    Checkpoints(tmp_path).save(7, state, config={})
    monkeypatch.setattr(orbax, "load", lambda *arguments: loaded.append(load(*arguments)) or loaded[-1])
    params, model_state = load_model(tmp_path / "7", params=state.params, model_state=state.model_state)
    jax.tree.map(np.testing.assert_array_equal, (params, model_state), (state.params, state.model_state))
    arrays = [x for x in jax.tree.leaves(loaded) if isinstance(x, jax.Array)]
    assert len(arrays) == len(jax.tree.leaves((params, model_state))) == 3
