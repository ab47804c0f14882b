"""Density as a decision of a whole space, and what an option such as `sparsity=2:4` asks for."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from hw_models.errors import InputError
from hw_models.workload import Layer, Op
from search_spaces.choice import Choice, options
from search_spaces.density import CHANNEL, Sparsity

if TYPE_CHECKING:
    from search_spaces.block import Block, BlockIO
    from search_spaces.slots import Case, Slot
    from search_spaces.space import SearchSpace

DENSITIES: dict[str, tuple[float, ...]] = {
    # XNNPACK's sparse path, the one that gains from such zeros, wants two thirds of the weights to be zero
    "unstructured": (0.1, 0.2, 0.3, 0.5, 1.0),
}
USUAL = (0.25, 0.5, 0.75, 1.0)


def parse_sparsity(sparsity: str, densities: str | None = None) -> tuple[Sparsity, float | Choice] | None:
    """The pattern and the densities that the options `sparsity` and `densities` ask for; None for `none`.

    `densities` are shares with slashes between them, such as `0.25/0.5/1`. Unless given: `n / m` and 1 for `n:m`; 0.1,
    0.2, 0.3, 0.5 and 1 for `unstructured`; 0.25, 0.5, 0.75 and 1 for all others.

    Raises:
        InputError: an unknown pattern, other text, or a share that the pattern does not have.

    Example:
        >>> parse_sparsity("2:4"), parse_sparsity("column", "0.5"), parse_sparsity("none")
        ((Sparsity(pattern='2:4'), Choice(0.5, 1.0)), (Sparsity(pattern='column'), 0.5), None)
    """
    if sparsity in ("none", ""):
        return None
    pattern = Sparsity(sparsity)
    if densities is None:
        n_m = pattern.n_m
        values = DENSITIES.get(sparsity, USUAL) if n_m is None else (n_m[0] / n_m[1], 1.0)
    else:
        try:
            values = tuple(float(part) for part in str(densities).split("/"))
        except ValueError:
            raise InputError(f"densities={densities} is not allowed: give shares such as 0.25/0.5/1") from None
    for value in values:
        pattern.check("densities", value)
    return pattern, Choice(*values) if len(values) > 1 else values[0]


def with_sparsity(
    space: SearchSpace, sparsity: str = "2:4", densities: str | None = None, ends: bool = False
) -> SearchSpace:
    """`space` with a density at every block that it changes, as `parse_sparsity` reads it.

    Stem and head stay dense unless `ends`. Blocks without a layer that can have the pattern, or without hidden channels
    for `channel`, have no density.

    Raises:
        InputError: as `parse_sparsity`; no block has such layers; a density that would empty a layer.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> pruned = with_sparsity(tiny.space(), "2:4")
        >>> [name for name in pruned.names if name.endswith("density")]
        ['stages/0/0/density', 'stages/1/0/density', 'stages/1/1/density']
    """
    asked = parse_sparsity(sparsity, densities)
    if asked is None:
        return space
    pattern, density = asked
    pruned = dataclasses.replace(space, sparsity=pattern)
    changed = {
        (slot.name, number)
        for slot in (pruned.slots if ends else pruned.slots[1:-1])
        for number, case in enumerate(slot.cases)
        if _changes(slot, case, min(options(density)))
    }
    if not changed:
        raise _nothing_to_prune(pruned, pattern)

    def on(block: Any, names: list[str]) -> Any:
        if isinstance(block, tuple):
            return tuple(on(kind, [name]) for kind, name in zip(block, names, strict=True))
        kinds = [
            kind.with_values(density=density) if any((name, number) in changed for name in names) else kind
            for number, kind in enumerate(options(block))
        ]
        return Choice(*kinds) if isinstance(block, Choice) else kinds[0]

    def on_stage(path: str, stage: Any) -> Any:
        return dataclasses.replace(
            stage, block=on(stage.block, [f"{path}/{i}" for i in range(max(options(stage.depth)))])
        )

    stages = tuple(on_stage(f"stages/{number}", stage) for number, stage in enumerate(space.stages))
    if not ends:
        return dataclasses.replace(pruned, stages=stages)
    return dataclasses.replace(pruned, stages=stages, stem=on_stage("stem", space.stem), head=on(space.head, ["head"]))


def _changes(slot: Slot, case: Case, density: float) -> bool:
    """Whether any variant of the block has other layers at that density."""
    return any(
        block.with_values(density=density).layers(io) != block.with_values(density=None).layers(io)
        for block, io in _variants(slot, case)
    )


def _variants(slot: Slot, case: Case) -> list[tuple[Block, BlockIO]]:
    first = {name: choice.values[0] for name, choice in case.block.searched().items()}
    found = []
    for branch in case.branches():
        settled = {name: value for name, value in first.items() if name in branch.searched()}
        for pair in dict.fromkeys(slot.widths.pairs):
            found.append((branch.with_values(**settled), slot.io(*pair)))
    return found


def _nothing_to_prune(space: SearchSpace, sparsity: Sparsity) -> InputError:
    said = f"sparsity={sparsity.pattern} changes no layer of space {space.name}"
    densities = [value for slot in space.slots for case in slot.cases for value in options(case.block.density)]
    if min((value for value in densities if value is not None), default=0) >= 1:
        return InputError(f"{said}: a density of 1 keeps everything: give a smaller one as well")
    if sparsity.pattern == CHANNEL:
        return InputError(
            f"{said}, whose blocks have no hidden channels to leave out: give another pattern, such as 2:4"
        )
    layers: list[Layer] = []
    for slot in space.slots[1:-1]:
        for case in slot.cases:
            for block, io in _variants(slot, case):
                layers += [layer for layer in block.lower(io) if layer.op == Op.CONV]
    inputs = sorted({layer.in_channels // layer.groups for layer in layers})
    if sparsity.n_m is None or not inputs:
        return InputError(f"{said}: give another pattern, such as unstructured, or blocks with larger convolutions")
    n, m = sparsity.n_m
    fitting = [other for other in range(m, 1, -1) if any(count > 1 and count % other == 0 for count in inputs)]
    known = ", ".join(map(str, inputs))
    nearest = f" (nearest: {max(1, math.floor(n * fitting[0] / m))}:{fitting[0]})" if fitting else ""
    return InputError(
        f"{said}: its convolutions have {known} input channels, none a multiple of {m}: give widths that are{nearest}"
    )


def without_sparsity(space: SearchSpace) -> SearchSpace:
    """A frozen `space` with its masks taken away: the dense network of the same weights.

    Raises:
        InputError: densities are widths of hidden channels, so that the dense network has other weights.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> without_sparsity(with_sparsity(space, "2:4", "0.5")) == space
        True
    """
    if space.sparsity is None:
        return space
    if space.sparsity.channels:
        raise InputError("sparsity=channel decides widths, so that the dense network has other weights: build it anew")

    def off(block: Any) -> Any:
        return tuple(map(off, block)) if isinstance(block, tuple) else block.with_values(density=None)

    stages = tuple(dataclasses.replace(stage, block=off(stage.block)) for stage in space.stages)
    stem = dataclasses.replace(space.stem, block=off(space.stem.block))
    return dataclasses.replace(space, stem=stem, stages=stages, head=off(space.head), sparsity=None)
