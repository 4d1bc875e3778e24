"""Servers of asynchronous SGD, with and without momentum, corrections and scaled steps.

eta is the learning rate, mu the momentum, u a velocity with eta inside, v one with eta outside.
"""

from collections.abc import Sequence

import numpy as np

from reference.server import Array, Row, Schedule, Server


class Asgd(Server):
    """theta -= eta g (Mitliagkas et al. 2016, eq. 6)."""

    rows = (
        Row("asgd", copies=0),
        Row("asgd-decay", weight_decay=0.1),
        Row("asgd-server_decay", weight_decay=0.1, decay_at="server"),
    )

    def apply(self, g, worker, staleness, theta_read):
        self.theta = self.theta - self.eta * g


class MomentumAsgd(Server):
    """Heavy ball. Inside: u = mu u + eta g, theta -= u. Outside: v = mu v + g, theta -= eta v."""

    rows = (
        Row("momentum_asgd", copies=1),
        Row("momentum_asgd-outside", form="outside"),
    )

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

    rows = (
        Row("nag_asgd", copies=1, textbook="lookahead", weight_decay=0.05),
        Row("nag_asgd-shifted", copies=1, textbook="nesterov", variant="shifted"),
    )

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

    rows = (
        Row("multi_asgd", copies=8, weight_decay=0.05),
        Row("multi_asgd-outside", form="outside"),
        Row("multi_asgd-nesterov", textbook="nesterov", nesterov=True),
        Row("multi_asgd-nesterov-outside", textbook="nesterov", nesterov=True, form="outside"),
    )

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


class Compensation:
    """ghat = g + lambda c(g) (theta - theta_read), elementwise, with c(g) = g*g ("squared") or |g| ("absolute").

    lambda is `strength`; with a `mean_square` (DC-ASGD-a) ms = rho ms + (1 - rho) g*g, "shared" or one "per_worker",
    and lambda is strength / sqrt(ms + epsilon) elementwise, with the ms that g is already in.
    """

    def __init__(
        self, strength: float, curvature: str, mean_square: str, rho: float, epsilon: float, num_workers: int | None
    ):
        assert curvature in ("squared", "absolute") and mean_square in ("none", "shared", "per_worker")
        self.strength, self.curvature, self.mean_square, self.rho = strength, curvature, mean_square, rho
        self.epsilon = epsilon
        self.ms: list[Array | float] = [0.0] * (1 if mean_square == "shared" else num_workers or 0)

    def compensated(self, g, worker, theta, theta_read):
        c = g * g if self.curvature == "squared" else np.abs(g)
        strength = self.strength
        if self.mean_square != "none":
            i = worker if self.mean_square == "per_worker" else 0
            self.ms[i] = self.rho * self.ms[i] + (1 - self.rho) * g * g
            strength = strength / np.sqrt(self.ms[i] + self.epsilon)
        return g + strength * c * (theta - theta_read)


class DcAsgd(MomentumAsgd):
    """DC-ASGD (Zheng et al. 2017): momentum SGD with gradients that are compensated to the server's theta."""

    rows = (
        Row("dc_asgd", copies=1, strength=0.8, weight_decay=0.05),
        Row("dc_asgd-absolute", strength=0.8, curvature="absolute"),
        Row("dc_asgd-shared", copies=2, strength=0.8, mean_square="shared", weight_decay=0.05),
        Row("dc_asgd-per_worker", copies=9, strength=0.8, mean_square="per_worker", mean_square_decay=0.8),
        Row("dc_asgd-epsilon", copies=2, strength=0.8, mean_square="shared", epsilon=0.3),
    )

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
        epsilon: float = 1e-10,
        num_workers: int | None = None,
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, form, **decay)
        self.compensation = Compensation(strength, curvature, mean_square, mean_square_decay, epsilon, num_workers)

    def apply(self, g, worker, staleness, theta_read):
        g = self.compensation.compensated(g, worker, self.theta, theta_read)
        super().apply(g, worker, staleness, theta_read)


class DelayAdaptiveAsgd(Server):
    """Mishchenko et al. 2022: theta -= eta M / max(M, delay) g, where the delay is tau or tau + 1."""

    rows = (
        Row("delay_adaptive_asgd", copies=0),
        Row("delay_adaptive_asgd-plus_one", delay="staleness_plus_one"),
    )

    def __init__(self, theta0: Array, learning_rate: Schedule, num_workers: int, delay: str = "staleness", **decay):
        super().__init__(theta0, learning_rate, **decay)
        assert delay in ("staleness", "staleness_plus_one")
        self.num_workers, self.offset = num_workers, int(delay == "staleness_plus_one")

    def apply(self, g, worker, staleness, theta_read):
        scale = self.num_workers / max(self.num_workers, staleness + self.offset)
        self.theta = self.theta - self.eta * scale * g


class StalenessAwareAsgd(Server):
    """Zhang et al. 2015: theta -= eta / max(tau, 1) g, or eta / (tau + 1) g."""

    rows = (
        Row("staleness_aware_asgd", copies=0, weight_decay=0.05),
        Row("staleness_aware_asgd-plus_one", delay="staleness_plus_one"),
    )

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

    rows = (
        Row("gap_aware_asgd", copies=2, weight_decay=0.05),
        Row("gap_aware_asgd-ema", copies=2, average="ema", average_decay=0.8),
        Row("gap_aware_asgd-leaf", copies=1, granularity="leaf"),
        Row("gap_aware_asgd-leaf-ema", granularity="leaf", average="ema"),
        Row("gap_aware_asgd-global", copies=1, granularity="global"),
    )

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


class Ssgd(MomentumAsgd):
    """Synchronous SGD: a round of M gradients, then one momentum step with their mean; eta counts rounds."""

    rows = (
        Row("ssgd", copies=2, weight_decay=0.05),
        Row("ssgd-outside", form="outside"),
    )

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
