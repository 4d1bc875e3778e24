"""The reference parameter server: asynchronous SGD in plain Python, the oracle of the tests.

One worker at a time, one gradient at a time, one list of everything that was ever handed out. Nothing here
is fast and nothing here knows JAX or asyncflax; every line is an equation of the papers in float64.

Time t counts server updates. Version v is what the server hands out after v updates. At event t the worker
``worker[t]`` delivers the gradient computed on version ``read_version[t]``; its staleness is
``tau_t = t - read_version[t] >= 0``. Parameters theta are flat float64 vectors.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Schedule = float | Callable[[int], float]
# gradient(t, worker, theta_read, model_state_read) -> (loss, g, None or the model state's (decay, increment))
Gradient = Callable[[int, int, Array, Array | None], tuple[float, Array, tuple[float, Array] | None]]


# --------------------------------------------------------------------------------------------------
# The queue: workers that compute, deliver, download and start again


def queue_events(
    num_workers: int,
    num_updates: int,
    draw_time: Callable[[int], float],
    max_staleness: int | None = None,
    policy: str = "restart",
) -> tuple[list[int], list[int], list[float]]:
    """Returns (worker, read_version, time) of the first `num_updates` events of M workers.

    ``draw_time(i)`` is drawn whenever worker i starts a task, at time 0 in order of i; ties finish in order
    of i. No delivered gradient is staler than `max_staleness`. With policy "restart" a worker whose gradient
    would be, were it delivered next, starts afresh on the version just made, after the worker that made it
    and in order of i. With "discard" such a gradient is thrown away on arrival and its worker starts again.
    Rejected work is neither event nor version.
    """
    assert policy in ("restart", "discard")
    limit = math.inf if max_staleness is None else max_staleness
    in_flight: list[tuple[float, int]] = []  # heap of (finish time, worker)
    version_of = [0] * num_workers  # the version on which each worker computes
    worker: list[int] = []
    read_version: list[int] = []
    time: list[float] = []

    def start(i: int, now: float) -> None:
        version_of[i] = len(worker)  # the newest version: as many as updates so far
        heapq.heappush(in_flight, (now + draw_time(i), i))

    for i in range(num_workers):
        start(i, 0.0)
    while len(worker) < num_updates:
        now, i = heapq.heappop(in_flight)
        if policy == "discard" and len(worker) - version_of[i] > limit:
            start(i, now)
            continue
        worker.append(i)
        read_version.append(version_of[i])
        time.append(now)
        start(i, now)
        if policy == "restart":
            late = [j for j in range(num_workers) if len(worker) - version_of[j] > limit]
            in_flight[:] = [(finish, j) for finish, j in in_flight if j not in late]
            heapq.heapify(in_flight)
            for j in late:
                start(j, now)
    return worker, read_version, time


# --------------------------------------------------------------------------------------------------
# The servers: eta learning rate, mu momentum, u a velocity with eta inside, v one with eta outside


class Server:
    """What all methods share: the parameters theta, the schedule eta(.) and weight decay.

    Decay at "read" adds ``weight_decay * theta_read`` to the arriving gradient, decay at "server" adds
    ``weight_decay * theta``; either way before the method sees the gradient.
    """

    def __init__(self, theta0: Array, learning_rate: Schedule, *, weight_decay: float = 0.0, decay_at: str = "read"):
        assert decay_at in ("read", "server")
        self.theta: Array = np.array(theta0, dtype=np.float64)
        self.learning_rate, self.weight_decay, self.decay_at = learning_rate, weight_decay, decay_at
        self.received = 0  # gradients so far

    @property
    def eta(self) -> float:
        """The learning rate of the next server update."""
        return self.learning_rate(self.updates) if callable(self.learning_rate) else self.learning_rate

    @property
    def updates(self) -> int:
        """Server updates made so far."""
        return self.received

    def receive(self, g: Array, worker: int, staleness: int, theta_read: Array) -> None:
        """Applies the gradient g that `worker` computed at theta_read, `staleness` updates ago."""
        g = g + self.weight_decay * (theta_read if self.decay_at == "read" else self.theta)
        self.apply(g, worker, staleness, theta_read)
        self.received += 1

    def apply(self, g: Array, worker: int, staleness: int, theta_read: Array) -> None:
        """The method's own update rule."""
        raise NotImplementedError

    def view(self, worker: int | None = None) -> Array:
        """A copy of what a worker downloads."""
        return self.theta.copy()


