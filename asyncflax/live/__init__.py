"""Workers that really run at the same time, and a trace that replays exactly.

`Server` is a method at work, without a thread and without I/O. `threads` drives it on one host, a thread a worker. What
happened is a `Trace` with tickets: `engine.run` of it gives the parameters of the live run again.
"""

from asyncflax.live.packed import Packed
from asyncflax.live.server import Gradient, Job, Read, Server, Snapshot, gradient
from asyncflax.live.threads import Segment, Threads, run_threads

__all__ = ["Gradient", "Job", "Packed", "Read", "Segment", "Server", "Snapshot", "Threads", "gradient", "run_threads"]
