"""Bits of weights and activations as decisions of a space, and the quantizers that round to them.

Every block has the fields `weight_bits` and `act_bits`: None (numbers stay as they are), a number, or a `Choice`. Cost
models price them as they stand; networks and supernets round by the `Scheme` of the space, bits as traced operands.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hw_models import discover
from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.formats import WIDEST_INTEGER
from hw_models.workload import Dtype, Layer
from search_spaces.choice import Choice, options
from search_spaces.options import bracketed, typed
from search_spaces.quantizers._quantizer import ACTIVATIONS, EXACT_BITS, WEIGHTS, Quantizer

if TYPE_CHECKING:
    from search_spaces.block import Block
    from search_spaces.space import SearchSpace

FIELDS = ("weight_bits", "act_bits")
MIXED = (2, 3, 4, 6, 8, 16, 32)
GRANULARITIES = ("tensor", "channel", "kernel")


@dataclass(frozen=True)
class Scheme:
    """How the networks of a space are rounded.

    Attributes:
        weights, activations: quantizers by name, with options in brackets where needed: `nary[t=1.4]`.
        granularity: what shares a scale of weights: a whole `tensor`, an output `channel`, or a `kernel` (one input
            channel's part of an output channel; 1x1 convolutions take channels there).

    Raises:
        InputError: an unknown name, or a quantizer that does not serve weights or activations.

    Example:
        >>> Scheme().weight_quantizer.kind, Scheme().act_quantizer.kind
        ('symmetric', 'affine')
    """

    weights: str = "symmetric"
    activations: str = "affine"
    granularity: str = "channel"

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise unknown("granularity", str(self.granularity), GRANULARITIES)
        for role, quantizer in ((WEIGHTS, self.weight_quantizer), (ACTIVATIONS, self.act_quantizer)):
            if role not in quantizer.SERVES:
                raise InputError(f"quantizer {quantizer.kind} does not round {role}: it is for {quantizer.SERVES[0]}")

    @property
    def weight_quantizer(self) -> Quantizer:
        """The quantizer of weights."""
        return made(self.weights)

    @property
    def act_quantizer(self) -> Quantizer:
        """The quantizer of activations."""
        return made(self.activations)


@lru_cache(maxsize=64)
def made(text: str) -> Quantizer:
    """The quantizer that `text` names, options in brackets.

    Raises:
        InputError: an unknown name or option, or a value that it does not allow.

    Example:
        >>> made("affine").kind
        'affine'
    """
    name, given = bracketed(text, f"quantizer '{text}'")
    kind = discover.load("search_spaces.quantizers", name, "quantizer", "quantizer")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for option in given:
        if option not in fields:
            raise unknown(f"option of quantizer {name}", option, fields or ("none",))
    values = {option: typed(f"{name}.{option}", value, str(fields[option].type)) for option, value in given.items()}
    quantizer = kind(**values)
    assert isinstance(quantizer, Quantizer)
    return quantizer


def check_bits(where: str, bits: Any) -> None:
    """Raise InputError unless `bits` is None, 1 to 16, or 32.

    Example:
        >>> check_bits("weight_bits", 24)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: weight_bits=24 is not allowed: give 1 to 16, or 32 for float32 (nearest: 16)
    """
    if bits is None:
        return
    if isinstance(bits, bool) or not isinstance(bits, int) or not (1 <= bits <= WIDEST_INTEGER or bits == EXACT_BITS):
        nearest = ""
        if isinstance(bits, int | float):
            close = min((1, WIDEST_INTEGER, EXACT_BITS), key=lambda known: abs(known - bits))
            nearest = f" (nearest: {close})"
        raise InputError(
            f"{where}={bits!r} is not allowed: give 1 to {WIDEST_INTEGER}, or {EXACT_BITS} for float32{nearest}"
        )


def parse_bits(text: str | int) -> tuple[Any, Any] | None:
    """Bits of weights and of activations that an option such as `bits=mixed` asks for; None where it asks for none.

    `none`; `mixed` (2, 3, 4, 6, 8, 16 and 32, separately for weights and activations); `8`; `4/8` for a choice of
    both; `w4a8` and `w2/4/8a8` where they differ.

    Raises:
        InputError: other text, or bits out of range.

    Example:
        >>> parse_bits("8"), parse_bits("w2/4a8"), parse_bits("none")
        ((8, 8), (Choice(2, 4), 8), None)
    """
    text = str(text).strip()
    if text == "none":
        return None
    if text == "mixed":
        return Choice(*MIXED), Choice(*MIXED)
    match = re.fullmatch(r"w([0-9/]+)a([0-9/]+)", text) or re.fullmatch(r"([0-9/]+)", text)
    if not match or not all(part for group in match.groups() for part in group.split("/")):
        raise InputError(f"bits={text} is not allowed: give none, mixed, 8, 4/8 (a choice), or w4a8")
    found = []
    for group in (match[1], match[match.lastindex or 1]):
        values = tuple(int(part) for part in group.split("/"))
        for value in values:
            check_bits("bits", value)
        found.append(Choice(*values) if len(values) > 1 else values[0])
    return found[0], found[1]


def with_bits(
    space: SearchSpace, bits: str | int = "mixed", first_last: int | None = 8, scheme: Scheme | None = None
) -> SearchSpace:
    """`space` with bits of weights and activations at every block, as `parse_bits` reads them.

    Stem and head are pinned to `first_last` bits (None: as all others), which is where rounding hurts most. Biases and
    normalisations are never rounded.

    Raises:
        InputError: bits that a quantizer of the scheme does not know.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> mixed = with_bits(tiny.space(), "w4/8a8")
        >>> [name for name in mixed.names if name.endswith("_bits")]
        ['stages/0/0/weight_bits', 'stages/1/0/weight_bits', 'stages/1/1/weight_bits']
    """
    chosen = parse_bits(bits)
    scheme = scheme or Scheme()
    if chosen is None:
        return space
    pinned = chosen if first_last is None else (first_last, first_last)
    for option, both in (("bits", chosen), ("first_last_bits", pinned)):
        for quantizer, field in zip((scheme.weight_quantizer, scheme.act_quantizer), both, strict=True):
            for value in options(field):
                try:
                    quantizer.check_bits(value)
                except InputError as error:
                    raise InputError(f"{option}: {error}") from None

    def on(block: Any, both: tuple[Any, Any]) -> Any:
        if isinstance(block, Choice):
            return Choice(*(on(kind, both) for kind in block.values))
        if isinstance(block, tuple):
            return tuple(on(kind, both) for kind in block)
        return block.with_values(weight_bits=both[0], act_bits=both[1])

    stages = tuple(dataclasses.replace(stage, block=on(stage.block, chosen)) for stage in space.stages)
    stem = dataclasses.replace(space.stem, block=on(space.stem.block, pinned))
    head = on(space.head, pinned)
    return dataclasses.replace(space, stem=stem, stages=stages, head=head, scheme=scheme)


def without_bits(space: SearchSpace) -> SearchSpace:
    """A frozen `space` with all bits taken away: the float network of the same weights.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> without_bits(with_bits(space, 8)) == space
        True
    """

    def off(block: Any) -> Any:
        if isinstance(block, tuple):
            return tuple(off(kind) for kind in block)
        return block.with_values(weight_bits=None, act_bits=None)

    stages = tuple(dataclasses.replace(stage, block=off(stage.block)) for stage in space.stages)
    stem = dataclasses.replace(space.stem, block=off(space.stem.block))
    return dataclasses.replace(space, stem=stem, stages=stages, head=off(space.head), scheme=None)


def rounds(block: Block) -> bool:
    """Whether any of the bits that `block` may take rounds something.

    Example:
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> rounds(ConvNorm()), rounds(ConvNorm(act_bits=8)), rounds(ConvNorm(act_bits=32))
        (False, True, False)
    """
    return any(rounded(getattr(block, name)) for name in FIELDS)


def has_bits(space: SearchSpace) -> bool:
    """Whether any block of a space rounds.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> has_bits(tiny.space()), has_bits(tiny.space(bits="8"))
        (False, True)
    """
    return any(rounds(case.block) for slot in space.slots for case in slot.cases)


def rounded(bits: Any) -> bool:
    """Whether one of `bits`, a number, None or a `Choice`, rounds.

    Example:
        >>> rounded(Choice(8, 32)), rounded(32), rounded(None)
        (True, False, False)
    """
    return any(value is not None and value < EXACT_BITS for value in options(bits))


def in_format(layers: Iterable[Layer], weight_bits: int | None, act_bits: int | None) -> list[Layer]:
    """`layers` with their weights and activations in so many bits; as they are where None or 32.

    Example:
        >>> from hw_models.workload import Op
        >>> in_format([Layer(Op.CONV, 8, 8, 8, 8, 3, 16)], 4, None)[0].weight_bits
        4
    """
    changes: dict[str, Any] = {}
    if weight_bits is not None and weight_bits < EXACT_BITS:
        changes |= {"weight_bits": weight_bits, "weight_dtype": Dtype.INT}
    if act_bits is not None and act_bits < EXACT_BITS:
        changes |= {"act_bits": act_bits, "act_dtype": Dtype.INT}
    return [layer._replace(**changes) for layer in layers] if changes else list(layers)
