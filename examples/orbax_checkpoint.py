"""Orbax: versions in host memory are saved and restored with the optimizer's state, and the run resumes exactly."""

import tempfile

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

from asyncflax import staleness, transforms

tx = optax.chain(optax.sgd(0.05), transforms.store_versions(staleness.geometric(mean=3.0), memory="pinned_host"))


@jax.jit
def train_step(params, opt_state):
    read = transforms.read_stale_params(opt_state, params)
    loss, grads = jax.value_and_grad(lambda w: jnp.sum((w - 1.0) ** 2))(read)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


def train(state, steps):
    losses = []
    for _ in range(steps):
        state, loss = train_step(*state)
        losses.append(loss)
    return state, losses


params = jnp.zeros(1000)
half, first = train((params, tx.init(params)), 20)
whole, rest = train(half, 20)
with ocp.StandardCheckpointer() as checkpointer:
    folder = tempfile.mkdtemp() + "/state"
    checkpointer.save(folder, half)
    restored = checkpointer.restore(folder, jax.tree.map(ocp.utils.to_shape_dtype_struct, half))
resumed, again = train(restored, 20)
assert again == rest and (resumed[0] == whole[0]).all()
print(f"loss {first[0]:.4f} -> {again[-1]:.4f}")
