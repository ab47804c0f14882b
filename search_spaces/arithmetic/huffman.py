"""Canonical Huffman code of symbols 0 to S - 1: made from counts, stored as code lengths, coded by whole arrays.

Among codes of one length, those of smaller symbols come first, so that the lengths alone say all codes (0 where a
symbol has none). Encoding writes all bits at once. Decoding looks up the symbol that would start at every bit of a
block, and then follows from the first start to the next, the number of known starts doubling at each step.

Source: Huffman 1952, https://doi.org/10.1109/JRPROC.1952.273898.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from hw_models.errors import InputError

LONGEST = 57  # bits; a longer code would take more than 10 ** 11 symbols
_BLOCK = 1 << 20  # bits that are looked up at once


def code_lengths(counts: Any) -> np.ndarray:
    """Bits of each symbol's code, uint8 `[S]`, from how often it occurs `[S]`; a lone symbol has 1.

    Example:
        >>> code_lengths([5, 2, 1, 0, 1]).tolist()
        [1, 2, 3, 0, 3]
    """
    counts = np.asarray(counts, np.int64)
    used = np.flatnonzero(counts).tolist()
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) == 1:
        lengths[used] = 1
        return lengths
    # A node is its count, its number (which settles ties) and its symbols.
    nodes = [(int(counts[symbol]), symbol, [symbol]) for symbol in used]
    heapq.heapify(nodes)
    for number in range(len(counts), len(counts) + len(used) - 1):
        first, second = heapq.heappop(nodes), heapq.heappop(nodes)
        symbols = first[2] + second[2]
        lengths[symbols] += 1
        heapq.heappush(nodes, (first[0] + second[0], number, symbols))
    return lengths


def _ordered(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Symbols in the order of their codes, the lengths and codes (ends at the left of the longest), and the longest."""
    symbols = np.flatnonzero(lengths)
    symbols = symbols[np.argsort(lengths[symbols], kind="stable")]
    bits = lengths[symbols].astype(np.uint64)
    longest = int(bits.max(initial=0))
    if longest > LONGEST:
        raise InputError(f"a code of {longest} bits is too long: give lengths of at most {LONGEST}")
    widths = np.uint64(1) << (np.uint64(longest) - bits)
    starts = np.cumsum(widths, dtype=np.uint64) - widths
    if len(widths) and int(starts[-1]) + int(widths[-1]) > 1 << longest:
        raise InputError("these lengths are those of no code: give what code_lengths returned")
    return symbols, bits, starts, longest


def encode(symbols: Any, lengths: np.ndarray) -> bytes:
    """The codes of `symbols [N]` one after the other, the last byte filled up with zero bits.

    Raises:
        InputError: a symbol has no code.

    Example:
        >>> encode([0, 1, 2, 0], np.asarray([1, 2, 2])).hex()  # 0 10 11 0
        '58'
    """
    symbols = np.asarray(symbols, np.int64)
    known, bits, starts, longest = _ordered(lengths)
    codes = np.zeros(len(lengths), np.uint64)
    codes[known] = starts >> (np.uint64(longest) - bits)
    sizes = np.asarray(lengths, np.int64)[symbols]
    if (sizes == 0).any():
        raise InputError(f"symbol {symbols[np.argmin(sizes)]} has no code: count all symbols before the code is made")
    last = np.repeat(np.cumsum(sizes), sizes)
    left = (last - 1 - np.arange(len(last))).astype(np.uint64)  # bits of the same code that follow
    return np.packbits((np.repeat(codes[symbols], sizes) >> left & np.uint64(1)).astype(np.uint8)).tobytes()


def decode(data: bytes, count: int, lengths: np.ndarray) -> np.ndarray:
    """The first `count` symbols of `data`, int64 `[count]`.

    Raises:
        InputError: `data` ends before, or holds bits that are no code.

    Example:
        >>> decode(encode([0, 1, 2, 0], np.asarray([1, 2, 2])), 4, np.asarray([1, 2, 2])).tolist()
        [0, 1, 2, 0]
    """
    symbols, bits, starts, longest = _ordered(lengths)
    sizes = bits.astype(np.int64)
    stream = np.unpackbits(np.frombuffer(data, np.uint8))
    decoded, missing, position = [], count, 0
    while missing and position < len(stream):
        block = min(_BLOCK, len(stream) - position)
        if not longest:
            break
        window = np.zeros(block, np.uint64)
        padded = np.pad(stream[position : position + block + longest], (0, longest))
        for offset in range(longest):
            window = window << np.uint64(1) | padded[offset : offset + block]
        found = np.searchsorted(starts, window, side="right") - 1
        follows = np.arange(block + longest)
        follows[:block] += sizes[found]
        begins = _chain(follows, block)
        inside = begins[begins < block][:missing]
        chosen = found[inside]
        ends = starts[chosen] + (np.uint64(1) << (np.uint64(longest) - bits[chosen]))
        if (window[inside] >= ends).any():
            raise InputError("the data hold bits that are no code: give what encode returned, with the same lengths")
        decoded.append(symbols[chosen])
        missing -= len(inside)
        position += int(follows[inside[-1]])
    if missing or position > len(stream):
        raise InputError(f"the data end before {count} symbols: give what encode returned, and all of it")
    return np.concatenate(decoded) if decoded else np.zeros(0, np.int64)


def _chain(follows: np.ndarray, stop: int) -> np.ndarray:
    """0, what follows it, what follows that and so on, to the first at or past `stop`, where `follows` stays."""
    begins = np.zeros(1, np.int64)
    while begins[-1] < stop:
        begins = np.concatenate([begins, follows[begins]])
        follows = follows[follows]
    return begins
