"""Activations clipped at a learned point and rounded to equal steps (PACT).

Source: Choi et al. 2018, https://arxiv.org/abs/1805.06085.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from search_spaces.quantizers._quantizer import ACTIVATIONS, Quantizer, passed, straight_through
from search_spaces.quantizers._statistics import gradient_scale, largest, positive
from search_spaces.quantizers._uniform import LEAST_STEP, largest_unsigned, unit_levels


@dataclass(frozen=True)
class Pact(Quantizer):
    """`2 ** bits` levels from 0 to the learned `clip`; for activations that are not negative, as behind a ReLU.

    What is negative becomes 0 without a gradient: normalised images and results of linear bottlenecks lose a part of
    themselves, for which `affine` and `lsq` have codes.

    The gradient of `x` is 1 from 0 to `clip`, that of `clip` is 1 where `x` reaches it, summed over all such entries.
    With `scaled` it is `1 / sqrt(n q)` of that, as in `lsq`; without, as in the source, the clip of a large map may
    wander by more than its own size at learning rates that weights take. One that a step takes below 0 counts as its
    absolute value, for a network behind a clip of 0 sees nothing. It begins at the largest value of the sample; the
    source begins far out, and lets weight decay of `clip`, from which vectors are spared here, draw it in.

    Example:
        >>> clip = {"clip": jnp.asarray([1.0])}
        >>> [round(value, 2) for value in Pact()(jnp.asarray([-1.0, 0.4, 5.0]), 2, clip, (0,)).tolist()]
        [0.0, 0.33, 1.0]
    """

    kind: ClassVar[str] = "pact"
    SERVES: ClassVar[tuple[str, ...]] = (ACTIVATIONS,)
    BITS: ClassVar[tuple[int, int]] = (1, 16)

    scaled: bool = True

    def init(self, x: Array, bits: Any, axes: tuple[int, ...], where: Array | None = None) -> dict[str, Array]:
        return {"clip": positive(largest(jnp.maximum(x, 0), axes, where))}

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        clip = learned["clip"]
        most = jnp.maximum(jnp.abs(lax.stop_gradient(clip)), LEAST_STEP)
        levels = most * unit_levels(jnp.clip(x / most, 0, 1), bits)
        slope = jnp.where(clip < 0, -1.0, 1.0) * (x >= most)
        if self.scaled:
            slope = slope * gradient_scale(x, axes, where, largest_unsigned(bits), True)
        return straight_through(x, levels, (x >= 0) & (x < most)) + passed(clip, slope)


quantizer = Pact
