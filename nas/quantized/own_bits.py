"""Networks that were searched, or trained, with bits of their own, as networks of integers at these bits.

Weights have the codes that they were trained with, and inputs of layers the ranges that training stored. What layers
without weights give (sums, products) has 8 bits: nothing rounds there while a network trains.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from nas.exporters._graph import INPUT, Graph, Node, record
from nas.model import Model
from nas.quantized._codings import coding, is_clamp, moves
from nas.quantized.folded import as_layers, fold
from nas.quantized.integer import WEIGHTED, Coding, IntegerNetwork
from nas.quantized.post_training import assembled, calibrated, check_images
from search_spaces.network import exact_form, module_name
from search_spaces.precision import FIELDS, Scheme, has_bits
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.quantizers._ranged import Ranged
from search_spaces.slots import Slot
from search_spaces.space import SearchSpace

LEAST, WIDEST = 2, 8  # bits of what integer kernels multiply
EXACT = Scheme()  # what integers are the same as: symmetric weights by channel, and activations `Ranged`


class NoIntegers(InputError):
    """There is no network of integers that computes what a network with bits does: why.

    What else there is of it can still be written.

    Example:
        >>> raise NoIntegers("stem has 16 bits")
        Traceback (most recent call last):
        ...
        nas.quantized.own_bits.NoIntegers: stem has 16 bits
    """


class OwnBits(NamedTuple):
    """Bits by path of the layer: of weights, and of the results, which are what the layers behind take.

    `image` are those of the image.
    """

    weights: dict[str, int]
    acts: dict[str, int]
    image: int


def check_exact(space: SearchSpace) -> None:
    """Raise NoIntegers where a space with bits rounds otherwise than integer kernels do.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> check_exact(tiny.space(bits="16").freeze([0] * 6))
        Traceback (most recent call last):
        ...
        nas.quantized.own_bits.NoIntegers: stages/0/0 has 16 bits, and integer kernels multiply 2 to 8
    """
    if not has_bits(space):
        return
    for slot in space.slots:
        for bits in _of(slot):
            if not LEAST <= bits <= WIDEST:
                raise NoIntegers(f"{slot.name} has {bits} bits, and integer kernels multiply {LEAST} to {WIDEST}")
    scheme = space.scheme or EXACT
    for field in fields(scheme):
        value, wanted = getattr(scheme, field.name), getattr(EXACT, field.name)
        if value != wanted and not (field.name == "activations" and isinstance(scheme.act_quantizer, Ranged)):
            raise NoIntegers(f"it was trained with {field.name}={value}, and integer kernels have {wanted}")


def _of(slot: Slot) -> tuple[int, int]:
    block = slot.cases[0].block
    weight_bits, act_bits = (block.settled(name) or EXACT_BITS for name in FIELDS)
    return weight_bits, act_bits


def integers(
    model: Model, images: np.ndarray, *, observer: str = "min_max", most_weight_bits: int = 8, batch: int = 100
) -> IntegerNetwork:
    """The network of integers that computes what `model`, whose space has bits, was trained to compute.

    Ranges that training did not store are observed on `images` (uint8 `[N, H, W, C]`). `most_weight_bits` of 7 are safe
    on x86 processors without VNNI, see `nas/exporters/onnx_int8.py`; weights of 8 bits are rounded anew then.

    Raises:
        NoIntegers: bits or quantizers that integer kernels do not have.
        InputError: images of another shape or type, an unknown observer, a layer whose sums 32 bits cannot hold.

    Example:
        >>> import jax
        >>> from nas.model import Meta
        >>> from nas.training.rounded import completed
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4a6").freeze([0] * 6)
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
        >>> variables = completed(space, fresh(space, jax.random.key(0)), images, [0.5], [0.5])
        >>> network = integers(Model(space, variables, Meta("tiny", tuple("0123456789"), (0.5,), (0.5,))), images)
        >>> network.weights["stages_0_0/expand"].bits, network.logits(images).shape
        (4, (8, 10))
    """
    check_exact(model.space)
    check_images(model, images)
    recorded = record(model.space, model.variables)
    exact = Model(*exact_form(model.space, model.variables), model.meta)
    # a normalisation that moved into the layer behind would change the codes of its weights
    graph = as_layers(fold(record(exact.space, exact.variables), into_after=False))
    own = own_bits(model.space, graph, {node.path for node in recorded.nodes if node.op in WEIGHTED})
    widths = {INPUT: own.image}
    for node in graph.nodes:
        widths |= {name: own.acts[node.path] for name in node.outputs if name != graph.output}
    of_range = (model.space.scheme or EXACT).act_quantizer
    assert isinstance(of_range, Ranged)
    stored = {node.path: _stored(node) for node in recorded.nodes if "input_low" in node.params}
    known: dict[str, Coding] = {}
    for node in graph.nodes:
        if node.path in stored:
            bits = widths[node.inputs[0]]
            low, high = (float(value[0]) for value in of_range.reach(stored[node.path], bits))
            known[node.inputs[0]] = coding(low, high, bits)
    rest = {name: bits for name, bits in widths.items() if name not in known}
    ranges = calibrated(graph, images, exact, observer, rest, batch, known)
    codings = known | {name: coding(*ranges[name], bits) for name, bits in rest.items()}
    weights = {path: min(bits, most_weight_bits) for path, bits in own.weights.items()}
    return assembled(graph, codings, weights, model.meta)


def _stored(node: Node) -> dict[str, Array]:
    """What training stored of the inputs of a layer."""
    prefix = "input_"
    return {
        name.removeprefix(prefix): jnp.asarray(value) for name, value in node.params.items() if name.startswith(prefix)
    }


def own_bits(space: SearchSpace, graph: Graph, trained: set[str]) -> OwnBits:
    """The bits of a network by layer of its folded `graph`; layers that are not `trained` to round have 8.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> layer = Node("Pointwise", "stages_0_0/expand", {}, {}, (INPUT,), ("y",))
        >>> own_bits(tiny.space(bits="w4a6").freeze([0] * 6), Graph((layer,), "y", {}), {"stages_0_0/expand"})
        OwnBits(weights={'stages_0_0/expand': 4}, acts={'stages_0_0/expand': 8}, image=6)
    """
    of_slot = {module_name(slot): _of(slot) for slot in space.slots}

    def taken(value: str) -> int:
        """The most bits that a layer behind `value` takes it in."""
        found = []
        for node in graph.consumers(value):
            if node.path in trained:
                found.append(of_slot[_slot(node)][1])
            elif node.op not in WEIGHTED and (is_clamp(node) or moves(node)):
                found += [taken(name) for name in node.outputs]
            else:
                found.append(WIDEST)
        return max(found, default=WIDEST)

    weights = {
        node.path: of_slot[_slot(node)][0] if node.path in trained else WIDEST
        for node in graph.nodes
        if node.op in WEIGHTED
    }
    return OwnBits(weights, {node.path: max(map(taken, node.outputs)) for node in graph.nodes}, taken(INPUT))


def _slot(node: Node) -> str:
    return node.path.partition("/")[0]