class Asgd(Server):
    """theta -= eta g (Mitliagkas et al. 2016, eq. 6)."""

    def apply(self, g, worker, staleness, theta_read):
        self.theta = self.theta - self.eta * g


class MomentumAsgd(Server):
    """Heavy ball. Inside: u = mu u + eta g, theta -= u. Outside: v = mu v + g, theta -= eta v."""

    def __init__(self, theta0: Array, learning_rate: Schedule, momentum: float, form: str = "inside", **decay):
        super().__init__(theta0, learning_rate, **decay)
        assert form in ("inside", "outside")
        self.momentum, self.form = momentum, form
        self.velocity = np.zeros_like(self.theta)

    def apply(self, g, worker, staleness, theta_read):
        if self.form == "inside":
            self.velocity = self.momentum * self.velocity + self.eta * g
            self.theta = self.theta - self.velocity
        else:
            self.velocity = self.momentum * self.velocity + g
            self.theta = self.theta - self.eta * self.velocity


class NagAsgd(Server):
    """Nesterov with one shared velocity, u = mu u + eta g.

    "lookahead": theta -= u, and workers download theta - mu u. "shifted" (Bengio): theta holds the look-ahead
    itself, theta -= mu u + eta g with the new u, and workers download theta.
    """

    def __init__(self, theta0: Array, learning_rate: Schedule, momentum: float, variant: str = "lookahead", **decay):
        super().__init__(theta0, learning_rate, **decay)
        assert variant in ("lookahead", "shifted")
        self.momentum, self.variant = momentum, variant
        self.u = np.zeros_like(self.theta)

    def apply(self, g, worker, staleness, theta_read):
        self.u = self.momentum * self.u + self.eta * g
        step = self.u if self.variant == "lookahead" else self.momentum * self.u + self.eta * g
        self.theta = self.theta - step

    def view(self, worker=None):
        return self.theta - self.momentum * self.u if self.variant == "lookahead" else self.theta.copy()


class MultiAsgd(Server):
    """Multi-ASGD (Hakimi et al. 2019): one velocity a worker, kept at the server.

    Inside: u_i = mu u_i + eta g, theta -= u_i; with Nesterov theta -= mu u_i + eta g (new u_i).
    Outside: v_i = mu v_i + g, theta -= eta v_i; with Nesterov theta -= eta (mu v_i + g) (new v_i).
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        form: str = "inside",
        nesterov: bool = False,
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert form in ("inside", "outside")
        self.momentum, self.form, self.nesterov = momentum, form, nesterov
        self.velocity = [np.zeros_like(self.theta) for _ in range(num_workers)]

    def apply(self, g, worker, staleness, theta_read):
        before, after = (self.eta, 1.0) if self.form == "inside" else (1.0, self.eta)  # where eta stands
        self.velocity[worker] = self.momentum * self.velocity[worker] + before * g
        step = self.velocity[worker]
        if self.nesterov:
            step = self.momentum * step + before * g
        self.theta = self.theta - after * step


class DcAsgd(MomentumAsgd):
    """DC-ASGD (Zheng et al. 2017): ghat = g + lambda c(g) (theta - theta_read), then momentum SGD with ghat.

    The curvature estimate c(g) is g*g ("squared") or |g| ("absolute"), elementwise. lambda is `strength`; with a
    `mean_square` (DC-ASGD-a) ms = rho ms + (1 - rho) g*g, "shared" or one "per_worker", and lambda is
    strength / sqrt(ms + 1e-10) elementwise, with the ms that g is already in.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        strength: float,
        momentum: float = 0.0,
        curvature: str = "squared",
        form: str = "inside",
        mean_square: str = "none",
        mean_square_decay: float = 0.95,
        num_workers: int | None = None,
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, form, **decay)
        assert curvature in ("squared", "absolute") and mean_square in ("none", "shared", "per_worker")
        self.strength, self.curvature = strength, curvature
        self.mean_square, self.rho = mean_square, mean_square_decay
        copies = 1 if mean_square == "shared" else num_workers or 0
        self.ms = [np.zeros_like(self.theta) for _ in range(copies)]

    def apply(self, g, worker, staleness, theta_read):
        c = g * g if self.curvature == "squared" else np.abs(g)
        strength = self.strength
        if self.mean_square != "none":
            i = worker if self.mean_square == "per_worker" else 0
            self.ms[i] = self.rho * self.ms[i] + (1 - self.rho) * g * g
            strength = strength / np.sqrt(self.ms[i] + 1e-10)
        super().apply(g + strength * c * (self.theta - theta_read), worker, staleness, theta_read)


