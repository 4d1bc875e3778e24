"""In which precision a network computes, and that nothing else changes its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asyncflax
from asyncflax.lab.sweep import SweepConfig, run_sweep
from asyncflax.train.config import TrainConfig
from asyncflax.train.experiment import make_experiment
from asyncflax.train.loop import train_and_evaluate
from asyncflax.train.precision import PRECISIONS, compute_in
from asyncflax.train.workdir import differences

SMALL = TrainConfig(num_workers=4, num_updates=40, batch_size=16, log_every=20, eval_every=40, learning_rate=0.1)
PERCEPTRON = dataclasses.replace(SMALL, model="Mlp(hidden=8)")


def products(function, *arguments):
    """(dtypes of both factors, precision) of each product of matrices and each convolution that JAX traces."""
    equations, found = list(jax.make_jaxpr(function)(*arguments).eqns), []
    while equations:
        equation = equations.pop()
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            factors = [str(factor.aval.dtype) for factor in equation.invars]
            found.append((*factors, equation.params["precision"]))
        for part in jax.tree.leaves(equation.params):
            equations += getattr(getattr(part, "jaxpr", part), "eqns", ())
    return found


HIGHEST, HIGH = jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGH


@pytest.mark.parametrize(
    "precision, expected",
    [
        ("float32", ("float32", "float32", (HIGHEST, HIGHEST))),
        ("tf32", ("float32", "float32", (HIGH, HIGH))),
        ("bfloat16", ("bfloat16", "bfloat16", None)),
    ],
)
@pytest.mark.parametrize(
    "model",
    ["Mlp", *[f"SmallCnn(conv={conv})" for conv in ("native", "forward_gradients", "im2col")]],
)
def test_all_products_forward_and_backward_have_the_precision(precision, expected, model):
    made = make_experiment(dataclasses.replace(SMALL, precision=precision, model=model))
    rows = made.batches(made.plan[0])[0]
    gradient = lambda params: made.gradient_fn(params, rows, key=made.key)
    forward, backward = products(made.evaluate, made.params), products(gradient, made.params)
    assert set(forward) == set(backward) == {expected}
    layers = 2 if model == "Mlp" else 3
    assert len(forward) == layers and len(backward) >= 3 * layers - 1  # the images need no gradient
    result = jax.eval_shape(gradient, made.params)
    assert {leaf.dtype for leaf in jax.tree.leaves((result.loss, result.grads))} == {jnp.dtype("float32")}


def test_the_compiler_is_told():
    for precision, said in (("float32", "HIGHEST, HIGHEST"), ("tf32", "HIGH, HIGH")):
        apply = compute_in(precision, lambda params, images: images @ params)
        assert said in jax.jit(apply).lower(jnp.ones((2, 2)), jnp.ones((1, 2))).as_text()


def run(config):
    made = make_experiment(config)
    state = asyncflax.init_run(made.algorithm, made.params, made.plan, key=made.key)
    losses = []
    for chunk in made.plan:
        state, out = asyncflax.run_chunk(made.algorithm, made.gradient_fn, state, chunk, made.batches(chunk))
        losses.append(out.losses[: int(chunk.num_events)])
    return state, np.concatenate(losses), float(made.evaluate(state.params)["test_loss"])


def test_a_training_in_bfloat16_is_close_and_all_that_stays_is_float32():
    """Convolutions, pooling, dropout, the mean image; only rounding differs, the dropout and the batches do not."""
    config = dataclasses.replace(SMALL, algorithm="multi_asgd", momentum=0.5, width=4)
    state, losses, test_loss = run(dataclasses.replace(config, precision="bfloat16"))
    plain, plain_losses, plain_test_loss = run(config)
    np.testing.assert_allclose(losses, plain_losses, rtol=0.02)
    assert test_loss == pytest.approx(plain_test_loss, rel=0.02) and np.any(losses != plain_losses)
    for kept, same in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        assert kept.dtype == same.dtype
    assert {x.dtype for x in jax.tree.leaves((state.params, state.slots))} == {jnp.dtype("float32")}


def test_a_cpu_has_no_tf32():
    _, losses, test_loss = run(PERCEPTRON)
    _, same, same_test_loss = run(dataclasses.replace(PERCEPTRON, precision="tf32"))
    np.testing.assert_array_equal(same, losses)
    assert same_test_loss == test_loss


def test_precision_is_part_of_a_run_and_may_vary_in_a_sweep(tmp_path):
    train = dataclasses.replace(PERCEPTRON, num_updates=20, eval_every=20)
    half = dataclasses.replace(train, precision="bfloat16", meter_window=12)
    assert differences(dataclasses.asdict(train), half) == ["config.precision was 'float32', now it is 'bfloat16'"]
    alone = train_and_evaluate(half, tmp_path / "alone").rows[-1]
    results = run_sweep(SweepConfig(train, {"precision": PRECISIONS, "momentum": (0.0, 0.3)}), tmp_path / "sweep")
    assert list(results.precision.values) == list(PRECISIONS)
    cells = results.test_loss.sel(update=20, momentum=0.0)
    assert float(cells.sel(precision="bfloat16")) == pytest.approx(alone["test_loss"], rel=1e-3)
    np.testing.assert_allclose(cells, cells.sel(precision="float32"), rtol=0.01)


def test_integers_are_not_cast():
    apply = compute_in("bfloat16", lambda params, images: params["table"][images % params["size"]])
    out = apply({"table": jnp.arange(300.0, dtype=jnp.float32), "size": jnp.asarray(300)}, jnp.asarray([257, 2]))
    assert out.dtype == jnp.float32 and out.tolist() == [256.0, 2.0]  # 8 bits hold 256, not 257


def test_bad_input_is_one_clear_error():
    with pytest.raises(ValueError, match="precision must be one of 'float32', 'tf32', 'bfloat16', got 'half'"):
        compute_in("half", lambda params, images: images)
