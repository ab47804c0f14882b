"""Signed integers of few bits in machine words: several to a word, least significant bits first.

Integers are in two's complement, except those of 1 bit, which are -1 and +1 (bits 0 and 1). A word holds `W = word_bits
/ bits` of them, and the last word of an axis is filled up with zero bits: zeros, or -1 for 1 bit, so that who counts
bits must know how many values there are.

Shapes: `values [..., N]`, `words [..., ceil(N / W)]`, along any one axis.

Source: Schindler, dissertation (Heidelberg 2021), section 4.1: int16, int8, int4, int2 and int1.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError

WIDTHS = (16, 8, 4, 2, 1)
WORDS = {8: "uint8", 16: "uint16", 32: "uint32"}  # 64 would need JAX's double precision


def signed_range(bits: int) -> tuple[int, int]:
    """The least and the largest integer of `bits`; of 1 bit these two are all.

    Example:
        >>> signed_range(4), signed_range(1)
        ((-8, 7), (-1, 1))
    """
    return (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def check_values(values: Any, low: int, high: int, name: str = "values", *, ends_only: bool = False) -> None:
    """Raise InputError unless `values` are integers from `low` to `high`, or one of the two with `ends_only`.

    Traced arrays have no values yet and pass.

    Example:
        >>> check_values(np.asarray([[1, 2], [9, 3]]), -8, 7)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: values[1, 0] is 9: give integers from -8 to 7, or more bits
    """
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"{name} are of type {values.dtype}: give integers, such as int8 or int32")
    if isinstance(values, jax.core.Tracer):
        return
    held = np.asarray(values)
    wrong = (held != low) & (held != high) if ends_only else (held < low) | (held > high)
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0].tolist())
        place = f"[{', '.join(map(str, first))}]" if first else ""
        allowed = f"{low} and {high} only" if ends_only else f"integers from {low} to {high}"
        raise InputError(f"{name}{place} is {held[first]}: give {allowed}, or more bits")


def values_per_word(bits: int, word_bits: int = 32) -> int:
    """How many values of `bits` a word holds.

    Raises:
        InputError: the widths are not among `WIDTHS` and `WORDS`, or a value is wider than a word.

    Example:
        >>> values_per_word(4)
        8
    """
    if bits not in WIDTHS:
        raise InputError(f"bits={bits!r} are not packed: give one of {', '.join(map(str, WIDTHS))}")
    if word_bits not in WORDS or word_bits < bits:
        fits = ", ".join(str(width) for width in WORDS if width >= bits)
        raise InputError(f"word_bits={word_bits!r} is not allowed for {bits} bits: give one of {fits}")
    return word_bits // bits


def pack(values: Any, bits: int, word_bits: int = 32, axis: int = -1) -> Any:
    """`values` packed along `axis` into unsigned words; numpy arrays stay numpy arrays.

    Under `jit`, where values cannot be checked, the low `bits` of each are taken.

    Raises:
        InputError: a value does not fit, with the first such; unknown widths; no integers.

    Example:
        >>> pack(np.asarray([1, -1, 7, -8]), 4, 16).tolist() == [0x87F1]
        True
        >>> pack(jnp.asarray([1, -1, -1, 1, 1]), 1, 8).tolist() == [0b11001]
        True
    """
    xp: Any = np if isinstance(values, np.ndarray) else jnp
    count = values_per_word(bits, word_bits)
    check_values(values, *signed_range(bits), ends_only=bits == 1)
    along = xp.moveaxis(values.astype(xp.int32), axis, -1)
    codes = (along > 0 if bits == 1 else along & (2**bits - 1)).astype(xp.uint32)
    padding = -codes.shape[-1] % count
    codes = xp.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, padding)])
    codes = codes.reshape(*codes.shape[:-1], codes.shape[-1] // count, count)
    shifts = xp.arange(count, dtype=xp.uint32) * xp.uint32(bits)
    words = (codes << shifts).sum(-1, dtype=xp.uint32)  # no two share a bit: their sum is their union
    return xp.moveaxis(words.astype(WORDS[word_bits]), -1, axis)


def lanes(words: Any, bits: int) -> Any:
    """All values of each word, those that only fill it up included: int32 `[..., W]` of words `[...]`.

    Example:
        >>> lanes(jnp.asarray(0x87F1, jnp.uint16), 4).tolist()
        [1, -1, 7, -8]
    """
    xp: Any = np if isinstance(words, np.ndarray) else jnp
    count = values_per_word(bits, words.dtype.itemsize * 8)
    shifts = xp.arange(count, dtype=xp.uint32) * xp.uint32(bits)
    codes = ((words.astype(xp.uint32)[..., None] >> shifts) & xp.uint32(2**bits - 1)).astype(xp.int32)
    if bits == 1:
        return 2 * codes - 1
    sign = 2 ** (bits - 1)
    return (codes ^ sign) - sign


def unpack(words: Any, bits: int, length: int, axis: int = -1) -> Any:
    """The first `length` values along `axis` as int32, the inverse of `pack`.

    Raises:
        InputError: `length` does not go with the number of words.

    Example:
        >>> unpack(pack(np.asarray([1, 0, -2]), 2), 2, 3).tolist()
        [1, 0, -2]
    """
    check_length(length, words.shape[axis], values_per_word(bits, words.dtype.itemsize * 8))
    xp: Any = np if isinstance(words, np.ndarray) else jnp
    values = lanes(xp.moveaxis(words, axis, -1), bits)
    values = values.reshape(*values.shape[:-2], values.shape[-2] * values.shape[-1])[..., :length]
    return xp.moveaxis(values, -1, axis)


def check_length(length: int, words: int, count: int) -> None:
    """Raise InputError unless `length` values are what `words` words of `count` values each are packed from.

    Example:
        >>> check_length(9, 1, 8)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: length=9 does not go with 1 words of 8 values: give 1 to 8
    """
    if -(-length // count) != words or length < 0:
        raise InputError(
            f"length={length} does not go with {words} words of {count} values: "
            f"give {max(0, (words - 1) * count + 1)} to {words * count}"
        )