class DelayAdaptiveAsgd(Server):
    """Mishchenko et al. 2022: theta -= eta M / max(M, delay) g, where the delay is tau or tau + 1."""

    def __init__(self, theta0: Array, learning_rate: Schedule, num_workers: int, delay: str = "staleness", **decay):
        super().__init__(theta0, learning_rate, **decay)
        assert delay in ("staleness", "staleness_plus_one")
        self.num_workers, self.offset = num_workers, int(delay == "staleness_plus_one")

    def apply(self, g, worker, staleness, theta_read):
        scale = self.num_workers / max(self.num_workers, staleness + self.offset)
        self.theta = self.theta - self.eta * scale * g


class Ssgd(MomentumAsgd):
    """Synchronous SGD: a round of M gradients, then one momentum step with their mean; eta counts rounds."""

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        form: str = "inside",
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, form, **decay)
        self.num_workers = num_workers
        self.round: list[Array] = []

    @property
    def updates(self):
        return self.received // self.num_workers

    def apply(self, g, worker, staleness, theta_read):
        self.round.append(g)
        if len(self.round) == self.num_workers:
            super().apply(np.mean(self.round, axis=0), worker, staleness, theta_read)
            self.round = []


class DanaZero(Server):
    """DANA-Zero (Hakimi et al. 2019): u_i = mu u_i + eta g, theta -= u_i; workers download theta - mu sum_j u_j."""

    def __init__(self, theta0: Array, learning_rate: Schedule, momentum: float, num_workers: int, **decay):
        super().__init__(theta0, learning_rate, **decay)
        self.momentum = momentum
        self.u = [np.zeros_like(self.theta) for _ in range(num_workers)]

    def apply(self, g, worker, staleness, theta_read):
        self.u[worker] = self.momentum * self.u[worker] + self.eta * g
        self.theta = self.theta - self.u[worker]

    def view(self, worker=None):
        return self.theta - self.momentum * np.sum(self.u, axis=0)


class DanaSlim(Server):
    """DANA-Slim: the worker's own u_i = mu u_i + eta g; it sends mu u_i + eta g (new u_i); theta -= what it sent.

    theta is the look-ahead, and workers download theta. Outside: v_i = mu v_i + g, theta -= eta (mu v_i + g).
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        form: str = "inside",
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert form in ("inside", "outside")
        self.momentum, self.form = momentum, form
        self.velocity = [np.zeros_like(self.theta) for _ in range(num_workers)]  # each is its worker's

    def apply(self, g, worker, staleness, theta_read):
        before, after = (self.eta, 1.0) if self.form == "inside" else (1.0, self.eta)
        self.velocity[worker] = self.momentum * self.velocity[worker] + before * g
        sent = self.momentum * self.velocity[worker] + before * g
        self.theta = self.theta - after * sent


class DanaDc(DanaZero):
    """DANA-DC: DANA-Zero on ghat = g + lambda c(g) (origin - theta_read); theta_read is the look-ahead that was sent.

    The origin is the server's theta ("params") or its look-ahead ("lookahead") when g arrives; c as in DcAsgd.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        strength: float = 0.04,
        curvature: str = "squared",
        origin: str = "params",
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, num_workers, **decay)
        assert curvature in ("squared", "absolute") and origin in ("params", "lookahead")
        self.strength, self.curvature, self.origin = strength, curvature, origin

    def apply(self, g, worker, staleness, theta_read):
        c = g * g if self.curvature == "squared" else np.abs(g)
        origin = self.theta if self.origin == "params" else self.view()
        super().apply(g + self.strength * c * (origin - theta_read), worker, staleness, theta_read)


