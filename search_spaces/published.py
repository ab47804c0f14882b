"""Published networks: the table that the files of `search_spaces/references` fill.

Every file defines `NETWORKS`, names and what is known of them. Where no space holds a network it is a frozen tree;
where the paper's network is not rebuilt here, its numbers stand alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from hw_models import discover
from hw_models.errors import InputError
from search_spaces.space import SearchSpace

PACKAGE = "search_spaces.references"


class Published(NamedTuple):
    """One published network.

    Attributes:
        network: makes the frozen space; called with `input_hw`, `input_channels`, `classes`. None: numbers only.
        params: trainable parameters as the paper reports them, None where it does not.
        macs: multiply-accumulates as the paper reports them, whatever it calls them; None where it does not.
        source: where the numbers stand.
        note: what explains a difference from ours.
    """

    network: Callable[..., SearchSpace] | None
    params: float | None
    macs: float | None
    source: str
    note: str = ""


@cache
def table() -> dict[str, Published]:
    """Every published network by its name, sorted.

    Example:
        >>> table()["mobilenet_v2"].macs
        300000000.0
    """
    found: dict[str, Published] = {}
    for file in discover.names(PACKAGE):
        entries = discover.load(PACKAGE, file, "NETWORKS", "file of published networks")
        twice = set(entries) & set(found)
        if twice:
            raise InputError(f"published network '{min(twice)}' is defined twice: rename one in {PACKAGE}.{file}")
        found |= entries
    return dict(sorted(found.items()))


def names(built: bool = True) -> tuple[str, ...]:
    """Names of the published networks, all of them or those that can be built.

    Example:
        >>> "mobilenet_v3_small" in names()
        True
    """
    return tuple(name for name, entry in table().items() if entry.network is not None or not built)


def factory(name: str) -> Callable[..., SearchSpace]:
    """The function that makes published network `name`; its options are keyword arguments.

    Strides stay as published, so that images much smaller than the paper's are refused.

    Raises:
        InputError: no such network, or one of which only the numbers are known.

    Example:
        >>> factory("mobilenet_v3_small")(classes=10).classes
        10
    """
    if name not in table():
        raise discover.unknown("published network", name, names())
    network = table()[name].network
    if network is None:
        raise InputError(f"of '{name}' only the paper's numbers are known ({table()[name].source}): it cannot be built")
    return network
