"""How close weights are to their quantized image: of a structure itself, or by the kernels that read a channel.

Source: Guerra Fernandez, thesis (Monash 2024), sections 4.3.1 to 4.3.3. A filter far from its image has converged
poorly. Judged by itself (`filter`) that selects badly on ImageNet; judged by its interactions, the mean over the
kernels of the next layer that read its map, it selects well. A layer that no convolution reads takes `filter`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from hw_models.errors import InputError
from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure

INTERACTIONS, FILTER = "interactions", "filter"


@dataclass(frozen=True)
class Closeness(Criterion):
    """Base of criteria that compare weights with their image; `of` says whose: `interactions` or `filter`."""

    of: str = INTERACTIONS

    OF_FILTER: ClassVar[tuple[str, ...]]  # kinds that it can score by `filter`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of not in (INTERACTIONS, FILTER):
            raise InputError(f"{self.kind}.of={self.of!r} is not allowed: give {INTERACTIONS} or {FILTER}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Weights and image of the next layer, or of this one."""
        return ("next_weight", "next_image") if self.of == INTERACTIONS else ("weight", "image")

    @property
    def serves(self) -> tuple[str, ...]:
        """Interactions are those of output channels."""
        return ("output_channel",) if self.of == INTERACTIONS else self.OF_FILTER

    @abstractmethod
    def closeness(self, structure: Structure, weight: Array, image: Array) -> Array:
        """A number for each structure, `D`, the larger the closer."""

    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """The closeness of each structure, or the mean over the kernels that read the channel."""
        if self.of == FILTER:
            assert evidence.weight is not None and evidence.image is not None
            return self.closeness(structure, evidence.weight, evidence.image)
        assert evidence.next_weight is not None and evidence.next_image is not None
        weight, image = evidence.next_weight, evidence.next_image
        # each kernel a structure of its own, whatever the layer: depthwise filters look the same
        kernels = self.closeness(Structure("connection", tuple(weight.shape)), weight, image)
        return structure.per_channel(by_channel(kernels.reshape(kernels.shape[-2:]), channels_of(structure)))


def channels_of(structure: Structure) -> int:
    """Channels that the layer writes: the heads of a depthwise one are reduced to one map.

    Example:
        >>> channels_of(Structure("output_channel", (3, 3, 8, 2), depthwise=True))
        8
    """
    return structure.shape[-2] if structure.depthwise else structure.shape[-1]


def by_channel(kernels: Array, channels: int) -> Array:
    """The mean over the kernels that read each channel: `[I, O] -> [channels]`; `I` are those of one group.

    Raises:
        InputError: `I` that is no group of the channels.

    Example:
        >>> import jax.numpy as jnp
        >>> by_channel(jnp.asarray([[1.0, 3.0], [2.0, 4.0]]), 2).tolist()
        [2.0, 3.0]
        >>> by_channel(jnp.asarray([[1.0, 3.0]]), 2).tolist()  # two groups
        [1.0, 3.0]
    """
    inputs, outputs = kernels.shape
    groups = channels // inputs
    if groups * inputs != channels or outputs % groups:
        raise InputError(f"a next layer of {inputs} inputs and {outputs} outputs cannot read {channels} channels: give "
                         "the weights of the layer that reads them, or of=filter")  # fmt: skip
    return kernels.reshape(inputs, groups, -1).mean(-1).T.ravel()
