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
from nas.exporters._emit import EMIT, per_channel
from nas.exporters._graph import INPUT, Graph, Node, record
from nas.model import Meta, Model
from nas.quantized.folded import fold

FILE = "model.onnx"
OPSET = 17
IR_VERSION = 10
OUTPUT = "logits"


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
    space = model.space
    writer = Writer(fold(record(space, model.variables)))
    writer.write(np.asarray(model.meta.mean, np.float32), np.asarray(model.meta.std, np.float32))
    return proto(writer, model.meta, space.name)


def proto(writer: Writer, meta: Meta, name: str) -> Any:
    """What `writer` has written as an `onnx.ModelProto` with a description inside, checked.

    Example:
        >>> layer = Node("Flatten", "flatten", {}, {}, (INPUT,), ("y",))
        >>> writer = Writer(Graph((layer,), "y", {INPUT: (1, 1, 2, 1), "y": (1, 2)}))
        >>> writer.write(np.zeros(1), np.ones(1))
        >>> proto(writer, Meta("pixels", ("left", "right"), (0.0,), (1.0,)), "pixels").graph.name
        'pixels'
    """
    onnx = _package()
    helper, shapes = onnx.helper, writer.graph.shapes
    (_, height, width, channels), (_, classes) = shapes[INPUT], shapes[writer.graph.output]
    graph = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ("batch", channels, height, width))],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ("batch", classes))],
        writer.constants,
    )
    versions = [helper.make_opsetid("", writer.opset)]
    made = helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION, producer_name="flynas")
    properties = {
        "network": meta.network,
        "class_names": json.dumps(list(meta.class_names), ensure_ascii=False),
        "preprocessing": "pixel / 255 as float32 [batch, channels, height, width]; mean and deviation are in the graph",
        "mean": json.dumps(list(meta.mean)),
        "std": json.dumps(list(meta.std)),
    }
    helper.set_model_props(made, properties)
    onnx.checker.check_model(made, full_check=True)
    return made


def _package() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise InputError("the ONNX export needs the package onnx, which is not installed: pip install onnx") from error
    return onnx


class Writer:
    """Turns a folded graph into ONNX nodes and constants; what single layers become is in `nas/exporters/_emit.py`."""

    opset = OPSET

    def __init__(self, graph: Graph):
        onnx = _package()
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._helper, self._arrays = onnx.helper, onnx.numpy_helper
        self._same: dict[str, str] = {}  # values that need no node of their own, and what they are

    def write(self, mean: np.ndarray, std: np.ndarray) -> None:
        centred = self.add("Sub", [INPUT, self.constant("mean", per_channel(mean))], "centred")
        self._same[INPUT] = self.add("Div", [centred, self.constant("std", per_channel(std))], "normalised")
        for node in self.graph.nodes:
            self.layer(node)
        self.add("Flatten", [self.value(self.graph.output)], OUTPUT, axis=1)

    def layer(self, node: Node) -> None:
        if node.op not in EMIT:
            raise InputError(f"{node.path}: layer {node.op} has no ONNX form: add one to nas/exporters/_emit.py")
        EMIT[node.op](self, node)

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

    def split(self, value: str, outputs: list[str], axis: int) -> None:
        """Equal parts."""
        number = {"num_outputs": len(outputs)} if self.opset >= 18 else {}
        self.add("Split", [value], outputs, axis=axis, **number)

    def filters(self, node: Node, output: str, weight: np.ndarray) -> str:
        """The weights of a layer without a bias."""
        return self.constant(f"{output}/weight", weight)

    def convolve(self, node: Node, value: str, output: str, head: int = 0, **attributes: Any) -> None:
        weight = node.params["weight"][head].astype(np.float32)
        inputs = [value, self.constant(f"{output}/weight", weight)]
        if "bias" in node.params:
            inputs.append(self.constant(f"{output}/bias", node.params["bias"].astype(np.float32)))
        self.add("Conv", inputs, output, kernel_shape=weight.shape[2:], **attributes)
