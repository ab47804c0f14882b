"""From what a person types to a network or a space.

Accepted wherever a network is: network text (`space[option=value]:3.1.0#fingerprint`), the name of a space, the name of
a published network, or the path of an exported folder or its `architecture.json`.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw_models import discover
from hw_models.errors import InputError
from search_spaces import published
from search_spaces.encoding import (
    ARCHITECTURE,
    check_mark,
    has_genes,
    head_and_genes,
    read_architecture,
    space_from_json,
    split_text,
)
from search_spaces.options import annotation_of, typed
from search_spaces.space import SearchSpace

SPACES = "search_spaces.spaces"


class Resolved(NamedTuple):
    """What a text stands for: a space, and genes `[D]` when it names one network of it."""

    name: str
    space: SearchSpace
    genes: np.ndarray | None = None

    def network(self) -> SearchSpace:
        """The frozen space.

        Raises:
            InputError: the text names a space with decisions and no genes.
        """
        if self.genes is not None:
            return self.space.freeze(self.genes)
        if not self.space.frozen:
            raise InputError(
                f"'{self.name}' is a space of {self.space.size:,} networks, not one network: add genes after a colon, "
                f"such as {self.space.text(np.zeros(self.space.num_decisions, np.int32))}"
            )
        return self.space


def resolve(text: str, prefer_space: bool = False) -> Resolved:
    """What `text` stands for. A name that a space and a published network share is the network, unless `prefer_space`.

    Raises:
        InputError: an unknown name (the nearest is suggested), an option the space does not have or of another type,
            wrong genes, a fingerprint that differs, a file that is not an architecture.

    Example:
        >>> resolve("mobilenet_v3_small").network().name
        'mobilenet_v3_small'
        >>> resolve("tiny[classes=5]:1.0.0.0.0.0").network().classes
        5
    """
    spaces, references = discover.names(SPACES), published.names(built=False)
    is_path = text.endswith(".json") or "/" in head_and_genes(text)[0].partition("[")[0]
    if is_path or (text not in (*spaces, *references) and os.path.isfile(Path(text) / ARCHITECTURE)):
        return Resolved(text, space_from_json(read_architecture(text)["space"]))
    name, options, genes, mark = split_text(text)
    if prefer_space and name in references and name not in spaces:
        raise InputError(f"'{name}' is a published network, not a space: leave out --space")
    if name in references and not (name in spaces and (has_genes(text) or prefer_space)):
        space = _published(name, options)
        if has_genes(text):
            raise InputError(f"'{name}' is a published network and has no genes: drop ':{genes}'")
        check_mark(space, mark, text)
        return Resolved(text, space)
    if not discover.is_dotted(name) and name not in spaces:
        raise discover.unknown("network or space", name, sorted({*spaces, *published.names()}))
    space = _build(discover.load(SPACES, name, "space", "space"), name, options)
    check_mark(space, mark, text)
    if not has_genes(text):
        return Resolved(text, space)
    return Resolved(text, space, space.parse(f"{space.name}:{genes}"))


def _published(name: str, options: dict[str, str]) -> SearchSpace:
    factory = published.factory(name)
    try:
        return _build(factory, name, options)
    except InputError as error:
        others = {option: value for option, value in options.items() if option != "input_hw"}
        usual = _build(factory, name, others).input_hw  # wrong options are named here
        least = _least_input(factory, name, options, usual)
        if least is None:
            raise
        raise InputError(
            f"{name}: input_hw={options['input_hw']} is too small for its strides, which are kept as published "
            f"({str(error).rpartition(': give')[0] or error}): give at least {least}"
        ) from None


def _least_input(factory: Callable[..., SearchSpace], name: str, options: dict[str, str], usual: Any) -> int | None:
    """The least input that can be built above that of `options`; None where its size is not what is wrong."""
    if not options.get("input_hw", "").isdecimal() or int(options["input_hw"]) < 1:
        return None
    for size in range(int(options["input_hw"]) + 1, usual + 1):
        try:
            _build(factory, name, {**options, "input_hw": str(size)})
            return size
        except InputError:
            continue
    return None


def _build(factory: Callable[..., SearchSpace], name: str, options: dict[str, str]) -> SearchSpace:
    return _built(factory, name, tuple(options.items()))


@functools.lru_cache(maxsize=16)
def _built(factory: Callable[..., SearchSpace], name: str, options: tuple[tuple[str, str], ...]) -> SearchSpace:
    """Spaces never change, and files of measured networks name one thousands of times."""
    known = inspect.signature(factory).parameters
    given = {}
    for option, text in options:
        if option not in known:
            raise discover.unknown(f"option of {name}", option, known)
        given[option] = typed(f"{name}: option {option}", text, annotation_of(known[option], default=True))
    for option, entry in known.items():
        if entry.default is entry.empty and option not in given and entry.kind is not entry.VAR_KEYWORD:
            raise InputError(f"{name} needs option '{option}': write {name}[{option}=...]")
    return factory(**given)
