"""The ONNX form of every leaf layer: `EMIT[name of its class](writer, node)` adds its nodes.

Maps are `[batch, C, H, W]` here and channels last in JAX; vectors per channel are `[batch, C, 1, 1]`. So an axis of a
layer's own arithmetic is moved, and a flattened map is put into the order of JAX first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hw_models.errors import InputError
from nas.exporters._graph import Node
from nas.quantized.folded import affine

if TYPE_CHECKING:
    from nas.exporters.onnx import Writer

SIMPLE = {"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid"}
END = np.iinfo(np.int64).max  # a slice to the end of an axis


def per_channel(vector: np.ndarray) -> np.ndarray:
    """`[C]` as a constant that multiplies maps and vectors."""
    return vector.astype(np.float32)[None, :, None, None]


def padding(kind: str, size: int, result: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after an axis of length `size`, for a result of length `result`.

    Where `same` is uneven the extra one is at the end, as XLA pads; `ceil` pads at the end only, `valid` not at all.

    Example:
        >>> padding("same", 28, 14, 3, 2), padding("same", 7, 4, 3, 2), padding("ceil", 8, 4, 3, 2)
        ((0, 1), (1, 1), (0, 1))
    """
    total = max((result - 1) * stride + kernel - size, 0)
    before = total // 2 if kind == "same" else 0
    return before, total - before


def _window(writer: Writer, node: Node) -> dict[str, list[int]]:
    """Strides and padding of a window that moves over the map."""
    kernel, stride, kind = (node.attributes.get(name, "same") for name in ("kernel", "stride", "padding"))
    if kind not in ("same", "valid", "ceil"):
        raise InputError(f"{node.path}: padding {kind} has no ONNX form: add one to nas/exporters/_emit.py")
    sizes, results = (writer.graph.shapes[name][1:3] for name in (node.inputs[0], node.outputs[0]))
    (top, bottom), (left, right) = (
        padding(kind, size, result, kernel, stride) for size, result in zip(sizes, results, strict=True)
    )
    return {"strides": [stride, stride], "pads": [top, left, bottom, right]}


def _channels(writer: Writer, name: str) -> int:
    return writer.graph.shapes[name][-1]


def _spatial(writer: Writer, node: Node) -> None:
    value, groups = writer.values(node)[0], node.attributes.get("groups")
    if node.op == "Depthwise":
        groups = _channels(writer, node.inputs[0])
    for head, output in enumerate(node.outputs):
        writer.convolve(node, value, output, head, group=groups, **_window(writer, node))


def _pointwise(writer: Writer, node: Node) -> None:
    writer.convolve(node, writer.values(node)[0], node.outputs[0])


def _norm(writer: Writer, node: Node) -> None:
    factor, offset = (per_channel(part) for part in affine(node))
    scaled = f"{node.outputs[0]}/scaled"
    writer.add("Mul", [*writer.values(node), writer.constant(f"{node.outputs[0]}/factor", factor)], scaled)
    writer.add("Add", [scaled, writer.constant(f"{node.outputs[0]}/offset", offset)], node.outputs[0])


def _activation(writer: Writer, node: Node) -> None:
    function, output, values = node.attributes["function"], node.outputs[0], writer.values(node)
    if function == "identity":
        writer.same(output, node.inputs[0])
    elif function == "relu6":
        limits = [
            writer.constant(f"{output}/{name}", np.asarray(bound, np.float32))
            for name, bound in (("low", 0), ("high", 6))
        ]
        writer.add("Clip", [*values, *limits], output)
    elif function == "hard_sigmoid":
        writer.add("HardSigmoid", values, output, alpha=1 / 6, beta=0.5)
    elif function == "silu":
        writer.add("Mul", [*values, writer.add("Sigmoid", values, f"{output}/gate")], output)
    elif function in SIMPLE:
        writer.add(SIMPLE[function], values, output)
    else:
        raise InputError(f"{node.path}: activation {function} has no ONNX form: add one to nas/exporters/_emit.py")


