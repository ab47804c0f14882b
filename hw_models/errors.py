"""The one exception for input a person can fix, and the checks of numbers that raise it.

The command line prints its message as one line and exits with code 2, so a message names the value that was
given, what is allowed, and the fix.
"""

import math
from typing import Any


class InputError(ValueError):
    """Raised for bad input: an unknown name, a malformed file, a limit that nothing meets.

    Example:
        >>> raise InputError("width 0 is not allowed: give a positive multiple of 8")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: width 0 is not allowed: give a positive multiple of 8
    """


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise InputError unless `value` lies between `low` and `high`, both allowed; `name` is what a person calls it.

    Example:
        >>> check_range("distillation", 1.5, 0, 1)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: distillation=1.5 is out of range: give 0 to 1
    """
    if not low <= value <= high:
        raise InputError(f"{name}={value} is out of range: give {low} to {high}")


def number(name: str, value: Any, low: float, high: float = math.inf, *, lowest: bool = False) -> float:
    """`value` as a float.

    Raises:
        InputError: it is no finite number between `low` (which is allowed with `lowest`) and `high`.

    Example:
        >>> number("learning_rate", 0, 0)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: learning_rate 0 is not allowed: give a number above 0
    """
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not right or value < low or value > high or (value == low and not lowest):
        upper = "" if high == math.inf else f" to {high:g}"
        raise InputError(
            f"{name} {value!r} is not allowed: give a number {'from' if lowest else 'above'} {low:g}{upper}"
        )
    return float(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int.

    Raises:
        InputError: it is no whole number from `low` to `high`.

    Example:
        >>> whole("epochs", 4, 1, 64)
        4
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} {value!r} is not allowed: give a whole number from {low} to {high}")
    return value
