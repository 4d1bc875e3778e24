"""What rounds move between devices and keep on them, in bytes, from the shapes of the parameters: d bytes in all.

A server is 'replicated': every device has all that it keeps; or 'sharded': each of the P = G R devices keeps 1/P of
every array with an axis that P divides, and the other arrays are on every device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax

from asyncflax import _check
from asyncflax.engine.forecasts import Cost
from asyncflax.engine.placement import SERVERS, STORES


class Traffic(NamedTuple):
    """The bytes that one device receives in a round.

    Attributes:
      versions: int, of the versions that its group computes on.
      reduction: int, from the devices of its own group, to add up the gradients of their parts of the batch.
      gradients: int, of the gradients of the other groups.
      between: int, those of all these that come from other groups: what crosses the slower links if a group is a host.

    Example: see `traffic`.
    """

    versions: int
    reduction: int
    gradients: int
    between: int

    @property
    def total(self) -> int:
        """All bytes that one device receives in a round."""
        return self.versions + self.reduction + self.gradients


class Memory(NamedTuple):
    """The bytes that a run keeps on one device and, for that device, on its host; an estimate without activations.

    Attributes:
      params: int, the server's parameters.
      state: int, the method's state.
      versions: int, the stored versions; with store='host' those of the rounds under way.
      gradients: int, of a round, as the server takes them.
      reads: int, the versions that these were computed on, as the server takes them.
      work: int, the versions and gradients of the lanes of its own group, in full; 0 on one device, which has them.
      host: int, the versions in host memory, for this device.

    Example: see `memory`.
    """

    params: int
    state: int
    versions: int
    gradients: int
    reads: int
    work: int
    host: int

    @property
    def device(self) -> int:
        """All bytes on one device."""
        return self.params + self.state + self.versions + self.gradients + self.reads + self.work


def traffic(params: Any, *, width: int, device_groups: int, replicas: int = 1, server: str = "replicated") -> Traffic:
    """The bytes that one device receives in a round.

    Every lane is moved, filled or not. A group of R devices computes W/G gradients, each device on its part of the
    batch. With d the bytes of the parameters and of a gradient:

                         replicated server                      sharded server
        versions         0, every device has them               (W/G) d (P-1)/P, all but the own part
        reduction        2 (R-1)/R (W/G) d: reduce-scatter      (R-1)/R (W/G) d: reduce-scatter, each device
                         and all-gather                         keeps 1/R of every sum
        gradients        W d (G-1)/G, all but the own group's   (W/P) d (G-1)/G, of these the own part
        between groups   W d (G-1)/G                            2 (W/P) d (G-1)/G

    With W = G groups of one device, a sharded server receives 2 d (P-1)/P, as the all-reduce of synchronous data
    parallelism does, and a replicated one d (P-1). The last row: every device of a replicated server gathers from the
    other groups for itself; each byte of a version enters a group of a sharded one once and is passed on inside
    (`all_to_all` over the groups, then `all_gather` over the replicas). Arrays that a sharded server has on every
    device count as those of a replicated one. A compiler may move more than this, and a model that gathers its
    parameters again for the backward pass does.

    Args:
      params: PyTree of arrays or `jax.ShapeDtypeStruct`.
      width: W, a multiple of `device_groups`.
      device_groups: G.
      replicas: R.
      server: 'replicated' or 'sharded'.

    Raises:
      TypeError: a leaf of `params` has no shape and type.
      ValueError: a number is out of its range, the width is no multiple of `device_groups`, or the server is unknown.

    Source: Patarasuk and Yuan 2009 (doi:10.1016/j.jpdc.2008.09.002) for the least that an all-reduce receives;
    Rajbhandari et al. 2020 (arXiv:1910.02054) for the shards of synchronous training; the rest is derived.

    Example: a million float32 parameters, 8 groups of one device.
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import engine
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> engine.traffic(params, width=8, device_groups=8)
      Traffic(versions=0, reduction=0, gradients=28000000, between=28000000)
      >>> engine.traffic(params, width=8, device_groups=8, server="sharded").total
      7000000
    """
    _check.choice("server", server, SERVERS)
    cost = Cost(device_groups, replicas)
    w, g, r, p = cost.width(width), cost.groups, cost.replicas, cost.groups * cost.replicas
    divided, whole = _divided("params", params, p if server == "sharded" else 0)
    lanes = w // g
    others = w * whole * (g - 1) // g
    part = w * divided * (g - 1) // (g * p)
    return Traffic(
        versions=lanes * divided * (p - 1) // p,
        reduction=-(-2 * (r - 1) * lanes * whole // r) + (r - 1) * lanes * divided // r,
        gradients=others + part,
        between=others + 2 * part,
    )


def memory(
    params: Any,
    *,
    width: int,
    num_slots: int,
    state: Any = None,
    device_groups: int = 1,
    replicas: int = 1,
    server: str = "replicated",
    store: str = "device",
) -> Memory:
    """The bytes that a run keeps on one device, and for it on its host.

    An estimate: activations, batches and what the compiler keeps besides are not in it. With c the bytes of the
    parameters on one device (d, or about d / P with a sharded server):

        parameters c, state alike; versions num_slots c; W c of gradients and W c of versions read;
        in a group, (W/G) d of versions and (W/G) d of gradients in full

    With store='host', num_slots c are in host memory, and the device has 5 W c of versions however many there are:
    those read by this round and those on their way in for the next one, those that this round hands out, one by one
    and together, and a copy that the compiler makes. Each device has its own part in
    the memory of its host: with a replicated server, that is a copy for every device.

    Args:
      params: PyTree of arrays or `jax.ShapeDtypeStruct`.
      width: W, a multiple of `device_groups`.
      num_slots: how many versions are stored at once (`Plan.num_slots`; the length of the ring with store='ring').
      state: the method's state, PyTree like `params`: `jax.eval_shape(algorithm.init, params)`.
      device_groups: G.
      replicas: R.
      server: 'replicated' or 'sharded'.
      store: where versions are: 'device' and 'ring' on the device, 'host' in host memory.

    Raises:
      TypeError: a leaf of `params` or `state` has no shape and type.
      ValueError: a number is out of its range, the width is no multiple of `device_groups`, or a name is unknown.

    Example: 64 versions of a million float32 parameters.
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import engine
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> one = engine.memory(params, width=8, num_slots=64, device_groups=8)
      >>> one.versions, one.device
      (256000000, 332000000)
      >>> engine.memory(params, width=8, num_slots=64, device_groups=8, server="sharded", store="host")
      Memory(params=500000, state=0, versions=20000000, gradients=4000000, reads=4000000, work=8000000, host=32000000)
    """
    _check.choice("server", server, SERVERS)
    _check.choice("store", store, STORES)
    cost = Cost(device_groups, replicas)
    w, p = cost.width(width), cost.groups * cost.replicas
    slots = _check.integer("num_slots", num_slots, 1)
    parts = p if server == "sharded" else 0
    divided, whole = _divided("params", params, parts)
    own = whole + (divided // p)
    state_divided, state_whole = _divided("state", state, parts)
    return Memory(
        params=own,
        state=state_whole + state_divided // p,
        versions=5 * w * own if store == "host" else slots * own,
        gradients=w * own,
        reads=w * own,
        work=2 * (w // cost.groups) * (divided + whole) if p > 1 else 0,
        host=slots * own if store == "host" else 0,
    )


def _divided(name: str, tree: Any, parts: int) -> tuple[int, int]:
    """The bytes of the arrays that so many devices divide among them, and of those that stay whole; 0 divides none."""
    divided = whole = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            leaf = jax.eval_shape(lambda x: x, leaf)
        except TypeError:
            path = name + jax.tree_util.keystr(path)
            raise TypeError(f"{path} must be an array or a jax.ShapeDtypeStruct, got {_check.shown(leaf)}.") from None
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        if parts and any(length and length % parts == 0 for length in leaf.shape):
            divided += size
        else:
            whole += size
    if name == "params" and not divided + whole:
        raise ValueError(f"params must hold numbers, got {_check.shown(tree)}.")
    return divided, whole
