"""A `Choice` stands wherever a value may be searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hw_models.errors import InputError


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values, to be decided by the search.

    One without values is refused by the space that it is used in, which can say where.

    Raises:
        InputError: a value twice, or one that has no hash (a list).

    Example:
        >>> Choice(3, 5, 7).values
        (3, 5, 7)
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any):
        try:
            twice = len(set(values)) < len(values)
        except TypeError:
            raise InputError(f"Choice{values} holds a value without a hash: give tuples for lists") from None
        if twice:
            raise InputError(f"Choice{values} repeats a value: give each value once")
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"


def options(field: Any) -> tuple[Any, ...]:
    """The values that `field` may take: those of a `Choice`, or the one value itself.

    Example:
        >>> options(Choice(3, 5)), options(3)
        ((3, 5), (3,))
    """
    return field.values if isinstance(field, Choice) else (field,)


def options_at(path: str, field: Any) -> tuple[Any, ...]:
    """The `options` of `field`, of which there must be one; `path` says where it is.

    Raises:
        InputError: a `Choice` without values.

    Example:
        >>> options_at("stages/0/depth", Choice())
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: stages/0/depth: an empty Choice() cannot be searched: give at least one value
    """
    found = options(field)
    if not found:
        raise InputError(f"{path}: an empty Choice() cannot be searched: give at least one value")
    return found
