"""Channels that are masked are removed: a smaller frozen space and its weights, whose logits are the same.

Kept channels move to the front in their order. Widths of stages, `hidden` of inverted residuals and FlyNet blocks,
`growth`, `features` and `hidden` of heads become exactly what is kept. The inner width of residual blocks is the output
width or a multiple of 8, as their field `expand` allows: channels that are missing there stay, as zeros; so does one
where a width would become equal to that before it, and a sum appear that there was not. A block that is masked whole
becomes `skip`.

What cannot be removed: channels of blocks whose branches are equal parts of a width (inception, fire, ghost, shuffle,
mixed depthwise, dense bottleneck, fused inverted residual), of groups, of squeeze-and-excitation, of attention along
channels and of repeated channels (FlyNet's `light` residual). `shrinkable` says what can, before anything is pruned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from nas.pruning.coupling import STATISTICS, ChannelGroup, coupling_of, graph_of
from nas.pruning.masks import applied
from nas.pruning.targets import SUMS, leaf_of, skippable
from nas.pruning.widths import RATIO, expresses, next_inner, resized
from search_spaces.block import Block
from search_spaces.blocks.skip import Skip
from search_spaces.network import module_name, variable_shapes
from search_spaces.precision import rounds
from search_spaces.space import SearchSpace, Stage


class Shrunk(NamedTuple):
    """A smaller network: its frozen space and its variables."""

    space: SearchSpace
    variables: Any


def shrinkable(space: SearchSpace) -> tuple[ChannelGroup, ...]:
    """The groups of channels that a smaller network of the same blocks can do without.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> [group.name for group in shrinkable(tiny.space().freeze([0] * 6))]  # doctest: +NORMALIZE_WHITESPACE
        ['stem_0/conv', 'stages_0_0/expand', 'stages_1_0/expand', 'stages_1_0/project', 'head/conv']
    """
    able = {module_name(slot): expresses(slot.cases[0].block) for slot in space.slots}
    return tuple(
        group
        for group in coupling_of(space).groups
        if not (group.fixed or group.ordered) and all(able[member.path.partition("/")[0]] for member in group.members)
    )


def shrink(space: SearchSpace, variables: Any, masks: Any) -> Shrunk:
    """The network without the channels and blocks that `masks` drop whole.

    `variables` are those of `Network(space)`, `masks` a tree of `nas.pruning.masks.masks_of`. Weights that are masked
    otherwise become zeros. Logits differ by rounding only.

    Raises:
        InputError: channels that cannot be removed (see above), a layer without any channel, a space with bits.

    Example:
        >>> from nas.pruning.masks import masks_of
        >>> from nas.pruning.targets import targets
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> hidden = targets(space, "output_channel", names=("stages_0_0/expand",))
        >>> masks = masks_of(space, hidden, [np.arange(16) < 5])
        >>> shrink(space, fresh(space, jax.random.key(0)), masks).space.slots[1].cases[0].block.hidden
        5
    """
    if any(rounds(slot.cases[0].block) for slot in space.slots):
        raise InputError(f"space {space.name} has bits: shrink the network before it is rounded")
    variables = {**variables, "params": applied(masks, variables["params"])}
    space, variables, masks = _without_blocks(space, variables, masks)
    keeps = _kept(space, masks)
    if all(keep.all() for keep in keeps):
        return Shrunk(space, variables)
    able = {group.name for group in shrinkable(space)}
    for group, keep in zip(coupling_of(space).groups, keeps, strict=True):
        if not keep.any():
            raise InputError(f"no channel of {group.name} is kept: keep one at least, or mask its whole block")
        if not keep.all() and group.name not in able:
            raise InputError(f"{group.name}: no smaller block of its kind has {int(keep.sum())} of {group.size} "
                             "channels: prune the groups of shrinkable(space) only")  # fmt: skip
    while True:
        small = _smaller(space, keeps)
        if not _bridged(space, small, keeps):
            break
    cut = _cut(space, variables, keeps)
    shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (cut, variable_shapes(small))]
    if shapes[0] != shapes[1] or _layers(small) != _layers(space):
        raise InputError(f"space {space.name} has no smaller network of these channels: prune the groups of "
                         "shrinkable(space) only")  # fmt: skip
    return Shrunk(small, cut)


def _layers(space: SearchSpace) -> list[tuple[str, str]]:
    return [(node.op, node.path) for node in graph_of(space).nodes]


def _without_blocks(space: SearchSpace, variables: Any, masks: Any) -> tuple[SearchSpace, Any, Any]:
    """`skip` for blocks that are masked whole."""
    gone = [
        slot
        for slot in space.slots
        if skippable(space, slot) and _silent(masks[module_name(slot)], variables["params"][module_name(slot)])
    ]
    names = {module_name(slot) for slot in gone}
    if not names:
        return space, variables, masks
    left = {kind: {name: tree for name, tree in of.items() if name not in names} for kind, of in variables.items()}
    small = _rebuilt(space, lambda slot: Skip() if module_name(slot) in names else slot.cases[0].block, _out_width)
    return small, left, {name: tree for name, tree in masks.items() if name not in names}


def _silent(masks: Any, params: Any) -> bool:
    found = jax.tree.leaves(masks)
    return len(found) == len(jax.tree.leaves(params)) and not any(np.asarray(mask).any() for mask in found)


def _out_width(slot: Any) -> int:
    return int(slot.out.values[0])


def _rebuilt(space: SearchSpace, block_of: Callable[[Any], Block], width_of: Callable[[Any], int]) -> SearchSpace:
    """The space with other blocks and widths at its places."""
    stages: dict[str, tuple[int, list[Block], list[int]]] = {}
    for slot in space.slots[:-1]:
        _, blocks, widths = stages.setdefault(slot.name.rpartition("/")[0], (slot.stride, [], []))
        blocks.append(block_of(slot))
        widths.append(width_of(slot))
    stem, *others = (
        Stage(tuple(blocks), tuple(widths), len(blocks), stride) for stride, blocks, widths in stages.values()
    )
    return dataclasses.replace(space, stem=stem, stages=tuple(others), head=block_of(space.slots[-1]))


def _kept(space: SearchSpace, masks: Any) -> list[np.ndarray]:
    """Which channels of every group some weight still uses, bool `[n]`."""
    keeps = []
    for group in coupling_of(space).groups:
        used = np.zeros(group.size, bool)
        for member in group.members:
            if member.leaf in STATISTICS:
                continue
            given = leaf_of(masks, member.path, member.leaf)
            if given is None:
                used[:] = True
                break
            mask = np.asarray(given)
            others = tuple(axis for axis in range(mask.ndim) if axis != member.axis)
            used |= np.asarray(mask.any(others))[member.places].any(1)
        keeps.append(used)
    return keeps


def _smaller(space: SearchSpace, keeps: list[np.ndarray]) -> SearchSpace:
    """The space with the widths of what is kept; more is kept, in place, where fields cannot say exactly that."""
    graph, coupling = graph_of(space), coupling_of(space)
    writes = {node.path: node.outputs[0] for node in graph.nodes}

    def count(value: str) -> int:
        group, channel = coupling.values[value]
        return sum(bool(keeps[g][c]) if g >= 0 else True for g, c in zip(group, channel, strict=True))

    ends, last = {}, graph.nodes[0].inputs[0]
    for slot in space.slots:
        own = [node for node in graph.nodes if node.path.partition("/")[0] == module_name(slot)]
        last = own[-1].outputs[0] if own else last
        ends[slot.name] = count(last)
    blocks, before = {}, space.input_channels
    for slot in space.slots:
        name, block, out = module_name(slot), slot.cases[0].block, ends[slot.name]
        io = dataclasses.replace(slot.only_io(), in_channels=before, out_channels=out)
        inside = [writes[f"{name}/{layer}"] for layer in RATIO.get(block.kind, ())]
        wanted = next_inner(max(map(count, inside), default=1), out) or 0
        for value in inside:
            while count(value) < wanted and _one_more(coupling, keeps, value):
                pass
        blocks[slot.name] = resized(block, io, lambda layer, name=name: count(writes[f"{name}/{layer}"]))  # type: ignore[misc]
        before = out
    return _rebuilt(space, lambda slot: blocks[slot.name], lambda slot: ends[slot.name])


def _one_more(coupling: Any, keeps: list[np.ndarray], value: str) -> bool:
    """Keep the first dropped channel of a value, a zero; False where there is none."""
    for group, channel in coupling.values[value].T:
        if group >= 0 and not keeps[group][channel]:
            keeps[group][channel] = True
            return True
    return False


def _bridged(space: SearchSpace, small: SearchSpace, keeps: list[np.ndarray]) -> bool:
    """Keep one more channel where a block has equal widths now and had not before; whether there was such a block."""
    graph, coupling = graph_of(space), coupling_of(space)
    for old, new in zip(space.slots[:-1], small.slots[:-1], strict=True):
        if old.stride != 1 or (old.inp == old.out) or new.inp != new.out or not _sums(old):
            continue
        own = [node for node in graph.nodes if node.path.partition("/")[0] == module_name(old)]
        if own and any(_one_more(coupling, keeps, value) for value in (own[-1].outputs[0], own[0].inputs[0])):
            return True
    return False


def _sums(slot: Any) -> bool:
    return slot.cases[0].block.kind in (*SUMS, "sigmoidal_residual")


def _cut(space: SearchSpace, variables: Any, keeps: list[np.ndarray]) -> Any:
    """The variables at the kept channels."""
    along: dict[tuple[str, str, int], np.ndarray] = {}
    for group, keep in zip(coupling_of(space).groups, keeps, strict=True):
        for member in group.members:
            size = leaf_of(variables[_collection(member.leaf)], member.path, member.leaf).shape[member.axis]
            kept = along.setdefault((member.path, member.leaf, member.axis), np.ones(size, bool))
            kept[member.places[~keep]] = False
    cut = jax.tree.map(np.asarray, variables)
    for (path, leaf, axis), kept in along.items():
        tree = cut[_collection(leaf)]
        for name in path.split("/"):
            tree = tree[name]
        tree[leaf] = tree[leaf].compress(kept, axis)
    return jax.tree.map(jnp.asarray, cut)


def _collection(leaf: str) -> str:
    return "batch_stats" if leaf in STATISTICS else "params"
