r"""How many workers, which momentum, which step size: what exact recursions say before anything is trained.

For each number of workers M: the explicit momentum and the step size that reach a target loss first, and

    hardware efficiency     seconds per update relative to one worker: the queue's clock
    statistical efficiency  updates to the target relative to one worker: exact recursions on quadratics
    time                    their product; where it rises with M, asynchrony costs more than it gives

after Mitliagkas et al. 2016 (arXiv:1605.09774), section 1. The training is a `Spectrum`: curvatures, the loss
in each direction, and gradient noise, which is what many synchronous workers average away and makes small steps best
for one worker too. Beside it stands what holds in the long run without noise: for the mean E x, which is what the
theorems and Figure 2 are about, and for the root mean square of x, which single runs follow.
"""

from asyncflax.theory.planner.forecasts import ClusterPlan, Forecast, condition_number_of, make
from asyncflax.theory.planner.report import advice, draw, files, recommendation, save, table

__all__ = [
    "ClusterPlan",
    "Forecast",
    "advice",
    "condition_number_of",
    "draw",
    "files",
    "make",
    "recommendation",
    "save",
    "table",
]
