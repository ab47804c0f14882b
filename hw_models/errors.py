"""The one exception for input a person can fix.

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
