"""The leaf layers every block's network is made of.

All arithmetic of a frozen network happens inside these modules and those of `search_spaces/normalisation.py` and
`rearrange.py`. That is what lets the exporters record a network by watching their calls, so a block's `net` composes
them and does nothing else to its tensors; only a supernet masks and selects besides.

Shapes: `x [N, H, W, C]`; vectors per channel are `[N, C]`. A layer computes in the type of `x`, float32 or bfloat16,
and returns it; weights and the statistics of normalisation are float32 in either case. Some zero-cost proxies run in
float64 throughout. Layers with weights round their input and weights first where they are given a `rounding`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.channels import Channels
from search_spaces.initial import parameter
from search_spaces.kept import keep
from search_spaces.kernels.depthwise import depthwise, depthwise_moments, largest_depthwise
from search_spaces.kernels.frame import at_once, settled
from search_spaces.kernels.window import Window
from search_spaces.quantizers.noise import with_noise
from search_spaces.rearrange import FitChannels

if TYPE_CHECKING:
    from search_spaces.rounding import Rounding

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hard_swish": jax.nn.hard_swish,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
}


class Conv(nn.Module):
    """Full or grouped convolution, padding `same` or `valid`; bias only where asked for.

    `window` (padding `same` only) says which taps are in use, the centre of the kernel.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    padding: str = "same"
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array, window: Window | None = None, rounding: Rounding | None = None) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        x, weight = operands(self, x, "kernel", shape, rounding)
        weight = weight if window is None else window.applied(weight, x.shape, self.stride)
        y = keep(
            lax.conv_general_dilated(
                x,
                weight.astype(x.dtype),
                (self.stride, self.stride),
                self.padding.upper(),
                feature_group_count=self.groups,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        )
        return y + bias_like(self, self.features, y) if self.bias else y


class Pointwise(nn.Module):
    """1x1 convolution as one matrix product over all pixels, no bias."""

    features: int

    @nn.compact
    def __call__(self, x: Array, rounding: Rounding | None = None) -> Array:
        x, weight = operands(self, x, "kernel", (x.shape[-1], self.features), rounding)
        return keep((x.reshape(-1, x.shape[-1]) @ weight.astype(x.dtype)).reshape(*x.shape[:-1], self.features))


class Depthwise(nn.Module):
    """`heads` depthwise convolutions of the same input: a tuple of maps `[N, H, W, C]`.

    `channels` says which leading channels are active, `heads_in_use` (traced) how many heads; what is inactive comes
    out as zero and costs next to nothing. `window` says which taps are in use, the kernel's centre.
    """

    kernel: int
    stride: int = 1
    heads: int = 1
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Array,
        channels: Channels | None = None,
        heads_in_use: Array | None = None,
        window: Window | None = None,
        rounding: Rounding | None = None,
    ) -> tuple[Array, ...]:
        x, weight = operands(self, x, "filters", (self.kernel, self.kernel, x.shape[-1], self.heads), rounding)
        weight = weight.astype(x.dtype)
        weight, taps = _in_window(weight, window, x.shape, self.stride)
        active = None if channels is None else channels.active
        if heads_in_use is not None and active is None:
            active = jnp.int32(x.shape[-1])
        maps = []
        for head in range(self.heads):
            count = active if heads_in_use is None else jnp.where(head < heads_in_use, active, 0)  # type: ignore[arg-type]
            in_use = {"active": count, "kernel": taps}
            y = depthwise(x, weight[..., head], self.stride, **in_use, implementation=self.implementation)
            maps.append(keep(y))
        return tuple(maps)


