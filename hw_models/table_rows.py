"""Rows of measured tables, checked one by one: numbers above 0, no key twice, keys that can be read.

A time is above 0. A difference may be negative only in a table by position, which holds the coefficients of a linear
model. In other tables of differences `baseline` in place of a number says that the row is a part of the baseline
network: its time is in the constant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hw_models.errors import InputError
from hw_models.lookup_table import UNKNOWN, Row
from hw_models.table_keys import ends, parse_key

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
BASELINE = "baseline"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf(inity)?)", re.IGNORECASE)


class Entry(NamedTuple):
    """A row as text, and where it stands."""

    where: str
    key: str
    mean: str
    spread: str = ""
    count: str = ""  # type: ignore[assignment]


def checked(
    entries: Iterable[Entry], unit: str, fields: Mapping[str, Any], source: str, column: str | None = None
) -> dict[str, Row]:
    """Rows of a table with the header `fields` (`level`, `values`, `precision`), times given in `unit`.

    Errors call the times `column`, and the whole `source`.

    Raises:
        InputError: no entries; one that is repeated, zero, negative, not finite or no number; a key that is none.

    Example:
        >>> fields = {"level": "operator", "values": "time", "precision": "float32"}
        >>> checked([Entry("row 1", "add 8x8x16>8x8x16", "0")], "ms", fields, "mine")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: row 1: mean_ms is 0: give a number above 0; correct the row or drop it
    """
    rows: dict[str, Row] = {}
    first: dict[Any, str] = {}
    for entry in entries:
        if not entry.key:
            raise InputError(f"{entry.where}: the key is empty: say what was measured")
        row = _row(entry, unit, fields, column or f"mean_{unit}")
        names: list[Any] = [entry.key]
        if fields["level"] != "position":
            names += _places(entry, row, fields)
        for name in names:
            if name in first:
                what = "the key" if name == entry.key else "a baseline at the place of"
                raise InputError(f"{entry.where}: repeats {what} '{entry.key}' of {first[name]}: keep one of them")
            first[name] = entry.where
        rows[entry.key] = row
    if not rows:
        raise InputError(f"{source}: the table has no rows: add some")
    return rows


def _places(entry: Entry, row: Row, fields: Mapping[str, Any]) -> list[Any]:
    """What goes in and what comes out of a baseline block, which there is once in a network."""
    try:
        layers = parse_key(entry.key, None if fields["precision"] == UNKNOWN else fields["precision"])
    except InputError as error:
        raise InputError(f"{entry.where}: {error}") from error
    if fields["level"] == "operator" and len(layers) > 1:
        raise InputError(f"{entry.where}: '{entry.key}' is a block of {len(layers)} layers: use level = \"block\"")
    if not row.baseline:
        return []
    into, out = ends(layers)
    if into == out:
        raise InputError(
            f"{entry.where}: a baseline block must change the shape, as only such a one is in every network once: drop "
            "the row, and give differences to nothing where the shape stays"
        )
    return [(into, out)]


def _row(entry: Entry, unit: str, fields: Mapping[str, Any], name: str) -> Row:
    where = entry.where
    spread_s = number_of(entry.spread, f"spread_{unit}", where) * SECONDS[unit] if entry.spread else None
    if spread_s is not None and spread_s < 0:
        raise InputError(f"{where}: spread_{unit} is {entry.spread}: a spread is 0 or more")
    if entry.count and not (entry.count.isdecimal() and int(entry.count) > 0):
        raise InputError(f"{where}: count is {entry.count}: give a whole number from 1, or leave it empty")
    count = int(entry.count) if entry.count else None
    linear = fields["level"] == "position" and fields["values"] == "difference"
    if entry.mean == BASELINE:
        if fields["values"] != "difference" or linear:
            raise InputError(f"{where}: {name} is '{BASELINE}': only tables of differences to blocks have one")
        return Row(0.0, spread_s, count, baseline=True)
    value = number_of(entry.mean, name, where)
    if value <= 0 and not linear:
        hint = f" (what the baseline holds is written '{BASELINE}')" if fields["values"] == "difference" else ""
        raise InputError(f"{where}: {name} is {entry.mean}: give a number above 0{hint}; correct the row or drop it")
    return Row(value * SECONDS[unit], spread_s, count)


def number_of(text: str, name: str, where: str) -> float:
    """The number in a cell of column `name`.

    Raises:
        InputError: none, or not a finite one; `where` it stands is named.

    Example:
        >>> number_of("1e-3", "mean_ms", "row 1")
        0.001
    """
    if not NUMBER.fullmatch(text):
        raise InputError(f"{where}: {name} is '{text}': give a number")
    if not math.isfinite(float(text)):
        raise InputError(f"{where}: {name} is {text}: give a finite number, or drop the row")
    return float(text)
