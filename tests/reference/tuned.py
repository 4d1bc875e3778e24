"""Servers that choose their momentum: closed-loop momentum, YellowFin."""

import math

import numpy as np

from reference.server import Array, Row, Schedule, Server


class ClosedLoop(Server):
    """Heavy ball with mu = mu + gain (target - (mu + mu_S)), from mu = 0.

    mu_S is the ratio of the sums, forgetting 1/window an update, of z.(g - G_v) and z.(g - G_{v-1}). G_k is the
    gradient that arrived at update k, g the one that read version v, z the running average (memory 8, begun at 0) of
    what arrived until v - 2. Nothing is measured with a staleness of 10 (M + 1) - 2 or more, nor with v < 2, nor, with
    "independent" reads, with fresh gradients; the loop opens after 10 (8 + M) updates. All coordinates are used.
    """

    rows = (
        Row("closed_loop_momentum", copies=1, textbook=None, weight_decay=0.05),
        Row("closed_loop_momentum-independent", textbook=None, reads="independent", form="outside"),
    )

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

    rows = (
        Row("yellowfin", copies=2, textbook=None, weight_decay=0.05),
        Row(
            "yellowfin-fast", textbook=None, initial_learning_rate=0.1, window=3, average_decay=0.8, delta_momentum=-0.1
        ),
    )

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
