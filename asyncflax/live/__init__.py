"""Workers that run concurrently, and a trace that replays exactly.

`Server` runs a method without threads or I/O. `threads` drives it on one host, with one thread per worker. The events
are recorded as a `Trace` with tickets, with which `engine.run` reproduces the parameters of the live run.
"""

from asyncflax.live.packed import Packed
from asyncflax.live.server import Gradient, Job, Read, Server, Snapshot, gradient
from asyncflax.live.threads import Segment, Threads, run_threads

__all__ = ["Gradient", "Job", "Packed", "Read", "Segment", "Server", "Snapshot", "Threads", "gradient", "run_threads"]
