"""How many products an accumulator can hold, and how wide it must be: the guards of integer arithmetic.

Widths are in bits, signed ones in two's complement. A range is a pair, the least and the largest code of an operand.

Source: Schindler, dissertation (Heidelberg 2021), section 4.1.3 (binary products) and equations 5.11 and 5.12 (int16
accumulators of reduce and scale, whose overflow it does not treat).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from hw_models.errors import InputError

Range = tuple[int, int]

BINARY_WIDTHS = (8, 16, 32)
ONE: Range = (1, 1)  # the second factor where there is none: a sum of codes themselves


def accumulator_range(bits: int, signed: bool = True) -> Range:
    """The least and the largest sum that `bits` hold.

    Example:
        >>> accumulator_range(16), accumulator_range(16, signed=False)
        ((-32768, 32767), (0, 65535))
    """
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def binary_accumulator_bits(depth: int) -> int:
    """The narrowest of 8, 16 and 32 bits for `depth` accumulations of binary products: `depth < 2 ** bits / bits`.

    An unsigned accumulator of that width adds a count of at most `bits` differing bits each time. Accumulators of 16
    bits save one level of reductions against 32, those of 8 bits two. The depth of a matrix may be given as well: it is
    never less than the number of accumulations.

    Raises:
        InputError: 32 bits are too few.

    Example:
        >>> [binary_accumulator_bits(depth) for depth in (31, 32, 4095, 4096)]
        [8, 16, 16, 32]
    """
    for bits in BINARY_WIDTHS:
        if depth < 2**bits // bits:
            return bits
    raise InputError(f"depth={depth} is too much for 32 bits: give less than {2**32 // 32}, or split the sum")


def _sums(count: int, first: Range, second: Range) -> Range:
    """The least and the largest sum of up to `count` products."""
    corners = [a * b for a in first for b in second]
    return count * min(0, *corners), count * max(0, *corners)


def largest_count(first: Range, second: Range, bits: int, signed: bool = True) -> int | None:
    """The largest number of products of any two codes that an accumulator of `bits` always holds; None: no limit.

    Example:
        >>> largest_count((0, 255), (-128, 127), 32), largest_count((0, 255), (0, 255), 32)
        (65793, 33025)

        int16 and uint16 sums of unsigned 8-bit activations, as reduce and scale has them:

        >>> largest_count((0, 255), ONE, 16), largest_count((0, 255), ONE, 16, signed=False)
        (128, 257)
    """
    held, one = accumulator_range(bits, signed), _sums(1, first, second)
    limits = [limit // product for limit, product in zip(held, one, strict=True) if product]
    return min(limits, default=None)


def needed_bits(count: int, first: Range, second: Range) -> int:
    """The least width of a signed accumulator that holds any `count` products.

    Example:
        >>> needed_bits(65793, (0, 255), (-128, 127)), needed_bits(65794, (0, 255), (-128, 127))
        (32, 33)
    """
    low, high = _sums(count, first, second)
    return 1 + max((-low - 1).bit_length() if low else 0, high.bit_length())


def check_accumulator(count: int, first: Range, second: Range, bits: int, signed: bool = True) -> None:
    """Raise InputError unless an accumulator of `bits` holds any `count` products of codes in the two ranges.

    Example:
        >>> check_accumulator(576, (0, 255), ONE, 16)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: 576 products of 0 to 255 and 1 to 1 overflow a 16-bit accumulator: sum at most \
128 at a time, or give it 19 bits
    """
    limit = largest_count(first, second, bits, signed)
    if limit is None or count <= limit:
        return
    ranges = f"{first[0]} to {first[1]} and {second[0]} to {second[1]}"
    kind = f"{bits}-bit" if signed else f"unsigned {bits}-bit"
    wider = f"give it {needed_bits(count, first, second)} bits" if signed else "make it signed or wider"
    fix = f"sum at most {limit} at a time, or {wider}" if limit else wider
    raise InputError(f"{count} products of {ranges} overflow a {kind} accumulator: {fix}")


def check_matmul(rows: Any, columns: Any, bits: int = 32) -> None:
    """Raise InputError if the sums of a matrix product of these integers might overflow `bits`, whatever their order.

    Looser than `check_accumulator`, since it knows the values: no partial sum exceeds the largest code times the
    largest sum of magnitudes on the other side. Traced arrays have no values yet and pass.

    Shapes: `rows [M, N]`, `columns [N, K]`.

    Example:
        >>> check_matmul(np.full((1, 4), 32767), np.full((4, 1), 32767))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: sums of 4 products reach 4294705156, which 32 bits do not hold: give operands of \
fewer bits, or split the sum
    """
    if isinstance(rows, jax.core.Tracer) or isinstance(columns, jax.core.Tracer):
        return
    left, right = np.abs(np.asarray(rows, np.int64)), np.abs(np.asarray(columns, np.int64))
    if not left.size or not right.size:
        return
    reach = min(left.sum(1).max() * right.max(), right.sum(0).max() * left.max())
    if reach > accumulator_range(bits)[1]:
        raise InputError(f"sums of {left.shape[1]} products reach {reach}, which {bits} bits do not hold: give "
                         "operands of fewer bits, or split the sum")  # fmt: skip
