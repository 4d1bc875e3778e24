"""Past parameter versions: rows of a store, and a ring buffer for people who own their loop.

The engine knows the whole trace beforehand and keeps versions in slots (see `engine.plan`). `Ring` is for online use:
push the newest version, read one that is as old as a staleness law says, which is eq. 6 of Mitliagkas et al. 2016,
w_{t+1} = w_t - alpha grad f(w_{t - tau_t}). It can live in host memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check
from asyncflax.staleness import NEGLIGIBLE_MASS, StalenessLaw

__all__ = ["Ring", "RingState", "Sample"]


class RingState(NamedTuple):
    """The content of a `Ring`.

    Attributes:
      rows: PyTree like what is pushed, with a leading axis [capacity].
      pushed: int32 [], how many have been pushed.

    Example:
      >>> import asyncflax, jax.numpy as jnp
      >>> state = asyncflax.history.Ring(capacity=4).init(jnp.ones(2))
      >>> state.rows.shape, int(state.pushed)
      ((4, 2), 1)
    """

    rows: Any
    pushed: jax.Array


class Sample(NamedTuple):
    """A version read from a `Ring`.

    Attributes:
      params: PyTree like what is pushed.
      staleness: int32 [], how many pushes old it is; 0 is the newest.
      clipped: bool [], whether the draw wanted a version that the ring had, but holds no more.

    Example: see `Ring`.
    """

    params: Any
    staleness: jax.Array
    clipped: jax.Array


def read_ring(state: RingState, staleness: Any) -> Any:
    """What was pushed `staleness` pushes before the newest, or the oldest there is; on the device."""

    def read(rows):
        capacity = rows.shape[0]
        oldest = jnp.maximum(jnp.minimum(state.pushed, capacity) - 1, 0)
        index = (state.pushed - 1 - jnp.clip(staleness, 0, oldest)) % capacity
        row = jax.lax.dynamic_index_in_dim(rows, index, 0, keepdims=False)
        return _move(row, jax.memory.Space.Device)

    return jax.tree.map(read, state.rows)


def _move(x: jax.Array, space: Any) -> jax.Array:
    return x if jax.typeof(x).memory_space == space else jax.device_put(x, space)


@dataclasses.dataclass(frozen=True)
class Ring:
    """A ring buffer of the newest `capacity` parameter versions.

    Args:
      capacity: how many versions it holds: staleness 0..capacity - 1.
      memory: 'device', or 'pinned_host' for versions that do not fit beside the model: they then live in host memory
        and only the one pushed and the one read cross over.
      beyond: what `sample` does with a law that reaches beyond the capacity with more than 1e-6 of probability. 'error'
        refuses it; 'clip' reads the oldest version instead, and says so in each `Sample`.

    Before `capacity` versions exist, the oldest is version 0: tau is clamped to t (eq. 6 with a constant history).

    Everything can be jitted, scanned, vmapped and saved (JAX does not vmap over rows in host memory; make such a ring
    outside of jit). A loop that is asynchronous SGD with geometric staleness:

    Example:
      >>> import asyncflax, jax, jax.numpy as jnp
      >>> law = asyncflax.staleness.geometric(mean=3.0)
      >>> ring = asyncflax.history.Ring(capacity=64)
      >>> def step(carry, key):
      ...     params, versions = carry
      ...     read = ring.sample(versions, law, key)
      ...     params = params - 0.05 * jax.grad(lambda w: jnp.sum(w**2))(read.params)
      ...     return (params, ring.push(versions, params)), read.staleness
      >>> params = jnp.ones(2)
      >>> keys = jax.random.split(jax.random.key(0), 100)
      >>> (params, versions), staleness = jax.lax.scan(step, (params, ring.init(params)), keys)
      >>> int(versions.pushed), bool(jnp.all(jnp.abs(params) < 0.1))
      (101, True)
    """

    capacity: int
    memory: str = "device"
    beyond: str = "error"

    def __post_init__(self):
        object.__setattr__(self, "capacity", _check.integer("capacity", self.capacity, 1))
        _check.choice("memory", self.memory, ("device", "pinned_host"))
        _check.choice("beyond", self.beyond, ("error", "clip"))

    def empty(self, template: Any) -> RingState:
        """A ring that holds nothing yet, for things with the shapes and dtypes of `template`; it reads as zeros.

        >>> import asyncflax, jax.numpy as jnp
        >>> asyncflax.history.Ring(3).empty(jnp.ones(2)).rows.shape
        (3, 2)
        """

        def zeros(x):
            shape, dtype = (self.capacity, *jnp.shape(x)), jnp.result_type(x)
            if self.memory == "device":
                return jnp.zeros(shape, dtype)
            return jax.device_put(np.zeros(shape, dtype), jax.memory.Space.Host)  # never on the device

        rows = jax.tree.map(zeros, template)
        return RingState(rows, jnp.zeros((), jnp.int32))

    def init(self, params: Any) -> RingState:
        """A ring that holds version 0, PyTree of arrays; every version must have its shapes and dtypes.

        >>> import asyncflax, jax.numpy as jnp
        >>> int(asyncflax.history.Ring(3).init(jnp.ones(2)).pushed)
        1
        """
        return self.push(self.empty(params), params)

    def push(self, state: RingState, params: Any) -> RingState:
        """Adds the newest version and forgets the oldest when the ring is full.

        Raises:
          ValueError, TypeError: `params` is not like what the ring was made for.

        Example: see `read`.
        """
        rows = jax.tree.map(lambda rows: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype), state.rows)
        _check.like("params", params, "what the ring was made for", rows)
        index = state.pushed % self.capacity

        def write(rows, x):
            if not jnp.can_cast(jnp.result_type(x), rows.dtype, "same_kind"):
                raise TypeError(f"the ring holds {rows.dtype}, got {jnp.result_type(x)}; make it with such a template.")
            row = _move(jnp.asarray(x, rows.dtype), jax.typeof(rows).memory_space)
            return jax.lax.dynamic_update_index_in_dim(rows, row, index, 0)

        return state._replace(rows=jax.tree.map(write, state.rows, params), pushed=state.pushed + 1)

    def read(self, state: RingState, staleness: Any) -> Any:
        """The version that is `staleness` pushes older than the newest, or the oldest there is.

        Raises:
          ValueError: a concrete staleness is negative, or needs a larger ring (a traced one is clipped).

        Example:
          >>> import asyncflax, jax.numpy as jnp
          >>> ring = asyncflax.history.Ring(capacity=3)
          >>> state = ring.init(jnp.array(0.0))
          >>> for version in [1.0, 2.0, 3.0]:
          ...     state = ring.push(state, jnp.array(version))
          >>> float(ring.read(state, 0)), float(ring.read(state, 2))
          (3.0, 1.0)
        """
        if not _check.is_traced(staleness):
            _check.integer("staleness", staleness, 0, self.capacity - 1)
        return read_ring(state, staleness)

    def sample(self, state: RingState, law: StalenessLaw, key: jax.Array) -> Sample:
        """Reads a version as old as a draw from the law says.

        Raises:
          ValueError: the law reaches beyond the ring and `beyond` is 'error'.

        Example: see `Ring`.
        """
        self.check(law)
        wanted = law.sample(key)
        held = jnp.maximum(jnp.minimum(state.pushed, self.capacity), 1)
        staleness = jnp.minimum(wanted, held - 1)
        clipped = jnp.minimum(wanted, state.pushed - 1) > staleness
        return Sample(read_ring(state, staleness), staleness, clipped)

    def check(self, law: StalenessLaw) -> None:
        """Refuses a law that reaches beyond the ring, unless `beyond` is 'clip'.

        >>> import asyncflax
        >>> asyncflax.history.Ring(capacity=8).check(asyncflax.staleness.uniform(0, 7))
        """
        _check.instance("law", law, StalenessLaw, "a law of asyncflax.staleness")
        lost = law.tail(self.capacity - 1)
        if self.beyond == "error" and lost > NEGLIGIBLE_MASS:
            raise ValueError(
                f"capacity={self.capacity} is too small for {law}: P(tau > {self.capacity - 1}) = {lost:.3g}. "
                f"Take capacity={law.bound() + 1}, or beyond='clip' to read the oldest version instead."
            )
