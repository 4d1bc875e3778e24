"""Theorem 5, the staleness behind it, and its momentum measured in single runs: queues of workers."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats

from asyncflax import _style, plots, queues, staleness, theory
from asyncflax.lab.statistics import Interval, decide_number, proportion, spread, student
from asyncflax.lab.studies.theorems._facts import MOMENTUM, PAPER, Found, Size, identity, near, of_all
from asyncflax.lab.studies.theorems._runs import all_orders, exponential_queue, paths, random_gradient

_SERVICE_TIMES = (
    queues.exponential(),
    queues.deterministic(),
    queues.gamma(0.5),
    queues.heterogeneous_gamma(),
    queues.lognormal(),
    queues.pareto(),
    queues.stragglers(),
)


def theorem_5(size: Size) -> Found:
    """Compares eq. 9 with all orders of delivery, and with simulated queues."""
    rng, worst, cases = np.random.default_rng(5), 0.0, max(size.cases // 8, 1)
    for m in range(1, 9):
        read = all_orders(m)
        for _ in range(cases):
            gradient, alpha = random_gradient(rng), rng.uniform(0.1, 1.0)
            x = paths(read, lambda x, g=gradient, a=alpha: a * g(x), rng.normal())
            mean, step = x.mean(axis=0), alpha * gradient(x).mean(axis=0)
            dx = np.diff(mean)
            worst = max(worst, np.max(np.abs(dx[1:] - (1 - 1 / m) * dx[:-1] + step[1:-1] / m)))
    exact = identity(
        "theorem-5",
        "In a queue of M workers with exponential work the mean moves with momentum 1 - 1/M (M = 1 to 8).",
        "Theorem 5",
        worst,
        cases * 8,
        "random functions, each over all orders of delivery",
    )

    workers, found, courses = list(range(1, 9)), [], {}
    for m in workers:
        h = 0.4 * theory.mean_square_limit(theory.ExponentialQueue(m))
        read = np.stack([exponential_queue(m, 30, seed).read_version for seed in range(size.runs)])
        courses[m] = h, paths(read, lambda x, h=h: h * x, 1.0)
        found.append(momentum_of_the_mean(courses[m][1], h, rng))
    want = [1 - 1 / m for m in workers]
    hits = sum(low <= mu + 1e-9 and mu - 1e-9 <= high for (_, low, high), mu in zip(found, want, strict=True))
    simulated = {
        "name": "theorem-5-simulated",
        "statement": "The mean of simulated queues moves with momentum 1 - 1/M.",
        "source": f"{PAPER}, Theorem 5",
        "paper": "0.875 at M = 8",
        "ours": f"{found[7].text(4)} at M = 8; {hits} of 8 intervals (M = 1 to 8) hold 1 - 1/M; tolerance {MOMENTUM}",
        **found[7].of_claim,
        "verdict": of_all(map(near, found, want)),
        "seeds": size.runs,
    }

    figure = _style.new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    left.plot(workers, want, color="black", linestyle="--", label="Theorem 5: 1 - 1/M", zorder=1)
    value, low, high = np.array(found).T
    bars = np.maximum([value - low, high - value], 0.0)
    left.errorbar(workers, value, bars, **_style.look(0) | {"linestyle": ""}, capsize=4, label="simulated, 95 %")
    left.set(xlabel="workers M", ylabel="implicit momentum")
    left.legend()
    for k, m in enumerate((2, 8)):
        h, x = courses[m]
        half, look = [at.high - at.value for at in map(student, x.T)], _style.look(k)
        label = f"{m} workers, mean of {len(x):,} runs"
        right.errorbar(range(31), x.mean(axis=0), half, **look | {"linestyle": ""}, label=label)
        curve = theory.mean_iterates(theory.ExponentialQueue(m), h, 30)
        right.plot(curve, color=look["color"], label=f"{m} workers, eq. 9")
    right.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    right.set(xlabel="updates", ylabel="mean of x, from 1, on a quadratic")
    right.legend()
    return [exact, simulated], figure


def momentum_of_the_mean(x: np.ndarray, h: float, rng: np.random.Generator) -> Interval:
    """mu in E y = mu E z, with y_t = Dx_{t+1} + h x_t and z_t = Dx_t + h x_t, and a bootstrap interval.

    One half of the runs gives E y and one factor E z, the other half the other: their errors are independent.
    """
    dx = np.diff(x, axis=1)
    y, z = dx[:, 1:] + h * x[:, 1:-1], dx[:, :-1] + h * x[:, 1:-1]
    if not np.any(np.abs(z) > 1e-12):
        return Interval(0.0, 0.0, 0.0)  # one worker: each step is fresh, y and z are zero
    half = len(x) // 2
    halves = slice(half), slice(half, 2 * half)

    def ratio(weights: np.ndarray) -> np.ndarray:
        (y_a, z_a), (y_b, z_b) = ([weights[:, part] @ each[part] / half for each in (y, z)] for part in halves)
        return np.sum(y_a * z_b + y_b * z_a, axis=-1) / (2 * np.sum(z_a * z_b, axis=-1))

    drawn = np.concatenate([rng.multinomial(half, np.full(half, 1 / half), size=1000) for _ in range(2)], axis=1)
    low, high = np.quantile(ratio(drawn), [0.025, 0.975])
    return Interval(float(ratio(np.ones((1, 2 * half)))[0]), float(low), float(high))


def staleness_of_queues(size: Size) -> Found:
    """Checks the distribution of staleness at a late event of many queues, and its mean for any service times."""
    late = np.array([exponential_queue(8, 200, seed).staleness[-1] for seed in range(size.runs)])
    momentum = Interval(*(x / (1 + x) for x in student(late)))
    below = staleness.geometric(7.0).table.cumsum()
    edges = np.unique(below.searchsorted(np.linspace(0, 1, 21)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, late), minlength=len(edges) + 1)
    chi2, p = stats.chisquare(counts, len(late) * np.diff(np.append(below[edges], 1.0), prepend=0.0))
    geometric = {
        "name": "staleness-geometric",
        "statement": "With exponential work staleness is geometric with mean M - 1, so mu_S = 1 - 1/M (M = 8).",
        "source": f"{PAPER}, Theorem 5 (proof)",
        "paper": "0.875",
        "ours": f"{momentum.text(4)}; "
        f"chi² {chi2:.1f} on {len(edges)} degrees of freedom, p = {p:.2f}; tolerance {MOMENTUM}",
        **momentum.of_claim,
        "verdict": near(momentum, 0.875),
        "seeds": size.runs,
    }

    traces = (
        queues.simulate(num_workers=8, num_updates=20_000, service_time=law, seed=seed)
        for law in _SERVICE_TIMES
        for seed in range(max(size.seeds // 5, 1))
    )
    means = np.array([trace.staleness[200:].mean() for trace in traces])
    mean_staleness = {
        "name": "staleness-mean",
        "statement": f"The mean staleness of 8 workers is 7 under each of {len(_SERVICE_TIMES)} laws of service time.",
        "source": f"{PAPER}, section 2.1",
        "paper": "M - 1 = 7 (exponential work)",
        "ours": f"{spread(means).text(3)}; tolerance 0.01",
        **spread(means).of_claim,
        "verdict": of_all(decide_number((mean, mean), low=6.99, high=7.01) for mean in means),
        "seeds": len(means),
        "confidence": 1.0,
    }

    figure = _style.new_figure(11, 4.2)
    panels = figure.subplots(1, 2)
    for axes, law, line in (
        (panels[0], queues.exponential(), staleness.geometric(7.0)),
        (panels[1], queues.gamma(0.1), None),
    ):
        trace = queues.simulate(num_workers=8, num_updates=20_000, service_time=law)
        plots.staleness_histogram(axes, trace, line, burn_in=200)
        axes.set_title("exponential work" if line else "nearly equal work (gamma, cv 0.1)")
    panels[1].set_ylabel("")
    return [geometric, mean_staleness], figure


def measured_momentum(size: Size) -> Found:
    """Measures implicit momentum in single noisy runs, and how often its interval contains 1 - 1/M."""
    settings = list(itertools.product([(2, 0.5), (4, 0.33), (8, 0.23)], [0.0, 0.3, -0.09]))
    rng, found = np.random.default_rng(6), {}
    for number, ((m, h), explicit) in enumerate(settings):
        curvature = np.linspace(0.7 * h, h, 32)
        first = 1000 * (number + 1)  # other seeds in each setting
        read = np.stack([exponential_queue(m, 1000, first + seed).read_version for seed in range(size.seeds)])
        x = paths(read, lambda x, c=curvature: c * x, np.zeros(32), explicit, 0.3 * curvature, rng)
        found[m, explicit] = np.array(
            [theory.estimate_momentum(run, curvature * run, learning_rate=1.0, momentum=explicit) for run in x]
        )
    holds = {(m, mu): (e[:, 1] <= 1 - 1 / m) & (1 - 1 / m <= e[:, 2]) for (m, mu), e in found.items()}
    hits, total = (int(sum(map(count, holds.values()))) for count in (np.sum, len))
    share, half = proportion(hits, total), np.mean([e[:, 2] - e[:, 1] for e in found.values()]) / 2
    eight = np.concatenate([e[:, 0] for (m, _), e in found.items() if m == 8])
    mean = student(eight)
    single = {
        "name": "measured-momentum",
        "statement": "Implicit momentum can be measured in a run (8 workers, explicit momentum 0, 0.3 and -0.09).",
        "source": f"{PAPER}, Theorem 5",
        "paper": "0.875",
        "ours": f"{mean.text(4)}; tolerance {MOMENTUM}",
        **mean.of_claim,
        "verdict": near(mean, 0.875),
        "seeds": len(eight),
    }
    coverage = {
        "name": "measured-momentum-coverage",
        "statement": "The 95 % interval of implicit momentum, measured in one noisy run of 1,000 updates, holds "
        "1 - 1/M (M = 2, 4, 8).",
        "source": f"{PAPER}, Theorem 5",
        "paper": "95 % (nominal)",
        "ours": f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}); "
        f"mean half-width {half:.3f}; tolerance 3 points",
        **share.of_claim,
        "verdict": decide_number(share[1:], low=0.92, high=0.98),
        "seeds": total,
    }

    figure = _style.new_figure(13, 4.2)
    for axes, m in zip(figure.subplots(1, 3), (2, 4, 8), strict=True):
        order = np.argsort(found[m, 0.0][:, 0])
        value, low, high = found[m, 0.0][order].T
        inside = holds[m, 0.0][order]
        for chosen, color, what in ((inside, "0.4", "hold 1 - 1/M"), (~inside, _style.COLORS[1], "do not")):
            bars = [(value - low)[chosen], (high - value)[chosen]]
            runs = np.flatnonzero(chosen)
            if len(runs):
                label = f"{len(runs)} {what}"
                axes.errorbar(runs, value[chosen], bars, fmt=".", color=color, linewidth=1, label=label)
        axes.axhline(1 - 1 / m, color=_style.COLORS[0], zorder=0)
        axes.set_title(f"{m} workers, 1 - 1/M = {1 - 1 / m:g}")
        axes.legend(fontsize="small", loc="lower right")
    figure.supxlabel("single runs, sorted", fontsize="medium")
    figure.axes[0].set_ylabel("implicit momentum, 95 % interval")
    return [single, coverage], figure
