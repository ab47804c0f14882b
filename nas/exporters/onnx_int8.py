"""ONNX of a network of integers, in the form QDQ that ONNX Runtime turns into integer kernels.

Every coded value is followed by QuantizeLinear and DequantizeLinear, weights are stored as int8 (with a step per output
channel, or one) and biases as int32 in the step of the input times that of the weights, each behind a DequantizeLinear.
Steps, zero points and codes are those of the `IntegerNetwork`, so that both compute the same but for rounding. Input
and output are as in `model.onnx`. Codes of fewer bits than their type has are reached by a Clip, and 16-bit ones need
opset 21. ONNX Runtime computes layers with either in floats between codes, and on x86 those with signed activations.

On x86 processors with AVX2 or AVX-512 but without VNNI, ONNX Runtime adds pairs of products of unsigned activations and
8-bit weights in 16 bits, which saturate. Weights of 7 bits avoid that (2 * 255 * 63 fits), and so does the session
option `session.x64quantprecision` (onnxruntime_session_options_config_keys.h), at a price: with ONNX Runtime 1.31 on a
core with VNNI, where both are needless, a network of the space `quickstart` took 99 us with weights of 8 bits, 98 us
with 7, and 162 us with 8 and the option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nas.exporters._graph import INPUT, Node
from nas.exporters.onnx import Writer, proto
from nas.quantized.integer import NARROW, Coding, IntegerNetwork

FILE = "model_int8.onnx"
WIDE_OPSET = 21  # the first that knows codes of 16 bits


def export(network: IntegerNetwork, folder: str | Path) -> tuple[str, ...]:
    """Write `model_int8.onnx` into `folder` and return its name.

    Raises:
        InputError: onnx is not installed, or a layer has no ONNX form here.
    """
    (Path(folder) / FILE).write_bytes(build(network).SerializeToString())
    return (FILE,)


def build(network: IntegerNetwork) -> Any:
    """The `onnx.ModelProto` of a network of integers, checked.

    Raises:
        InputError: onnx is not installed, or a layer has no ONNX form here.

    Example:
        >>> from nas.exporters._graph import Graph
        >>> from nas.model import Meta
        >>> layer = Node("Flatten", "flatten", {}, {}, (INPUT,), ("y",))
        >>> graph = Graph((layer,), "y", {INPUT: (1, 1, 2, 1), "y": (1, 2)})
        >>> meta = Meta("pixels", ("left", "right"), (0.5,), (0.25,))
        >>> network = IntegerNetwork(graph, {INPUT: Coding(1 / 64, 64, 0, 255, 8)}, {}, meta)
        >>> [node.op_type for node in build(network).graph.node][:4]
        ['Sub', 'Div', 'QuantizeLinear', 'DequantizeLinear']
    """
    writer = _QuantizedWriter(network)
    writer.write(np.asarray(network.meta.mean, np.float32), np.asarray(network.meta.std, np.float32))
    return proto(writer, network.meta, f"{network.meta.network} int8")


class _QuantizedWriter(Writer):
    """Writes the layers as they are, with codes between them."""

    def __init__(self, network: IntegerNetwork):
        super().__init__(network.graph)
        self.network = network
        if any(coding.bits > NARROW for coding in network.codings.values()):
            self.opset = WIDE_OPSET
        self._coded: dict[str, str] = {}  # values by their name in the graph, and what they are after their codes

    def layer(self, node: Node) -> None:
        if INPUT not in self._coded:
            self._code(INPUT, self.value(INPUT), self.network.codings[INPUT])
        super().layer(node)
        for name in node.outputs:
            to = self.network.codings.get(name)
            unchanged = name in self._same and to == self.network.codings.get(node.inputs[0])
            if to is not None and not unchanged:
                self._code(name, super().value(name), to)

    def value(self, name: str) -> str:
        return self._coded.get(name) or super().value(name)

    def convolve(self, node: Node, value: str, output: str, head: int = 0, **attributes: Any) -> None:
        weights, before = self.network.weights[node.outputs[0]], self.network.codings[node.inputs[0]]
        codes, step, bias = (part[head] for part in (weights.codes, weights.step, weights.bias))
        step = step if self.network.per_channel else step[0]
        inputs = [
            value,
            self._stored(f"{output}/weight", codes, step),
            self._stored(f"{output}/bias", bias, np.float32(before.step) * step),
        ]
        self.add("Conv", inputs, output, kernel_shape=codes.shape[2:], **attributes)

    def filters(self, node: Node, output: str, weight: np.ndarray) -> str:
        weights = self.network.weights[node.outputs[0]]
        return self._stored(f"{output}/weight", weights.codes.reshape(weight.shape), weights.step[0, 0])

    def _stored(self, name: str, codes: np.ndarray, step: np.ndarray) -> str:
        inputs = [self.constant(f"{name}/codes", codes), self.constant(f"{name}/step", np.asarray(step, np.float32))]
        if codes.dtype == np.int8:  # ONNX Runtime fails where weights have none
            inputs.append(self.constant(f"{name}/zero_point", np.zeros(np.shape(step), np.int8)))
        return self.add("DequantizeLinear", inputs, name, axis=0)

    def _code(self, name: str, value: str, to: Coding) -> None:
        """Round the float `value` to its codes."""
        limits = np.iinfo(to.dtype)
        if (to.first, to.last) != (limits.min, limits.max):
            bounds = [
                self.constant(f"{name}/{which}", to.values(np.asarray(code)))
                for which, code in (("first", to.first), ("last", to.last))
            ]
            value = self.add("Clip", [value, *bounds], f"{name}/clipped")
        step = self.constant(f"{name}/step", np.asarray(to.step, np.float32))
        zero_point = self.constant(f"{name}/zero_point", np.asarray(to.zero_point, to.dtype))
        codes = self.add("QuantizeLinear", [value, step, zero_point], f"{name}/codes")
        self._coded[name] = self.add("DequantizeLinear", [codes, step, zero_point], f"{name}/real")
