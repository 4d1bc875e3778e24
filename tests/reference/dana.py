"""Servers that hand out where the parameters will be: DANA, LWP, SMEGA2."""

import numpy as np

from reference.asgd import Compensation
from reference.server import Array, Row, Schedule, Server


class DanaZero(Server):
    """DANA-Zero (Hakimi et al. 2019): u_i = mu u_i + eta g, theta -= u_i; workers download theta - mu sum_j u_j."""

    rows = (
        Row("dana_zero", copies=9, textbook="lookahead", weight_decay=0.05),
        Row("dana_zero-server_decay", textbook=None, weight_decay=0.1, decay_at="server"),
    )

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

    rows = (
        Row("dana_slim", copies=8, worker_copies=1, textbook="nesterov", weight_decay=0.05),
        Row("dana_slim-outside", textbook="nesterov", form="outside"),
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
    """DANA-DC: DANA-Zero with gradients that are compensated from the look-ahead that was sent.

    To the server's theta when g arrives (origin "params") or to its look-ahead then ("lookahead").
    """

    rows = (
        Row("dana_dc", copies=9, textbook=None, strength=0.8, weight_decay=0.05),
        Row("dana_dc-lookahead", textbook="lookahead", strength=0.8, origin="lookahead"),
        Row("dana_dc-absolute", textbook=None, strength=0.8, curvature="absolute"),
        Row("dana_dc-shared", textbook=None, strength=0.8, mean_square="shared", mean_square_decay=0.8, epsilon=0.3),
        Row("dana_dc-per_worker", textbook="lookahead", strength=0.8, mean_square="per_worker", origin="lookahead"),
    )

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        momentum: float,
        num_workers: int,
        strength: float = 0.04,
        curvature: str = "squared",
        mean_square: str = "none",
        mean_square_decay: float = 0.95,
        epsilon: float = 1e-10,
        origin: str = "params",
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, num_workers, **decay)
        assert origin in ("params", "lookahead")
        self.compensation = Compensation(strength, curvature, mean_square, mean_square_decay, epsilon, num_workers)
        self.origin = origin

    def apply(self, g, worker, staleness, theta_read):
        origin = self.theta if self.origin == "params" else self.view()
        g = self.compensation.compensated(g, worker, origin, theta_read)
        super().apply(g, worker, staleness, theta_read)


class Lwp(Server):
    """Linear weight prediction: u = mu u + eta g, theta -= u; workers download theta - lag u, lag = M by default."""

    rows = (
        Row("lwp", copies=1, textbook=None, weight_decay=0.05),
        Row("lwp-lag", textbook=None, lag=2.5),
    )

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


class Smega2(Server):
    """SMEGA2 (Cohen, Hakimi, Schuster 2022), with eta inside: g' = eta g; d is the dampening.

    s = (s + 1) mod N, G += g', theta -= g' + mu m with the old m; at s = 0 then m = mu m + (1 - d) G / N, G = 0.
    Workers download theta - mu [(N + s (mu - 1)) m + (s / N) G] ("advanced"), or theta - mu N m ("naive").
    """

    rows = (
        Row("smega2", copies=2, textbook="lookahead", weight_decay=0.05),
        Row("smega2-naive", copies=2, textbook="lookahead", estimate="naive"),
        Row("smega2-dampening", textbook=None, dampening=0.4),
    )

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
