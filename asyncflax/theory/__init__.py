"""What asynchrony does, in closed form: implicit momentum, exact recursions on quadratics, and a way to measure it.

`momentum` has the theorems of Mitliagkas et al. 2016; `mean`, `mean_square` and `best` the exact dynamics on
(lambda/2) x^2, their stability limits and best hyper-parameters (the model is described in `_model`); `estimate` the
momentum of a recorded trajectory; `streaming_pca` the limits of streaming PCA: NumPy only. Loaded when first used:
`meter`, the momentum of a run while it goes on; `problems`, small ones with a theory; `planner`, what to set for so
many workers.
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
    from asyncflax.theory import meter, planner, problems

_HOMES = {"meter": "", "planner": "", "problems": ""}
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
    # A measurement
    "estimate_momentum",
    "MomentumEstimate",
    # Limits
    "streaming_pca",
]
