"""The placement of a run: the devices, and the sharding of its arrays.

A run is the same program everywhere; a `Placement` determines the sharding of its arrays. A mesh has two axes:

    group      different events of a round: every device group reads its own versions (`jax.shard_map`)
    replica    the devices of one group: they split the batch and compute the gradient of the whole batch

The group axis is manual: each device computes the lanes of its group only. The replica axis is left to the compiler: a
gradient function is written for the whole batch and returns what it returns on one device, including its random numbers
and batch statistics. The server's arrays are replicated on every device, or sharded (a sharded parameter server); then
versions and gradients are exchanged in parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asyncflax import _check

__all__ = ["Placement", "make_mesh"]

GROUP, REPLICA = "group", "replica"
SERVERS = ("replicated", "sharded")
STORES = ("device", "host", "ring")


def make_mesh(device_groups: int = 1, replicas: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of `device_groups` groups with `replicas` devices each.

    The devices of a group are adjacent, so that they share a host if possible.

    Args:
      device_groups: the number of groups that work at the same time; 0 takes all devices.
      replicas: the number of devices per group.
      devices: by default the first of all devices of all processes.

    Raises:
      TypeError: `devices` are not devices.
      ValueError: there are too few devices, or the mesh omits the devices of some process.

    Example:
      >>> import asyncflax
      >>> dict(asyncflax.make_mesh(device_groups=1, replicas=1).shape)
      {'group': 1, 'replica': 1}
    """
    hint = "a list of devices, such as jax.devices()"
    _check.instance("devices", () if devices is None else devices, Sequence, hint)
    found = list(jax.devices() if devices is None else devices)
    for device in found:
        _check.instance("devices", device, jax.Device, hint)
    if len(set(found)) < len(found):
        raise ValueError(f"devices must differ, got {found}.")
    replicas = _check.integer("replicas", replicas, 1)
    groups = _check.integer("device_groups", device_groups, 0) or max(len(found) // replicas, 1)
    size = f"a mesh of device_groups={groups} times replicas={replicas}"
    if groups * replicas > len(found):
        raise ValueError(f"{size} needs {groups * replicas} devices, but only {len(found)} are available.")
    used = found[: groups * replicas]
    idle = {device.process_index for device in found} - {device.process_index for device in used}
    if idle:
        raise ValueError(
            f"{size} uses {len(used)} of {len(found)} devices and leaves out process {min(idle)}; start fewer "
            "processes, or make a larger mesh."
        )
    return Mesh(np.array(used).reshape(groups, replicas), (GROUP, REPLICA), axis_types=(AxisType.Auto,) * 2)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of a run are; a static part of its plan.

    Args:
      mesh: a mesh with the axes 'group' and 'replica' (see `make_mesh`); None for one device.
      server: 'replicated' keeps all arrays of the server on every device; with 'sharded' each device keeps a part of
        every array that can be divided over all devices.
      store: the store of past versions: 'device', slots; 'ring', a ring buffer on the device; 'host', host memory
        (pinned, if the platform has it).

    Raises:
      TypeError: `mesh` is not a mesh.
      ValueError: the mesh lacks the two axes, or the server is 'sharded' without a mesh.

    Example:
      >>> from asyncflax.engine.placement import Placement, make_mesh
      >>> Placement(make_mesh()).groups, Placement().groups
      (1, 1)
    """

    mesh: Mesh | None = None
    server: str = "replicated"
    store: str = "device"

    def __post_init__(self):
        _check.choice("server", self.server, SERVERS)
        _check.choice("store", self.store, STORES)
        if self.mesh is None:
            if self.server == "sharded":
                raise ValueError(
                    "server='sharded' needs several devices; pass mesh=asyncflax.make_mesh(device_groups=...)."
                )
            return
        _check.instance("mesh", self.mesh, Mesh, "a jax.sharding.Mesh (see asyncflax.make_mesh)")
        if self.mesh.axis_names != (GROUP, REPLICA):
            raise ValueError(
                f"mesh must have the 2 axes ('group', 'replica'), got {len(self.mesh.axis_names)}: "
                f"{self.mesh.axis_names}; use asyncflax.make_mesh(device_groups=4, replicas=2)."
            )
        # jax.make_mesh creates explicit axes, which shard_map treats differently.
        auto = Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=(AxisType.Auto,) * 2)
        object.__setattr__(self, "mesh", auto)

    @property
    def groups(self) -> int:
        """The number of device groups."""
        return 1 if self.mesh is None else self.mesh.shape[GROUP]

    @property
    def replicas(self) -> int:
        """The number of devices per group."""
        return 1 if self.mesh is None else self.mesh.shape[REPLICA]

    @property
    def devices(self) -> int:
        """The number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def check_batches(self, batches: Any) -> None:
        """Raises if the B rows of batches [E, B, ...] cannot be divided over the replicas."""
        for path, x in jax.tree_util.tree_leaves_with_path(batches):
            rows = jnp.shape(x)[1] if jnp.ndim(x) > 1 else 0  # a scalar per event is replicated
            if rows % self.replicas:
                raise ValueError(
                    f"batches{jax.tree_util.keystr(path)} have {rows} rows per event, which cannot be divided over the "
                    f"replicas={self.replicas} devices of a group."
                )

    # Without a mesh everything below returns its argument.

    def keep(self, tree: Any, rows: int = 0) -> Any:
        """Shards the server's arrays inside a compiled program, except over the first `rows` axes of a leaf."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, self.sharding(jnp.shape(x), rows)), tree)

    def everywhere(self, tree: Any) -> Any:
        """Replicates arrays inside a compiled program."""
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec()))

    def sharding(self, shape: tuple[int, ...], rows: int = 0) -> NamedSharding:
        """The sharding of an array of the server."""
        assert self.mesh is not None
        axis = self._divided_axis(shape, rows)
        # Replicas first, so that the part of a version on a device of a group is contiguous.
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, (REPLICA, GROUP))
        return NamedSharding(self.mesh, spec)

    def _divided_axis(self, shape: tuple[int, ...], rows: int = 0) -> int | None:
        """The axis of an array that a sharded server divides: the last one possible, not among the first `rows`.

        In arrays with one row per worker the first axis stays whole.
        """
        if self.mesh is None or self.server == "replicated":
            return None
        whole = [axis for axis in range(rows, len(shape)) if shape[axis] and shape[axis] % self.mesh.size == 0]
        return max(whole, default=None)

    def split(self, batch: Any) -> Any:
        """Divides the batch of one event over the replicas; inside `over_groups`."""
        spread = lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec(REPLICA)) if jnp.ndim(x) else x
        return batch if self.replicas == 1 else jax.tree.map(spread, batch)

    def over_groups(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Divides W lanes over the device groups.

        Args:
          function: `function(shared, read, lanes) -> (grads, rest)` of the arguments common to all lanes and, with an
            axis [W], the versions read and the further arguments of each lane.

        Returns:
          A function of the same arguments. `read` and the gradients are sharded as by `keep(rows=1)`; with a sharded
          server they are exchanged in parts, by `all_to_all` over the groups and inside each group.
        """
        if self.mesh is None:
            return function
        # Manual over the groups only: the compiler spreads the work of a lane over the replicas.
        specs = (PartitionSpec(), PartitionSpec(GROUP), PartitionSpec(GROUP))
        names: Any = {"axis_names": {GROUP}, "check_vma": False}
        mapped = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(GROUP), **names)

        def spread(shared, read, lanes):
            grads, rest = mapped(shared, jax.tree.map(self._to_lanes, read), lanes)
            return self.keep(jax.tree.map(self._to_parts, grads), rows=1), rest

        return spread

    def _to_lanes(self, x: jax.Array) -> jax.Array:
        """From parts of all W versions to whole W / G lanes, still divided over the replicas of a group."""
        return self._exchange(x, lambda x, axis: jax.lax.all_to_all(x, GROUP, 0, axis, tiled=True), to_lanes=True)

    def _to_parts(self, x: jax.Array) -> jax.Array:
        """The inverse of `_to_lanes`."""
        return self._exchange(x, lambda x, axis: jax.lax.all_to_all(x, GROUP, axis, 0, tiled=True), to_lanes=False)

    def _exchange(self, x: jax.Array, all_to_all: Callable[[jax.Array, int], jax.Array], to_lanes: bool) -> jax.Array:
        axis = self._divided_axis(x.shape, rows=1)
        if axis is None:
            return x
        parts = PartitionSpec(*[None] * axis, (REPLICA, GROUP))
        lanes = PartitionSpec(GROUP, *[None] * (axis - 1), REPLICA)
        specs: Any = {"in_specs": parts, "out_specs": lanes} if to_lanes else {"in_specs": lanes, "out_specs": parts}
        return jax.shard_map(lambda x: all_to_all(x, axis), mesh=self.mesh, check_vma=False, **specs)(x)

    def put(self, tree: Any) -> Any:
        """Copies arrays of the host or of one device (PyTree; also keys) to every device of the mesh.

        Every process passes the same values. Arrays on the mesh stay in place; without a mesh NumPy arrays
        are copied to the device.
        """
        return self._put(tree, lambda x: PartitionSpec())

    def put_batches(self, batches: Any) -> Any:
        """Copies batches [E, B, ...] to the devices; each replica gets its part of the B rows."""
        split = lambda x: self.replicas > 1 and jnp.ndim(x) > 1
        return self._put(batches, lambda x: PartitionSpec(None, REPLICA) if split(x) else PartitionSpec())

    def put_spread(self, tree: Any, *, of_process: bool = False) -> Any:
        """Copies arrays [n, B, ...] of the host, with their B rows divided over all devices.

        With `of_process` each process passes the rows of its own devices; otherwise all pass the same arrays.
        """
        spread = lambda x: PartitionSpec(None, (GROUP, REPLICA))
        if self.mesh is None or not of_process or jax.process_count() == 1:
            return self._put(tree, spread)
        sharding = NamedSharding(self.mesh, spread(tree))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)

    def _put(self, tree: Any, spec: Callable[[Any], PartitionSpec]) -> Any:
        mesh = self.mesh
        if mesh is None:
            return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, tree)

        def put(x):
            if _check.is_traced(x) or isinstance(x, int | float | bool):
                return x
            if isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding) and x.sharding.mesh == mesh:
                return x
            if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(put(jax.random.key_data(x)), impl=jax.random.key_impl(x))
            sharding = NamedSharding(mesh, spec(x))
            if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
                return jax.device_put(x, sharding)
            host = np.asarray(x)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(put, tree)
