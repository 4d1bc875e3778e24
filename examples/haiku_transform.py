"""Haiku: a transformed network, trained by four asynchronous workers in one compiled program."""

import haiku as hk
import jax
import jax.numpy as jnp

import asyncflax
from asyncflax import queues

x = jax.random.normal(jax.random.key(0), (256, 8))
y = jnp.sin(x @ jnp.arange(8.0))[:, None]
network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([32, 1], activation=jnp.tanh)(x)))


def loss_fn(params, rows):
    return jnp.mean((network.apply(params, x[rows]) - y[rows]) ** 2)


trace = queues.simulate(num_workers=4, num_updates=300, service_time=queues.exponential())
rows = jax.random.randint(jax.random.key(2), (300, 64), 0, 256)
result = asyncflax.run(
    asyncflax.algorithms.dana_slim(0.02, 0.5, num_workers=4),
    asyncflax.from_loss(loss_fn),
    network.init(jax.random.key(1), x),
    trace,
    rows,
)
print(f"loss {result.losses[0]:.4f} -> {result.losses[-1]:.4f}")
