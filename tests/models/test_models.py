"""Convolution and pooling against JAX's own, the networks' sizes, and what makes functions of them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import assert_close

from asyncflax import models
from asyncflax.models import layers

NHWC = ("NHWC", "HWIO", "NHWC")


def value_and_gradients(function, *arguments):
    """A function's value and the gradient of a generic number made of it."""
    out, pullback = jax.vjp(function, *arguments)
    return out, pullback(jnp.cos(jnp.arange(out.size)).astype(out.dtype).reshape(out.shape))


def in_scan(function):
    """What the second turn of a loop gives."""

    def run(*arguments):
        step = lambda carry, _: (carry, function(*carry))
        return jax.tree.map(lambda y: y[1], jax.lax.scan(step, arguments, None, length=2)[1])

    return run


def over_kernels(function):
    """A round: three kernels, each with images of its own."""
    scale = jnp.array([1.0, -0.5, 2.0])[:, None, None, None, None]
    return lambda x, k: jax.vmap(function)(x[None] * scale, k[None] * jnp.flip(scale))


def over_kernels_of_a_sweep(function):
    """Three kernels, the same images."""
    return lambda x, k: jax.vmap(function, in_axes=(None, 0))(x, jnp.stack([k, -k, 2 * k]))


other_convolutions = pytest.mark.parametrize("name", ["forward_gradients", "im2col"])


@other_convolutions
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(jax.jit, id="jit", marks=pytest.mark.slow),
        pytest.param(in_scan, id="scan", marks=pytest.mark.slow),
        pytest.param(over_kernels, id="round", marks=pytest.mark.slow),
        pytest.param(over_kernels_of_a_sweep, id="sweep"),
        pytest.param(lambda f: in_scan(over_kernels(f)), id="rounds in a scan"),
    ],
)
@pytest.mark.parametrize(
    "kernel, strides, padding",
    [((5, 5), (1, 1), "SAME"), ((2, 3), (1, 1), ((0, 2), (1, 0))), ((3, 3), (2, 2), ((1, 1), (1, 1)))],
)
def test_all_convolutions_are_the_native_one(name, wrap, kernel, strides, padding):
    rng = np.random.default_rng(0)
    x, k = jnp.asarray(rng.normal(size=(2, 7, 6, 3))), jnp.asarray(rng.normal(size=(*kernel, 3, 4)))

    def run(name):
        conv = functools.partial(layers.conv_by_name(name), dimension_numbers=NHWC)
        return wrap(lambda x, k: value_and_gradients(lambda x, k: conv(x, k, strides, padding), x, k))(x, k)

    assert_close(run(name), run("native"))


@other_convolutions
@pytest.mark.parametrize(
    "strides", [(1, 3), *(pytest.param(both, marks=pytest.mark.slow) for both in [(1, 1), (2, 2)])]
)
@pytest.mark.parametrize(
    "kernel, padding",
    [
        ((1, 1), "SAME"),
        ((3, 3), "VALID"),
        ((5, 1), "SAME"),
        ((3, 4), "SAME"),
        ((3, 4), ((2, 0), (0, 3))),
        ((3, 4), ((-1, 1), (0, -1))),
    ],
)
def test_kernels_paddings_and_strides_of_all_kinds(name, kernel, padding, strides):
    rng = np.random.default_rng(1)
    x, k = jnp.asarray(rng.normal(size=(2, 7, 6, 3))), jnp.asarray(rng.normal(size=(*kernel, 3, 4)))
    one = lambda name: lambda x, k: layers.conv_by_name(name)(x, k, strides, padding, dimension_numbers=NHWC)
    assert_close(value_and_gradients(one(name), x, k), value_and_gradients(one("native"), x, k))


@other_convolutions
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
def test_convolutions_keep_the_dtype(name, dtype, tolerance):
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(5, 5, 3, 8))

    def run(name, dtype):
        conv = lambda x, k: layers.conv_by_name(name)(x, k, (1, 1), "SAME", dimension_numbers=NHWC)
        return value_and_gradients(conv, jnp.asarray(x, dtype), jnp.asarray(k, dtype))

    for got, want in zip(jax.tree.leaves(run(name, dtype)), jax.tree.leaves(run("native", jnp.float64)), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(jnp.float64), want, atol=tolerance * float(jnp.std(want)))


