"""Flax NNX: `nnx.Optimizer` with gradients at old parameters, eq. 6 of Mitliagkas et al. 2016."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from asyncflax import staleness, transforms

x = jax.random.normal(jax.random.key(0), (256, 8))
y = jnp.sin(x @ jnp.arange(8.0))[:, None]
model = nnx.Sequential(nnx.Linear(8, 32, rngs=nnx.Rngs(0)), nnx.tanh, nnx.Linear(32, 1, rngs=nnx.Rngs(1)))
tx = optax.chain(optax.sgd(0.05), transforms.store_versions(staleness.geometric(mean=3.0)))
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer):
    graph, params = nnx.split(model, nnx.Param)
    read = transforms.read_stale_params(optimizer.opt_state, params)  # the only new line
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((nnx.merge(graph, p)(x) - y) ** 2))(read)
    optimizer.update(model, grads)
    return loss


losses = [train_step(model, optimizer) for _ in range(300)]
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
