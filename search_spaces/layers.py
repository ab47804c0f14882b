"""The leaf layers every block's network is made of.

All arithmetic of a network happens inside these modules. That is what lets the exporters record a network by
watching their calls, so a block's `net` composes them and does nothing else to its tensors.

Shapes: `x [N, H, W, C]` in float32; vectors per channel are `[N, C]`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.channels import Channels
from search_spaces.initial import drawn
from search_spaces.kernels.depthwise import depthwise

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hard_swish": jax.nn.hard_swish,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "sigmoid": jax.nn.sigmoid,
}
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.9


class Conv(nn.Module):
    """Full or grouped convolution, SAME padding, no bias."""

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        weight = self.param("kernel", drawn("kernel"), shape)
        return lax.conv_general_dilated(
            x,
            weight,
            (self.stride, self.stride),
            "SAME",
            feature_group_count=self.groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Pointwise(nn.Module):
    """1x1 convolution as one matrix product over all pixels, no bias."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("kernel", drawn("kernel"), (x.shape[-1], self.features))
        return (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], self.features)


class Depthwise(nn.Module):
    """`heads` depthwise convolutions of the same input: a tuple of maps `[N, H, W, C]`.

    `channels` says which leading channels are active, `heads_in_use` (traced) how many heads; what is inactive comes
    out as zero and costs next to nothing.
    """

    kernel: int
    stride: int = 1
    heads: int = 1
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self, x: Array, channels: Channels | None = None, heads_in_use: Array | None = None
    ) -> tuple[Array, ...]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.heads)
        weight = self.param("filters", drawn("filters"), shape)
        active = None if channels is None else channels.active
        if heads_in_use is not None and active is None:
            active = jnp.int32(x.shape[-1])
        maps = []
        for head in range(self.heads):
            count = active if heads_in_use is None else jnp.where(head < heads_in_use, active, 0)  # type: ignore[arg-type]
            maps.append(depthwise(x, weight[..., head], self.stride, active=count, implementation=self.implementation))
        return tuple(maps)


class Norm(nn.Module):
    """Batch normalisation over N, H, W.

    Modes: `train` normalises with the batch (and moves the running statistics when they are mutable), `calibrate`
    normalises with the batch and stores its statistics as they are, `eval` uses the stored ones.
    """

    @nn.compact
    def __call__(self, x: Array, mode: str = "eval") -> Array:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,), jnp.float32)
        stored_var = self.variable("batch_stats", "var", jnp.ones, (width,), jnp.float32)
        if mode == "eval":
            mean, var = stored_mean.value, stored_var.value
        elif mode in ("train", "calibrate"):
            mean = x.mean((0, 1, 2))
            var = jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(mean), 0)
            keep = NORM_MOMENTUM if mode == "train" else 0.0
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                stored_mean.value = keep * stored_mean.value + (1 - keep) * mean
                stored_var.value = keep * stored_var.value + (1 - keep) * var
        else:
            raise InputError(f"unknown mode '{mode}': use train, calibrate or eval")
        factor = scale * lax.rsqrt(var + NORM_EPSILON)
        return x * factor + (bias - mean * factor)


class Activation(nn.Module):
    """Pointwise non-linearity, one of `ACTIVATIONS`."""

    function: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return ACTIVATIONS[self.function](x)


class GlobalPool(nn.Module):
    """Mean over all pixels: `[N, H, W, C]` to `[N, C]`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x.mean((1, 2))


class Linear(nn.Module):
    """Fully connected layer with bias on `[N, C]`."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("kernel", drawn("kernel"), (x.shape[-1], self.features))
        return x @ weight + self.param("bias", nn.initializers.zeros, (self.features,))


class ChannelConv(nn.Module):
    """1-D convolution along the channels of `[N, C]`, zero padding, one filter, no bias (ECA).

    Source: Wang et al. 2020, ECA-Net, https://arxiv.org/abs/1910.03151.
    """

    kernel: int = 3

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("channel_filter", drawn("channel_filter"), (self.kernel,))
        # One convolution rather than a sum of shifts: it compiles several times faster inside every branch.
        kernel = weight[:, None, None]
        return lax.conv_general_dilated(x[..., None], kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))[
            ..., 0
        ]


class Scale(nn.Module):
    """Product of a map `[N, H, W, C]` with one number per channel `[N, C]`."""

    @nn.compact
    def __call__(self, x: Array, factor: Array) -> Array:
        return x * factor[:, None, None, :]


class Add(nn.Module):
    """Sum of two maps of the same shape (residual)."""

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        return x + y


class Maximum(nn.Module):
    """Elementwise maximum over the heads in use (max-out); `heads_in_use` is traced or None for all."""

    @nn.compact
    def __call__(self, maps: tuple[Array, ...], heads_in_use: Array | None = None) -> Array:
        largest = maps[0]
        for head, values in enumerate(maps[1:], start=1):
            joined = jnp.maximum(largest, values)
            largest = joined if heads_in_use is None else jnp.where(head < heads_in_use, joined, largest)
        return largest


class Interleave(nn.Module):
    """Vectors of `h` heads `[N, C]` each to one `[N, C * h]` in channel-major order `c * h + head`."""

    @nn.compact
    def __call__(self, vectors: tuple[Array, ...]) -> Array:
        return jnp.stack(vectors, axis=-1).reshape(vectors[0].shape[0], -1)


class Deinterleave(nn.Module):
    """The inverse of `Interleave`."""

    heads: int

    @nn.compact
    def __call__(self, vector: Array) -> tuple[Array, ...]:
        split = vector.reshape(vector.shape[0], -1, self.heads)
        return tuple(split[..., head] for head in range(self.heads))


def residual(x: Array, y: Array, inp: Channels, out: Channels, stride: int, tied: bool) -> Array:
    """`x + y` where both have the same shape, else `y`; call inside a module's compact method.

    In a supernet whose widths are searched the decision is traced: the sum counts only where the active widths agree.
    """
    if stride != 1:
        return y
    if tied or (inp.active is None and out.active is None):
        return Add()(x, y) if inp.size == out.size else y
    same = _active(inp) == _active(out)
    missing = max(0, out.size - inp.size)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))[..., : out.size]
    return Add()(jnp.where(same, x, 0), y)


def _active(channels: Channels) -> Array:
    active = channels.active
    return jnp.int32(channels.size) if active is None else active
