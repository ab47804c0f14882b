"""Signs times their mean absolute value, for weights and activations (XNOR-Net).

Source: Rastegari et al. 2016, https://arxiv.org/abs/1603.05279, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from search_spaces.quantizers._quantizer import Quantizer
from search_spaces.quantizers.bwn import scaled_sign


@dataclass(frozen=True)
class Xnor(Quantizer):
    """`mean|x| * sign(x)`: weights as in `bwn`, and activations in the same way.

    With the channels as `axes`, the scales of activations are the source's matrix A, one number per pixel. It averages
    them over the window of the convolution after it, which changes the sums of that convolution and not its input, and
    is left to it.

    Example:
        >>> import jax.numpy as jnp
        >>> Xnor()(jnp.asarray([[-3.0, 1.0], [0.5, 0.5]]), 1, {}, (1,)).tolist()
        [[-2.0, 2.0], [0.5, 0.5]]
    """

    kind: ClassVar[str] = "xnor"
    BITS: ClassVar[tuple[int, int]] = (1, 1)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        return scaled_sign(x, axes, where)


quantizer = Xnor
