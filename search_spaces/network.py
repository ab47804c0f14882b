"""A frozen space as a Flax network, and its weights cut from a supernet."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax import Array

from hw_models.errors import InputError
from search_spaces.block import FROZEN
from search_spaces.block import variable_shapes as block_shapes
from search_spaces.initial import fill
from search_spaces.precision import Scheme, without_bits
from search_spaces.rounded_block import compressed, pruned
from search_spaces.rounding import rounded_weights
from search_spaces.slots import Slot
from search_spaces.space import SearchSpace
from search_spaces.sparse_space import without_sparsity

# Guerra 2024 (FlyNet, section 8.6): neither Dropout nor quantization noise helps networks with fewer parameters.
REGULARISED_FROM = 1_600_000


def module_name(slot: Slot) -> str:
    """Name of a slot's module inside `Network`.

    Example:
        >>> module_name(type("S", (), {"name": "stages/0/1"}))
        'stages_0_1'
    """
    return slot.name.replace("/", "_")


class Network(nn.Module):
    """The network of a frozen space: images `[N, H, W, C]` to logits `[N, classes]`.

    `mode` is that of `search_spaces.normalisation.Norm`, `progress` the share of the training that is done (None: all
    of it; what is annealed needs it). Regularisers that hurt small networks act from `REGULARISED_FROM` parameters.
    `depthwise` names the implementation of depthwise convolution.

    Raises:
        InputError: the space still has decisions.
    """

    space: SearchSpace
    depthwise: str = "auto"

    @nn.compact
    def __call__(self, x: Array, mode: str = "eval", progress: Array | None = None) -> Array:
        if not self.space.frozen:
            raise InputError(f"space {self.space.name} still has decisions: freeze it, or use Supernet")
        selection = FROZEN._replace(progress=progress, regularise=self.space.params >= REGULARISED_FROM)
        for slot in self.space.slots:
            block, io = slot.cases[0].block, slot.only_io(self.depthwise)
            name = module_name(slot)
            with compressed(block, io, selection, mode, (*self.path, name)):
                x = block.net(io).clone(name=name, parent=self)(x, selection, mode)
        return x


def variable_shapes(space: SearchSpace) -> Any:
    """Shapes of the variables `{"params": ..., "batch_stats": ...}` of `Network(space)`."""
    shapes: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    for slot in space.slots:
        for collection, tree in block_shapes(slot.cases[0].block, slot.only_io()).items():
            if tree:
                shapes[collection][module_name(slot)] = tree
    return shapes


def fresh(space: SearchSpace, key: Array) -> Any:
    """New variables `{"params": ..., "batch_stats": ...}` of `Network(space)`; the key is consumed."""
    return fill(key, variable_shapes(space))


def pruned_variables(space: SearchSpace, variables: Any) -> Any:
    """`variables` of `Network(space)` with zeros for the weights that its densities leave out, for export.

    The network computes the same with both; where no bits round the weights, so does that of
    `sparse_space.without_sparsity(space)` with these.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(sparsity="2:4", densities="0.5").freeze([0] * 6)
        >>> params = pruned_variables(space, fresh(space, jax.random.key(0)))["params"]
        >>> (params["stages_0_0"]["project"]["kernel"] == 0).mean().item()
        0.5
    """
    blocks = {module_name(slot): (slot.cases[0].block, slot.only_io()) for slot in space.slots}

    @jax.jit
    def zeroed(params: Any) -> Any:
        return {name: pruned(*blocks[name], part) if name in blocks else part for name, part in params.items()}

    return {**variables, "params": zeroed(variables["params"])}


def exact_form(space: SearchSpace, variables: Any) -> tuple[SearchSpace, Any]:
    """A frozen space without bits and masks, and variables of it whose weights are pruned and rounded already.

    Activations are not rounded in it; with those of 32 bits it computes the same.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2a32").freeze([0] * 6)
        >>> plain, params = exact_form(space, fresh(space, jax.random.key(0)))
        >>> plain.scheme is None, len(set(params["params"]["stages_0_0"]["expand"]["kernel"][:, 0].tolist())) <= 3
        (True, True)
    """
    masks = space.sparsity is not None and not space.sparsity.channels
    dense = without_bits(without_sparsity(space) if masks else space)
    blocks = {module_name(slot): slot.cases[0].block for slot in space.slots}
    scheme, params = space.scheme or Scheme(), pruned_variables(space, variables)["params"]

    @jax.jit
    def coarse(params: Any) -> Any:
        return {name: rounded_weights(blocks[name], scheme, part, masks) for name, part in params.items()}

    own = variable_shapes(dense)
    return dense, {name: _only(tree, own[name]) for name, tree in {**variables, "params": coarse(params)}.items()}


def _only(tree: Any, shapes: Any) -> Any:
    return {name: _only(tree[name], part) for name, part in shapes.items()} if isinstance(shapes, dict) else tree


def inherit(variables: Any, space: SearchSpace, genes: Any) -> Any:
    """Variables of `Network(space.freeze(genes))`, cut from those of `Supernet(space)`.

    Kernels keep their centre, channels and heads the leading ones. Genes need not be canonical: weights come from the
    slots that the supernet runs under these genes.
    """
    array, sources = space.check(genes), space.sources(genes)
    frozen = {slot.name: slot for slot in space.freeze(array).slots}
    cut: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    for slot in space.slots:
        if slot.name not in frozen:
            continue
        target = frozen[slot.name]
        kind = slot.cases[0 if slot.kind_decision is None else int(array[slot.kind_decision])].name
        part = target.cases[0].block.cut(variables[sources[slot.name].name][kind], target.only_io())
        for collection, tree in part.items():
            if tree:
                cut[collection][module_name(target)] = tree
    return cut
