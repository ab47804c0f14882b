"""A frozen space as a Flax network, and its weights cut from a supernet."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jax import Array

from hw_models.errors import InputError
from search_spaces.block import FROZEN, variable_shapes
from search_spaces.initial import fill
from search_spaces.slots import Slot
from search_spaces.space import SearchSpace


def module_name(slot: Slot) -> str:
    """Name of a slot's module inside `Network`.

    Example:
        >>> module_name(type("S", (), {"name": "stages/0/1"}))
        'stages_0_1'
    """
    return slot.name.replace("/", "_")


class Network(nn.Module):
    """The network of a frozen space: images `[N, H, W, C]` to logits `[N, classes]`.

    `mode` is that of `search_spaces.layers.Norm`. `depthwise` names the implementation of depthwise convolution.

    Raises:
        InputError: the space still has decisions.
    """

    space: SearchSpace
    depthwise: str = "auto"

    @nn.compact
    def __call__(self, x: Array, mode: str = "eval") -> Array:
        if not self.space.frozen:
            raise InputError(f"space {self.space.name} still has decisions: freeze it, or use Supernet")
        for slot in self.space.slots:
            io = slot.io(slot.inp.values[0], slot.out.values[0], self.depthwise)
            x = slot.cases[0].block.net(io).clone(name=module_name(slot), parent=self)(x, FROZEN, mode)
        return x


def fresh(space: SearchSpace, key: Array) -> Any:
    """New variables `{"params": ..., "batch_stats": ...}` of `Network(space)`; the key is consumed."""
    shapes: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    for slot in space.slots:
        io = slot.io(slot.inp.values[0], slot.out.values[0])
        for collection, tree in variable_shapes(slot.cases[0].block, io).items():
            if tree:
                shapes[collection][module_name(slot)] = tree
    return fill(key, shapes)


def inherit(variables: Any, space: SearchSpace, genes: Any) -> Any:
    """Variables of `Network(space.freeze(genes))`, cut from those of `Supernet(space)`.

    Kernels keep their centre, channels and heads the leading ones.
    """
    array = space.check(genes)
    frozen = {slot.name: slot for slot in space.freeze(array).slots}
    cut: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    for slot in space.slots:
        if slot.name not in frozen:
            continue
        target = frozen[slot.name]
        kind = slot.cases[0 if slot.kind_decision is None else int(array[slot.kind_decision])].name
        io = target.io(target.inp.values[0], target.out.values[0])
        part = target.cases[0].block.cut(variables[slot.name][kind], io)
        for collection, tree in part.items():
            if tree:
                cut[collection][module_name(target)] = tree
    return cut
