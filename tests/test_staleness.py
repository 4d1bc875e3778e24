"""Staleness laws against scipy, and the traces and draws that follow from them."""

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from asyncflax import staleness

LAWS = [
    (staleness.constant(7), scipy.stats.rv_discrete(values=([7], [1.0]))),
    (staleness.uniform(0, 14), scipy.stats.randint(0, 15)),
    (staleness.uniform(3, 5), scipy.stats.randint(3, 6)),
    (staleness.geometric(7.0), scipy.stats.geom(1 / 8, loc=-1)),
    (staleness.geometric(0.0), scipy.stats.rv_discrete(values=([0], [1.0]))),
    (staleness.geometric(63.0), scipy.stats.geom(1 / 64, loc=-1)),
    (staleness.poisson(7.0), scipy.stats.poisson(7.0)),
    (staleness.poisson(300.0), scipy.stats.poisson(300.0)),
    (staleness.negative_binomial(7.0, 2.0), scipy.stats.nbinom(2.0, 2 / 9)),
    (staleness.negative_binomial(7.0, 0.3), scipy.stats.nbinom(0.3, 0.3 / 7.3)),
    (staleness.empirical([0.1, 0.0, 0.9]), scipy.stats.rv_discrete(values=([0, 2], [0.1, 0.9]))),
]
laws = pytest.mark.parametrize("law, twin", LAWS, ids=[law.name for law, _ in LAWS])


@laws
def test_laws_equal_scipy(law, twin):
    k = np.arange(-2, 2 * law.maximum + 5)
    np.testing.assert_allclose(law.pmf(k), twin.pmf(k), rtol=1e-10, atol=1e-15)
    assert law.mean == pytest.approx(twin.mean(), abs=1e-9)
    assert law.variance == pytest.approx(twin.var(), rel=1e-9, abs=1e-9)
    assert law.table.sum() == pytest.approx(1.0, abs=1e-13)
    for staleness_ in (-1, 0, 3, law.maximum):
        assert law.tail(staleness_) == pytest.approx(twin.sf(staleness_), abs=1e-13)
    bound = law.bound(1e-3)
    assert law.tail(bound) <= 1e-3 and (bound == 0 or law.tail(bound - 1) > 1e-3)


@laws
def test_traces_and_draws_have_the_law(law, twin):
    size = 20_000
    trace = law.trace(num_updates=size, seed=1)
    settled = trace.staleness[law.maximum :]
    if len(settled) > 1000:
        _assert_distribution(settled, twin)
    draws = law.sample(jax.random.key(2), (size,))
    assert draws.dtype == np.int32
    _assert_distribution(np.asarray(draws), twin)


def _assert_distribution(draws, twin):
    """Pearson's chi-square over classes of at least 20 expected draws; fails by chance once in 10^5."""
    last = int(draws.max()) + 1
    expected = len(draws) * np.append(twin.pmf(np.arange(last)), twin.sf(last - 1))
    observed = np.bincount(draws, minlength=last + 1).astype(float)
    classes = np.minimum(np.cumsum(expected)[:] // 20, expected.sum() // 20 - 1).astype(int)
    expected, observed = np.bincount(classes, expected), np.bincount(classes, observed)
    observed, expected = observed[expected > 0], expected[expected > 0]
    if len(expected) > 1:
        assert scipy.stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-5
    else:
        assert observed.sum() == pytest.approx(expected.sum())


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 5))
@pytest.mark.parametrize("before_start", ["clamp", "drop"])
@pytest.mark.parametrize("assign", ["uniform", "round_robin"])
def test_a_longer_trace_extends_a_shorter_one(before_start, assign, size, more, seed):
    options = {"seed": seed, "num_workers": 3, "assign": assign, "before_start": before_start}
    law = staleness.geometric(4.0)
    short, long = (law.trace(num_updates=n, **options) for n in (size, size + more))
    long = long.prefix(size)
    np.testing.assert_array_equal(short.worker, long.worker)
    np.testing.assert_array_equal(short.read_version, long.read_version)
    np.testing.assert_array_equal(short.time, long.time)


