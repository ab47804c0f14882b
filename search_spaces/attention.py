"""Channel attention: squeeze-and-excitation and efficient channel attention, chosen by a traced index.

Attention vectors are small, so every kind that may be chosen is computed and one is selected (or they are mixed). On
CPUs the compiled kernel does all of it in one call, and only what is selected (`search_spaces/kernels/attention.py`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from hw_models.discover import unknown
from search_spaces.channels import Channels, is_soft, make_divisible, select
from search_spaces.initial import parameter
from search_spaces.kernels import attention as compiled
from search_spaces.layers import ACTIVATIONS, Activation, ChannelConv, GlobalPool, Linear, Scale, Softmax
from search_spaces.rearrange import Deinterleave, Interleave

if TYPE_CHECKING:
    from search_spaces.rounding import Rounding

KINDS = ("none", "se", "eca")
HEAD_KINDS = ("none", "se", "eca", "eca_softmax", "mean_variance", "mean_variance_softmax")
SQUEEZE_SOURCES = ("hidden", "input")
SE_REDUCTION = 4
ECA_KERNEL = 3
HEAD_ECA_KERNEL = 7
HOTTEST, COLDEST = 10.0, 1.0  # temperature of the softmax over heads at the start and at the end of training


def squeeze_channels(channels: int) -> int:
    """Width of the bottleneck of squeeze-and-excitation, as in MobileNetV3.

    Example:
        >>> squeeze_channels(96)
        24
    """
    return make_divisible(channels / SE_REDUCTION)


def squeezed(source: str, inputs: int, filtered: int) -> int:
    """Width of that bottleneck by its `source`: `hidden` as above, or a quarter of the block's `input` channels.

    Example:
        >>> squeezed("hidden", 24, 96), squeezed("input", 24, 96)
        (24, 6)
    """
    return squeeze_channels(filtered) if source == "hidden" else max(1, inputs // SE_REDUCTION)


def check_squeeze(source: str, **activations: str) -> None:
    """Raise InputError unless the `source` of that width and the two non-linearities (by field) are known.

    Example:
        >>> check_squeeze("hidden", gate="sigmod")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: unknown gate 'sigmod': did you mean 'sigmoid'? (known: ...)
    """
    if source not in SQUEEZE_SOURCES:
        raise unknown("squeeze_from", str(source), SQUEEZE_SOURCES)
    for field, activation in activations.items():
        if activation not in ACTIVATIONS:
            raise unknown(field, str(activation), ACTIVATIONS)


def check_kinds(kinds: tuple[str, ...], known: tuple[str, ...] = KINDS) -> None:
    """Raise InputError for an unknown kind of attention."""
    for kind in kinds:
        if kind not in known:
            raise unknown("attention", str(kind), known)


def scales_heads(kinds: tuple[str, ...]) -> bool:
    """Whether any of the kinds scales the maps of heads; without one, nothing need be known of them.

    Example:
        >>> scales_heads(("none", "se")), scales_heads(("none", "eca"))
        (False, True)
    """
    return any(kind not in ("none", "se") for kind in kinds)


def temperature(progress: Array | None) -> Array | float:
    """Temperature of the softmax over heads when `progress` of the training is done: 10 at its start, 1 at its end.

    The thesis gives the ends only (Guerra 2024, table 8.1); ours falls linearly.

    Example:
        >>> float(temperature(jnp.float32(0.5))), temperature(None)
        (5.5, 1.0)
    """
    return COLDEST if progress is None else HOTTEST + (COLDEST - HOTTEST) * progress


class SqueezeExcite(nn.Module):
    """Per-channel factors `[N, C]` from a two-layer bottleneck (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

    channels: Channels
    reduced: Channels
    inner: str = "relu"
    gate: str = "hard_sigmoid"

    @nn.compact
    def __call__(self, mean: Array) -> Array:
        y = Linear(self.reduced.size, name="reduce")(mean)
        y = self.reduced.mask(Activation(self.inner)(y))
        y = Linear(self.channels.size, name="expand")(y)
        return Activation(self.gate)(y)


class ChannelAttention(nn.Module):
    """Scale the channels of `x` by the attention kind that `index` selects among `kinds`.

    `reduced` are the channels of the bottleneck of squeeze-and-excitation, a quarter of those of `x` unless given.
    `implementation` is that of depthwise convolutions: where it is the compiled kernel, attention is a kernel too,
    unless there is a `rounding`, which the plain layers inside are given as well.
    """

    kinds: tuple[str, ...]
    inner: str = "relu"
    gate: str = "hard_sigmoid"
    implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Array,
        channels: Channels,
        index: Array | None = None,
        reduced: Channels | None = None,
        rounding: Rounding | None = None,
    ) -> Array:
        if self.kinds == ("none",):
            return x
        squeezed = channels.map(squeeze_channels) if reduced is None else reduced
        plain = rounding is not None or is_soft(index) or squeezed.soft
        if compiled.available(x, self.implementation) and not plain:
            weights = self._weights(x.shape[-1], squeezed.size)
            return compiled.attended(x, self.kinds, index, weights, squeezed.active, self.inner, self.gate)
        mean = GlobalPool()(x)
        factors = []
        for kind in self.kinds:
            if kind == "none":
                factors.append(jnp.ones_like(mean))
            elif kind == "se":
                factors.append(SqueezeExcite(channels, squeezed, self.inner, self.gate, name="se")(mean))
            else:
                factors.append(Activation("sigmoid")(ChannelConv(ECA_KERNEL, name="eca")(mean)))
        return Scale(self.implementation)(x, select(index, factors))

    def _weights(self, width: int, squeezed: int) -> compiled.Weights:
        """Those of the layers above, under the same names."""
        reduce, reduce_bias, expand, expand_bias, taps = (jnp.zeros(0, jnp.float32),) * 5
        if "se" in self.kinds:
            reduce, reduce_bias, expand, expand_bias = _SqueezeExciteWeights(width, squeezed, name="se")()
        if "eca" in self.kinds:
            (taps,) = _Parameters((("channel_filter", (ECA_KERNEL,)),), name="eca")()
        return compiled.Weights(reduce, reduce_bias, expand, expand_bias, taps)


