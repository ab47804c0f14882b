"""Network slimming: the scale of the batch normalisation that a channel goes through; small ones are pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure


@dataclass(frozen=True)
class BatchNormScale(Criterion):
    """`|gamma|` of every channel, trained under `penalties.l1` of the scales; the mean of channels that go together.

    Source: Liu et al. 2017, "Learning efficient convolutional networks through network slimming",
    https://arxiv.org/abs/1708.06519.

    Example:
        >>> channels, scale = Structure("output_channel", (2, 3)), jnp.asarray([0.5, -1.0, 0.0])
        >>> BatchNormScale()(channels, Evidence(scale=scale)).tolist()
        [[0.5, 1.0, 0.0]]
    """

    kind: ClassVar[str] = "batch_norm_scale"
    NEEDS: ClassVar[tuple[str, ...]] = ("scale",)
    SERVES: ClassVar[tuple[str, ...]] = ("input_channel", "output_channel")

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The magnitudes of the scales."""
        assert evidence.scale is not None
        return structure.per_channel(jnp.abs(evidence.scale))


criterion = BatchNormScale
