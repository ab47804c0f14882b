"""Cost tables: every variant of every slot priced once, networks priced by a gather and a sum.

Shape letters: `V` variants of all slots together, `D` decisions, `C` widest choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.costs import Costs, combine
from hw_models.device import Device
from hw_models.estimate import apply_precision, check_batch, layer_costs, total
from hw_models.precision import check_bits
from hw_models.programs import for_few_runs
from nas.variants import Variants
from search_spaces.choice import options
from search_spaces.precision import FIELDS, rounded
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class CostTable:
    """Prices of a space on one device.

    `exact` takes genes `[D]`, `expected` gates `[D, C]`; both act on one candidate and give `Costs` with leaves `[]`.
    Sums are exact in expectation; of a `max` field (peak memory) soft gates give the maximum of expectations, which
    is a lower bound. Expected costs treat the decisions as independent. `measured` names the lookup table that
    latencies come from, with a hash of what it holds; it is empty where they come from the device's model.

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
    measured: str = ""


def cost_table(space: SearchSpace, device: Device, precision: str | None = None, batch: int | None = None) -> CostTable:
    """Price every variant of every slot of `space` on `device`, for runs of `batch` images, 1 unless given.

    Raises:
        InputError: `precision` is asked for and the device does not support it; bits of the space that run on it in no
            combination; `batch` is not one that can be priced.
    """
    check_bits_of(space, device)
    images = 1 if batch is None else batch
    check_batch(images)
    if space.resolutions:
        return _over_resolutions([_Priced(each, device, precision, images) for each in space.resolutions])
    priced = _Priced(space, device, precision, images)
    return CostTable(priced.exact, priced.expected, device, priced.precision, priced.note, priced.count)


def check_bits_of(space: SearchSpace, device: Device, only_exact: bool = False) -> None:
    """Raise InputError where blocks of `space` have bits that run on `device` in no combination.

    With `only_exact` where they may have 32, which prices cannot tell from a network that says nothing of its bits.

    Example:
        >>> from hw_models import load_device
        >>> from search_spaces.spaces import tiny
        >>> check_bits_of(tiny.space(bits="16"), load_device("zcu102"))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: 16 bits of weights do not run on zcu102 (int8): give fewer bits
    """
    blocks = [case.block for slot in space.slots for case in slot.cases]
    # blocks of few kinds of bits: each is asked for once
    for bits in dict.fromkeys(tuple(options(getattr(block, name)) for name in FIELDS) for block in blocks):
        exact = any(EXACT_BITS in each for each in bits)
        if exact or (any(map(rounded, chain(*bits))) and not only_exact):
            check_bits(device, *(tuple(each or EXACT_BITS for each in of) for of in bits))


_layer_costs = for_few_runs(layer_costs)  # once for a search


class _Priced:
    """Every variant of a space of one resolution, priced; `table` has leaves `[V]`."""

    def __init__(self, space: SearchSpace, device: Device, precision: str | None, batch: int):
        self.device, self.variants, self.batch = device, Variants(space), batch
        work = self.variants.workload()
        work, self.precision, self.note = apply_precision(device, work, precision)
        self.table = combine(_layer_costs(device.unnamed(), work, jnp.float32(batch)))

    @property
    def count(self) -> int:
        return len(self.variants.rows)

    def exact(self, genes: Array) -> Costs:
        index = self.variants.index(genes)
        return total(self.device, jax.tree.map(lambda leaf: leaf[index], self.table), self.batch)

    def expected(self, gates: Array) -> Costs:
        probability = self.variants.probability(gates)
        per_slot = jax.tree.map(lambda leaf: self.variants.per_slot(probability * leaf), self.table)
        return total(self.device, per_slot, self.batch)


def _over_resolutions(priced: list[_Priced]) -> CostTable:
    """One table of several: the last gene is the resolution, which every row depends on."""
    first = priced[0]
    assert all(first.variants.same_layout(each.variants) for each in priced)
    table = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[each.table for each in priced])  # leaves [resolutions, V]

    def exact(genes: Array) -> Costs:
        index = first.variants.index(genes[:-1])
        return total(first.device, jax.tree.map(lambda leaf: leaf[genes[-1], index], table), first.batch)

    def expected(gates: Array) -> Costs:
        costs = [each.expected(gates[:-1]) for each in priced]
        return jax.tree.map(lambda *leaves: gates[-1, : len(priced)] @ jnp.stack(leaves), *costs)

    count = sum(each.count for each in priced)
    return CostTable(exact, expected, first.device, first.precision, first.note, count)