@other_convolutions
def test_strides_are_not_left_to_jax(name):
    """What XLA:CPU is slow with in loops: strided or dilated convolutions in the gradients; none at all in im2col."""
    conv = lambda x, k: layers.conv_by_name(name)(x, k, (2, 2), "SAME", dimension_numbers=NHWC)
    gradient = jax.grad(lambda x, k: jnp.sum(conv(x, k) ** 2), argnums=(0, 1))
    jaxpr = str(jax.make_jaxpr(gradient)(jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))))
    strides = re.findall(r"window_strides=\((\d), (\d)\)", jaxpr)
    assert strides == ([] if name == "im2col" else [("2", "2"), ("1", "1"), ("1", "1")])
    assert set(re.findall(r"[lr]hs_dilation=\((\d), (\d)\)", jaxpr)) <= {("1", "1")}


@pytest.mark.parametrize("name", ["native", "forward_gradients", "im2col"])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_the_gradients_have_the_precision_of_the_convolution(name, wrap):
    def loss(x, k):
        conv = lambda x, k: layers.conv_by_name(name)(x, k, (1, 1), "SAME", dimension_numbers=NHWC)
        with jax.default_matmul_precision("float32"):  # is over when JAX traces the gradients
            return jnp.sum(wrap(conv)(x, k) ** 2)

    jaxpr = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))))
    assert jaxpr.count("Precision.HIGHEST, ") == jaxpr.count("precision=") == 3


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (2, 2), "rhs_dilation": (1, 2)},
        {"window_strides": (1, 1), "rhs_dilation": (2, 2)},
        {"window_strides": (1, 1), "lhs_dilation": (2, 1), "padding": ((0, 0), (1, 1))},
        {"window_strides": (1, 1), "feature_group_count": 8},
        {"window_strides": (1, 1), "batch_group_count": 2},
        {"window_strides": (1, 1), "precision": "highest"},
        {"window_strides": (1, 1), "dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    ],
    ids=[
        "strides and a dilated kernel",
        "dilated kernel",
        "dilated image",
        "many groups",
        "batch groups",
        "precision",
        "other layout",
    ],
)
@other_convolutions
def test_what_is_not_plain_is_left_to_jax(name, options):
    options = {"dimension_numbers": NHWC, "padding": "VALID", **options}
    rng = np.random.default_rng(0)
    layout = options["dimension_numbers"] == NHWC
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 8)))
    features_in = 8 // options.get("feature_group_count", 1)
    k = jnp.asarray(rng.normal(size=(3, 3, features_in, 8) if layout else (8, 8, 3, 3)))
    run = lambda name: value_and_gradients(lambda x, k: layers.conv_by_name(name)(x, k, **options), x, k)
    assert_close(run(name), run("native"))


@other_convolutions
@pytest.mark.parametrize(
    "wrap", [jax.jit, in_scan, over_kernels, lambda f: in_scan(over_kernels(f))], ids=["jit", "scan", "round", "rounds"]
)
def test_a_few_groups_are_convolved_one_by_one(name, wrap):
    rng = np.random.default_rng(0)
    x, k = jnp.asarray(rng.normal(size=(2, 7, 6, 4))), jnp.asarray(rng.normal(size=(3, 2, 2, 6)))

    def run(name):
        conv = functools.partial(layers.conv_by_name(name), dimension_numbers=NHWC, feature_group_count=2)
        gradients = wrap(lambda x, k: value_and_gradients(lambda x, k: conv(x, k, (2, 1), "SAME"), x, k))
        return gradients(x, k), str(jax.make_jaxpr(gradients)(x, k))

    (got, jaxpr), (want, _) = run(name), run("native")
    assert_close(got, want)
    assert "feature_group_count=2" not in jaxpr  # under `vmap` over three kernels there are three


