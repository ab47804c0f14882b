"""What a picture of a space says in words: fields of blocks, values, counts, ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from search_spaces.choice import Choice
from search_spaces.slots import Case, Slot


def told_apart(slot: Slot, kind: str) -> list[str]:
    """Fields that tell the cases of one kind of block apart.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> told_apart(tiny.space().slots[1], "inverted_residual")
        []
    """
    alike = [case.block for case in slot.cases if case.block.kind == kind]
    names = [field.name for field in dataclasses.fields(alike[0])]
    return [name for name in names if len({getattr(block, name) for block in alike}) > 1]


def fields(case: Case, names: Sequence[str]) -> list[str]:
    """Names and values of those of the fields that are not searched.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> fields(tiny.space().slots[0].cases[0], ["kernel"])
        ['kernel 3']
    """
    values = {name: getattr(case.block, name) for name in names if name not in dict(case.decisions)}
    values = {name: value.values[0] if isinstance(value, Choice) else value for name, value in values.items()}
    return [f"{name.replace('_', ' ')} {value_text(value)}" for name, value in values.items()]


def fixed_fields(case: Case, apart: Sequence[str]) -> list[str]:
    """Fields that are not searched and say how large the block is, and searchable ones that are not as usual.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> fixed_fields(tiny.space().slots[0].cases[0], apart=[])
        ['kernel 3']
    """
    block, shown = case.block, []
    for field in dataclasses.fields(block):
        value = getattr(block, field.name)
        number = isinstance(value, int | float | tuple) and not isinstance(value, bool)
        searchable = field.name in (*block.BRANCHES, *block.ELASTIC)
        telling = field.name in ("kernel", "expand") or (searchable and number)
        if telling or ((searchable or number) and value != field.default):
            shown.append(field.name)
    if getattr(block, "hidden", None) and "expand" in shown:
        shown.remove("expand")
    return fields(case, [name for name in shown if name not in apart])


def block_numbers(slots: Sequence[Slot]) -> str:
    """Which blocks of their stage these are.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> block_numbers([slot for slot in tiny.space().slots if slot.name.startswith("stages/0/")])
        'block 0'
    """
    first, last = (slot.name.rpartition("/")[2] for slot in (slots[0], slots[-1]))
    return f"block {first}" if first == last else f"blocks {first}\N{EN DASH}{last}"


def value_text(value: Any) -> str:
    """A value of a field as a person writes it.

    Example:
        >>> value_text(None), value_text(True), value_text((3, 5)), value_text(0.25)
        ('none', 'yes', '3/5', '0.25')
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return "/".join(map(value_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what is counted.

    Example:
        >>> counted(1, "class", "classes"), counted(1000, "class", "classes")
        ('1 class', '1,000 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def ends(values: Sequence[Any]) -> str:
    """Few values in full, of more the first and the last.

    Example:
        >>> ends([1, 2]), ends([1, 2, 3, 4])
        ('1, 2', '1 … 4')
    """
    if len(values) <= 3:
        return ", ".join(map(str, values))
    return f"{values[0]} \N{HORIZONTAL ELLIPSIS} {values[-1]}"


def span(name: str, values: Sequence[int]) -> str:
    """A name with its value, or with the first and last of several.

    Example:
        >>> span("width", [16]), span("width", [8, 16])
        ('width 16', 'width 8 … 16')
    """
    return f"{name} {values[0]}" if len(values) == 1 else f"{name} {values[0]} \N{HORIZONTAL ELLIPSIS} {values[-1]}"


def short(size: int) -> str:
    """A whole number, exact to twelve digits.

    Example:
        >>> short(6561), short(9**22)
        ('6,561', '9.8×10²⁰')
    """
    if size < 10**12:
        return f"{size:,}"
    factor, _, power = f"{Decimal(size):.1e}".partition("e+")
    return f"{factor}\N{MULTIPLICATION SIGN}10{power.translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
