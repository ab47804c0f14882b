"""Chance: the baseline that every criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from jax import Array

from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure


@dataclass(frozen=True)
class Random(Criterion):
    """A number between 0 and 1 for each structure, drawn with the key of the evidence.

    Example:
        >>> Random()(Structure("output_channel", (2, 3)), Evidence(key=jax.random.key(0))).shape
        (1, 3)
    """

    kind: ClassVar[str] = "random"
    NEEDS: ClassVar[tuple[str, ...]] = ("key",)

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The numbers drawn."""
        assert evidence.key is not None
        return jax.random.uniform(evidence.key, structure.decisions)


criterion = Random