class Lwp(Server):
    """Linear weight prediction: u = mu u + eta g, theta -= u; workers download theta - lag u, lag = M by default."""

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        lag: float | None = None,
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        self.momentum, self.lag = momentum, num_workers if lag is None else lag
        self.u = np.zeros_like(self.theta)

    def apply(self, g, worker, staleness, theta_read):
        self.u = self.momentum * self.u + self.eta * g
        self.theta = self.theta - self.u

    def view(self, worker=None):
        return self.theta - self.lag * self.u


class Ormo(Server):
    """OrMo (Shi, Yang, Li 2024). Gradient t has the global index ite = t - tau; buckets hold K = M indices.

    When t opens a bucket, ceil(t/K) > ceil((t-1)/K): theta -= beta u, u = beta u. Then D = ceil(t/K) - ceil(ite/K)
    says how many buckets g is late: u += beta^D eta g, and theta makes at once the D momentum steps that g missed,
    theta -= (1 + beta + ... + beta^D) eta g ("catch_up"), or theta -= eta g ("vanilla"). Bucket "floor" has floor for
    ceil everywhere.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        late_step: str = "catch_up",
        bucket: str = "ceil",
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert late_step in ("catch_up", "vanilla") and bucket in ("ceil", "floor")
        self.beta, self.num_workers, self.late_step, self.bucket = momentum, num_workers, late_step, bucket
        self.u = np.zeros_like(self.theta)

    def bucket_of(self, t: int) -> int:
        """The bucket that is open at event t."""
        return math.ceil(t / self.num_workers) if self.bucket == "ceil" else t // self.num_workers

    def apply(self, g, worker, staleness, theta_read):
        t = self.received
        if t > 0 and self.bucket_of(t) > self.bucket_of(t - 1):
            self.theta = self.theta - self.beta * self.u
            self.u = self.beta * self.u
        late = self.bucket_of(t) - self.bucket_of(t - staleness)
        eta = self.step_size(staleness)
        self.u = self.u + self.beta**late * eta * g
        factor = sum(self.beta**k for k in range(late + 1)) if self.late_step == "catch_up" else 1.0
        self.theta = self.theta - factor * eta * g

    def step_size(self, staleness: int) -> float:
        """eta, whatever the delay."""
        return self.eta


class OrmoDa(Ormo):
    """OrMo-DA: OrMo with the step size of the delay.

    "ratio": eta_t = eta min(1, c K / tau), c the scale. "bound": eta up to tau = 2K, beyond it min(eta, 1 / (4 L tau)),
    L the smoothness.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        rule: str = "ratio",
        scale: float = 1.0,
        smoothness: float = 1.0,
        **options,
    ):
        super().__init__(theta0, learning_rate, momentum, num_workers, **options)
        assert rule in ("ratio", "bound")
        self.rule, self.scale, self.smoothness = rule, scale, smoothness

    def step_size(self, staleness):
        if self.rule == "ratio":
            return self.eta if staleness == 0 else self.eta * min(1.0, self.scale * self.num_workers / staleness)
        if staleness <= 2 * self.num_workers:
            return self.eta
        return min(self.eta, 1 / (4 * self.smoothness * staleness))


