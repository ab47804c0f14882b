"""What quantizers measure of an array before they round it; constants to the gradient.

Shapes: as in `_quantizer.py`; every result has the shape of `x` with `axes` of length 1, in float32 at least. Where no
entry counts it is 0.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax


def constant(x: Array) -> Array:
    """`x` in float32 at least, without a gradient.

    Example:
        >>> constant(jnp.ones(2, jnp.bfloat16)).dtype.name
        'float32'
    """
    return lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def largest(x: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """The largest absolute value.

    Example:
        >>> largest(jnp.asarray([1.0, -3.0, 9.0]), (0,), jnp.asarray([True, True, False])).tolist()
        [3.0]
    """
    return jnp.max(jnp.abs(constant(x)), axes, keepdims=True, initial=0, where=where)


def extremes(x: Array, axes: tuple[int, ...], where: Array | None = None) -> tuple[Array, Array]:
    """The smallest and the largest value.

    Example:
        >>> [value.tolist() for value in extremes(jnp.asarray([1.0, -3.0, 9.0]), (0,))]
        [[-3.0], [9.0]]
    """
    x = constant(x)
    low = jnp.min(x, axes, keepdims=True, initial=jnp.inf, where=where)
    high = jnp.max(x, axes, keepdims=True, initial=-jnp.inf, where=where)
    some = high >= low
    return jnp.where(some, low, 0), jnp.where(some, high, 0)


def number(x: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """How many entries share a scale, at least 1.

    Example:
        >>> number(jnp.ones((3, 4)), (1,)).tolist()
        [[4.0], [4.0], [4.0]]
    """
    if where is None:
        shape = tuple(1 if axis in _positive_axes(x, axes) else size for axis, size in enumerate(x.shape))
        return jnp.full(shape, max(math.prod(x.shape[axis] for axis in axes), 1), jnp.float32)
    counted = jnp.broadcast_to(where, x.shape).astype(jnp.float32)
    return jnp.maximum(jnp.sum(counted, axes, keepdims=True), 1)


def gradient_scale(x: Array, axes: tuple[int, ...], where: Array | None, most: Array, batch: bool) -> Array:
    """`1 / sqrt(n q)` for the gradient of what is learned, the sum over the `n` entries of `x` that share it.

    So it moves by about the same share of itself as the weights do. `most` is `q`, the largest code. With `batch` the
    leading axis of `x` is that of images, which are averaged over and do not count.

    Source: Esser et al. 2020 (LSQ), https://arxiv.org/abs/1902.08153, section 2.2.

    Example:
        >>> x, most = jnp.ones((4, 4)), jnp.float32(4)
        >>> [gradient_scale(x, (0, 1), None, most, batch).item() for batch in (False, True)]
        [0.125, 0.25]
    """
    shared = number(x, axes, where)
    if batch and 0 in axes:
        shared = jnp.maximum(shared / x.shape[0], 1)
    return 1 / jnp.sqrt(shared * most)


def _positive_axes(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis % x.ndim for axis in axes)


def mean(x: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """The mean.

    Example:
        >>> mean(jnp.asarray([1.0, -3.0, 9.0]), (0,), jnp.asarray([True, True, False])).tolist()
        [-1.0]
    """
    return jnp.sum(constant(x), axes, keepdims=True, where=where) / number(x, axes, where)


def mean_abs(x: Array, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """The mean absolute value, which is also the scale of least squared error for the signs of `x`.

    Source: Rastegari et al. 2016, https://arxiv.org/abs/1603.05279, equation 6.

    Example:
        >>> mean_abs(jnp.asarray([1.0, -3.0]), (0,)).tolist()
        [2.0]
    """
    return mean(jnp.abs(x), axes, where)


def positive(scale: Array) -> Array:
    """`scale`, or 1 where it is 0, so that it can divide.

    Example:
        >>> positive(jnp.asarray([0.0, 0.5])).tolist()
        [1.0, 0.5]
    """
    return jnp.where(scale > 0, scale, 1.0)
