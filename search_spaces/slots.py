"""The flat view of a search space: a list of decisions and a list of slots (block positions).

A decision is one searched value; it is live only while the decisions above it select it (a depth that reaches its
block, a block kind that has the field). A slot holds its cases (kinds of block) and, for each, the branches of the
supernet.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.block import EVERYWHERE, Block, BlockIO
from search_spaces.density import Sparsity
from search_spaces.precision import Scheme

MAX_BRANCHES = 12


@dataclass(frozen=True)
class Decision:
    """One searched value. `conditions` are `(decision index, allowed value indices)`, all of which must hold."""

    name: str
    values: tuple[Any, ...]
    conditions: tuple[tuple[int, frozenset[int]], ...] = ()


@dataclass(frozen=True)
class Width:
    """Channel counts of one tensor: one value for every combination of the decisions that set it (none when fixed).

    Values are in the order of a mixed radix over the decisions, the first slowest.
    """

    values: tuple[int, ...]
    decisions: tuple[int, ...] = ()

    def chosen(self, decisions: Sequence[Decision], genes: Any) -> int:
        """The value under `genes`, looked up by the index of each decision."""
        index = 0
        for decision in self.decisions:
            index = index * len(decisions[decision].values) + int(genes[decision])
        return self.values[index]


@dataclass(frozen=True)
class Widths:
    """Input and output width of a slot together: one pair for every combination of the decisions of either."""

    decisions: tuple[int, ...]
    cardinality: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, inp: Width, out: Width, decisions: Sequence[Decision]) -> Widths:
        """Combine two widths, which may share decisions."""
        involved = tuple(dict.fromkeys((*inp.decisions, *out.decisions)))
        cardinality = tuple(len(decisions[decision].values) for decision in involved)
        pairs = []
        for picked in itertools.product(*map(range, cardinality)):
            genes = dict(zip(involved, picked, strict=True))
            pairs.append((inp.chosen(decisions, genes), out.chosen(decisions, genes)))
        return cls(involved, cardinality, tuple(pairs))


@dataclass(frozen=True)
class Case:
    """One kind of block at a slot: `decisions` maps its searched fields to decision indices."""

    name: str
    block: Block
    decisions: tuple[tuple[str, int], ...]

    def branch_fields(self, traced: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Searched fields that become branches, those in `traced` excepted."""
        return tuple(name for name, _ in self.decisions if name in self.block.BRANCHES and name not in traced)

    def elastic_fields(self, traced: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Searched fields that are traced operands inside a branch, those in `traced` among them."""
        inside = (*self.block.ELASTIC, *EVERYWHERE, *traced)
        return tuple(name for name, _ in self.decisions if name in inside)

    def branches(self, traced: tuple[str, ...] = ()) -> tuple[Block, ...]:
        """The block once for every combination of its branch fields, first field slowest."""
        return self.block.branches(traced)

    def chosen(self, decisions: Sequence[Decision], genes: Any) -> Block:
        """The block with every field decided by `genes`."""
        fields = {name: choice.values[0] for name, choice in self.block.searched().items()}
        fields |= {name: decisions[d].values[int(genes[d])] for name, d in self.decisions}
        return self.block.with_values(**fields)


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
    widths: Widths
    in_h: int
    in_w: int
    stride: int
    first: bool = False
    scheme: Scheme | None = None
    sparsity: Sparsity | None = None

    def io(
        self,
        in_channels: int | tuple[int, ...],
        out_channels: int | tuple[int, ...],
        depthwise: str = "auto",
    ) -> BlockIO:
        """The surroundings of the block for given widths."""
        size = self.in_h, self.in_w, in_channels, out_channels, self.stride
        return BlockIO(*size, self.index, self.first, depthwise, self.scheme, self.sparsity)

    def only_io(self, depthwise: str = "auto") -> BlockIO:
        """The surroundings in a frozen space, whose widths have one value."""
        return self.io(self.inp.values[0], self.out.values[0], depthwise)

    def elastic_io(self, depthwise: str = "auto") -> BlockIO:
        """The surroundings with every pair of widths still possible."""
        if len(self.widths.pairs) == 1:
            return self.io(*self.widths.pairs[0], depthwise)
        ins, outs = zip(*self.widths.pairs, strict=True)
        return self.io(ins, outs, depthwise)

    @property
    def branch_count(self) -> int:
        """Branches of the supernet's switch at this slot, skipping included."""
        return sum(len(case.branches()) for case in self.cases) + (self.depth is not None)


def interchangeable(slots: Sequence[Slot]) -> list[tuple[np.ndarray, int]]:
    """Layers of which one that is skipped may stand anywhere: their decisions `[layers, decisions of each]`, the first
    of which is the kind of block, and the kind that is the identity."""
    groups = []
    # a run: neighbours that differ in nothing but their decisions
    for movable, run in itertools.groupby(slots[:-1], _movable):
        several = list(run)
        rows = [[slot.kind_decision, *(d for case in slot.cases for _, d in case.decisions)] for slot in several]
        own = len({row[0] for row in rows}) == len(rows)  # no decision shared by the whole stage
        if movable is not None and len(several) > 1 and own:
            kinds = [case.block.kind for case in several[0].cases]
            groups.append((np.asarray(rows, np.int32), kinds.index("skip")))
    return groups


def _movable(slot: Slot) -> Any:
    """What layers have in common that may change places when one is skipped; None for one that may not."""
    searched = slot.kind_decision is not None and slot.depth is None and not slot.first and slot.inp == slot.out
    blocks = tuple(case.block for case in slot.cases)
    if not searched or all(block.kind != "skip" for block in blocks):
        return None
    return slot.name.rpartition("/")[0], blocks, slot.inp
