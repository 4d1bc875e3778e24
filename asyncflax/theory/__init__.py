r"""What asynchrony does, in closed form: implicit momentum, exact recursions on quadratics, and their measurement.

`momentum` has the theorems of Mitliagkas et al. 2016; `mean`, `mean_square` and `best` the exact dynamics on a
quadratic, stability limits and best hyperparameters; `estimate` the momentum of a recorded trajectory; `streaming_pca`
the limits of streaming PCA. Imported on first use: `meter`, the momentum of a run in progress; `problems`, small ones
with a theory; `Spectrum`, a training problem as a sum of quadratics; `descent`, its expected loss along a trace;
`planner`, hyperparameters for a number of workers; `cluster`, measurements of a cluster from its trace.

The quadratic is :math:`(\lambda/2) x^2`. With explicit momentum :math:`\mu_L` and noise n of variance 1,

.. math:: x_{t+1} = x_t + \mu_L (x_t - x_{t-1}) - h (x_{t-\tau_t} + \sigma n_t), \qquad x_0 = 1

This is linear, so means and mean squares obey exact recursions. With the generating function
:math:`Q(z) = \sum_l q_l z^{-l}` of the staleness, the growth factors z of the mean are the roots of

.. math:: (z - 1)(z - \mu_L) + h z Q(z) = 0

Arguments:

- `staleness`: an integer for constant staleness, as with staleness + 1 equal workers in turn; or a distribution of
  `asyncflax.staleness`, drawn independently for each update (Mitliagkas et al. 2016, eq. 5); or `ExponentialQueue(M)`,
  M workers with exponential work, where a version is read by the worker that made it. Its mean dynamics are those of
  geometric staleness with mean M - 1, but its mean squares are not.
- `h`: alpha lambda, step size times curvature, at least 0.
- `momentum`: mu_L, the explicit momentum in [-1, 1]; in (-1, 1) for limits and optima.
- `sigma`: the standard deviation of a gradient's noise divided by the curvature.
- `num_updates`: T, the number of updates.
- `form`: 'heavy_ball', as above, or 'shifted', see `mean_radius`.

Values out of range, unknown options and tables of staleness that are too long for the roots of their polynomial raise a
`ValueError`, unsupported types a `TypeError`.
"""

from typing import TYPE_CHECKING

from asyncflax import _lazy
from asyncflax.theory import streaming_pca
from asyncflax.theory._model import ExponentialQueue
from asyncflax.theory.best import BestHyperParameters, best_hyper_parameters
from asyncflax.theory.estimate import MomentumEstimate, estimate_momentum
from asyncflax.theory.mean import mean_iterates, mean_radius, queue_mean_matrix, stability_limit
from asyncflax.theory.mean_square import (
    mean_square_iterates,
    mean_square_limit,
    mean_square_radius,
    queue_mean_square_matrix,
    stationary_variance,
)
from asyncflax.theory.momentum import (
    MomentumKernel,
    TotalMomentum,
    compensating_momentum,
    implicit_momentum,
    momentum_kernel,
    total_momentum_operator,
    turning_point,
)

if TYPE_CHECKING:
    from asyncflax.theory import cluster, descent, meter, planner, problems
    from asyncflax.theory.curvature import largest_curvature
    from asyncflax.theory.spectrum import Spectrum

_HOMES = {
    "Spectrum": "spectrum",
    "largest_curvature": "curvature",
    **dict.fromkeys(("cluster", "descent", "meter", "planner", "problems"), ""),
}
__getattr__, __dir__ = _lazy.exports(__name__, _HOMES)

__all__ = [
    # The theorems
    "implicit_momentum",
    "momentum_kernel",
    "MomentumKernel",
    "total_momentum_operator",
    "TotalMomentum",
    "compensating_momentum",
    "turning_point",
    # Exact dynamics on a quadratic
    "ExponentialQueue",
    "mean_iterates",
    "mean_radius",
    "stability_limit",
    "mean_square_iterates",
    "mean_square_radius",
    "mean_square_limit",
    "stationary_variance",
    "queue_mean_matrix",
    "queue_mean_square_matrix",
    "best_hyper_parameters",
    "BestHyperParameters",
    "Spectrum",
    # Measurement
    "estimate_momentum",
    "MomentumEstimate",
    "largest_curvature",
    # Limits
    "streaming_pca",
]
