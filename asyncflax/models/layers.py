"""Caffe's convolution, pooling and local response normalisation, fast inside loops and on several cores.

Convolutions are selected by name (`conv_by_name`). All implementations compute the same function and gradients up to
rounding, and can be passed to `flax.nnx.Conv`:

    'native'              `jax.lax.conv_general_dilated`
    'forward_gradients'   its gradients expressed as convolutions with the standard layout
    'im2col'              windows gathered into a matrix, and matrix products
    'auto'                the fastest on JAX's backend, see `conv_for`

XLA:CPU computes the gradients of a native convolution many times slower inside a loop than outside, because it does not
recognise their unusual layouts there, and under `vmap` over kernels it runs grouped convolutions one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asyncflax import _check, _memory

_NHWC = ("NHWC", "HWIO", "NHWC")
_FEW_GROUPS = 4  # computed one by one up to this number
_Padding = tuple[tuple[int, int], ...]
_Strides = tuple[int, ...]
ImageShape = tuple[int, int, int]  # height, width, channels


class _Way(NamedTuple):
    """An implementation of the plain case: two dimensions, NHWC and HWIO, any strides."""

    forward: Callable[..., jax.Array]  # (x, kernel, padding, strides)
    kernel_gradient: Callable[..., jax.Array]  # (conv, x, cotangent, size, padding, strides); conv has stride 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _conv(
    x: jax.Array, kernel: jax.Array, padding: _Padding, strides: _Strides, way: _Way, precision: str | None
) -> jax.Array:
    with jax.default_matmul_precision(precision):  # JAX may trace this after the caller's context has exited
        return way.forward(x, kernel, padding, strides)


def _conv_fwd(x, kernel, padding, strides, way, precision):
    return _conv(x, kernel, padding, strides, way, precision), (x, kernel)


def _conv_bwd(padding, strides, way, precision, residuals, cotangent):
    x, kernel = residuals
    conv = lambda x, kernel, padding: _conv(x, kernel, padding, (1, 1), way, precision)
    size = kernel.shape[:2]
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)  # HWIO -> HWOI
    # Pixels skipped by a stride become zeros; the padding restores the size of x.
    spread = _spread(cotangent, strides)
    back = tuple(
        (k - 1 - low, have - out + low)
        for k, (low, _), have, out in zip(size, padding, x.shape[1:3], spread.shape[1:3], strict=True)
    )
    with jax.default_matmul_precision(precision):
        return conv(spread, flipped, back), way.kernel_gradient(conv, x, cotangent, size, padding, strides)


_conv.defvjp(_conv_fwd, _conv_bwd)


def _spread(x: jax.Array, strides: _Strides) -> jax.Array:
    """[n, h, w, c] with strides - 1 zeros between two pixels."""
    if strides == (1, 1):
        return x
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((0, 0, stride - 1) for stride in strides), (0, 0, 0)])


def _forward(x: jax.Array, kernel: jax.Array, padding: _Padding, strides: _Strides) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


def _forward_kernel_gradient(
    conv: Any, x: jax.Array, cotangent: jax.Array, size: Any, padding: _Padding, strides: _Strides
) -> jax.Array:
    spread = _spread(cotangent, strides)
    # Omits padding on the far side that no strided window covers.
    sides = tuple(
        (low, k - 1 + out - have - low)
        for k, (low, _), have, out in zip(size, padding, x.shape[1:3], spread.shape[1:3], strict=True)
    )
    # Swaps images and input channels: C H W N, convolved with H W N O.
    return conv(x.transpose(3, 1, 2, 0), spread.transpose(1, 2, 0, 3), sides).transpose(1, 2, 0, 3)


def _product(x: jax.Array, kernel: jax.Array, padding: _Padding, strides: _Strides) -> jax.Array:
    windows = _windows(x, kernel.shape[:2], padding, strides)
    out = windows.reshape(-1, windows.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return out.reshape(*windows.shape[:3], kernel.shape[-1])


def _product_kernel_gradient(
    conv: Any, x: jax.Array, cotangent: jax.Array, size: Any, padding: _Padding, strides: _Strides
) -> jax.Array:
    del conv
    windows = _windows(x, size, padding, strides)  # recomputed rather than stored: cheaper than the memory traffic
    columns = windows.reshape(-1, windows.shape[-1])
    features = cotangent.shape[-1]
    return (columns.T @ cotangent.reshape(-1, features)).reshape(*size, x.shape[-1], features)


def _windows(x: jax.Array, size: Any, padding: _Padding, strides: _Strides) -> jax.Array:
    """[n, h, w, c] -> [n, h', w', rows * columns * c]: the window of every output pixel."""
    sides = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), sides)  # negative padding crops
    n, c = x.shape[0], x.shape[-1]
    # The span from the first window's pixel to the same pixel of the last window.
    height, width = (
        (have - k) // stride * stride + 1 for have, k, stride in zip(padded.shape[1:3], size, strides, strict=True)
    )
    slices = [
        jax.lax.slice(padded, (0, i, j, 0), (n, i + height, j + width, c), (1, *strides, 1))
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.concatenate(slices, axis=-1)


def _general(
    way: _Way,
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with another implementation of the plain case."""
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        lhs.ndim == 4
        and numbers == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _NHWC)
        and set(lhs_dilation or (1,)) == set(rhs_dilation or (1,)) == {1}
        and feature_group_count <= _FEW_GROUPS
        and all(value is None or (name, value) == ("batch_group_count", 1) for name, value in options.items())
    )
    if not plain:
        return jax.lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, numbers, feature_group_count, **options
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    sides = tuple((int(low), int(high)) for low, high in padding)
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    one = lambda x, kernel: _conv(x, kernel, sides, tuple(map(int, window_strides)), way, precision)
    if feature_group_count == 1:
        return one(lhs, rhs)
    groups = (jnp.split(array, feature_group_count, axis=-1) for array in (lhs, rhs))
    return jnp.concatenate([one(x, kernel) for x, kernel in zip(*groups, strict=True)], axis=-1)


