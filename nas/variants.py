"""Every variant of every slot of a space, and which of them genes and gates choose.

A variant is a slot with everything decided that its layers depend on: kind of block, fields, widths, or left out by a
depth. Prices of variants become prices of networks by a gather and a sum.

Shape letters: `S` slots, `V` variants of all slots together, `D` decisions, `C` widest choice, `R` conditions.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.workload import Dtype, Layer, Workload
from search_spaces.block import Block, BlockIO
from search_spaces.choice import options
from search_spaces.density import in_pattern, share
from search_spaces.precision import FIELDS, in_format
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.slots import Case, Slot
from search_spaces.space import SearchSpace


class Variant(NamedTuple):
    """One variant of a slot; `form` and `io` are None where a depth leaves the slot out.

    `form` is the block but for its `bits`, of weights and activations, and for a `density` of masks; `plain` are its
    layers but for them: variants that differ in nothing else share both.
    """

    slot: Slot
    form: Block | None
    io: BlockIO | None
    plain: list[Layer]
    bits: tuple[int | None, int | None] = (None, None)
    density: float | None = None

    @property
    def block(self) -> Block | None:
        """The block with everything decided."""
        if self.form is None:
            return None
        density = self.form.density if self.density is None else self.density
        return self.form.with_values(**dict(zip(FIELDS, self.bits, strict=True)), density=density)

    @property
    def layers(self) -> list[Layer]:
        """Its layers."""
        sparsity, head = self.slot.sparsity, self.form is not None and self.form.HEAD
        return in_pattern(in_format(self.plain, *self.bits), self.density, sparsity, head)


class Variants:
    """The variants of a space of one resolution, in the order of a mixed radix over the decisions involved.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space()
        >>> variants = Variants(space)
        >>> genes = space.sample(jax.random.key(0))
        >>> chosen = [variants.rows[i] for i in variants.index(genes)]
        >>> sum((variant.layers for variant in chosen), []) == space.freeze(genes).lower()
        True
    """

    def __init__(self, space: SearchSpace):
        self.space = space
        self.rows: list[Variant] = []
        width = max((len(slot.cases) + 1 for slot in space.slots), default=1)
        self._starts = np.zeros((len(space.slots), width), np.int32)
        self._strides = np.zeros((len(space.slots), width, space.num_decisions), np.int32)
        needs: list[list[tuple[int, frozenset[int]]]] = []
        for slot in space.slots:
            live = [slot.depth] if slot.depth is not None else []
            for position, case in enumerate(slot.cases):
                kind = [(slot.kind_decision, frozenset({position}))] if slot.kind_decision is not None else []
                self._add_case(slot, position, case, [*live, *kind], needs)
            if slot.depth is not None:
                decision, reaching = slot.depth
                self._starts[slot.index, len(slot.cases)] = len(self.rows)
                self.rows.append(Variant(slot, None, None, []))
                unreached = frozenset(range(len(space.decisions[decision].values))) - reaching
                needs.append([(decision, unreached)])
        deepest = max((len(row) for row in needs), default=0)
        widest = int(space.cardinality.max(initial=1))
        self._decisions = np.zeros((len(needs), deepest), np.int32)  # [V, R]
        self._allowed = np.zeros((len(needs), deepest, widest), np.float32)  # [V, R, C]
        for v, row in enumerate(needs):
            for r in range(deepest):
                decision, values = row[r] if r < len(row) else (0, frozenset(range(widest)))
                self._decisions[v, r] = decision
                self._allowed[v, r] = [value in values for value in range(widest)]

    def _add_case(self, slot: Slot, position: int, case: Case, common: list[Any], needs: list[Any]) -> None:
        counts = {d: len(self.space.decisions[d].values) for _, d in case.decisions}
        counts |= dict(zip(slot.widths.decisions, slot.widths.cardinality, strict=True))
        # innermost, so that what only differs in them is lowered once
        masks = slot.sparsity is not None and not slot.sparsity.channels
        names = (*FIELDS, "density") if masks else FIELDS
        inner = [d for name, d in case.decisions if name in names]
        counts |= {d: counts.pop(d) for d in inner}
        self._starts[slot.index, position] = len(self.rows)
        stride = 1
        for decision in reversed(counts):
            self._strides[slot.index, position, decision] = stride
            stride *= counts[decision]
        decisions = self.space.decisions
        outer = [d for d in counts if d not in inner]
        every = [options(getattr(case.block, name)) for name in names]
        for picked in itertools.product(*(range(counts[d]) for d in outer)):
            genes = dict(zip(outer, picked, strict=True))
            io = slot.io(slot.inp.chosen(decisions, genes), slot.out.chosen(decisions, genes))
            block = case.chosen(decisions, genes | dict.fromkeys(inner, 0))
            plain = block.lower(io)
            need = [*common, *((d, frozenset({i})) for d, i in genes.items())]
            places = itertools.product(*(range(counts[d]) for d in inner))
            for (weight_bits, act_bits, *density), at in zip(itertools.product(*every), places, strict=True):
                self.rows.append(Variant(slot, block, io, plain, (weight_bits, act_bits), *density))
                needs.append([*need, *((d, frozenset({i})) for d, i in zip(inner, at, strict=True))])

    def workload(self) -> Workload:
        """The layers of all variants, `[V, L]`."""
        own: dict[int, int] = {}  # lists of plain layers, by identity
        place = np.asarray([own.setdefault(id(row.plain), len(own)) for row in self.rows])
        plain = {id(row.plain): row.plain for row in self.rows}
        work = jax.tree.map(lambda leaf: leaf[place], Workload.stack([plain[each] for each in own]))
        changes: dict[str, Array] = {}
        for number, (bits, dtype) in enumerate((("weight_bits", "weight_dtype"), ("act_bits", "act_dtype"))):
            values = np.asarray([row.bits[number] or EXACT_BITS for row in self.rows], np.float32)[:, None]
            whole = values >= EXACT_BITS
            changes[bits] = jnp.where(whole, getattr(work, bits), values)
            changes[dtype] = jnp.where(whole, getattr(work, dtype), float(Dtype.INT))
        changes |= self._zeros(work.count.shape)
        # what fills the lists up to one length is priced as before
        filled = work.count > 0
        return work._replace(**{name: jnp.where(filled, new, getattr(work, name)) for name, new in changes.items()})

    def _zeros(self, shape: tuple[int, int]) -> dict[str, Array]:
        """Density and pattern of all layers, `[V, L]` each; none where nothing is masked."""
        density, pattern = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        known: dict[tuple[int, float], list[float]] = {}
        for number, row in enumerate(self.rows):
            if row.density is None or row.form is None or row.slot.sparsity is None:
                continue
            key = id(row.plain), row.density
            if key not in known:
                known[key] = [share(layer, row.density, row.slot.sparsity, row.form.HEAD) for layer in row.plain]
            own = known[key]
            density[number, : len(own)] = own
            pattern[number, : len(own)] = np.where(np.asarray(own) < 1, int(row.slot.sparsity.hardware), 0)
        return {"density": jnp.asarray(density), "pattern": jnp.asarray(pattern)} if known else {}

    def index(self, genes: Array) -> Array:
        """The variant that `genes [D]` choose at every slot, int32 `[S]`."""
        case = self._case(genes)
        slots = jnp.arange(len(self.space.slots))
        used, strides = self._used
        if used.shape[1] == 0:
            return jnp.asarray(self._starts)[slots, case]
        weighed = jnp.asarray(strides)[slots, case] * genes[jnp.asarray(used)]
        return jnp.asarray(self._starts)[slots, case] + weighed.sum(-1)

    @functools.cached_property
    def _used(self) -> tuple[np.ndarray, np.ndarray]:
        """Decisions that any case of a slot depends on, `[S, U]`, and their strides in each case, `[S, cases, U]`.

        Most slots depend on a handful of many decisions: weighing all of them took most of the time of pricing.
        """
        depends = (self._strides != 0).any(1)  # [S, D]
        most = int(depends.sum(1).max(initial=0))
        # Those it depends on first; what fills the rows has strides of 0.
        used = np.argsort(~depends, axis=1, kind="stable")[:, :most]
        return used, np.take_along_axis(self._strides, used[:, None, :], axis=2)

    def same_layout(self, other: Variants) -> bool:
        """Whether genes choose the same indices in both, as they do in one space at several resolutions."""
        pairs = ((self._starts, other._starts), (self._strides, other._strides))
        return all(np.array_equal(ours, theirs) for ours, theirs in pairs)

    def probability(self, gates: Array) -> Array:
        """How likely every variant is under `gates [D, C]`, decisions taken as independent, `[V]`."""
        chosen = gates[jnp.asarray(self._decisions)][..., : self._allowed.shape[-1]]
        return (chosen * jnp.asarray(self._allowed)).sum(-1).prod(-1)

    def per_slot(self, values: Array) -> Array:
        """Sums of `values [V]` over the variants of every slot, `[S]`."""
        owner = jnp.asarray([variant.slot.index for variant in self.rows])
        return jax.ops.segment_sum(values, owner, len(self.space.slots))

    def _case(self, genes: Array) -> Array:
        """Index of the case in use at every slot `[S]`; the last one is skipping."""
        cases = []
        for slot in self.space.slots:
            case = jnp.int32(0) if slot.kind_decision is None else genes[slot.kind_decision]
            if slot.depth is not None:
                decision, reaching = slot.depth
                live = jnp.isin(genes[decision], jnp.asarray(sorted(reaching)))
                case = jnp.where(live, case, len(slot.cases))
            cases.append(case)
        return jnp.stack(cases)
