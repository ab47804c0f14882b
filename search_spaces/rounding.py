"""Rounded and pruned execution: what the leaf layers of a block do to their inputs and weights when it has bits, or
a density.

Blocks know nothing of it. While a network is called, the calls of its layers with weights are watched, and each is
given a `Rounding` that prunes and rounds its weights, and rounds its input, before it computes. So every block can be
rounded and pruned, ours and yours. Weights that are left out stay zero, and have no part in the scale of the others. On
CPUs the default quantizers are compiled calls (`search_spaces/quantizers/_compiled.py`).

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
from search_spaces.blocks._grouped import ElasticGroups
from search_spaces.channels import is_soft
from search_spaces.choice import options
from search_spaces.kept import keep
from search_spaces.kernels.rounding import Box
from search_spaces.masking import Mask
from search_spaces.normalisation import NORM_MOMENTUM
from search_spaces.precision import Scheme, rounded, rounds
from search_spaces.quantizers import _compiled
from search_spaces.quantizers._quantizer import Quantizer
from search_spaces.quantizers.symmetric import Symmetric

if TYPE_CHECKING:
    from search_spaces.block import Block, BlockIO, Selection

MIXING = (layers.Conv, layers.Pointwise, ElasticGroups)  # what is pruned; in the head, linear layers too
WEIGHTED = (*MIXING, layers.Depthwise, layers.DepthwiseMaximum, layers.Linear)
Used = Callable[[tuple[str, ...], str, tuple[int, ...]], Box | None]
Masks = Callable[[tuple[str, ...], str], Mask | None]


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
    """How the layers of one block round and prune in one call.

    `used` says which part of the weight `name` of the layer at `path` is in use along some axes, None for all of it;
    `masks` what of that is kept, None where nothing is left out. `head` says that the block is that of a network.
    `implementation` is that of the depthwise convolutions, and decides whether compiled kernels round.
    """

    scheme: Scheme
    weight_bits: Bits | None
    act_bits: Bits | None
    mode: str
    used: Used
    masks: Masks | None = None
    head: bool = False
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
        """The parameter `name` of a layer, pruned and rounded; inside its compact method."""
        mask = None if self.masks is None or not mixes(module, self.head) else self.masks(module.path, name)
        if mask is None and self.weight_bits is None:
            return weight
        if mask is None:
            return self._rounded(module, name, weight, None)
        box = self.used(module.path, name, tuple(range(weight.ndim)))
        where = None if box is None else box.mask()
        pruned = mask.applied(weight, where, lambda weight, kept: self._rounded(module, name, weight, kept))
        return keep(pruned)  # small beside activations, and its mask is dear

    def _rounded(self, module: nn.Module, name: str, weight: Array, kept: Array | None) -> Array:
        """The weights rounded; of pruned ones, which are 0 by now, only those that are `kept` count."""
        bits = self.weight_bits
        if bits is None:
            return weight
        quantizer, axes = self.scheme.weight_quantizer, shared_axes(name, weight.ndim, self.scheme.granularity)
        known = _learned(module, "weight", quantizer, weight, bits, axes, kept)
        if kept is not None and not isinstance(quantizer, Symmetric):
            return bits.applied(lambda bits: quantizer(weight, bits, known, axes, kept))
        # the largest of what is kept is the largest of all, since what is left out is 0 by now
        box, by = self.used(module.path, name, axes), self.implementation
        return bits.applied(lambda bits: _compiled.rounded(quantizer, weight, bits, known, axes, box, by))

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
    module: nn.Module,
    role: str,
    quantizer: Quantizer,
    x: Array,
    bits: Bits,
    axes: tuple[int, ...],
    where: Array | None = None,
) -> dict[str, Array]:
    """What a quantizer learns besides `x`, as parameters of the layer: vectors, so that weight decay spares them."""
    if not quantizer.learns:
        return {}
    first = jnp.float32(bits.values[0])
    shapes = jax.eval_shape(lambda x: quantizer.init(x, first, axes), x)
    return {
        name: module.variable(
            "params", f"{role}_{name}", lambda name=name: quantizer.init(x, first, axes, where)[name].ravel()
        ).value.reshape(shape.shape)
        for name, shape in shapes.items()
    }


def rounded_weights(block: Block, scheme: Scheme, params: Any, masked: bool = False) -> Any:
    """`params` of a block with its weights rounded, by what its quantizer has learned.

    With `masked` those that are 0 were left out by a mask: they stay 0 and have no part in any scale.

    Example:
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> layer = {"conv": {"kernel": jnp.asarray([[0.2, -1.0], [0.9, 0.3]])}}
        >>> rounded_weights(ConvNorm(weight_bits=2), Scheme(), layer)["conv"]["kernel"].round(2).tolist()
        [[0.0, -1.0], [0.8999999761581421, 0.0]]
    """
    bits = block.settled("weight_bits")
    if not rounded(bits):
        return params
    quantizer = scheme.weight_quantizer

    def layer(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        found = {name: layer(part) for name, part in node.items()}
        for name in ("kernel", "filters"):
            if name in node and not isinstance(node[name], dict):
                axes = shared_axes(name, node[name].ndim, scheme.granularity)
                known = {key.removeprefix("weight_"): value for key, value in node.items() if key.startswith("weight_")}
                shapes = jax.eval_shape(lambda x, axes=axes: quantizer.init(x, jnp.float32(bits), axes), node[name])
                learned = {key: known[key].reshape(shape.shape) for key, shape in shapes.items()}
                found[name] = quantizer(node[name], bits, learned, axes, node[name] != 0 if masked else None)
        return found

    return layer(params)


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


def mixes(module: nn.Module, head: bool) -> bool:
    """Whether a layer mixes channels, so that a density prunes it; `head` says that it is one of the head.

    Example:
        >>> mixes(layers.Pointwise(8), False), mixes(layers.Depthwise(3), False), mixes(layers.Linear(8), True)
        (True, False, True)
    """
    return isinstance(module, MIXING) or (head and isinstance(module, layers.Linear))


def rounding_of(
    block: Block, io: BlockIO, selection: Selection, mode: str, used: Used = all_of_it, masks: Masks | None = None
) -> Rounding | None:
    """How `block` rounds and prunes under `selection`; None where it does neither."""
    if not rounds(block) and masks is None:
        return None

    def bits(name: str) -> Bits | None:
        value = getattr(block, name)
        return bits_in_use(options(value), selection.field(name)) if rounded(value) else None

    both = bits("weight_bits"), bits("act_bits")
    return Rounding(io.scheme or Scheme(), *both, mode, used, masks, block.HEAD, io.depthwise)


def watched(rounding: Rounding | None) -> AbstractContextManager[Any]:
    """Within it the layers of a network are called with `rounding`.

    Example:
        >>> with watched(None):
        ...     pass
    """
    return nullcontext() if rounding is None else nn.intercept_methods(rounding.intercept)