class _Parameters(nn.Module):
    """The parameters of another layer, by name and shape, for a compiled kernel that computes what the layer does."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @nn.compact
    def __call__(self) -> tuple[Array, ...]:
        return tuple(parameter(self, name, shape) for name, shape in self.shapes)


class _SqueezeExciteWeights(nn.Module):
    """The weights of `SqueezeExcite`."""

    width: int
    squeezed: int

    @nn.compact
    def __call__(self) -> tuple[Array, ...]:
        wide, narrow = self.width, self.squeezed
        reduce = _Parameters((("kernel", (wide, narrow)), ("bias", (narrow,))), name="reduce")()
        expand = _Parameters((("kernel", (narrow, wide)), ("bias", (wide,))), name="expand")()
        return *reduce, *expand


class HeadAttention(nn.Module):
    """ECA over the `C * h` maps of a multi-head depthwise convolution, before the heads are reduced.

    Kinds: `eca` sees the mean of each map, `mean_variance` its variance as well; their responses become factors by a
    sigmoid, or with `_softmax` by a softmax over the heads of each channel. `none` and `se` leave the maps alone. The
    one-dimensional convolution (kernel 7, no bias) runs over the maps in channel-major order `c * h + head`, so its
    result depends on the head count: it is computed for the count in use, or where counts are mixed for each of them.

    Takes the means of the maps over pixels, `[N, C]` each, and where `sees_variances` their variances. Returns the
    factors of the maps, once for each of `head_counts` where counts are mixed, else once.

    Source: Guerra 2024, FlyNet, equations 8.2-8.3.
    """

    kinds: tuple[str, ...]
    head_counts: tuple[int, ...]

    @property
    def sees_variances(self) -> bool:
        """Whether any of the kinds looks at variances."""
        return any(kind.startswith("mean_variance") for kind in self.kinds)

    @nn.compact
    def __call__(
        self,
        means: tuple[Array, ...],
        variances: tuple[Array, ...] = (),
        index: Array | None = None,
        heads_index: Array | None = None,
        progress: Array | None = None,
    ) -> list[tuple[Array, ...]]:
        mixed = is_soft(heads_index)
        if not mixed and len(self.head_counts) > 1:
            return [self._traced(means, variances, index, heads_index, progress)]
        by_mean = ChannelConv(HEAD_ECA_KERNEL, name="eca") if any(k.startswith("eca") for k in self.kinds) else None
        by_both = ChannelConv(HEAD_ECA_KERNEL, name="mean_variance") if self.sees_variances else None
        per_count = []
        for count in self.head_counts:
            joined = Interleave()(means[:count])
            responses = {}
            if by_mean is not None:
                responses["eca"] = by_mean(joined)
            if by_both is not None:
                responses["mean_variance"] = by_both(joined, Interleave()(variances[:count]))
            per_kind = [self._factors(kind, count, responses, means[0], progress) for kind in self.kinds]
            per_count.append(tuple(select(index, heads) for heads in zip(*per_kind, strict=True)))
        return per_count

    def _traced(
        self,
        means: tuple[Array, ...],
        variances: tuple[Array, ...],
        index: Array | None,
        heads_index: Array | None,
        progress: Array | None,
    ) -> tuple[Array, ...]:
        """The factors for a traced head count: what is laid out by the count is gathered, so that every vector is as
        long as for the largest."""
        count = jnp.asarray(self.head_counts, jnp.int32)[heads_index]
        joined = _interleaved(jnp.stack(means, axis=-1), count)
        used = jnp.arange(len(means)) < count
        responses = {}
        if any(kind.startswith("eca") for kind in self.kinds):
            responses["eca"] = ChannelConv(HEAD_ECA_KERNEL, name="eca")(joined)
        if self.sees_variances:
            both = _interleaved(jnp.stack(variances, axis=-1), count)
            responses["mean_variance"] = ChannelConv(HEAD_ECA_KERNEL, name="mean_variance")(joined, both)
        by_kind = []
        for kind in self.kinds:
            features = kind.removesuffix("_softmax")
            if features not in responses:
                by_kind.append(jnp.ones_like(jnp.stack(means, axis=-1)))
                continue
            response = _deinterleaved(responses[features], count, len(means))
            if kind.endswith("_softmax"):
                cold = jnp.where(used, response / jnp.asarray(temperature(progress), response.dtype), -jnp.inf)
                by_kind.append(nn.softmax(cold, axis=-1))
            else:
                by_kind.append(nn.sigmoid(response))
        factors = select(index, by_kind)
        return tuple(factors[..., head] for head in range(len(means)))

    def _factors(
        self, kind: str, count: int, responses: dict[str, Array], like: Array, progress: Array | None
    ) -> tuple[Array, ...]:
        features = kind.removesuffix("_softmax")
        if features not in responses:
            return tuple(jnp.ones_like(like) for _ in range(count))
        if kind.endswith("_softmax"):
            return tuple(Softmax()(Deinterleave(count)(responses[features]), temperature(progress)))
        return tuple(Deinterleave(count)(Activation("sigmoid")(responses[features])))


class CompiledHeadAttention(nn.Module):
    """`HeadAttention` by the compiled kernel, with its weights: where counts are not mixed, and `available`.

    Takes means and variances of the maps, `[N, h, C]` each, the index of the kind and the number of heads in use, and
    returns the factors of the maps, `[N, h, C]`.
    """

    kinds: tuple[str, ...]

    @nn.compact
    def __call__(
        self, mean: Array, variance: Array, index: Array | None, in_use: Array | None, progress: Array | None
    ) -> Array:
        by_mean, by_both = None, None
        if any(kind.startswith("eca") for kind in self.kinds):
            (by_mean,) = _Parameters((("channel_filter", (HEAD_ECA_KERNEL,)),), name="eca")()
        if any(kind.startswith("mean_variance") for kind in self.kinds):
            (by_both,) = _Parameters((("channel_filter", (HEAD_ECA_KERNEL, 2)),), name="mean_variance")()
        softmax = any(kind.endswith("softmax") for kind in self.kinds)
        heat = temperature(progress) if softmax else 1.0
        seen = variance if by_both is not None else None
        kinds = tuple("none" if kind == "se" else kind for kind in self.kinds)  # which weighs the reduced maps instead
        return compiled.head_factors(mean, seen, kinds, index, in_use, heat, by_mean, by_both)


@jax.custom_vjp
def _interleaved(x: Array, count: Array) -> Array:
    """`[N, C, H]` of which the first `count` heads are in use, as `[N, C * H]` in the order `c * count + head`."""
    channels, heads = x.shape[1:]
    place = jnp.arange(channels * heads)
    source = jnp.minimum(place // count * heads + place % count, channels * heads - 1)
    return jnp.where(place < channels * count, x.reshape(len(x), -1)[:, source], 0)


def _deinterleave(x: Array, count: Array, heads: int) -> Array:
    channel, head = jnp.arange(x.shape[1] // heads)[:, None], jnp.arange(heads)
    source = jnp.minimum(channel * count + head, x.shape[1] - 1)
    return jnp.where(head < count, x[:, source], 0)


# Each is the transpose of the other, and a gather is far quicker than the scatter of an automatic derivative.
_interleaved.defvjp(
    lambda x, count: (_interleaved(x, count), (count, x.shape[2])),
    lambda saved, gradient: (_deinterleave(gradient, *saved), None),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _deinterleaved(x: Array, count: Array, heads: int) -> Array:
    """The inverse of `_interleaved`: `[N, C * H]` as `[N, C, H]`, zero for heads that are not in use."""
    return _deinterleave(x, count, heads)


_deinterleaved.defvjp(
    lambda x, count, heads: (_deinterleave(x, count, heads), count),
    lambda heads, count, gradient: (_interleaved(gradient, count), None),
)
