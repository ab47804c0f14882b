"""Networks with bits: which of their channels can be pruned, what they weigh, and smaller ones with the same answers.

Pruned weights are zeros, of which quantizers without a zero make something else. Nothing comes of it where a
normalisation, whose scale and bias are pruned too, makes the map of the channel 0, where activations of 0 are rounded
to 0, and where zeros do not move the levels of the other weights. `prunable` asks for just that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax

from hw_models.errors import InputError
from nas.pruning.counting import counted
from nas.pruning.shrink import Shrunk, shrink, shrinkable
from nas.pruning.targets import WEIGHTS, leaf_of
from search_spaces.network import module_name, variable_shapes
from search_spaces.precision import Scheme, has_bits, rounded, without_bits
from search_spaces.quantizers._quantizer import EXACT_BITS, beside_zeros
from search_spaces.rounding import rounded_weights
from search_spaces.space import SearchSpace

BYTE, FLOAT_BITS = 8, 32


def weight_bits(space: SearchSpace) -> dict[str, int]:
    """Bits of the weights of every block of a frozen space, by its module; 32 where they are not rounded.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> weight_bits(tiny.space(bits="w2a8").freeze([0] * 6))["stages_0_0"]
        2
    """
    own = {module_name(slot): slot.cases[0].block.settled("weight_bits") for slot in space.slots}
    return {name: bits if rounded(bits) else EXACT_BITS for name, bits in own.items()}


def size_bytes(space: SearchSpace, masks: Any = None) -> float:
    """Bytes of a frozen network: kept weights by their bits, all other parameters by 32.

    `masks` are those of the same network without bits. Scales that follow from weights are not counted.

    Source: Guerra Fernandez, thesis (Monash 2024), section 4.4 ("To compute the size of the model").

    Example:
        >>> from search_spaces.spaces import tiny
        >>> plain, coarse = tiny.space().freeze([0] * 6), tiny.space(bits="w2a8").freeze([0] * 6)
        >>> size_bytes(plain) == 4 * plain.params, round(size_bytes(coarse) / size_bytes(plain), 2)
        (True, 0.27)
    """
    plain, bits = without_bits(space), weight_bits(space)
    left, shapes = counted(plain, masks), variable_shapes(space)["params"]
    saved = 0
    for row in left.layers:
        layer = leaf_of(shapes, *row.path.rpartition("/")[::2])
        if any(name in layer for name in WEIGHTS.values()):  # attention along channels is not rounded
            saved += row.kept_weights * (FLOAT_BITS - bits[row.path.partition("/")[0]])
    learned = sum(leaf.size for leaf in jax.tree.leaves(shapes)) - left.params  # scales, clipping points
    return ((left.kept_params + learned) * FLOAT_BITS - saved) / BYTE


def images_of(space: SearchSpace, params: Any) -> Any:
    """The parameters of a frozen network, its weights as they are rounded.

    Example:
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2a32").freeze([0] * 6)
        >>> images = images_of(space, fresh(space, jax.random.key(0))["params"])
        >>> len(set(images["stages_0_0"]["expand"]["kernel"][:, 0].tolist())) <= 3
        True
    """
    return _images(space)(params)


@lru_cache(maxsize=8)
def _images(space: SearchSpace) -> Callable[[Any], Any]:
    blocks = {module_name(slot): slot.cases[0].block for slot in space.slots}
    scheme = space.scheme or Scheme()
    return jax.jit(lambda params: {name: rounded_weights(blocks[name], scheme, tree) for name, tree in params.items()})


def prunable(space: SearchSpace) -> tuple[str, ...]:
    """Names of the groups of channels that a network with bits can lose, in the order of execution.

    Where weights of 0 are not rounded to 0, those without a normalisation stay.

    Raises:
        InputError: a space without bits or with decisions, a quantizer that makes a network with zeros another one than
            the network without those channels, scales learned by channel, nothing to prune.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> prunable(tiny.space(bits="w4a8").freeze([0] * 6))  # doctest: +NORMALIZE_WHITESPACE
        ('stem_0/conv', 'stages_0_0/expand', 'stages_1_0/expand', 'stages_1_0/project', 'head/conv')
    """
    if not space.frozen:
        raise InputError(f"space {space.name} still has decisions: freeze it")
    if not has_bits(space):
        raise InputError(f"space {space.name} has no bits: give some with search_spaces.precision.with_bits, or prune "
                         "it with nas.pruning.methods.prune")  # fmt: skip
    scheme, keeps = space.scheme or Scheme(), True
    blocks = [slot.cases[0].block for slot in space.slots]
    for bits in sorted({bits for bits in weight_bits(space).values() if rounded(bits)}):
        quantizer = scheme.weight_quantizer
        if quantizer.learns and scheme.granularity != "tensor":
            raise InputError(f"quantizer {quantizer.kind} learns scales by {scheme.granularity}, which pruned channels "
                             "would take along: give granularity=tensor")  # fmt: skip
        others, zeros = beside_zeros(quantizer, bits)
        if not others:
            raise InputError(f"zeros move the levels of quantizer {quantizer.kind}, so that a network without the "
                             "pruned channels would be another one: give symmetric, dorefa or bnn")  # fmt: skip
        keeps &= zeros
    for bits in sorted({block.settled("act_bits") for block in blocks if rounded(block.settled("act_bits"))}):
        if not all(beside_zeros(scheme.act_quantizer, bits)):
            raise InputError(f"quantizer {scheme.act_quantizer.kind} rounds activations of 0 to something else, so "
                             "that pruned channels would count: give affine, or dorefa[signed=False]")  # fmt: skip
    names = tuple(
        group.name
        for group in shrinkable(without_bits(space))
        if keeps or any(member.leaf == "scale" for member in group.members)
    )
    if not names:
        raise InputError(f"space {space.name} has no channels that can be pruned: give blocks of other kinds")
    return names


def shrink_rounded(space: SearchSpace, variables: Any, masks: Any) -> Shrunk:
    """The network with bits without the channels that `masks` drop whole, as `nas.pruning.shrink.shrink`.

    `masks` are those of the same network without bits, of groups that are `prunable`. Logits differ by rounding only.

    Raises:
        InputError: as of `prunable` and `shrink`.

    Example:
        >>> import numpy as np
        >>> from nas.pruning.masks import masks_of
        >>> from nas.pruning.targets import targets
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4a8").freeze([0] * 6)
        >>> plain = without_bits(space)
        >>> hidden = targets(plain, "output_channel", names=("stages_0_0/expand",))
        >>> masks = masks_of(plain, hidden, [np.arange(16) < 5])
        >>> block = shrink_rounded(space, fresh(space, jax.random.key(0)), masks).space.slots[1].cases[0].block
        >>> block.hidden, block.weight_bits
        (5, 4)
    """
    prunable(space)
    plain = without_bits(space)
    shapes = variable_shapes(plain)
    own, besides = {}, {}
    for kind in ("params", "batch_stats"):
        own[kind], besides[kind] = _parted(variables[kind], shapes[kind])
    small = shrink(plain, own, masks)
    joined = {kind: _joined(small.variables[kind], besides[kind]) for kind in own}
    if small.space is plain:
        return Shrunk(space, joined)
    bits = iter([(slot.cases[0].block.weight_bits, slot.cases[0].block.act_bits) for slot in space.slots])

    def on(block: Any) -> Any:
        if isinstance(block, tuple):
            return tuple(on(each) for each in block)
        weights, activations = next(bits)
        return block.with_values(weight_bits=weights, act_bits=activations)

    stem = dataclasses.replace(small.space.stem, block=on(small.space.stem.block))
    stages = tuple(dataclasses.replace(stage, block=on(stage.block)) for stage in small.space.stages)
    head = on(small.space.head)
    return Shrunk(dataclasses.replace(small.space, stem=stem, stages=stages, head=head, scheme=space.scheme), joined)


def _parted(tree: Any, shapes: Any) -> tuple[Any, Any]:
    """What of a tree `shapes` has, and the rest: ranges of activations, scales that quantizers learn."""
    inside: dict[str, Any] = {}
    outside: dict[str, Any] = {}
    for name, part in tree.items():
        if name not in shapes:
            outside[name] = part
        elif isinstance(part, dict):
            inside[name], outside[name] = _parted(part, shapes[name])
        else:
            inside[name] = part
    return inside, outside


def _joined(tree: Any, besides: Any) -> Any:
    """Both parts together again."""
    if not isinstance(besides, dict):
        return besides
    return {**tree, **{name: _joined(tree.get(name, {}), part) for name, part in besides.items()}}
