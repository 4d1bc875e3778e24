"""Parameters sharded over four devices, and their old versions in host memory, sharded likewise."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"  # simulates four devices on a CPU
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from asyncflax import staleness, transforms

mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
specs = {"kernel": P(None, "model"), "bias": P("model")}
place = lambda tree, specs: jax.device_put(tree, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))
x = jax.random.normal(jax.random.key(0), (256, 8))
y = x @ jax.random.normal(jax.random.key(1), (8, 64))
params = place({"kernel": jnp.zeros((8, 64)), "bias": jnp.zeros(64)}, specs)
tx = optax.chain(optax.sgd(0.5), transforms.store_versions(staleness.geometric(mean=3.0), memory="pinned_host"))


@jax.jit
def train_step(params, opt_state):
    read = transforms.read_stale_params(opt_state, params)
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((x @ p["kernel"] + p["bias"] - y) ** 2))(read)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


opt_state, losses = tx.init(params), []  # rings take the sharding of the parameters
for _ in range(100):
    params, opt_state, loss = train_step(params, opt_state)
    losses.append(float(loss))
print(opt_state[1].ring.rows["kernel"].sharding)
print(transforms.partition_spec(tx, params, specs)[1].ring.rows)  # for code that needs the shardings of the state
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
