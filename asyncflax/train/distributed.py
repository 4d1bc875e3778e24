"""Runs of several processes, on one host or many: they connect, agree on values and end together.

`jax.distributed` connects and monitors the processes. They are identified by flags, environment variables, or Slurm,
Open MPI or Kubernetes. Only process 0, the primary, writes and prints. In a single process all of this is a no-op.

Example:
  >>> from asyncflax.train import distributed
  >>> distributed.start()
  >>> distributed.is_primary(), distributed.preempted(), distributed.broadcast({"update": 20})
  (True, False, {'update': 20})
  >>> distributed.same({"workdir": "runs/digits"})
  >>> distributed.sync("saved")
  >>> distributed.end("the disk is full", status=3)
  Traceback (most recent call last):
    ...
  SystemExit: 3
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from asyncflax import _check

__all__ = ["broadcast", "end", "is_primary", "preempted", "same", "start", "sync"]

_VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
_MOMENT = 5.0  # seconds that a failing process waits for the others, which may have the same error
_steps = itertools.count()  # the same in all processes


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
    patience: float = 30.0,
) -> None:
    """Connects the processes of a run; call it before any JAX computation.

    A no-op if no arguments are given and neither the environment nor a cluster defines other processes, or with
    `num_processes=1`, which runs a process of a cluster on its own. Once connected, JAX's health checking aborts all
    processes within about `patience` seconds after one of them dies, so end them together (`sync`).

    Args:
      coordinator: 'HOST:PORT' of process 0; by default the environment variable JAX_COORDINATOR_ADDRESS.
      num_processes: the number of processes; by default JAX_NUM_PROCESSES.
      process_id: the id of this process, counted from 0; by default JAX_PROCESS_ID.
      timeout: seconds within which all processes must connect.
      patience: seconds without a heartbeat after which a process is considered dead, at least 1.

    Raises:
      TypeError, ValueError: a value is invalid, or one of the three is missing.
      RuntimeError: JAX has already run a computation, or the process is already connected.
    """
    who = _identity(coordinator, num_processes, process_id)
    _check.number("patience", patience, low=1.0)
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
            initialization_timeout=int(timeout) + 60,  # after `late`, since JAX aborts with a stack trace
            heartbeat_timeout_seconds=int(patience),
            shutdown_timeout_seconds=int(patience),  # after an uncaught error the other processes never arrive
        )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"JAX cannot detect the other processes ({error}); pass coordinator, num_processes and process_id, or "
            "num_processes=1 to run this process on its own."
        ) from error
    finally:
        late.cancel()


def is_primary() -> bool:
    """Whether this process writes and prints.

    True in process 0, and in a run of a single process.
    """
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def sync(name: str) -> None:
    """Waits until all processes have reached this point.

    Args:
      name: identifies the point; it must be the same in all processes.
    """
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices(name)


def broadcast(value: Any) -> Any:
    """Returns the primary's value in all processes.

    Args:
      value: a JSON value; ignored in the other processes.
    """
    if not jax.distributed.is_initialized():
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(1 << size.bit_length(), np.uint8)  # few shapes, few compilations
    if is_primary():
        padded[:size] = text
    return json.loads(multihost_utils.broadcast_one_to_all(padded)[:size].tobytes())


def same(values: Mapping[str, Any]) -> None:
    """Raises in all processes if the values of any process differ from the primary's.

    Args:
      values: the JSON values by name.

    Raises:
      ValueError: a value differs.
    """
    if not jax.distributed.is_initialized():
        return
    mine = json.loads(json.dumps(dict(values)))
    theirs = broadcast(mine)
    name = next((name for name in mine if mine[name] != theirs.get(name)), None)
    others = np.flatnonzero(multihost_utils.process_allgather(np.bool_(name is not None)))
    if others.size:
        what = f"process {others[0]} was started with other values than process 0"
        if name is not None:
            what = f"{name} is {mine[name]!r} here, but {theirs.get(name)!r} in process 0"
        raise ValueError(
            f"{what}; start all processes of a run with the same command, or each on its own with num_processes=1."
        )


def preempted() -> bool:
    """Whether all processes should stop here, because one of them received SIGTERM; call it in all after every step.

    The processes agree on a step that none has passed, without blocking on the devices. False in a single process.
    """
    return multihost_utils.reached_preemption_sync_point(next(_steps))


def end(message: str, status: int = 1) -> NoReturn:
    """Ends this process with an error, and with it all processes of the run; see `start`.

    Args:
      message: one sentence.
      status: the exit status of this process; JAX aborts the others unless they exit with an error of their own.
    """
    if not jax.distributed.is_initialized():
        print(f"error: {message}", file=sys.stderr)
        sys.exit(status)
    print(f"error: {_which()}{message}", file=sys.stderr, flush=True)
    leave = threading.Thread(target=jax.distributed.shutdown, daemon=True)  # waits for the others, possibly forever
    leave.start()
    leave.join(_MOMENT)
    os._exit(status)


def _which() -> str:
    """A prefix that names this process, unless it is the primary."""
    try:
        return "" if is_primary() else f"process {jax.process_index()}: "
    except (RuntimeError, AssertionError):  # JAX has no device
        return ""


def _identity(coordinator: str | None, num_processes: int | None, process_id: int | None) -> dict[str, Any]:
    """The three values, from arguments or the environment; None for what the cluster provides."""
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
        raise ValueError(f"{' and '.join(given)} {need} {lacking} as well; pass it or set {variable}.")
    return who


def _number(name: str, value: int | None, minimum: int) -> int | None:
    variable = _VARIABLES[name]
    if value is None and os.environ.get(variable):
        name, text = variable, os.environ[variable]
        value = int(text) if re.fullmatch(r"-?\d+", text) else text  # pyright: ignore[reportAssignmentType]
    return None if value is None else _check.integer(name, value, minimum)


def _in_cluster() -> bool:
    """Whether Slurm, Open MPI or Kubernetes started several processes, which JAX detects."""
    environment = os.environ
    tasks = [environment.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")]
    indexed_job = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return tasks != ["1", "1"] or indexed_job


def _too_late(timeout: float) -> None:
    why = f"timed out after {timeout:g} s waiting for all processes to connect"
    print(f"error: {why}; check that each was started and can reach the coordinator", file=sys.stderr, flush=True)
    os._exit(1)  # JAX would abort with a stack trace
