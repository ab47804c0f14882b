"""From the tree of a space to its flat view: registers every decision and places every block position once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hw_models.errors import InputError
from hw_models.workload import Op
from search_spaces.block import EVERYWHERE, Block, BlockIO
from search_spaces.choice import Choice, options, options_at
from search_spaces.density import Sparsity, check_layers
from search_spaces.precision import Scheme
from search_spaces.slots import MAX_BRANCHES, Case, Decision, Slot, Width, Widths
from search_spaces.widths import LARGEST_WIDTH, Rule, searched
from search_spaces.widths import check as check_rule

if TYPE_CHECKING:
    from search_spaces.stage import Stage


def labels(kinds: Sequence[Block]) -> list[str]:
    """Names of the blocks of one choice: their kinds, and where a kind occurs twice the fields that tell them apart.

    Example:
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> labels([ConvNorm(3), ConvNorm(5, "relu6")])
        ['conv_norm[kernel=3,activation=relu]', 'conv_norm[kernel=5,activation=relu6]']
    """
    names = []
    for kind in kinds:
        alike = [other for other in kinds if other.kind == kind.kind]
        fields = [field.name for field in dataclasses.fields(kind)]
        apart = [name for name in fields if len({getattr(other, name) for other in alike}) > 1]
        inside = ",".join(f"{name}={getattr(kind, name)}" for name in apart)
        names.append(f"{kind.kind}[{inside}]" if inside else kind.kind)
    return names


class Walk:
    """Walks the stages of a space once and collects its decisions and slots."""

    def __init__(self, additions: bool = True, scheme: Scheme | None = None, sparsity: Sparsity | None = None) -> None:
        self.additions, self.scheme, self.sparsity = additions, scheme, sparsity
        self.decisions: list[Decision] = []
        self.slots: list[Slot] = []

    def decide(self, name: str, field: Any, conditions: tuple[tuple[int, frozenset[int]], ...] = ()) -> int | None:
        """Register a decision for `field`; None when it has one value only."""
        values = options_at(name, field)
        if len(values) == 1:
            return None
        self.decisions.append(Decision(name, values, conditions))
        return len(self.decisions) - 1

    def width(self, name: str, field: int | Choice) -> Width:
        """Register the width `field`."""
        for value in options(field):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_WIDTH:
                raise InputError(
                    f"{name}: width {value!r} is not allowed: give a positive whole number, at most {LARGEST_WIDTH:,}"
                )
        decision = self.decide(name, field)
        return Width(options(field), () if decision is None else (decision,))

    def cases(
        self, path: str, block: Any, conditions: tuple[tuple[int, frozenset[int]], ...]
    ) -> tuple[tuple[Case, ...], int | None]:
        """Register the kind decision of `block` and the fields of every kind."""
        kinds = options_at(f"{path}/block", block)
        for kind in kinds:
            if not isinstance(kind, Block):
                raise InputError(f"{path}: {kind!r} is not a block: give a Block, or a Choice of Blocks")
        names = labels(kinds)
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
            # a choice of one value is that value
            kind = kind.with_values(**{n: c.values[0] for n, c in kind.searched().items() if len(c.values) == 1})
            for field, choice in kind.searched().items():
                if field not in (*kind.BRANCHES, *kind.ELASTIC, *EVERYWHERE):
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
        slot = dataclasses.replace(slot, scheme=self.scheme, sparsity=self.sparsity)
        for case in slot.cases:
            for block in _built(case, self.sparsity):
                for in_channels, out_channels in dict.fromkeys(slot.widths.pairs):
                    io = slot.io(in_channels, out_channels)
                    try:
                        block.check(io)
                        _check_density(block, io)
                        if len(set(slot.widths.pairs)) > 1:
                            block.check_elastic(slot.elastic_io())
                        if not self.additions:
                            _refuse_additions(block, io)
                    except InputError as error:
                        raise InputError(f"{_path(slot, case, str(error))}: {error}") from None
                    if slot.depth is not None and block.output_size(io) != (slot.in_h, slot.in_w):
                        raise InputError(
                            f"{slot.name}/{case.name}: depth cannot be searched where a block shrinks the map: use "
                            "padding 'same', or fix the depth"
                        )
        self.slots.append(slot)


def _built(case: Case, sparsity: Sparsity | None) -> list[Block]:
    """What is built at a slot: the branches, with every density where that is a width."""
    densities = options(case.block.density) if sparsity is not None and sparsity.channels else (case.block.density,)
    return [block.with_values(density=density) for block in case.branches() for density in densities]


def _check_density(block: Block, io: BlockIO) -> None:
    """Raise InputError for a density that the pattern does not have, or that empties a layer."""
    if io.sparsity is None or block.pruning(io) is None:
        return
    first = {name: choice.values[0] for name, choice in block.searched().items()}
    layers = block.with_values(**first).lower(io)  # the first of other fields stand for all
    for density in options(block.density):
        io.sparsity.check("density", density)
        check_layers(layers, density, io.sparsity, block.HEAD)


def _path(slot: Slot, case: Case, said: str) -> str:
    """Where an error lies: the path of the field that it names, as decisions are named, else that of the block."""
    block = slot.name if len(slot.cases) == 1 else f"{slot.name}/{case.name}"
    for field in dataclasses.fields(case.block):
        if said.startswith((f"{field.name}=", f"{field.name}[", f"unknown {field.name} ")):
            return f"{block}/{field.name}"
    return f"{slot.name}/{case.name}"


def _refuse_additions(block: Block, io: BlockIO) -> None:
    fields = block.searched()
    combinations = itertools.product(*(choice.values for choice in fields.values()))
    every = (block.with_values(**dict(zip(fields, values, strict=True))) for values in combinations)
    if any(layer.op == Op.ADD for concrete in every for layer in concrete.lower(io)):
        raise InputError(
            "it adds its input to its output, and this space is for tools that cannot (residual_additions=False): use "
            "a block without a sum, such as sigmoidal_residual or dense"
        )


class Ruled:
    """Widths of the blocks, counted over the whole network, by the rule of the space."""

    def __init__(self, walk: Walk, rule: Rule | None):
        self.walk, self.rule = walk, rule
        self.number = 0
        self.stage = -1
        self.fields: dict[str, int] = {}
        if rule is not None:
            check_rule(rule)
            for name, choice in searched(rule).items():
                decision = walk.decide(f"widths/{name}", choice)
                if decision is not None:
                    self.fields[name] = decision

    def next(self, path: str) -> Width:
        """The width of the next block."""
        if self.rule is None:
            raise InputError(f"{path}/width is None, and the space has no rule for widths: give a number or a rule")
        decisions = tuple(self.fields.values())
        values = []
        for picked in itertools.product(*(self.walk.decisions[d].values for d in decisions)):
            width = self.rule.at(dict(zip(self.fields, picked, strict=True)), self.number, self.stage)
            if width > LARGEST_WIDTH:
                given = ", ".join(f"{name}={value}" for name, value in zip(self.fields, picked, strict=True))
                at = f" with {given}" if given else ""
                raise InputError(
                    f"{path}: the rule of the space{at} gives widths above {LARGEST_WIDTH:,}: lower its numbers"
                )
            values.append(width)
        self.number += 1
        return Width(tuple(values), decisions)


def walk_stage(
    walk: Walk, path: str, stage: Stage, ruled: Ruled, width: Width, h: int, w: int
) -> tuple[Width, int, int]:
    """Register the decisions and slots of `stage`; its last width and the size of its maps are returned."""
    if type(stage.stride) is not int or stage.stride not in (1, 2):
        raise InputError(f"{path}: stride {stage.stride} is not allowed: use 1 or 2")
    if not isinstance(stage.shared, bool):
        raise InputError(f"{path}: shared={stage.shared!r} is not allowed: give True or False")
    blocks = stage.block if isinstance(stage.block, tuple) else (stage.block,)
    for kind in (kind for block in blocks for kind in options(block)):
        if isinstance(kind, Block) and kind.HEAD:
            raise InputError(f"{path}: block {kind.kind} ends a network: give it as the head of the space")
    for depth in options_at(f"{path}/depth", stage.depth):
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise InputError(f"{path}/depth: {depth!r} is not allowed: give whole numbers from 1")
    repeats = max(options(stage.depth))
    for what, value in (("blocks", stage.block), ("widths", stage.width)):
        if isinstance(value, tuple) and len(value) != repeats:
            raise InputError(f"{path}: {len(value)} {what} for depth {repeats}: give one per repeat")
    outs = _stage_widths(walk, path, stage, ruled, repeats)
    if isinstance(stage.depth, Choice) and len(set(outs)) > 1:
        raise InputError(f"{path}/depth cannot be searched where every block has a width of its own: fix one of them")
    depth_decision = walk.decide(f"{path}/depth", stage.depth)
    shared: Any = walk.cases(path, stage.block, ()) if stage.shared else None
    for position in range(repeats):
        depth = None
        conditions: tuple[tuple[int, frozenset[int]], ...] = ()
        reaching = frozenset(i for i, value in enumerate(options(stage.depth)) if value > position)
        if depth_decision is not None and len(reaching) < len(options(stage.depth)):
            depth = (depth_decision, reaching)
            conditions = (depth,)
        block = stage.block[position] if isinstance(stage.block, tuple) else stage.block
        name = f"{path}/{position}"
        cases, kind = shared if stage.shared else walk.cases(name, block, conditions)
        stride = stage.stride if position == 0 else 1
        out = outs[position]
        both = Widths.of(width, out, walk.decisions)
        first = position == 0
        walk.place(Slot(name, len(walk.slots), cases, kind, depth, width, out, both, h, w, stride, first))
        h, w = _output_size(walk.slots[-1])
        width = out
    return width, h, w


def _stage_widths(walk: Walk, path: str, stage: Stage, ruled: Ruled, repeats: int) -> list[Width]:
    if stage.width is None:
        ruled.stage += 1
        return [ruled.next(path) for _ in range(repeats)]
    if isinstance(stage.width, tuple):
        return [walk.width(f"{path}/{position}/width", width) for position, width in enumerate(stage.width)]
    return [walk.width(f"{path}/width", stage.width)] * repeats


def _output_size(slot: Slot) -> tuple[int, int]:
    sizes = {block.output_size(slot.io(1, 1)) for case in slot.cases for block in case.branches()}
    if len(sizes) > 1:
        raise InputError(
            f"{slot.name}: its blocks make maps of different sizes ({sorted(sizes)}): use the same padding"
        )
    return sizes.pop()
