"""Past parameter versions: a ring buffer for your own training loop.

The engine knows the whole trace in advance and keeps versions in slots (see `engine.plan`). `Ring` is for online use:
push the newest version, and read one with a sampled staleness, which is eq. 6 of Mitliagkas et al. 2016,
w_{t+1} = w_t - alpha grad f(w_{t - tau_t}). It can be stored in host memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from asyncflax import _check, _memory
from asyncflax._rows import fill_rows
from asyncflax.staleness import NEGLIGIBLE_MASS, StalenessLaw

__all__ = ["Ring", "RingState", "Sample"]

Space = jax.memory.Space
_STATE = "a RingState (from Ring.init)"


class RingState(NamedTuple):
    """The content of a `Ring`.

    Attributes:
      rows: PyTree like the parameters, with a leading axis [capacity].
      pushed: int32 [], the number of pushes.
    """

    rows: Any
    pushed: jax.Array


class Sample(NamedTuple):
    """A version read from a `Ring`.

    Attributes:
      params: PyTree like the parameters.
      staleness: int32 [], its age in pushes; 0 is the newest.
      clipped: bool [], whether the sampled version is no longer in the ring.
    """

    params: Any
    staleness: jax.Array
    clipped: jax.Array


def read_ring(state: RingState, staleness: Any) -> Any:
    """The version `staleness` pushes before the newest, on the device; the oldest if there is none."""

    def read(rows):
        capacity = rows.shape[0]
        oldest = jnp.maximum(jnp.minimum(state.pushed, capacity) - 1, 0)
        index = (state.pushed - 1 - jnp.clip(staleness, 0, oldest)) % capacity
        return (_take if _is_in(Space.Device, rows) else _take_from_host)(rows, index)

    return jax.tree.map(read, state.rows)


def _is_in(space: Any, x: Any) -> bool:
    there = jax.typeof(x).memory_space == space
    if isinstance(x, jax.Array) and not _check.is_traced(x):  # the type of a restored array may lack its memory space
        there &= (x.sharding.memory_kind == "pinned_host") == (space == Space.Host)
    return there


def _move(x: Any, space: Any) -> Any:
    return x if _is_in(space, x) else jax.device_put(x, space)


def _take(rows: Any, index: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(rows, index, 0, keepdims=False)


def _put(rows: Any, row: Any, index: Any) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(rows, row, index, 0)


# JAX's own derivatives of these would mix host rows with device zeros.
@jax.custom_vjp
def _take_from_host(rows: Any, index: Any) -> jax.Array:
    return _move(_take(rows, index), Space.Device)


@jax.custom_vjp
def _put_on_host(rows: Any, row: Any, index: Any) -> jax.Array:
    return _put(_move(rows, Space.Host), _move(row, Space.Host), index)


_take_from_host.defvjp(
    lambda rows, index: (_take_from_host(rows, index), (rows, index)),
    lambda kept, row: (_put_on_host(_zeros_on_host(row, kept[0].shape[0]), row, kept[1]), None),
)
_put_on_host.defvjp(
    lambda rows, row, index: (_put_on_host(rows, row, index), index),
    lambda index, rows: (
        _put_on_host(rows, jnp.zeros(rows.shape[1:], rows.dtype), index),
        _take_from_host(rows, index),
        None,
    ),
)


def _zeros_on_host(template: Any, capacity: int, mesh: Any = None) -> jax.Array:
    """Rows of zeros in host memory, sharded like the template; concrete ones never pass through the device.

    Arrays in host memory stay tied to their devices, so uncommitted ones are placed on the mesh.
    """
    shape, dtype = (capacity, *jnp.shape(template)), jnp.result_type(template)
    if _check.is_traced(template):
        return jax.device_put(fill_rows(jnp.zeros_like(template, dtype), capacity), Space.Host)
    sharding = getattr(template, "sharding", None)
    if mesh is not None and not getattr(template, "committed", False):
        sharding = NamedSharding(mesh, PartitionSpec())
    if isinstance(sharding, SingleDeviceSharding):
        return jax.device_put(np.zeros(shape, dtype), sharding.with_memory_kind("pinned_host"))
    if not isinstance(sharding, NamedSharding):
        return jax.device_put(np.zeros(shape, dtype), Space.Host)
    sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec), memory_kind="pinned_host")
    on_each = [SingleDeviceSharding(device, memory_kind="pinned_host") for device in sharding.addressable_devices]
    blocks = [jax.device_put(np.zeros(sharding.shard_shape(shape), dtype), place) for place in on_each]
    return jax.make_array_from_single_device_arrays(shape, sharding, blocks)  # replicas must not share memory


@dataclasses.dataclass(frozen=True)
class Ring:
    """A ring buffer of the newest `capacity` parameter versions.

    Args:
      capacity: the number of versions, which have staleness 0..capacity - 1.
      memory: 'device', or 'pinned_host' to keep versions in host memory, so that only the versions pushed and read are
        transferred.
      beyond: what `sample` does if the staleness exceeds the capacity with probability above 1e-6. 'error' raises;
        'clip' reads the oldest version instead and reports it in each `Sample`.

    Before `capacity` versions exist, the oldest is version 0: tau is clamped to t (eq. 6 with a constant history).

    All functions can be jitted, scanned and vmapped, and the state saved (JAX does not vmap over rows in host memory;
    create such a ring outside of jit). Asynchronous SGD with geometric staleness:

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
        """An empty ring for versions with the shapes, dtypes and shardings of `template`; it reads as zeros."""
        _check.arrays("params", template)
        _memory.need_rows("capacity", self.capacity, self.capacity, template)

        shardings = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(template)]
        mesh = next((sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding)), None)

        def zeros(x):
            if self.memory == "pinned_host":
                return _zeros_on_host(x, self.capacity, mesh)
            return fill_rows(jnp.zeros_like(x, jnp.result_type(x)), self.capacity)

        return RingState(jax.tree.map(zeros, template), jnp.zeros((), jnp.int32))

    def init(self, params: Any) -> RingState:
        """A ring that holds version 0; later versions must match its shapes and dtypes."""
        return self.push(self.empty(params), params)

    def push(self, state: RingState, params: Any) -> RingState:
        """Adds the newest version, overwriting the oldest if the ring is full.

        Rows that were restored from a checkpoint to another memory are moved back.
        """
        _check.instance("state", state, RingState, _STATE)
        rows = jax.tree.map(lambda rows: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype), state.rows)
        _check.like("params", params, "the ring's template", rows)
        index = state.pushed % self.capacity

        def write(rows, x):
            if not jnp.can_cast(jnp.result_type(x), rows.dtype, "same_kind"):
                raise TypeError(
                    f"the ring holds {rows.dtype}, got {jnp.result_type(x)}; create it with a matching template."
                )
            row = jnp.asarray(x, rows.dtype)
            if self.memory == "pinned_host":
                return _put_on_host(rows, row, index)
            return _put(_move(rows, Space.Device), _move(row, Space.Device), index)

        return state._replace(rows=jax.tree.map(write, state.rows, params), pushed=state.pushed + 1)

    def read(self, state: RingState, staleness: Any) -> Any:
        """The version `staleness` pushes before the newest; the oldest if there is none.

        A concrete staleness must be less than the capacity; a traced one is clipped.

        Example:
          >>> import asyncflax, jax.numpy as jnp
          >>> ring = asyncflax.history.Ring(capacity=3)
          >>> state = ring.init(jnp.array(0.0))
          >>> for version in [1.0, 2.0, 3.0]:
          ...     state = ring.push(state, jnp.array(version))
          >>> float(ring.read(state, 0)), float(ring.read(state, 2))
          (3.0, 1.0)
        """
        _check.instance("state", state, RingState, _STATE)
        if not _check.is_traced(staleness):
            _check.integer("staleness", staleness, 0, self.capacity - 1)
        return read_ring(state, staleness)

    def sample(self, state: RingState, law: StalenessLaw, key: jax.Array) -> Sample:
        """Reads a version with a staleness sampled from `law`; see `check`."""
        _check.instance("state", state, RingState, _STATE)
        _check.key("key", key)
        self.check(law)
        wanted = law.sample(key)
        held = jnp.maximum(jnp.minimum(state.pushed, self.capacity), 1)
        staleness = jnp.minimum(wanted, held - 1)
        clipped = jnp.minimum(wanted, state.pushed - 1) > staleness
        return Sample(read_ring(state, staleness), staleness, clipped)

    def check(self, law: StalenessLaw) -> None:
        """Raises a ValueError if the staleness may exceed the capacity, unless `beyond` is 'clip'."""
        _check.instance("law", law, StalenessLaw, "a distribution of asyncflax.staleness")
        lost = law.tail(self.capacity - 1)
        if self.beyond == "error" and lost > NEGLIGIBLE_MASS:
            raise ValueError(
                f"capacity={self.capacity} is too small for {law}: P(tau > {self.capacity - 1}) = {lost:.3g}. "
                f"Use capacity={law.bound() + 1}, or beyond='clip' to read the oldest version instead."
            )
