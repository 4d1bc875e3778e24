"""The processes of tests/test_processes.py: how they are started, and what each of them does.

    python tests/processes.py TASK FOLDER

The environment says who is who. What is computed goes to the folder, from the primary.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np

from asyncflax.train import distributed

ROOT = pathlib.Path(__file__).parents[1]
SAVED_AT = 12  # the event after which a run is saved
SAVED = ("dc_asgd", "assigned", "sharded")  # which run that is, among `cases`
SEED = 7
# Methods whose state, view or reductions over the parameters are not alike.
KINDS = ("asgd", "ssgd", "nag_asgd", "multi_asgd", "dana_dc", "ormo", "gap_aware_asgd-global", "yellowfin", "smega2")


def environment(devices: int, **more: str) -> dict[str, str]:
    """That of one process, with some devices on the CPU and 32 bits, whatever the tests have."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**plain, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def started(commands: list[list[str]], environments: list[dict[str, str]]) -> Iterator[list[subprocess.Popen]]:
    """Python processes with their arguments; none is left in the end."""
    pipes = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = zip(commands, environments, strict=True)
    processes = [subprocess.Popen([sys.executable, *words], env=env, **pipes) for words, env in both]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def started_task(task: str, folder: pathlib.Path, count: int, devices: int = 1):
    """The processes that do a task together; the environment says who is who."""
    run = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    each = [environment(devices, **run, JAX_PROCESS_ID=str(index)) for index in range(count)]
    return started([["tests/processes.py", task, str(folder)]] * count, each)


