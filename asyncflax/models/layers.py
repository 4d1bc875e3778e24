"""Convolution and pooling that are fast inside loops and on several cores, with Caffe's geometry.

XLA:CPU computes the gradients of a convolution many times slower inside a loop than outside, because there it does not
recognise their unusual layouts, and under `vmap` over kernels it computes grouped convolutions one by one. `loop_conv`
gathers the windows into a matrix and multiplies (im2col), which is fast in both; it is the same function and can be
given to `flax.nnx.Conv`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NHWC = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, padding: tuple[tuple[int, int], ...]) -> jax.Array:
    rows, columns, features_in, features = kernel.shape
    windows = _windows(x, (rows, columns), padding)
    out = windows.reshape(-1, rows * columns * features_in) @ kernel.reshape(-1, features)
    return out.reshape(*windows.shape[:3], features)


def _windows(x: jax.Array, size: tuple[int, int], padding: tuple[tuple[int, int], ...]) -> jax.Array:
    """[n, h, w, c] -> [n, h', w', rows * columns * c]: for every output pixel what the kernel sees."""
    sides = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), sides)  # which also cuts, where a padding is negative
    height, width = (have - k + 1 for have, k in zip(padded.shape[1:3], size, strict=True))
    slices = [padded[:, i : i + height, j : j + width] for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate(slices, axis=-1)


def _conv_fwd(x, kernel, padding):
    return _conv(x, kernel, padding), (x, kernel)


def _conv_bwd(padding, residuals, cotangent):
    x, kernel = residuals
    size = kernel.shape[:2]
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)  # HWIO -> HWOI
    back = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(size, padding, strict=True))
    dx = _conv(cotangent, flipped, back)
    # Gathered again rather than kept: cheaper than the memory traffic.
    windows = _windows(x, size, padding)
    columns = windows.reshape(-1, windows.shape[-1])
    return dx, (columns.T @ cotangent.reshape(-1, kernel.shape[-1])).reshape(kernel.shape)


_conv.defvjp(_conv_fwd, _conv_bwd)


def loop_conv(
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
    """`jax.lax.conv_general_dilated` with gradients that are fast in loops on CPUs.

    Args: those of `jax.lax.conv_general_dilated`. What is special-cased is a two-dimensional convolution of images NHWC
      with kernels HWIO, stride 1, no dilation, one group, no further options; everything else goes to JAX as it is.

    Returns:
      the convolution, and through `jax.grad` the same gradients up to rounding. Forward-mode derivatives (`jax.jvp`,
      `jax.hessian`) are not defined; take `jax.lax.conv_general_dilated` for those.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from asyncflax.models.layers import loop_conv
      >>> numbers = ("NHWC", "HWIO", "NHWC")
      >>> loop_conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), (1, 1), "SAME", dimension_numbers=numbers).shape
      (1, 4, 4, 5)
    """
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        lhs.ndim == 4
        and numbers == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _NHWC)
        and set(window_strides) == {1}
        and set(lhs_dilation or (1,)) == set(rhs_dilation or (1,)) == {1}
        and feature_group_count == 1
        and all(value is None or (name, value) == ("batch_group_count", 1) for name, value in options.items())
    )
    if not plain:
        return jax.lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, numbers, feature_group_count, **options
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    return _conv(lhs, rhs, tuple((int(low), int(high)) for low, high in padding))


def conv_for(platform: str | None = None) -> Any:
    """The convolution to give to `flax.nnx.Conv` on a platform ('cpu', 'gpu', ...; by default where JAX runs).

    >>> from asyncflax.models import layers
    >>> layers.conv_for("cpu") is layers.loop_conv, layers.conv_for("gpu") is layers.loop_conv
    (True, False)
    """
    return loop_conv if (platform or jax.default_backend()) == "cpu" else jax.lax.conv_general_dilated


def max_pool(x: jax.Array) -> jax.Array:
    """Caffe's maximum over windows of 3x3 with stride 2: [n, h, w, c] -> [n, ceil((h-1)/2), ceil((w-1)/2), c].

    Caffe rounds sizes up; windows at the border are cut off there. Two maxima a side of strided slices; where the
    maximum is attained more than once, they share the gradient.

    >>> import jax.numpy as jnp
    >>> from asyncflax.models.layers import max_pool
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[10., 11.],
           [14., 15.]], dtype=float32)
    """
    for axis in (1, 2):
        first, second, third = _thirds(x, axis, -jnp.inf)
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def mean_pool(x: jax.Array) -> jax.Array:
    """Caffe's mean over windows of 3x3 with stride 2, of the pixels that a window has: sizes as in `max_pool`.

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
    """How many windows of 3 with stride 2 there are along a side, rounded up."""
    return -(-(size - 1) // 2)


def _thirds(x: jax.Array, axis: int, fill: float) -> list[jax.Array]:
    """The first, second and third elements of all windows of 3 with stride 2 along an axis."""
    count = pooled_size(x.shape[axis])
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, 2 * count + 1 - x.shape[axis])
    x = jnp.pad(x, padding, constant_values=fill)
    return [jax.lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(3)]
