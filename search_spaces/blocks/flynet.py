"""FlyNet block: several depthwise filters per channel, reduced by their maximum.

Source: Guerra Fernandez 2024, "Efficient Deep Neural Networks Aimed for Resource Constrained Embedded Devices"
(PhD thesis, Monash University), chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.attention import (
    HEAD_ECA_KERNEL,
    HEAD_KINDS,
    ChannelAttention,
    CompiledHeadAttention,
    HeadAttention,
    check_kinds,
    scales_heads,
)
from search_spaces.block import FROZEN, Block, BlockIO, Selection, require_concrete
from search_spaces.blocks import _bottleneck, _residuals
from search_spaces.channels import Channels, is_soft, select
from search_spaces.choice import Choice, options
from search_spaces.kernels.depthwise import fuses
from search_spaces.kernels.frame import at_once
from search_spaces.layers import (
    Activation,
    Depthwise,
    DepthwiseMaximum,
    GlobalPool,
    HeadSum,
    Maximum,
    Pointwise,
    QuantizationNoise,
    Scale,
    Variance,
    check_levels,
)
from search_spaces.lowering import Plan, Tensor
from search_spaces.normalisation import normalised
from search_spaces.rearrange import Subsample

MAX_HEADS = 5
REDUCTIONS = ("max", "funnel", "sum")


@dataclass(frozen=True)
class FlyNet(Block):
    """Expansion, multi-head depthwise convolution, reduction of the heads, linear projection, residual.

    Every expanded channel is filtered by `heads` kernels. `reduction` makes one map per channel of them again: `max`
    (max-out: the largest response survives, and is the activation; the thesis puts none after it, so that one head has
    none), `funnel` (the unfiltered input takes part in the
    maximum; every second pixel of it at stride 2) or `sum` (sum and ReLU; the weights of a linear combination are part
    of the filters already). Batch normalisation acts after the reduction, on one map per channel.

    `attention`: `eca` weighs the `channels * heads` maps before the reduction by their means, `mean_variance` by means
    and variances (equation 8.2; kernel 7, no bias), with a sigmoid each, or with `_softmax` by a softmax over the heads
    whose temperature falls from 10 to 1 during training; `se` weighs the reduced maps, where its cost does not grow
    with the heads.

    `residual` is what the block adds where stride or width change: nothing at all (`none`), identity only where shapes
    match (`default`, MobileNetV3), `conv3x3`, `depthwise_pointwise`, or `light`: cropped channels, or those there are
    and depthwise-filtered ones for the rest (equation 8.4; one filter per channel, which is what the printed counts
    allow). `expanded_residual` adds a light residual between the expanded maps before and after the filters as well.
    The thesis says only that high-dimensional maps are bridged too; ours stays inside the block.

    `quantization_levels` rounds the output to so many steps in training, a regulariser for networks from 1.6 million
    parameters (section 8.5); 0 leaves it out.

    The thesis counts more multiply-adds than plain MACs, for a reason it does not state; ours are plain MACs.

    Example:
        >>> block = FlyNet(kernel=3, expand=3, heads=3)
        >>> [layer.op.name for layer in block.lower(BlockIO(14, 14, 16, 16))]
        ['CONV', 'DEPTHWISE', 'REDUCE', 'CONV', 'ADD']
    """

    kind: ClassVar[str] = "flynet"
    BRANCHES: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    ELASTIC: ClassVar[tuple[str, ...]] = ("heads", "attention", "reduction", "residual")
    MASKED: ClassVar[tuple[str, ...]] = ("kernel", "expand")
    TRACED: ClassVar[tuple[str, ...]] = ("kernel",)
    EXAMPLES: ClassVar[dict[str, tuple[Any, ...]]] = {
        "heads": (1, 3),
        "attention": ("none", "se", "eca", "mean_variance_softmax"),
        "reduction": REDUCTIONS,
        "residual": _residuals.KINDS,
    }

    kernel: int | Choice = 3
    expand: float | Choice = 3
    heads: int | Choice = 3
    attention: str | Choice = "none"
    activation: str = "relu"
    reduction: str | Choice = "max"
    residual: str | Choice = "default"
    expanded_residual: bool = False
    hidden: int | None = None
    quantization_levels: int = 0

    def hidden_channels(self, in_channels: int, ratio: float | None = None, density: float | None = None) -> int:
        """Channels after the expansion, by `ratio` where `expand` is still searched, and the `density` of them."""
        expand = self.settled("expand", ratio)
        if expand == 1:
            return in_channels
        hidden = _bottleneck.expanded(in_channels, expand) if self.hidden is None else self.hidden
        return _bottleneck.thinned(hidden, density)

    def check(self, io: BlockIO) -> None:
        super().check(io)
        check_kinds(options(self.attention), HEAD_KINDS)
        for heads in options(self.heads):
            if isinstance(heads, bool) or not isinstance(heads, int) or not 1 <= heads <= MAX_HEADS:
                raise InputError(f"heads={heads} is out of range: give 1 to {MAX_HEADS}")
        for reduction in options(self.reduction):
            if reduction not in REDUCTIONS:
                raise unknown("reduction", str(reduction), REDUCTIONS)
        for residual in options(self.residual):
            if residual not in _residuals.KINDS:
                raise unknown("residual", str(residual), _residuals.KINDS)
        _bottleneck.check_hidden(self.hidden, self.expand)
        check_levels(self.quantization_levels)

    def lower(self, io: BlockIO) -> list[Layer]:
        require_concrete(self, io)
        assert isinstance(io.in_channels, int) and isinstance(io.out_channels, int)
        assert isinstance(self.expand, int | float) and isinstance(self.residual, str)
        plan = Plan(io)
        hidden = self.hidden_channels(io.in_channels, density=self.thinning(io))
        wide = plan.input if self.expand == 1 else plan.conv(plan.input, hidden)
        y = self._lower_filters(plan, wide, io.stride)
        if self.expanded_residual:
            y = _residuals.lower(plan, "light", wide, y, io.stride)
        if self.attention == "se":
            y = plan.attention(y, "se")
        y = plan.conv(y, io.out_channels)
        return plan.layers(_residuals.lower(plan, self.residual, plan.input, y, io.stride))

    def _lower_filters(self, plan: Plan, wide: Tensor, stride: int) -> Tensor:
        heads, kernel, kind = self.heads, self.kernel, self.attention
        assert isinstance(kernel, int) and isinstance(heads, int) and isinstance(kind, str)
        reduced = heads > 1 or self.reduction == "funnel"
        y = plan.depthwise(wide, kernel=kernel, stride=stride, heads=heads, norm=not reduced)
        if kind not in ("none", "se"):
            features = 2 if kind.startswith("mean_variance") else 1
            factors = plan.channel_conv(plan.global_pool(y, features), HEAD_ECA_KERNEL, features)
            y = plan.scale(y, factors)
        if reduced:
            y = plan.reduce(y, wide.channels, (wide,) if self.reduction == "funnel" else ())
        return y

    def net(self, io: BlockIO) -> nn.Module:
        return FlyNetNet(self, io)


class FlyNetNet(nn.Module):
    """The network of `FlyNet`."""

    block: FlyNet
    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, selection: Selection = FROZEN, mode: str = "eval") -> Array:
        block, io = self.block, self.io
        inp, out, expand, density = selection.sizes(io, expand=block.expand, density=block.thinning(io))
        hidden = inp.combined(block.hidden_channels, expand, density)
        wide = _bottleneck.widen(x, hidden, expand, block.activation, mode, io)
        y = self._filtered(wide, hidden, selection)
        y = normalised(y, "depthwise_norm", mode, None, hidden, io.depthwise)
        if block.expanded_residual:
            y = _Bridge(io, name="bridge")(wide, y, hidden, mode)
        kinds = options(block.attention)
        reduced_kinds = tuple("se" if kind == "se" else "none" for kind in kinds)
        if "se" in reduced_kinds:
            attention = ChannelAttention(reduced_kinds, implementation=io.depthwise, name="attention")
            y = attention(y, hidden, selection.field("attention"))
        y = normalised(Pointwise(out.size, name="project")(y), "project_norm", mode, None, out, io.depthwise)
        y = _residuals.add(options(block.residual), selection.field("residual"), x, y, inp, out, io, mode)
        if block.quantization_levels and selection.regularise and mode == "train":
            y = QuantizationNoise(block.quantization_levels)(y)
        return y

    def _filtered(self, wide: Array, hidden: Channels, selection: Selection) -> Array:
        """One map per channel. Head counts share their filters: a count uses the leading ones."""
        block, io = self.block, self.io
        counts, reductions = options(block.heads), options(block.reduction)
        heads_index, reduction_index = selection.field("heads"), selection.field("reduction")
        mixed = is_soft(heads_index)
        in_use = None if len(counts) == 1 or mixed else jnp.asarray(counts, jnp.int32)[heads_index]
        source = wide if io.stride == 1 or "funnel" not in reductions else Subsample(io.stride)(wide)
        kernel, window = selection.largest("kernel", block.kernel)
        settings = (kernel, io.stride, max(counts), io.depthwise)
        if not mixed and max(counts) > 1 and "sum" not in reductions and fuses(io.depthwise):
            scale = self._head_scale(selection, in_use)
            largest = DepthwiseMaximum(*settings, name="depthwise")(wide, hidden, in_use, window, scale)
            by_kind = [Maximum()((largest, source)) if kind == "funnel" else largest for kind in reductions]
            return select(reduction_index, by_kind)
        maps = Depthwise(*settings, name="depthwise")(wide, hidden, in_use, window)
        scaled = [maps[:count] for count in counts] if mixed else [maps]
        attention = HeadAttention(options(block.attention), counts, name="head_attention")
        if scales_heads(attention.kinds):
            means = tuple(GlobalPool()(values) for values in maps)
            variances = tuple(map(Variance(), maps, means)) if attention.sees_variances else ()
            factors = attention(means, variances, selection.field("attention"), heads_index, selection.progress)
            scale = Scale(io.depthwise)
            scaled = [tuple(map(scale, heads, by_head)) for heads, by_head in zip(scaled, factors, strict=True)]
        reduced = [
            select(reduction_index, [self._reduced(kind, heads, source, in_use) for kind in reductions])
            for heads in scaled
        ]
        return select(heads_index, reduced) if mixed else reduced[0]

    def _head_scale(self, selection: Selection, in_use: Array | None) -> Callable[[Array, Array], Array] | None:
        """The factors of the maps from their means and variances, where the maps themselves are not stored."""
        block, index = self.block, selection.field("attention")
        kinds, counts = options(block.attention), options(block.heads)
        if not scales_heads(kinds):
            return None
        if at_once(self.io.depthwise) and not is_soft(index):
            compiled = CompiledHeadAttention(kinds, name="head_attention")
            return lambda mean, variance: compiled(mean, variance, index, in_use, selection.progress)
        plain = HeadAttention(kinds, counts, name="head_attention")

        def scale(mean: Array, variance: Array) -> Array:
            means, variances = (tuple(part[:, head] for head in range(max(counts))) for part in (mean, variance))
            (factors,) = plain(means, variances, index, selection.field("heads"), selection.progress)
            return jnp.stack(factors, axis=1)

        return scale

    def _reduced(self, kind: str, maps: tuple[Array, ...], source: Array, in_use: Array | None) -> Array:
        if kind == "sum":
            return Activation("relu")(HeadSum()(maps, in_use))
        largest = Maximum()(maps, in_use)
        return Maximum()((largest, source)) if kind == "funnel" else largest


class _Bridge(nn.Module):
    """The light residual between expanded maps; a module of its own, so that its weights have their own place."""

    io: BlockIO

    @nn.compact
    def __call__(self, x: Array, y: Array, hidden: Channels, mode: str) -> Array:
        return _residuals.add(("light",), None, x, y, hidden, hidden, self.io, mode)


block = FlyNet
