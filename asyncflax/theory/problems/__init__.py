"""Small problems with a theory, for the engine and as ensembles of thousands of trajectories in one program.

`quadratic` is (lambda/2) x^2 with noisy gradients, `streaming_pca` the first principal component of a stream. Each has
a gradient function for `asyncflax.run`, and `ensemble`, in which every trajectory has a trace and a stream of its own;
any of them can be replayed through the engine. What theory says about them is in `asyncflax.theory`.
"""

from asyncflax.theory.problems.ensemble import Ensemble
from asyncflax.theory.problems.quadratic import NoisyQuadratic
from asyncflax.theory.problems.streaming_pca import StreamingPca

__all__ = ["Ensemble", "NoisyQuadratic", "StreamingPca"]
