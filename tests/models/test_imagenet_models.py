"""CaffeNet and ResNet-50 against the same networks in PyTorch, their sizes, and how initial weights are drawn."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import assert_close

from asyncflax import models
from asyncflax.models import layers
from asyncflax.train.precision import compute_in


class ShallowResNet(models.ResNet50):
    """A ResNet-50 with all kinds of blocks, and not more."""

    blocks = (2, 1, 1, 1)


shallow = functools.partial(ShallowResNet, (64, 64, 3), 10, rngs=nnx.Rngs(0))


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the oracle is PyTorch")


def sized(network, *arguments, **options):
    return models.count_parameters(nnx.eval_shape(lambda: network(*arguments, rngs=nnx.Rngs(0), **options)))


def generic(tree, seed, low=0.0):
    """Other numbers everywhere, in float64; where there is a lower bound, from there to 1 more."""
    rng = np.random.default_rng(seed)
    change = lambda x: rng.uniform(low, low + 1, x.shape) if low else np.asarray(x) + rng.normal(size=x.shape) / 20
    return jax.tree.map(lambda x: jnp.asarray(change(x)), tree)


def convolve(torch, x, layer, **options):
    kernel = torch.tensor(np.asarray(layer["kernel"])).permute(3, 2, 0, 1)
    bias = torch.tensor(np.asarray(layer["bias"])) if "bias" in layer else None
    return torch.nn.functional.conv2d(x, kernel, bias, **options)


def dense(torch, x, layer):
    return x @ torch.tensor(np.asarray(layer["kernel"])) + torch.tensor(np.asarray(layer["bias"]))


# --- CaffeNet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [199, 224, 227, 230])
def test_caffenet_has_caffes_size(side):
    dense = lambda features, out: features * out + out
    convolutions = dense(11 * 11 * 3, 96) + dense(5 * 5 * 48, 256) + dense(9 * 256, 384)
    convolutions += dense(9 * 192, 384) + dense(9 * 192, 256)
    rest = dense(4096, 4096) + dense(4096, 1000)
    assert convolutions + dense(6 * 6 * 256, 4096) + rest == 60_965_224
    assert sized(models.CaffeNet, (side, side, 3)) == 60_965_224
    assert sized(models.CaffeNet, (231, 198, 3)) == convolutions + dense(7 * 5 * 256, 4096) + rest


def test_caffenet_is_caffes(torch):
    """With images that are not square, and sizes that are rounded up on the way."""
    functional = torch.nn.functional
    model = models.CaffeNet((79, 64, 3), 10, rngs=nnx.Rngs(0))
    apply, params = models.functional(model)
    stds = dict.fromkeys(("conv1", "conv2", "conv3", "conv4", "conv5", "fc8"), 0.01) | {"fc6": 0.005, "fc7": 0.005}
    assert params.keys() == stds.keys()
    for name, std in stds.items():
        assert np.std(params[name]["kernel"]) == pytest.approx(std, rel=0.05)
        assert np.all(params[name]["bias"] == (0 if name in ("conv1", "conv3", "fc8") else 1))
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    images = np.random.default_rng(0).normal(size=(2, 79, 64, 3)) * 50

    def pool(x):
        return functional.max_pool2d(torch.relu(x), 3, 2, ceil_mode=True)

    x = convolve(torch, torch.tensor(images).permute(0, 3, 1, 2), params["conv1"], stride=4)
    x = functional.local_response_norm(pool(x), 5, alpha=1e-4, beta=0.75, k=1.0)
    x = convolve(torch, x, params["conv2"], padding=2, groups=2)
    x = functional.local_response_norm(pool(x), 5, alpha=1e-4, beta=0.75, k=1.0)
    x = torch.relu(convolve(torch, x, params["conv3"], padding=1))
    x = torch.relu(convolve(torch, x, params["conv4"], padding=1, groups=2))
    x = pool(convolve(torch, x, params["conv5"], padding=1, groups=2)).permute(0, 2, 3, 1)
    assert tuple(x.shape) == (2, 2, 1, 256)
    x = x.reshape(2, -1)
    for name in ("fc6", "fc7"):
        x = torch.relu(dense(torch, x, params[name]))
    want = dense(torch, x, params["fc8"]).numpy()
    assert_close(jax.jit(apply)(params, jnp.asarray(images)), want, 1e-9)


@pytest.mark.parametrize("size, alpha, beta, k", [(5, 1e-4, 0.75, 1.0), (3, 2.0, 0.5, 2.0), (9, 0.3, 0.75, 1.0)])
def test_local_response_norm_is_its_equation(size, alpha, beta, k):
    x = np.random.default_rng(0).normal(size=(2, 3, 7)) * 10
    want = np.empty_like(x)
    for i in range(7):
        window = x[..., max(0, i - size // 2) : i + size // 2 + 1]
        want[..., i] = x[..., i] / (k + alpha / size * (window**2).sum(axis=-1)) ** beta
    got = layers.local_response_norm(jnp.asarray(x), size=size, alpha=alpha, beta=beta, k=k)
    assert_close(got, want)
    torch = pytest.importorskip("torch", reason="the other oracle is PyTorch")
    norm = torch.nn.LocalResponseNorm(size, alpha, beta, k)
    assert_close(got, norm(torch.tensor(x).swapaxes(1, 2)).swapaxes(1, 2).numpy())


@pytest.mark.slow
def test_caffenet_drops_what_the_key_says():
    """In a round as alone, so that the width of the rounds does not matter."""
    model = nnx.eval_shape(lambda: models.CaffeNet((39, 39, 3), 3, rngs=nnx.Rngs(0)))
    apply, params = models.functional(model)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0, 0.01, x.shape), x.dtype), params)
    images, keys = jnp.ones((2, 39, 39, 3), jnp.float32), jax.random.split(jax.random.key(0))
    alone = jax.jit(lambda key: apply(params, images, key=key))
    one, other = alone(keys[0]), alone(keys[1])
    assert np.any(np.asarray(one != other)) and np.any(np.asarray(one[0] != one[1]))
    together = jax.jit(jax.vmap(lambda key: apply(params, images, key=key)))(keys)
    assert_close(together, jnp.stack([one, other]), 1e-5)


# --- ResNet-50 -------------------------------------------------------------------------------------------------------


def test_resnet50_has_torchvisions_size():
    norm = lambda features: 2 * features
    size = 49 * 3 * 64 + norm(64)
    features = 64
    for count, inner in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        out = 4 * inner
        size += features * out + norm(out)  # the projection
        for _ in range(count):
            size += features * inner + 9 * inner * inner + inner * out + 2 * norm(inner) + norm(out)
            features = out
    assert size + 2048 * 1000 + 1000 == 25_557_032
    assert sized(models.ResNet50, (224, 224, 3)) == sized(models.ResNet50, (64, 64, 3)) == 25_557_032
    assert sized(models.ResNet50, (64, 64, 3), 10) == size + 20_490


def torch_resnet(torch, params, state, images, training):
    """A ResNet as torchvision has it, (logits, statistics); its variances are those of the batch, as ours are."""
    statistics = jax.tree.map(lambda x: torch.tensor(np.asarray(x)), state)
    at = lambda tree, path: functools.reduce(lambda part, name: part[name], path, tree)

    def conv(x, *path, stride=1):
        size = at(params, path)["kernel"].shape[0]
        return convolve(torch, x, at(params, path), stride=stride, padding=size // 2)

    def norm(x, *path):
        kept, layer = at(statistics, path), at(params, path)
        scale, bias = (torch.tensor(np.asarray(layer[name])) for name in ("scale", "bias"))
        before, pixels = kept["var"].clone(), x.numel() / x.shape[1]
        y = torch.nn.functional.batch_norm(x, kept["mean"], kept["var"], scale, bias, training, 0.1, 1e-5)
        if training:
            kept["var"] = 0.9 * before + (kept["var"] - 0.9 * before) * (pixels - 1) / pixels
        return y

    x = conv(torch.tensor(images).permute(0, 3, 1, 2), "conv", stride=2)
    x = torch.nn.functional.max_pool2d(torch.relu(norm(x, "norm")), 3, 2, padding=1)
    for name in sorted(name for name in params if name.startswith("stage")):
        stride = 2 if name.endswith("block1") and name != "stage1_block1" else 1
        y = torch.relu(norm(conv(x, name, "conv1"), name, "norm1"))
        y = torch.relu(norm(conv(y, name, "conv2", stride=stride), name, "norm2"))
        y = norm(conv(y, name, "conv3"), name, "norm3")
        if "shortcut_conv" in params[name]:
            x = norm(conv(x, name, "shortcut_conv", stride=stride), name, "shortcut_norm")
        x = torch.relu(x + y)
    logits = dense(torch, x.mean(dim=(2, 3)), params["dense"])
    return logits.numpy(), jax.tree.map(lambda x: x.numpy(), statistics)


def test_resnet50_is_torchvisions(torch):
    apply, params, model_state = models.functional_with_state(shallow())
    params, model_state = generic(params, 0), generic(model_state, 1, low=0.5)
    images = np.random.default_rng(2).normal(size=(2, 64, 64, 3))
    both = jax.jit(lambda *arguments: (apply(*arguments)[0], *apply(*arguments, key=jax.random.key(0))))
    evaluated, logits, update = both(params, model_state, jnp.asarray(images))
    assert_close(evaluated, torch_resnet(torch, params, model_state, images, training=False)[0], 1e-8)
    want, statistics = torch_resnet(torch, params, model_state, images, training=True)
    assert_close(logits, want, 1e-8)
    assert_close(update.apply(model_state), statistics, 1e-8)


@pytest.mark.parametrize("zero_init", [False, True])
def test_initial_weights_of_resnet50(zero_init):
    params = models.functional_with_state(shallow(zero_init=zero_init))[1]
    for name in ("stage1_block1", "stage1_block2", "stage4_block1"):
        block = params[name]
        scales = [float(s) for norm in ("norm1", "norm2", "norm3") for s in np.unique(block[norm]["scale"])]
        assert scales == [1, 1, 0 if zero_init else 1]
    for name, fan_out in (("conv1", 512), ("conv2", 9 * 512), ("conv3", 2048), ("shortcut_conv", 2048)):
        assert np.std(block[name]["kernel"]) == pytest.approx(np.sqrt(2 / fan_out), rel=0.05)
    assert np.std(params["dense"]["kernel"]) == pytest.approx(0.01, rel=0.05) and not np.any(params["dense"]["bias"])


# --- Both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [models.CaffeNet, ShallowResNet])
def test_in_bfloat16_what_stays_is_float32(network):
    model = nnx.eval_shape(lambda: network((64, 64, 3), 10, rngs=nnx.Rngs(0)))
    apply, params, model_state = models.functional_with_state(model)
    half = compute_in("bfloat16", apply)

    def loss(params, model_state, images):
        logits, update = half(params, model_state, images, key=jax.random.key(0))
        return logits.sum(), (logits, update and update.increment)

    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    kept = jax.eval_shape(jax.grad(loss, has_aux=True), params, model_state, images)
    assert {x.dtype for x in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert (model_state is None) == (kept[1][1] is None) == (network is models.CaffeNet)


def test_bfloat16_is_close():
    x = jax.random.normal(jax.random.key(0), (2, 3, 8), jnp.float32) * 100
    half = layers.local_response_norm(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), layers.local_response_norm(x), rtol=0.03)
    apply, params, model_state = models.functional_with_state(shallow())
    images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3), jnp.float32)
    run = lambda precision: jax.jit(compute_in(precision, apply))(params, model_state, images)[0]
    np.testing.assert_allclose(run("bfloat16"), run("float32"), atol=0.05 * float(np.std(run("float32"))))


OLD_AND_NEW = """
import jax, numpy as np
from flax import nnx
from asyncflax import models
make, arguments, key = models.{name}, {arguments}, jax.random.key(3)
old, new = make(**arguments, rngs=nnx.Rngs(key)), models.initialized(make, key, **arguments)
assert nnx.graphdef(old) == nnx.graphdef(new)
jax.tree.map(np.testing.assert_array_equal, nnx.state(old), nnx.state(new))
"""


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("SmallCnn", {"image_shape": (8, 8, 1)}),
        pytest.param("Cifar10Quick", {}, marks=pytest.mark.slow),
        pytest.param("ResNet20", {"image_shape": (32, 32, 3)}, marks=pytest.mark.slow),
        pytest.param("WideResNet16x4", {"image_shape": (32, 32, 3), "num_classes": 100}, marks=pytest.mark.slow),
    ],
)
def test_weights_drawn_by_one_program_are_the_same_bit_by_bit(name, arguments):
    """As users have it: not compiled as these tests are."""
    code = OLD_AND_NEW.format(name=name, arguments=arguments)
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_other_keys_share_the_program_that_draws():
    arguments = {"image_shape": (8, 8, 1), "num_classes": 7}
    traced = []

    def network(**arguments):
        traced.append(arguments)
        return models.Mlp(**arguments)

    one, two = (models.initialized(network, jax.random.key(seed), **arguments) for seed in (0, 1))
    assert np.any(np.asarray(one.dense.kernel[...] != two.dense.kernel[...]))
    assert len(traced) == 3, "twice for the shapes, once for the program"


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: models.CaffeNet((38, 64, 3), rngs=nnx.Rngs(0)),
            r"image_shape\[0\] must be an integer >= 39, got image_shape\[0\]=38",
        ),
        (lambda: models.CaffeNet((64, 32, 3), rngs=nnx.Rngs(0)), r"image_shape\[1\] must be an integer >= 39"),
        (
            lambda: models.CaffeNet((64, 64, 3, 1), rngs=nnx.Rngs(0)),
            r"image_shape must be \(height, width, channels\), got \(64, 64, 3, 1\)",
        ),
        (lambda: models.CaffeNet((64, 64), rngs=nnx.Rngs(0)), r"image_shape must be \(height, width, channels\), got"),
        (lambda: models.CaffeNet((64, 64, 3), dropout=-0.1, rngs=nnx.Rngs(0)), "dropout must be finite and in"),
        (lambda: models.ResNet50((64, 3, 3), rngs=nnx.Rngs(0)), r"image_shape\[1\] must be an integer >= 4"),
        (
            lambda: models.ResNet50((64, 64, 3), statistics="froze", rngs=nnx.Rngs(0)),
            "statistics must be one of 'batch', 'frozen', got 'froze'; did you mean 'frozen'",
        ),
        (lambda: layers.local_response_norm(jnp.ones(3), size=4), "size must be odd, got size=4"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
