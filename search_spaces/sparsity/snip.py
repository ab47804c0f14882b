"""SNIP: how much the loss changes if a structure is scaled; what hardly matters is pruned, even before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure


@dataclass(frozen=True)
class Snip(Criterion):
    """`|sum of w * dL/dw|`, the derivative of the loss by a factor of the structure at 1; `|w * dL/dw|` of weights.

    The paper divides by the sum over the network, which changes no order and is left out.

    Source: Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity",
    https://arxiv.org/abs/1810.02340, equation 4, with one factor for each structure instead of each weight.

    Example:
        >>> weight, gradient = jnp.asarray([[1.0, 2.0], [3.0, 1.0]]), jnp.asarray([[0.5, -1.0], [0.0, 1.0]])
        >>> Snip()(Structure("output_channel", (2, 2)), Evidence(weight=weight, gradient=gradient)).tolist()
        [[0.5, 1.0]]
    """

    kind: ClassVar[str] = "snip"
    NEEDS: ClassVar[tuple[str, ...]] = ("weight", "gradient")

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The magnitudes of the derivatives."""
        assert evidence.weight is not None and evidence.gradient is not None
        return jnp.abs(structure.summed(evidence.weight * evidence.gradient))


criterion = Snip
