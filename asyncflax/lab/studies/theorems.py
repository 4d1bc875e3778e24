r"""The theorems of Mitliagkas et al. 2016 (arXiv:1605.09774) and what follows from them, checked and kept as claims.

Each check compares `asyncflax.theory` with something that knows nothing of it: sums over all orders in which workers
can deliver, simulated queues, recursions run forward, points of the paper's figures. Each makes claims with numbers,
intervals and verdicts, and a figure. `asyncflax theory` runs them all.

How close is close enough is stated here, in capitals, and the same for all: an exact identity has to hold to rounding,
a momentum to 0.005, a point of a published figure to 2 % of the range of its points. Other
tolerances stand in the rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy import optimize, stats

from asyncflax import _check, _style, plots, queues, staleness, theory
from asyncflax.lab.claims import Claim, cpu_minutes
from asyncflax.lab.statistics import Interval, decide_number, proportion, spread, student
from asyncflax.theory import planner

__all__ = ["study"]

_PAPER = "Mitliagkas et al. 2016"
_DERIVED = f"{_PAPER}, derived from eq. 5 and 6"
_COMMAND = "asyncflax theory"  # what `study` puts in place of it makes one check
_ROUNDING = 1e-12  # the largest difference in an identity
_MOMENTUM = 0.005  # the largest difference of a momentum that is measured
_READING = 0.02  # the largest difference from a point of a published figure, as a share of the range of its points
_SERVICE_TIMES = (
    queues.exponential(),
    queues.deterministic(),
    queues.gamma(0.5),
    queues.heterogeneous_gamma(),
    queues.lognormal(),
    queues.pareto(),
    queues.stragglers(),
)


@dataclasses.dataclass(frozen=True)
class _Size:
    """How much is computed."""

    cases: int  # random cases of each identity
    runs: int  # simulated runs of each Monte Carlo average
    seeds: int  # noisy runs of each setting in which momentum is measured
    workers: tuple[int, ...]  # numbers of workers for Figure 2
    targets: tuple[float, ...]  # momenta for Figure 2, other than 0.8
    between: int  # points of the curve of Figure 6 for each that is published


_FULL = _Size(200, runs=4000, seeds=50, workers=(1, 2, 3, 4, 5, 6, 8, 12, 16), targets=(0.96, 0.99), between=3)
_QUICK = _Size(10, runs=200, seeds=6, workers=(1, 4, 5, 6), targets=(), between=1)

# Points of figures of the Allerton version, from the coordinates in its PDF.
_FIGURE_6 = {  # the best mu_L at mu_S = 0, 0.1, ..., 0.9, by condition number
    5: (0.149, 0.051, -0.062, -0.171, -0.187, -0.214, -0.236, -0.258, -0.279, -0.290),
    20: (0.409, 0.306, 0.198, 0.106, 0.008, -0.176, -0.258, -0.263, -0.295, -0.301),
}
_FIGURE_7 = (  # mu_S, and the error after 10 steps with mu_L = 0, condition number 10
    (0.00, 0.10, 0.19, 0.28, 0.38, 0.47, 0.57, 0.66, 0.76, 0.85),
    (0.137, 0.079, 0.032, 0.002, 0.008, 0.024, 0.059, 0.128, 0.250, 0.451),
)


def study(
    workdir: str | os.PathLike[str],
    *,
    only: tuple[str, ...] = (),
    quick: bool = False,
    overwrite: bool = False,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> list[Claim]:
    """Runs the checks and writes their claims and figures into `workdir`/claims, all of them or nothing.

    Args:
      workdir: a folder; is made if there is none.
      only: names of checks, such as ('theorem-3', 'figure-6'); all where it is empty.
      quick: few cases and runs, wider intervals: for trying things.
      overwrite: replaces the claims and figures of an earlier study.
      progress: is called with the list of checks and gives them back one by one, as tqdm does.

    Returns:
      The claims, in the order of the checks. Their commands make the one check, and that is what their CPU minutes are.

    Raises:
      ValueError: there is no check of a name.
      FileExistsError: the folder holds claims already; nothing has been computed.

    Example: see `launch/theory.py`.
    """
    folder, quick = _check.path("workdir", workdir) / "claims", _check.boolean("quick", quick)
    overwrite = _check.boolean("overwrite", overwrite)
    _check.function("progress", progress, ", such as tqdm")
    if not isinstance(only, tuple | list):
        raise TypeError(f"only must be a tuple of names such as ('theorem-3',), got {_check.shown(only)}.")
    for name in only:
        _check.choice("only", name, tuple(_CHECKS))
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds an earlier study; pass overwrite=True to replace it.")
    part, start = folder.with_name("claims.part"), cpu_minutes()
    shutil.rmtree(part, ignore_errors=True)  # of a study that was stopped
    part.mkdir(parents=True)
    claims = []
    for name in progress([name for name in _CHECKS if name in only or not only]):
        command, before = f"{_COMMAND} --only={name}{' --quick' * quick} --workdir=runs/{name}", cpu_minutes()
        found = _CHECKS[name](part, _QUICK if quick else _FULL)
        minutes = round(start + cpu_minutes() - before, 3)
        claims += [dataclasses.replace(claim, command=command, cpu_minutes=minutes) for claim in found]
    for claim in claims:
        claim.save(part)
    if folder.is_dir():
        for file in part.iterdir():
            file.replace(folder / file.name)
        part.rmdir()
    else:
        part.rename(folder)
    return claims


def _theorem_2(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """Eq. 7 against the average over all sequences of staleness, for laws and a non-convex f drawn at random."""
    rng, worst, shown = np.random.default_rng(2), 0.0, {}
    for _ in range(size.cases):
        values = int(rng.integers(2, 5))
        q = rng.dirichlet(np.ones(values))
        sequences = np.array(list(itertools.product(range(values), repeat=6)))
        weight = np.prod(q[sequences], axis=1)
        gradient, alpha = _random_gradient(rng), rng.uniform(0.1, 1.0)
        x = _paths(np.maximum(np.arange(6) - sequences, 0), lambda x, g=gradient, a=alpha: a * g(x), rng.normal())
        mean, step = weight @ x, alpha * (weight @ gradient(x))  # E x_t, alpha E grad f(x_t)
        kernel, said = theory.momentum_kernel(q), mean.copy()
        for t in range(1, 6):
            earlier = step[np.maximum(t - 1 - np.arange(values), 0)]
            said[t + 1] = 2 * mean[t] - mean[t - 1] - kernel.current * step[t] + kernel.past @ earlier
        worst = max(worst, np.abs(mean - said).max())
        shown[f"staleness 0 to {values - 1}"] = mean, said
    _draw_identity(folder / "theorem-2.png", shown, "average over all sequences of staleness", "eq. 7")
    return [
        _identity(
            "theorem-2",
            "Staleness of any law moves the mean as eq. 7 says, with a memory of all gradients; f need not be convex.",
            "Theorem 2",
            worst,
            size.cases,
            "random laws and functions",
        )
    ]


def _theorem_3(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """Eq. 8 against eq. 5 and 6 with geometric staleness."""
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
    _draw_identity(folder / "theorem-3.png", shown, "stale gradients", "momentum SGD")
    return [
        _identity(
            "theorem-3",
            "Geometric staleness is momentum SGD with momentum mu_S and step (1 - mu_S) alpha, in the mean.",
            "Theorem 3",
            worst,
            size.cases,
            "random mu_S and steps",
        )
    ]


def _theorem_5(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """Eq. 9 against all orders of delivery, and against simulated queues."""
    rng, worst = np.random.default_rng(5), 0.0
    for m in range(1, 9):
        read = _all_orders(m)
        for _ in range(max(size.cases // 8, 1)):
            gradient, alpha = _random_gradient(rng), rng.uniform(0.1, 1.0)
            x = _paths(read, lambda x, g=gradient, a=alpha: a * g(x), rng.normal())
            mean, step = x.mean(axis=0), alpha * gradient(x).mean(axis=0)
            dx = np.diff(mean)
            worst = max(worst, np.max(np.abs(dx[1:] - (1 - 1 / m) * dx[:-1] + step[1:-1] / m)))
    exact = _identity(
        "theorem-5",
        "In a queue of M workers with exponential work the mean moves with momentum 1 - 1/M (M = 1 to 8).",
        "Theorem 5",
        worst,
        max(size.cases // 8, 1) * 8,
        "random functions, each over all orders of delivery",
    )

    workers, found, courses = list(range(1, 9)), [], {}
    for m in workers:
        h = 0.4 * theory.mean_square_limit(theory.ExponentialQueue(m))
        read = np.stack([_queue(m, 30, seed).read_version for seed in range(size.runs)])
        courses[m] = h, _paths(read, lambda x, h=h: h * x, 1.0)
        found.append(_momentum_of_the_mean(courses[m][1], h, rng))
    value, low, high = np.array(found).T
    want = 1 - 1 / np.array(workers)
    hits = int(np.sum((low <= want + 1e-9) & (want - 1e-9 <= high)))
    verdicts = [_near(ends, mu) for ends, mu in zip(zip(low, high, strict=True), want, strict=True)]

    figure = _style.new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    left.plot(workers, want, color="black", linestyle="--", label="Theorem 5: 1 - 1/M", zorder=1)
    bars = np.maximum([value - low, high - value], 0.0)
    left.errorbar(workers, value, bars, **_style.look(0) | {"linestyle": ""}, capsize=4, label="simulated, 95 %")
    left.set_xlabel("workers M")
    left.set_ylabel("implicit momentum")
    left.legend()
    for k, m in enumerate((2, 8)):
        h, x = courses[m]
        half, look = [at.high - at.value for at in map(student, x.T)], _style.look(k)
        label = f"{m} workers, mean of {len(x):,} runs"
        right.errorbar(range(31), x.mean(axis=0), half, **look | {"linestyle": ""}, label=label)
        curve = theory.mean_iterates(theory.ExponentialQueue(m), h, 30)
        right.plot(curve, color=look["color"], label=f"{m} workers, eq. 9")
    right.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    right.set_xlabel("updates")
    right.set_ylabel("mean of x, from 1, on a quadratic")
    right.legend()
    _style.save(figure, folder / "theorem-5.png")
    simulated = Claim(
        name="theorem-5-simulated",
        statement="The mean of simulated queues moves with momentum 1 - 1/M.",
        source=f"{_PAPER}, Theorem 5",
        paper="0.875 at M = 8",
        ours=f"{found[7].text(4)} at M = 8; {hits} of 8 intervals (M = 1 to 8) hold 1 - 1/M; tolerance {_MOMENTUM}",
        **found[7].of_claim,
        verdict=_of_all(verdicts),
        seeds=size.runs,
        command=_COMMAND,
        figure="theorem-5.png",
    )
    return [exact, simulated]


def _theorems_6_and_7(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """Explicit momentum, against all sequences of geometric staleness and all orders of delivery."""
    rng, worst, shown, cases = np.random.default_rng(7), 0.0, {}, max(size.cases // 8, 1)
    late = np.array(list(itertools.product(*map(range, range(1, 8)))))  # staleness 0 to t at update t
    orders = [_all_orders(m) for m in range(1, 9)]
    for _ in range(cases):
        mu = rng.uniform(0.05, 0.95)
        chance = np.where(late < np.arange(7), 1 - mu, 1.0) * mu**late  # the oldest version has the rest of the law
        models = [(mu, np.arange(7) - late, chance.prod(axis=1))]
        models += [(1 - 1 / m, read, np.full(len(read), 1 / len(read))) for m, read in enumerate(orders, 1)]
        for implicit, read, weight in models:
            gradient, alpha, explicit = _random_gradient(rng), rng.uniform(0.1, 1.0), rng.uniform(-0.9, 0.9)
            x = _paths(read, lambda x, g=gradient, a=alpha: a * g(x), rng.normal(), explicit)
            mean = weight @ x
            dx = np.diff(mean, prepend=mean[0])  # Dx_0 = 0
            want = (explicit + implicit) * dx[1:-1] - explicit * implicit * dx[:-2]
            want -= (1 - implicit) * alpha * (weight @ gradient(x))[1:-1]
            worst = max(worst, np.max(np.abs(dx[2:] - want)))
            momenta = f"implicit momentum {implicit:.2f}, explicit {explicit:.2f}"
            shown[momenta] = mean, np.concatenate([mean[:2], mean[1:-1] + want])
    _draw_identity(folder / "theorems-6-and-7.png", shown, "average over all sequences", "the recurrence")
    return [
        _identity(
            "theorems-6-and-7",
            "With explicit momentum mu_L the mean moves with momentum mu_L + mu_S and a further term, -mu_L mu_S times "
            "the step before that: geometric staleness, and queues of 1 to 8 workers with exponential work.",
            "Theorems 6 and 7 (Allerton version)",
            worst,
            cases * (1 + len(orders)),
            "random functions, each over all sequences",
        )
    ]


def _staleness(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """The law of the staleness of a queue, from one late event of many independent queues; its mean, for any work."""
    late = np.array([_queue(8, 200, seed).staleness[-1] for seed in range(size.runs)])
    momentum = Interval(*(x / (1 + x) for x in student(late)))
    edges = np.unique(staleness.geometric(7.0).table.cumsum().searchsorted(np.linspace(0, 1, 21)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, late), minlength=len(edges) + 1)
    cumulative = np.append(staleness.geometric(7.0).table.cumsum()[edges], 1.0)
    expected = len(late) * np.diff(cumulative, prepend=0.0)
    chi2, p = stats.chisquare(counts, expected)

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
    _style.save(figure, folder / "staleness.png")
    geometric = Claim(
        name="staleness-geometric",
        statement="With exponential work staleness is geometric with mean M - 1, so mu_S = 1 - 1/M (M = 8).",
        source=f"{_PAPER}, Theorem 5 (proof)",
        paper="0.875",
        ours=f"{momentum.text(4)}; "
        f"chi² {chi2:.1f} on {len(edges)} degrees of freedom, p = {p:.2f}; tolerance {_MOMENTUM}",
        **momentum.of_claim,
        verdict=_near(momentum[1:], 0.875),
        seeds=size.runs,
        command=_COMMAND,
        figure="staleness.png",
    )

    traces = (
        queues.simulate(num_workers=8, num_updates=20_000, service_time=law, seed=seed)
        for law in _SERVICE_TIMES
        for seed in range(max(size.seeds // 5, 1))
    )
    means = np.array([trace.staleness[200:].mean() for trace in traces])
    mean_staleness = Claim(
        name="staleness-mean",
        statement=f"The mean staleness of 8 workers is 7 under each of {len(_SERVICE_TIMES)} laws of service time.",
        source=f"{_PAPER}, section 2.1",
        paper="M - 1 = 7 (exponential work)",
        ours=f"{spread(means).text(3)}; tolerance 0.01",
        **spread(means).of_claim,
        verdict=_of_all(decide_number((mean, mean), low=6.99, high=7.01) for mean in means),
        seeds=len(means),
        command=_COMMAND,
        confidence=1.0,
        figure="staleness.png",
    )
    return [geometric, mean_staleness]


def _stability(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """Limits of the step size in closed form against recursions run forward."""
    delays = [0, 1, 2, 3, 5, 7, 11, 15, 23, 31]
    closed = [2 * math.sin(math.pi / (4 * tau + 2)) for tau in delays]
    found = [_limit_of_delay(tau) for tau in delays]
    constant = _identity(
        "stability-constant",
        "Gradients that are always tau updates old allow steps up to 2 sin(pi / (4 tau + 2)) over the curvature.",
        "",
        float(np.abs(np.divide(found, closed) - 1).max()),
        len(delays),
        "delays from 0 to 31, relative",
        1e-9,  # a root is not exact to rounding
    )
    constant = dataclasses.replace(constant, source=_DERIVED, paper="no number", figure="stability.png")

    laws = {
        "always 3": staleness.constant(3),
        "uniform 0 to 6": staleness.uniform(0, 6),
        "geometric, independent": staleness.geometric(3.0),
        "queue, exponential": theory.ExponentialQueue(4),
    }
    limits = {name: theory.mean_square_limit(law) for name, law in laws.items()}
    brackets = {name: _bracket(laws[name], limit) for name, limit in limits.items()}
    ordered = _of_all(
        decide_number((b[0] - a[1], b[1] - a[0]), low=0.0) for a, b in itertools.pairwise(brackets.values())
    )

    figure = _style.new_figure(15, 4.2)
    left, right, constants = figure.subplots(1, 3)
    left.barh(list(limits), list(limits.values()), color=_style.COLORS[: len(limits)], height=0.6)
    left.invert_yaxis()
    for i, (name, limit) in enumerate(limits.items()):
        low, high = brackets[name]
        left.annotate(f"{limit:.3f}", (limit, i), xytext=(10, 0), textcoords="offset points", va="center")
        left.errorbar(limit, i, xerr=[[limit - low], [high - limit]], color="black", capsize=4)
    left.set_xlim(0, 1.0)
    left.set_xlabel("largest stable step size times curvature, E x²")
    left.set_title("4 workers, mean staleness 3")
    h = np.linspace(0.02, 1.0, 36)
    for k, (name, law) in enumerate(laws.items()):
        right.plot(h, [theory.mean_square_radius(law, step) for step in h], **_style.look(k, len(h)), label=name)
    right.axhline(1.0, color="0.6", linewidth=1, zorder=0)
    right.set_ylim(0.3, 1.3)
    right.set_xlabel("step size times curvature")
    right.set_ylabel("factor of E x² per update")
    right.legend()
    constants.plot(delays, closed, color="black", zorder=1, label="2 sin(pi / (4 tau + 2))")
    constants.plot(delays, found, **_style.look(0) | {"linestyle": ""}, label="root of the recursion")
    constants.set_yscale("log")
    constants.set_xlabel("constant staleness tau")
    constants.set_ylabel("largest stable step size times curvature, E x")
    constants.legend()
    _style.save(figure, folder / "stability.png")
    low, high = brackets["queue, exponential"]
    order = Claim(
        name="stability-order",
        statement="With the same mean staleness 3, fixed staleness allows the smallest steps, then uniform, then "
        "independent geometric; the queue of 4 workers the largest.",
        source=_DERIVED,
        paper="no number",
        ours=", ".join(f"{limit:.3f}" for limit in limits.values()) + "; by E x² run forward within 1 %",
        value=limits["queue, exponential"],
        interval=(low, high),
        verdict=ordered,
        seeds=len(laws),
        command=_COMMAND,
        confidence=1.0,
        figure="stability.png",
    )
    return [constant, order]


def _estimate(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """Implicit momentum measured in single noisy runs: how often the interval holds 1 - 1/M."""
    settings = list(itertools.product([(2, 0.5), (4, 0.33), (8, 0.23)], [0.0, 0.3, -0.09]))
    rng, found = np.random.default_rng(6), {}
    for number, ((m, h), explicit) in enumerate(settings):
        curvature = np.linspace(0.7 * h, h, 32)
        first = 1000 * (number + 1)  # other seeds in each setting
        read = np.stack([_queue(m, 1000, first + seed).read_version for seed in range(size.seeds)])
        x = _paths(read, lambda x, c=curvature: c * x, np.zeros(32), explicit, 0.3 * curvature, rng)
        found[m, explicit] = np.array(
            [theory.estimate_momentum(run, curvature * run, learning_rate=1.0, momentum=explicit) for run in x]
        )
    truth = lambda m: 1 - 1 / m
    hits = sum(int(np.sum((e[:, 1] <= truth(m)) & (truth(m) <= e[:, 2]))) for (m, _), e in found.items())
    total = sum(map(len, found.values()))
    share, half = proportion(hits, total), np.mean([e[:, 2] - e[:, 1] for e in found.values()]) / 2

    figure = _style.new_figure(13, 4.2)
    for axes, m in zip(figure.subplots(1, 3), (2, 4, 8), strict=True):
        value, low, high = found[m, 0.0][np.argsort(found[m, 0.0][:, 0])].T
        outside = (low > truth(m)) | (truth(m) > high)
        for chosen, color, what in ((~outside, "0.4", "hold 1 - 1/M"), (outside, _style.COLORS[1], "do not")):
            bars = [(value - low)[chosen], (high - value)[chosen]]
            runs = np.arange(len(value))[chosen]
            label = f"{len(runs)} {what}"
            if len(runs):
                axes.errorbar(runs, value[chosen], bars, fmt=".", color=color, linewidth=1, label=label)
        axes.axhline(truth(m), color=_style.COLORS[0], zorder=0)
        axes.set_title(f"{m} workers, 1 - 1/M = {truth(m):g}")
        axes.legend(fontsize="small", loc="lower right")
    figure.supxlabel("single runs, sorted", fontsize="medium")
    figure.axes[0].set_ylabel("implicit momentum, 95 % interval")
    _style.save(figure, folder / "measured-momentum.png")
    eight = np.concatenate([e[:, 0] for (m, _), e in found.items() if m == 8])
    mean = student(eight)
    return [
        Claim(
            name="measured-momentum",
            statement="Implicit momentum can be measured in a run (8 workers, explicit momentum 0, 0.3 and -0.09).",
            source=f"{_PAPER}, Theorem 5",
            paper="0.875",
            ours=f"{mean.text(4)}; tolerance {_MOMENTUM}",
            **mean.of_claim,
            verdict=_near(mean[1:], 0.875),
            seeds=len(eight),
            command=_COMMAND,
            figure="measured-momentum.png",
        ),
        Claim(
            name="measured-momentum-coverage",
            statement="The 95 % interval of implicit momentum, measured in one noisy run of 1,000 updates, holds "
            "1 - 1/M (M = 2, 4, 8).",
            source=f"{_PAPER}, Theorem 5",
            paper="95 % (nominal)",
            ours=f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}); "
            f"mean half-width {half:.3f}; tolerance 3 points",
            **share.of_claim,
            verdict=decide_number(share[1:], low=0.92, high=0.98),
            seeds=total,
            command=_COMMAND,
            figure="measured-momentum.png",
        ),
    ]


def _figure_2(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """The rule of Figure 2 beside the best explicit momenta by exact recursion."""
    plan = planner.make(size.workers, target_momentum=0.8)
    workers = np.array(size.workers)
    column = lambda name: np.array([getattr(forecast, name) for forecast in plan.forecasts])
    rule = np.linspace(1, max(workers), 200)

    figure = _style.new_figure(7.5, 4.8)
    axes = figure.subplots()
    axes.axhline(0.0, color="0.7", linewidth=1)
    axes.axvline(5.0, color="0.7", linewidth=1, linestyle=":")
    axes.plot(rule, 0.8 - (1 - 1 / rule), color="black", linestyle="--", label="Figure 2: 0.8 - (1 - 1/M)")
    axes.plot(workers, column("mean_momentum"), **_style.look(0), label="best for the mean, exact recursion of E x")
    axes.plot(workers, column("run_momentum"), **_style.look(1), label="best for a run, exact recursion of E x²")
    axes.annotate("M = 5 = 1/(1 - 0.8)", (5, 0.62), xytext=(6, 0), textcoords="offset points", color="0.4")
    axes.set_xticks(workers)
    axes.set_xlabel("workers M")
    axes.set_ylabel("explicit momentum")
    axes.set_title("The momentum to set, when 0.8 is best for one worker")
    axes.legend()
    _style.save(figure, folder / "figure-2.png")

    mean, zero = column("mean_momentum"), _crossing(workers, column("mean_momentum"))
    some = [m for m in (2, 4, 6, 8, 16) if m in size.workers]
    listed = lambda momenta: ", ".join(f"{momenta[workers == m][0]:.2f}" for m in some)
    off = float(np.abs(mean - (0.8 - (1 - 1 / workers))).max())
    around, targets, zeros = [4, 5, 6], [0.8, *size.targets], [_crossing(workers, column("run_momentum"))]
    for target in size.targets:
        forecasts = planner.make(around, target_momentum=target).forecasts
        zeros.append(_crossing(np.array(around), np.array([forecast.run_momentum for forecast in forecasts])))
    rule = [theory.turning_point(target) for target in targets]
    ratios = [ours / theirs for ours, theirs in zip(zeros, rule, strict=True)]
    common: dict[str, Any] = {"command": _COMMAND, "confidence": 1.0, "figure": "figure-2.png"}
    return [
        Claim(
            name="figure-2",
            statement="The best explicit momentum falls as workers are added, is 0 at M = 5 and negative beyond, if "
            "0.8 is best for one worker: exact recursion of E x, step size tuned.",
            source=f"{_PAPER}, Figure 2",
            paper="0 at M = 5",
            ours=f"0 at M = {zero:.2f} (tolerance 0.05)",
            value=zero,
            interval=(float(workers[mean > -1e-4].max()), float(workers[mean < -1e-4].min())),
            verdict=decide_number((zero, zero), low=4.95, high=5.05) if np.all(np.diff(mean) < 0) else "refuted",
            seeds=len(workers),
            **common,
        ),
        Claim(
            name="figure-2-values",
            statement="The best explicit momentum is 0.8 - (1 - 1/M), if 0.8 is best for one worker: exact recursion "
            "of E x, step size tuned. The rule has the sign right, not the values.",
            source=f"{_PAPER}, Figure 2",
            paper=f"{listed(0.8 - (1 - 1 / workers))} at M = {', '.join(map(str, some))}",
            ours=f"{listed(mean)}; off by up to {off:.2f} (tolerance 0.05)",
            value=off,
            interval=(0.0, off),
            verdict=decide_number((off, off), high=0.05),
            seeds=len(workers),
            **common,
        ),
        Claim(
            name="figure-2-runs",
            statement="The best explicit momentum is 0 at M = 1 / (1 - mu*) workers, if mu* is best for one worker: "
            "exact recursion of E x², which single runs follow. Its zero stays near M = 5 whatever mu* is.",
            source=f"{_PAPER}, Figure 2",
            paper=f"0 at M = {', '.join(f'{m:.0f}' for m in rule)} for mu* = {', '.join(map(str, targets))}",
            ours=f"0 at M = {', '.join(f'{ours:.2f}' for ours in zeros)} (tolerance 10 %)",
            **spread(zeros).of_claim,
            verdict=_of_all(decide_number((ratio, ratio), low=0.9, high=1.1) for ratio in ratios),
            seeds=len(targets),
            **common,
        ),
    ]


def _figure_6(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """The published points of the best explicit momentum beside what comes out here."""
    implicit = np.linspace(0.0, 0.9, 9 * size.between + 1)
    figure = _style.new_figure(7.5, 4.8)
    axes = figure.subplots()
    axes.axhline(0.0, color="0.7", linewidth=1)
    found = {}
    for k, (condition, points) in enumerate(_FIGURE_6.items()):
        best = [theory.best_hyper_parameters(_geometric(mu), condition).momentum for mu in implicit]
        found[condition] = np.array(best[:: size.between]) - points
        look = _style.look(k)
        axes.plot(implicit, best, color="black", linestyle=_style.look(6 * k)["linestyle"], zorder=1, label="_ours")
        axes.plot(np.arange(10) / 10, points, **look | {"linestyle": ""}, label=f"condition number {condition}, paper")
    axes.set_xlabel("implicit momentum")
    axes.set_ylabel("best explicit momentum")
    axes.set_title("Points: the paper's Figure 6; lines: exact recursion of E x")
    axes.legend()
    _style.save(figure, folder / "figure-6.png")
    return [
        _published(
            "figure-6",
            "The best explicit momentum falls as implicit momentum grows, and turns negative: condition numbers 5 and "
            "20, step size tuned.",
            f"{sum(map(len, _FIGURE_6.values()))} points, from 0.15 and 0.41 down to -0.29 and -0.30",
            np.concatenate([*found.values()]),
            np.concatenate([*_FIGURE_6.values()]),
        )
    ]


def _figure_7(folder: pathlib.Path, size: _Size) -> list[Claim]:
    """The published points of the error without explicit momentum beside what comes out here."""
    after_10 = lambda mu: theory.best_hyper_parameters(_geometric(mu), 10.0, momentum=0.0).radius ** 10
    implicit, points = map(np.array, _FIGURE_7)
    grid = np.linspace(0.0, 0.85, 86)
    figure = _style.new_figure(7.5, 4.8)
    axes = figure.subplots()
    axes.plot(grid, [after_10(mu) for mu in grid], color="black", zorder=1, label="exact recursion of E x")
    axes.plot(implicit, points, **_style.look(0) | {"linestyle": ""}, label="the paper's Figure 7")
    axes.set_yscale("log")
    axes.set_xlabel("implicit momentum")
    axes.set_ylabel("error after 10 steps")
    axes.set_title("No explicit momentum, condition number 10, step size tuned")
    axes.legend()
    _style.save(figure, folder / "figure-7.png")
    return [
        _published(
            "figure-7",
            "Some asynchrony helps if there is no explicit momentum, and more of it hurts: the error after 10 steps, "
            "condition number 10, step size tuned, by implicit momentum.",
            f"{len(points)} points, the least of them {points.min():g} at mu_S = {implicit[points.argmin()]:g}",
            np.array([after_10(mu) for mu in implicit]) - points,
            points,
        )
    ]


def _published(name: str, statement: str, paper: str, differences: np.ndarray, points: np.ndarray) -> Claim:
    """The claim that points of a figure of the Allerton version come out here, with the largest difference."""
    worst, tolerance = float(np.abs(differences).max()), float(_READING * np.ptp(points))
    return Claim(
        name=name,
        statement=statement,
        source=f"{_PAPER}, {name.capitalize().replace('-', ' ')} (Allerton version)",
        paper=paper,
        ours=f"all points within {worst:.4f} (tolerance {tolerance:.4f}, {100 * _READING:.0f} % of their range)",
        value=worst,
        interval=(0.0, worst),
        verdict=decide_number((worst, worst), high=tolerance),
        seeds=len(points),
        command=_COMMAND,
        confidence=1.0,
        figure=f"{name}.png",
    )


def _identity(
    name: str, statement: str, source: str, worst: float, cases: int, of_what: str, tolerance: float = _ROUNDING
) -> Claim:
    """The claim that two things are equal, with the largest difference found."""
    return Claim(
        name=name,
        statement=statement,
        source=f"{_PAPER}, {source}",
        paper="equal",
        ours=f"equal to {worst:.0e} in {cases} {of_what} (tolerance {tolerance:.0e})",
        value=float(worst),
        interval=(0.0, float(worst)),
        verdict=decide_number((worst, worst), high=tolerance),
        seeds=cases,
        command=_COMMAND,
        confidence=1.0,
        figure=f"{name}.png",
    )


def _draw_identity(path: pathlib.Path, shown: dict[str, tuple[np.ndarray, np.ndarray]], left: str, right: str) -> None:
    """The two sides of an identity as courses of the mean of x, in the first three cases."""
    figure = _style.new_figure(7.5, 4.2)
    axes = figure.subplots()
    for k, (case, (points, line)) in enumerate(list(shown.items())[:3]):
        axes.plot(line, color="black", linewidth=1, zorder=1, label=right if k == 0 else "_more")
        axes.plot(points, **_style.look(k, len(points)) | {"linestyle": "", "markevery": None}, label=case)
    axes.set_xlabel("updates")
    axes.set_ylabel("mean of x")
    axes.set_title(f"Points: {left}; lines: {right}")
    axes.legend()
    _style.save(figure, path)


def _near(interval: tuple[float, float], momentum: float) -> str:
    """The verdict on a momentum that is measured."""
    return decide_number(interval, low=momentum - _MOMENTUM, high=momentum + _MOMENTUM)


def _of_all(verdicts: Iterable[str]) -> str:
    """Of a claim of several numbers: refuted by one, seen in all."""
    found = set(verdicts)
    return "refuted" if "refuted" in found else "seen" if found == {"seen"} else "not decided"


def _geometric(implicit: float) -> staleness.StalenessLaw:
    """The law of staleness that is this implicit momentum."""
    return staleness.geometric(implicit / (1 - implicit)) if implicit else staleness.constant(0)


def _random_gradient(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Of a function that is not convex."""
    a, b, c = rng.uniform(0.2, 1.0), rng.uniform(1.0, 3.0), rng.uniform(0.1, 1.0)
    return lambda x: a * np.sin(b * x) + c * x


