"""Which options a space was made with, kept in the space."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from search_spaces.options import annotation_of, check
from search_spaces.space import SearchSpace


def recorded(factory: Callable[..., SearchSpace]) -> Callable[..., SearchSpace]:
    """Decorator of `space(...)` and `network(...)` functions: keeps the options that are not defaults in the space.

    They become part of its network texts (`quickstart[classes=5]:...`), so that a text names the same space again.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> tiny.space(classes=5).options, tiny.space(classes=10).options
        ((('classes', 5),), ())
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def build(*args: Any, **kwargs: Any) -> SearchSpace:
        given = signature.bind(*args, **kwargs).arguments
        for name, value in given.items():
            annotation = annotation_of(signature.parameters[name])
            check(name, value, annotation)
            if annotation == "float":
                given[name] = float(value)  # 2 and 2.0 are one space, with one text
            elif isinstance(value, list):
                given[name] = tuple(value)
        changed = {name: value for name, value in given.items() if value != signature.parameters[name].default}
        return dataclasses.replace(factory(**given), options=tuple(sorted(changed.items())))

    return build
