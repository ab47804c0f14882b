"""Angle between weights and their quantized image: the largest angle is pruned first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError
from search_spaces.sparsity._closeness import Closeness
from search_spaces.sparsity._patterns import KINDS, Structure


def similarity(structure: Structure, weight: Array, image: Array) -> Array:
    """`phi = v . image / (|v| |image|)` of each structure, `D`, and 0 where either is zero.

    Source: Guerra Fernandez, thesis (Monash 2024), equation 4.3. Erratum: the text treats phi as a distance; it is a
    similarity, 1 for the same direction, so that the largest angle has the smallest phi.

    Example:
        >>> round(similarity(Structure("layer", (1, 2)), jnp.asarray([[3.0, 4.0]]), jnp.ones((1, 2))).item(), 4)
        0.9899
    """
    lengths = structure.norm(weight) * structure.norm(image)
    some = lengths > 0
    return jnp.where(some, structure.summed(weight * image) / jnp.where(some, lengths, 1.0), 0.0)


def binary_similarity(structure: Structure, weight: Array) -> Array:
    """`similarity` to the signs of the weights, times any factor, as `sum |v| / (sqrt(sum v ** 2) sqrt(n))`.

    Source: Guerra Fernandez, thesis (Monash 2024), below equation 4.3.

    Example:
        >>> round(binary_similarity(Structure("layer", (1, 2)), jnp.asarray([[3.0, -4.0]])).item(), 4)
        0.9899
    """
    lengths = structure.norm(weight) * jnp.sqrt(structure.sizes)
    return structure.summed(jnp.abs(weight)) / jnp.where(lengths > 0, lengths, 1.0)


@dataclass(frozen=True)
class Angle(Closeness):
    """`similarity`. A kernel of one weight has no angle: a layer that a pointwise or linear one reads takes `filter`.

    Example:
        >>> from search_spaces.sparsity._criterion import Evidence
        >>> w = jnp.asarray([[3.0, 1.0], [4.0, 1.0]])
        >>> scores = Angle(of="filter")(Structure("output_channel", (2, 2)), Evidence(weight=w, image=jnp.sign(w)))
        >>> [round(score, 4) for score in scores.ravel().tolist()]
        [0.9899, 1.0]
    """

    kind: ClassVar[str] = "angle"
    OF_FILTER: ClassVar[tuple[str, ...]] = tuple(name for name in KINDS if name not in ("weight", "n_m"))

    def closeness(self, structure: Structure, weight: Array, image: Array) -> Array:
        """The similarity.

        Raises:
            InputError: structures of a single weight.
        """
        if structure.count == math.prod(structure.shape):
            raise InputError(f"weights of shape {structure.shape} have no angle, one at a time: give of=filter, or "
                             "criterion distance")  # fmt: skip
        return similarity(structure, weight, image)


criterion = Angle