class DepthwiseMaximum(nn.Module):
    """The largest of `heads` depthwise convolutions of the same input, whose maps are never stored: `[N, H, W, C]`.

    The parameters and the result are those of `Depthwise` and `Maximum` together. `attention` is given the means and
    variances of the maps over pixels, `[N, h, C]` each, and returns the factors of the maps, `[N, h, C]`. Exporters
    know only the two layers, so networks use this one where `kernels.depthwise.fuses` says that it is faster.
    """

    kernel: int
    stride: int = 1
    heads: int = 1
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Array,
        channels: Channels | None = None,
        heads_in_use: Array | None = None,
        window: Window | None = None,
        attention: Callable[[Array, Array], Array] | None = None,
        rounding: Rounding | None = None,
    ) -> Array:
        x, weight = operands(self, x, "filters", (self.kernel, self.kernel, x.shape[-1], self.heads), rounding)
        weight = weight.astype(x.dtype)
        weight, taps = _in_window(weight, window, x.shape, self.stride)
        active = None if channels is None else channels.active
        in_use = {"active": active, "kernel": taps, "heads": heads_in_use}
        scale = None
        if attention is not None:
            mean, variance = depthwise_moments(x, weight, self.stride, **in_use, implementation=self.implementation)
            scale = attention(keep(mean), keep(variance))
        return keep(
            largest_depthwise(x, weight, self.stride, scale=scale, **in_use, implementation=self.implementation)
        )


def _in_window(weight: Array, window: Window | None, shape: tuple[int, ...], stride: int) -> tuple[Array, Array | None]:
    """Filters and the size in use, which the kernel takes; mixed ones are filters of the largest size."""
    if window is None:
        return weight, None
    return (window.applied(weight, shape, stride), None) if window.soft else (weight, window.active)


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
        return keep(x.mean((1, 2)))


class Linear(nn.Module):
    """Fully connected layer on `[N, C]`, with bias unless told otherwise."""

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array, rounding: Rounding | None = None) -> Array:
        x, weight = operands(self, x, "kernel", (x.shape[-1], self.features), rounding)
        y = x @ weight.astype(x.dtype)
        return y + bias_like(self, self.features, y) if self.bias else y


class Variance(nn.Module):
    """Variance over all pixels, `[N, H, W, C]` to `[N, C]`, by the `mean` that is known already."""

    @nn.compact
    def __call__(self, x: Array, mean: Array) -> Array:
        return keep(jnp.square(x - mean[:, None, None, :]).mean((1, 2)))


class ChannelConv(nn.Module):
    """1-D convolution along the channels of one or several vectors `[N, C]`, zero padding, one filter, no bias (ECA).

    Source: Wang et al. 2020, ECA-Net, https://arxiv.org/abs/1910.03151.
    """

    kernel: int = 3

    @nn.compact
    def __call__(self, *vectors: Array) -> Array:
        several = (len(vectors),) if len(vectors) > 1 else ()
        weight = parameter(self, "channel_filter", (self.kernel, *several))
        filters = weight.reshape(self.kernel, len(vectors)).astype(vectors[0].dtype)
        return sum(_along_channels(x, filters[:, place]) for place, x in enumerate(vectors))  # type: ignore[return-value]


@jax.custom_vjp
def _along_channels(x: Array, taps: Array) -> Array:
    """`[N, C]` convolved with `taps [k]` along its channels, zeros around.

    A product of the taps with shifted copies: on CPUs XLA's convolution of one channel takes far longer, and its
    derivative in the taps, a window as wide as the vector, longer still.
    """
    return (taps @ _shifted(x, len(taps))).reshape(x.shape)


