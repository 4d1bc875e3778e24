"""NumPyro: stochastic variational inference whose gradients arrive late, as from eight asynchronous workers."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import optax_to_numpyro

from asyncflax import queues, transforms

x = jax.random.normal(jax.random.key(0), (256, 4))
y = x @ jnp.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * jax.random.normal(jax.random.key(1), (256,))


def model(x, y):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
    numpyro.sample("y", dist.Normal(x @ weights, 0.1), obs=y)


trace = queues.simulate(num_workers=8, num_updates=1000, service_time=queues.exponential())
tx = transforms.with_delay(trace, optax.adam(0.01))
svi = SVI(model, AutoNormal(model), optax_to_numpyro(tx), Trace_ELBO())
result = svi.run(jax.random.key(2), 1000, x, y, progress_bar=False)
print(f"loss {result.losses[0]:.1f} -> {result.losses[-1]:.1f}")
print("weights", result.params["weights_auto_loc"].round(1))
