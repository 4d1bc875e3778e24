"""Servers that put momentum into the order of the reads: OrMo, shifted momentum, delayed Nesterov."""

import math

import numpy as np

from reference.server import Array, Row, Schedule, Server


class Ormo(Server):
    """OrMo (Shi, Yang, Li 2024). Gradient t has the global index ite = t - tau; buckets hold K = M indices.

    When t opens a bucket, ceil(t/K) > ceil((t-1)/K): theta -= beta u, u = beta u. Then D = ceil(t/K) - ceil(ite/K)
    says how many buckets g is late: u += beta^D eta g, and theta makes at once the D momentum steps that g missed,
    theta -= (1 + beta + ... + beta^D) eta g ("catch_up"), or theta -= eta g ("vanilla"). Bucket "floor" has floor for
    ceil everywhere.
    """

    rows = (
        Row("ormo", copies=1, weight_decay=0.05),
        Row("ormo-vanilla", late_step="vanilla"),
        Row("ormo-floor", bucket="floor"),
    )

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

    rows = (
        Row("ormo_da", copies=1, weight_decay=0.05),
        Row("ormo_da-scale", scale=0.3),
        Row("ormo_da-bound", rule="bound", smoothness=0.2),
        Row("ormo_da-vanilla", scale=0.3, late_step="vanilla"),
    )

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

    rows = (
        Row("shifted_momentum", copies=8, weight_decay=0.05),
        Row("shifted_momentum-outside", textbook=None, form="outside", dampening=0.4),
        Row("shifted_momentum-version", velocity="version", max_staleness=24),  # as many as the suites have events
        Row(
            "shifted_momentum-version-outside",
            textbook=None,
            velocity="version",
            max_staleness=24,
            form="outside",
            dampening=0.4,
        ),
    )

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


class DelayedNesterov(Server):
    """Delayed Nesterov (Liu et al. 2024), activation c in [0, 1/N]: D += g, and at every N-th gradient
    m = beta m + D / N, theta -= eta ((1 - c N + c) beta m + g / N), D = 0; else theta -= eta (c beta m + g / N).

    Inside has eta g for g everywhere, and none in front.
    """

    rows = (
        Row("delayed_nesterov", copies=2, textbook="nesterov", weight_decay=0.05),
        Row("delayed_nesterov-activation", textbook="nesterov", activation=0.1),
        Row("delayed_nesterov-inside", textbook="nesterov", activation=0.25, form="inside"),
    )

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
