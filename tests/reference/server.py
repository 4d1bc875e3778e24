"""The parameter server that all methods share, and the run: a server, a gradient and a trace."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Schedule = float | Callable[[int], float]
# gradient(t, worker, theta_read, model_state_read) -> (loss, g, None or the model state's (decay, increment))
Gradient = Callable[[int, int, Array, Array | None], tuple[float, Array, tuple[float, Array] | None]]


class Row:
    """A method with some of its options; the suites run each one.

    Attributes:
      name: METHOD, or METHOD-SUFFIX for each further choice of options.
      textbook: what one worker without staleness does: "heavy_ball" (SGD where there is no momentum), "nesterov",
        "lookahead" (Nesterov, but the server keeps other parameters than those at which gradients are taken), or None
        of these.
      copies: of the parameters, in the method's state for 8 workers; None is not counted. METHOD alone needs it.
      worker_copies: those that each worker of a real cluster keeps itself.
      options: arguments of the method and of its twin.
    """

    def __init__(
        self,
        name: str,
        *,
        textbook: str | None = "heavy_ball",
        copies: int | None = None,
        worker_copies: int = 0,
        **options: Any,
    ):
        self.name, self.options = name, options
        self.textbook, self.copies, self.worker_copies = textbook, copies, worker_copies

    @property
    def method(self) -> str:
        """The name without the suffix."""
        return self.name.partition("-")[0]


class Server:
    """What all methods share: the parameters theta, the schedule eta(.) and weight decay.

    Decay at "read" adds ``weight_decay * theta_read`` to the arriving gradient, decay at "server" adds
    ``weight_decay * theta``; either way before the method sees the gradient.
    """

    rows: tuple[Row, ...] = ()  # each class has its own, they are not inherited

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


@dataclass
class Result:
    """What a run leaves behind; the lists are in event order."""

    theta: Array  # the server's parameters after T events
    thetas: list[Array]  # and after 0, 1, ..., T events
    losses: list[float]  # at what the worker read
    gaps: list[float]  # ||theta_t - theta_read||_2 / sqrt(d), when the gradient arrives
    sizes: list[float]  # ||g||_2 / sqrt(d) of the gradient that arrives
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
    thetas, losses, gaps, sizes = [server.theta.copy()], [], [], []
    for t, (i, v) in enumerate(zip(worker, read_version, strict=True)):
        assert 0 <= v <= t, f"event {t} reads version {v}, which does not exist yet"
        theta_read, state_read, state = views[v], states[v], states[t]
        loss, g, model_update = gradient(t, i, theta_read.copy(), state_read)
        gaps.append(float(np.linalg.norm(server.theta - theta_read) / math.sqrt(theta_read.size)))
        sizes.append(float(np.linalg.norm(g) / math.sqrt(theta_read.size)))
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
    return Result(thetas[-1], thetas, losses, gaps, sizes, states[-1])
