"""The `Criterion` interface: what a file in `search_spaces/sparsity/` defines that scores structures.

Such a file ends in `criterion = Class`; `names` lists them. The other files hold what a network is trained with.

Shapes: weights and `D`, the shape of a structure's decisions, as in `search_spaces/sparsity/_patterns.py`; `channels`
are those that a layer writes (reads, for `input_channel`), all groups together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

from jax import Array

from hw_models import discover
from hw_models.errors import InputError
from search_spaces.options import check
from search_spaces.sparsity._patterns import KINDS, Structure

PACKAGE = "search_spaces.sparsity"


class Evidence(NamedTuple):
    """What is known of a layer; a criterion says in `needs` what it reads, the rest may be missing.

    `image` is the weights as a quantizer rounds them; `next_weight` and `next_image` are those of the layer that reads
    this one's output: `kernel [h, w, I, O]` or `[I, O]`, or `filters [h, w, C, M]`.
    """

    weight: Array | None = None
    gradient: Array | None = None  # of the loss by the weights, of their shape
    scale: Array | None = None  # of the normalisation after (before, for `input_channel`) the layer, [channels]
    activations: Array | None = None  # of calibration images, after the activation function, [..., channels]
    image: Array | None = None
    next_weight: Array | None = None
    next_image: Array | None = None
    key: Array | None = None


@dataclass(frozen=True)
class Criterion(ABC):
    """Base of all criteria. Subclasses are final, frozen dataclasses whose fields are their options.

    Class attributes:
        kind: the name of the file and of the criterion.
        NEEDS: the fields of `Evidence` that it reads, unless an option decides (`needs`).
        SERVES: the kinds of structure that it can score, unless an option decides (`serves`).
    """

    kind: ClassVar[str]
    NEEDS: ClassVar[tuple[str, ...]] = ("weight",)
    SERVES: ClassVar[tuple[str, ...]] = tuple(KINDS)

    def __post_init__(self) -> None:
        for field in fields(self):
            check(f"{self.kind}.{field.name}", getattr(self, field.name), str(field.type))

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of `Evidence` that it reads."""
        return self.NEEDS

    @property
    def serves(self) -> tuple[str, ...]:
        """Kinds of structure that it can score."""
        return self.SERVES

    @abstractmethod
    def score(self, structure: Structure, evidence: Evidence) -> Array:
        """A number for each structure, `D`: the larger, the rather it is kept."""

    def __call__(self, structure: Structure, evidence: Evidence) -> Array:
        """`score`, once it is known that it can be given.

        Raises:
            InputError: a structure that the criterion does not serve, or evidence that is missing or of another shape.
        """
        if structure.kind not in self.serves:
            raise InputError(f"criterion {self.kind} does not serve structure {structure.kind}: give one of "
                             f"{', '.join(self.serves)}")  # fmt: skip
        missing = [name for name in self.needs if getattr(evidence, name) is None]
        if missing:
            raise InputError(f"criterion {self.kind} needs {', '.join(missing)}: give Evidence that has it")
        for name in sorted({"weight", "gradient", "image"} & set(self.needs)):
            if getattr(evidence, name).shape != structure.shape:
                raise InputError(f"{name} of shape {getattr(evidence, name).shape} does not go with weights of shape "
                                 f"{structure.shape}: give it that shape")  # fmt: skip
        return self.score(structure, evidence)


def names() -> tuple[str, ...]:
    """The criteria of the folder, sorted.

    Example:
        >>> "magnitude" in names(), "penalties" in names()
        (True, False)
    """
    found = discover.names(PACKAGE)
    return tuple(name for name in found if discover.load_optional(PACKAGE, name, "criterion") is not None)


def criterion_of(name: str) -> type[Criterion]:
    """The class of a criterion, of the folder or by the dotted name of a module.

    Raises:
        InputError: no such criterion.

    Example:
        >>> criterion_of("magnitude")().kind
        'magnitude'
        >>> criterion_of("magnitud")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: unknown criterion 'magnitud': did you mean 'magnitude'? (known: angle, apoz, \
batch_norm_scale, distance, geometric_median, magnitude, random, snip)
    """
    if not discover.is_dotted(name) and name not in names():
        raise discover.unknown("criterion", name, names())
    return discover.load(PACKAGE, name, "criterion", "criterion")