def _queue(num_workers: int, num_updates: int, seed: int):
    return queues.simulate(
        num_workers=num_workers, num_updates=num_updates, service_time=queues.exponential(), seed=seed
    )


def _all_orders(num_workers: int) -> np.ndarray:
    """int [N, T]: what is read in each of the N orders in which workers can deliver T times, all equally likely."""
    length = min(int(math.log(8192) / math.log(max(num_workers, 2))), 10)
    return _read_versions(np.array(list(itertools.product(range(num_workers), repeat=length))))


def _read_versions(workers: np.ndarray) -> np.ndarray:
    """int [N, T]: the versions that the workers [N, T] of N queues read."""
    last, read = np.zeros((len(workers), workers.max() + 1), int), np.empty_like(workers)
    rows = np.arange(len(workers))
    for t, worker in enumerate(workers.T):
        read[:, t] = last[rows, worker]
        last[rows, worker] = t + 1
    return read


def _paths(
    read: np.ndarray,
    step: Callable[[np.ndarray], np.ndarray],
    start: Any,
    momentum: float = 0.0,
    noise: Any = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """x_0..x_T, [N, T + 1, ...], of N runs that read the versions [N, T], all at once."""
    runs, length = read.shape
    x = np.empty((length + 1, runs, *np.shape(start)))
    x[0], velocity, rows = start, np.zeros((runs, *np.shape(start))), np.arange(runs)
    for t in range(length):
        velocity = momentum * velocity - step(x[read[:, t], rows])
        if rng is not None:
            velocity = velocity - noise * rng.standard_normal(velocity.shape)
        x[t + 1] = x[t] + velocity
    return x.swapaxes(0, 1)


def _momentum_of_the_mean(x: np.ndarray, h: float, rng: np.random.Generator) -> Interval:
    """mu in E y = mu E z, with y_t = Dx_{t+1} + h x_t and z_t = Dx_t + h x_t, and a bootstrap interval.

    One half of the runs gives E y and one factor E z, the other half the other: their errors are independent.
    """
    dx = np.diff(x, axis=1)
    y, z = dx[:, 1:] + h * x[:, 1:-1], dx[:, :-1] + h * x[:, 1:-1]
    if not np.any(np.abs(z) > 1e-12):
        return Interval(0.0, 0.0, 0.0)  # one worker: each step is fresh, y and z are zero

    def ratio(weights: np.ndarray) -> np.ndarray:
        half = len(x) // 2
        (y_a, z_a), (y_b, z_b) = ([w @ part / half for part in parts] for w, *parts in _halves(weights, y, z, half))
        return np.sum(y_a * z_b + y_b * z_a, axis=-1) / (2 * np.sum(z_a * z_b, axis=-1))

    half = len(x) // 2
    drawn = np.concatenate([rng.multinomial(half, np.full(half, 1 / half), size=1000) for _ in range(2)], axis=1)
    low, high = np.quantile(ratio(drawn), [0.025, 0.975])
    return Interval(float(ratio(np.ones((1, 2 * half)))[0]), float(low), float(high))


def _halves(weights: np.ndarray, y: np.ndarray, z: np.ndarray, half: int) -> list[tuple[np.ndarray, ...]]:
    first, second = slice(half), slice(half, 2 * half)
    return [(weights[:, part], y[part], z[part]) for part in (first, second)]


def _limit_of_delay(tau: int) -> float:
    """The largest stable h of x_{t+1} = x_t - h x_{t-tau}: where the spectral radius of its companion is 1."""

    def growth(h: float) -> float:
        companion = np.eye(tau + 1, k=-1)
        companion[0, 0] += 1.0
        companion[0, tau] -= h
        return float(np.abs(np.linalg.eigvals(companion)).max()) - 1

    return optimize.root_scalar(growth, bracket=(0.01, 2.1)).root


def _bracket(law: Any, limit: float) -> tuple[float, float]:
    """Around a limit, the step at which E x^2 falls and that at which it grows, over 1,200 updates run forward."""
    for factor, falls in ((0.99, True), (1.01, False)):
        course = theory.mean_square_iterates(law, factor * limit, 1200)
        if (np.max(course[900:]) < np.max(course[300:600])) != falls:
            raise RuntimeError(f"E x^2 of {law} does not change its course at its limit {limit:.4g}.")
    return 0.99 * limit, 1.01 * limit


def _crossing(workers: np.ndarray, momentum: np.ndarray) -> float:
    """Where the momentum is zero, to 1e-4, on a straight line between two numbers of workers."""
    after = int(np.argmax(momentum < -1e-4))
    at, before = momentum[after], max(momentum[after - 1], 0.0)
    return float(workers[after - 1] + (workers[after] - workers[after - 1]) * before / (before - at))


_CHECKS: dict[str, Callable[[pathlib.Path, _Size], list[Claim]]] = {
    "theorem-2": _theorem_2,
    "theorem-3": _theorem_3,
    "theorem-5": _theorem_5,
    "theorems-6-and-7": _theorems_6_and_7,
    "staleness": _staleness,
    "stability": _stability,
    "measured-momentum": _estimate,
    "figure-2": _figure_2,
    "figure-6": _figure_6,
    "figure-7": _figure_7,
}
