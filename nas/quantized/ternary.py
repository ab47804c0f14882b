"""Ternary layers of a network as reduce and scale stores and runs them, beside what cost models count.

A cost model calls a layer ternary by its bits and its pattern of zeros, and counts the zeros that the density leaves.
What the layer is says its weights: rounding makes more zeros, and some quantizers have four values of 2 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hw_models.compression import is_ternary, ternary_bits, weight_bytes
from hw_models.workload import Layer, Workload
from nas.exporters._graph import Graph, Node, record
from nas.pruning.counting import layer_of
from nas.pruning.targets import WEIGHTS
from search_spaces.arithmetic import ras_codec
from search_spaces.arithmetic.reduce_and_scale import operations
from search_spaces.block import Block
from search_spaces.density import Sparsity, in_pattern
from search_spaces.network import exact_form, module_name
from search_spaces.precision import has_bits, in_format
from search_spaces.space import SearchSpace

MOST_ACT_BITS = 8  # of activations that are added as integers


class Ternary(NamedTuple):
    """A layer that cost models take for ternary.

    `signs` are those of the transposed weights, int8 `[O, I]`, with all taps of a kernel among the inputs; None where
    the weights of an output have more than one value above 0, or below.
    """

    path: str
    layer: Layer
    signs: np.ndarray | None


def ternary_layers(space: SearchSpace, variables: Any) -> list[Ternary]:
    """The layers of a frozen space that cost models take for ternary, in the order of execution.

    Example:
        >>> import jax
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2a8", sparsity="unstructured", densities="0.3").freeze([0] * 6)
        >>> [found.path for found in ternary_layers(space, fresh(space, jax.random.key(0)))][:2]
        ['stages_0_0/expand', 'stages_0_0/project']
    """
    if not has_bits(space) or space.sparsity is None:
        return []
    graph = record(*exact_form(space, variables))
    blocks = {module_name(slot): slot.cases[0].block for slot in space.slots}
    found = []
    for node in graph.nodes:
        if node.op in WEIGHTS:
            layer = _priced(graph, node, blocks[node.path.partition("/")[0]], space.sparsity)
            if bool(is_ternary(Workload.of([layer]))[0]):
                found.append(Ternary(node.path, layer, signs_of(node.params[WEIGHTS[node.op]])))
    return found


def _priced(graph: Graph, node: Node, block: Block, sparsity: Sparsity) -> Layer:
    """The layer in the bits and the density that cost models give it."""
    layers = in_format([layer_of(graph, node)], block.settled("weight_bits"), block.settled("act_bits"))
    return in_pattern(layers, block.settled("density"), sparsity, block.HEAD)[0]


def signs_of(weights: np.ndarray) -> np.ndarray | None:
    """Signs of the transposed weights, int8 `[O, I]`, of `weights [..., O]`; None where they are not ternary.

    Example:
        >>> signs_of(np.asarray([[0.5, 0.0], [-0.25, 2.0], [0.5, 2.0]])).tolist()
        [[1, -1, 1], [0, 1, 1]]
        >>> signs_of(np.asarray([[0.5], [0.25]])) is None
        True
    """
    rows = np.asarray(weights).reshape(-1, weights.shape[-1]).T
    sizes, signs = np.abs(rows), np.sign(rows).astype(np.int8)
    for sign in (1, -1):
        there = signs == sign
        first = np.where(there, sizes, np.inf).min(1, keepdims=True)
        if (there & (sizes != first)).any():
            return None
    return signs


def reduced_and_scaled(space: SearchSpace, variables: Any) -> tuple[dict[str, Any], list[str]]:
    """What reduce and scale takes for the ternary layers of a network, as plain values, and notes for a person.

    Nothing where there are none. `bytes` are those that `search_spaces.arithmetic.ras_codec` writes, scales apart, of
    which `overhead_bytes` are code table, headers and filling; `estimated_bytes` those that cost models count, of the
    densities of the space, and `entropy_bytes` the same formula for the zeros that there are. `multiplications` and
    `integer_additions` are those for one image, in the place of `macs`, of the layers that run so, which have
    activations of at most 8 bits. By layer: `density`, the share of weights that are not 0, and `estimated_density`,
    what cost models count.

    Raises:
        RuntimeError: what was written is not what is read back.

    Example:
        >>> import jax
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2a8", sparsity="unstructured", densities="0.3").freeze([0] * 6)
        >>> report, _ = reduced_and_scaled(space, fresh(space, jax.random.key(0)))
        >>> report["multiplications"] < report["integer_additions"] < report["macs"]
        True
    """
    found = ternary_layers(space, variables)
    notes = [
        f"{each.path} is priced as ternary and has weights of more than three values: reduce and scale does not run it"
        for each in found
        if each.signs is None
    ]
    kept = [(each.path, each.layer, each.signs) for each in found if each.signs is not None]
    if not kept:
        return {}, notes
    notes += [
        f"{path} is stored as reduce and scale stores it and has activations of {layer.act_bits} bits, of which it "
        f"runs at most {MOST_ACT_BITS}"
        for path, layer, _ in kept
        if layer.act_bits > MOST_ACT_BITS
    ]
    run = [(layer, each) for _, layer, each in kept if layer.act_bits <= MOST_ACT_BITS]
    signs = [each for _, _, each in kept]
    written = ras_codec.encode(signs)
    if not all(map(np.array_equal, signs, ras_codec.decode(written))):
        raise RuntimeError("the ternary weights that were written are not those that are read back")
    counts = [operations(each, layer.out_h * layer.out_w) for layer, each in run]
    shares = [float(np.count_nonzero(each) / each.size) for each in signs]
    report = {
        "bytes": len(written),
        "overhead_bytes": ras_codec.size(signs).overhead / 8,
        "estimated_bytes": float(weight_bytes(Workload.of([layer for _, layer, _ in kept])).sum()),
        "entropy_bytes": sum(float(ternary_bits(e.size, d)) for e, d in zip(signs, shares, strict=True)) / 8,
        "weights": sum(each.size for each in signs),
        "nonzeros": sum(int(np.count_nonzero(each)) for each in signs),
        "macs": sum(layer.macs for layer, _ in run),
        "multiplications": sum(each.multiplications for each in counts),
        "integer_additions": sum(each.integer_additions for each in counts),
        "layers": {
            path: {"weights": each.size, "density": share, "estimated_density": float(layer.density)}
            for (path, layer, each), share in zip(kept, shares, strict=True)
        },
    }
    return report, notes
