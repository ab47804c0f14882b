"""The bits that a network was searched with, by layer, as `nas.quantized.post_training.quantize` takes them."""

from __future__ import annotations

from typing import NamedTuple

from hw_models.errors import InputError
from nas.exporters._graph import Graph, record
from nas.model import Model
from nas.quantized._codings import is_clamp, moves
from nas.quantized.folded import as_layers, fold
from nas.quantized.integer import WEIGHTED
from search_spaces.network import module_name
from search_spaces.precision import FIELDS, rounds
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.slots import Slot
from search_spaces.space import SearchSpace

WIDEST = 8  # of what integer kernels multiply


class TooWide(InputError):
    """A network has more bits than integer kernels multiply: what else there is of it can still be written.

    Example:
        >>> raise TooWide("stem has 16 bits")
        Traceback (most recent call last):
        ...
        nas.quantized.own_bits.TooWide: stem has 16 bits
    """


class OwnBits(NamedTuple):
    """Bits by path of the layer: of weights, and of the results, which are what the layers behind take."""

    weights: dict[str, int]
    acts: dict[str, int]


def has_bits(space: SearchSpace) -> bool:
    """Whether any block of a frozen space rounds.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> has_bits(tiny.space().freeze([0] * 6))
        False
    """
    return any(rounds(slot.cases[0].block) for slot in space.slots)


def check_widest(space: SearchSpace) -> None:
    """Raise TooWide where a block of a space with bits has more than integer kernels multiply.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> check_widest(tiny.space(bits="16").freeze([0] * 6))
        Traceback (most recent call last):
        ...
        nas.quantized.own_bits.TooWide: stages/0/0 has 16 bits, and integer kernels multiply 8 at most: search fewer
    """
    for slot in space.slots:
        if has_bits(space) and max(_of(slot)) > WIDEST:
            raise TooWide(
                f"{slot.name} has {max(_of(slot))} bits, and integer kernels multiply {WIDEST} at most: search fewer"
            )


def _of(slot: Slot) -> tuple[int, int]:
    block = slot.cases[0].block
    weight_bits, act_bits = (block.settled(name) or EXACT_BITS for name in FIELDS)
    return weight_bits, act_bits


def own_bits(model: Model) -> OwnBits:
    """The bits of `model` by layer.

    Raises:
        TooWide: a block has more than 8 bits, or none, which integer kernels do not multiply; it is named.

    Example:
        >>> import jax
        >>> from nas.model import Meta
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4a6").freeze([0] * 6)
        >>> found = own_bits(Model(space, fresh(space, jax.random.key(0)), Meta("t", ("a",), (0.5,), (0.5,))))
        >>> found.weights["stages_0_0/expand"], found.acts["stages_0_0/expand"], found.acts["stages_1_0/project"]
        (4, 6, 8)
    """
    check_widest(model.space)
    of_slot = {module_name(slot): _of(slot) for slot in model.space.slots}
    graph = as_layers(fold(record(model.space, model.variables)))
    weights = {node.path: of_slot[_slot(node.path)][0] for node in graph.nodes if node.op in WEIGHTED}
    acts = {node.path: max(_taken(graph, name, of_slot) for name in node.outputs) for node in graph.nodes}
    return OwnBits(weights, acts)


def _slot(path: str) -> str:
    return path.partition("/")[0]


def _taken(graph: Graph, value: str, of_slot: dict[str, tuple[int, int]]) -> int:
    """The most bits that a layer behind `value` takes it in.

    Layers without weights round nothing while a network trains: 8 bits are what a sum or a product needs.
    """
    found = []
    for node in graph.consumers(value):
        if node.op in WEIGHTED:
            found.append(of_slot[_slot(node.path)][1])
        elif is_clamp(node) or moves(node):
            found += [_taken(graph, name, of_slot) for name in node.outputs]
        else:
            found.append(WIDEST)
    return max(found, default=WIDEST)
