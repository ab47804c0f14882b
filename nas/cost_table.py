"""Cost tables: every variant of every slot priced once, networks priced by a gather and a sum.

Shape letters: `V` variants of all slots together, `D` decisions, `C` widest choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.costs import Costs, combine
from hw_models.device import Device
from hw_models.estimate import apply_precision, layer_costs, total
from hw_models.workload import Workload
from nas.variants import Variants
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
    variants = Variants(space)
    work = Workload.stack([variant.layers for variant in variants.rows])  # [V, L]
    work, chosen, note = apply_precision(device, work, precision)
    table = combine(jax.jit(layer_costs)(device, work))  # leaves [V]

    def exact(genes: Array) -> Costs:
        index = variants.index(genes)
        return total(device, jax.tree.map(lambda leaf: leaf[index], table))

    def expected(gates: Array) -> Costs:
        probability = variants.probability(gates)
        return total(device, jax.tree.map(lambda leaf: variants.per_slot(probability * leaf), table))

    return CostTable(exact, expected, device, chosen, note, len(variants.rows))


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
