"""Device files: read strictly, entry by entry, so that a mistyped or missing number is an error and never a default."""

from __future__ import annotations

import datetime
import difflib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_models.compression_matrix import Gain, gain_of
from hw_models.device import Calibration, Device
from hw_models.discover import read_resource, resource_names, unknown
from hw_models.errors import InputError
from hw_models.formats import parse_format
from hw_models.keys import LARGEST, SPARSITY, Keys, check_number, keys_of

PACKAGE = "hw_models.devices"
RANK, SHARE = (-1.0, 1.0), (0.0, 1.0)
FIGURE_RANGES = {"spearman": RANK, "kendall": RANK, "within_5": SHARE, "within_10": SHARE}


def device_names() -> tuple[str, ...]:
    """Names of the devices that come with the package, sorted.

    Example:
        >>> "zcu102" in device_names()
        True
    """
    return resource_names(PACKAGE, ".toml")


def load_device(name_or_path: str | Path) -> Device:
    """A shipped device by name, or the device described in a file whose path ends in `.toml`.

    Raises:
        InputError: no such device or file; or the file has an unknown, missing or malformed entry.

    Example:
        >>> load_device("zcu102").kind
        'fpga'
    """
    name, source, content = read_device_text(name_or_path)
    try:
        data = tomllib.loads(content)
    except ValueError as error:  # also numbers of thousands of digits
        raise InputError(f"{source}: not valid TOML ({error}): correct the file") from error
    return parse_device(data, name, source)


def read_device_text(name_or_path: str | Path) -> tuple[str, str, str]:
    """Name, file and content of the file of a device.

    Raises:
        InputError: no such device or file, or the file is not text.

    Example:
        >>> read_device_text("zcu102")[1]
        'zcu102.toml'
    """
    name, source, content = read_resource(PACKAGE, ".toml", "device", name_or_path)
    try:
        return name, source, content.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not text ({error}): give a TOML file") from error


def parse_device(data: Mapping[str, Any], name: str, source: str | None = None) -> Device:
    """The device described by `data` (parsed TOML, or what `Device.to_json` gave), checked entry by entry.

    Raises:
        InputError: an entry is unknown, missing, of the wrong type or not positive; names the file and the key.

    Example:
        >>> parse_device({"kind": "cpu"}, "mine")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: mine: key 'default_precision' is missing: add it
    """
    source = source or name
    sections = ("compute", "memory", "energy", "provenance")
    _check_keys(data, source, "", ("kind", "default_precision", *sections), ("name", "sparsity", "calibration"))
    kind = _text(data["kind"], source, "kind")
    default = _text(data["default_precision"], source, "default_precision")
    keys = keys_of(kind, source)
    if not (isinstance(data["compute"], Mapping) and isinstance(data["compute"].get("macs_per_cycle"), Mapping)):
        raise InputError(f"{source}: 'compute.macs_per_cycle' must be a table such as {{ float32 = 8 }}: add it")
    formats = {}
    for precision in data["compute"]["macs_per_cycle"]:
        try:
            formats[precision] = parse_format(precision)
        except InputError as error:
            raise InputError(f"{source}: 'compute.macs_per_cycle': {error}") from error
    # Widest first and then by name, so that equal devices are equal whatever the order in their files.
    precisions = tuple(sorted(formats, key=lambda p: (-formats[p].weight_bits - formats[p].act_bits, p)))
    if len(set(formats.values())) < len(formats):
        raise InputError(f"{source}: 'compute.macs_per_cycle' names one precision twice: keep one of its names")
    if default not in precisions:
        raise unknown("default_precision", default, precisions, source)
    numbers = {section: _section(data[section], source, section, keys, precisions) for section in sections[:3]}
    _check_cells(numbers["compute"], source, keys.cells)
    memory = numbers["memory"]
    if memory["sram_bytes_per_s"] < memory["dram_bytes_per_s"] * memory["efficiency"]:
        raise InputError(f"{source}: 'memory.sram_bytes_per_s' is below what main memory reaches: raise it")
    return Device(
        name=name,
        kind=kind,
        default_precision=default,
        precisions=precisions,
        sparsity=_sparsity(data.get("sparsity", {}), source, kind, precisions),
        provenance=_provenance(data["provenance"], source),
        calibration=_calibration(data["calibration"], source, keys, precisions) if "calibration" in data else None,
        **numbers,
    )


