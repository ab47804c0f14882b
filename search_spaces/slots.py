"""The flat view of a search space: a list of decisions and a list of slots (block positions).

A decision is one searched value; it is live only while the decisions above it select it (a depth that reaches its
block, a block kind that has the field). A slot holds its cases (kinds of block) and, for each, the branches of the
supernet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hw_models.errors import InputError
from search_spaces.block import Block, BlockIO
from search_spaces.choice import Choice, options

MAX_BRANCHES = 12


@dataclass(frozen=True)
class Decision:
    """One searched value. `conditions` are `(decision index, allowed value indices)`, all of which must hold."""

    name: str
    values: tuple[Any, ...]
    conditions: tuple[tuple[int, frozenset[int]], ...] = ()


@dataclass(frozen=True)
class Width:
    """Channel counts of one tensor and the index of the decision that picks one (None when fixed)."""

    values: tuple[int, ...]
    decision: int | None = None

    def searched(self) -> int | Choice:
        """As a block sees it: an int, or a `Choice` while undecided."""
        return self.values[0] if len(self.values) == 1 else Choice(*self.values)


@dataclass(frozen=True)
class Case:
    """One kind of block at a slot: `decisions` maps its searched fields to decision indices."""

    name: str
    block: Block
    decisions: tuple[tuple[str, int], ...]

    @property
    def branch_fields(self) -> tuple[str, ...]:
        """Searched fields that become branches."""
        return tuple(name for name, _ in self.decisions if name in self.block.BRANCHES)

    @property
    def elastic_fields(self) -> tuple[str, ...]:
        """Searched fields that are traced operands inside a branch."""
        return tuple(name for name, _ in self.decisions if name in self.block.ELASTIC)

    def branches(self) -> list[Block]:
        """The block once for every combination of its branch fields, first field slowest."""
        fields = self.branch_fields
        combinations = itertools.product(*(options(getattr(self.block, name)) for name in fields))
        return [self.block.with_values(**dict(zip(fields, values, strict=True))) for values in combinations]


@dataclass(frozen=True)
class Slot:
    """One block position. `depth` is `(decision, value indices that reach it)`, None when it is always there."""

    name: str
    index: int
    cases: tuple[Case, ...]
    kind_decision: int | None
    depth: tuple[int, frozenset[int]] | None
    inp: Width
    out: Width
    in_h: int
    in_w: int
    stride: int

    @property
    def tied(self) -> bool:
        """Whether input and output width are one decision."""
        return self.inp == self.out and self.inp.decision is not None

    def io(self, in_channels: int | Choice, out_channels: int | Choice, depthwise: str = "auto") -> BlockIO:
        """The surroundings of the block for given widths."""
        tied = self.tied or (isinstance(in_channels, int) and in_channels == out_channels)
        return BlockIO(
            self.in_h, self.in_w, in_channels, out_channels, self.stride, self.index, tied, depthwise
        )  # fmt: skip

    def elastic_io(self, depthwise: str = "auto") -> BlockIO:
        """The surroundings with every width still open."""
        return self.io(self.inp.searched(), self.out.searched(), depthwise)

    @property
    def branch_count(self) -> int:
        """Branches of the supernet's switch at this slot, skipping included."""
        return sum(len(case.branches()) for case in self.cases) + (self.depth is not None)

    def widths(self) -> Iterator[tuple[int, int]]:
        """Every pair of input and output width that can occur."""
        if self.tied or self.inp == self.out:
            yield from ((width, width) for width in self.inp.values)
        else:
            yield from itertools.product(self.inp.values, self.out.values)


class Walk:
    """Walks the stages of a space once and collects its decisions and slots."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.slots: list[Slot] = []

    def decide(self, name: str, field: Any, conditions: tuple[tuple[int, frozenset[int]], ...] = ()) -> int | None:
        """Register a decision for `field`; None when it has one value only."""
        if len(options(field)) == 1:
            return None
        self.decisions.append(Decision(name, options(field), conditions))
        return len(self.decisions) - 1

    def width(self, name: str, field: int | Choice) -> Width:
        """Register the width `field`."""
        for value in options(field):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: width {value!r} is not allowed: give a positive whole number")
        return Width(options(field), self.decide(name, field))

    def cases(
        self, path: str, block: Any, conditions: tuple[tuple[int, frozenset[int]], ...]
    ) -> tuple[tuple[Case, ...], int | None]:
        """Register the kind decision of `block` and the fields of every kind."""
        kinds = options(block)
        for kind in kinds:
            if not isinstance(kind, Block):
                raise InputError(f"{path}: {kind!r} is not a block: give a Block, or a Choice of Blocks")
        names = [kind.kind for kind in kinds]
        names = [f"{name}_{position}" if names.count(name) > 1 else name for position, name in enumerate(names)]
        kind_decision = None
        if len(kinds) > 1:
            self.decisions.append(Decision(f"{path}/block", tuple(names), conditions))
            kind_decision = len(self.decisions) - 1
        cases = []
        for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            prefix, needs = path, conditions
            if kind_decision is not None:
                prefix, needs = f"{path}/{name}", (*conditions, (kind_decision, frozenset({position})))
            fields = []
            for field, choice in kind.searched().items():
                if field not in kind.BRANCHES and field not in kind.ELASTIC:
                    allowed = ", ".join((*kind.BRANCHES, *kind.ELASTIC)) or "none"
                    raise InputError(f"{prefix}/{field} cannot be searched: block {name} searches {allowed}")
                decision = self.decide(f"{prefix}/{field}", choice, needs)
                if decision is not None:
                    fields.append((field, decision))
            cases.append(Case(name, kind, tuple(fields)))
        return tuple(cases), kind_decision

    def place(self, slot: Slot) -> None:
        """Add a slot after checking that every concrete variant of it can be built."""
        if slot.branch_count > MAX_BRANCHES:
            raise InputError(
                f"{slot.name}: {slot.branch_count} branches, at most {MAX_BRANCHES} are allowed: search fewer kinds, "
                "kernels or expansions there (widths, heads and attention are not branches)"
            )
        for case in slot.cases:
            for block in case.branches():
                for in_channels, out_channels in slot.widths():
                    try:
                        block.check(slot.io(in_channels, out_channels))
                    except InputError as error:
                        raise InputError(f"{slot.name}/{case.name}: {error}") from None
        self.slots.append(slot)
