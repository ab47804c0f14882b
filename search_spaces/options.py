"""Options as people give them, text or Python values, checked against the annotations of what takes them.

An annotation is text: `int`, `float | None`, `tuple[str, ...]`, `Mapping[str, float]`. One with any other name in it
(`Any`, a class) allows everything: what takes the option has to check it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any


def _finite(value: float) -> bool:
    """Whether `value` is a number that arithmetic can use; whole numbers may be too large for it."""
    return isinstance(value, int) or math.isfinite(value)


OPEN = object()  # stands for the current value of an option that has none
# names in annotations: a test of values, and what a person calls them
NAMES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "float": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and _finite(value),
        "a number",
    ),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "text"),
    "PathLike": (lambda value: isinstance(value, os.PathLike), "a path"),
    "None": (lambda value: value is None, "None"),
    "tuple": (lambda value: isinstance(value, tuple | list), "a tuple such as ('a', 'b')"),
    "list": (lambda value: isinstance(value, tuple | list), "a list"),
    "dict": (lambda value: isinstance(value, Mapping), "a dict such as {'a': 1}"),
    "Mapping": (lambda value: isinstance(value, Mapping), "a dict such as {'a': 1}"),
}


def bracketed(text: str, what: str) -> tuple[str, dict[str, str]]:
    """`name[option=value,...]` as the name and the options, still text; `what` names the whole in errors.

    Raises:
        InputError: no closing bracket, an option that is not `name=value`, or one given twice.

    Example:
        >>> bracketed("tiny[classes=5]", "network text")
        ('tiny', {'classes': '5'})
    """
    from hw_models.errors import InputError

    name, bracket, inside = text.partition("[")
    if bracket and not inside.endswith("]"):
        raise InputError(f"{what}: the options after '[' need a closing ']'")
    chosen: dict[str, str] = {}
    # not at the commas of a tuple: `widths=(32, 16),width=0.5`
    for part in filter(None, re.split(r",(?![^(]*\))", inside.removesuffix("]"))):
        option, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{what}: option '{part}' needs the form name=value")
        if option.strip() in chosen:
            raise InputError(f"{what}: option '{option.strip()}' is given twice: keep one")
        chosen[option.strip()] = value.strip()
    return name.strip(), chosen


def annotation_of(entry: inspect.Parameter, default: bool = False) -> str:
    """The annotation of a parameter as text; with `default`, the type of its default where it has none.

    Example:
        >>> def build(classes: int = 10, *, size=8): ...
        >>> [annotation_of(entry, default=True) for entry in inspect.signature(build).parameters.values()]
        ['int', 'int']
    """
    if entry.annotation is entry.empty:
        return _of_value(entry.default) if default and entry.default is not entry.empty else ""
    return entry.annotation if isinstance(entry.annotation, str) else inspect.formatannotation(entry.annotation)


def _of_value(value: Any) -> str:
    return "" if value is None or value is OPEN else type(value).__name__


@functools.cache
def _parts(annotation: str) -> tuple[str, ...]:
    """The alternatives of a union, not those inside brackets."""
    return tuple(part.strip() for part in re.split(r"\|(?![^\[]*\])", annotation) if part.strip())


@functools.cache
def _heads(annotation: str) -> tuple[str, ...]:
    """Names of the alternatives, or nothing where any value will do."""
    found = tuple(part.partition("[")[0].rpartition(".")[2] for part in _parts(annotation))
    return found if all(name in NAMES for name in found) else ()


def _allows(annotation: str, value: Any) -> bool:
    if not _heads(annotation):
        return True
    for part in _parts(annotation):
        head, _, inside = part.removesuffix("]").partition("[")
        if NAMES[head.rpartition(".")[2]][0](value):
            items = inside.removesuffix(", ...") if inside.endswith(", ...") else ""
            if not items or all(_allows(items, item) for item in value):
                return True
    return False


def check(path: str, value: Any, annotation: str) -> None:
    """Check a Python value of option `path`; entries of a mapping are checked, and named, one by one.

    Raises:
        InputError: a value of another type than the annotation allows.

    Example:
        >>> check("final", {"epochs": "a"}, "Mapping[str, int]")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: final.epochs='a' is not allowed: give a whole number
    """
    from hw_models.errors import InputError

    entries = re.fullmatch(r"(?:Mapping|dict)\[str, (.+)\]", annotation) if isinstance(value, Mapping) else None
    if entries:
        for name, item in value.items():
            check(f"{path}.{name}", item, entries[1])
    elif not _allows(annotation, value):
        wanted = " or ".join(NAMES[name][1] for name in _heads(annotation))
        raise InputError(f"{path}={value!r} is not allowed: give {wanted}")


def typed(path: str, text: str, annotation: str, current: Any = OPEN) -> Any:
    """The value that `text` stands for, of a type that the annotation of option `path`, or else `current`, allows.

    Text is a Python literal, or else itself; `a,b` is a tuple of names.

    Raises:
        InputError: a value of another type.

    Example:
        >>> typed("steps", "5", "int", 10), typed("minimize", "error,macs", "tuple[str, ...]")
        (5, ('error', 'macs'))
    """
    from hw_models.errors import InputError

    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = {"true": True, "false": False}.get(text, text)
    annotation = annotation or _of_value(current)
    heads = _heads(annotation)
    if "tuple" in heads and isinstance(value, str) and ("," in value or "str" not in heads):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    if "tuple" in heads and isinstance(value, list):
        value = tuple(value)
    if "float" in heads and "int" not in heads and type(value) is int and abs(value) < 2**1000:
        value = float(value)
    if "str" in heads and "tuple" not in heads and "int" not in heads and type(value) in (int, float):
        value = text
    if not _allows(annotation, value):
        wanted = " or ".join("names a,b" if name == "tuple" else NAMES[name][1] for name in heads)
        now = "" if current is OPEN else f" (now {current!r})"
        raise InputError(f"{path}={text} is not allowed: give {wanted}{now}")
    return value
