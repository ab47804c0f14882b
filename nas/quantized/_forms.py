"""The leaf layers of a folded network in numpy, for floats and, where a layer multiplies by nothing real, for codes.

Shapes are those of `search_spaces/layers.py`: maps `[N, H, W, C]`, vectors `[N, C]`. A layer computes in the type of
its input. Convolution multiplies and adds one tap after another as matrix products, so that whole numbers stay exact as
long as their type holds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hw_models.errors import InputError
from nas.exporters._emit import padding
from nas.exporters._graph import INPUT, Graph, Node
from nas.quantized.folded import MULTIPLYING
from search_spaces.layers import ACTIVATIONS

Arrays = tuple[np.ndarray, ...]


def walk(graph: Graph, x: np.ndarray, layer: Callable[[Node, Arrays], Arrays]) -> np.ndarray:
    """The result of a graph for the input `x`, where `layer(node, inputs)` gives the outputs of every layer.

    Values are dropped as soon as nobody needs them any more.
    """
    left = Counter(name for node in graph.nodes for name in node.inputs)
    left[graph.output] += 1
    values = {INPUT: x}
    for node in graph.nodes:
        found = layer(node, tuple(values[name] for name in node.inputs))
        for name in node.inputs:
            left[name] -= 1
            if not left[name]:
                del values[name]
        values |= {name: value for name, value in zip(node.outputs, found, strict=True) if left[name]}
    return values[graph.output]


def computed(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    """The outputs of one layer, in the type of its inputs.

    Raises:
        InputError: a layer or an activation that has no form here.
    """
    if node.op in MULTIPLYING:
        heads, bias = node.params["weight"].astype(inputs[0].dtype), node.params.get("bias")
        sums = (convolved(graph, node, inputs[0], weight) for weight in heads)
        return tuple(total if bias is None else total + bias.astype(total.dtype) for total in sums)
    if node.op not in FORMS:
        raise InputError(f"{node.path}: layer {node.op} cannot be quantized: add a form to nas/quantized/_forms.py")
    return FORMS[node.op](graph, node, inputs)


def convolved(graph: Graph, node: Node, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`x` with the filters `weight [out, in / groups, kh, kw]` of one head, zeros around the map."""
    shape = graph.shapes[node.outputs[0]]
    if node.op in ("Pointwise", "Linear"):
        return x @ weight[:, :, 0, 0].T
    out, inner, _, _ = weight.shape
    total = np.zeros((len(x), *shape[1:3], out), x.dtype)
    for row, column, part in taps(graph, node, x, 0):
        tap = weight[:, :, row, column]
        if inner == 1 and out == x.shape[-1]:
            total += part * tap[:, 0]
        else:
            total += _grouped(part, tap)
    return total


def taps(graph: Graph, node: Node, x: np.ndarray, outside: Any) -> Iterator[tuple[int, int, np.ndarray]]:
    """What every tap of a window sees, `(row, column, [N, H, W, C])`; `outside` stands around the map."""
    kernel, stride, kind = (node.attributes.get(name, "same") for name in ("kernel", "stride", "padding"))
    results = graph.shapes[node.outputs[0]][1:3]
    pads = [padding(kind, size, result, kernel, stride) for size, result in zip(x.shape[1:3], results, strict=True)]
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=outside)
    height, width = ((result - 1) * stride + 1 for result in results)
    for row, column in np.ndindex(kernel, kernel):
        yield row, column, padded[:, row : row + height : stride, column : column + width : stride]