CONVOLUTIONS: dict[str, Callable[..., jax.Array]] = {
    "native": jax.lax.conv_general_dilated,
    "forward_gradients": functools.partial(_general, _Way(_forward, _forward_kernel_gradient)),
    "im2col": functools.partial(_general, _Way(_product, _product_kernel_gradient)),
}
"""The convolutions by name."""


def checked_classes(num_classes: int, features: int) -> int:
    """The number of classes; raises if the output layer does not fit into memory."""
    num_classes = _check.integer("num_classes", num_classes, 1)
    _memory.need_rows("num_classes", num_classes, num_classes, jax.ShapeDtypeStruct((features + 1,), "float32"))
    return num_classes


def image_sides(image_shape: Any, *least: int) -> ImageShape:
    """(height, width, channels), each at least the given minimum."""
    sides = _check.integers("image_shape", image_shape, 1)
    if len(sides) != 3:
        raise ValueError(f"image_shape must be (height, width, channels), got {_check.shown(image_shape)}.")
    for i, low in enumerate(least):
        _check.integer(f"image_shape[{i}]", sides[i], low)
    return sides[0], sides[1], sides[2]


def conv_by_name(name: str = "auto") -> Callable[..., jax.Array]:
    """A convolution for `flax.nnx.Conv`, with the arguments of `jax.lax.conv_general_dilated`.

    'forward_gradients' and 'im2col' implement two-dimensional convolutions of NHWC images with HWIO kernels, any
    strides and padding, no dilation, and up to four feature groups; all others fall back to JAX. They do not support
    forward-mode differentiation (`jax.jvp`, `jax.hessian`).

    Args:
      name: see the module.

    Example:
      >>> import jax.numpy as jnp
      >>> from asyncflax.models import layers
      >>> conv, numbers = layers.conv_by_name("im2col"), ("NHWC", "HWIO", "NHWC")
      >>> conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), (1, 1), "SAME", dimension_numbers=numbers).shape
      (1, 4, 4, 5)
    """
    _check.choice("conv", name, ("auto", *CONVOLUTIONS))
    return CONVOLUTIONS[conv_for() if name == "auto" else name]


