"""What masks leave of a network: parameters and multiply-accumulates, by layer and in all."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from hw_models.workload import Layer, Op
from nas.exporters._graph import Graph, Node
from nas.pruning.coupling import graph_of
from nas.pruning.targets import WEIGHTS, leaf_of
from search_spaces.network import variable_shapes
from search_spaces.space import SearchSpace

FILTERS = {**WEIGHTS, "ChannelConv": "channel_filter"}


class Kept(NamedTuple):
    """Weights of one layer, and multiply-accumulates of one image; those of them that are kept."""

    path: str
    weights: int
    kept_weights: int
    macs: int
    kept_macs: int


class Count(NamedTuple):
    """Layers, and the sums of the network; `params` are all parameters, biases and scales among them."""

    layers: tuple[Kept, ...]
    params: int
    kept_params: int
    macs: int
    kept_macs: int

    @property
    def params_share(self) -> float:
        """Kept parameters over all."""
        return self.kept_params / self.params

    @property
    def macs_share(self) -> float:
        """Kept multiply-accumulates over all."""
        return self.kept_macs / self.macs


def counted(space: SearchSpace, masks: Any) -> Count:
    """What a tree of masks leaves of a frozen space; without masks all of it.

    A weight that is zero costs nothing here. Whether a device saves it is another matter (`hw_models.compression`).

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> whole = counted(space, None)
        >>> whole.params == space.params, whole.macs == space.macs, whole.params_share
        (True, True, 1.0)
    """
    shapes, graph = variable_shapes(space)["params"], graph_of(space)
    masks = jax.tree.map(lambda _: None, shapes) if masks is None else masks
    left = jax.tree.map(
        lambda mask, leaf: math.prod(leaf.shape) if mask is None else int(np.asarray(mask).sum()),
        masks, shapes, is_leaf=lambda leaf: leaf is None,
    )  # fmt: skip
    rows = []
    for node in graph.nodes:
        if node.op in FILTERS:
            name = FILTERS[node.op]
            pixels = layer_of(graph, node).macs // node.params[name].size
            kept = leaf_of(left, node.path, name)
            rows.append(Kept(node.path, node.params[name].size, kept, pixels * node.params[name].size, pixels * kept))
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    return Count(
        tuple(rows), params, sum(jax.tree.leaves(left)), sum(r.macs for r in rows), sum(r.kept_macs for r in rows)
    )


def layer_of(graph: Graph, node: Node) -> Layer:
    """A recorded layer with weights in plain numbers, for cost models.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> graph = graph_of(tiny.space().freeze([0] * 6))
        >>> layer_of(graph, graph.nodes[0]).macs
        4608
    """
    x, y = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    if node.op == "ChannelConv":
        return Layer(Op.CHANNEL_CONV, x[-1], 1, x[-1], 1, len(node.inputs), 1, len(node.params["channel_filter"]))
    in_hw, out_hw = x[1:3] if len(x) == 4 else (1, 1), y[1:3] if len(y) == 4 else (1, 1)
    if node.op == "Linear":
        return Layer(Op.LINEAR, *in_hw, *out_hw, x[-1], y[-1])
    weight = node.params[WEIGHTS[node.op]]
    kernel, stride = (weight.shape[0] if weight.ndim == 4 else 1), int(node.attributes.get("stride", 1))
    if node.op == "Depthwise":
        return Layer(Op.DEPTHWISE, *in_hw, *out_hw, x[-1], x[-1] * weight.shape[3], kernel, kernel, stride, x[-1])
    groups = int(node.attributes.get("groups", 1))
    return Layer(Op.CONV, *in_hw, *out_hw, x[-1], y[-1], kernel, kernel, stride, groups)
