"""Equinox: a module whose arrays are the parameters, in your own loop and in `asyncflax.run`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import asyncflax
from asyncflax import queues, staleness, transforms

x = jax.random.normal(jax.random.key(0), (256, 8))
y = jnp.sin(x @ jnp.arange(8.0))[:, None]
params, static = eqx.partition(eqx.nn.MLP(8, 1, 32, 1, jnp.tanh, key=jax.random.key(1)), eqx.is_inexact_array)
tx = optax.chain(optax.sgd(0.05), transforms.store_versions(staleness.geometric(mean=3.0)))


def loss_fn(params, _):
    return jnp.mean((jax.vmap(eqx.combine(params, static))(x) - y) ** 2)


@eqx.filter_jit
def train_step(params, opt_state):
    read = transforms.read_stale_params(opt_state, params)
    loss, grads = eqx.filter_value_and_grad(loss_fn)(read, None)
    updates, opt_state = tx.update(grads, opt_state, params)
    return eqx.apply_updates(params, updates), opt_state, loss


trained, opt_state, losses = params, tx.init(params), []
for _ in range(300):
    trained, opt_state, loss = train_step(trained, opt_state)
    losses.append(loss)
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")

trace = queues.simulate(num_workers=4, num_updates=300, service_time=queues.exponential())
method = asyncflax.algorithms.dana_slim(0.02, 0.5, num_workers=4)
result = asyncflax.run(method, eqx.filter_value_and_grad(loss_fn), params, trace, jnp.zeros(300))
print(f"loss {result.losses[0]:.4f} -> {result.losses[-1]:.4f}")