def test_the_convolution_of_a_platform():
    assert layers.conv_by_name("native") is jax.lax.conv_general_dilated
    assert layers.conv_by_name() is layers.conv_by_name(layers.conv_for(jax.default_backend()))
    assert [layers.conv_for(platform) for platform in ("cpu", "gpu", "tpu")] == ["im2col", "native", "native"]


@pytest.mark.parametrize("size, before", [((9, 9), 0), ((8, 7), 0), ((9, 9), 1), ((8, 7), 1), ((1, 2), 1)])
def test_max_pool_is_pytorchs(size, before):
    """With sizes rounded up, or with padding 1 and sizes rounded down."""
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    x = np.random.default_rng(0).normal(size=(2, *size, 3))
    pool = torch.nn.MaxPool2d(3, 2, padding=before, ceil_mode=not before)
    want = pool(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert_close(layers.max_pool(jnp.asarray(x), before=before), want)


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (8, 8), (7, 5), (2, 3)])
def test_pooling_is_caffes(size):
    """Against loops: windows of 3 with stride 2, as many as ceil((size - 3) / 2) + 1, cut off at the border."""
    x = np.random.default_rng(0).normal(size=(2, *size, 3))
    rows, columns = (int(np.ceil((s - 3) / 2)) + 1 for s in size)
    largest, mean = np.empty((2, rows, columns, 3)), np.empty((2, rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            largest[:, i, j], mean[:, i, j] = window.max(axis=(1, 2)), window.mean(axis=(1, 2))
    assert_close(layers.max_pool(jnp.asarray(x)), largest)
    assert_close(layers.mean_pool(jnp.asarray(x)), mean)


def test_the_gradient_of_max_pool_is_that_of_reduce_window():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 9, 3)))
    window = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    assert_close(value_and_gradients(layers.max_pool, x), value_and_gradients(window, x))


def test_cifar10_quick_has_caffes_size_and_initialisation():
    model = models.Cifar10Quick(rngs=nnx.Rngs(0))
    assert models.count_parameters(model) == 145_578
    _, params = models.functional(model)
    stds = {"conv1": 1e-4, "conv2": 1e-2, "conv3": 1e-2, "dense1": 0.1, "dense2": 0.1}
    for name, std in stds.items():
        assert np.std(params[name]["kernel"]) == pytest.approx(std, rel=0.1)
        assert not np.any(params[name]["bias"])


@other_convolutions
@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1)], ids=["Cifar10Quick", "SmallCnn"])
def test_the_network_does_not_depend_on_the_convolution(name, shape):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, *shape)), jnp.float32)
    network = models.Cifar10Quick if shape == (32, 32, 3) else functools.partial(models.SmallCnn, shape)
    make = lambda conv: models.functional(network(rngs=nnx.Rngs(0), conv=conv))
    apply, params = make(name)
    native, _ = make("native")
    assert_close(apply(params, images), native(params, images), 1e-5)
    uses_jax = "conv_general_dilated" in str(jax.make_jaxpr(jax.grad(lambda p: apply(p, images).sum()))(params))
    assert uses_jax == (name != "im2col")


def test_dropout_follows_the_key():
    apply, params = models.functional(models.SmallCnn((8, 8, 1), dropout=0.5, rngs=nnx.Rngs(0)))
    images = jnp.ones((3, 8, 8, 1))
    out = lambda seed: apply(params, images, key=jax.random.key(seed))
    assert_close(out(1), out(1))
    assert np.any(np.asarray(out(1) != out(2))) and np.any(np.asarray(out(1) != apply(params, images)))
    assert np.any(np.asarray(out(1)[0] != out(1)[1])), "each image has a mask of its own"