class ShiftedMomentum(Server):
    """Shifted momentum (Giladi et al. 2020): the velocity is as old as the gradient; d is the dampening.

    "worker", as in their code: u_i = mu u_i + (1 - d) eta g, theta -= u_i. "version": u_{t+1} = mu u_{t-tau} + (1 - d)
    eta g, theta -= u_{t+1}, with u_0 = 0. Outside has no eta in the velocity and theta -= eta v.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        velocity: str = "worker",
        max_staleness: int | None = None,
        form: str = "inside",
        dampening: float = 0.0,
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert velocity in ("worker", "version") and form in ("inside", "outside")
        self.momentum, self.velocity, self.max_staleness = momentum, velocity, max_staleness
        self.form, self.dampening = form, dampening
        self.of_worker = [np.zeros_like(self.theta) for _ in range(num_workers)]
        self.of_version = [np.zeros_like(self.theta)]

    def apply(self, g, worker, staleness, theta_read):
        assert self.max_staleness is None or staleness <= self.max_staleness
        before, after = (self.eta, 1.0) if self.form == "inside" else (1.0, self.eta)
        old = self.of_worker[worker] if self.velocity == "worker" else self.of_version[self.received - staleness]
        new = self.momentum * old + (1 - self.dampening) * before * g
        self.of_worker[worker] = new
        self.of_version.append(new)
        self.theta = self.theta - after * new


class Smega2(Server):
    """SMEGA2 (Cohen, Hakimi, Schuster 2022), with eta inside: g' = eta g; d is the dampening.

    s = (s + 1) mod N, G += g', theta -= g' + mu m with the old m; at s = 0 then m = mu m + (1 - d) G / N, G = 0.
    Workers download theta - mu [(N + s (mu - 1)) m + (s / N) G] ("advanced"), or theta - mu N m ("naive").
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        estimate: str = "advanced",
        dampening: float = 0.0,
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert estimate in ("advanced", "naive")
        self.momentum, self.n, self.estimate, self.dampening = momentum, num_workers, estimate, dampening
        self.s, self.m, self.sum = 0, np.zeros_like(self.theta), np.zeros_like(self.theta)

    def apply(self, g, worker, staleness, theta_read):
        g = self.eta * g
        self.s = (self.s + 1) % self.n
        self.sum = self.sum + g
        self.theta = self.theta - (g + self.momentum * self.m)
        if self.s == 0:
            self.m = self.momentum * self.m + (1 - self.dampening) * self.sum / self.n
            self.sum = np.zeros_like(self.theta)

    def view(self, worker=None):
        if self.estimate == "naive":
            return self.theta - self.momentum * self.n * self.m
        ahead = (self.n + self.s * (self.momentum - 1)) * self.m + self.s / self.n * self.sum
        return self.theta - self.momentum * ahead


class StalenessAwareAsgd(Server):
    """Zhang et al. 2015: theta -= eta / max(tau, 1) g, or eta / (tau + 1) g."""

    def __init__(self, theta0: Array, learning_rate: Schedule, delay: str = "staleness", **decay):
        super().__init__(theta0, learning_rate, **decay)
        assert delay in ("staleness", "staleness_plus_one")
        self.delay = delay

    def apply(self, g, worker, staleness, theta_read):
        divisor = max(staleness, 1) if self.delay == "staleness" else staleness + 1
        self.theta = self.theta - self.eta / divisor * g


class GapAwareAsgd(MomentumAsgd):
    """Gap-Aware (Barkai et al. 2020): heavy ball with g / Phi, Phi = 1 + |theta - theta_read| / C, 0 / 0 = 0.

    C is the average of |theta_{s+1} - theta_s| over the updates so far: their mean ("cumulative") or a zero-debiased
    exponential average ("ema"). |.| is elementwise ("parameter"), or the 2-norm of each array of parameters ("leaf",
    flat sizes in `leaf_sizes`), or of all parameters ("global"), shared by the elements.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float = 0.0,
        granularity: str = "parameter",
        average: str = "cumulative",
        average_decay: float = 0.99,
        leaf_sizes: Sequence[int] = (),
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, "inside", **decay)
        assert granularity in ("parameter", "leaf", "global") and average in ("cumulative", "ema")
        assert granularity != "leaf" or sum(leaf_sizes) == self.theta.size
        self.granularity, self.average, self.rho, self.leaf_sizes = granularity, average, average_decay, leaf_sizes
        self.steps: list[Array] = []  # the size of every step so far

    def size(self, x: Array) -> Array:
        """|x|, for each element."""
        if self.granularity == "parameter":
            return np.abs(x)
        sizes = self.leaf_sizes if self.granularity == "leaf" else [x.size]
        parts = np.split(x, np.cumsum(sizes)[:-1])
        return np.concatenate([np.full(part.size, np.linalg.norm(part)) for part in parts])

    def typical_step(self) -> Array:
        """C; 0 before the first update."""
        n = len(self.steps)
        if n == 0:
            return np.zeros_like(self.theta)
        if self.average == "cumulative":
            return np.mean(self.steps, axis=0)
        weights = [(1 - self.rho) * self.rho ** (n - 1 - s) for s in range(n)]
        return np.tensordot(weights, self.steps, 1) / (1 - self.rho**n)

    def apply(self, g, worker, staleness, theta_read):
        gap, c = self.size(self.theta - theta_read), self.typical_step()
        ratio = np.divide(gap, c, out=np.zeros_like(gap), where=c > 0)
        assert np.all(gap[c == 0] == 0)  # what never moved has no gap
        before = self.theta
        super().apply(g / (1 + ratio), worker, staleness, theta_read)
        self.steps.append(self.size(self.theta - before))


class DelayedNesterov(Server):
    """Delayed Nesterov (Liu et al. 2024), activation c in [0, 1/N]: D += g, and at every N-th gradient
    m = beta m + D / N, theta -= eta ((1 - c N + c) beta m + g / N), D = 0; else theta -= eta (c beta m + g / N).

    Inside has eta g for g everywhere, and none in front.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        activation: float = 0.0,
        form: str = "outside",
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert form in ("inside", "outside")
        self.beta, self.n, self.c, self.form = momentum, num_workers, activation, form
        self.m, self.sum = np.zeros_like(self.theta), np.zeros_like(self.theta)

    def apply(self, g, worker, staleness, theta_read):
        before, after = (self.eta, 1.0) if self.form == "inside" else (1.0, self.eta)
        g = before * g
        self.sum = self.sum + g
        if (self.received + 1) % self.n == 0:
            self.m = self.beta * self.m + self.sum / self.n
            self.sum = np.zeros_like(self.theta)
            share = 1 - self.c * self.n + self.c
        else:
            share = self.c
        self.theta = self.theta - after * (share * self.beta * self.m + g / self.n)


