"""Measured tables of other projects as our own: keys of once-for-all, FBNet blocks, the linear model of TuNAS.

Each format is a function from the lines of a CSV to entries of a table; `convert` adds what the file does not say and
checks the whole.

- `once_for_all`: columns `key` (see `nas.once_for_all_keys`), a mean, and optionally `std_ms` and `count`. Times.
- `fbnet`: columns `in_hw`, `c_in`, `c_out`, `stride`, `op` (`k3_e6`, `k5_e1_g2`, `skip`) and a mean, the difference to
  the skip of the same layer.
- `tunas`: columns `layer` (-1 is the constant), `stride`, `residual`, `op`, `kernel`, `expansion` and a coefficient.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.lookup_table import LookupTable
from hw_models.table_files import parse_table, table_text
from hw_models.table_keys import block_key
from hw_models.table_rows import BASELINE, SECONDS, Entry, checked, number_of
from nas.once_for_all_keys import layers_of_key
from search_spaces.block import Block, BlockIO
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.skip import Skip
from search_spaces.positions import position_key, space_text
from search_spaces.space import SearchSpace
from search_spaces.spaces import fbnet as fbnet_space

Line = Mapping[str, str]


class Foreign(NamedTuple):
    """What was read: entries, and the time of the baseline in the unit of the column, where the file has it."""

    entries: list[Entry]
    constant: float | None = None


def read_lines(path: str | Path, where: Sequence[str] = ()) -> list[dict[str, str]]:
    """The lines of a CSV by column, those of them for which `where` (`device=note10`) holds; `#` starts a comment.

    Raises:
        InputError: no such file, not CSV, a column that is not there, or nothing left.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"table file '{path}' does not exist: give the path of a .csv file")
    try:
        text = [line for line in file.read_text("utf-8-sig").splitlines() if line.strip() and line[0] != "#"]
        lines = list(csv.DictReader(text, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not CSV ({error}): export the table as comma-separated values") from error
    for number, line in enumerate(lines, 1):
        if None in line or None in line.values():
            raise InputError(f"{path}, row {number}: it has more or fewer cells than there are columns: correct it")
    for condition in where:
        column, equals, value = condition.partition("=")
        if not equals:
            raise InputError(f"'{condition}' is no condition: write column=value")
        require_columns(lines, (column,), str(path))
        lines = [line for line in lines if line[column] == value]
    if not lines:
        raise InputError(f"{path}: no lines{' for which ' + ' and '.join(where) if where else ''}: check the file")
    return lines


def require_columns(lines: Sequence[Line], columns: Sequence[str], source: str) -> None:
    """Raise InputError unless every one of `columns` is there.

    Example:
        >>> require_columns([{"key": "a"}], ("key",), "mine.csv")
    """
    for column in columns:
        if lines and column not in lines[0]:
            raise unknown("column", column, [name for name in lines[0] if name], source)


def unit_of(column: str) -> str:
    """The unit in the name of a column.

    Raises:
        InputError: there is none.

    Example:
        >>> unit_of("raspi4_ms_minus_skip"), unit_of("mean_us")
        ('ms', 'us')
    """
    found = [word for word in column.split("_") if word in SECONDS]
    if len(found) != 1:
        raise InputError(
            f"column '{column}' does not name its unit: rename it so that it has one of {', '.join(SECONDS)}"
        )
    return found[0]


def once_for_all(lines: Sequence[Line], column: str, space: SearchSpace | None, source: str) -> Foreign:
    """Blocks by once-for-all keys.

    Example:
        >>> key = "expanded_conv-input:14x14x8-output:14x14x8-expand:3-kernel:3-stride:1-idskip:1"
        >>> once_for_all([{"key": key, "mean_ms": "2"}], "mean_ms", None, "mine.csv").entries[0].key
        'conv 14x14x8>14x14x24 + depthwise 14x14x24>14x14x24 k3 + conv 14x14x24>14x14x8 + add 14x14x8>14x14x8'
    """
    require_columns(lines, ("key", column), source)
    spread = f"std_{unit_of(column)}"
    entries = []
    for number, line in enumerate(lines, 1):
        where = f"{source}, row {number}"
        key = block_key(layers_of_key(line["key"], where))
        entries.append(Entry(where, key, line[column], line.get(spread) or "", line.get("count") or ""))
    return Foreign(entries)


def fbnet(lines: Sequence[Line], column: str, space: SearchSpace | None, source: str) -> Foreign:
    """Differences of FBNet blocks to the skip of the same layer; `space` says what stem, head and skips are.

    Example:
        >>> line = {"in_hw": "32", "c_in": "16", "c_out": "16", "stride": "1", "op": "k3_e1", "raspi4_ms": "0.6"}
        >>> found = fbnet([line], "raspi4_ms", fbnet_space.space(32, features=1504), "mine.csv")
        >>> found.entries[0].mean, found.entries[1].key, found.entries[1].mean
        ('baseline', 'conv 32x32x16>32x32x24', 'baseline')
    """
    space = _require_space(space, "fbnet", source)
    require_columns(lines, ("in_hw", "c_in", "c_out", "stride", "op", column), source)
    entries, layouts = [], set()
    for slot in space.slots:
        io = slot.only_io()
        if slot.kind_decision is not None:
            layouts.add((io.in_h, io.in_channels, io.out_channels, io.stride))
            layers = Skip(project=True).lower(io)
        else:
            layers = slot.cases[0].block.lower(io)
        if layers:  # a skip that changes nothing has none
            entries.append(Entry(f"{space.name}, {slot.name}", block_key(layers), BASELINE))
    for number, line in enumerate(lines, 1):
        where = f"{source}, row {number}"
        hw, into, out, stride = (_whole(line[name], name, where) for name in ("in_hw", "c_in", "c_out", "stride"))
        if (hw, into, out, stride) not in layouts:
            raise InputError(
                f"{where}: {hw}x{hw}x{into} to {out} channels at stride {stride} is no layer of {space_text(space)}"
            )
        if line["op"] not in fbnet_space.BLOCKS:
            raise unknown("block", line["op"], fbnet_space.BLOCKS, where)
        block = fbnet_space.BLOCKS[line["op"]]
        if isinstance(block, Skip):
            if number_of(line[column], column, where) != 0:
                raise InputError(f"{where}: a skip is {line[column]}: give differences to the skip, which is then 0")
            continue
        entries.append(Entry(where, block_key(block.lower(BlockIO(hw, hw, into, out, stride))), line[column]))
    return Foreign(entries)


def tunas(lines: Sequence[Line], column: str, space: SearchSpace | None, source: str) -> Foreign:
    """The coefficients of a linear model by layer and choice; layer -1 is the constant.

    Example:
        >>> from search_spaces.spaces import proxylessnas
        >>> line = {"layer": "2", "stride": "1", "residual": "1", "op": "skip", "kernel": "0", "expansion": "0"}
        >>> tunas([line | {"coef_ms": "-9.7"}], "coef_ms", proxylessnas.space(), "mine.csv").entries[0][1:3]
        ('stages/1/1:skip', '-9.7')
    """
    space = _require_space(space, "proxylessnas", source)
    require_columns(lines, ("layer", "stride", "residual", "op", "kernel", "expansion", column), source)
    slots = space.slots[1:-1]
    entries, constant = [], None
    for number, line in enumerate(lines, 1):
        where = f"{source}, row {number}"
        if line["layer"].strip() == "-1":
            if constant is not None:
                raise InputError(f"{where}: repeats the constant (layer -1): keep one")
            constant = number_of(line[column], column, where)
            continue
        layer = _whole(line["layer"], "layer", where)
        if layer >= len(slots):
            raise InputError(
                f"{where}: layer {layer} of {len(slots)} (0 to {len(slots) - 1}) in the space {space.name}"
            )
        slot = slots[layer]
        io = slot.only_io()
        adds = io.stride == 1 and io.in_channels == io.out_channels
        if _whole(line["stride"], "stride", where) != io.stride or (line["residual"] == "1") != (adds and layer > 0):
            raise InputError(
                f"{where}: stride or residual of layer {layer} are not those of {slot.name} in {space.name}"
            )
        key = position_key(space, slot.name, _tunas_block(line, where), io)
        if key is None:
            raise InputError(
                f"{where}: {slot.name} of {space.name} has one choice only: give the space that was modelled"
            )
        entries.append(Entry(where, key, line[column]))
    return Foreign(entries, constant)


def _tunas_block(line: Line, where: str) -> Block:
    kinds: dict[str, Callable[[], Block]] = {
        "skip": Skip,
        "sepconv": lambda: InvertedResidual(_whole(line["kernel"], "kernel", where), 1),
        "mbconv": lambda: InvertedResidual(
            _whole(line["kernel"], "kernel", where), _whole(line["expansion"], "expansion", where)
        ),
    }
    if line["op"] not in kinds:
        raise unknown("operation", line["op"], kinds, where)
    return kinds[line["op"]]()


def _require_space(space: SearchSpace | None, name: str, source: str) -> SearchSpace:
    if space is None:
        raise InputError(f"{source}: this format needs the space that was measured, such as {name}[input_hw=32]")
    if space.name != name:
        raise InputError(f"{source}: this format is of the space {name}, not {space.name}")
    return space


def _whole(text: str, name: str, where: str) -> int:
    if not text.strip().isdecimal():
        raise InputError(f"{where}: {name} is '{text}': give a whole number")
    return int(text)


class Format(NamedTuple):
    """How a foreign table becomes ours: the function that reads it, and what its rows are."""

    read: Callable[[Sequence[Line], str, SearchSpace | None, str], Foreign]
    level: str
    values: str
    column: str  # of the times, unless another is named


FORMATS = {
    "once_for_all": Format(once_for_all, "block", "time", "mean_ms"),
    "fbnet": Format(fbnet, "block", "difference", "mean_ms"),
    "tunas": Format(tunas, "position", "difference", "coef_ms"),
}


def convert(
    lines: Sequence[Line],
    form: str,
    name: str,
    source: str,
    header: Mapping[str, Any],
    column: str | None = None,
    space: SearchSpace | None = None,
    constant: float | None = None,
) -> LookupTable:
    """The lines of a foreign table as a table of ours, checked as if it were read from a file.

    Args:
        lines: see `read_lines`.
        form: a name in `FORMATS`.
        name: of the new table.
        source: what errors call the lines.
        header: what the file does not say: device, kind, precision, runtime, batch, source, licence, date, ...
        column: the one that holds times, its unit in its name; the usual one of the format unless given.
        space: which one was measured, where the format needs it.
        constant: time of the baseline in the unit of the column, where the file does not hold it.

    Raises:
        InputError: what is wrong, with the row.
    """
    if form not in FORMATS:
        raise unknown("format of tables", form, FORMATS)
    chosen = FORMATS[form]
    column = column or chosen.column
    unit = unit_of(column)
    found = chosen.read(lines, column, space, source)
    fields = {"level": chosen.level, "values": chosen.values, **header}
    constant = found.constant if constant is None else constant
    if constant is not None:
        fields["constant_s"] = constant * SECONDS[unit]
    if chosen.level == "position" and space is not None:
        fields["space"] = space_text(space)
    table = LookupTable(name=name, rows=checked(found.entries, unit, fields, source, column), **fields)
    return parse_table(table_text(table, unit), name)
