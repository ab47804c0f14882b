"""Files of measured tables: one CSV each, headed by TOML in comment lines that says what was measured, and how.

    # device = "Raspberry Pi 4"
    # kind = "cpu"                  # of the device, as in its own file; "asic" where there is no such kind
    # level = "block"               # a row is an operator, a block, or a position of a space and what stands there
    # values = "time"               # or "difference": to a baseline network, whose time is the constant
    # precision = "float32"         # of everything whose key names no other; "unknown" where the source does not say
    # runtime = "TensorFlow Lite"
    # batch = 1
    # source = "..."
    # licence = "MIT"
    # date = 2026-11-25
    key,mean_ms,spread_ms,count
    conv 32x32x3>32x32x16 k3,0.61,0.02,50

Optional: `threads`, `notes`, `constant_ms` with `constant_meaning` (needed with differences); tables by position need
`space`. `spread` (one standard deviation) and `count` (runs) are optional columns, empty where not known. Units are in
the names: s, ms or us. What rows may hold is in `hw_models.table_rows`.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hw_models.discover import names, read_resource, resource_names, unknown
from hw_models.errors import InputError
from hw_models.formats import parse_format
from hw_models.keys import LARGEST
from hw_models.lookup_table import UNKNOWN, LookupTable
from hw_models.table_rows import BASELINE, SECONDS, Entry, checked

PACKAGE = "hw_models.tables"
LEVELS = ("operator", "block", "position")
VALUES = ("time", "difference")
REQUIRED = ("device", "kind", "level", "values", "precision", "runtime", "batch", "source", "licence", "date")
OPTIONAL = ("threads", "notes", "constant_meaning", "space")


def kinds() -> tuple[str, ...]:
    """Kinds of device that a table may be of.

    Example:
        >>> "cpu" in kinds(), "asic" in kinds()
        (True, True)
    """
    return (*names("hw_models.analytic"), "asic")


def table_names() -> tuple[str, ...]:
    """Names of the tables that come with the package, sorted.

    Example:
        >>> "raspi4_fbnet_cifar100" in table_names()
        True
    """
    return resource_names(PACKAGE, ".csv")


def load_table(name_or_path: str | Path) -> LookupTable:
    """A shipped table by name, or the table in a file whose path ends in `.csv`.

    Raises:
        InputError: no such table or file; or its file is wrong, with the row and the reason.

    Example:
        >>> table = load_table("raspi4_fbnet_cifar100")
        >>> table.kind, table.values, len(table.rows)
        ('cpu', 'difference', 104)
    """
    name, source, content = read_resource(PACKAGE, ".csv", "table", name_or_path)
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not a text file ({error}): save it as UTF-8") from error
    return parse_table(decoded, name, source)


def parse_table(text: str, name: str, source: str | None = None) -> LookupTable:
    """The table in the text of a file, checked entry by entry.

    Raises:
        InputError: the file and the row or key that is wrong, and why.

    Example:
        >>> parse_table("key,mean_ms\\n", "mine")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: mine: key 'device' is missing in the header: add '# device = ...' above the columns
    """
    source = source or name
    lines = re.split(r"\r\n|\r|\n", text)  # and nowhere else: notes may hold other separators
    head = 0
    while head < len(lines) and (lines[head].startswith("#") or not lines[head].strip()):
        head += 1
    fields = _header([line.removeprefix("#") for line in lines[:head]], source)
    unit, entries = _entries(lines[head:], head, source)
    return LookupTable(name=name, rows=checked(entries, unit, fields, source), **fields)


def _header(lines: Iterable[str], source: str) -> dict[str, Any]:
    try:
        data = tomllib.loads("\n".join(lines))
    except ValueError as error:  # also numbers of thousands of digits
        raise InputError(f"{source}: the comment lines at its head are not TOML ({error}): correct them") from error
    constants = [f"constant_{unit}" for unit in SECONDS]
    for key in data:
        if key == "constant":
            raise InputError(
                f"{source}: 'constant' has no unit: name it {', '.join(constants[:-1])} or {constants[-1]}"
            )
        if key not in (*REQUIRED, *OPTIONAL, *constants):
            raise unknown("key", key, (*REQUIRED, *OPTIONAL, *constants), source)
    for key in REQUIRED:
        if key not in data:
            raise InputError(f"{source}: key '{key}' is missing in the header: add '# {key} = ...' above the columns")
    fields: dict[str, Any] = {}
    for key in ("device", "runtime", "source", "licence", "notes", "constant_meaning", "space", "precision"):
        if key in data:
            if not isinstance(data[key], str) or not data[key].strip():
                raise InputError(f"{source}: '{key}' is {data[key]!r}: give a text")
            fields[key] = data[key]
    for key, allowed in (("kind", kinds()), ("level", LEVELS), ("values", VALUES)):
        if data[key] not in allowed:
            raise unknown(key, str(data[key]), allowed, source)
        fields[key] = data[key]
    if fields["precision"] != UNKNOWN:
        try:
            parse_format(fields["precision"])
        except InputError as error:
            raise InputError(f"{source}: {error}, or '{UNKNOWN}'") from error
    for key in ("batch", "threads"):
        if key in data:
            if type(data[key]) is not int or data[key] < 1:
                raise InputError(f"{source}: '{key}' is {data[key]!r}: give a whole number from 1")
            fields[key] = data[key]
    if type(data["date"]) is not datetime.date:
        raise InputError(f"{source}: 'date' is {data['date']!r}: give a date as 2026-11-25, without quotes")
    fields["date"] = data["date"].isoformat()
    return fields | _constant({key: data[key] for key in constants if key in data}, fields, source)


def _constant(given: Mapping[str, Any], fields: Mapping[str, Any], source: str) -> dict[str, float]:
    if len(given) > 1:
        raise InputError(f"{source}: {' and '.join(given)} are both given: keep one")
    by_position = fields["level"] == "position"
    if by_position != ("space" in fields):
        fix = "name the space whose positions the rows are" if by_position else "drop it, keys say what was measured"
        raise InputError(
            f"{source}: level = \"{fields['level']}\" {'needs' if by_position else 'has no'} 'space': {fix}"
        )
    if fields["values"] == "difference" and fields["level"] == "operator":
        raise InputError(f"{source}: operators have no baseline to differ from: give times, or a table of blocks")
    if fields["values"] == "difference" and not (given and "constant_meaning" in fields):
        raise InputError(
            f"{source}: values = \"difference\" needs the time of the baseline: add 'constant_ms' (0 where the source "
            "counts it so) and 'constant_meaning'"
        )
    if ("constant_meaning" in fields) != bool(given):
        raise InputError(f"{source}: a constant needs both 'constant_ms' and 'constant_meaning': add the other")
    for key, value in given.items():
        if type(value) not in (int, float) or not 0 <= value <= LARGEST:
            raise InputError(f"{source}: '{key}' is {value!r}: give a finite number from 0 to {LARGEST:g}")
        return {"constant_s": value * SECONDS[key.rpartition("_")[2]]}
    return {}


def _entries(lines: Sequence[str], above: int, source: str) -> tuple[str, list[Entry]]:
    """The unit of the times, and the lines below the header."""
    reader = csv.reader(lines, strict=True)
    found: list[Entry] = []
    try:
        columns = [column.strip() for column in next(reader, [])]
        unit = _unit(columns, source)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{source}, row {len(found) + 1} (line {reader.line_num + above})"
            if len(cells) != len(columns):
                raise InputError(
                    f"{where}: {len(cells)} cells for {len(columns)} columns: quote keys that hold a comma"
                )
            cell = dict(zip(columns, (each.strip() for each in cells), strict=True))
            spread, count = cell.get(f"spread_{unit}", ""), cell.get("count", "")
            found.append(Entry(where, cell["key"], cell[f"mean_{unit}"], spread, count))
    except csv.Error as error:
        raise InputError(f"{source}, line {reader.line_num + above}: not CSV ({error}): correct it") from error
    return unit, found


def _unit(columns: Sequence[str], source: str) -> str:
    units = ", ".join(f"mean_{unit}" for unit in SECONDS)
    if "mean" in columns:
        raise InputError(f"{source}: column 'mean' has no unit: name it {units}")
    found = [column.removeprefix("mean_") for column in columns if column.startswith("mean_")]
    if len(found) != 1 or found[0] not in SECONDS or "key" not in columns:
        raise InputError(f"{source}: its columns are {', '.join(columns) or 'missing'}: give 'key' and one of {units}")
    if "spread" in columns:
        raise InputError(f"{source}: column 'spread' has no unit: name it spread_{found[0]}")
    allowed = ("key", f"mean_{found[0]}", f"spread_{found[0]}", "count")
    for column in columns:
        if column not in allowed:
            raise unknown("column", column, allowed, source)
        if columns.count(column) > 1:
            raise InputError(f"{source}: column '{column}' is there twice: keep one")
    return found[0]


def table_text(table: LookupTable, unit: str = "ms") -> str:
    """The text of the file of a table, times in `unit`: what `parse_table` reads.

    Example:
        >>> table = load_table("pixel1_proxylessnas")
        >>> parse_table(table_text(table), table.name).rows.keys() == table.rows.keys()
        True
    """
    one = SECONDS[unit]
    head: dict[str, Any] = {key: getattr(table, key) for key in REQUIRED} | {
        "date": datetime.date.fromisoformat(table.date)
    }
    if table.constant_meaning:
        head |= {f"constant_{unit}": table.constant_s / one, "constant_meaning": table.constant_meaning}
    head |= {key: getattr(table, key) for key in ("threads", "space", "notes") if getattr(table, key)}
    out = io.StringIO()
    out.writelines(f"# {key} = {_toml(value)}\n" for key, value in head.items())
    writer = csv.writer(out, lineterminator="\n")
    spread = any(row.spread_s is not None for row in table.rows.values())
    count = any(row.count is not None for row in table.rows.values())
    writer.writerow(["key", f"mean_{unit}", *[f"spread_{unit}"] * spread, *["count"] * count])
    for key, row in table.rows.items():
        cells = [key, BASELINE if row.baseline else _decimal(row.mean_s / one)]
        cells += ["" if row.spread_s is None else _decimal(row.spread_s / one)] * spread
        writer.writerow(cells + ["" if row.count is None else str(row.count)] * count)
    return out.getvalue()


def _decimal(value: float) -> str:
    return f"{value:.9g}"


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # text of JSON is text of TOML
    return _decimal(value) if isinstance(value, float) else str(value)
