"""Magnitude: the norm of each structure's weights; small ones are pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from hw_models.errors import check_range
from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure


@dataclass(frozen=True)
class Magnitude(Criterion):
    """`(sum |w| ** p) ** (1 / p)`, `p` from 1 to 4: 1 adds magnitudes, 2 is the Euclidean norm. Of single weights, |w|.

    Sums grow with the size of a structure, which differs within a layer for `split` and for blocks at the border.

    Sources: Liang et al. 2021 (survey of pruning and quantization), equation 5; Schindler, dissertation, equation 6.13
    (`p = 1`); Li et al. 2017 (filters), https://arxiv.org/abs/1608.08710.

    Example:
        >>> import jax.numpy as jnp
        >>> w = jnp.asarray([[3.0, 6.0], [-4.0, 8.0]])
        >>> Magnitude(p=2)(Structure("output_channel", (2, 2)), Evidence(weight=w)).tolist()
        [[5.0, 10.0]]
    """

    p: float = 1.0

    kind: ClassVar[str] = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("magnitude.p", self.p, 1, 4)

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The norms."""
        assert evidence.weight is not None
        return structure.norm(evidence.weight, self.p)


criterion = Magnitude
