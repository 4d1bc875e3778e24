"""The bytes that rounds move between devices and keep on them, from the shapes of the parameters.

With a 'replicated' server every device keeps all arrays. With a 'sharded' one each of the P = G R devices keeps 1/P of
every array that has an axis divisible by P; the other arrays stay replicated. Activations, batches and the compiler's
own buffers are not counted.
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
      total: int, the sum.
      between: int, the bytes from other device groups, which cross the slower links if each group is a host.
    """

    total: int
    between: int


class Memory(NamedTuple):
    """The bytes that a run keeps on one device and, for that device, on its host.

    Attributes:
      params: int, the server's parameters.
      state: int, the method's state.
      versions: int, the stored versions; 0 with store='host'.
      round: int, the gradients and versions of the round in progress.
      host: int, the versions in host memory.
    """

    params: int
    state: int
    versions: int
    round: int
    host: int

    @property
    def device(self) -> int:
        """The bytes on one device."""
        return self.params + self.state + self.versions + self.round


def traffic(params: Any, *, width: int, device_groups: int, replicas: int = 1, server: str = "replicated") -> Traffic:
    """The bytes that one device receives in a round, whether or not all lanes hold an event.

    With d the bytes of the parameters:

                         replicated server                      sharded server
        versions         0, every device has them               (W/G) d (P-1)/P, all but its own part
        gradients of     2 (R-1)/R (W/G) d: reduce-scatter      (R-1)/R (W/G) d: reduce-scatter
        its own group    and all-gather
        those of other   W d (G-1)/G                            (W/P) d (G-1)/G
        groups
        between groups   W d (G-1)/G                            2 (W/P) d (G-1)/G: each byte of a version enters a
                                                                group once (all_to_all, then all_gather inside)

    With W = G groups of one device, a sharded server receives 2 d (P-1)/P, like the all-reduce of synchronous data
    parallelism, and a replicated one d (P-1). A compiler may move more than this.

    Args:
      params: PyTree of arrays or `jax.ShapeDtypeStruct`.
      width: W, a multiple of `device_groups`.
      device_groups, replicas: G device groups of R devices each.
      server: 'replicated' or 'sharded'.

    Raises:
      TypeError: a leaf of `params` has no shape and dtype.
      ValueError: a number is out of range, the width is not a multiple of `device_groups`, or the server is unknown.

    Source: Patarasuk and Yuan 2009 (doi:10.1016/j.jpdc.2008.09.002) for the all-reduce; Rajbhandari et al. 2020
    (arXiv:1910.02054) for the shards of synchronous training; the rest is derived.

    Example: a million float32 parameters, 8 groups of one device.
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import engine
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> engine.traffic(params, width=8, device_groups=8)
      Traffic(total=28000000, between=28000000)
      >>> engine.traffic(params, width=8, device_groups=8, server="sharded").total
      7000000
    """
    _check.choice("server", server, SERVERS)
    cost = Cost(device_groups, replicas)
    w, g, r, p = cost.width(width), cost.groups, cost.replicas, cost.devices
    divided, whole = _divided("params", params, p if server == "sharded" else 0)
    lanes = w // g
    versions = lanes * divided * (p - 1) // p
    own = -(-2 * (r - 1) * lanes * whole // r) + (r - 1) * lanes * divided // r
    others, part = w * whole * (g - 1) // g, w * divided * (g - 1) // (g * p)
    return Traffic(total=versions + own + others + part, between=others + 2 * part)


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
    """The bytes that a run keeps on one device and, for that device, on its host.

    With c the bytes of the parameters on one device (d, or about d / P with a sharded server), a round keeps 2 W c of
    gradients and the versions they were computed on, and on several devices 2 (W/G) d for the group's own lanes. With
    store='host' it also keeps 5 W c of versions in transit, and num_slots c are in host memory for every device.

    Args:
      params: PyTree of arrays or `jax.ShapeDtypeStruct`.
      width: W, a multiple of `device_groups`.
      num_slots: the number of versions stored at once, `Plan.num_slots`.
      state: the method's state, for example `jax.eval_shape(algorithm.init, params)`.
      device_groups, replicas: G device groups of R devices each.
      server: 'replicated' or 'sharded'.
      store: the store of versions: 'device', 'ring' or 'host'.

    Raises:
      TypeError: a leaf of `params` or `state` has no shape and dtype.
      ValueError: a number is out of range, the width is not a multiple of `device_groups`, or a name is unknown.

    Example: 64 versions of a million float32 parameters.
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax import engine
      >>> params = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
      >>> one = engine.memory(params, width=8, num_slots=64, device_groups=8)
      >>> one.versions, one.device
      (256000000, 332000000)
      >>> engine.memory(params, width=8, num_slots=64, device_groups=8, server="sharded", store="host")
      Memory(params=500000, state=0, versions=0, round=36000000, host=32000000)
    """
    _check.choice("server", server, SERVERS)
    _check.choice("store", store, STORES)
    cost = Cost(device_groups, replicas)
    w, p = cost.width(width), cost.devices
    parts = p if server == "sharded" else 0
    divided, whole = _divided("params", params, parts)
    own = whole + divided // p
    stored = _check.integer("num_slots", num_slots, 1) * own
    state_divided, state_whole = _divided("state", state, parts)
    lanes = 2 * (w // cost.groups) * (divided + whole) if p > 1 else 0
    on_host = store == "host"
    return Memory(
        params=own,
        state=state_whole + state_divided // p,
        versions=0 if on_host else stored,
        round=(7 if on_host else 2) * w * own + lanes,
        host=stored if on_host else 0,
    )


def _divided(name: str, tree: Any, parts: int) -> tuple[int, int]:
    """The bytes of the arrays that are sharded over `devices`, and of the others; 0 shards none."""
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