def _shifted(x: Array, number: int) -> Array:
    padded = jnp.pad(x, ((0, 0), (number // 2, number // 2)))
    return jnp.stack([padded[:, place : place + x.shape[1]].ravel() for place in range(number)])


def _along_channels_back(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, taps = saved
    return _along_channels(g, taps[::-1]), _shifted(x, len(taps)) @ g.ravel()


_along_channels.defvjp(lambda x, taps: (_along_channels(x, taps), (x, taps)), _along_channels_back)


class Softmax(nn.Module):
    """Softmax over several vectors of the same shape, entry by entry; all of them divided by `temperature` first."""

    @nn.compact
    def __call__(self, vectors: tuple[Array, ...], temperature: Array | float = 1.0) -> tuple[Array, ...]:
        stacked = jnp.stack(vectors)
        shares = jax.nn.softmax(stacked / jnp.asarray(temperature, stacked.dtype), axis=0)
        return tuple(shares[position] for position in range(len(vectors)))


class Scale(nn.Module):
    """Product of a map `[N, H, W, C]` with one number per channel `[N, C]`; `implementation` is that of `Depthwise`."""

    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: Array, factor: Array) -> Array:
        once = settled(factor) if at_once(self.implementation) else factor
        return x * once[:, None, None, :].astype(x.dtype)


class Add(nn.Module):
    """Sum of two maps of the same shape (residual)."""

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        return x + y


class Multiply(nn.Module):
    """Product of two maps of the same shape (sigmoidal residual)."""

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        return x * y


class Maximum(nn.Module):
    """Elementwise maximum over the heads in use (max-out); `heads_in_use` is traced or None for all."""

    @nn.compact
    def __call__(self, maps: tuple[Array, ...], heads_in_use: Array | None = None) -> Array:
        largest = maps[0]
        for head, values in enumerate(maps[1:], start=1):
            joined = jnp.maximum(largest, values)
            largest = joined if heads_in_use is None else jnp.where(head < heads_in_use, joined, largest)
        return largest


class HeadSum(nn.Module):
    """Elementwise sum over the heads in use; `heads_in_use` is traced or None for all."""

    @nn.compact
    def __call__(self, maps: tuple[Array, ...], heads_in_use: Array | None = None) -> Array:
        total = maps[0]
        for head, values in enumerate(maps[1:], start=1):
            total = total + (values if heads_in_use is None else jnp.where(head < heads_in_use, values, 0))
        return total


class Pool(nn.Module):
    """Windowed maximum or mean of `kernel` x `kernel` pixels; what lies outside the map does not count.

    `padding` is `same`, `valid`, or `ceil`: as `valid`, and one more window where that leaves pixels over.
    """

    function: str = "max"
    kernel: int = 3
    stride: int = 2
    padding: str = "same"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        window, strides = (1, self.kernel, self.kernel, 1), (1, self.stride, self.stride, 1)
        padding: str | list[tuple[int, int]] = self.padding.upper()
        if self.padding == "ceil":
            padding = [(0, 0), *((0, (self.kernel - size) % self.stride) for size in x.shape[1:3]), (0, 0)]
        if self.function == "max":
            return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, window, strides, padding)
        zero = np.array(0, x.dtype)
        inside = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1), x.dtype), zero, lax.add, window, strides, padding)
        return lax.reduce_window(x, zero, lax.add, window, strides, padding) / inside


class QuantizationNoise(nn.Module):
    """Values rounded to `levels` equal steps between the smallest and the largest, with a straight-through gradient.

    A regulariser for training, in the place of Dropout; the network is not quantized by it.

    Source: Guerra 2024 (FlyNet), equation 8.5.
    """

    levels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return with_noise(x, self.levels)


def check_levels(levels: int) -> None:
    """Raise InputError unless `levels` of `QuantizationNoise` can be used; 0 stands for none.

    Example:
        >>> check_levels(8)
    """
    if isinstance(levels, bool) or not isinstance(levels, int) or levels == 1 or levels < 0:
        raise InputError(f"quantization_levels={levels} is not allowed: give 0 (off) or 2 and more")


def residual(x: Array, y: Array, inp: Channels, out: Channels, stride: int) -> Array:
    """`x + y` where both have the same shape, else `y`; call inside a module's compact method.

    In a supernet whose widths are searched the decision is traced: the sum counts only where the active widths agree.
    """
    if stride != 1:
        return y
    same = inp.equal(out)
    if isinstance(same, bool):
        return Add()(x, y) if same else y
    return Add()(FitChannels(out.size)(x) * same.astype(x.dtype), y)


def operands(
    module: nn.Module, x: Array, name: str, shape: tuple[int, ...], rounding: Rounding | None
) -> tuple[Array, Array]:
    """The input and the parameter `name` of a layer, as `rounding` leaves them; call inside its compact method."""
    weight = parameter(module, name, shape)
    return (x, weight) if rounding is None else (rounding.input(module, x), rounding.weight(module, name, weight))


def bias_like(module: nn.Module, features: int, like: Array) -> Array:
    """The parameter `bias [features]` in the type of `like`; call inside a module's compact method."""
    return parameter(module, "bias", (features,)).astype(like.dtype)
