"""Theorems 2, 3, 6 and 7: recursions of the mean, against sums over all sequences of staleness."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from asyncflax import _style, staleness, theory
from asyncflax.lab.studies.theorems._facts import Found, Size, identity
from asyncflax.lab.studies.theorems._runs import all_orders, paths, random_gradient


def theorem_2(size: Size) -> Found:
    """Compares eq. 7 with the average over all sequences of staleness, for random distributions and non-convex f."""
    rng, worst, shown = np.random.default_rng(2), 0.0, {}
    for _ in range(size.cases):
        values = int(rng.integers(2, 5))
        q = rng.dirichlet(np.ones(values))
        sequences = np.array(list(itertools.product(range(values), repeat=6)))
        weight = np.prod(q[sequences], axis=1)
        gradient, alpha = random_gradient(rng), rng.uniform(0.1, 1.0)
        x = paths(np.maximum(np.arange(6) - sequences, 0), lambda x, g=gradient, a=alpha: a * g(x), rng.normal())
        mean, step = weight @ x, alpha * (weight @ gradient(x))  # E x_t, alpha E grad f(x_t)
        kernel, predicted = theory.momentum_kernel(q), mean.copy()
        for t in range(1, 6):
            earlier = step[np.maximum(t - 1 - np.arange(values), 0)]
            predicted[t + 1] = 2 * mean[t] - mean[t - 1] - kernel.current * step[t] + kernel.past @ earlier
        worst = max(worst, np.abs(mean - predicted).max())
        shown[f"staleness 0 to {values - 1}"] = mean, predicted
    fact = identity(
        "theorem-2",
        "Staleness of any law moves the mean as eq. 7 says, with a memory of all gradients; f need not be convex.",
        "Theorem 2",
        worst,
        size.cases,
        "random laws and functions",
    )
    return [fact], _drawn(shown, "average over all sequences of staleness", "eq. 7")


def theorem_3(size: Size) -> Found:
    """Compares eq. 8 with eq. 5 and 6 under geometric staleness."""
    rng, worst, shown = np.random.default_rng(3), 0.0, {}
    for _ in range(size.cases):
        mu = rng.uniform(0.05, 0.95)
        h = rng.uniform(0.05, 0.9) * 2 * (1 + mu) / (1 - mu)  # up to 0.9 of the limit of stability
        stale = theory.mean_iterates(staleness.geometric(mu / (1 - mu)), h, 60)
        x, dx = np.ones(61), -h  # as if the step before the first had been -alpha grad f(x_0): staleness is clamped
        for t in range(60):
            dx = mu * dx - (1 - mu) * h * x[t]
            x[t + 1] = x[t] + dx
        worst = max(worst, np.max(np.abs(x - stale)) / np.max(np.abs(x)))
        shown[f"implicit momentum {mu:.2f}"] = stale[:26], x[:26]
    fact = identity(
        "theorem-3",
        "Geometric staleness is momentum SGD with momentum mu_S and step (1 - mu_S) alpha, in the mean.",
        "Theorem 3",
        worst,
        size.cases,
        "random mu_S and steps",
    )
    return [fact], _drawn(shown, "stale gradients", "momentum SGD")


def theorems_6_and_7(size: Size) -> Found:
    """Checks explicit momentum on all sequences of geometric staleness and all orders of delivery."""
    rng, worst, shown, cases = np.random.default_rng(7), 0.0, {}, max(size.cases // 8, 1)
    late = np.array(list(itertools.product(*map(range, range(1, 8)))))  # staleness 0 to t at update t
    orders = [all_orders(m) for m in range(1, 9)]
    for _ in range(cases):
        mu = rng.uniform(0.05, 0.95)
        chance = np.where(late < np.arange(7), 1 - mu, 1.0) * mu**late  # the oldest version has the remaining mass
        models = [(mu, np.arange(7) - late, chance.prod(axis=1))]
        models += [(1 - 1 / m, read, np.full(len(read), 1 / len(read))) for m, read in enumerate(orders, 1)]
        for implicit, read, weight in models:
            gradient, alpha, explicit = random_gradient(rng), rng.uniform(0.1, 1.0), rng.uniform(-0.9, 0.9)
            x = paths(read, lambda x, g=gradient, a=alpha: a * g(x), rng.normal(), explicit)
            mean = weight @ x
            dx = np.diff(mean, prepend=mean[0])  # Dx_0 = 0
            want = (explicit + implicit) * dx[1:-1] - explicit * implicit * dx[:-2]
            want -= (1 - implicit) * alpha * (weight @ gradient(x))[1:-1]
            worst = max(worst, np.max(np.abs(dx[2:] - want)))
            momenta = f"implicit momentum {implicit:.2f}, explicit {explicit:.2f}"
            shown[momenta] = mean, np.concatenate([mean[:2], mean[1:-1] + want])
    fact = identity(
        "theorems-6-and-7",
        "With explicit momentum mu_L the mean moves with momentum mu_L + mu_S and a further term, -mu_L mu_S times "
        "the step before that: geometric staleness, and queues of 1 to 8 workers with exponential work.",
        "Theorems 6 and 7 (Allerton version)",
        worst,
        cases * (1 + len(orders)),
        "random functions, each over all sequences",
    )
    return [fact], _drawn(shown, "average over all sequences", "the recurrence")


def _drawn(shown: dict[str, tuple[np.ndarray, np.ndarray]], left: str, right: str) -> Any:
    """Draws the two sides of an identity as trajectories of the mean of x, in the first three cases."""
    figure = _style.new_figure(7.5, 4.2)
    axes = figure.subplots()
    for k, (case, (points, line)) in enumerate(list(shown.items())[:3]):
        axes.plot(line, color="black", linewidth=1, zorder=1, label=right if k == 0 else "_more")
        axes.plot(points, **_style.look(k, len(points)) | {"linestyle": "", "markevery": None}, label=case)
    axes.set(xlabel="updates", ylabel="mean of x", title=f"Points: {left}; lines: {right}")
    axes.legend()
    return figure
