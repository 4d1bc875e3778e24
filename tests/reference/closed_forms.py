"""Theory on (lambda/2) x^2, with h = alpha lambda."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from reference.server import Array


def mean_under_law(q: Sequence[float], h: float, x0: float, steps: int, before_start: str = "clamp") -> list[float]:
    """[E x_0, ..., E x_steps] under i.i.d. staleness: E x_{t+1} = E x_t - h sum_l q_l E x_{t-l}.

    Where l > t, "clamp" reads x_0 and "drop" makes no step. Either way all mass at l >= steps may be lumped
    into one entry at l = steps, so a law without end (the geometric) is still treated exactly.
    """
    assert before_start in ("clamp", "drop")
    x = [x0]
    for t in range(steps):
        read = 0.0
        for lag, probability in enumerate(q):
            if lag <= t:
                read += probability * x[t - lag]
            elif before_start == "clamp":
                read += probability * x[0]
        x.append(x[t] - h * read)
    return x


def momentum_recursion(mu: float, h_eff: float, x0: float, first_step: float, steps: int) -> list[float]:
    """[x_0, ..., x_steps] of Dx_{t+1} = mu Dx_t - h_eff x_t, where x_1 = x_0 + first_step."""
    x = [x0, x0 + first_step]
    for t in range(1, steps):
        x.append(x[t] + mu * (x[t] - x[t - 1]) - h_eff * x[t])
    return x[: steps + 1]


def queue_mean(num_workers: int, h: float, x0: float, steps: int) -> list[float]:
    """[E x_0, ..., E x_steps] in the exponential queue of M workers, m the mean of their snapshots.

    E x' = x - h m and E m' = (1 - 1/M) m + (1/M) x', from m_0 = x_0.
    """
    x, m = [x0], x0
    for t in range(steps):
        x.append(x[t] - h * m)
        m = (1 - 1 / num_workers) * m + x[t + 1] / num_workers
    return x


def queue_mean_square_matrix(h: float, num_workers: int) -> Array:
    """The exponential queue's map of (E x^2, E x m, mean_i E s_i^2, E m^2); s_i are snapshots, m their mean.

    One uniform event i: x' = x - h s_i, s_i' = x', hence m' = m + (x - (1 + h) s_i) / M.
    """
    k = 1 / num_workers
    return np.array(
        [
            [1, -2 * h, h**2, 0],
            [k, 1 - (1 + 2 * h) * k, h * (1 + h) * k, -h],
            [k, -2 * h * k, 1 - k + h**2 * k, 0],
            [k**2, 2 * k - 2 * (1 + h) * k**2, (1 + h) ** 2 * k**2, 1 - 2 * (1 + h) * k],
        ]
    )


def fixed_point(step: Callable[[Array], Array], p: Array, tolerance: float = 1e-14) -> Array:
    """Iterates p <- step(p) until no entry moves by more than `tolerance` relative to the largest."""
    for _ in range(200_000):
        last, p = p, step(p)
        if np.abs(p - last).max() <= tolerance * np.abs(p).max():
            return p
        if np.abs(p).max() > 1e12:
            break
    raise ArithmeticError("no stationary covariance: h is beyond the mean-square stability limit")


def stationary_variance_eq6(q: Sequence[float], h: float, s: float) -> float:
    """Var x of x_{t+1} = x_t - h x_{t-tau_t} - s n_t: old parameters, fresh unit noise n_t (eq. 6).

    P is the covariance of (x_t, x_{t-1}, ..., x_{t-L}), averaged over tau_t ~ q; the past only moves down.
    """

    def step(p: Array) -> Array:
        new = np.zeros_like(p)
        new[1:, 1:] = p[:-1, :-1]
        new[0, 0] = s**2
        for lag, probability in enumerate(q):  # x' = x_0 - h x_lag - s n
            new[0, 0] += probability * (p[0, 0] - 2 * h * p[0, lag] + h**2 * p[lag, lag])
            new[0, 1:] += probability * (p[0, :-1] - h * p[lag, :-1])
        new[1:, 0] = new[0, 1:]
        return new

    return float(fixed_point(step, np.zeros((len(q), len(q))))[0, 0])


def stationary_variance_replay(q: Sequence[float], h: float, s: float) -> float:
    """Var x of x_{t+1} = x_t - y_{t-tau_t}, y_t = h x_t + s n_t: old gradients replayed, noise and all.

    P is the covariance of (x_t, y_t, y_{t-1}, ..., y_{t-L}), averaged over tau_t ~ q.
    """

    def step(p: Array) -> Array:
        new = np.zeros_like(p)
        new[2:, 2:] = p[1:-1, 1:-1]
        for lag, probability in enumerate(q, start=1):  # x' = x - y_lag
            new[0, 0] += probability * (p[0, 0] - 2 * p[0, lag] + p[lag, lag])
            new[0, 2:] += probability * (p[0, 1:-1] - p[lag, 1:-1])
        new[0, 1], new[1, 1] = h * new[0, 0], h**2 * new[0, 0] + s**2  # y' = h x' + s n'
        new[1, 2:] = h * new[0, 2:]
        new[1:, 0] = new[0, 1:]
        new[2:, 1] = new[1, 2:]
        return new

    return float(fixed_point(step, np.zeros((len(q) + 1, len(q) + 1)))[0, 0])


def delay_limit(tau: int) -> float:
    """The largest stable h under a constant delay: 2 sin(pi / (2 (2 tau + 1)))."""
    return 2 * math.sin(math.pi / (2 * (2 * tau + 1)))


def repairman(num_workers: int, ratio: float) -> float:
    """The utilization of the server of M/M/1//M, the machine repairman; `ratio` is its mean time over a worker's."""
    weights = [math.perm(num_workers, n) * ratio**n for n in range(num_workers + 1)]  # of n at the server
    return 1 - weights[0] / sum(weights)


def throughput(num_workers: int, think: float, stages: Sequence[float]) -> float:
    """Jobs a second in a closed network of M workers: exponential stages in which they stand in line, by their means.

    Mean value analysis (Reiser and Lavenberg 1980): who arrives finds the line of a network with one worker less.
    """
    lines = [0.0] * len(stages)
    for m in range(1, num_workers + 1):
        stays = [mean * (1 + line) for mean, line in zip(stages, lines, strict=True)]
        rate = m / (think + sum(stays))
        lines = [rate * stay for stay in stays]
    return rate
