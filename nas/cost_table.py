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
from search_spaces.slots import Case, Slot, Width
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
    rows = _Rows(space)
    length = max(len(layers) for layers in rows.layers)
    works = [Workload.of(layers, length) for layers in rows.layers]
    work = jax.tree.map(lambda *leaves: jnp.stack(leaves), *works)  # [V, L]
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
        probability = (gates[decisions] * allowed).sum(-1).prod(-1)  # [V]

        def over_slots(leaf: Array) -> Array:
            return jax.ops.segment_sum(probability * leaf, owner, len(space.slots))

        return total(device, jax.tree.map(over_slots, table))

    return CostTable(exact, expected, device, chosen, note, len(rows.layers))


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
        widths = [slot.inp] if slot.tied else [slot.inp, slot.out]
        axes: list[tuple[int | None, tuple[Any, ...]]] = []
        axes += [(decision, self.space.decisions[decision].values) for _, decision in case.decisions]
        axes += [(width.decision, width.values) for width in widths]
        self.starts[slot.index, position] = len(self.layers)
        stride = 1
        for decision, values in reversed(axes):
            if decision is not None:
                self.strides[slot.index, position, decision] += stride
            stride *= len(values)
        for picked in itertools.product(*(range(len(values)) for _, values in axes)):
            chosen = {d: values[i] for (d, values), i in zip(axes, picked, strict=True) if d is not None}
            fields = {name: chosen[decision] for name, decision in case.decisions}
            singles = {name: choice.values[0] for name, choice in case.block.searched().items()}
            block = case.block.with_values(**(singles | fields))
            io = slot.io(_width(slot.inp, chosen), _width(slot.out, chosen))
            self.layers.append(block.lower(io))
            self.owner.append(slot.index)
            own = [(d, frozenset({i})) for (d, _), i in zip(axes, picked, strict=True) if d is not None]
            needs.append([*common, *own])

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


def _width(width: Width, chosen: dict[int, Any]) -> int:
    return int(width.values[0] if width.decision is None else chosen[width.decision])
