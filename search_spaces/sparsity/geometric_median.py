"""Filter pruning via geometric median (FPGM): filters that the others can replace are pruned, whatever their norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure


@dataclass(frozen=True)
class GeometricMedian(Criterion):
    """The sum of Euclidean distances from a channel's weights to those of all others; the least are nearest the median.

    Source: He et al. 2019, "Filter pruning via geometric median", https://arxiv.org/abs/1811.00250, equation 8.

    Example:
        >>> channels, w = Structure("output_channel", (1, 3)), jnp.asarray([[0.0, 1.0, 5.0]])
        >>> GeometricMedian()(channels, Evidence(weight=w)).tolist()
        [[6.0, 5.0, 9.0]]
    """

    kind: ClassVar[str] = "geometric_median"
    SERVES: ClassVar[tuple[str, ...]] = ("input_channel", "output_channel")

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The sums of distances."""
        assert evidence.weight is not None
        rows = structure.rows(evidence.weight)
        # row by row: all differences at once would take as many copies of the weights as there are channels
        sums = lax.map(lambda row: jnp.sqrt(jnp.square(rows - row).sum(1)).sum(), rows)
        return sums.reshape(structure.decisions)


criterion = GeometricMedian