def _grouped(part: np.ndarray, tap: np.ndarray) -> np.ndarray:
    """`[N, H, W, C]` with one tap `[out, in / groups]`: a product for each group."""
    out, inner = tap.shape
    groups = part.shape[-1] // inner
    rows = part.reshape(-1, groups, inner).swapaxes(0, 1)
    product = rows @ tap.reshape(groups, out // groups, inner).swapaxes(1, 2)
    return product.swapaxes(0, 1).reshape(*part.shape[:-1], out)


def pixels(graph: Graph, node: Node, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of a mean over pixels, and how many pixels each of them has."""
    if node.op == "GlobalPool":
        return x.sum((1, 2)), np.asarray(x.shape[1] * x.shape[2])
    total = sum(part for _, _, part in taps(graph, node, x, 0))
    inside = np.ones((1, *x.shape[1:3], 1))
    return np.asarray(total), np.asarray(sum(part for _, _, part in taps(graph, node, inside, 0)))


def _mean(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    total, count = pixels(graph, node, inputs[0])
    return ((total / count).astype(inputs[0].dtype),)


def _pool(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    if node.attributes["function"] != "max":
        return _mean(graph, node, inputs)
    (x,) = inputs
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    parts = [part for _, _, part in taps(graph, node, x, lowest)]
    return (np.maximum.reduce(parts),)


def _activation(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    function = node.attributes["function"]
    if function not in ACTIVATIONS:
        raise InputError(f"{node.path}: activation {function} is not known: give {', '.join(ACTIVATIONS)}")
    return (np.asarray(ACTIVATIONS[function](inputs[0]), inputs[0].dtype),)


def _softmax(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    stacked = np.stack(inputs) / np.asarray(node.attributes.get("temperature", 1.0), inputs[0].dtype)
    shares = np.exp(stacked - stacked.max(0))
    return tuple(shares / shares.sum(0))


def _variance(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    x, mean = inputs
    return (np.square(x - mean[:, None, None]).mean((1, 2), dtype=x.dtype),)


def along_channels(x: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Vectors `[N, C]` convolved with one filter `[k]` along their channels, zeros around."""
    before, width = len(filters) // 2, x.shape[1]
    padded = np.pad(x, ((0, 0), (before, before)))
    return np.asarray(sum(tap * padded[:, place : place + width] for place, tap in enumerate(filters)))


def _channel_conv(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    filters = channel_filters(node).astype(inputs[0].dtype)
    parts = [along_channels(x, each) for x, each in zip(inputs, filters, strict=True)]
    return (sum(parts[1:], parts[0]),)


def channel_filters(node: Node) -> np.ndarray:
    """Filters of a convolution along channels, `[vectors, k]`."""
    filters = node.params["channel_filter"]
    return filters.reshape(len(filters), -1).T


def _scale(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    return (inputs[0] * inputs[1][:, None, None],)


def _subsample(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    stride = node.attributes["stride"]
    return (inputs[0][:, ::stride, ::stride],)


def _width(graph: Graph, name: str) -> int:
    return graph.shapes[name][-1]


def _fit_channels(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    wanted, (x,) = _width(graph, node.outputs[0]), inputs
    missing = max(0, wanted - x.shape[-1])
    return (np.pad(x[..., :wanted], ((0, 0), (0, 0), (0, 0), (0, missing))),)


def _tile(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    wanted, (x,) = _width(graph, node.outputs[0]), inputs
    return (np.concatenate([x] * -(-wanted // x.shape[-1]), -1)[..., :wanted],)


def _split(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    ends = np.cumsum([_width(graph, name) for name in node.outputs])
    return tuple(np.split(inputs[0], ends, axis=-1)[: len(ends)])


def _interleave(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    return (np.stack(inputs, -1).reshape(*inputs[0].shape[:-1], -1),)


def _deinterleave(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    split = inputs[0].reshape(len(inputs[0]), -1, node.attributes["heads"])
    return tuple(split[..., head] for head in range(split.shape[-1]))


FORMS: dict[str, Callable[[Graph, Node, Arrays], Arrays]] = {
    "Activation": _activation,
    "Add": lambda graph, node, inputs: (inputs[0] + inputs[1],),
    "HeadSum": lambda graph, node, inputs: (sum(inputs[1:], inputs[0]),),
    "GlobalPool": _mean,
    "Pool": _pool,
    "Softmax": _softmax,
    "Variance": _variance,
    "ChannelConv": _channel_conv,
    "Scale": _scale,
    "Multiply": lambda graph, node, inputs: (inputs[0] * inputs[1],),
    "Maximum": lambda graph, node, inputs: (np.maximum.reduce(inputs),),
    "Subsample": _subsample,
    "Flatten": lambda graph, node, inputs: (inputs[0].reshape(len(inputs[0]), -1),),
    "FitChannels": _fit_channels,
    "Tile": _tile,
    "Split": _split,
    "Concat": lambda graph, node, inputs: (np.concatenate(inputs, -1),),
    "Interleave": _interleave,
    "Deinterleave": _deinterleave,
}
