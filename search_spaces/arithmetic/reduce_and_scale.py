"""Reduce and scale: products with ternary weights by additions alone and two multiplications an output.

    c = W_p * sum of a over I_p + W_n * sum of a over I_n

`I_p` and `I_n` list the inputs whose weight is `W_p` and `W_n`, for each row of the transposed weights. `W_n` is the
signed value, as in equation 5.9 (equation 5.1 has `-W_n`). A step of the activations belongs into both. Activations of
8 bits are unsigned where they hold fractions of 0 to 1 (Q0.8), and 16-bit sums of them overflow from the 129th on,
which the source does not treat: lists are refused where they are longer.

Shapes: `ternary [O, I]`, the signs of the transposed weights; `inputs [I, C]`, integer codes, a column for each
position of the output; result `[O, C]`, float32.

Source: Schindler, dissertation (Heidelberg 2021), equations 5.9 to 5.14 and algorithm 1. Errata: algorithm 1 reads
`Input[row][index]` for `Input[index][column]` and never resets its accumulators; equation 5.14 prints 5 for the last
index of I_n, 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from search_spaces.arithmetic.accumulators import ONE, Range, largest_count
from search_spaces.arithmetic.packing import check_values

INDEX_BITS = 16
ACCUMULATORS = {16: jnp.int16, 32: jnp.int32}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["positive", "positive_row", "negative", "negative_row"],
    meta_fields=["outputs", "inputs", "accumulator_bits"],
)
@dataclass(frozen=True)
class IndexLists:
    """I_p and I_n of all rows, one after the other: input indices `[P]` and `[Q]`, and the row of each, ascending.

    Entries past the last have the row `outputs` and are ignored.
    """

    positive: Array
    positive_row: Array
    negative: Array
    negative_row: Array
    outputs: int
    inputs: int
    accumulator_bits: int


class Operations(NamedTuple):
    """Counts of one product, and the bits of its index lists."""

    integer_additions: int
    multiplications: int
    float_additions: int
    index_bits: int


def _check_ternary(ternary: np.ndarray) -> None:
    if ternary.ndim != 2:
        raise InputError(f"ternary weights have {ternary.ndim} axes: give [outputs, inputs]")
    check_values(ternary, -1, 1, "ternary")


def index_lists(
    ternary: Any, activation: Range = (0, 255), accumulator_bits: int = 16, capacity: int | None = None
) -> IndexLists:
    """Index lists of the signs `ternary [O, I]` for activations with codes in the range `activation`.

    With a `capacity` both are that long, so that one compiled program serves weights of one shape.

    Raises:
        InputError: other values than -1, 0 and 1, too many inputs for 16-bit indices, a list that could overflow the
            accumulators or exceeds `capacity`.

    Example:
        >>> lists = index_lists([[0, 1, 1, 0, -1], [-1, 0, 0, 1, 0], [1, -1, 0, -1, -1]])
        >>> lists.positive.tolist(), lists.positive_row.tolist()
        ([1, 2, 3, 0], [0, 0, 1, 2])
        >>> lists.negative.tolist(), lists.negative_row.tolist()
        ([4, 0, 1, 3, 4], [0, 1, 2, 2, 2])
    """
    ternary = np.asarray(ternary)
    _check_ternary(ternary)
    if accumulator_bits not in ACCUMULATORS:
        raise InputError(f"accumulator_bits={accumulator_bits} are not allowed: give 16 or 32")
    outputs, inputs = ternary.shape
    if inputs > 2**INDEX_BITS:
        raise InputError(f"{inputs} inputs do not fit 16-bit indices: split them into parts of at most {2**INDEX_BITS}")
    limit = largest_count(activation, ONE, accumulator_bits)
    for sign in (1, -1):
        _check_lengths((ternary == sign).sum(1), limit, accumulator_bits)
    positive, negative = _entries(ternary == 1, capacity), _entries(ternary == -1, capacity)
    return IndexLists(*positive, *negative, outputs, inputs, accumulator_bits)


def _entries(there: np.ndarray, capacity: int | None) -> tuple[Array, Array]:
    rows, indices = np.nonzero(there)
    padding = 0 if capacity is None else capacity - len(rows)
    if padding < 0:
        raise InputError(f"capacity={capacity} is too little for {len(rows)} indices: give at least as many")
    padded_rows = np.pad(rows, (0, padding), constant_values=len(there))
    return jnp.asarray(np.pad(indices, (0, padding)), jnp.uint16), jnp.asarray(padded_rows, jnp.int32)


def _check_lengths(lengths: np.ndarray, limit: int | None, accumulator_bits: int) -> None:
    if limit is not None and (lengths > limit).any():
        row = int(np.argmax(lengths > limit))
        wider = ", or accumulator_bits=32" if accumulator_bits < 32 else ""
        raise InputError(f"row {row} adds {lengths[row]} activations, which may overflow {accumulator_bits} bits: "
                         f"split its inputs into lists of at most {limit}{wider}")  # fmt: skip


def reduce_and_scale(lists: IndexLists, inputs: Any, positive_scale: Any, negative_scale: Any) -> Array:
    """The product of ternary weights and `inputs [I, C]`, float32 `[O, C]`.

    Codes must be in the range that the lists were made for.

    Raises:
        InputError: the inputs are not what the lists index.

    Example:
        >>> lists = index_lists([[0, 1, 1, 0, -1], [-1, 0, 0, 1, 0]])
        >>> reduce_and_scale(lists, jnp.asarray([[1], [2], [3], [4], [5]], jnp.uint8), 0.5, -2.0).tolist()
        [[-7.5], [0.0]]
    """
    inputs = jnp.asarray(inputs)
    if inputs.ndim != 2 or inputs.shape[0] != lists.inputs:
        raise InputError(f"inputs of shape {inputs.shape} do not go with these lists: give [{lists.inputs}, columns]")
    codes = inputs.astype(ACCUMULATORS[lists.accumulator_bits])
    add = partial(jax.ops.segment_sum, num_segments=lists.outputs, indices_are_sorted=True)
    positive = add(codes[lists.positive], lists.positive_row).astype(jnp.float32)
    negative = add(codes[lists.negative], lists.negative_row).astype(jnp.float32)
    return positive_scale * positive + negative_scale * negative


def operations(ternary: Any, columns: int = 1) -> Operations:
    """Counts of the product of `ternary [O, I]` with `columns` columns: an integer addition for each non-zero.

    Raises:
        InputError: other values than -1, 0 and 1.

    Example:
        >>> operations([[0, 1, 1, 0, -1], [-1, 0, 0, 1, 0]], columns=10)
        Operations(integer_additions=50, multiplications=40, float_additions=20, index_bits=80)
    """
    ternary = np.asarray(ternary)
    _check_ternary(ternary)
    kept, outputs = int(np.count_nonzero(ternary)), ternary.shape[0] * columns
    return Operations(kept * columns, 2 * outputs, outputs, INDEX_BITS * kept)
