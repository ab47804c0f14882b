"""Counts of a network that belong to no device: MACs are not FLOPs, and activations are not memory.

Shape letters: `L` layers. All counts are exact integers, of one image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hw_models.workload import Layer


class Metrics(NamedTuple):
    """Counts of one image.

    `flops` are two per multiply-accumulate. `memory_access_elements` are the numbers that the multiplying layers read
    and write, `Hi*Wi*Cin + Ho*Wo*Cout + k*k*Cin*Cout/groups` each (ShuffleNet V2, Ma et al. 2018,
    https://arxiv.org/abs/1807.11164, guideline 1). `activations` are the outputs of the multiplying layers, summed;
    `memory_elements` are parameters and activations together (Schindler 2021, chapter 7).
    """

    params: int
    macs: int
    flops: int
    memory_access_elements: int
    activations: int
    memory_elements: int


def metrics(layers: Iterable[Layer]) -> Metrics:
    """Counts of a network from its layers.

    Example:
        >>> from hw_models.workload import Op
        >>> counts = metrics([Layer(Op.CONV, 8, 8, 8, 8, 4, 16, 3, 3, groups=2, norm=1)])
        >>> counts.macs, counts.flops, counts.memory_access_elements
        (18432, 36864, 1568)
    """
    rows = list(layers)
    multiplying = [row for row in rows if row.multiplies]
    params, macs = sum(row.params for row in rows), sum(row.macs for row in rows)
    activations = sum(row.output_elements for row in multiplying)
    reads = sum(row.input_elements + row.weights for row in multiplying)
    return Metrics(params, macs, 2 * macs, reads + activations, activations, params + activations)