class ClosedLoop(Server):
    """Heavy ball with mu = mu + gain (target - (mu + mu_S)), from mu = 0.

    mu_S is the ratio of the sums, forgetting 1/window an update, of z.(g - G_v) and z.(g - G_{v-1}). G_k is the
    gradient that arrived at update k, g the one that read version v, z the running average (memory 8, begun at 0) of
    what arrived until v - 2. Nothing is measured with a staleness of 10 (M + 1) - 2 or more, nor with v < 2, nor, with
    "independent" reads, with fresh gradients; the loop opens after 10 (8 + M) updates. All coordinates are used.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        gain: float = 0.01,
        limit: float = 0.99,
        window: int = 1000,
        reads: str = "once",
        form: str = "inside",
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        assert reads in ("once", "independent") and form in ("inside", "outside")
        self.target, self.num_workers, self.gain, self.limit = momentum, num_workers, gain, limit
        self.window, self.reads, self.form = window, reads, form
        self.mu = self.mu_s = 0.0
        self.velocity = np.zeros_like(self.theta)
        self.arrived: list[Array] = []
        self.products: list[tuple[float, float]] = []

    def apply(self, g, worker, staleness, theta_read):
        before, after = (self.eta, 1.0) if self.form == "inside" else (1.0, self.eta)
        self.velocity = self.mu * self.velocity + before * g
        self.theta = self.theta - after * self.velocity
        self.measure(g, staleness)

    def measure(self, g: Array, staleness: int) -> None:
        """Sets mu for the next update."""
        t = len(self.arrived)
        self.arrived.append(g)
        v, product = t - staleness, (0.0, 0.0)
        if v >= 2 and staleness + 2 < 10 * (self.num_workers + 1) and (staleness > 0 or self.reads == "once"):
            z = sum((1 / 8) * (7 / 8) ** (v - 2 - k) * self.arrived[k] for k in range(v - 1))
            product = (float(z @ (g - self.arrived[v])), float(z @ (g - self.arrived[v - 1])))
        self.products.append(product)
        forget = [(1 - 1 / self.window) ** (t - k) for k in range(t + 1)]
        later, earlier = (sum(f * p[i] for f, p in zip(forget, self.products, strict=True)) for i in (0, 1))
        if t >= 10 * (8 + self.num_workers) and earlier != 0:
            self.mu_s = min(max(later / earlier, -1.0), 1.0)
            mu = self.mu + self.gain * (self.target - (self.mu + self.mu_s))
            self.mu = min(max(mu, -self.limit), self.limit)


class YellowFin(Server):
    """YellowFin (Zhang and Mitliagkas 2017) in the open loop: tunes eta and mu of heavy ball.

    With e = 1e-6, <.> an average of decay `average_decay`, zero-debiased, and a window of the last |g|^2:
    h_min, h_max = exp <log(min, max of the window + e)>, C = max(<|g|^2> - |<g>|^2, e), D = < <|g|> / (<|g|^2> + e) >;
    x is the root of x p = (1 - x)^3, p = D^2 h_min^2 / (2 C); r = sqrt(h_max / h_min),
    mu_t = max(x^2, ((r - 1) / (r + 1))^2), eta_t = (1 - sqrt mu_t)^2 / h_min min(1, (t + 1) / (10 window)).
    From the second gradient on, eta and mu are averages of these that begin at their initial values, not debiased.
    Then v = (mu + delta) v + g, theta -= factor eta v; the learning rate is the factor.

    Gradients are clipped twice, as JianGoForIt/YellowFin_Pytorch does, with the h_max of the event before: to
    sqrt(100 h_max), from the third one on and before the statistics; to sqrt(h_max), from the second one on and
    behind them.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule = 1.0,
        initial_learning_rate: float = 1e-4,
        initial_momentum: float = 0.0,
        window: int = 20,
        average_decay: float = 0.999,
        delta_momentum: float = 0.0,
        **decay,
    ):
        super().__init__(theta0, learning_rate, **decay)
        self.tuned_eta, self.tuned_mu = initial_learning_rate, initial_momentum
        self.window, self.beta, self.delta = window, average_decay, delta_momentum
        self.squares: list[float] = []  # |g|^2 of every gradient
        self.averages: dict[str, float | Array] = {}
        self.h_max = math.inf  # of the events before
        self.v = np.zeros_like(self.theta)

    def averaged(self, name: str, x):
        """The average of x, which begins at 0."""
        self.averages[name] = self.beta * self.averages.get(name, 0.0) + (1 - self.beta) * x
        return self.averages[name]

    def apply(self, g, worker, staleness, theta_read):
        t, e, debias = self.received, 1e-6, 1 - self.beta ** (self.received + 1)
        if t > 1:
            g = clip(g, math.sqrt(100 * self.h_max) + e)
        square = float(g @ g)
        self.squares.append(square)
        last = self.squares[-self.window :]
        h_min = math.exp(self.averaged("log h_min", math.log(min(last) + e)) / debias)
        h_max = math.exp(self.averaged("log h_max", math.log(max(last) + e)) / debias)
        mean, mean_square = self.averaged("g", g) / debias, self.averaged("|g|^2", square) / debias
        variance = max(mean_square - float(mean @ mean), e)
        distance = self.averaged("D", self.averaged("|g|", math.sqrt(square)) / debias / (mean_square + e)) / debias
        if t > 0:
            x, r = cubic_root(distance**2 * h_min**2 / (2 * variance)), math.sqrt(h_max / h_min)
            mu = max(x**2, ((r - 1) / (r + 1)) ** 2)
            eta = (1 - math.sqrt(mu)) ** 2 / h_min * min(1.0, (t + 1) / (10 * self.window))
            self.tuned_mu = self.beta * self.tuned_mu + (1 - self.beta) * mu
            self.tuned_eta = self.beta * self.tuned_eta + (1 - self.beta) * eta
            g = clip(g, math.sqrt(self.h_max) + e)
        self.h_max = h_max
        self.v = (self.tuned_mu + self.delta) * self.v + g
        self.theta = self.theta - self.eta * self.tuned_eta * self.v


