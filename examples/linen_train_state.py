"""Flax Linen: a `TrainState`, which forwards no extra arguments; `with_delay` supplies those of a queue.

Four workers with exponential work, per-worker momentum and delay compensation. The loop computes its gradients at its
current parameters and they arrive late (eq. 4 of Mitliagkas et al. 2016); for eq. 6 see nnx_optimizer.py.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from asyncflax import queues, transforms

x = jax.random.normal(jax.random.key(0), (256, 8))
y = jnp.sin(x @ jnp.arange(8.0))[:, None]
model = nn.Sequential([nn.Dense(32), nn.tanh, nn.Dense(1)])
trace = queues.simulate(num_workers=4, num_updates=300, service_time=queues.exponential())
inner = optax.chain(
    transforms.compensate_delay(0.04), transforms.per_worker(optax.trace(0.5), num_workers=4), optax.sgd(0.02)
)
tx = transforms.with_delay(trace, inner)
state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(1), x), tx=tx)


@jax.jit
def train_step(state):
    loss, grads = jax.value_and_grad(lambda params: jnp.mean((state.apply_fn(params, x) - y) ** 2))(state.params)
    return state.apply_gradients(grads=grads), loss


losses = []
for _ in range(len(trace)):
    state, loss = train_step(state)
    losses.append(loss)
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
