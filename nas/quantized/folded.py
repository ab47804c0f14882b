"""Batch normalisation folded into the weights of a recorded network.

A normalisation with stored statistics is `x * factor + offset`. It is folded into the multiplying layer before it or,
where heads are reduced in between, into the 1x1 convolution after it. One that has neither is left: `as_layers` makes
it a depthwise 1x1 convolution.

Source: Liang et al. 2021 (survey of pruning and quantization), equations 2 and 3.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nas.exporters._graph import Graph, Node
from search_spaces.normalisation import NORM_EPSILON

MULTIPLYING = ("Conv", "Pointwise", "Depthwise", "Linear")


def affine(norm: Node) -> tuple[np.ndarray, np.ndarray]:
    """Stored statistics of a normalisation as `x * factor + offset`, both `[C]`, in float64.

    Example:
        >>> values = {"scale": 2.0, "bias": 1.0, "mean": 3.0, "var": 4.0}
        >>> norm = Node("Norm", "n", {}, {name: np.asarray([value]) for name, value in values.items()}, ("x",), ("y",))
        >>> factor, offset = affine(norm)
        >>> round(factor.item(), 4), round(offset.item(), 4)
        (1.0, -2.0)
    """
    scale, bias, mean, var = (norm.params[name].astype(np.float64) for name in ("scale", "bias", "mean", "var"))
    factor = scale / np.sqrt(var + NORM_EPSILON)
    return factor, bias - mean * factor


def fold(graph: Graph, into_after: bool = True) -> Graph:
    """The same network without the normalisations that can be folded; with `into_after` into the layer behind as well.

    The parameters of multiplying layers become `weight [heads, out, in / groups, kh, kw]` and, where there is one,
    `bias [out]`, both in float64 so that folding costs no precision.

    Example:
        >>> import jax
        >>> from nas.exporters._graph import record
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0, 0, 0, 0, 0, 0])
        >>> graph = record(space, fresh(space, jax.random.key(0)))
        >>> [sum(node.op == "Norm" for node in each.nodes) for each in (graph, fold(graph))]
        [8, 0]
    """
    nodes = {number: _ordered(node) for number, node in enumerate(graph.nodes)}
    for number, node in enumerate(graph.nodes):
        if node.op != "Norm":
            continue
        changed = _into_before(graph, nodes, node) or (_into_after(graph, nodes, node) if into_after else None)
        if changed is not None:
            nodes[changed[0]] = changed[1]
            del nodes[number]
    kept = {id(graph.nodes[number]) for number in nodes}
    same = {node.outputs[0]: node.inputs[0] for node in graph.nodes if id(node) not in kept}
    return renamed(Graph(tuple(nodes[number] for number in sorted(nodes)), graph.output, graph.shapes), same)


def renamed(graph: Graph, same: dict[str, str]) -> Graph:
    """`graph` where every value named in `same` is replaced by the one it stands for.

    Example:
        >>> node = Node("Flatten", "f", {}, {}, ("b",), ("c",))
        >>> renamed(Graph((node,), "c", {}), {"b": "a"}).nodes[0].inputs
        ('a',)
    """

    def known(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    nodes = [dataclasses.replace(node, inputs=tuple(map(known, node.inputs))) for node in graph.nodes]
    return Graph(tuple(nodes), known(graph.output), graph.shapes)


def as_layers(graph: Graph) -> Graph:
    """A folded graph whose remaining normalisations are depthwise 1x1 convolutions, so that all weights are alike.

    Example:
        >>> params = {name: np.ones(3) for name in ("scale", "bias", "mean", "var")}
        >>> node = as_layers(Graph((Node("Norm", "n", {}, params, ("x",), ("y",)),), "y", {})).nodes[0]
        >>> node.op, node.params["weight"].shape, node.params["bias"].shape
        ('Depthwise', (1, 3, 1, 1, 1), (3,))
    """
    nodes = []
    for node in graph.nodes:
        if node.op == "Norm":
            factor, offset = affine(node)
            params = {"weight": factor[None, :, None, None, None], "bias": offset}
            node = dataclasses.replace(node, op="Depthwise", attributes={"kernel": 1, "stride": 1}, params=params)
        nodes.append(node)
    return Graph(tuple(nodes), graph.output, graph.shapes)


def _ordered(node: Node) -> Node:
    if node.op not in MULTIPLYING:
        return node
    if node.op == "Conv":
        weight = node.params["kernel"].transpose(3, 2, 0, 1)[None]
    elif node.op == "Depthwise":
        weight = node.params["filters"].transpose(3, 2, 0, 1)[:, :, None]  # from [kh, kw, C, heads]
    else:
        weight = node.params["kernel"].T[None, :, :, None, None]
    params = {"weight": weight.astype(np.float64)}
    if "bias" in node.params:
        params["bias"] = node.params["bias"].astype(np.float64)
    return dataclasses.replace(node, params=params)


def _into_before(graph: Graph, nodes: dict[int, Node], norm: Node) -> tuple[int, Node] | None:
    """Where the layer before is, and that layer with `norm` folded into it; None where it cannot be."""
    value = norm.inputs[0]
    place = next((number for number, node in enumerate(graph.nodes) if value in node.outputs), None)
    if place is None or place not in nodes:
        return None
    before = nodes[place]
    alone = len(graph.consumers(value)) == 1 and value != graph.output
    if before.op not in MULTIPLYING or not alone or len(before.outputs) != 1 or not _called_once(graph, before):
        return None
    factor, offset = affine(norm)
    bias = before.params.get("bias")
    params = {
        "weight": before.params["weight"] * factor[:, None, None, None],
        "bias": offset if bias is None else bias * factor + offset,
    }
    return place, dataclasses.replace(before, params=params)


def _into_after(graph: Graph, nodes: dict[int, Node], norm: Node) -> tuple[int, Node] | None:
    """As `_into_before`, for the 1x1 convolution after; no other has all its weights inside the map at every pixel."""
    value = norm.outputs[0]
    takers = graph.consumers(value)
    if len(takers) != 1 or value == graph.output or takers[0].op != "Pointwise":
        return None
    if not _called_once(graph, takers[0]):
        return None
    place = graph.nodes.index(takers[0])
    after = nodes[place]
    factor, offset = affine(norm)
    weight, bias = after.params["weight"], after.params.get("bias")
    moved = weight[0, :, :, 0, 0] @ offset
    params = {
        "weight": weight * factor[None, :, None, None],
        "bias": moved if bias is None else bias + moved,
    }
    return place, dataclasses.replace(after, params=params)


def _called_once(graph: Graph, node: Node) -> bool:
    return sum(other.path == node.path for other in graph.nodes) == 1
