"""The ring of past versions, in device and in host memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from asyncflax import staleness
from asyncflax.history import Ring

SPACES = {"device": jax.memory.Space.Device, "pinned_host": jax.memory.Space.Host}
memories = pytest.mark.parametrize("memory", ["device", "pinned_host"])


def version(v):
    return {"w": jnp.full(3, float(v)), "b": jnp.asarray(v, jnp.int32)}


@memories
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_ring_holds_the_newest_versions(memory, wrap):
    ring = Ring(4, memory)
    push, read = wrap(ring.push), wrap(lambda state, age: ring.read(state, age))
    state = ring.init(version(0))
    for newest in range(1, 12):
        state = push(state, version(newest))
        for age in range(4):
            got = read(state, jnp.asarray(age))
            assert got["w"][0] == max(newest - age, 0) and got["b"] == got["w"][0]
            assert jax.typeof(got["w"]).memory_space == SPACES["device"]
    assert {jax.typeof(leaf).memory_space for leaf in jax.tree.leaves(state.rows)} == {SPACES[memory]}


@memories
def test_a_scan_samples_the_law(memory):
    """What is read is as old as it says, and how old follows the law once the ring is full."""
    law, ring = staleness.geometric(2.0), Ring(40, memory)

    def step(state, inputs):
        key, newest = inputs
        read = ring.sample(state, law, key)
        state = ring.push(state, jnp.asarray(newest + 1.0))
        return state, (newest - read.params, read.staleness, read.clipped)

    steps = 8000
    inputs = (jax.random.split(jax.random.key(0), steps), jnp.arange(steps))
    start = ring.init(jnp.zeros(()))
    state, (age, tau, clipped) = jax.jit(lambda s: jax.lax.scan(step, s, inputs))(start)
    np.testing.assert_array_equal(age, tau)
    assert np.all(tau <= np.arange(steps)) and not clipped.any()
    assert jax.typeof(state.rows).memory_space == SPACES[memory]
    observed = np.bincount(np.asarray(tau[50:]), minlength=15)
    expected = len(tau[50:]) * np.append(law.pmf(np.arange(14)), law.tail(13))
    observed = np.append(observed[:14], observed[14:].sum())
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


def test_a_ring_can_be_vmapped():
    ring, law = Ring(8), staleness.uniform(0, 7)
    params = jnp.arange(12.0).reshape(4, 3)
    state = jax.vmap(ring.init)(params)
    state = jax.vmap(ring.push)(state, params + 1)
    read = jax.vmap(lambda s, k: ring.sample(s, law, k))(state, jax.random.split(jax.random.key(0), 4))
    assert jnp.array_equal(read.params, params + 1 - read.staleness[:, None])


def test_clipping_is_asked_for_and_said():
    law = staleness.constant(5)
    with pytest.raises(
        ValueError, match=r"capacity=3 is too small for constant\(5\).*Use capacity=6, or beyond='clip'"
    ):
        Ring(3).sample(Ring(3).init(jnp.zeros(())), law, jax.random.key(0))
    ring = Ring(3, beyond="clip")
    state = ring.init(jnp.zeros(()))
    clipped = []
    for _ in range(5):
        read = ring.sample(state, law, jax.random.key(0))
        clipped.append(bool(read.clipped))
        state = ring.push(state, state.rows[0])
    assert clipped == [False, False, False, True, True]  # clamped at first, clipped once version 0 is gone


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Ring(0), ValueError, "capacity must be an integer >= 1, got capacity=0"),
        (lambda: Ring(4, "disk"), ValueError, "memory must be one of 'device', 'pinned_host', got 'disk'"),
        (lambda: Ring(4, beyond="wrap"), ValueError, "beyond must be one of"),
        (
            lambda: Ring(4).read(Ring(4).init(jnp.zeros(())), -1),
            ValueError,
            "staleness must be an integer >= 0, got staleness=-1",
        ),
        (
            lambda: Ring(4).read(Ring(4).init(jnp.zeros(())), 4),
            ValueError,
            "staleness must be at most 3, got staleness=4",
        ),
        (lambda: Ring(4).read(Ring(4).init(jnp.zeros(())), 1.5), TypeError, "staleness must be a concrete integer"),
        (
            lambda: Ring(4).push(Ring(4).init({"w": jnp.zeros(3)}), {"w": jnp.ones(2)}),
            ValueError,
            r"params\['w'\] must have the shape of the ring's template, \(3,\); got \(2,\)",
        ),
        (
            lambda: Ring(4).push(Ring(4).init(jnp.zeros(3, int)), jnp.ones(3)),
            TypeError,
            "the ring holds int64, got float64",
        ),
        (lambda: Ring(4).check(3.0), TypeError, "law must be a distribution of asyncflax.staleness, got 3.0"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_reads_outside_of_a_ring_give_its_ends():
    """A traced staleness cannot be refused: it is clipped; an empty ring reads as zeros and says staleness 0."""
    ring = Ring(3)
    state = ring.push(ring.push(ring.init(jnp.array(5.0)), jnp.array(6.0)), jnp.array(7.0))
    read = jax.jit(ring.read)
    assert [float(read(state, age)) for age in (-1, 0, 2, 9)] == [7.0, 7.0, 5.0, 5.0]
    sample = ring.sample(ring.empty(jnp.array(1.0)), staleness.constant(2), jax.random.key(0))
    assert float(sample.params) == 0.0 and int(sample.staleness) == 0
