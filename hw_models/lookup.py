"""What a measured table says of a network: times of its rows, added up.

A table of operators needs a row for every layer; one of blocks a row for every block, or rows that together make up
the block (a classifier measured as convolution, pooling and linear layer). What has no row is an error, unless
interpolation or a device's analytic model is asked for; then the share of the time that was measured is told.

Tables of differences hold a baseline network (its time is the constant) and what each block adds to the baseline's
block at the same place. A place is what goes in and what comes out. They price only networks that have every place of
the baseline once; where the shape stays the baseline has nothing.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax

from hw_models.device import Device
from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.estimate import apply_precision, layer_costs
from hw_models.interpolation import estimate as interpolated
from hw_models.interpolation import left_out
from hw_models.lookup_table import LookupTable
from hw_models.table_keys import Shape, block_key, blocks, ends
from hw_models.workload import Layer, Workload

MISSING = ("error", "interpolate", "analytic")
SHOWN = 3  # missing keys named in an error


class TableCost(NamedTuple):
    """The time of a network for one run of the table's batch.

    `covered` is the share of it that was measured (of absolute values, where there are differences), `missing` are the
    keys that had no row.
    """

    latency_s: float
    covered: float
    missing: tuple[str, ...]


class Part(NamedTuple):
    """The time of one layer or block, and whether it was measured."""

    key: str
    seconds: float
    measured: bool


def price(
    table: LookupTable, layers: Iterable[Layer], missing: str = "error", device: Device | None = None
) -> TableCost:
    """The latency of `layers` by a table of operators or blocks.

    Args:
        table: what was measured.
        layers: a network; neighbours of one `group` are one block.
        missing: what to do without a row: `error`, `interpolate` between rows, or `analytic`.
        device: prices what is missing in the analytic case.

    Raises:
        InputError: a key has no row; nothing measured is near enough to interpolate; the device is of another kind, or
            lacks the table's precision; the network is none that a table of differences is about.

    Example:
        >>> from hw_models.table_files import load_table
        >>> table = load_table("raspi4_fbnet_cifar100")
        >>> baseline = [key for key, row in table.rows.items() if row.baseline]
        >>> network = [layer._replace(group=i) for i, key in enumerate(baseline) for layer in table.layers[key]]
        >>> price(table, network)
        TableCost(latency_s=0.00779822, covered=1.0, missing=())
    """
    if table.level == "position":
        raise InputError(
            f"table {table.name} is of positions in the space {table.space}: it prices networks of that space, not "
            "layers"
        )
    rows = list(layers)
    units = [(layer,) for layer in rows] if table.level == "operator" else blocks(rows)
    check_places(table, [ends(unit) for unit in units])
    return added(table, parts(table, units, missing, device))


def added(table: LookupTable, found: Sequence[Part]) -> TableCost:
    """The cost of a network from its parts and the constant of the table.

    Example:
        >>> from hw_models.table_files import load_table
        >>> added(load_table("pixel1_proxylessnas"), [Part("a", 0.07, True), Part("b", 0.01, False)]).missing
        ('b',)
    """
    measured = abs(table.constant_s) + sum(abs(part.seconds) for part in found if part.measured)
    other = sum(abs(part.seconds) for part in found if not part.measured)
    return TableCost(
        latency_s=table.constant_s + sum(part.seconds for part in found),
        covered=measured / (measured + other) if measured + other else 1.0,
        missing=tuple(dict.fromkeys(part.key for part in found if not part.measured)),
    )


def parts(
    table: LookupTable, units: Sequence[Sequence[Layer]], missing: str = "error", device: Device | None = None
) -> list[Part]:
    """The time of every layer or block of `units`, in their order.

    Raises:
        InputError: as `price`.

    Example:
        >>> from hw_models.table_files import load_table
        >>> table = load_table("raspi4_fbnet_cifar100")
        >>> part = parts(table, [table.layers["conv 32x32x16>32x32x24"]])[0]  # a skip: in the baseline
        >>> part.seconds, part.measured
        (0.0, True)
    """
    if missing not in MISSING:
        raise unknown("way to treat missing rows", missing, MISSING)
    if missing == "analytic" and device is None:
        raise InputError("missing='analytic' needs a device to model what was not measured: give one")
    if device is not None:
        check_device(table, device)
    keys = [block_key(unit, table.key_precision) for unit in units]
    seconds = {key: _measured_s(table, key, unit) for key, unit in zip(keys, units, strict=True)}
    lacking = {key: tuple(unit) for key, unit in zip(keys, units, strict=True) if seconds[key] is None}
    if lacking and missing == "error":
        fix = "measure them, or allow missing=interpolate (between rows) or missing=analytic (a device's model)"
        raise _lacking(table, list(lacking), len(seconds), "has no row for", fix)
    filled = dict(_filled(table, lacking, device if missing == "analytic" else None, len(seconds)))
    return [Part(key, filled.get(key, seconds[key] or 0.0), key not in filled) for key in keys]


def interpolation_errors(table: LookupTable) -> list[float | None]:
    """Relative error of each row of `table.timed`, estimated from the others; None where they are not near enough.

    Example:
        >>> from hw_models.table_files import load_table
        >>> len(interpolation_errors(load_table("fpga_fbnet_cifar100")))
        96
    """
    guesses = left_out(table.timed)
    return [
        None if guess is None else abs(guess / seconds - 1)
        for guess, (_, seconds) in zip(guesses, table.timed, strict=True)
    ]


def interpolation_error(table: LookupTable) -> float | None:
    """Median of `interpolation_errors`; None where no row can be estimated.

    Example:
        >>> from hw_models.table_files import load_table
        >>> 0.03 < interpolation_error(load_table("fpga_fbnet_cifar100")) < 0.06
        True
    """
    errors = [error for error in interpolation_errors(table) if error is not None]
    return statistics.median(errors) if errors else None


def check_device(table: LookupTable, device: Device) -> None:
    """Raise InputError unless `device` is of the kind that the table was measured on.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.table_files import load_table
        >>> check_device(load_table("raspi4_fbnet_cifar100"), load_device("zcu102"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: table raspi4_fbnet_cifar100 is of kind cpu (Raspberry Pi 4), device zcu102 of ...
    """
    if device.kind != table.kind:
        raise InputError(
            f"table {table.name} is of kind {table.kind} ({table.device}), device {device.name} of kind {device.kind}: "
            f"give a device of kind {table.kind}, or another table"
        )


def check_places(table: LookupTable, places: Sequence[tuple[Shape, Shape]]) -> None:
    """Raise InputError unless a network with blocks at `places` (what goes in, what comes out) has the baseline's.

    Example:
        >>> from hw_models.table_files import load_table
        >>> check_places(load_table("raspi4_fbnet_cifar100"), [((32, 32, 3), (32, 32, 16))])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: ... is of differences to a network with one block 32x32x16>32x32x24, and ...
    """
    if table.values != "difference":
        return
    changing = [place for place in places if place[0] != place[1]]
    frame = _baseline(table)
    for place in dict.fromkeys((*changing, *frame)):
        count = changing.count(place)
        if count == 1 and place in frame:
            continue
        text = ">".join("x".join(map(str, shape)) for shape in place)
        said = f"one block {text}, and here are {count}" if place in frame else f"no block {text}"
        notes = f" ({table.notes})" if table.notes else ""
        raise InputError(
            f"table {table.name}{notes} is of differences to a network with {said}: price networks like it"
        )


def _baseline(table: LookupTable) -> dict[tuple[Shape, Shape], tuple[Layer, ...]]:
    rows = (table.layers[key] for key, row in table.rows.items() if row.baseline)
    return {ends(layers): layers for layers in rows}


def _measured_s(table: LookupTable, key: str, unit: Sequence[Layer]) -> float | None:
    if key in table.rows:
        return table.rows[key].mean_s

    def row_s(part: Sequence[Layer]) -> float | None:
        row = table.rows.get(block_key(part, table.key_precision))
        return None if row is None else row.mean_s

    return _in_parts(table, unit, row_s)


def _in_parts(
    table: LookupTable, unit: Sequence[Layer], time_of: Callable[[Sequence[Layer]], float | None]
) -> float | None:
    """The time of the fewest parts, neighbouring layers each, that make up `unit`; None where nothing does.

    Differences of parts do not add up, and the parts of a table of operators are single layers already.
    """
    if table.level != "block" or table.values != "time":
        return None

    @functools.cache
    def fewest(start: int) -> tuple[float, float]:
        """How many parts make up the layers from `start` on, and their time."""
        if start == len(unit):
            return 0, 0.0
        found = [(math.inf, 0.0)]
        for stop in range(start + 1, len(unit) + 1):
            seconds = time_of(unit[start:stop])
            if seconds is not None:
                count, rest = fewest(stop)
                found.append((count + 1, seconds + rest))
        return min(found)

    count, seconds = fewest(0)
    return seconds if math.isfinite(count) else None


def _filled(
    table: LookupTable, lacking: dict[str, tuple[Layer, ...]], device: Device | None, among: int
) -> Iterable[tuple[str, float]]:
    if not lacking:
        return []
    if device is not None:
        frame = _baseline(table) if table.values == "difference" else {}
        bases = [frame.get(ends(unit), ()) for unit in lacking.values()]
        seconds = _modelled_s(table, device, [*lacking.values(), *bases])  # together: one program to compile
        return [(key, a - b) for key, a, b in zip(lacking, seconds, seconds[len(bases) :], strict=False)]

    def time_of(part: Sequence[Layer]) -> float | None:
        row = table.rows.get(block_key(part, table.key_precision))
        return interpolated(table.between, part) if row is None else row.mean_s

    found = {}
    for key, unit in lacking.items():
        whole = interpolated(table.between, unit)
        found[key] = _in_parts(table, unit, time_of) if whole is None else whole
    far = [key for key, seconds in found.items() if seconds is None]
    if far:
        fix = "measure them, or allow missing=analytic (a device's model)"
        raise _lacking(table, far, among, "has no rows near enough to interpolate", fix)
    return [(key, seconds) for key, seconds in found.items() if seconds is not None]


def _modelled_s(table: LookupTable, device: Device, units: Sequence[Sequence[Layer]]) -> list[float]:
    """Seconds of each unit by the device's model, 0 for one without layers."""
    work, _, _ = apply_precision(device, Workload.stack(units), table.key_precision)
    costs = jax.jit(layer_costs, static_argnums=2)(device.unnamed(), work, table.batch)
    return [float(each) for each in costs.latency_s.sum(-1)]


def _lacking(table: LookupTable, keys: Sequence[str], among: int, what: str, fix: str) -> InputError:
    named = ", ".join(f"'{key}'" for key in keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")
    unit = "layers" if table.level == "operator" else "blocks"
    return InputError(f"table {table.name} {what} {len(keys)} of {among} different {unit}: {named}: {fix}")