def _global_pool(writer: Writer, node: Node) -> None:
    writer.add("GlobalAveragePool", writer.values(node), node.outputs[0])


def _variance(writer: Writer, node: Node) -> None:
    output = node.outputs[0]
    centred = writer.add("Sub", writer.values(node), f"{output}/centred")
    squared = writer.add("Mul", [centred, centred], f"{output}/squared")
    writer.add("GlobalAveragePool", [squared], output)


def _channel_conv(writer: Writer, node: Node) -> None:
    weight, output = node.params["channel_filter"], node.outputs[0]
    weight = weight.reshape(len(weight), -1)
    length = _channels(writer, node.inputs[0])
    rows = [
        writer.reshape(value, [0, 1, -1], f"{output}/row{number or ''}")
        for number, value in enumerate(writer.values(node))
    ]
    joined = rows[0] if len(rows) == 1 else writer.add("Concat", rows, f"{output}/rows", axis=1)
    filters = writer.filters(node, output, weight.T[None])
    pads = list(padding("same", length, length, len(weight), 1))
    filtered = writer.add("Conv", [joined, filters], f"{output}/filtered", kernel_shape=[len(weight)], pads=pads)
    writer.reshape(filtered, [0, -1, 1, 1], output)


def _elementwise(op: str) -> Callable[[Writer, Node], None]:
    def emit(writer: Writer, node: Node) -> None:
        if len(node.inputs) == 1:  # one head alone is its own maximum and its own sum
            writer.same(node.outputs[0], node.inputs[0])
        else:
            writer.add(op, writer.values(node), node.outputs[0])

    return emit


def _pool(writer: Writer, node: Node) -> None:
    kernel, function = node.attributes["kernel"], node.attributes["function"]
    window = {"kernel_shape": [kernel, kernel], **_window(writer, node)}
    if function == "max":
        writer.add("MaxPool", writer.values(node), node.outputs[0], **window)
    else:
        writer.add("AveragePool", writer.values(node), node.outputs[0], count_include_pad=0, **window)


def _subsample(writer: Writer, node: Node) -> None:
    stride = node.attributes["stride"]
    if stride == 1:
        writer.same(node.outputs[0], node.inputs[0])
    else:
        writer.slice(writer.values(node)[0], node.outputs[0], [0, 0], [END, END], [2, 3], [stride, stride])


def _flatten(writer: Writer, node: Node) -> None:
    output, (value,) = node.outputs[0], writer.values(node)
    if writer.graph.shapes[node.inputs[0]][1:3] == (1, 1):
        writer.same(output, node.inputs[0])
        return
    last = writer.add("Transpose", [value], f"{output}/channels_last", perm=[0, 2, 3, 1])
    writer.reshape(last, [0, -1, 1, 1], output)


def _leading(writer: Writer, value: str, output: str, channels: int) -> None:
    writer.slice(value, output, [0], [channels], [1], [1])


def _fit_channels(writer: Writer, node: Node) -> None:
    output, (value,) = node.outputs[0], writer.values(node)
    have, want = (_channels(writer, name) for name in (node.inputs[0], output))
    if have == want:
        writer.same(output, node.inputs[0])
    elif have > want:
        _leading(writer, value, output, want)
    else:
        pads = writer.constant(f"{output}/pads", np.asarray([0, 0, 0, 0, 0, want - have, 0, 0], np.int64))
        writer.add("Pad", [value, pads], output)