def clip(g: Array, norm: float) -> Array:
    """g with a 2-norm of at most `norm`, as torch.nn.utils.clip_grad_norm has it."""
    return g * min(1.0, norm / (float(np.linalg.norm(g)) + 1e-6))


def cubic_root(p: float) -> float:
    """The x in (0, 1) with x p = (1 - x)^3, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(200):
        x = (low + high) / 2
        low, high = (x, high) if x * p < (1 - x) ** 3 else (low, x)
    return (low + high) / 2


# --------------------------------------------------------------------------------------------------
# The run: a server, a gradient and a trace


@dataclass
class Result:
    """What a run leaves behind; the lists are in event order."""

    theta: Array  # the server's parameters after T events
    thetas: list[Array]  # and after 0, 1, ..., T events
    losses: list[float]  # at what the worker read
    gaps: list[float]  # ||theta_t - theta_read||_2 / sqrt(d), when the gradient arrives
    model_state: Array | None


def simulate(
    server: Server,
    gradient: Gradient,
    worker: Sequence[int],
    read_version: Sequence[int],
    model_state: Array | None = None,
) -> Result:
    """Runs the events (worker[t], read_version[t]) in order, keeping every version for ever.

    Model state is not trained by gradients: it travels with the version, and the server folds in what comes
    back, ``model_state = decay * model_state + increment``, in event order.
    """
    worker, read_version = [int(i) for i in worker], [int(v) for v in read_version]
    readers: list[set[int]] = [set() for _ in range(len(worker) + 1)]
    for i, v in zip(worker, read_version, strict=True):
        readers[v].add(i)

    views = [server.view(None)]  # by version
    states = [None if model_state is None else np.array(model_state, dtype=np.float64)]  # by version
    thetas, losses, gaps = [server.theta.copy()], [], []
    for t, (i, v) in enumerate(zip(worker, read_version, strict=True)):
        assert 0 <= v <= t, f"event {t} reads version {v}, which does not exist yet"
        theta_read, state_read, state = views[v], states[v], states[t]
        loss, g, model_update = gradient(t, i, theta_read.copy(), state_read)
        gaps.append(float(np.linalg.norm(server.theta - theta_read) / math.sqrt(theta_read.size)))
        losses.append(float(loss))
        server.receive(np.asarray(g, dtype=np.float64), i, t - v, theta_read.copy())
        if model_update is not None:
            assert state is not None, "the gradient returns a model update, but there is no model state"
            decay, increment = model_update
            state = decay * state + increment
        thetas.append(server.theta.copy())
        states.append(state)
        downloads = readers[t + 1] or {i}  # a version that nobody reads is its creator's
        views.append(server.view(min(downloads) if len(downloads) == 1 else None))
    return Result(thetas[-1], thetas, losses, gaps, states[-1])


# --------------------------------------------------------------------------------------------------
# Problems with gradients in closed form


class Quadratic:
    """f_t(x) = (x - c_t)^T A (x - c_t) / 2 with A symmetric: the noise of SGD is in the centers c_t."""

    def __init__(self, h_matrix: Array, centers: Array):
        self.a = np.array(h_matrix, dtype=np.float64)
        self.centers = np.array(centers, dtype=np.float64)

    def loss_and_gradient(self, theta: Array, t: int) -> tuple[float, Array]:
        """f_t and its gradient A (theta - c_t)."""
        offset = theta - self.centers[t]
        return float(0.5 * offset @ self.a @ offset), self.a @ offset


class Softmax:
    """Softmax regression; theta = [W (num_features x num_classes) row-major, b (num_classes)]."""

    def __init__(self, features: Array, labels: Sequence[int], num_classes: int):
        self.features = np.array(features, dtype=np.float64)
        self.labels = [int(label) for label in labels]
        self.num_classes = num_classes

    def loss_and_gradient(self, theta_flat: Array, batch_indices: Sequence[int]) -> tuple[float, Array]:
        """Mean cross-entropy of the batch and its gradient: the means of x (p - e_y)^T and p - e_y."""
        split = self.features.shape[1] * self.num_classes
        weights, biases = theta_flat[:split].reshape(-1, self.num_classes), theta_flat[split:]
        loss, grad_weights, grad_biases = 0.0, np.zeros_like(weights), np.zeros_like(biases)
        for n in batch_indices:
            x, label = self.features[n], self.labels[n]
            logits = x @ weights + biases
            log_p = logits - logits.max()
            log_p = log_p - math.log(np.exp(log_p).sum())
            error = np.exp(log_p)
            error[label] -= 1.0
            loss -= log_p[label]
            grad_weights += np.outer(x, error)
            grad_biases += error
        grad = np.concatenate([grad_weights.ravel(), grad_biases])
        return float(loss / len(batch_indices)), grad / len(batch_indices)


# --------------------------------------------------------------------------------------------------
# Theory on (lambda/2) x^2, with h = alpha lambda


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
