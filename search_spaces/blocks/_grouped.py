"""A grouped convolution whose groups depend on searched widths, for supernets only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from search_spaces.channels import Channels, is_soft
from search_spaces.layers import bias_like, operands

if TYPE_CHECKING:
    from search_spaces.rounding import Rounding


class ElasticGroups(nn.Module):
    """A convolution in which a group has `inputs` and `outputs` channels, as traced; its variables are those of `Conv`.

    Computed densely, with zeros between the groups: its cost is that of the dense convolution. A network whose widths
    are decided has the grouped convolution itself.
    """

    features: int
    kernel: int
    stride: int
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array, inputs: Channels, outputs: Channels, rounding: Rounding | None = None) -> Array:
        shape = (self.kernel, self.kernel, inputs.size, self.features)
        x, weight = operands(self, x, "kernel", shape, rounding)
        index, pairs = inputs.index, tuple(zip(inputs.values, outputs.values, strict=True))
        assert index is not None
        if is_soft(index):
            shares: dict[tuple[int, int], Any] = {}
            for position, pair in enumerate(pairs):
                shares[pair] = shares.get(pair, 0) + index[position]
            dense = sum(share * _spread(weight, x.shape[-1], *pair) for pair, share in shares.items())
        else:
            dense = _spread(weight, x.shape[-1], *jnp.asarray(pairs)[index])
        strides = (self.stride, self.stride)
        y = lax.conv_general_dilated(
            x, dense.astype(x.dtype), strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias_like(self, self.features, y) if self.bias else y


def _spread(weight: Array, channels: int, inputs: Any, outputs: Any) -> Array:
    """Grouped weights `[kh, kw, inputs, K]` as dense ones `[kh, kw, channels, K]`."""
    first = jnp.arange(weight.shape[-1]) // outputs * inputs
    place = jnp.arange(channels)[:, None] - first
    inside = (place >= 0) & (place < inputs)
    picked = jnp.take_along_axis(weight, jnp.clip(place, 0, weight.shape[2] - 1)[None, None], axis=2)
    return jnp.where(inside, picked, 0)