def test_the_residual_networks_have_their_papers_sizes():
    """Convolutions without bias, a scale and a bias for each normalised feature, the classes."""
    conv = lambda features, out, size=3: size * size * features * out
    blocks = [(16, 16)] * 3 + [(16, 32)] + [(32, 32)] * 2 + [(32, 64)] + [(64, 64)] * 2
    plain = conv(3, 16) + 2 * 16 + sum(conv(a, b) + conv(b, b) + 4 * b for a, b in blocks) + 64 * 10 + 10
    projections = sum(conv(a, b, 1) + 2 * b for a, b in blocks if a != b)
    assert (plain, plain + projections) == (269_722, 272_474)
    blocks = [(16, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    wide = conv(3, 16) + 2 * 256
    wide += sum(2 * a + conv(a, b) + 2 * b + conv(b, b) + (conv(a, b, 1) if a != b else 0) for a, b in blocks)
    # Shapes do not depend on the images, and need no numbers.
    size = lambda make: models.count_parameters(nnx.eval_shape(lambda: make((32, 32, 3), rngs=nnx.Rngs(0))))
    assert size(models.ResNet20) == plain
    assert size(functools.partial(models.ResNet20, shortcut="projection")) == plain + projections
    for classes in (10, 100):
        sized = size(functools.partial(models.WideResNet16x4, num_classes=classes))
        assert sized == wide + 257 * classes


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_perceptron_is_its_formula(hidden):
    apply, params = models.functional(models.Mlp((2, 3, 1), 4, hidden=hidden, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).normal(size=(7, 2, 3, 1)).astype(np.float32)
    x = images.reshape(7, 6)
    if hidden:
        x = np.maximum(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None], 0)
    assert_close(apply(params, images), x @ params["dense"]["kernel"] + params["dense"]["bias"][None], 1e-6)


def test_functional_parameters_are_the_models():
    model = models.SmallCnn((8, 8, 1), rngs=nnx.Rngs(0))
    apply, params = models.functional(model)
    images = jnp.ones((3, 8, 8, 1))
    assert_close(apply(params, images), model(images))
    doubled = jax.tree.map(lambda p: 2 * p, params)
    assert np.any(np.asarray(apply(doubled, images) != apply(params, images)))
    assert_close(apply(params, images), model(images))  # nothing was changed on the way
    with pytest.raises(
        ValueError, match="only state is its parameters, but this one also has mean, var; use functional_with_state"
    ):
        models.functional(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: models.SmallCnn((1, 1, 1), rngs=nnx.Rngs(0)), r"image_shape\[0\] must be an integer >= 4"),
        (lambda: models.SmallCnn((8, 8, 1), dropout=1.5, rngs=nnx.Rngs(0)), "dropout must be finite and in"),
        (
            lambda: models.SmallCnn((8, 8, 1), rngs=nnx.Rngs(0), conv="im2cal"),
            "conv must be one of 'auto', 'native', 'forward_gradients', 'im2col', got 'im2cal'; did you mean 'im2col'",
        ),
        (lambda: models.Cifar10Quick(rngs=nnx.Rngs(0), conv="natve"), "got 'natve'; did you mean 'native'"),
        (lambda: models.ResNet20((3, 8, 1), rngs=nnx.Rngs(0)), r"image_shape\[0\] must be an integer >= 4"),
        (
            lambda: models.ResNet20((8, 8, 1), statistics_decay=1.1, rngs=nnx.Rngs(0)),
            "statistics_decay must be finite and in",
        ),
        (
            lambda: models.ResNet20((8, 8, 1), shortcut="project", rngs=nnx.Rngs(0)),
            "shortcut must be one of 'identity', 'projection', got 'project'; did you mean 'projection'",
        ),
        (lambda: models.WideResNet16x4((8, 8, 1), dropout=2.0, rngs=nnx.Rngs(0)), "dropout must be finite and in"),
        (
            lambda: models.WideResNet16x4((8, 8, 1), statistics="froze", rngs=nnx.Rngs(0)),
            "statistics must be one of 'batch', 'frozen', got 'froze'; did you mean 'frozen'",
        ),
        (lambda: models.Mlp((8, 8, 1), hidden=-1, rngs=nnx.Rngs(0)), "hidden must be an integer >= 0"),
        (lambda: models.Cifar10Quick(0, rngs=nnx.Rngs(0)), "num_classes must be an integer >= 1"),
        (
            lambda: models.Cifar10Quick(rngs=nnx.Rngs(0))(jnp.zeros((1, 28, 28, 3))),
            r"images must have shape \[n, 32, 32, 3\], got \(1, 28, 28, 3\)",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
