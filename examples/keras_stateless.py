"""Keras: `stateless_call` and an Optax chain; gradients arrive three steps late and are compensated."""

import os

os.environ["KERAS_BACKEND"] = "jax"
import jax
import jax.numpy as jnp
import keras
import optax

from asyncflax import transforms

x = jax.random.normal(jax.random.key(0), (256, 8))
y = jnp.sin(x @ jnp.arange(8.0))[:, None]
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(1)])
tx = transforms.with_delay(3, optax.chain(transforms.compensate_delay(0.04), optax.sgd(0.05)))


@jax.jit
def train_step(weights, opt_state):
    def loss_fn(weights):
        predicted, _ = model.stateless_call(weights, [], x)
        return jnp.mean((predicted - y) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(weights)
    updates, opt_state = tx.update(grads, opt_state, weights)
    return optax.apply_updates(weights, updates), opt_state, loss


weights, losses = [variable.value for variable in model.trainable_variables], []
opt_state = tx.init(weights)
for _ in range(300):
    weights, opt_state, loss = train_step(weights, opt_state)
    losses.append(loss)
for variable, value in zip(model.trainable_variables, weights, strict=True):
    variable.assign(value)
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
