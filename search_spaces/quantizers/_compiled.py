"""Quantizers by the compiled kernel where it serves, by JAX elsewhere: the same numbers.

The kernel knows `affine` over stored or given ranges, which those of `gaussian` are as well, and `symmetric` weights.

Shapes: as in `_quantizer.py`. `implementation` is that of the depthwise convolutions: whoever asks for a plain one gets
plain quantizers too.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from search_spaces.kernels import rounding
from search_spaces.kernels.rounding import Box
from search_spaces.quantizers._quantizer import EXACT_BITS, Quantizer
from search_spaces.quantizers._ranged import Ranged
from search_spaces.quantizers.symmetric import Symmetric


def observed(quantizer: Quantizer, x: Array, axes: tuple[int, ...], implementation: str = "auto") -> dict[str, Array]:
    """`quantizer.observed(x, axes)`.

    Example:
        >>> from search_spaces.quantizers.affine import Affine
        >>> {name: value.tolist() for name, value in observed(Affine(), jnp.asarray([1.0, -3.0]), (0,)).items()}
        {'low': [-3.0], 'high': [1.0]}
    """
    if isinstance(quantizer, Ranged) and len(axes) == x.ndim and rounding.available(x, implementation):
        return quantizer.completed(*rounding.extremes(x), x, axes)
    return quantizer.observed(x, axes)


def rounded(
    quantizer: Quantizer,
    x: Array,
    bits: Any,
    learned: dict[str, Array],
    axes: tuple[int, ...],
    box: Box | None = None,
    implementation: str = "auto",
) -> Array:
    """`quantizer(x, bits, learned, axes, where)`, where `box` says what counts.

    Raises:
        InputError: `bits` is an int that this quantizer does not know.

    Example:
        >>> rounded(Symmetric(), jnp.asarray([-3.0, 0.4, 1.2, 3.0]), 3, {}, (0,)).tolist()
        [-3.0, 0.0, 1.0, 3.0]
    """
    if isinstance(bits, int):
        quantizer.check_bits(bits)
        if bits >= EXACT_BITS:
            return x
    if rounding.available(x, implementation):
        width = jnp.asarray(bits, jnp.float32)
        if isinstance(quantizer, Ranged) and len(axes) == x.ndim and box is None and "low" in learned:
            return rounding.affine(x, width, *quantizer.reach(learned, quantizer.inside(bits)))
        leading = axes and axes == tuple(range(len(axes)))
        if isinstance(quantizer, Symmetric) and leading and not learned and x.dtype == jnp.float32:
            return rounding.symmetric(x, width, len(axes), box)
    return quantizer(x, bits, learned, axes, None if box is None else box.mask())
