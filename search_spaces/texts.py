"""From what a person types to a network or a space.

Accepted wherever a network is: network text (`space[option=value]:3.1.0#fingerprint`), the name of a space, the name of
a published network, or the path of an `architecture.json`.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw_models import discover
from hw_models.errors import InputError
from search_spaces.encoding import space_from_json, split_text
from search_spaces.space import SearchSpace

SPACES = "search_spaces.spaces"
REFERENCES = "search_spaces.references"


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


def resolve(text: str) -> Resolved:
    """What `text` stands for.

    Raises:
        InputError: an unknown name (the nearest is suggested), an option the space does not have, wrong genes, a file
            that is not an architecture.

    Example:
        >>> resolve("mobilenet_v3_small").network().name
        'mobilenet_v3_small'
        >>> resolve("tiny[classes=5]:1.0.0.0.0.0").network().classes
        5
    """
    if text.endswith(".json") or "/" in text.partition(":")[0].partition("[")[0]:
        return Resolved(text, _from_file(Path(text)))
    name, options, genes, mark = split_text(text)
    spaces, references = discover.names(SPACES), discover.names(REFERENCES)
    if name in references and name not in spaces:
        space = _build(discover.load(REFERENCES, name, "network", "network"), name, options)
        if genes:
            raise InputError(f"'{name}' is a published network and has no genes: drop ':{genes}'")
        return Resolved(text, space)
    if "." not in name and name not in spaces:
        raise discover.unknown("network or space", name, (*spaces, *references))
    space = _build(discover.load(SPACES, name, "space", "space"), name, options)
    if ":" not in text:
        return Resolved(text, space)
    return Resolved(text, space, space.parse(f"{space.name}:{genes}{'#' + mark if mark else ''}"))


def _build(factory: Callable[..., SearchSpace], name: str, options: dict[str, str]) -> SearchSpace:
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known:
            raise discover.unknown(f"option of {name}", option, known)
    return factory(**{option: _value(value) for option, value in options.items()})


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _from_file(path: Path) -> SearchSpace:
    file = path / "architecture.json" if path.is_dir() else path
    try:
        tree = json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"no file {file}: give network text, a name, or the path of an architecture.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}): export the network again") from error
    if not isinstance(tree, dict) or "space" not in tree:
        raise InputError(f"{file} is not an architecture.json of flynas: it has no 'space'")
    return space_from_json(tree["space"])
