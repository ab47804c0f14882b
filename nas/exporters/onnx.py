"""ONNX: one file that ONNX Runtime and most embedded tool chains read.

The graph is written directly, layer by layer. Its input `images` is float32 `[batch, C, H, W]` with values 0 to 1 (the
pixel divided by 255); mean and deviation are applied inside. Its output is `logits` `[batch, classes]`.

Normalisation is folded into the convolution before it, or, where the heads of a FlyNet block are reduced in between,
into the 1x1 convolution after it, so that it costs nothing. A depthwise convolution with several heads becomes one
depthwise convolution per head and a maximum: ONNX Runtime 1.31 on CPU (one thread) ran that 1.7 to 6.7 times faster
than one grouped convolution with as many outputs and a maximum over them, for 48 to 192 channels and kernels 3, 5, 7.

Vectors per channel stay `[batch, C, 1, 1]` inside, so that they need no reshaping before they scale a map.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.errors import InputError
from nas.exporters._graph import INPUT, Graph, Node, record
from nas.model import Model
from search_spaces.layers import NORM_EPSILON

FILE = "model.onnx"
OPSET = 17
IR_VERSION = 10
OUTPUT = "logits"
LINEAR = ("Conv", "Pointwise", "Depthwise", "Linear")


def export(model: Model, folder: str | Path) -> tuple[str, ...]:
    """Write `model.onnx` into `folder` and return its name.

    Raises:
        InputError: onnx is not installed, or a layer has no ONNX form here.
    """
    (Path(folder) / FILE).write_bytes(build(model).SerializeToString())
    return (FILE,)


def build(model: Model) -> Any:
    """The `onnx.ModelProto` of a network, checked.

    Raises:
        InputError: onnx is not installed, or a layer has no ONNX form here.

    Example:
        >>> import jax
        >>> from nas.model import Meta
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0, 0, 0, 0, 0, 0])
        >>> meta = Meta("tiny", tuple("0123456789"), (0.5,), (0.5,))
        >>> proto = build(Model(space, fresh(space, jax.random.key(0)), meta))
        >>> [value.name for value in (*proto.graph.input, *proto.graph.output)]
        ['images', 'logits']
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ModuleNotFoundError as error:
        raise InputError("the ONNX export needs the package onnx, which is not installed: pip install onnx") from error
    space, meta = model.space, model.meta
    writer = _Writer(record(space, model.variables), helper, onnx.numpy_helper)
    writer.write(np.asarray(meta.mean, np.float32), np.asarray(meta.std, np.float32))
    shape = ("batch", space.input_channels, space.input_hw, space.input_hw)
    graph = helper.make_graph(
        writer.nodes,
        space.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("batch", space.classes))],
        writer.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="flynas")
    properties = {
        "network": meta.network,
        "class_names": json.dumps(list(meta.class_names), ensure_ascii=False),
        "preprocessing": "pixel / 255 as float32 [batch, channels, height, width]; mean and deviation are in the graph",
        "mean": json.dumps(list(meta.mean)),
        "std": json.dumps(list(meta.std)),
    }
    helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto, full_check=True)
    return proto


