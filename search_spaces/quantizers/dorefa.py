"""DoReFa-Net: weights through tanh, activations clipped to 0 to 1, and gradients with noise.

Sources: Zhou et al. 2016, https://arxiv.org/abs/1606.06160; Liang et al. 2021 (survey), equations 29 and 30; Guerra
2024, equations 5.4, 5.5 and 6.5; Schindler 2021, equations 5.3 and 5.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from search_spaces.quantizers._quantizer import Quantizer, straight_through
from search_spaces.quantizers._statistics import largest, mean_abs, positive
from search_spaces.quantizers._uniform import largest_unsigned, unit_levels
from search_spaces.quantizers.bnn import sign


@dataclass(frozen=True)
class Dorefa(Quantizer):
    """Weights on `2 ** bits` levels from -1 to 1, none of them 0; activations from 0 to 1 where `signed` is False.

    The gradient of weights is that of tanh over its largest value, which counts as constant; at 1 bit they are signs,
    times their mean absolute value with `scaled` (DoReFa-Net; Guerra 2024 leaves it out), and the gradient passes. That
    of activations passes from 0 to 1.

    Example:
        >>> [round(value, 2) for value in Dorefa()(jnp.asarray([-1.0, -0.2, 0.0, 0.3, 1.0]), 2, {}, (0,)).tolist()]
        [-1.0, -0.33, 0.33, 0.33, 1.0]
        >>> [round(value, 2) for value in Dorefa(signed=False)(jnp.asarray([-1.0, 0.4, 2.0]), 2, {}, (0,)).tolist()]
        [0.0, 0.33, 1.0]
    """

    kind: ClassVar[str] = "dorefa"
    BITS: ClassVar[tuple[int, int]] = (1, 16)

    signed: bool = True
    scaled: bool = False

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        if not self.signed:
            return straight_through(x, unit_levels(jnp.clip(x, 0, 1), bits), (x >= 0) & (x <= 1))
        levels, slope = weight_levels(x, bits, axes, where)
        if self.scaled:
            levels = levels * jnp.where(bits == 1, mean_abs(x, axes, where), 1)
        return straight_through(x, levels, slope)


def weight_levels(x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> tuple[Array, Array]:
    """`x` on the levels of weights, from -1 to 1, and the slope of the gradient; the signs and 1 at 1 bit.

    Example:
        >>> levels, slope = weight_levels(jnp.asarray([-0.01, 0.01]), 1, (0,))
        >>> levels.tolist(), slope.tolist()
        ([-1.0, 1.0], [1.0, 1.0])
    """
    squashed = jnp.tanh(x)
    most = positive(largest(squashed, axes, where))
    levels = 2 * unit_levels(squashed / (2 * most) + 0.5, bits) - 1
    one = jnp.asarray(bits, jnp.float32) == 1
    return jnp.where(one, sign(x), levels), jnp.where(one, 1.0, (1 - squashed**2) / most)


def gradient_levels(gradient: Array, bits: Any, axes: tuple[int, ...], key: Array | None = None) -> Array:
    """`gradient` on `2 ** bits` levels over plus and minus its largest absolute value over `axes`.

    With a `key`, noise of half a step on either side makes the rounding right on average; the survey's equation 30 has
    left it out, though the text around it calls the rounding stochastic.

    Example:
        >>> [round(value, 4) for value in gradient_levels(jnp.asarray([-0.4, -0.1, 0.05, 0.2]), 2, (0,)).tolist()]
        [-0.4, -0.1333, 0.1333, 0.1333]
    """
    most = largest(gradient, axes)
    share = gradient / (2 * positive(most)) + 0.5
    if key is not None:
        share = share + jax.random.uniform(key, share.shape, minval=-0.5, maxval=0.5) / largest_unsigned(bits)
    return (2 * most * (unit_levels(jnp.clip(share, 0, 1), bits) - 0.5)).astype(gradient.dtype)


quantizer = Dorefa