def conv_for(platform: str | None = None) -> str:
    """The name of the fastest convolution on a platform ('cpu', 'gpu', ...), by default JAX's backend.

    Measured with `benchmarks/convolutions.py` on two cores of a CPU (AMD EPYC, jax 0.10.2) beside other work: CPU
    milliseconds per gradient of cifar10_quick at batch 32, in a loop.

        width of the rounds     native   forward_gradients   im2col
        1                        1,600                  55      100
        4, by `vmap`             1,800                 300      125

    Hence the choice of 'im2col' on CPUs, for rounds and sweeps. For single gradients it takes more CPU time than
    'forward_gradients', but uses all cores instead of one. GPUs have not been measured; on them, as on all other
    platforms, the choice is 'native'.

    Example:
      >>> from asyncflax.models import layers
      >>> layers.conv_for("cpu"), layers.conv_for("gpu")
      ('im2col', 'native')
    """
    return "im2col" if (platform or jax.default_backend()) == "cpu" else "native"


def max_pool(x: jax.Array, *, before: int = 0) -> jax.Array:
    """Caffe's maximum over windows of 3x3 with stride 2: [n, h, w, c] -> [n, ceil((h-1)/2), ceil((w-1)/2), c].

    Caffe rounds sizes up and truncates windows at the border. With `before` = 1 the windows start one pixel before the
    image, as in PyTorch with padding 1: [n, ceil(h/2), ceil(w/2), c]. Computed from strided slices; tied maxima share
    the gradient.

    >>> import jax.numpy as jnp
    >>> from asyncflax.models.layers import max_pool
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[10., 11.],
           [14., 15.]], dtype=float32)
    """
    for axis in (1, 2):
        first, second, third = _thirds(x, axis, -jnp.inf, before)
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def mean_pool(x: jax.Array) -> jax.Array:
    """Caffe's mean over the pixels of 3x3 windows with stride 2; sizes as in `max_pool`.

    >>> import jax.numpy as jnp
    >>> from asyncflax.models.layers import mean_pool
    >>> mean_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[ 5. ,  6.5],
           [11. , 12.5]], dtype=float32)
    """
    for axis in (1, 2):
        size = x.shape[axis]
        inside = jnp.asarray(np.minimum(size - 2 * np.arange(pooled_size(size)), 3), x.dtype)
        shape = [1, 1, 1, 1]
        shape[axis] = len(inside)
        first, second, third = _thirds(x, axis, 0.0)
        x = (first + second + third) / inside.reshape(shape)
    return x


def pooled_size(size: int) -> int:
    """The number of windows of 3 with stride 2 along a side, rounded up."""
    return -(-(size - 1) // 2)


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    r"""Local response normalisation across features, as in Caffe and PyTorch: [..., c] -> [..., c].

    .. math:: b_i = a_i \Big/ \Big(k + \frac{\alpha}{n} \sum_{j = i - m}^{i + m} a_j^2\Big)^\beta

    with `size` n = 2 m + 1, which is odd. Features beyond the ends are 0. Krizhevsky et al. 2012, section 3.3, do not
    divide alpha by n, and have k = 2; the defaults are those of Caffe.

    Source: A. Krizhevsky, I. Sutskever, G. Hinton 2012, ImageNet Classification with Deep Convolutional Neural
    Networks, section 3.3.

    Example:
      >>> import jax.numpy as jnp
      >>> from asyncflax.models.layers import local_response_norm
      >>> local_response_norm(jnp.array([3.0, 0.0, 4.0]), size=3, alpha=3.0, beta=0.5, k=0.0)
      Array([1., 0., 1.], dtype=float32)
    """
    _check.integer("size", size, 1)
    if size % 2 == 0:
        raise ValueError(f"size must be odd, got size={size}.")
    sides = [(0, 0)] * (x.ndim - 1) + [(size // 2, size // 2)]
    squares = jnp.pad(x * x, sides)
    total = sum(jax.lax.slice_in_dim(squares, i, i + x.shape[-1], axis=-1) for i in range(size))
    return x * (k + alpha / size * total) ** -beta


def _thirds(x: jax.Array, axis: int, fill: float, before: int = 0) -> list[jax.Array]:
    """The first, second and third elements of all windows of 3 with stride 2 along an axis."""
    size = before + x.shape[axis]
    count = pooled_size(size)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, 2 * count + 1 - size)
    x = jnp.pad(x, padding, constant_values=fill)
    return [jax.lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(3)]
