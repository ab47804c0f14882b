"""Scaled quantization whose training penalises the angle to the quantized weights (APSQ).

Source: Guerra 2024, chapter 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from hw_models.errors import whole
from search_spaces.quantizers._quantizer import EXACT_BITS, WEIGHTS, Quantizer, straight_through
from search_spaces.quantizers._statistics import largest, mean_abs, positive
from search_spaces.quantizers._uniform import unit_levels
from search_spaces.quantizers.dorefa import weight_levels


@dataclass(frozen=True)
class Apsq(Quantizer):
    """`alpha * Quant(w / alpha)`: signs at 1 bit, the weights of `dorefa` from 2 on; add `angle_penalty` to the loss.

    `axes` say what shares an `alpha`: the pixels of a kernel, a channel or a layer. With `scale_bits` below 32 it is
    clipped to 0 to 1 and rounded to so many bits. With `lazy` the gradient at the quantized weights moves the real ones
    (equation 6.11). Without, training leaves weights exact, so that the penalty alone draws them in (equation 6.12),
    and a lazy quantizer judges them.

    Raises:
        InputError: `scale_bits` outside 1 to 32.

    Example:
        >>> [round(value, 2) for value in Apsq()(jnp.asarray([0.5, -0.1, 0.3]), 1, {}, (0,)).tolist()]
        [0.3, -0.3, 0.3]
    """

    kind: ClassVar[str] = "apsq"
    SERVES: ClassVar[tuple[str, ...]] = (WEIGHTS,)
    BITS: ClassVar[tuple[int, int]] = (1, 16)

    lazy: bool = True
    scale_bits: int = EXACT_BITS

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("apsq.scale_bits", self.scale_bits, 1, EXACT_BITS)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        if not self.lazy:
            return x
        scale, levels = scaled_levels(x, bits, axes, where)
        if self.scale_bits < EXACT_BITS:
            scale = unit_levels(jnp.clip(scale, 0, 1), self.scale_bits)
        return straight_through(x, scale * levels)


def scaled_levels(x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> tuple[Array, Array]:
    """The scale `alpha` (the mean absolute value at 1 bit, the largest from 2 on) and `Quant(x / alpha)`.

    The mean and the maximum are of absolute values: equation 6.13 leaves the bars out, though a mean of weights may be
    negative, and the scale of least squared error, which the text means, is that of absolute values.

    Example:
        >>> scale, levels = scaled_levels(jnp.asarray([3.0, -1.0]), 1, (0,))
        >>> scale.tolist(), levels.tolist()
        ([2.0], [1.0, -1.0])
    """
    one = jnp.asarray(bits, jnp.float32) == 1
    scale = jnp.where(one, mean_abs(x, axes, where), largest(x, axes, where))
    levels, _ = weight_levels(lax.stop_gradient(x) / positive(scale), bits, axes, where)
    return scale, levels


def angle_penalty(x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> Array:
    """1 minus the cosine between `x` and `Quant(x / alpha)`, from 0 to below 1, one for each scale.

    The quantized weights count as constant, so that the gradient is that of equation 6.17, at right angles to `x`. Its
    mean over all kernels of a network is the penalty of equation 6.7. It is 0 where all weights are.

    Example:
        >>> penalty = angle_penalty(jnp.asarray([[2.0, -2.0], [1.0, 0.0]]), 1, (1,))
        >>> [round(value, 4) for value in penalty.ravel().tolist()]
        [0.0, 0.2929]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    _, levels = scaled_levels(x, bits, axes, where)
    product = jnp.sum(x * lax.stop_gradient(levels), axes, keepdims=True, where=where)
    squares = jnp.sum(x**2, axes, keepdims=True, where=where)
    others = jnp.sum(lax.stop_gradient(levels) ** 2, axes, keepdims=True, where=where)
    some = squares > 0
    return jnp.where(some, 1 - product / jnp.sqrt(positive(squares) * positive(others)), 0)


def bits_per_weight(scale_bits: int, kernel_h: int, kernel_w: int) -> float:
    """Bits that a 1-bit weight takes with its share of the scale of its kernel (section 6.6).

    Example:
        >>> bits_per_weight(9, 3, 3)
        2.0
    """
    return 1 + scale_bits / (kernel_h * kernel_w)


quantizer = Apsq
