"""Keys of measured tables: layers and blocks as text, and back.

A layer is its operation, what goes in and out (`rows x columns x channels`), and what is not the usual: kernel `k3` or
`k3x1`, stride `s2`, groups `g2`, number format `int8` or `w4a8`, zeros `channel:0.5`. A block is its layers joined by
` + `. What does not change the time is not in it: names, activations, normalisation (folded), what else is in memory.

A format is left out where it is the table's own precision, or where nobody chose one (float32 layers run in it).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.formats import Format, parse_format
from hw_models.workload import MULTIPLYING, TWO_OPERANDS, Dtype, Layer, Op, Pattern

JOIN = " + "
LARGEST_SIZE = 2**24  # whole numbers up to here are exact in float32
Shape = tuple[int, int, int]  # rows, columns, channels
_OPS = {op.name.lower(): op for op in Op}
_PATTERNS = {pattern.name.lower(): pattern for pattern in Pattern if pattern is not Pattern.NONE}
_FLOATS = {dtype: dtype.name.lower() for dtype in Dtype if dtype is not Dtype.INT}
_SHAPES = re.compile(r"(\d+)x(\d+)x(\d+)>(\d+)x(\d+)x(\d+)")
_FLOAT32 = parse_format("float32")


def blocks(layers: Iterable[Layer]) -> list[tuple[Layer, ...]]:
    """Neighbours of one `group` as one block each, in the order of execution.

    Example:
        >>> layer = Layer(Op.CONV, 8, 8, 8, 8, 4, 4)
        >>> [len(block) for block in blocks([layer, layer, layer._replace(group=1)])]
        [2, 1]
    """
    return [tuple(rows) for _, rows in itertools.groupby(layers, key=lambda layer: layer.group)]


def ends(block: Sequence[Layer]) -> tuple[Shape, Shape]:
    """What goes into a block and what comes out.

    Example:
        >>> ends([Layer(Op.CONV, 8, 8, 4, 4, 3, 16, 3, 3, 2)])
        ((8, 8, 3), (4, 4, 16))
    """
    first, last = block[0], block[-1]
    return (first.in_h, first.in_w, first.in_channels), (last.out_h, last.out_w, last.out_channels)


def block_key(layers: Iterable[Layer], precision: str | None = None) -> str:
    """The text of a block in a table of `precision` (None: one whose precision is not known).

    Example:
        >>> block_key([Layer(Op.CONV, 8, 8, 4, 4, 3, 16, 3, 3, 2), Layer(Op.ADD, 4, 4, 4, 4, 16, 16)])
        'conv 8x8x3>4x4x16 k3 s2 + add 4x4x16>4x4x16'
    """
    own = _FLOAT32 if precision is None else parse_format(precision)
    return JOIN.join(_layer_text(layer, own) for layer in layers)


def layer_key(layer: Layer, precision: str | None = None) -> str:
    """The text of one layer; see `block_key`.

    Example:
        >>> layer_key(Layer(Op.LINEAR, 1, 1, 1, 1, 64, 10, weight_bits=8, weight_dtype=Dtype.INT), "float32")
        'linear 1x1x64>1x1x10 w8afloat32'
    """
    return block_key((layer,), precision)


def _layer_text(layer: Layer, own: Format) -> str:
    parts = [
        Op(layer.op).name.lower(),
        f"{layer.in_h}x{layer.in_w}x{layer.in_channels}>{layer.out_h}x{layer.out_w}x{layer.out_channels}",
    ]
    if (layer.kernel_h, layer.kernel_w) != (1, 1):
        same = layer.kernel_h == layer.kernel_w
        parts.append(f"k{layer.kernel_h}" if same else f"k{layer.kernel_h}x{layer.kernel_w}")
    if layer.stride != 1:
        parts.append(f"s{layer.stride}")
    if layer.groups != _usual_groups(layer.op, layer.in_channels):
        parts.append(f"g{layer.groups}")
    found = _chosen(layer, own)
    if found != own:
        parts.append(_format_text(found))
    if layer.pattern != Pattern.NONE:
        parts.append(f"{Pattern(layer.pattern).name.lower()}:{layer.density:.12g}")
    return " ".join(parts)


def _chosen(layer: Layer, own: Format) -> Format:
    """The format a layer runs in: its own, or the table's where nobody chose one."""
    weights = own[:2] if layer.weight_dtype == Dtype.FLOAT32 else (Dtype(layer.weight_dtype), layer.weight_bits)
    acts = own[2:] if layer.act_dtype == Dtype.FLOAT32 else (Dtype(layer.act_dtype), layer.act_bits)
    return Format(*weights, *acts)


