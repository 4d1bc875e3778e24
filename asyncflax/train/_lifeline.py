"""How the processes of a run end together.

Every process keeps a connection to the primary and beats on it. Who ends, however that comes, closes it; whose host has
gone falls silent. Then the others say so and end as well: without this they would wait in a collective for somebody who
will not come. JAX's own watch, which ends a process with a stack trace, is slower and stays as the second line.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from typing import Any, NoReturn

# Parts of the patience: how often to beat, in which time an error may turn out to come from the end of another process,
# and in which the error of one process may turn out to be everybody's.
_BEAT, _MOMENT, _GRACE = 1 / 6, 1 / 15, 1 / 3
_BYE = {"bye": True}


def connect(client: Any, host: str, index: int, count: int, timeout: float) -> dict[int, socket.socket]:
    """The connections of a process: those to all others for the primary, the one to it for the others.

    Args:
      client: of JAX's coordination service, through which the primary tells where it listens.
      host: of the primary.
      index: of this process, 0 for the primary.
      count: how many processes there are.
      timeout: seconds in which all must have come.

    Raises:
      OSError: they have not.
    """
    where = "asyncflax/lifeline"
    if index > 0:
        port, token = client.blocking_key_value_get(where, int(1000 * timeout)).split()
        connection = socket.create_connection((host, int(port)), timeout)
        connection.sendall(f"{token}{index:08d}".encode())
        return {0: connection}
    token, found = secrets.token_hex(8), {}
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as server:
        server.settimeout(timeout)
        client.key_value_set(where, f"{server.getsockname()[1]} {token}")
        while len(found) < count - 1:
            connection, _ = server.accept()
            connection.settimeout(timeout)
            said = connection.recv(24, socket.MSG_WAITALL).decode(errors="replace")
            if said[:16] == token:  # no stranger
                found[int(said[16:])] = connection
            else:
                connection.close()
    return found


class Lifeline:
    """Watches the processes at the other ends, and ends this one when one of them has ended.

    Args:
      connections: from `connect`.
      patience: seconds of silence after which a process counts as ended.
    """

    def __init__(self, connections: dict[int, socket.socket], patience: float):
        self._connections, self._patience = connections, patience
        self._is_primary = 0 not in connections
        self._gone: set[int] = set()
        self._ending = threading.Lock()
        threads = [threading.Thread(target=self._listen, args=item, daemon=True) for item in connections.items()]
        for thread in (*threads, threading.Thread(target=self._beat, daemon=True)):
            thread.start()

    def leave(self) -> None:
        """Says that the end of this process, which comes now, is none to worry about."""
        self._send(_BYE)

    def wait_a_moment(self) -> None:
        """Does not return if another process has ended: a collective that broke is not what is to be told."""
        time.sleep(_MOMENT * self._patience)

    def end(self, message: str, status: int) -> NoReturn:
        """Ends all processes with a status; the primary says why."""
        self.wait_a_moment()
        if not self._is_primary:
            self._send({"status": status, "message": message})
            time.sleep(2 * _GRACE * self._patience)  # the answer ends this process
        self._exit(status, message)

    def _beat(self) -> None:
        while True:
            self._send({})
            time.sleep(_BEAT * self._patience)

    def _send(self, note: dict[str, Any]) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # who listens to it knows
                connection.sendall(json.dumps(note).encode() + b"\n")

    def _listen(self, other: int, connection: socket.socket) -> None:
        """Follows what another process says until it leaves; ends this one if it ends otherwise."""
        connection.settimeout(self._patience)
        how = "has ended"
        try:
            for line in connection.makefile():
                note = json.loads(line)
                if note == _BYE:
                    return
                if note and self._is_primary:  # an error; if this process comes to it as well, it tells it itself
                    told = note["status"], f"process {other}: {note['message']}"
                    threading.Timer(_GRACE * self._patience, self._exit, told).start()
                elif note:
                    self._exit(**note)
        except TimeoutError:
            how = f"has been silent for {self._patience:g} s"
        except (OSError, ValueError):
            pass
        self._gone.add(other)
        why = f"another process of the run {how} (process {other}); what is saved stays, the same command goes on"
        self._exit(1, why, tell=why)

    def _exit(self, status: int, message: str, tell: str = "") -> NoReturn:
        """Ends this process at once: what else it does may wait for one that has ended."""
        with self._ending:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                if message:
                    print(f"error: {message}", file=sys.stderr, flush=True)
            if self._is_primary:  # the last one, since JAX ends the others with a stack trace when it is gone
                self._send({"status": status, "message": tell})
                deadline = time.monotonic() + 5
                while len(self._gone) < len(self._connections) and time.monotonic() < deadline:
                    time.sleep(0.01)
            os._exit(status)
