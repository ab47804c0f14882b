"""Average percentage of zeros (APoZ): how often a channel's activation is zero; idle channels are pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure


def share_of_zeros(activations: Array) -> Array:
    """APoZ of each channel: the share of zeros over calibration images and pixels. `[..., channels] -> [channels]`

    Source: Hu et al. 2016, "Network trimming", https://arxiv.org/abs/1607.03250; Liang et al. 2021 (survey of pruning
    and quantization), equation 8, whose sums start at 0 and have one term too many.

    Example:
        >>> maps = jnp.asarray([[0.0, 0.0, 1.2, 0.0], [3.0, 0.0, 0.0, 0.1]])  # two images, four pixels
        >>> share_of_zeros(maps[..., None]).tolist()
        [0.625]
    """
    return (activations == 0).mean(range(activations.ndim - 1), dtype=jnp.float32)


@dataclass(frozen=True)
class Apoz(Criterion):
    """`1 - APoZ` of every channel: the largest share of zeros is pruned first. For activations that have zeros (ReLU).

    Example:
        >>> channels = Structure("output_channel", (3, 2))
        >>> Apoz()(channels, Evidence(activations=jnp.asarray([[0.0, 2.0], [1.0, 2.0]]))).tolist()
        [[0.5, 1.0]]
    """

    kind: ClassVar[str] = "apoz"
    NEEDS: ClassVar[tuple[str, ...]] = ("activations",)
    SERVES: ClassVar[tuple[str, ...]] = ("input_channel", "output_channel")

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The shares of what is not zero."""
        assert evidence.activations is not None
        return structure.per_channel(1 - share_of_zeros(evidence.activations))


criterion = Apoz
