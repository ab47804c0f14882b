"""Distance between weights and their quantized image: the farthest are pruned first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from search_spaces.sparsity._closeness import Closeness
from search_spaces.sparsity._patterns import KINDS, Structure


@dataclass(frozen=True)
class Distance(Closeness):
    """Minus the Euclidean distance `d = sqrt(sum (v - image) ** 2)`.

    Source: Guerra Fernandez, thesis (Monash 2024), equation 4.4.

    Example:
        >>> import jax.numpy as jnp
        >>> from search_spaces.sparsity._criterion import Evidence
        >>> w = jnp.asarray([[4.0, 1.0], [5.0, 1.0]])
        >>> Distance(of="filter")(Structure("output_channel", (2, 2)), Evidence(weight=w, image=jnp.sign(w))).tolist()
        [[-5.0, -0.0]]
    """

    kind: ClassVar[str] = "distance"
    OF_FILTER: ClassVar[tuple[str, ...]] = tuple(KINDS)

    def closeness(self, structure: Structure, weight: Array, image: Array) -> Array:
        """Minus the distance."""
        return -structure.norm(weight - image)


criterion = Distance
