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
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.errors import InputError
from nas.exporters._emit import EMIT, affine, per_channel
from nas.exporters._graph import INPUT, Graph, Node, record
from nas.model import Model

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
    writer = Writer(record(space, model.variables), helper, onnx.numpy_helper)
    writer.write(np.asarray(meta.mean, np.float32), np.asarray(meta.std, np.float32))
    shape = ("batch", space.input_channels, space.image_hw, space.image_hw)
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


class Writer:
    """Turns a graph into ONNX nodes and constants; what single layers become is in `nas/exporters/_emit.py`."""

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
        centred = self.add("Sub", [INPUT, self.constant("mean", per_channel(mean))], "centred")
        self._same[INPUT] = self.add("Div", [centred, self.constant("std", per_channel(std))], "normalised")
        folded = {node.outputs[0] for node in self.graph.nodes if node.op == "Norm" and self._fold(node)}
        for node in self.graph.nodes:
            if node.outputs[0] in folded:
                self.same(node.outputs[0], node.inputs[0])
            elif node.op in EMIT:
                EMIT[node.op](self, node)
            else:
                raise InputError(f"{node.path}: layer {node.op} has no ONNX form: add one to nas/exporters/_emit.py")
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

    def slice(
        self, value: str, output: str, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
    ) -> str:
        """Parts of some axes."""
        limits = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        names = [self.constant(f"{output}/{name}", np.asarray(row, np.int64)) for name, row in limits.items()]
        return self.add("Slice", [value, *names], output)

    def convolve(self, node: Node, value: str, output: str, head: int = 0, **attributes: Any) -> None:
        weight = self._weights[node.path][head].astype(np.float32)
        inputs = [value, self.constant(f"{output}/weight", weight)]
        bias = self._biases[node.path]
        if bias is not None:
            inputs.append(self.constant(f"{output}/bias", bias.astype(np.float32)))
        self.add("Conv", inputs, output, kernel_shape=weight.shape[2:], **attributes)

    def _fold(self, norm: Node) -> bool:
        """Fold a normalisation into the convolution before or after it; False where neither is possible."""
        factor, offset = affine(norm)
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
