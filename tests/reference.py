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

    lambda is `strength`; the curvature estimate c(g) is g*g ("squared") or |g| ("absolute"), elementwise.
    """

    def __init__(
        self,
        theta0: Array,
        learning_rate: Schedule,
        strength: float,
        momentum: float = 0.0,
        curvature: str = "squared",
        form: str = "inside",
        **decay,
    ):
        super().__init__(theta0, learning_rate, momentum, form, **decay)
        assert curvature in ("squared", "absolute")
        self.strength, self.curvature = strength, curvature

    def apply(self, g, worker, staleness, theta_read):
        c = g * g if self.curvature == "squared" else np.abs(g)
        super().apply(g + self.strength * c * (self.theta - theta_read), worker, staleness, theta_read)


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
