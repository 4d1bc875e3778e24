"""The methods: functions of hyperparameters that return an `AsyncAlgorithm`; one file per family of papers.

Hyperparameters that several methods share:

- `learning_rate`, alpha or eta in the equations: a number >= 0 or a schedule of the number of server updates.
- `momentum`, mu, beta or gamma: a number in [-1, 1].
- `num_workers`, M, N or K: an integer >= 1.
- `form`: 'inside' puts the step size into the velocity (u <- mu u + alpha g, w <- w - u; Caffe); 'outside' applies it
  to the velocity (v <- mu v + g, w <- w - alpha v; `optax.sgd`, PyTorch). They differ when the learning rate changes.
  Methods without `form` use 'inside', except `yellowfin`.
- `weight_decay`, a number >= 0, and `decay_at`, 'read' or 'server', are keywords of every method (see
  `transforms.decay_weights`). Decay comes first: a rule compensates, measures or accumulates the decayed gradient.

Memory is counted in units of d, the number of parameters. A value that is not finite or out of range, or an unknown
option, raises a `ValueError` that names the argument.

Example:
  >>> from asyncflax import algorithms
  >>> methods = [
  ...     algorithms.asgd(0.1, weight_decay=1e-4),
  ...     algorithms.dana_dc(0.1, 0.9, num_workers=8, strength=2.0),
  ...     algorithms.dana_slim(0.1, 0.9, num_workers=8),
  ...     algorithms.dana_zero(0.1, 0.9, num_workers=8),
  ...     algorithms.dc_asgd(0.1, strength=0.04),
  ...     algorithms.delay_adaptive_asgd(0.1, num_workers=8),
  ...     algorithms.delayed_nesterov(0.7, 0.9, num_workers=4),
  ...     algorithms.gap_aware_asgd(0.1, granularity="global"),
  ...     algorithms.lwp(0.1, 0.9, num_workers=8),
  ...     algorithms.momentum_asgd(0.1, momentum=-0.09),
  ...     algorithms.multi_asgd(0.1, 0.9, num_workers=8),
  ...     algorithms.nag_asgd(0.1, 0.9),
  ...     algorithms.ormo(0.1, 0.9, num_workers=8),
  ...     algorithms.ormo_da(0.1, 0.9, num_workers=8),
  ...     algorithms.shifted_momentum(0.1, 0.9, num_workers=8),
  ...     algorithms.smega2(0.1, 0.9, num_workers=8),
  ...     algorithms.ssgd(0.1, 0.9, num_workers=8),
  ...     algorithms.staleness_aware_asgd(0.1),
  ...     algorithms.yellowfin(delta_momentum=-0.5),
  ... ]
  >>> methods[0]
  asgd(decay_at='read', learning_rate=0.1, weight_decay=0.0001)
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
