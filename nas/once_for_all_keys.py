"""Keys of once-for-all latency tables as layers.

A block is `expanded_conv-input:56x56x24-output:28x28x40-expand:6-kernel:5-stride:2-idskip:0`; with `-se:1-hs:1` at its
end `expand` counts channels, otherwise it is the ratio. The others are `Conv` (3x3), `Conv_1` and `Conv_2` (1x1),
`AvgPool2D` and `Logits`, each with `-input:...-output:...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.table_keys import ends
from hw_models.workload import Layer, Op
from search_spaces.block import BlockIO
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual


def layers_of_key(key: str, where: str) -> Sequence[Layer]:
    """The layers that a key stands for; `where` it was found is for errors.

    Raises:
        InputError: not such a key, or one whose numbers contradict each other.

    Example:
        >>> [layer.op.name for layer in layers_of_key("Logits-input:7x7x1280-output:1000", "row 1")]
        ['GLOBAL_POOL', 'LINEAR']
    """
    name, *words = key.split("-")
    fields = dict(word.split(":", 1) for word in words if ":" in word)
    into = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", fields.get("input", ""))
    out = re.fullmatch(r"(?:([1-9]\d*)x([1-9]\d*)x)?([1-9]\d*)", fields.get("output", ""))
    if into is None or out is None or len(fields) != len(words):
        raise InputError(f"{where}: '{key}' is no once-for-all key: it needs -input:56x56x24-output:28x28x40")
    h, w, channels = map(int, into.groups())
    out_h, out_w, out_channels = (int(size or 1) for size in out.groups())
    makers: dict[str, Callable[[], Sequence[Layer]]] = {
        "expanded_conv": lambda: _expanded_conv(fields, BlockIO(h, w, channels, out_channels), key, where),
        "Conv": lambda: ConvNorm(3).lower(BlockIO(h, w, channels, out_channels, -(-h // out_h))),
        "Conv_1": lambda: _pointwise(h, w, channels, out_channels),
        "Conv_2": lambda: _pointwise(h, w, channels, out_channels),
        "AvgPool2D": lambda: [Layer(Op.GLOBAL_POOL, h, w, 1, 1, channels, channels)],
        "Logits": lambda: [
            *([] if h == w == 1 else [Layer(Op.GLOBAL_POOL, h, w, 1, 1, channels, channels)]),
            Layer(Op.LINEAR, 1, 1, 1, 1, channels, out_channels),
        ],
    }
    if name not in makers:
        raise unknown("operation", name, makers, where)
    layers = makers[name]()
    if ends(layers)[1] != (out_h, out_w, out_channels):
        raise InputError(f"{where}: '{key}' contradicts itself: {name} of this input has another output")
    return layers


def _pointwise(h: int, w: int, channels: int, out_channels: int) -> Sequence[Layer]:
    op = Op.LINEAR if h == w == 1 else Op.CONV  # on one pixel the same sum
    return [Layer(op, h, w, h, w, channels, out_channels)]


def _expanded_conv(fields: Mapping[str, str], io: BlockIO, key: str, where: str) -> Sequence[Layer]:
    numbers = {name: fields.get(name, "") for name in ("expand", "kernel", "stride", "idskip")}
    for name, text in numbers.items():
        if not text.isdecimal() or (int(text) == 0 and name != "idskip"):
            raise InputError(f"{where}: '{key}' says {name}:{text or '?'}: give a whole number")
    assert isinstance(io.in_channels, int)
    expand, kernel, stride, skips = map(int, numbers.values())
    # keys with squeeze-and-excitation count channels, older ones give the ratio
    hidden = expand if "se" in fields else expand * io.in_channels
    same = hidden == io.in_channels
    if bool(skips) != (stride == 1 and io.in_channels == io.out_channels):
        raise InputError(f"{where}: '{key}' contradicts itself: its shapes do not fit stride:{stride}, idskip:{skips}")
    attention = "se" if fields.get("se") == "1" else "none"
    block = InvertedResidual(kernel, 1 if same else 6, attention=attention, hidden=None if same else hidden)
    return block.lower(replace(io, stride=stride))
