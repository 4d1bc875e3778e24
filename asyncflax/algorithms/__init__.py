"""The methods: functions of hyperparameters that return an `AsyncAlgorithm`; one file a family of papers.

All of them have in common:

- `learning_rate` is a number >= 0 or a schedule of the number of server updates.
- `weight_decay`, a number >= 0, and `decay_at`, 'read' or 'server', are keywords of every method (see
  `transforms.decay_weights`). Decay comes first: what a rule compensates, measures or gathers is the decayed gradient.
- A number that is not finite or out of its range, or an unknown option, raises a `ValueError` that names it.
"""

from asyncflax.algorithms._citation import citation
from asyncflax.algorithms.asgd import asgd, delay_adaptive_asgd, ssgd, staleness_aware_asgd
from asyncflax.algorithms.closed_loop import closed_loop_momentum
from asyncflax.algorithms.dana import dana_dc, dana_slim, dana_zero
from asyncflax.algorithms.dc_asgd import dc_asgd
from asyncflax.algorithms.delayed_nesterov import delayed_nesterov
from asyncflax.algorithms.gap_aware import gap_aware_asgd
from asyncflax.algorithms.lwp import lwp
from asyncflax.algorithms.momentum import momentum_asgd, multi_asgd, nag_asgd
from asyncflax.algorithms.ormo import ormo, ormo_da
from asyncflax.algorithms.shifted_momentum import shifted_momentum
from asyncflax.algorithms.smega2 import smega2
from asyncflax.algorithms.yellowfin import yellowfin

__all__ = [
    "asgd",
    "closed_loop_momentum",
    "dana_dc",
    "dana_slim",
    "dana_zero",
    "dc_asgd",
    "delay_adaptive_asgd",
    "delayed_nesterov",
    "gap_aware_asgd",
    "lwp",
    "momentum_asgd",
    "multi_asgd",
    "nag_asgd",
    "ormo",
    "ormo_da",
    "shifted_momentum",
    "smega2",
    "ssgd",
    "staleness_aware_asgd",
    "yellowfin",
]