def _tile(writer: Writer, node: Node) -> None:
    output, (value,) = node.outputs[0], writer.values(node)
    have, want = (_channels(writer, name) for name in (node.inputs[0], output))
    repeats = -(-want // have)
    if have == want:
        writer.same(output, node.inputs[0])
    elif repeats * have == want:
        writer.add("Concat", [value] * repeats, output, axis=1)
    else:
        if repeats > 1:
            value = writer.add("Concat", [value] * repeats, f"{output}/repeated", axis=1)
        _leading(writer, value, output, want)


def _split(writer: Writer, node: Node) -> None:
    (value,), outputs = writer.values(node), list(node.outputs)
    sizes = [_channels(writer, name) for name in outputs]
    rest = _channels(writer, node.inputs[0]) - sum(sizes)
    if len(outputs) == 1 and not rest:
        writer.same(outputs[0], node.inputs[0])
        return
    if rest:
        outputs, sizes = [*outputs, f"{outputs[0]}/rest"], [*sizes, rest]
    lengths = writer.constant(f"{outputs[0]}/sizes", np.asarray(sizes, np.int64))
    writer.add("Split", [value, lengths], outputs, axis=1)


def _concat(writer: Writer, node: Node) -> None:
    if len(node.inputs) == 1:
        writer.same(node.outputs[0], node.inputs[0])
    else:
        writer.add("Concat", writer.values(node), node.outputs[0], axis=1)


def _stacked(writer: Writer, node: Node) -> str:
    """The inputs side by side in a new axis behind the channels, `[batch, C, heads, pixels]`."""
    output, values = node.outputs[0], writer.values(node)
    if len(writer.graph.shapes[node.inputs[0]]) == 4:
        channels = _channels(writer, node.inputs[0])
        values = [
            writer.reshape(value, [0, channels, 1, -1], f"{output}/row_{number}") for number, value in enumerate(values)
        ]
    return writer.add("Concat", values, f"{output}/stacked", axis=2)


def _interleave(writer: Writer, node: Node) -> None:
    output = node.outputs[0]
    if len(node.inputs) == 1:
        writer.same(output, node.inputs[0])
        return
    *pixels, channels = writer.graph.shapes[output][1:]
    writer.reshape(_stacked(writer, node), [0, channels, *(pixels or (1, 1))], output)


def _deinterleave(writer: Writer, node: Node) -> None:
    heads = node.attributes["heads"]
    if heads == 1:
        writer.same(node.outputs[0], node.inputs[0])
        return
    stacked = writer.reshape(writer.values(node)[0], [0, -1, heads, 1], f"{node.outputs[0]}/stacked")
    writer.split(stacked, list(node.outputs), axis=2)


def _softmax(writer: Writer, node: Node) -> None:
    first, temperature = node.outputs[0], node.attributes.get("temperature", 1.0)
    stacked = _stacked(writer, node)
    if temperature != 1:
        divisor = writer.constant(f"{first}/temperature", np.asarray(temperature, np.float32))
        stacked = writer.add("Div", [stacked, divisor], f"{first}/cooled")
    shares = writer.add("Softmax", [stacked], f"{first}/shares", axis=2)
    shape = writer.graph.shapes[first]
    if len(shape) == 2:
        writer.split(shares, list(node.outputs), axis=2)
        return
    parts = [f"{output}/share" for output in node.outputs]
    writer.split(shares, parts, axis=2)
    for part, output in zip(parts, node.outputs, strict=True):
        writer.reshape(part, [0, shape[3], shape[1], shape[2]], output)


EMIT: dict[str, Callable[[Writer, Node], None]] = {
    "Conv": _spatial,
    "Depthwise": _spatial,
    "Pointwise": _pointwise,
    "Linear": _pointwise,
    "Norm": _norm,
    "Activation": _activation,
    "GlobalPool": _global_pool,
    "Variance": _variance,
    "ChannelConv": _channel_conv,
    "Softmax": _softmax,
    "Scale": _elementwise("Mul"),
    "Multiply": _elementwise("Mul"),
    "Add": _elementwise("Add"),
    "Maximum": _elementwise("Max"),
    "HeadSum": _elementwise("Sum"),
    "Pool": _pool,
    "Subsample": _subsample,
    "Flatten": _flatten,
    "FitChannels": _fit_channels,
    "Tile": _tile,
    "Split": _split,
    "Concat": _concat,
    "Interleave": _interleave,
    "Deinterleave": _deinterleave,
}
