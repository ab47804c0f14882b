"""Names of number formats: `float32`, `float16`, `bfloat16`, `int8`, `w4a8`."""

from __future__ import annotations

import re
from typing import NamedTuple

from hw_models.errors import InputError
from hw_models.workload import Dtype

FLOATS = {
    "float32": (Dtype.FLOAT32, 32),
    "float16": (Dtype.FLOAT16, 16),
    "bfloat16": (Dtype.BFLOAT16, 16),
}
WIDEST_INTEGER = 16


class Format(NamedTuple):
    """Number format of a layer's weights and of its activations."""

    weight_dtype: Dtype
    weight_bits: int
    act_dtype: Dtype
    act_bits: int


def parse_format(name: str) -> Format:
    """The format that `name` stands for; `int8` and `w8a8` are the same.

    Raises:
        InputError: not a name of a format.

    Example:
        >>> parse_format("w4a8")[1::2]
        (4, 8)
    """
    if name in FLOATS:
        dtype, bits = FLOATS[name]
        return Format(dtype, bits, dtype, bits)
    match = re.fullmatch(r"int(\d+)", name) or re.fullmatch(r"w(\d+)a(\d+)", name)
    widths = [int(text) for text in match.groups()] if match else []
    if not widths or not all(1 <= bits <= WIDEST_INTEGER for bits in widths):
        raise InputError(
            f"precision '{name}' is not known: give {', '.join(FLOATS)}, int<bits> or w<bits>a<bits> "
            f"with 1 to {WIDEST_INTEGER} bits"
        )
    return Format(Dtype.INT, widths[0], Dtype.INT, widths[-1])


def format_name(form: Format) -> str:
    """The name of a format, also of mixed ones that no device computes in.

    Example:
        >>> format_name(parse_format("w4a8")), format_name(Format(Dtype.INT, 8, Dtype.FLOAT32, 32))
        ('w4a8', 'int8 weights, float32 activations')
    """
    weights, acts = (
        dtype.name.lower() + (str(bits) if dtype is Dtype.INT else "")
        for dtype, bits in ((form.weight_dtype, form.weight_bits), (form.act_dtype, form.act_bits))
    )
    if weights == acts:
        return weights
    if form.weight_dtype is form.act_dtype is Dtype.INT:
        return f"w{form.weight_bits}a{form.act_bits}"
    return f"{weights} weights, {acts} activations"
