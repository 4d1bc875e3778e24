r"""How wide to make the rounds of a trace, and what that buys and costs, before anything is run.

A round has W lanes, and computes W gradients whether or not all of them belong to an event. A wider round has more
events, a smaller share of its lanes is filled, and more versions and gradients are on the move.

*Time*, in units of one gradient on one device, for G compute groups of R devices each:

    a round                   h + (1 - h) W / (G R)  for its gradients, u for each update that it applies in order
    one event after another   1 + u
    speed-up                  T (1 + u) / (T u + sum over rounds of h + (1 - h) W / (G R))

h is the share of a gradient's time that does not grow with the work (launches, latencies), u the time of an update.
Moving data takes no time here: `traffic` says how much there is of it. With h = u = 0 the speed-up is G R times the
share of lanes that are filled.

*Memory and traffic* are counted from the shapes of the parameters, d bytes in all. A server is 'replicated': every
device has all that it keeps; or 'sharded': each of the P = G R devices keeps 1/P of every array with an axis that P
divides, and the other arrays are on every device.
"""

from asyncflax.rounds._bytes import Memory, Traffic, memory, traffic
from asyncflax.rounds._report import draw, summary
from asyncflax.rounds._time import RoundForecast, best_width, forecast

__all__ = ["Memory", "RoundForecast", "Traffic", "best_width", "draw", "forecast", "memory", "summary", "traffic"]