def _check_keys(table: Any, source: str, prefix: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not isinstance(table, Mapping):
        raise InputError(f"{source}: '{prefix.rstrip('.')}' must be a table ([{prefix.rstrip('.')}]), not {table!r}")
    allowed = required + optional
    for key in table:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
            hint = f"did you mean '{prefix}{near[0]}'? " if near else "remove it "
            raise InputError(f"{source}: unknown key '{prefix}{key}': {hint}(allowed: {', '.join(sorted(allowed))})")
    for key in required:
        if key not in table:
            raise InputError(f"{source}: key '{prefix}{key}' is missing: add it")


def _section(table: Any, source: str, section: str, keys: Keys, precisions: tuple[str, ...]) -> dict[str, Any]:
    own = keys.of_section(section)
    _check_keys(table, source, f"{section}.", own.required + own.cells + own.per_precision, own.optional + own.or_zero)
    numbers: dict[str, Any] = {}
    for key, value in table.items():
        if key in own.per_precision:
            _check_keys(value, source, f"{section}.{key}.", precisions, ())
            numbers[key] = {p: check_number(value[p], source, f"{section}.{key}.{p}") for p in precisions}
        else:
            numbers[key] = check_number(value, source, f"{section}.{key}", key in own.or_zero)
    return numbers


def _check_cells(compute: dict[str, Any], source: str, cells: tuple[str, ...]) -> None:
    """The equations count cycles of these cells, one product each; other precisions are scaled from there."""
    sizes = [compute[key.split(".", 1)[1]] for key in cells]
    rates = compute["macs_per_cycle"]
    if sizes and math.prod(sizes) not in rates.values():
        listed = ", ".join(f"{rate:.12g} ({precision})" for precision, rate in rates.items())
        product = f"{' * '.join(cells)} = {' * '.join(f'{size:.12g}' for size in sizes)} = {math.prod(sizes):.12g}"
        raise InputError(f"{source}: 'compute.macs_per_cycle' is {listed}, {product}: one precision must match it")


def _sparsity(table: Any, source: str, kind: str, precisions: tuple[str, ...]) -> dict[str, dict[str, float]]:
    _check_keys(table, source, "sparsity.", (), tuple(SPARSITY))
    found: dict[str, dict[str, float]] = {}
    for pattern, entry in table.items():
        if gain_of(kind, pattern) is Gain.STORAGE:
            raise InputError(f"{source}: devices of kind '{kind}' gain nothing from 'sparsity.{pattern}': remove it")
        if pattern == "ternary" and "int8" not in precisions:
            raise InputError(f"{source}: 'sparsity.ternary' is a gain over int8: add that precision or remove it")
        _check_keys(entry, source, f"sparsity.{pattern}.", *SPARSITY[pattern])
        numbers = {key: check_number(value, source, f"sparsity.{pattern}.{key}") for key, value in entry.items()}
        if numbers["threshold"] > 1 or numbers.get("factor", 1.0) < 1:
            raise InputError(f"{source}: 'sparsity.{pattern}' needs a threshold (a density) <= 1 and a factor >= 1")
        found[pattern] = numbers
    return found


def _calibration(table: Any, source: str, keys: Keys, precisions: tuple[str, ...]) -> Calibration:
    required = tuple(key for key in Calibration._fields if key != "batch")
    _check_keys(table, source, "calibration.", required, ("batch",))
    if keys.any_width:
        parse_format(_text(table["precision"], source, "calibration.precision"))
    elif table["precision"] not in precisions:
        raise unknown("calibration.precision", str(table["precision"]), precisions, source)
    found: dict[str, Any] = {"batch": None}
    for key, value in table.items():
        if key in ("precision", "source"):
            found[key] = _text(value, source, f"calibration.{key}")
        elif key == "date":
            found[key] = _date(value, source, "calibration.date")
        elif key in ("networks", "batch"):
            if check_number(value, source, f"calibration.{key}") % 1:
                raise InputError(f"{source}: 'calibration.{key}' is {value!r}: give a whole number")
            found[key] = int(value)
        else:
            low, high = FIGURE_RANGES.get(key, (0.0, LARGEST))
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InputError(f"{source}: 'calibration.{key}' is {value!r}: give a number from {low:g} to {high:g}")
            found[key] = float(value)
    return Calibration(**found)


def _date(date: Any, source: str, key: str) -> str:
    if not isinstance(date, datetime.date):
        try:
            date = datetime.date.fromisoformat(_text(date, source, key))
        except ValueError as error:
            raise InputError(f"{source}: '{key}' is {date!r}: give a date as 2026-11-22") from error
    return date.isoformat()


def _provenance(table: Any, source: str) -> tuple[tuple[str, str], ...]:
    _check_keys(table, source, "provenance.", ("source", "date"), ("notes",))
    date = _date(table["date"], source, "provenance.date")
    texts = {key: _text(table[key], source, f"provenance.{key}") for key in ("source", "notes") if key in table}
    return (("source", texts.pop("source")), ("date", date), *texts.items())


def _text(value: Any, source: str, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{source}: '{key}' is {value!r}: give a text")
    return value
