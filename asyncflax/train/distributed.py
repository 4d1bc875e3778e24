"""One run in several processes, on one host or many: how they find each other, agree and end.

`jax.distributed` connects them. Flags or environment variables say who is who, or Slurm, Open MPI or Kubernetes does.
Process 0 is the primary: it alone writes and prints. In a single process nothing here does anything.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # JAX's coordination service has no public name
from jax.experimental import multihost_utils

from asyncflax import _check
from asyncflax.train._lifeline import Lifeline, connect

__all__ = ["broadcast", "end", "is_primary", "preempted", "same", "start", "sync"]

_VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
_LONG = 7 * 24 * 3600 * 1000  # milliseconds: who does not come has ended, and the lifeline tells it sooner
_numbers, _steps = itertools.count(), itertools.count()  # the same in all processes
_lifeline: Lifeline | None = None


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
    patience: float = 30.0,
) -> None:
    """Joins the processes of a run; before anything else that JAX does.

    Where nothing is given and neither the environment nor a cluster tells of other processes, nothing happens; nor with
    `num_processes=1`, which is how a process of a cluster stays alone. From here on an error that nobody catches, and
    any other sudden end of a process, ends all of them.

    Args:
      coordinator: 'HOST:PORT' of process 0; by default the environment variable JAX_COORDINATOR_ADDRESS.
      num_processes: how many there are; by default JAX_NUM_PROCESSES.
      process_id: which one this is, counted from 0; by default JAX_PROCESS_ID.
      timeout: seconds in which all must have come.
      patience: seconds of silence after which a process counts as ended.

    Raises:
      TypeError, ValueError: a value is wrong, or one of the three is lacking.
      RuntimeError: JAX has computed already, or this has been called before.
      OSError: the primary cannot be reached.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.start()
      >>> distributed.is_primary()
      True
      >>> distributed.start(coordinator="node7:1234", num_processes=2)
      Traceback (most recent call last):
        ...
      ValueError: coordinator='node7:1234' and num_processes=2 need process_id as well; pass it, or set JAX_PROCESS_ID.
    """
    global _lifeline
    who = _identity(coordinator, num_processes, process_id)
    if who["num_processes"] == 1 or (set(who.values()) == {None} and not _in_cluster()):
        return
    late = threading.Timer(timeout, _too_late, [timeout])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            who["coordinator"],
            who["num_processes"],
            who["process_id"],
            cluster_detection_method=None if None in who.values() else "deactivate",
            initialization_timeout=int(timeout) + 60,  # later than `late`, since JAX aborts
            heartbeat_timeout_seconds=int(patience) + 20,  # later than the lifeline, for the same reason
        )
        host = str(global_state.coordinator_address).rpartition(":")[0].strip("[]")
        others = connect(global_state.client, host, global_state.process_id, global_state.num_processes, timeout)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"JAX does not find the other processes ({error}); pass coordinator, num_processes and process_id, or "
            "num_processes=1 for a process on its own."
        ) from error
    finally:
        late.cancel()
    _lifeline = Lifeline(others, patience)
    sys.excepthook = _on_error
    atexit.register(_leave)


def is_primary() -> bool:
    """Whether this is the process that writes and prints.

    Example: see `start`.
    """
    return global_state.process_id == 0


def sync(name: str) -> None:
    """Returns when all processes have come here.

    Args:
      name: of the place, for logs.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.sync("saved")
    """
    client: Any = global_state.client
    if client is not None:
        client.wait_at_barrier(f"asyncflax/{next(_numbers)}/{name}", _LONG)


def broadcast(value: Any) -> Any:
    """The value that the primary has.

    Args:
      value: JSON; what the other processes pass does not matter.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.broadcast({"update": 20})
      {'update': 20}
    """
    client: Any = global_state.client
    if client is None:
        return value
    key = f"asyncflax/{next(_numbers)}"
    if is_primary():
        client.key_value_set(key, json.dumps(value))
    return json.loads(client.blocking_key_value_get(key, _LONG))


def same(values: Mapping[str, Any]) -> None:
    """Refuses values that are not those of the primary.

    Args:
      values: JSON by name.

    Raises:
      ValueError: one differs.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.same({"workdir": "runs/digits"})
    """
    mine = json.loads(json.dumps(dict(values)))
    theirs = broadcast(mine)
    for name in [name for name in mine if mine[name] != theirs.get(name)][:1]:
        raise ValueError(
            f"{name} is {mine[name]!r} here and {theirs.get(name)!r} in process 0; start all processes of a run with "
            "the same command, or each for itself with num_processes=1."
        )


def preempted() -> bool:
    """Whether all processes stop here, since SIGTERM has come to one of them; asked by all after every step.

    They agree on a step that none has passed, without waiting for the devices. False in a single process.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.preempted()
      False
    """
    return multihost_utils.reached_preemption_sync_point(next(_steps))


def end(message: str, status: int = 1) -> NoReturn:
    """Ends all processes of the run with an error, which the primary prints.

    Args:
      message: one clear sentence.
      status: the exit status.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.end("the disk is full", status=3)
      Traceback (most recent call last):
        ...
      SystemExit: 3
    """
    if _lifeline is not None:
        _lifeline.end(message, status)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _identity(coordinator: str | None, num_processes: int | None, process_id: int | None) -> dict[str, Any]:
    """The three, from arguments or environment; what a cluster will tell is None."""
    coordinator = coordinator or os.environ.get(_VARIABLES["coordinator"]) or None
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"coordinator must be HOST:PORT of process 0, such as 'node7:1234', got {coordinator!r}.")
    num_processes = _number("num_processes", num_processes, 1)
    process_id = _number("process_id", process_id, 0)
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ValueError(f"process_id must be below num_processes={num_processes}, got process_id={process_id}.")
    who = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    given = [f"{name}={value!r}" for name, value in who.items() if value is not None]
    lacking = next((name for name, value in who.items() if value is None), None)
    if given and lacking and num_processes != 1 and not _in_cluster():
        variable = _VARIABLES[lacking]
        need = "needs" if len(given) == 1 else "need"
        raise ValueError(f"{' and '.join(given)} {need} {lacking} as well; pass it, or set {variable}.")
    return who


def _number(name: str, value: int | None, minimum: int) -> int | None:
    variable = _VARIABLES[name]
    if value is None and os.environ.get(variable):
        name, text = variable, os.environ[variable]
        value = int(text) if re.fullmatch(r"-?\d+", text) else text  # pyright: ignore[reportAssignmentType]
    return None if value is None else _check.integer(name, value, minimum)


def _in_cluster() -> bool:
    """Whether Slurm, Open MPI or Kubernetes started this process beside others; JAX finds them."""
    environment = os.environ
    tasks = [environment.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")]
    indexed_job = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return tasks != ["1", "1"] or indexed_job


def _too_late(timeout: float) -> None:
    why = f"not all processes of the run have come within {timeout:g} s; start all, with a coordinator that all reach"
    print(f"error: {why}", file=sys.stderr, flush=True)
    os._exit(1)  # JAX would abort, with a stack trace


def _on_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Ends all processes after an error that nobody caught; the others would wait for this one."""
    if _lifeline is not None:
        _lifeline.wait_a_moment()
    sys.__excepthook__(kind, error, traceback)
    end(f"{kind.__name__}: {error}")


def _leave() -> None:
    """The end of a run that has gone well."""
    sync("end")
    if _lifeline is not None:
        _lifeline.leave()