def _usual_groups(op: Op, in_channels: int) -> int:
    return in_channels if op == Op.DEPTHWISE else 1


def _format_text(found: Format) -> str:
    weights = str(found.weight_bits) if found.weight_dtype is Dtype.INT else _FLOATS[found.weight_dtype]
    acts = str(found.act_bits) if found.act_dtype is Dtype.INT else _FLOATS[found.act_dtype]
    if weights == acts:
        return f"int{weights}" if weights.isdecimal() else weights
    return f"w{weights}a{acts}"


def parse_key(text: str, precision: str | None = None) -> tuple[Layer, ...]:
    """The layers that a key of a table of `precision` stands for; layers in the table's own format are float32.

    Raises:
        InputError: not a key, or one that `block_key` would write in another way.

    Example:
        >>> block_key(parse_key("depthwise 8x8x16>4x4x16 k3 s2 int8"))
        'depthwise 8x8x16>4x4x16 k3 s2 int8'
    """
    layers = tuple(_parsed(part, text) for part in text.split(JOIN))
    usual = block_key(layers, precision)
    if usual != text:
        raise InputError(f"key '{text}' is not written in the usual way: write '{usual}'")
    return layers


def _parsed(part: str, key: str) -> Layer:
    words = part.split()
    shapes = _SHAPES.fullmatch(words[1]) if len(words) > 1 else None
    if shapes is None:
        raise InputError(
            f"'{part}' in key '{key}' is not a layer: write it as 'conv 32x32x16>16x16x24 k3 s2' (operation, rows x "
            "columns x channels in and out, kernel, stride)"
        )
    if words[0] not in _OPS:
        raise unknown(f"operation in key '{key}':", words[0], _OPS)
    op = _OPS[words[0]]
    in_h, in_w, in_channels, out_h, out_w, out_channels = map(int, shapes.groups())
    if 0 in (in_h, in_w, in_channels, out_h, out_w, out_channels):
        raise InputError(f"'{part}' in key '{key}' has a size of 0: give sizes from 1")
    layer = Layer(op, in_h, in_w, out_h, out_w, in_channels, out_channels, groups=_usual_groups(op, in_channels))
    for word in words[2:]:
        layer = _with_word(layer, word, key)
    if max(layer[1:11]) > LARGEST_SIZE:
        raise InputError(f"'{part}' in key '{key}' has a size above {LARGEST_SIZE:,}: correct it")
    if op in MULTIPLYING and (in_channels % layer.groups or out_channels % layer.groups):
        raise InputError(
            f"'{part}' in key '{key}' cannot be: {in_channels} channels in and {out_channels} out are no multiples of "
            f"{layer.groups} groups"
        )
    if op in TWO_OPERANDS and (in_h, in_w, in_channels) != (out_h, out_w, out_channels):
        raise InputError(f"'{part}' in key '{key}' cannot be: what goes in and what comes out have one shape")
    return layer


def _with_word(layer: Layer, word: str, key: str) -> Layer:
    if found := re.fullmatch(r"k([1-9]\d*)(?:x([1-9]\d*))?", word):
        return layer._replace(kernel_h=int(found[1]), kernel_w=int(found[2] or found[1]))
    if found := re.fullmatch(r"s([1-9]\d*)", word):
        return layer._replace(stride=int(found[1]))
    if found := re.fullmatch(r"g([1-9]\d*)", word):
        return layer._replace(groups=int(found[1]))
    if found := re.fullmatch(r"([a-z_]+):(\d*\.?\d+)", word):
        if found[1] not in _PATTERNS or not 0 < float(found[2]) <= 1:
            raise InputError(f"'{word}' in key '{key}' is no pattern of zeros and density: write 'channel:0.5'")
        return layer._replace(pattern=_PATTERNS[found[1]], density=float(found[2]))
    return layer._replace(**_format(word, key)._asdict())


def _format(word: str, key: str) -> Format:
    number = r"(\d+|float32|float16|bfloat16)"
    try:
        if mixed := re.fullmatch(rf"w{number}a{number}", word):
            weights, acts = (parse_format(f"int{each}" if each.isdecimal() else each) for each in mixed.groups())
            return Format(*weights[:2], *acts[2:])
        return parse_format(word)
    except InputError:
        raise InputError(
            f"'{word}' in key '{key}' is not understood: write k3 (kernel), s2 (stride), g2 (groups), int8 (format) or "
            "channel:0.5 (zeros)"
        ) from None
