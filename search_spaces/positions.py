"""Positions of a space as keys of measured tables: where a block stands, and which of the choices it is.

A key is `stages/1/0:inverted_residual[kernel=3,expand=6]`: the name of the slot, the kind of block, its branch fields
and the others that are not default. A block that a depth leaves out is `none`. Positions with one choice have no key.
"""

from __future__ import annotations

import dataclasses

from hw_models.errors import InputError
from search_spaces.block import Block, BlockIO
from search_spaces.encoding import head_and_genes
from search_spaces.slots import Slot
from search_spaces.space import SearchSpace

LEFT_OUT = "none"


def space_text(space: SearchSpace) -> str:
    """A space with the options it was made with, as it is written in front of genes.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space_text(tiny.space(classes=5))
        'tiny[classes=5]'
    """
    return head_and_genes(space.text([0] * space.num_decisions))[0]


def choice_text(block: Block | None) -> str:
    """A concrete block as text; None is one that is left out.

    Example:
        >>> from search_spaces.blocks.inverted_residual import InvertedResidual
        >>> choice_text(InvertedResidual(3, 6)), choice_text(None)
        ('inverted_residual[kernel=3,expand=6]', 'none')
    """
    if block is None:
        return LEFT_OUT
    fields = [
        f"{field.name}={getattr(block, field.name)}"
        for field in dataclasses.fields(block)
        if field.name in block.BRANCHES or getattr(block, field.name) != field.default
    ]
    return f"{block.kind}[{','.join(fields)}]" if fields else block.kind


def position_key(space: SearchSpace, name: str, block: Block | None, io: BlockIO) -> str | None:
    """The key of `block` with surroundings `io` at slot `name` of `space`; None where there is nothing to choose.

    Raises:
        InputError: `space` has no such slot, or this is not one of the blocks there.

    Example:
        >>> from search_spaces.spaces import proxylessnas
        >>> space = proxylessnas.space()
        >>> slot = space.freeze([0] * 21).slots[2]
        >>> position_key(space, slot.name, slot.cases[0].block, slot.only_io())
        'stages/1/0:inverted_residual[kernel=3,expand=3]'
    """
    slots = {slot.name: slot for slot in space.slots}
    if name not in slots:
        raise InputError(f"there is no block {name} in {space_text(space)}: price networks of that space")
    slot = slots[name]
    _require_fixed_widths(space, slot)
    own = slot.only_io()
    allowed = slot.depth is not None if block is None else any(_is_one_of(block, case.block) for case in slot.cases)
    if not allowed:
        raise InputError(
            f"{choice_text(block)} at {slot.name} is none of the choices there in {space_text(space)}: price networks "
            "of that space"
        )
    if _shape(io) != _shape(own):
        raise InputError(
            f"{slot.name} goes from {_shape(io)}, but from {_shape(own)} in {space_text(space)}: price networks of "
            "that space"
        )
    return f"{slot.name}:{choice_text(block)}" if _decided(slot) else None


def position_keys(space: SearchSpace, network: SearchSpace) -> list[str]:
    """The keys of a frozen `network` in `space`, in the order of execution.

    Raises:
        InputError: the network is none of the space; the first difference is named.

    Example:
        >>> from search_spaces.spaces import proxylessnas
        >>> space = proxylessnas.space()
        >>> position_keys(space, space.freeze([1] + [6] * 3 + [0] * 17))[:2]
        ['stages/1/0:inverted_residual[kernel=5,expand=3]', 'stages/1/1:skip']
    """
    there = {slot.name: slot for slot in network.slots}
    keys = []
    for name, place in there.items():
        keys.append((name, position_key(space, name, place.cases[0].block, place.only_io())))
    for slot in space.slots:
        if slot.name not in there:
            keys.append((slot.name, position_key(space, slot.name, None, slot.only_io())))
    order = {slot.name: slot.index for slot in space.slots}
    return [key for name, key in sorted(keys, key=lambda entry: order[entry[0]]) if key is not None]


def _require_fixed_widths(space: SearchSpace, slot: Slot) -> None:
    if len(slot.widths.pairs) > 1 or space.resolutions:
        raise InputError(
            f"{space_text(space)} searches widths or resolutions, which positions do not name: use a table of blocks"
        )


def _is_one_of(block: Block, searched: Block) -> bool:
    fields = {name: getattr(block, name, None) for name in searched.searched()}
    allowed = all(fields[name] in choice.values for name, choice in searched.searched().items())
    return block.kind == searched.kind and allowed and searched.with_values(**fields) == block


def _shape(io: BlockIO) -> str:
    return f"{io.in_h}x{io.in_w}x{io.in_channels} to {io.out_h}x{io.out_w}x{io.out_channels}"


def _decided(slot: Slot) -> bool:
    return slot.depth is not None or len(slot.cases) > 1 or bool(slot.cases[0].block.searched())
