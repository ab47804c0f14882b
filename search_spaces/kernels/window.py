"""The window of a filter that is in use: the centre of a larger one, its size traced."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Window:
    """Which of several odd sizes `values` of the taps is in use: `index` is traced, an int32 or a share for each.

    Shares (relaxed execution) mix the filters: convolution is linear in them, so that it mixes the results.

    Example:
        >>> Window((3, 5, 7), jnp.int32(1)).active.item()
        5
    """

    values: tuple[int, ...]
    index: Array

    @property
    def soft(self) -> bool:
        """Whether sizes are mixed."""
        return jnp.ndim(self.index) > 0

    @property
    def active(self) -> Array:
        """The size in use, int32 `[]`."""
        return jnp.asarray(self.values, jnp.int32)[self.index]

    def applied(self, w: Array, shape: tuple[int, ...], stride: int) -> Array:
        """The filters `[k, k, ...]` that have the effect of the size in use, or of the mixture; see `windowed`."""
        if not self.soft:
            return windowed(w, self.active, shape, stride)
        parts = [windowed(w, size, shape, stride) for size in self.values]
        return sum(share * part for share, part in zip(self.index.astype(w.dtype), parts, strict=True))


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
