"""The one exception for input a person can fix, and the check of a number that raises it.

The command line prints its message as one line and exits with code 2, so a message names the value that was
given, what is allowed, and the fix.
"""


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
