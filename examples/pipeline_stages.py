"""An asynchronous pipeline of four stages: each part of the network has the delay of its stage."""

import jax
import jax.numpy as jnp
import optax

from asyncflax import staleness, transforms

x = jax.random.normal(jax.random.key(0), (256, 8))
y = jnp.sin(x @ jnp.arange(8.0))[:, None]
shapes = {"embed": (8, 32), "block_1": (32, 32), "block_2": (32, 32), "head": (32, 1)}
keys = jax.random.split(jax.random.key(1), 4)
params = {name: jax.random.normal(k, s) / s[0] ** 0.5 for k, (name, s) in zip(keys, shapes.items(), strict=True)}
stages = {"embed": 0, "block_1": 1, "block_2": 2, "head": 3}  # tau = 3, 2, 1, 0
tx = optax.chain(transforms.delay_gradients(staleness.pipeline(4), labels=stages), optax.adam(1e-2))


def loss_fn(params):
    hidden = x @ params["embed"]
    for name in ("block_1", "block_2"):
        hidden = hidden + jnp.tanh(hidden @ params[name])
    return jnp.mean((hidden @ params["head"] - y) ** 2)


@jax.jit
def train_step(params, opt_state):
    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


opt_state, losses = tx.init(params), []
for _ in range(300):
    params, opt_state, loss = train_step(params, opt_state)
    losses.append(loss)
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
