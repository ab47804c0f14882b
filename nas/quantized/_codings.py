"""Which codes every value of a network gets, from its range and from the layers around it."""

from __future__ import annotations

import numpy as np

from nas.exporters._graph import Graph, Node
from nas.quantized.folded import renamed
from nas.quantized.integer import CLAMPS, Coding, is_mean
from search_spaces.quantizers._uniform import affine, symmetric

MOVES = ("Concat", "Deinterleave", "FitChannels", "Flatten", "Interleave", "Maximum", "Split", "Subsample", "Tile")


def coding(low: float, high: float, bits: int, signed: bool = False) -> Coding:
    """Unsigned codes over a range that holds 0, or signed ones over plus and minus its larger end.

    Example:
        >>> coding(-1.0, 3.0, 8)[1:4], coding(-1.0, 3.0, 8, signed=True)[1:4]
        ((64, 0, 255), (0, -128, 127))
    """
    if signed:
        half = 2 ** (bits - 1)
        return Coding(float(symmetric(max(-low, high), bits)), 0, -half, half - 1, bits, True)
    step, zero_point = affine(low, high, bits)
    return Coding(float(step), int(zero_point), 0, 2**bits - 1, bits)


def placed(graph: Graph, codings: dict[str, Coding]) -> tuple[Graph, dict[str, Coding]]:
    """The graph without the clamps that codings do themselves, and the coding of every value that is left."""
    codings = dict(codings)
    same: dict[str, str] = {}
    clamps: dict[str, list[str]] = {}  # activations that the codes of a value do, whatever steps they are in

    def code(name: str, given: Coding) -> None:
        for function in clamps.get(name, ()):
            given = _clamped(given, function)
        codings[name] = given

    for node in graph.nodes:
        if not is_clamp(node) or node.outputs[0] == graph.output:
            continue
        (taken,), (given,), function = node.inputs, node.outputs, node.attributes["function"]
        before = same.get(taken, taken)
        if len(graph.consumers(taken)) == 1:
            same[given] = before
            clamps.setdefault(before, []).append(function)
            code(before, codings.pop(given))
        elif function == "identity":
            codings[given] = codings[before]
        else:
            clamps[given] = [function]
            code(given, codings[given])
    nodes = tuple(node for node in graph.nodes if node.outputs[0] not in same)
    graph = renamed(Graph(nodes, graph.output, graph.shapes), same)
    settled = set()
    for node in reversed(graph.nodes):
        if moves(node) and len(node.outputs) == 1 and node.outputs[0] in codings:
            for name in node.inputs:
                if len(graph.consumers(name)) == 1:
                    code(name, codings[node.outputs[0]])
                    settled.add(name)
    for node in graph.nodes:
        if moves(node) and len(node.inputs) == 1:
            for name in node.outputs:
                if name in codings and name not in settled:
                    code(name, codings[node.inputs[0]])
    return graph, codings


def is_clamp(node: Node) -> bool:
    """Whether a layer is an activation that codes do by where they end.

    Example:
        >>> is_clamp(Node("Activation", "", {"function": "relu"}, {}, (), ()))
        True
    """
    return node.op == "Activation" and node.attributes["function"] in CLAMPS


def _clamped(given: Coding, function: str) -> Coding:
    """The codes that an activation can give."""
    if function == "identity":
        return given
    first, last = max(given.first, given.zero_point), given.last
    if function == "relu6":
        last = min(last, given.zero_point + int(np.rint(6 / given.step)))
    return given._replace(first=first, last=last)


def moves(node: Node) -> bool:
    """Layers whose results are some of their inputs, so that rounding and clamping may come before or after them."""
    return node.op in MOVES or (node.op == "Pool" and not is_mean(node))