def test_seeds_differ():
    law = staleness.geometric(4.0)
    assert np.any(law.trace(num_updates=100, seed=0).read_version != law.trace(num_updates=100, seed=1).read_version)


def test_drop_makes_no_update_before_there_is_a_version():
    """Tick by tick: an update at tick n with staleness tau reads what the server handed out at tick n - tau."""
    law = staleness.geometric(5.0)
    trace = law.trace(num_updates=300, seed=2, before_start="drop")
    draws = law._draw(300 + law.maximum, seed=2)
    version_at_tick, made = [0], []
    for tick, tau in enumerate(draws):
        if tau <= tick:
            made.append((tick, version_at_tick[tick - tau]))
        version_at_tick.append(len(made))
    np.testing.assert_array_equal(trace.time, [tick for tick, _ in made[:300]])
    np.testing.assert_array_equal(trace.read_version, [version for _, version in made[:300]])


def test_identities():
    law = staleness.constant(1)
    assert law.trace(num_updates=6, num_workers=3, assign="round_robin").worker.tolist() == [0, 1, 2, 0, 1, 2]
    uniform = law.trace(num_updates=6000, num_workers=3).worker
    assert scipy.stats.chisquare(np.bincount(uniform)).pvalue > 1e-5
    assert law.trace(num_updates=6).num_workers == 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: staleness.constant(-1), "staleness must be an integer >= 0, got staleness=-1"),
        (lambda: staleness.uniform(3, 2), "high must be an integer >= 3, got high=2"),
        (lambda: staleness.geometric(-0.5), "mean must be finite and in"),
        (lambda: staleness.geometric(np.nan), "mean must be finite"),
        (lambda: staleness.geometric(np.array([1.0, 2.0])), "mean must be a single concrete number"),
        (lambda: staleness.geometric(1e8), "reaches beyond a staleness of 16,777,216"),
        (lambda: staleness.StalenessLaw("x", np.array([np.nan, 2.0]), 0.0), r"x: pmf\[0\]=nan is not a probability"),
        (
            lambda: staleness.StalenessLaw("x", np.array([0.5, 0.5]), 7.0),
            "mean must match the table's mean, 0.5, got mean=7.0",
        ),
        (lambda: staleness.uniform(0, 3).bound(-1), "mass must be finite and in"),
        (lambda: staleness.uniform(0, 3).bound(np.nan), "mass must be finite and in"),
        (lambda: staleness.empirical(["a"]), "pmf must be a list of probabilities"),
        (lambda: staleness.constant(1).trace(num_updates=5, seed=-1), "seed must be an integer >= 0"),
        (lambda: staleness.poisson(1e4), "mean must be finite and in"),
        (lambda: staleness.negative_binomial(5.0, 0.0), "shape must be finite and in"),
        (lambda: staleness.negative_binomial(5000.0, 5000.0), "underflows; use poisson"),
        (lambda: staleness.empirical([0.5, np.nan]), r"pmf\[1\]=nan is not a probability"),
        (lambda: staleness.empirical([1.5, -0.5]), r"pmf\[1\]=-0.5 is not a probability"),
        (lambda: staleness.empirical([0.5, 0.4]), "pmf sums to 0.9, not 1"),
        (lambda: staleness.empirical([]), "pmf must be a list of probabilities"),
        (lambda: staleness.constant(1).trace(num_updates=0), "num_updates must be an integer >= 1"),
        (lambda: staleness.constant(1).trace(num_updates=5, num_workers=0), "num_workers must be an integer >= 1"),
        (
            lambda: staleness.constant(1).trace(num_updates=5, assign="x"),
            "assign must be one of 'uniform', 'round_robin'",
        ),
        (lambda: staleness.constant(1).trace(num_updates=5, before_start="x"), "before_start must be one of"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