class _Writer:
    """Turns a graph into ONNX nodes and constants."""

    def __init__(self, graph: Graph, helper: Any, arrays: Any):
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._helper, self._arrays = helper, arrays
        self._same: dict[str, str] = {}  # values that need no node of their own, and what they are
        # float64 until everything is folded, so that folding costs no precision
        self._weights = {node.path: _weights(node) for node in graph.nodes if node.op in LINEAR}
        self._biases: dict[str, np.ndarray | None] = {
            node.path: node.params["bias"].astype(np.float64) if "bias" in node.params else None
            for node in graph.nodes
            if node.op in LINEAR
        }

    def write(self, mean: np.ndarray, std: np.ndarray) -> None:
        centred = self.add("Sub", [INPUT, self.constant("mean", _per_channel(mean))], "centred")
        self._same[INPUT] = self.add("Div", [centred, self.constant("std", _per_channel(std))], "normalised")
        folded = {node.outputs[0] for node in self.graph.nodes if node.op == "Norm" and self._fold(node)}
        for node in self.graph.nodes:
            if node.outputs[0] in folded:
                self.same(node.outputs[0], node.inputs[0])
            elif node.op in EMIT:
                EMIT[node.op](self, node)
            else:
                raise InputError(f"{node.path}: layer {node.op} has no ONNX form: add one to nas/exporters/onnx.py")
        self.add("Flatten", [self.value(self.graph.output)], OUTPUT, axis=1)

    def value(self, name: str) -> str:
        """The name of a value as written, after what was folded away."""
        while name in self._same:
            name = self._same[name]
        return name

    def values(self, node: Node) -> list[str]:
        return [self.value(name) for name in node.inputs]

    def same(self, name: str, other: str) -> None:
        self._same[name] = self.value(other)

    def add(self, op: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(self._helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(self._arrays.from_array(np.asarray(array, order="C"), name))
        return name

    def reshape(self, value: str, shape: list[int], output: str) -> str:
        """0 keeps a length, -1 takes what is left."""
        return self.add("Reshape", [value, self.constant(f"{output}/shape", np.asarray(shape, np.int64))], output)

    def convolve(self, node: Node, value: str, output: str, head: int = 0, **attributes: Any) -> None:
        weight = self._weights[node.path][head].astype(np.float32)
        inputs = [value, self.constant(f"{output}/weight", weight)]
        bias = self._biases[node.path]
        if bias is not None:
            inputs.append(self.constant(f"{output}/bias", bias.astype(np.float32)))
        self.add("Conv", inputs, output, kernel_shape=weight.shape[2:], **attributes)

    def _fold(self, norm: Node) -> bool:
        """Fold a normalisation into the convolution before or after it; False where neither is possible."""
        factor, offset = _affine(norm)
        before = next((node for node in self.graph.nodes if norm.inputs[0] in node.outputs), None)
        if before is not None and self._foldable(before, norm.inputs[0]) and len(before.outputs) == 1:
            (weight,) = self._weights[before.path]
            self._weights[before.path] = [weight * factor[:, None, None, None]]
            bias = self._biases[before.path]
            self._biases[before.path] = offset if bias is None else bias * factor + offset
            return True
        after = self.graph.consumers(norm.outputs[0])
        if len(after) == 1 and after[0].op == "Pointwise" and self._calls(after[0].path) == 1:
            (weight,) = self._weights[after[0].path]
            bias = self._biases[after[0].path]
            moved = weight[:, :, 0, 0] @ offset
            self._weights[after[0].path] = [weight * factor[None, :, None, None]]
            self._biases[after[0].path] = moved if bias is None else bias + moved
            return True
        return False

    def _foldable(self, before: Node, value: str) -> bool:
        alone = len(self.graph.consumers(value)) == 1 and value != self.graph.output
        return before.op in LINEAR and alone and self._calls(before.path) == 1

    def _calls(self, path: str) -> int:
        return sum(node.path == path for node in self.graph.nodes)


def _weights(node: Node) -> list[np.ndarray]:
    """Weights in the order of ONNX, `[out, in, kh, kw]`, one array per head."""
    if node.op == "Conv":
        return [node.params["kernel"].astype(np.float64).transpose(3, 2, 0, 1)]
    if node.op == "Depthwise":
        filters = node.params["filters"].astype(np.float64)  # [kh, kw, C, heads]
        return [filters[..., head].transpose(2, 0, 1)[:, None] for head in range(filters.shape[-1])]
    return [node.params["kernel"].astype(np.float64).T[:, :, None, None]]


def _affine(norm: Node) -> tuple[np.ndarray, np.ndarray]:
    """Stored statistics as `x * factor + offset`, both `[C]`."""
    scale, bias, mean, var = (norm.params[name].astype(np.float64) for name in ("scale", "bias", "mean", "var"))
    factor = scale / np.sqrt(var + NORM_EPSILON)
    return factor, bias - mean * factor


def _per_channel(vector: np.ndarray) -> np.ndarray:
    return vector.astype(np.float32)[None, :, None, None]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of length `size`; where uneven, the extra one is at the end, as XLA pads SAME.

    Example:
        >>> same_padding(28, 3, 2), same_padding(7, 3, 2)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _spatial(writer: _Writer, node: Node) -> None:
    _, height, width, channels = writer.graph.shapes[node.inputs[0]]
    kernel, stride = node.attributes["kernel"], node.attributes["stride"]
    top, bottom = same_padding(height, kernel, stride)
    left, right = same_padding(width, kernel, stride)
    groups = channels if node.op == "Depthwise" else node.attributes["groups"]
    for head, output in enumerate(node.outputs):
        writer.convolve(
            node,
            writer.values(node)[0],
            output,
            head,
            strides=[stride, stride],
            pads=[top, left, bottom, right],
            group=groups,
        )


def _pointwise(writer: _Writer, node: Node) -> None:
    writer.convolve(node, writer.values(node)[0], node.outputs[0])


def _norm(writer: _Writer, node: Node) -> None:
    factor, offset = (_per_channel(part) for part in _affine(node))
    scaled = f"{node.outputs[0]}/scaled"
    writer.add("Mul", [*writer.values(node), writer.constant(f"{node.outputs[0]}/factor", factor)], scaled)
    writer.add("Add", [scaled, writer.constant(f"{node.outputs[0]}/offset", offset)], node.outputs[0])


def _activation(writer: _Writer, node: Node) -> None:
    function, output = node.attributes["function"], node.outputs[0]
    if function == "identity":
        writer.same(output, node.inputs[0])
    elif function == "relu6":
        limits = [
            writer.constant(f"{output}/{name}", np.asarray(bound, np.float32))
            for name, bound in (("low", 0), ("high", 6))
        ]
        writer.add("Clip", [*writer.values(node), *limits], output)
    elif function == "hard_sigmoid":
        writer.add("HardSigmoid", writer.values(node), output, alpha=1 / 6, beta=0.5)
    elif function in SIMPLE:
        writer.add(SIMPLE[function], writer.values(node), output)
    else:
        raise InputError(f"{node.path}: activation {function} has no ONNX form: add one to nas/exporters/onnx.py")


def _global_pool(writer: _Writer, node: Node) -> None:
    writer.add("GlobalAveragePool", writer.values(node), node.outputs[0])


def _channel_conv(writer: _Writer, node: Node) -> None:
    weight, output = node.params["channel_filter"], node.outputs[0]
    half = len(weight) // 2
    row = writer.reshape(writer.values(node)[0], [0, 1, -1], f"{output}/row")
    filtered = f"{output}/filtered"
    filters = writer.constant(f"{output}/weight", weight[None, None])
    writer.add("Conv", [row, filters], filtered, kernel_shape=[len(weight)], pads=[half, half])
    writer.reshape(filtered, [0, -1, 1, 1], output)


def _elementwise(op: str) -> Callable[[_Writer, Node], None]:
    def emit(writer: _Writer, node: Node) -> None:
        if op == "Max" and len(node.inputs) == 1:
            writer.same(node.outputs[0], node.inputs[0])
        else:
            writer.add(op, writer.values(node), node.outputs[0])

    return emit


def _interleave(writer: _Writer, node: Node) -> None:
    if len(node.inputs) == 1:
        writer.same(node.outputs[0], node.inputs[0])
        return
    stacked = writer.add("Concat", writer.values(node), f"{node.outputs[0]}/stacked", axis=2)
    writer.reshape(stacked, [0, -1, 1, 1], node.outputs[0])


def _deinterleave(writer: _Writer, node: Node) -> None:
    heads = node.attributes["heads"]
    if heads == 1:
        writer.same(node.outputs[0], node.inputs[0])
        return
    stacked = writer.reshape(writer.values(node)[0], [0, -1, heads, 1], f"{node.outputs[0]}/stacked")
    writer.add("Split", [stacked], list(node.outputs), axis=2)


SIMPLE = {"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid"}
EMIT: dict[str, Callable[[_Writer, Node], None]] = {
    "Conv": _spatial,
    "Depthwise": _spatial,
    "Pointwise": _pointwise,
    "Linear": _pointwise,
    "Norm": _norm,
    "Activation": _activation,
    "GlobalPool": _global_pool,
    "ChannelConv": _channel_conv,
    "Scale": _elementwise("Mul"),
    "Add": _elementwise("Add"),
    "Maximum": _elementwise("Max"),
    "Interleave": _interleave,
    "Deinterleave": _deinterleave,
}
