"""Latency of a whole space by a measured table: every variant looked up once, networks priced by a gather and a sum.

Shape letters: `S` slots, `V` variants of all slots together, `D` decisions, `C` widest choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.costs import Costs
from hw_models.device import Device
from hw_models.errors import InputError
from hw_models.formats import parse_format
from hw_models.lookup import Part, TableCost, added, check_device, check_places, parts, price
from hw_models.lookup_table import LookupTable
from hw_models.table_files import table_text
from hw_models.table_keys import Shape, ends
from hw_models.workload import Layer
from nas.cost_table import CostTable, cost_table
from nas.variants import Variant, Variants
from search_spaces.positions import position_key, position_keys
from search_spaces.space import SearchSpace
from search_spaces.texts import resolve


@dataclass(frozen=True)
class MeasuredLatency:
    """Latencies of a space by a table.

    `exact` takes genes `[D]`, `expected` gates `[D, C]`, `covered` genes; all act on one candidate. Latencies are in
    seconds for one run of the table's batch; `covered` is the share of them that was measured. `missing` are the keys
    that were not.

    Example:
        >>> from hw_models import load_table
        >>> from search_spaces.spaces import fbnet
        >>> space = fbnet.space(input_hw=32, classes=100, features=1504)
        >>> found = measured_latency(space, load_table("raspi4_fbnet_cifar100"))
        >>> f"{found.exact(jnp.full(22, 8)):.8f}"  # 22 skips: the baseline
        '0.00779822'
    """

    exact: Callable[[Array], Array]
    expected: Callable[[Array], Array]
    covered: Callable[[Array], Array]
    missing: tuple[str, ...]


def price_network(
    table: LookupTable, network: SearchSpace, missing: str = "error", device: Device | None = None
) -> TableCost:
    """The latency of a frozen `network` by a table of any level; see `hw_models.lookup.price`.

    Raises:
        InputError: as there; by position also a network that is none of the table's space.

    Example:
        >>> from hw_models import load_table
        >>> from search_spaces.texts import resolve
        >>> network = resolve("proxylessnas_mobile").network()
        >>> f"{1e3 * price_network(load_table('pixel1_proxylessnas'), network).latency_s:.2f} ms"
        '84.42 ms'
    """
    if table.level != "position":
        return price(table, network.lower(), missing, device)
    _only_error(table, missing, device)
    return added(table, _by_position(table, position_keys(_space_of(table), network)))


def measured_latency(
    space: SearchSpace, table: LookupTable, missing: str = "error", device: Device | None = None
) -> MeasuredLatency:
    """Look up every variant of every slot of `space`. Arguments and errors are those of `price_network`.

    Example:
        >>> from hw_models import load_table
        >>> from search_spaces.spaces import fbnet
        >>> space = fbnet.space(input_hw=32, classes=100, features=1504)
        >>> measured_latency(space, load_table("raspi4_fbnet_cifar100")).missing
        ()
    """
    if space.resolutions:
        return _over_resolutions([measured_latency(each, table, missing, device) for each in space.resolutions])
    variants = Variants(space)
    found = _looked_up(table, variants.rows, missing, device)
    # float64 sums of few numbers would be no better: what was measured has three or four digits
    seconds = jnp.asarray([sum(part.seconds for part in each) for each in found], jnp.float32)  # [V]
    measured = jnp.asarray([sum(abs(p.seconds) for p in each if p.measured) for each in found], jnp.float32)
    other = jnp.asarray([sum(abs(p.seconds) for p in each if not p.measured) for each in found], jnp.float32)
    constant = np.float32(table.constant_s)

    def exact(genes: Array) -> Array:
        return seconds[variants.index(genes)].sum() + constant

    def expected(gates: Array) -> Array:
        return (variants.probability(gates) * seconds).sum() + constant

    def covered(genes: Array) -> Array:
        index = variants.index(genes)
        known, rest = measured[index].sum() + constant, other[index].sum()
        return jnp.where(known + rest > 0, known / (known + rest), 1.0)

    keys = dict.fromkeys(part.key for each in found for part in each if not part.measured)
    return MeasuredLatency(exact, expected, covered, tuple(keys))


def measured_cost_table(
    space: SearchSpace,
    device: Device,
    precision: str | None = None,
    batch: int | None = None,
    *,
    table: LookupTable,
    missing: str = "error",
) -> CostTable:
    """A cost table whose latency and throughput are those of `table`; all else is that of `device`, at the same batch.

    With `functools.partial(measured_cost_table, table=...)` as the `table` of an `Objective`, a search goes by
    measurements; in a configuration that is `table=NAME`.

    Raises:
        InputError: as `price_network`; a device of another kind than the table's, another precision or batch.

    Example:
        >>> from hw_models import load_device, load_table
        >>> from search_spaces.spaces import fbnet
        >>> space = fbnet.space(input_hw=32, classes=100, features=1504)
        >>> both = measured_cost_table(space, load_device("raspberry_pi_4"), table=load_table("raspi4_fbnet_cifar100"))
        >>> both.note
        'float32: that of table raspi4_fbnet_cifar100; latency measured'
    """
    check_device(table, device)
    check_precision(table, precision)
    if batch not in (None, table.batch):
        raise InputError(f"batch={batch} is not that of table {table.name}, {table.batch}: leave it out")
    analytic = cost_table(space, device, table.key_precision, table.batch)
    latency = measured_latency(space, table, missing, device)

    def measured(costs: Costs, latency_s: Array) -> Costs:
        return costs._replace(latency_s=latency_s, interval_s=latency_s / table.batch)

    def exact(genes: Array) -> Costs:
        return measured(analytic.exact(genes), latency.exact(genes))

    def expected(gates: Array) -> Costs:
        return measured(analytic.expected(gates), latency.expected(gates))

    note = f"{analytic.precision}: that of table {table.name}; latency measured"
    if latency.missing:
        note += f", where there are rows ({len(latency.missing)} keys by missing={missing})"
    return replace(analytic, exact=exact, expected=expected, note=note, measured=_identity(table, missing))


def _identity(table: LookupTable, missing: str) -> str:
    digest = hashlib.sha256(table_text(table).encode()).hexdigest()
    return f"{table.name}, missing={missing}, {digest[:16]}"


def check_precision(table: LookupTable, precision: str | None) -> None:
    """Raise InputError where a person asks for another precision than the one that was measured.

    Example:
        >>> from hw_models import load_table
        >>> check_precision(load_table("raspi4_fbnet_cifar100"), "float32")
    """
    own = table.key_precision
    if precision is not None and (own is None or parse_format(precision) != parse_format(own)):
        said = f"was measured in {own}" if own else "has a source that does not say its own"
        raise InputError(
            f"precision '{precision}' is not that of table {table.name}, which {said}: leave it out, or "
            "give another table"
        )


def _looked_up(table: LookupTable, rows: Sequence[Variant], missing: str, device: Device | None) -> list[list[Part]]:
    """What every variant consists of, `[V]`."""
    if table.level == "position":
        _only_error(table, missing, device)
        space = _space_of(table)
        keys = [position_key(space, row.slot.name, row.block, row.io or row.slot.only_io()) for row in rows]
        known = iter(_by_position(table, [key for key in keys if key is not None]))
        return [[] if key is None else [next(known)] for key in keys]
    _check_layout(table, rows)
    units: list[list[Sequence[Layer]]] = [
        [(layer,) for layer in row.layers] if table.level == "operator" else [row.layers] * bool(row.layers)
        for row in rows
    ]
    flat = iter(parts(table, [unit for each in units for unit in each], missing, device))
    return [[next(flat) for _ in each] for each in units]


def _check_layout(table: LookupTable, rows: Sequence[Variant]) -> None:
    """Whatever is chosen, every place of the baseline must be there once."""
    if table.values != "difference":
        return
    places: dict[str, tuple[Shape, Shape] | None] = {}
    for row in rows:
        place = ends(row.layers) if row.layers else None
        kept = place is None or place[0] == place[1]
        found = places.setdefault(row.slot.name, None if kept else place)
        if found != (None if kept else place):
            raise InputError(
                f"table {table.name} is of differences to one network, and at {row.slot.name} the shape itself is "
                "searched: use a table of times"
            )
    check_places(table, [place for place in places.values() if place is not None])


def _only_error(table: LookupTable, missing: str, device: Device | None) -> None:
    if missing != "error":
        raise InputError(
            f"missing='{missing}' is not possible with table {table.name}: it is by position, and positions have no "
            "sizes to interpolate between, and no model"
        )
    if device is not None:
        check_device(table, device)


def _by_position(table: LookupTable, keys: Sequence[str]) -> list[Part]:
    lacking = [key for key in keys if key not in table.rows]
    if lacking:
        raise InputError(
            f"table {table.name} has no row for {len(lacking)} of {len(keys)} positions, such as '{lacking[0]}'"
        )
    return [Part(key, table.rows[key].mean_s, True) for key in keys]


def _space_of(table: LookupTable) -> SearchSpace:
    return resolve(table.space, prefer_space=True).space


def _over_resolutions(each: Sequence[MeasuredLatency]) -> MeasuredLatency:
    """One of several: the last gene is the resolution, which every row depends on."""

    def exact(genes: Array) -> Array:
        return jnp.stack([one.exact(genes[:-1]) for one in each])[genes[-1]]

    def expected(gates: Array) -> Array:
        return gates[-1, : len(each)] @ jnp.stack([one.expected(gates[:-1]) for one in each])

    def covered(genes: Array) -> Array:
        return jnp.stack([one.covered(genes[:-1]) for one in each])[genes[-1]]

    return MeasuredLatency(exact, expected, covered, tuple(dict.fromkeys(key for one in each for key in one.missing)))
