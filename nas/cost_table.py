"""Cost tables: every variant of every slot priced once, networks priced by a gather and a sum.

Shape letters: `S` slots, `V` variants of all slots together, `D` decisions, `C` widest choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.costs import Costs, combine
from hw_models.device import Device
from hw_models.estimate import apply_precision, layer_costs, total
from hw_models.workload import Layer, Workload
from search_spaces.slots import Case, Slot
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class CostTable:
    """Prices of a space on one device.

    `exact` takes genes `[D]`, `expected` gates `[D, C]`; both act on one candidate and give `Costs` with leaves `[]`.
    Sums are exact in expectation; of a `max` field (peak memory) soft gates give the maximum of expectations, which
    is a lower bound. Expected costs treat the decisions as independent.

    Example:
        >>> from hw_models import load_device
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space()
        >>> table = cost_table(space, load_device("raspberry_pi_4"))
        >>> genes = space.sample(jax.random.key(0))
        >>> int(table.exact(genes).macs) == sum(layer.macs for layer in space.freeze(genes).lower())
        True
    """

    exact: Callable[[Array], Costs]
    expected: Callable[[Array], Costs]
    device: Device
    precision: str
    note: str
    variants: int


def cost_table(space: SearchSpace, device: Device, precision: str | None = None) -> CostTable:
    """Price every variant of every slot of `space` on `device`.

    Raises:
        InputError: `precision` is asked for and the device does not support it.
    """
    if space.resolutions:
        return _over_resolutions([cost_table(each, device, precision) for each in space.resolutions])
    rows = _Rows(space)
    work = Workload.stack(rows.layers)  # [V, L]
    work, chosen, note = apply_precision(device, work, precision)
    table = combine(jax.jit(layer_costs)(device, work))  # leaves [V]
    starts, strides = jnp.asarray(rows.starts), jnp.asarray(rows.strides)  # [S, cases], [S, cases, D]
    slots = jnp.arange(len(space.slots))
    decisions, allowed = jnp.asarray(rows.conditions), jnp.asarray(rows.allowed)  # [V, R], [V, R, C]
    owner = jnp.asarray(rows.owner)  # [V]

    def exact(genes: Array) -> Costs:
        case = rows.case(genes)
        index = starts[slots, case] + (strides[slots, case] * genes).sum(-1)
        return total(device, jax.tree.map(lambda leaf: leaf[index], table))

    def expected(gates: Array) -> Costs:
        probability = (gates[decisions][..., : allowed.shape[-1]] * allowed).sum(-1).prod(-1)  # [V]

        def over_slots(leaf: Array) -> Array:
            return jax.ops.segment_sum(probability * leaf, owner, len(space.slots))

        return total(device, jax.tree.map(over_slots, table))

    return CostTable(exact, expected, device, chosen, note, len(rows.layers))


def _over_resolutions(tables: list[CostTable]) -> CostTable:
    """One table of several: the last gene is the resolution, which every row depends on."""

    def exact(genes: Array) -> Costs:
        costs = [table.exact(genes[:-1]) for table in tables]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves)[genes[-1]], *costs)

    def expected(gates: Array) -> Costs:
        costs = [table.expected(gates[:-1]) for table in tables]
        return jax.tree.map(lambda *leaves: gates[-1, : len(tables)] @ jnp.stack(leaves), *costs)

    first = tables[0]
    return CostTable(
        exact, expected, first.device, first.precision, first.note, sum(table.variants for table in tables)
    )  # fmt: skip


class _Rows:
    """Layers of every variant, in the order of a mixed radix over the decisions involved."""

    def __init__(self, space: SearchSpace):
        self.space = space
        self.layers: list[list[Layer]] = []
        width = max((len(slot.cases) + 1 for slot in space.slots), default=1)
        self.starts = np.zeros((len(space.slots), width), np.int32)
        self.strides = np.zeros((len(space.slots), width, space.num_decisions), np.int32)
        self.owner: list[int] = []
        needs: list[list[tuple[int, frozenset[int]]]] = []
        for slot in space.slots:
            live = [slot.depth] if slot.depth is not None else []
            for position, case in enumerate(slot.cases):
                kind = [(slot.kind_decision, frozenset({position}))] if slot.kind_decision is not None else []
                self._add_case(slot, position, case, [*live, *kind], needs)
            if slot.depth is not None:
                decision, reaching = slot.depth
                self.starts[slot.index, len(slot.cases)] = len(self.layers)
                self.layers.append([])
                self.owner.append(slot.index)
                unreached = frozenset(range(len(space.decisions[decision].values))) - reaching
                needs.append([(decision, unreached)])
        deepest = max((len(row) for row in needs), default=0)
        widest = int(space.cardinality.max(initial=1))
        self.conditions = np.zeros((len(needs), deepest), np.int32)
        self.allowed = np.zeros((len(needs), deepest, widest), np.float32)
        for v, row in enumerate(needs):
            for r in range(deepest):
                decision, values = row[r] if r < len(row) else (0, frozenset(range(widest)))
                self.conditions[v, r] = decision
                self.allowed[v, r] = [value in values for value in range(widest)]

    def _add_case(self, slot: Slot, position: int, case: Case, common: list[Any], needs: list[Any]) -> None:
        counts = {d: len(self.space.decisions[d].values) for _, d in case.decisions}
        counts |= dict(zip(slot.widths.decisions, slot.widths.cardinality, strict=True))
        self.starts[slot.index, position] = len(self.layers)
        stride = 1
        for decision in reversed(counts):
            self.strides[slot.index, position, decision] = stride
            stride *= counts[decision]
        decisions = self.space.decisions
        for picked in itertools.product(*(range(count) for count in counts.values())):
            genes = dict(zip(counts, picked, strict=True))
            io = slot.io(slot.inp.chosen(decisions, genes), slot.out.chosen(decisions, genes))
            self.layers.append(case.chosen(decisions, genes).lower(io))
            self.owner.append(slot.index)
            needs.append([*common, *((d, frozenset({i})) for d, i in genes.items())])

    def case(self, genes: Array) -> Array:
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
