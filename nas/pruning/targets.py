"""What of a network can be pruned: structures of single layers, channels that go together, whole blocks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hw_models.discover import unknown
from hw_models.errors import InputError
from nas.exporters._graph import INPUT, Node
from nas.pruning.coupling import STATISTICS, ChannelGroup, coupling_of, graph_of
from search_spaces.network import module_name, variable_shapes
from search_spaces.slots import Slot
from search_spaces.space import SearchSpace
from search_spaces.sparsity._patterns import KINDS, SLICES, Structure

WEIGHTS = {"Conv": "kernel", "Pointwise": "kernel", "Linear": "kernel", "Depthwise": "filters"}
CHANNELS, LAYERS = "output_channel", "layer"
RECTIFIED = ("relu", "relu6")
# blocks that are `x + F(x)` where the shape stays, and those of them that are `activation(x + F(x))`
SUMS = ("inverted_residual", "flynet", "fused_inverted_residual", "residual", "bottleneck_residual")
ACTIVATED = ("residual", "bottleneck_residual")


class Part(NamedTuple):
    """A leaf that a target masks: by its own structures, by channels along an axis, or (neither) whole."""

    path: str
    leaf: str
    shape: tuple[int, ...]
    structure: Structure | None = None
    axis: int = 0
    places: np.ndarray | None = None
    scored: bool = False  # whether it says how much the target matters

    def spread(self, mask: Any) -> Any:
        """A mask of decisions, `D`, as one of the leaf."""
        if self.structure is not None:
            return self.structure.expand(mask)
        if self.places is None:
            return np.broadcast_to(np.asarray(mask).ravel(), self.shape)
        along = np.zeros(self.shape[self.axis], bool)
        outside = np.setdiff1d(np.arange(len(along)), self.places)
        along[self.places] = np.asarray(mask).ravel()[:, None]
        along[outside] = True
        return np.broadcast_to(along.reshape(-1, *[1] * (len(self.shape) - self.axis - 1)), self.shape)


class Target(NamedTuple):
    """What one mask of decisions is made for: `structure` gives their number and sizes, `parts` what they mask."""

    name: str
    structure: Structure
    parts: tuple[Part, ...]
    group: ChannelGroup | None = None


def targets(
    space: SearchSpace, kind: str, *, ends: bool = False, names: tuple[str, ...] | None = None
) -> tuple[Target, ...]:
    """What can be pruned of a frozen space by structures of `kind`, in the order of execution.

    `output_channel` means channels that go together, wherever they are read and written. `layer` means blocks that add
    their result to their input, of which the input is left (`skippable`). All others are structures of every layer that
    has such: depthwise layers have no blocks, 1x1 convolutions only one kernel. The layer that reads the images and the
    one that writes the logits stay dense unless `ends`; those without whole groups of four inputs are an error for
    `n_m`. `names` picks among them.

    Raises:
        InputError: an unknown structure or name, channels that `n_m` cannot divide, nothing to prune.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> [(target.name, target.structure.count) for target in targets(space, "output_channel")][:2]
        [('stem_0/conv', 8), ('stages_0_0/expand', 16)]
        >>> [target.name for target in targets(space, "layer")]
        ['stages_0_0']
    """
    if kind not in KINDS:
        raise unknown("structure", str(kind), KINDS)
    if kind == CHANNELS:
        found = [_of_group(space, group) for group in coupling_of(space).groups if not group.fixed]
    elif kind == LAYERS:
        found = [_of_block(space, slot) for slot in space.slots if skippable(space, slot)]
    else:
        found = layers(space, kind, ends)
    if not found:
        raise InputError(f"space {space.name} has nothing to prune by structure {kind}: give another structure")
    if names is None:
        return tuple(found)
    by_name = {target.name: target for target in found}
    for name in names:
        if name not in by_name:
            raise unknown(f"target of structure {kind}", name, by_name)
    return tuple(by_name[name] for name in names)


def layers(space: SearchSpace, kind: str, ends: bool = False) -> list[Target]:
    """The weights of every layer that has structures of `kind`, by themselves (channels too, and layers).

    Raises:
        InputError: channels that `n_m` cannot divide; the layer is named.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> [target.name for target in layers(tiny.space().freeze([0] * 6), "kernel", ends=True)]
        ['stem_0/conv', 'stages_0_0/depthwise', 'stages_1_0/depthwise']
    """
    nodes = [node for node in graph_of(space).nodes if node.op in WEIGHTS]
    inner = [node for node in nodes if ends or (INPUT not in node.inputs and node is not nodes[-1])]
    return [_of_layer(node, kind) for node in inner if _has(node, kind)]


def _has(node: Node, kind: str) -> bool:
    weight, depthwise = node.params[WEIGHTS[node.op]], node.op == "Depthwise"
    if kind in ("kernel", *SLICES):
        return weight.ndim == 4 and math.prod(weight.shape[:2]) > 1
    if kind in ("n_m", "block", "split"):
        return not depthwise and not (kind == "split" and node.attributes.get("groups", 1) > 1)
    return True


def _of_layer(node: Node, kind: str) -> Target:
    leaf, groups = WEIGHTS[node.op], int(node.attributes.get("groups", 1))
    shape = node.params[leaf].shape
    try:
        structure = Structure(kind, shape, node.op == "Depthwise", groups)
    except InputError as error:
        raise InputError(f"{node.path}: {error}") from None
    return Target(node.path, structure, (Part(node.path, leaf, shape, structure, scored=True),))


def _of_group(space: SearchSpace, group: ChannelGroup) -> Target:
    """One decision for each channel, of the size of all weights that read or write it."""
    shapes, parts, size = variable_shapes(space)["params"], [], 0
    for member in group.members:
        if member.leaf in STATISTICS:
            continue
        shape = leaf_of(shapes, member.path, member.leaf).shape
        weight = member.leaf in WEIGHTS.values()
        parts.append(
            Part(member.path, member.leaf, shape, None, member.axis, member.places, weight and not member.reads)
        )
        size += math.prod(shape) // shape[member.axis] * member.places.shape[1] if weight else 0
    return Target(group.name, Structure(CHANNELS, (max(size, 1), group.size)), tuple(parts), group)


def _of_block(space: SearchSpace, slot: Slot) -> Target:
    """One decision for all that a block holds."""
    name, nodes = module_name(slot), graph_of(space).nodes
    parts, size = [], 0
    for node in nodes:
        if node.path.partition("/")[0] != name:
            continue
        for leaf, array in node.params.items():
            if leaf in STATISTICS:
                continue
            weight = WEIGHTS.get(node.op) == leaf
            size += array.size if weight else 0
            parts.append(Part(node.path, leaf, array.shape, scored=weight))
    return Target(name, Structure(LAYERS, (size, 1)), tuple(parts))


def skippable(space: SearchSpace, slot: Slot) -> bool:
    """Whether the network is right without this block: where its weights are all zero it gives its input.

    So it is with blocks that add to their input, at stride 1 and equal widths; where an activation follows the sum, if
    the input came from a rectifier already.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> [slot.name for slot in space.slots if skippable(space, slot)]
        ['stages/0/0']
    """
    block, io = slot.cases[0].block, slot.only_io()
    if block.kind not in SUMS or io.stride != 1 or io.in_channels != io.out_channels:
        return False
    if "none" in (getattr(block, "shortcut", ""), getattr(block, "residual", "")):
        return False
    if block.kind not in ACTIVATED or getattr(block, "preactivation", False):
        return True
    before = space.slots[slot.index - 1].cases[0].block
    rectified = before.kind in (*ACTIVATED, "conv_norm") and not getattr(before, "preactivation", False)
    alike = getattr(before, "activation", "") == getattr(block, "activation", "")
    return rectified and alike and getattr(block, "activation", "") in RECTIFIED


def leaf_of(tree: Any, path: str, leaf: str) -> Any:
    """What a tree `{module: {layer: {leaf: ...}}}` holds for a layer.

    Example:
        >>> leaf_of({"stem_0": {"conv": {"kernel": 1}}}, "stem_0/conv", "kernel")
        1
    """
    for name in path.split("/"):
        tree = tree[name]
    return tree[leaf]
