"""Activations clipped to a fixed range and rounded to equal steps.

Source: Schindler 2021, equations 5.24 and 5.25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from hw_models.errors import number
from search_spaces.quantizers._quantizer import ACTIVATIONS, Quantizer, straight_through
from search_spaces.quantizers._uniform import unit_levels


@dataclass(frozen=True)
class FixedClip(Quantizer):
    """`2 ** bits` levels from 0 to `gamma`; the gradient passes in between.

    After batch normalisation, three standard deviations above the mean are `gamma = 3`.

    Example:
        >>> [round(value, 2) for value in FixedClip()(jnp.asarray([-1.0, 1.31, 5.0]), 4, {}, (0,)).tolist()]
        [0.0, 1.4, 3.0]
    """

    kind: ClassVar[str] = "fixed_clip"
    SERVES: ClassVar[tuple[str, ...]] = (ACTIVATIONS,)
    BITS: ClassVar[tuple[int, int]] = (1, 16)

    gamma: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("fixed_clip.gamma", self.gamma, 0)

    def rounded(
        self, x: Array, bits: Array, learned: dict[str, Array], axes: tuple[int, ...], where: Array | None = None
    ) -> Array:
        levels = self.gamma * unit_levels(jnp.clip(x / self.gamma, 0, 1), bits)
        return straight_through(x, levels, (x > 0) & (x < self.gamma))


quantizer = FixedClip
