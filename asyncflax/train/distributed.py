"""One run in several processes, on one host or many: how they find each other, agree and end.

`jax.distributed` connects them and watches over them. Flags or environment variables say who is who, or Slurm, Open
MPI or Kubernetes does. Process 0 is the primary: it alone writes and prints. In a single process nothing here does
anything.
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
_MOMENT = 5.0  # seconds in which the error of one process may turn out to be everybody's
_steps = itertools.count()  # the same in all processes


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
    `num_processes=1`, which is how a process of a cluster stays alone. From here on the sudden end of one process ends
    all of them within about `patience` seconds, since JAX's health checking aborts the others. So let all come to their
    end together (`sync`).

    Args:
      coordinator: 'HOST:PORT' of process 0; by default the environment variable JAX_COORDINATOR_ADDRESS.
      num_processes: how many there are; by default JAX_NUM_PROCESSES.
      process_id: which one this is, counted from 0; by default JAX_PROCESS_ID.
      timeout: seconds in which all must have connected.
      patience: seconds without a heartbeat after which a process counts as ended, at least 1.

    Raises:
      TypeError, ValueError: a value is wrong, or one of the three is lacking.
      RuntimeError: JAX has computed already, or this has been called before.

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
            initialization_timeout=int(timeout) + 60,  # later than `late`, since JAX aborts with a stack trace
            heartbeat_timeout_seconds=int(patience),
            shutdown_timeout_seconds=int(patience),  # after an error that nobody caught, the others do not come
        )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"JAX does not find the other processes ({error}); pass coordinator, num_processes and process_id, or "
            "num_processes=1 for a process on its own."
        ) from error
    finally:
        late.cancel()


def is_primary() -> bool:
    """Whether this is the process that writes and prints.

    Example: see `start`.
    """
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def sync(name: str) -> None:
    """Returns when all processes have come here.

    Args:
      name: of the place.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.sync("saved")
    """
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices(name)


def broadcast(value: Any) -> Any:
    """The value that the primary has.

    Args:
      value: JSON; what the other processes pass does not matter.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.broadcast({"update": 20})
      {'update': 20}
    """
    if not jax.distributed.is_initialized():
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(1 << size.bit_length(), np.uint8)  # few shapes, few programs
    if is_primary():
        padded[:size] = text
    return json.loads(multihost_utils.broadcast_one_to_all(padded)[:size].tobytes())


def same(values: Mapping[str, Any]) -> None:
    """Raises in all processes if a value of one is not that of the primary.

    Args:
      values: JSON by name.

    Raises:
      ValueError: one differs.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.same({"workdir": "runs/digits"})
    """
    if not jax.distributed.is_initialized():
        return
    mine = json.loads(json.dumps(dict(values)))
    theirs = broadcast(mine)
    differing = [name for name in mine if mine[name] != theirs.get(name)]
    wrong = np.flatnonzero(multihost_utils.process_allgather(np.int32(len(differing))))
    if differing:
        name = differing[0]
        what = f"{name} is {mine[name]!r} here and {theirs.get(name)!r} in process 0"
    else:
        what = f"process {wrong[0] if len(wrong) else 0} was started with other values than process 0"
    if len(wrong):
        raise ValueError(
            f"{what}; start all processes of a run with the same command, or each for itself with num_processes=1."
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
    """Ends this process with an error, and with it all processes of the run; see `start`.

    Args:
      message: one clear sentence.
      status: the exit status. Others that come to the end with an error of their own have theirs; those that wait for
        this one are aborted.

    Example:
      >>> from asyncflax.train import distributed
      >>> distributed.end("the disk is full", status=3)
      Traceback (most recent call last):
        ...
      SystemExit: 3
    """
    if not jax.distributed.is_initialized():
        print(f"error: {message}", file=sys.stderr)
        sys.exit(status)
    print(f"error: {_which()}{message}", file=sys.stderr, flush=True)
    leave = threading.Thread(target=jax.distributed.shutdown, daemon=True)  # waits for the others, who may not come
    leave.start()
    leave.join(_MOMENT)
    os._exit(status)


def _which() -> str:
    """Which process this is, if not the primary."""
    try:
        return "" if is_primary() else f"process {jax.process_index()}: "
    except (RuntimeError, AssertionError):  # JAX has no device
        return ""


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
    why = f"timed out after {timeout:g} s waiting for all processes to connect"
    print(f"error: {why}; check that each was started and can reach the coordinator", file=sys.stderr, flush=True)
    os._exit(1)  # JAX would abort with a stack trace
