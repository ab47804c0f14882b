"""Rounded execution: what the leaf layers of a block do to their inputs and weights when the block has bits.

Blocks know nothing of it. While a network is called, the calls of its layers with weights are watched, and each is
given a `Rounding`, which rounds its input and its weights before it computes. So every block can be rounded. On CPUs
the default quantizers are compiled calls (`search_spaces/quantizers/_compiled.py`).

Ranges of activations are those of the batch in modes `train` and `calibrate`, which stores them in `batch_stats`, and
the stored ones in mode `eval`, as statistics of normalisation are. Weights are rounded by what they are at the moment;
of shared weights only the part in use counts (`search_spaces/rounded_block.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from search_spaces import layers
from search_spaces.attention import ChannelAttention
from search_spaces.channels import is_soft
from search_spaces.choice import options
from search_spaces.kernels.rounding import Box
from search_spaces.normalisation import NORM_MOMENTUM
from search_spaces.precision import Scheme, rounded, rounds
from search_spaces.quantizers import _compiled
from search_spaces.quantizers._quantizer import Quantizer

if TYPE_CHECKING:
    from search_spaces.block import Block, BlockIO, Selection

WEIGHTED = (layers.Conv, layers.Pointwise, layers.Depthwise, layers.DepthwiseMaximum, layers.Linear)
Used = Callable[[tuple[str, ...], str, tuple[int, ...]], Box | None]


@dataclass(frozen=True, eq=False)
class Bits:
    """Bits in use: the `values` they may take, and the one in use, float32 `[]`, or a share for each, `[V]`.

    One value is known, and needs nothing besides.
    """

    values: tuple[int, ...]
    chosen: Array | None

    def applied(self, function: Callable[[Any], Array]) -> Array:
        """`function(bits)`, or its results mixed by the shares."""
        if len(self.values) == 1:
            return function(self.values[0])
        assert self.chosen is not None
        if is_soft(self.chosen):
            return sum(self.chosen[place] * function(bits) for place, bits in enumerate(self.values))  # type: ignore[return-value]
        return function(self.chosen)


def bits_in_use(values: tuple[int, ...], index: Array | None) -> Bits:
    """The bits at `index`, traced, or under a share for each of `values`.

    Example:
        >>> bits_in_use((4, 8), jnp.int32(1)).chosen.item(), bits_in_use((4,), None).chosen
        (8.0, None)
    """
    if len(values) == 1 or index is None or is_soft(index):
        return Bits(values, index)
    # once for all layers of a block, and in one operation: an index in brackets is six of them
    (chosen,) = jax.lax.dynamic_slice(jnp.asarray(values, jnp.float32), (index,), (1,), allow_negative_indices=False)
    return Bits(values, chosen)


@dataclass(frozen=True, eq=False)
class Rounding:
    """How the layers of one block round in one call.

    `used` says which part of the weight `name` of the layer at `path` is in use along the axes that share a scale, None
    for all of it. `implementation` is that of the depthwise convolutions, and decides whether compiled kernels round.
    """

    scheme: Scheme
    weight_bits: Bits | None
    act_bits: Bits | None
    mode: str
    used: Used
    implementation: str = "auto"

    def intercept(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        """For `flax.linen.intercept_methods`."""
        if context.method_name == "__call__" and isinstance(context.module, (*WEIGHTED, ChannelAttention)):
            kwargs = {**kwargs, "rounding": self}
        return call(*args, **kwargs)

    def input(self, module: nn.Module, x: Array) -> Array:
        """The input of a layer, rounded; inside its compact method."""
        if self.act_bits is None:
            return x
        quantizer, axes = self.scheme.act_quantizer, tuple(range(x.ndim))
        if not quantizer.learns and not quantizer.observes:
            axes = axes[1:]  # what neither learns nor stores its scale takes that of each image: none depends on others
        known = _learned(module, "act", quantizer, x, self.act_bits, axes)
        known |= self._observed(module, quantizer, x, axes)
        by = self.implementation
        return self.act_bits.applied(lambda bits: _compiled.rounded(quantizer, x, bits, known, axes, None, by))

    def weight(self, module: nn.Module, name: str, weight: Array) -> Array:
        """The parameter `name` of a layer, rounded; inside its compact method."""
        if self.weight_bits is None:
            return weight
        quantizer, axes = self.scheme.weight_quantizer, shared_axes(name, weight.ndim, self.scheme.granularity)
        known = _learned(module, "weight", quantizer, weight, self.weight_bits, axes)
        box, by = self.used(module.path, name, axes), self.implementation
        return self.weight_bits.applied(lambda bits: _compiled.rounded(quantizer, weight, bits, known, axes, box, by))

    def _observed(self, module: nn.Module, quantizer: Quantizer, x: Array, axes: tuple[int, ...]) -> dict[str, Array]:
        if not quantizer.observes:
            return {}
        now = _compiled.observed(quantizer, jax.lax.stop_gradient(x), axes, self.implementation)
        found = {}
        for name, value in now.items():
            stored = module.variable("batch_stats", f"input_{name}", jnp.zeros, (value.size,), jnp.float32)
            if self.mode == "eval":
                found[name] = stored.value.reshape(value.shape)
                continue
            found[name] = value
            if module.is_mutable_collection("batch_stats") and not module.is_initializing():
                share = NORM_MOMENTUM if self.mode == "train" else 0.0
                stored.value = share * stored.value + (1 - share) * value.ravel()
        return found


def _learned(
    module: nn.Module, role: str, quantizer: Quantizer, x: Array, bits: Bits, axes: tuple[int, ...]
) -> dict[str, Array]:
    """What a quantizer learns besides `x`, as parameters of the layer: vectors, so that weight decay spares them."""
    if not quantizer.learns:
        return {}
    first = jnp.float32(bits.values[0])
    shapes = jax.eval_shape(lambda x: quantizer.init(x, first, axes), x)
    return {
        name: module.variable(
            "params", f"{role}_{name}", lambda name=name: quantizer.init(x, first, axes)[name].ravel()
        ).value.reshape(shape.shape)
        for name, shape in shapes.items()
    }


def shared_axes(name: str, ndim: int, granularity: str) -> tuple[int, ...]:
    """The axes of a weight that share a scale: `kernel` `[kh, kw, I, O]` or `[I, O]`, `filters` `[k, k, C, heads]`.

    Example:
        >>> [shared_axes("kernel", 4, granularity) for granularity in ("tensor", "channel", "kernel")]
        [(0, 1, 2, 3), (0, 1, 2), (0, 1)]
        >>> shared_axes("filters", 4, "channel"), shared_axes("kernel", 2, "kernel")
        ((0, 1), (0,))
    """
    if granularity == "tensor":
        return tuple(range(ndim))
    if name == "filters" or (granularity == "kernel" and ndim == 4):
        return (0, 1)
    return tuple(range(ndim - 1))


def all_of_it(path: tuple[str, ...], name: str, axes: tuple[int, ...]) -> Box | None:
    """`Rounding.used` where every weight is in use whole.

    Example:
        >>> all_of_it(("conv",), "kernel", (0, 1, 2)) is None
        True
    """
    return None


def rounding_of(block: Block, io: BlockIO, selection: Selection, mode: str, used: Used = all_of_it) -> Rounding | None:
    """How `block` rounds under `selection`; None where it does not."""
    if not rounds(block):
        return None

    def bits(name: str) -> Bits | None:
        value = getattr(block, name)
        return bits_in_use(options(value), selection.field(name)) if rounded(value) else None

    return Rounding(io.scheme or Scheme(), bits("weight_bits"), bits("act_bits"), mode, used, io.depthwise)


def watched(rounding: Rounding | None) -> AbstractContextManager[Any]:
    """Within it the layers of a network are called with `rounding`.

    Example:
        >>> with watched(None):
        ...     pass
    """
    return nullcontext() if rounding is None else nn.intercept_methods(rounding.intercept)
