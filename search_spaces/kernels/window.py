"""The window of a filter that is in use: the centre of a larger one, its size traced."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def windowed(w: Array, kernel: Array | int | None, shape: tuple[int, ...], stride: int) -> Array:
    """Filters `[k, k, ...]` with zeros outside their centre of `kernel` x `kernel` taps; all of them without `kernel`.

    They are moved so that SAME padding for all taps is right for those in use, on images of `shape` `[N, H, W, C]`: the
    result of the convolution is that of the cut-out filters.

    Example:
        >>> windowed(jnp.ones((3, 3, 1)), 1, (1, 4, 4, 1), 1)[..., 0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if kernel is None:
        return w
    size = w.shape[0]
    taps = jnp.arange(size)
    margin = (size - kernel) // 2

    def shifted(in_size: int) -> Array:
        reach = (-(-in_size // stride) - 1) * stride - in_size
        before = jnp.maximum(reach + kernel, 0) // 2
        # tap `margin` of the window meets pixel -before; all filters start at pixel -(padding of the largest)
        return max(reach + size, 0) // 2 - before

    rows, columns = shifted(shape[1]), shifted(shape[2])
    row, column = taps - rows + margin, taps - columns + margin
    inside_row = (taps >= rows) & (taps < rows + kernel)
    inside_column = (taps >= columns) & (taps < columns + kernel)
    moved = jnp.take(jnp.take(w, jnp.clip(row, 0, size - 1), axis=0), jnp.clip(column, 0, size - 1), axis=1)
    inside = inside_row[:, None] & inside_column[None, :]
    return jnp.where(inside.reshape(size, size, *(1,) * (w.ndim - 2)), moved, jnp.zeros((), w.dtype))
