"""Small problems with a theory: a noisy quadratic and the first principal component of a stream.

Each has a gradient function for `asyncflax.run`, and `ensemble`: thousands of trajectories in one program, each with
its own trace and stream; any of them can be replayed through the engine. For the theory see `asyncflax.theory`.
"""

from asyncflax.theory.problems.ensemble import Ensemble
from asyncflax.theory.problems.quadratic import NoisyQuadratic
from asyncflax.theory.problems.streaming_pca import StreamingPca

__all__ = ["Ensemble", "NoisyQuadratic", "StreamingPca"]
