"""The theorems as functions: the papers' numbers, and identities between them."""

import numpy as np
import pytest
import reference
from problems import assert_close

from asyncflax import staleness, theory

H, STEPS = 0.3, 60


def test_implicit_momentum_of_workers():
    assert [theory.implicit_momentum(m) for m in (1, 2, 4, 5, 8)] == [0.0, 0.5, 0.75, 0.8, 0.875]


def test_the_rule_behind_figure_2():
    """mu* - mu_S for mu* = 0.8: zero at 5 groups."""
    rule = [theory.compensating_momentum(0.8, m) for m in (1, 2, 3, 4, 5, 6, 8, 12, 16)]
    np.testing.assert_allclose(rule, [0.8, 0.3, 0.133, 0.05, 0.0, -0.033, -0.075, -0.117, -0.137], atol=6e-4)
    assert theory.turning_point(0.8) == pytest.approx(5.0)
    for target in (0.0, 0.3, 0.5, 0.875):
        # At the turning point asynchrony alone has the target.
        assert 1 - 1 / theory.turning_point(target) == pytest.approx(target)


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0, 7.0])
def test_theorem_3_is_theorem_2_for_the_geometric_law(mean):
    """q_l - q_{l+1} = (1 - mu) q_l: the kernel gives back 1 - mu of what the last step took."""
    mu = mean / (1 + mean)
    for law in (staleness.geometric(mean), staleness.geometric(mean).table):
        kernel = theory.momentum_kernel(law)
        assert kernel.current == pytest.approx(1 - mu, abs=1e-15)
        lags = np.arange(len(kernel.past))
        assert_close(kernel.past, (1 - mu) ** 2 * mu**lags)
    x = _by_the_kernel(kernel, H, STEPS)
    assert_close(x, reference.momentum_recursion(mu, (1 - mu) * H, 1.0, -H, STEPS))


@pytest.mark.parametrize(
    "law",
    [
        staleness.uniform(0, 3),
        staleness.uniform(2, 5),
        staleness.constant(4),
        staleness.negative_binomial(2.0, 2.0),
        staleness.poisson(3.0),
        staleness.empirical([0.2, 0.0, 0.5, 0.3]),
    ],
    ids=lambda law: law.name,
)
def test_theorem_2_gives_the_mean_under_any_law(law):
    kernel = theory.momentum_kernel(law)
    assert np.sum(kernel.past) == pytest.approx(kernel.current, abs=1e-15)
    assert_close(_by_the_kernel(kernel, H, STEPS), reference.mean_under_law(law.table, H, 1.0, STEPS))


def _by_the_kernel(kernel, h, steps):
    """Eq. 7 on the quadratic, from a full first step; before the start the gradient is that at x_0 = 1."""
    past = len(kernel.past) + 1
    x = [1.0] * past + [1.0, 1.0 - h]
    for t in range(past + 1, past + steps):
        gives_back = sum(weight * x[t - 1 - lag] for lag, weight in enumerate(kernel.past))
        x.append(x[t] + (x[t] - x[t - 1]) - h * kernel.current * x[t] + h * gives_back)
    return x[past:]


@pytest.mark.parametrize("num_workers", [1, 2, 5, 8])
@pytest.mark.parametrize("explicit", [0.0, 0.3, -0.09, 0.9])
def test_explicit_and_implicit_momentum_multiply(num_workers, explicit):
    """The operator (1 - mu_L B)(1 - mu_S B), and the mean of the queue with it."""
    implicit = theory.implicit_momentum(num_workers)
    operator = theory.total_momentum_operator(explicit, implicit)
    assert_close([1.0, -operator.first, -operator.second], np.convolve([1.0, -explicit], [1.0, -implicit]))
    x = theory.mean_iterates(theory.ExponentialQueue(num_workers), h=0.2, num_updates=STEPS, momentum=explicit)
    dx = np.diff(x)
    want = operator.first * dx[1:-1] + operator.second * dx[:-2] - (1 - implicit) * 0.2 * x[2:-1]
    assert_close(dx[2:], want)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: theory.implicit_momentum(0), ValueError, "num_workers must be an integer >= 1, got num_workers=0"),
        (lambda: theory.implicit_momentum(2.5), TypeError, "num_workers must be a concrete integer, got 2.5"),
        (lambda: theory.momentum_kernel([0.5, 0.4]), ValueError, "pmf sums to 0.9, not 1"),
        (lambda: theory.momentum_kernel([1.5, -0.5]), ValueError, r"pmf\[1\]=-0.5 is not a probability"),
        (lambda: theory.momentum_kernel("geometric"), TypeError, "pmf must be a list of probabilities"),
        (lambda: theory.compensating_momentum(1.2, 4), ValueError, "target must be finite and in"),
        (lambda: theory.compensating_momentum(0.8, 0), ValueError, "num_workers must be an integer >= 1"),
        (lambda: theory.turning_point(1.0), ValueError, r"target must be .* in \[0, 1\), got target=1.0"),
        (lambda: theory.turning_point(-0.1), ValueError, "target must be finite and in"),
        (lambda: theory.total_momentum_operator(1.5, 0.5), ValueError, "explicit must be finite and in"),
        (lambda: theory.total_momentum_operator(0.5, -0.5), ValueError, "implicit must be finite and in"),
        (lambda: theory.total_momentum_operator(0.5, 1.0), ValueError, r"implicit must be .* in \[0, 1\)"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