def ends(processes: list[subprocess.Popen], timeout: float = 60) -> list[tuple[int, str]]:
    """Exit status and errors of processes, which end within a time."""
    deadline = time.monotonic() + timeout
    errors = [process.communicate(timeout=max(deadline - time.monotonic(), 0.1))[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


# --- What they compute ----------------------------------------------------------------------------------------------


def cases(count: int) -> list[tuple[str, str, str]]:
    """Method, trace and server of what so many processes compute: two all kinds of methods, one on all traces."""
    from problems import some_traces

    if count == 4:
        return [("multi_asgd", "restart", "replicated"), SAVED]
    servers = ("replicated", "sharded")
    methods = [(name, "exponential", servers[i % 2]) for i, name in enumerate(KINDS)]
    return list(dict.fromkeys([*methods, *(("dc_asgd", kind, server) for kind in some_traces() for server in servers)]))


def make_plan(kind: str, **where):
    """A plan with a cut where it is saved; all plans of a kind of trace share a program."""
    import problems

    import asyncflax

    trace = problems.some_traces()[kind]
    return problems.of_one_shape(asyncflax.make_plan(trace, width=4, cuts=[SAVED_AT], **where))


def begin(name: str, plan):
    """The state before the first event."""
    import problems

    import asyncflax

    start = {"key": jax.random.key(SEED), "model_state": problems.NORM_STATE}
    return asyncflax.init_run(problems.METHODS[name].make(), problems.NORM_PARAMS, plan, **start)


def run_on(state, name: str, chunk):
    """Runs a chunk of the model with batch statistics, dropout and a stale model state; what its events report."""
    import problems

    import asyncflax

    batches, algorithm = chunk.take(problems.batch_rows()), problems.METHODS[name].make()
    state, out = asyncflax.run_chunk(algorithm, problems.norm_gradient, state, chunk, batches)
    events = {"losses": out.losses, "gap": out.gap, "staleness": out.staleness, **out.aux}
    return state, {key: np.asarray(x)[: int(chunk.num_events)] for key, x in events.items()}


def whole(state, *events: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a run ended with, in every process, in flat arrays."""
    from jax.experimental import multihost_utils

    parts = {"params": state.params, "algorithm": state.algorithm, "model_state": state.model_state}
    leaves = {key: jax.tree.leaves(multihost_utils.process_allgather(part, tiled=True)) for key, part in parts.items()}
    ends = {key: np.concatenate([np.zeros(0), *map(np.ravel, found)]) for key, found in leaves.items()}
    return ends | {key: np.concatenate([part[key] for part in events]) for key in events[0]}


def keep(path: pathlib.Path, result: dict[str, np.ndarray]) -> None:
    """Writes a result, once."""
    if distributed.is_primary():
        np.savez(path, **result)


def compute(folder: pathlib.Path, group: int, replica: int) -> None:
    """Runs the cases on a mesh of all devices, and saves one of them on its way."""
    import asyncflax
    from asyncflax.train.checkpoint import Checkpoints

    mesh, count = asyncflax.make_mesh(group, replica), jax.process_count()
    for name, kind, server in cases(count):
        plan = make_plan(kind, mesh=mesh, server=server)
        state, first = run_on(begin(name, plan), name, plan[0])
        if (name, kind, server) == SAVED:
            Checkpoints(folder / f"saved-by-{count}").save(SAVED_AT, state, config={"saved": "by all"})
        state, last = run_on(state, name, plan[1])
        keep(folder / f"{count}-{name}-{kind}-{server}.npz", whole(state, first, last))


def go_on(folder: pathlib.Path, saved_by: int, **where) -> dict[str, np.ndarray]:
    """Ends the run that so many processes saved."""
    from asyncflax.train.checkpoint import Checkpoints

    name, kind, _ = SAVED
    plan = make_plan(kind, **where)
    checkpoint = Checkpoints(folder / f"saved-by-{saved_by}").latest(like=begin(name, plan))
    assert checkpoint is not None and checkpoint.update == SAVED_AT and checkpoint.config == {"saved": "by all"}
    return whole(*run_on(checkpoint.state, name, plan[1]))


def compute_two(folder: pathlib.Path) -> None:
    """Two processes of four devices: groups of two devices, each inside one process."""
    compute(folder, 4, 2)


def compute_four(folder: pathlib.Path) -> None:
    """Four processes of two devices: groups over two processes; then the run that two have saved, on that mesh."""
    import asyncflax

    compute(folder, 2, 4)
    keep(folder / "resumed.npz", go_on(folder, 2, mesh=asyncflax.make_mesh(2, 4), server="replicated"))


def photographs(folder: pathlib.Path) -> None:
    """A training on records, on a mesh of all devices; and how many of them each process has decoded."""
    sys.path.append(str(pathlib.Path(__file__).parent / "train"))
    import test_feeds

    from asyncflax.data import pipeline

    decode, decoded = pipeline.decode, []
    pipeline.decode = lambda jpeg: decoded.append(1) or decode(jpeg)
    experiment = test_feeds.made(mesh="mesh(device_groups=2, replicas=2)")
    states, losses = test_feeds.run(experiment)
    found = {name: np.asarray(x) for name, x in experiment.evaluate(*states[-1][0]).items()}
    np.savez(folder / f"photographs-{jax.process_index()}.npz", losses=losses, decoded=len(decoded), **found)


# --- How they end ---------------------------------------------------------------------------------------------------


def loop(body) -> None:
    """Works until the process is ended, from a moment that all know."""
    body()
    distributed.sync("ready")
    print("ready", flush=True)
    while True:
        body()


def collective(folder: pathlib.Path) -> None:
    """Sums over all processes, one after the other."""
    del folder
    from jax.experimental import multihost_utils

    loop(lambda: multihost_utils.process_allgather(np.ones(1000)))


def compiling(folder: pathlib.Path) -> None:
    """Compiles, always something else."""
    del folder
    loop(lambda: jax.jit(lambda x: x + time.monotonic())(1.0))


def error_alone(folder: pathlib.Path) -> None:
    """The last process has an error of its own; the others wait for it."""
    del folder
    if jax.process_index() == jax.process_count() - 1:
        distributed.end("the disk of this host is full", 3)
    distributed.sync("never")


def bug_alone(folder: pathlib.Path) -> None:
    """The last process raises what nobody catches."""
    del folder
    if jax.process_index() == jax.process_count() - 1:
        raise KeyError("a bug of this host")
    distributed.sync("never")


def error_of_all(folder: pathlib.Path) -> None:
    """All processes come to the same error."""
    del folder
    distributed.end("the same in all", 4)


def agree(folder: pathlib.Path) -> None:
    """Values that are the primary's, values that differ, an end that is in order."""
    assert distributed.broadcast(jax.process_index()) == 0
    distributed.same({"workdir": "same"})
    if distributed.is_primary():
        time.sleep(1)  # the others wait for it
        (folder / "agreed").touch()
    distributed.sync("here")
    assert (folder / "agreed").exists()


def differ(folder: pathlib.Path) -> None:
    """The processes were started with different folders."""
    del folder
    try:
        distributed.same({"workdir": f"runs/{jax.process_index()}"})
    except ValueError as error:
        distributed.end(str(error))
    distributed.sync("never")


def apart(folder: pathlib.Path) -> None:
    """The folder has the same name in all processes, but each has its own, as on hosts that share no disk."""
    from asyncflax.train.config import TrainConfig
    from asyncflax.train.workdir import Workdir

    here = folder / str(jax.process_index())
    here.mkdir()
    os.chdir(here)
    try:
        with Workdir("run", TrainConfig()).owned() as workdir:
            workdir.begin()
            distributed.sync("never")
    except ValueError as error:
        distributed.end(str(error))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    distributed.start(timeout=200, patience=10.0)
    print = functools.partial(print, flush=True)
    globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))
