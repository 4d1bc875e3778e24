"""Local SGD: steps of a worker against the same steps by hand, DyLU's numbers, delayed Nesterov on top."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from problems import SOFTMAX_PARAMS, assert_close

import asyncflax
from asyncflax import local, queues

gradient_fn = asyncflax.from_loss(problems.softmax_loss)
TRACE = queues.simulate(num_workers=4, num_updates=12, service_time=queues.exponential(), seed=5)
BATCHES = np.random.default_rng(2).integers(32, size=(12, 3, 4))  # events, local steps, examples


def test_one_local_step_is_sgd():
    """With H = 1 the pseudo-gradient is the local rate times the gradient."""
    worker = local.local_sgd(gradient_fn, optax.sgd(0.3), steps=1)
    found = asyncflax.run(asyncflax.algorithms.asgd(1.0), worker, SOFTMAX_PARAMS, TRACE, BATCHES[:, :1])
    plain = asyncflax.run(asyncflax.algorithms.asgd(0.3), gradient_fn, SOFTMAX_PARAMS, TRACE, BATCHES[:, 0])
    assert_close(found.params, plain.params)
    assert_close(found.losses, plain.losses)


@pytest.mark.parametrize("steps", [3, (3, 1, 2, 3)])
@pytest.mark.parametrize("width", [1, 4])
def test_workers_make_their_steps(steps, width):
    """Against a loop in Python over events and local steps, with a local optimizer that has a state."""
    optimizer = optax.sgd(0.2, momentum=0.5)
    worker = local.local_sgd(gradient_fn, optimizer, steps)
    found = asyncflax.run(asyncflax.algorithms.asgd(0.7), worker, SOFTMAX_PARAMS, TRACE, BATCHES, width=width)

    versions = [jax.tree.map(jnp.asarray, SOFTMAX_PARAMS)]
    losses = []
    for t, (i, v) in enumerate(zip(TRACE.worker, TRACE.read_version, strict=True)):
        params, state, total = versions[v], optimizer.init(versions[v]), 0.0
        count = steps if isinstance(steps, int) else steps[i]
        for h in range(count):
            loss, grads = jax.value_and_grad(problems.softmax_loss)(params, BATCHES[t, h])
            updates, state = optimizer.update(grads, state)
            params, total = optax.apply_updates(params, updates), total + loss
        move = lambda now, read, end: now - 0.7 * (read - end)
        versions.append(jax.tree.map(move, versions[-1], versions[v], params))
        losses.append(total / count)
    assert_close(found.params, versions[-1])
    assert_close(found.losses, jnp.stack(losses))


def test_local_steps_of_batch_statistics_are_one_update_of_the_server():
    """Two local steps on statistics are m (m s + i_1) + i_2; the network sees other noise at each step."""
    rows = np.random.default_rng(3).integers(32, size=(2, 4))
    worker = local.local_sgd(problems.norm_gradient, optax.sgd(0.0), steps=2)
    key = jax.random.key(3)
    context = {"event": 0, "worker": 0, "model_state": problems.NORM_STATE}
    found = worker(problems.NORM_PARAMS, rows, key=key, **context).model_update.apply(problems.NORM_STATE)
    expected = problems.NORM_STATE
    for h in range(2):
        step = problems.norm_gradient(problems.NORM_PARAMS, rows[h], key=jax.random.fold_in(key, h), **context)
        expected = step.model_update.apply(expected)
    assert_close(found, expected)


def test_updates_of_the_model_that_forget_differently_are_one():
    """Three steps: d_3 (d_2 (d_1 s + i_1) + i_2) + i_3."""

    def gradient_fn(params, batch, *, model_state):
        del model_state
        update = asyncflax.ModelUpdate(batch["decay"], {"mean": batch["increment"]})
        return asyncflax.GradientResult(jnp.zeros(()), jnp.zeros_like(params), {}, update)

    batch = {"decay": jnp.array([0.9, 0.5, 0.25]), "increment": jnp.array([[1.0], [2.0], [3.0]])}
    worker = local.local_sgd(gradient_fn, optax.sgd(0.1), steps=3)
    state = {"mean": jnp.array([8.0])}
    found = worker(jnp.zeros(2), batch, key=jax.random.key(0), event=0, worker=0, model_state=state)
    assert_close(found.model_update.apply(state), {"mean": np.array([0.25 * (0.5 * (0.9 * 8 + 1) + 2) + 3])})


def test_workers_without_a_number_of_steps_are_refused():
    """Two numbers for the four workers of the trace. A worker that is only known when it runs delivers NaN."""
    worker = local.local_sgd(gradient_fn, optax.sgd(0.2), steps=[3, 1])
    with pytest.raises(ValueError, match=r"gradient_fn was built for num_workers=2, but the trace has worker 3\."):
        asyncflax.run(asyncflax.algorithms.asgd(0.0), worker, SOFTMAX_PARAMS, TRACE, BATCHES)
    context = {"key": jax.random.key(0), "event": 0, "model_state": None}
    with pytest.raises(ValueError, match=r"steps must have one number per worker, got \[3, 1\] and worker=2"):
        worker(SOFTMAX_PARAMS, BATCHES[0], worker=2, **context)
    traced = jax.jit(lambda i: worker(SOFTMAX_PARAMS, BATCHES[0], worker=i, **context))
    for i, is_there in ((1, True), (2, False)):
        delivered = traced(i)
        leaves = [delivered.loss, *jax.tree.leaves(delivered.grads)]
        assert all((np.isfinite if is_there else np.isnan)(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("steps", [1, 3])
def test_what_the_first_step_reports_costs_no_further_step(steps):
    seen = []

    def loss_fn(params, batch):
        jax.debug.callback(lambda rows: seen.append(int(rows[0])), batch)
        return problems.softmax_loss(params, batch), {"first": batch[0]}

    worker = local.local_sgd(asyncflax.from_loss(loss_fn, has_aux=True), optax.sgd(0.2), steps)
    context = {"key": jax.random.key(0), "event": 0, "worker": 0, "model_state": None}
    result = jax.jit(lambda batch: worker(SOFTMAX_PARAMS, batch, **context))(BATCHES[0][:steps])
    jax.effects_barrier()
    assert int(result.aux["first"]) == BATCHES[0][0, 0]
    assert sorted(seen) == sorted(BATCHES[0][:steps, 0].tolist())


def test_delayed_nesterov_on_local_sgd_is_a_nesterov_step_a_cycle():
    """Workers in lock-step: after N deliveries the server has made one Nesterov step with their mean."""
    trace = queues.barrier(num_workers=4, num_updates=12, service_time=queues.deterministic())
    worker = local.local_sgd(gradient_fn, optax.sgd(0.2), steps=3)
    outer = asyncflax.algorithms.delayed_nesterov(0.7, 0.9, num_workers=4)
    found = asyncflax.run(outer, worker, SOFTMAX_PARAMS, trace, BATCHES)
    params, momentum = SOFTMAX_PARAMS, jax.tree.map(jnp.zeros_like, SOFTMAX_PARAMS)
    context = {"key": jax.random.key(0), "event": 0, "worker": 0, "model_state": None}
    for cycle in range(3):
        moved = [worker(params, BATCHES[t], **context).grads for t in range(4 * cycle, 4 * cycle + 4)]
        mean = jax.tree.map(lambda *x: sum(x) / 4, *moved)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, mean)
        params = jax.tree.map(lambda p, m, g: p - 0.7 * (0.9 * m + g), params, momentum, mean)
    assert_close(found.params, params)


def test_steps_by_speed():
    assert local.steps_by_speed([1.0, 1.0], 7) == [7, 7]
    assert local.steps_by_speed([0.1, 0.3, 0.01], 10) == [3, 10, 1]  # never none
    assert local.steps_by_speed([3, 2, 1], 3) == [3, 2, 1]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: local.local_sgd(3, optax.sgd(0.1), 1), TypeError, "gradient_fn must be a function"),
        (lambda: local.local_sgd(gradient_fn, "sgd", 1), TypeError, "optimizer must be an optax.GradientTransf"),
        (lambda: local.local_sgd(gradient_fn, optax.sgd(0.1), 0), ValueError, "steps must be an integer >= 1, got st"),
        (lambda: local.local_sgd(gradient_fn, optax.sgd(0.1), [2, 0]), ValueError, "steps must be an integer >= 1"),
        (lambda: local.local_sgd(gradient_fn, optax.sgd(0.1), []), ValueError, "steps must have one number per worker"),
        (lambda: local.steps_by_speed([1.0, 0.0], 2), ValueError, "speeds must be finite and in"),
        (lambda: local.steps_by_speed(1.0, 2), ValueError, "speeds must have one number per worker, got 1.0"),
        (lambda: local.steps_by_speed([1.0], 0), ValueError, "steps must be an integer >= 1"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_batch_without_the_rows_is_refused():
    worker = local.local_sgd(gradient_fn, optax.sgd(0.1), steps=2)
    with pytest.raises(ValueError, match="batch must have one row for each of the 2 local steps of an event"):
        asyncflax.run(asyncflax.algorithms.asgd(1.0), worker, SOFTMAX_PARAMS, TRACE, BATCHES)
