"""The queue: workers that compute, deliver, download and start again."""

import heapq
import math
from collections.abc import Callable


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
