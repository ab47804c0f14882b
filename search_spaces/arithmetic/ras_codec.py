"""Storage of ternary weights: signs, and distances between non-zeros in one Huffman code for all layers.

Of the flat positions `i_j` of the non-zeros, row-major in the transposed weights, a sign each (0 positive, 1 negative)
and the distance `d_j = i_j - i_(j-1)` are stored, with `i_(-1) = 0`. A distance of 255 or more is written as that many
times the symbol 255, which says 255 positions without a non-zero, and the rest. So the code has 256 symbols whatever
the layers, its table takes 256 bytes, and at the densities of ternary networks the escape hardly occurs. The two scales
of a layer are no part of it.

The file, little-endian: `RAS1`, uint32 layers, 256 code lengths of a byte, then for each layer uint8 axes, uint32
length of each axis, uint32 non-zeros, uint32 symbols, uint32 bytes of distances, the signs, 8 to a byte, and the
distances.

Source: Schindler, dissertation (Heidelberg 2021), section 5.3. Erratum: the distance is printed with the
opposite sign.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hw_models.errors import InputError
from search_spaces.arithmetic import huffman
from search_spaces.arithmetic.packing import check_values

ESCAPE = 255
SYMBOLS = ESCAPE + 1
MAGIC = b"RAS1"
_COUNTS = struct.Struct("<3I")


class Bits(NamedTuple):
    """What encoded layers take: one bit a sign, the coded distances, and the rest (table, headers, filled bytes)."""

    signs: int
    distances: int
    overhead: int


class Distances(NamedTuple):
    """The non-zeros of one layer: `signs` uint8 and `distances` int64, `[N]` both."""

    signs: np.ndarray
    distances: np.ndarray


def distances(ternary: Any) -> Distances:
    """Signs and distances of the non-zeros of `ternary`, any shape, row-major.

    Raises:
        InputError: other values than -1, 0 and 1.

    Example:
        >>> signs, apart = distances([[0, 1, 1, 0, -1], [-1, 0, 0, 1, 0], [1, -1, 0, -1, -1]])
        >>> signs.tolist(), apart.tolist()
        ([0, 0, 1, 1, 0, 0, 1, 1, 1], [1, 1, 2, 1, 3, 2, 1, 2, 1])
    """
    flat = _ternary(ternary).ravel()
    positions = np.flatnonzero(flat)
    return Distances((flat[positions] < 0).astype(np.uint8), np.diff(positions, prepend=0))


def _ternary(values: Any) -> np.ndarray:
    held = np.asarray(values)
    held = held.astype(np.int8) if not held.size else held  # numpy makes floats of empty lists
    check_values(held, -1, 1, "ternary")
    return held


def _symbols(apart: np.ndarray) -> np.ndarray:
    """Symbols of distances: `d // 255` escapes and `d % 255` each."""
    last = np.cumsum(apart // ESCAPE + 1) - 1
    symbols = np.full(int(last[-1]) + 1 if len(last) else 0, ESCAPE, np.int64)
    symbols[last] = apart % ESCAPE
    return symbols


def encode(layers: Sequence[Any]) -> bytes:
    """All `layers`, arrays of -1, 0 and 1 of any shapes, with one Huffman code that is made from them.

    Raises:
        InputError: other values than -1, 0 and 1.

    Example:
        >>> decode(encode([[[0, 1], [-1, 0]], [0, 0, 1]]))[1].tolist()
        [0, 0, 1]
    """
    layers = [_ternary(layer) for layer in layers]
    split = [distances(layer) for layer in layers]
    symbols = [_symbols(apart) for _, apart in split]
    lengths = huffman.code_lengths(sum((np.bincount(each, minlength=SYMBOLS) for each in symbols), np.zeros(SYMBOLS)))
    parts = [MAGIC, struct.pack("<I", len(layers)), lengths.tobytes()]
    for layer, (signs, _), each in zip(layers, split, symbols, strict=True):
        coded = huffman.encode(each, lengths)
        parts.append(struct.pack(f"<B{layer.ndim}I", layer.ndim, *layer.shape))
        parts += [_COUNTS.pack(len(signs), len(each), len(coded)), np.packbits(signs).tobytes(), coded]
    return b"".join(parts)


def decode(data: bytes) -> list[np.ndarray]:
    """The layers of `encode`, int8.

    Raises:
        InputError: other data than `encode` wrote.

    Example:
        >>> decode(encode([[1, 0, -1]]))[0].tolist()
        [1, 0, -1]
    """
    if data[: len(MAGIC)] != MAGIC:
        raise InputError(f"the data start with {data[: len(MAGIC)]!r}: give encoded ternary layers, b'RAS1...'")
    stream = io.BytesIO(data)
    stream.seek(len(MAGIC))
    (count,) = _numbers(stream, "<I")
    lengths = np.frombuffer(_bytes(stream, SYMBOLS), np.uint8)
    layers = [_decode_layer(stream, lengths) for _ in range(count)]
    if stream.read(1):
        raise InputError(f"{len(data) - stream.tell() + 1} bytes follow the last layer: give what encode returned")
    return layers


def _bytes(stream: io.BytesIO, count: int) -> bytes:
    part = stream.read(count)
    if len(part) < count:
        raise InputError(f"the data end at byte {stream.tell()}, within a layer: give all that encode returned")
    return part


def _numbers(stream: io.BytesIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _bytes(stream, struct.calcsize(layout)))


def _decode_layer(stream: io.BytesIO, lengths: np.ndarray) -> np.ndarray:
    (axes,) = _numbers(stream, "<B")
    shape = _numbers(stream, f"<{axes}I")
    nonzeros, count, coded_bytes = _numbers(stream, _COUNTS.format)
    signs = np.unpackbits(np.frombuffer(_bytes(stream, -(-nonzeros // 8)), np.uint8), count=nonzeros)
    symbols = huffman.decode(_bytes(stream, coded_bytes), count, lengths)
    # An escape only moves on; a non-zero stands where a distance ends.
    positions = np.cumsum(symbols)[symbols != ESCAPE]
    flat = np.zeros(math.prod(shape), np.int8)
    if len(positions) != nonzeros or (nonzeros and positions[-1] >= len(flat)):
        raise InputError(f"{len(positions)} positions do not fit {nonzeros} non-zeros of shape {shape}: give what "
                         "encode returned")  # fmt: skip
    flat[positions] = 1 - 2 * signs.astype(np.int8)
    return flat.reshape(shape)


def size(layers: Sequence[Any]) -> Bits:
    """Bits that `encode` takes for `layers`.

    Signs and distances are what `hw_models.compression.ternary_bits` estimates by entropy, `weights * (d + H2(d))`: a
    Huffman code reaches it to a few percent for densities `d` of up to about 0.6. Above, it nears 2 bits a non-zero.

    Example:
        >>> size([[0, 1, 1, 0, -1, -1, 0, 0, 1, 0, 1, -1, 0, -1, -1]])
        Bits(signs=9, distances=13, overhead=2258)
    """
    data = encode(layers)
    split = [distances(layer) for layer in layers]
    symbols = [_symbols(apart) for _, apart in split]
    lengths = np.frombuffer(data, np.uint8, SYMBOLS, len(MAGIC) + 4).astype(np.int64)
    signs, apart = sum(len(each.signs) for each in split), sum(int(lengths[each].sum()) for each in symbols)
    return Bits(signs, apart, 8 * len(data) - signs - apart)
